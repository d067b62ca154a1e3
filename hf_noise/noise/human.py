"""Labels of real annotators beside the true ones, such as those of CIFAR-10N and CIFAR-100N."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from hf_noise.noise.arrays import check_num_classes, integers
from hf_noise.noise.base import Noise, Unit
from hf_noise.noise.labels import LabelFlips
from hf_noise.noise.transition import ClassConditional, rates_of

__all__ = ["HumanLabels"]

_CLASS_BITS = 14  # counts of 2^28 cells
#: Their sum has to be exact in int64.
_MOST_COUNTED = 1 << 40


@dataclass(frozen=True, kw_only=True)
class HumanLabels(ClassConditional, Noise):
    """Which labels annotators gave to samples of which class: made by `from_columns`, drawn by nobody.

    The value holds the counts, from which its matrix T and its rates follow, and fingerprints of both columns; not the
    labels themselves. So it can be stored in cards and checkpoints, and still refuses data that it does not belong to.
    Labels that rules gave (weak supervision) are such labels too.
    Annotators err on some samples more than on others of their class, which T does not say: `as_flips` draws noise of
    the same T without that.

    Attributes:
        name: what the labels are called, such as "worse".
        num_classes: C in [2, 2^14].
        counts: nested tuples [C][C], samples of class i that were labelled j; every class occurs.
        clean_sha256, human_sha256: fingerprints of the two columns.
        error_rate: share of all labels that differ from the true ones, in [0, 1].
        ratio: r = e / (1 - e), inf if all differ.

    Example:
        >>> human = HumanLabels.from_columns([0, 0, 1, 1], [0, 1, 1, 1], num_classes=2, name="worse")
        >>> human.error_rate, human.transition.tolist()
        (0.25, [[0.5, 0.5], [0.0, 1.0]])
    """

    protocol: ClassVar[str] = "human_labels"
    #: Nothing is drawn, so nothing is drawn anew.
    redraw: ClassVar[Literal["never"]] = "never"
    unit: ClassVar[Unit] = "labels"
    is_drawn: ClassVar[bool] = False

    name: str
    num_classes: int
    counts: tuple[tuple[int, ...], ...] = field(repr=False)
    clean_sha256: str
    human_sha256: str
    ratio: float = field(default=None, compare=False)  # type: ignore[assignment]
    error_rate: float = field(default=None, compare=False)  # type: ignore[assignment]

    @classmethod
    def from_columns(cls, clean: Any, human: Any, *, num_classes: int, name: str) -> HumanLabels:
        """From the true labels and those of the annotators, row by row.

        Args:
            clean: integers [N] in [0, C), array, tensor or list.
            human: integers [N] in [0, C).
            num_classes: C in [2, 2^14].
            name: what the labels are called.

        Raises:
            ValueError: the lengths differ, a label is outside [0, C) (how many, and the first index), or a class never
                occurs among the true labels, so that its row of T is unknown.
            TypeError: labels are not integers.
        """
        classes = check_num_classes(num_classes, _CLASS_BITS)
        clean, human = _column("clean", clean, classes), _column("human", human, classes)
        _check_length(clean, human)
        return cls(
            name=name, num_classes=classes, counts=_count(clean, human, classes),  # type: ignore[arg-type]
            clean_sha256=_fingerprint(clean), human_sha256=_fingerprint(human),
        )  # fmt: skip

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f'name must be a text such as "worse", got {self.name!r}')
        classes = check_num_classes(self.num_classes, _CLASS_BITS)
        counts = integers("counts", self.counts)
        if counts.shape != (classes, classes) or (counts < 0).any():
            raise ValueError(f"counts must be [{classes}, {classes}] integers >= 0, got shape {list(counts.shape)}")
        if counts.max() > _MOST_COUNTED:
            raise ValueError(f"counts must be numbers of samples up to 2^40, got {counts.max()}")
        counts = counts.astype(np.int64, copy=False)
        absent = np.flatnonzero(counts.sum(axis=1) == 0)
        if absent.size:
            raise ValueError(
                f"class {absent[0]} never occurs among the true labels ({absent.size} of {classes} classes do not), so "
                "nothing is known of its noise; give the whole data set, or the num_classes that it has"
            )
        for column in ("clean_sha256", "human_sha256"):
            digest = getattr(self, column)
            if not (isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
                raise ValueError(f"{column} must be 64 hexadecimal digits, got {digest!r}")
        e = 1 - int(np.trace(counts)) / int(counts.sum())
        r, e = rates_of(e, self.ratio, self.error_rate)
        given = {
            "name": str(self.name), "num_classes": classes, "counts": tuple(map(tuple, counts.tolist())), "ratio": r,
            "error_rate": e, "clean_sha256": str(self.clean_sha256), "human_sha256": str(self.human_sha256),
        }  # fmt: skip
        for name, value in given.items():
            object.__setattr__(self, name, value)

    def overall_error_rate(self, prior: Any = None) -> float:
        """Share of wrong labels: `error_rates` averaged over p(clean) [C], by default that of the data."""
        return super().overall_error_rate(self.prior if prior is None else prior)

    @property
    def variant(self) -> str:
        return self.name

    @property
    def summary(self) -> str:
        return f"Labels that people or rules gave ({self.name})"

    @property
    def if_not_drawn(self) -> str:
        return (
            f"the labels {self.name!r} were given by people, not drawn; put their column in place with "
            "noise.columns(clean, human), or draw labels at the same rates with noise.as_flips()"
        )

    def without_noise(self) -> LabelFlips:
        return LabelFlips.symmetric(ratio=0.0, num_classes=self.num_classes)

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to rebuild this value, as JSON-able values under the keys of its fields."""
        fields = super().to_dict() | {"counts": [list(row) for row in self.counts]}
        return {name: value for name, value in fields.items() if value != math.inf}

    @property
    def n(self) -> int:
        """Number of samples, N."""
        return sum(map(sum, self.counts))

    @property
    def transition(self) -> np.ndarray:
        """T[i, j], the share of samples of class i that were labelled j: float64 [C, C], a new array each time."""
        counts = np.array(self.counts, dtype=np.float64)
        return counts / counts.sum(axis=1, keepdims=True)

    @property
    def prior(self) -> np.ndarray:
        """Share of each true class, float64 [C]; `posterior(human.prior)` is that of the data themselves."""
        return np.array(self.counts, dtype=np.float64).sum(axis=1) / self.n

    def check(self, clean: Any) -> None:
        """Raise ValueError unless these are the true labels, in the order, that the value was made with.

        Args:
            clean: integers [N], array, tensor or list.
        """
        clean = _column("clean", clean, self.num_classes)
        if clean.size != self.n:
            raise ValueError(
                f"the human labels {self.name!r} belong to {self.n} samples, and the data have {clean.size}; "
                "use the split and the version of the data that were annotated"
            )
        if _fingerprint(clean) == self.clean_sha256:
            return
        ours, theirs = np.array(self.counts).sum(axis=1), np.bincount(clean, minlength=self.num_classes)
        if (ours == theirs).all():
            raise ValueError(
                f"the true labels are in another order than those the human labels {self.name!r} were given beside; "
                "bring the data back into the order of the annotated split before shuffling or selecting"
            )
        first = int(np.flatnonzero(ours != theirs)[0])
        raise ValueError(
            f"the true labels are not those the human labels {self.name!r} were given beside: class {first} occurs "
            f"{theirs[first]} times, there {ours[first]} times; check the split and the numbering of classes"
        )

    def columns(self, clean: Any, human: Any) -> tuple[np.ndarray, np.ndarray]:
        """The noisy column and its mask for a data set, once both columns are known to be the right ones.

        Args:
            clean: integers [N], the true labels of the data.
            human: integers [N], the annotators' labels.

        Returns:
            `(noisy, is_noisy)`, both [N]: the human labels, and where they differ from the true ones.

        Raises:
            ValueError: one of the columns has another length, order or content than those the value was made with.
        """
        self.check(clean)
        clean, human = _column("clean", clean, self.num_classes), _column("human", human, self.num_classes)
        _check_length(clean, human)
        if _fingerprint(human) != self.human_sha256:
            raise ValueError(
                f"the human column is not the one that {self.name!r} was made of; its rows may be in another order, or "
                "be the labels of other annotators"
            )
        return human, human != clean

    def as_flips(self, seed: int = 0, redraw: Literal["epoch", "never"] = "epoch") -> LabelFlips:
        """Synthetic noise of the same T, to compare with: wrong labels that depend on the class alone."""
        return LabelFlips.from_transition(self.transition, seed=seed, redraw=redraw)


def _column(name: str, values: Any, num_classes: int) -> np.ndarray:
    column = integers(f"{name} labels", values)
    if column.ndim != 1:
        raise ValueError(f"{name} labels must be a column [N], got shape {list(column.shape)}")
    outside = np.flatnonzero((column < 0) | (column >= num_classes))
    if outside.size:
        raise ValueError(
            f"{outside.size} of {column.size} {name} labels are outside [0, {num_classes}), the first at index "
            f"{outside[0]}: {column[outside[0]]}; every sample needs a class of its own and a label"
        )
    return column.astype(np.int64, copy=False)


def _check_length(clean: np.ndarray, human: np.ndarray) -> None:
    if clean.size != human.size:
        raise ValueError(f"there are {clean.size} clean labels and {human.size} human ones; each sample needs both")


def _count(clean: np.ndarray, human: np.ndarray, num_classes: int) -> np.ndarray:
    cells = np.bincount(clean * num_classes + human, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def _fingerprint(column: np.ndarray) -> str:
    """SHA-256 of the labels as 64-bit little-endian integers, so that the dtype of a column does not show."""
    return hashlib.sha256(column.astype("<i8").tobytes()).hexdigest()
