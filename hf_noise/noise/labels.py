"""Label noise of papers A and C: the class of a sample replaced by another one, given its true class alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from hf_noise.noise import alias, draws, labels_numpy, rates
from hf_noise.noise.arrays import check_batch, check_num_classes, integers, is_tensor
from hf_noise.noise.base import Noise, check_redraw
from hf_noise.noise.checks import check_choice, check_epoch, check_flag, check_seed
from hf_noise.noise.label_maps import check_label_map
from hf_noise.noise.transition import ClassConditional, check_matrix_size, check_transition, rates_of

__all__ = ["LABEL_PROTOCOLS", "LabelFlips"]

#: Kinds of `LabelFlips` that a noise ratio and a number of classes, for pairs also a map, make up.
LABEL_PROTOCOLS = ("symmetric", "uniform_resample", "cyclic", "pairs")

_CLASS_BITS = 20
_UNIFORM = ("symmetric", "uniform_resample")
_KINDS = (*LABEL_PROTOCOLS, "transition")
_SAME_RATE = 1e-9
_SUMMARIES = {
    "symmetric": "Labels become any other class, all alike",
    "uniform_resample": "Labels are drawn anew from all classes, the true one among them",
    "cyclic": "Labels become the next class, (y + 1) mod C",
    "pairs": "Labels of some classes become those of a similar class",
    "transition": "Labels are drawn from the row of their class in a transition matrix",
}

Redraw: TypeAlias = Literal["epoch", "never"]


@dataclass(frozen=True, kw_only=True)
class LabelFlips(ClassConditional, Noise):
    """Wrong labels by a transition matrix T[i, j] = p(noisy = j | clean = i): made by the class methods below.

    ===================  =================================================  ================  ===============
    made by              a label y becomes, with probability e = r/(1 + r)  wrong labels      breakdown point
    ===================  =================================================  ================  ===============
    `symmetric`          any class but y, all alike (A, algorithm 3)        e                 (C - 1)/C
    `uniform_resample`   any class, y too, all alike                        e (C - 1)/C       1
    `cyclic`             (y + 1) mod C (A, appendix L)                      e                 1/2
    `pairs`              the partner of y; others stay (C)                  e of the listed   1/2
    `from_transition`    drawn from row y of a matrix                       mean of 1 - diag  see below
    ===================  =================================================  ================  ===============

    Called as `(labels, sample=ids, epoch=0) -> (noisy, is_noisy)`, or by `datasets.Dataset.map(noise, batched=True,
    with_indices=True)`. `is_noisy` always means that the label is wrong: a label that was redrawn and came out as it
    was is not noisy. The noise of a label is a pure function of (seed, epoch, sample id): NumPy, torch on a CPU and
    torch on a GPU draw the same, in any batch and order.

    Attributes:
        kind: the name of the class method, "transition" for `from_transition`.
        error_rate: e as it was requested, see the table; `error_rates` and `overall_error_rate` say what share of each
            class and of all labels it makes wrong.
        ratio: r = e / (1 - e), noisy units per clean one; inf if a matrix leaves no label clean.
        num_classes: C in [2, 2^20]; labels are 0 .. C - 1.
        seed: integer in [0, 2^63).
        redraw: "epoch" draws fresh noise in every epoch (dynamic, as paper A describes its own), "never" repeats that
            of epoch 0 (static, paper C).
        allow_adversarial: True where it was needed, see `symmetric`.
        mapping: for "pairs", ((class, partner), ...) in ascending order.
        matrix: for "transition", T as nested tuples.

    Example:
        >>> noise = LabelFlips.symmetric(ratio=1.0, num_classes=10)
        >>> noisy, is_noisy = noise(np.zeros(1000, dtype=np.int64), sample=np.arange(1000))
        >>> round(float(is_noisy.mean()), 1), noisy[is_noisy].min() > 0
        (0.5, np.True_)
        >>> noise.transition[0].round(3)[:3]
        array([0.5  , 0.056, 0.056])
    """

    protocol: ClassVar[str] = "label_flips"
    stream: ClassVar[int] = 4

    kind: Literal["symmetric", "uniform_resample", "cyclic", "pairs", "transition"]
    # Equal rates are equal noises, whichever way and with however many digits the rate was spelt.
    ratio: float | None = field(default=None, compare=False)
    error_rate: float | None = None
    num_classes: int
    seed: int = 0
    redraw: Redraw = "epoch"
    allow_adversarial: bool = False
    mapping: tuple[tuple[int, int], ...] | None = None
    matrix: tuple[tuple[float, ...], ...] | None = field(default=None, repr=False)

    @classmethod
    def symmetric(
        cls, ratio: float | None = None, error_rate: float | None = None, *, num_classes: int, seed: int = 0,
        redraw: Redraw = "epoch", allow_adversarial: bool = False,
    ) -> LabelFlips:  # fmt: skip
        """Flip a label with probability e to one of the C - 1 other classes, never to itself (paper A, algorithm 3).

        Args:
            ratio: r >= 0, noisy labels per clean one. Give this or `error_rate`.
            error_rate: e in [0, 1), the share of labels that become wrong.
            num_classes, seed, redraw: see the class.
            allow_adversarial: accept e > (C - 1)/C, where the true class is the least likely label of all.

        Raises:
            ValueError: a value is out of range, neither or both rates are given, or e > (C - 1)/C is not allowed.
        """
        return cls(
            kind="symmetric", ratio=ratio, error_rate=error_rate, num_classes=num_classes, seed=seed, redraw=redraw,
            allow_adversarial=allow_adversarial,
        )  # fmt: skip

    @classmethod
    def uniform_resample(
        cls, ratio: float | None = None, error_rate: float | None = None, *, num_classes: int, seed: int = 0,
        redraw: Redraw = "epoch", allow_adversarial: bool = False,
    ) -> LabelFlips:  # fmt: skip
        """Redraw a label with probability e uniformly from all C classes, the true one among them.

        `error_rate` is the share that is redrawn; e (C - 1)/C of the labels become wrong, which `is_noisy` marks. This
        is the other meaning of "50% random labels". Arguments and errors as for `symmetric`; the limit on e is the
        same (C - 1)/C, so that one setting serves both, though here the true class stays the likeliest for all e < 1.
        """
        return cls(
            kind="uniform_resample", ratio=ratio, error_rate=error_rate, num_classes=num_classes, seed=seed,
            redraw=redraw, allow_adversarial=allow_adversarial,
        )  # fmt: skip

    @classmethod
    def cyclic(
        cls, ratio: float | None = None, error_rate: float | None = None, *, num_classes: int, seed: int = 0,
        redraw: Redraw = "epoch", allow_adversarial: bool = False,
    ) -> LabelFlips:  # fmt: skip
        """Turn a label y with probability e into (y + 1) mod C (paper A, appendix L).

        Arguments as for `symmetric`. Nothing is refused at the breakdown point 1/2, on which the paper's r = 1 sits;
        for even C the matrix has no inverse there. Only e > (C - 1)/C needs `allow_adversarial`.
        """
        return cls(
            kind="cyclic", ratio=ratio, error_rate=error_rate, num_classes=num_classes, seed=seed, redraw=redraw,
            allow_adversarial=allow_adversarial,
        )  # fmt: skip

    @classmethod
    def pairs(
        cls, mapping: Mapping[int, int] | Iterable[tuple[int, int]], ratio: float | None = None,
        error_rate: float | None = None, *, num_classes: int, seed: int = 0,
        redraw: Redraw = "epoch", allow_adversarial: bool = False,
    ) -> LabelFlips:  # fmt: skip
        """Turn the listed classes with probability e into their partners (paper C, asymmetric); others stay.

        Args:
            mapping: class -> the class it is mistaken for; `hf_noise.noise.label_maps` has those of paper C.
            ratio, error_rate: the rate among samples of the listed classes; `overall_error_rate` is lower.
            num_classes, seed, redraw: see the class.
            allow_adversarial: needed for e > (C - 1)/C, as for `cyclic`.

        Raises:
            ValueError: as for `symmetric`; the mapping is empty, leaves [0, C), names a class twice or maps it to
                itself.
        """
        return cls(
            kind="pairs", mapping=mapping, ratio=ratio, error_rate=error_rate, num_classes=num_classes, seed=seed,
            redraw=redraw, allow_adversarial=allow_adversarial,
        )  # fmt: skip

    @classmethod
    def from_transition(cls, transition: Any, *, seed: int = 0, redraw: Redraw = "epoch") -> LabelFlips:
        """Draw the noisy label from the row of the true one in any row-stochastic matrix.

        Probabilities are drawn in multiples of 2^-32 / C; an entry of 0 never comes up.

        Args:
            transition: T[i, j] = p(noisy = j | clean = i), real numbers [C, C], array, tensor or nested sequences.
            seed, redraw: see the class.

        Raises:
            ValueError: T is not square, has a negative or infinite entry, or a row that misses 1 by more than 1e-6.
        """
        matrix = check_transition(transition)
        return cls(kind="transition", num_classes=len(matrix), matrix=matrix, seed=seed, redraw=redraw)

    def __post_init__(self) -> None:
        self._set("kind", check_choice("kind", self.kind, _KINDS))
        for name, kind in (("mapping", "pairs"), ("matrix", "transition")):
            if (getattr(self, name) is not None) != (self.kind == kind):
                raise ValueError(f"{name} belongs to kind={kind!r} and to no other, got kind={self.kind!r}")
        self._set("seed", check_seed(self.seed))
        self._set("num_classes", check_num_classes(self.num_classes, _CLASS_BITS))
        self._set("redraw", check_redraw(self.redraw))
        self._set("allow_adversarial", check_flag("allow_adversarial", self.allow_adversarial))
        if self.kind == "transition":
            self._take_matrix()
        else:
            r, e = rates.resolve(self.ratio, self.error_rate)
            self._set("ratio", r)
            self._set("error_rate", e)
            draws.threshold(e)  # raises for a rate too small to draw
        if self.kind == "pairs":
            self._set("mapping", check_label_map(self.mapping, self.num_classes))
        self._check_limit()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _take_matrix(self) -> None:
        matrix = check_transition(self.matrix)
        if len(matrix) != self.num_classes:
            raise ValueError(f"num_classes={self.num_classes}, but the matrix has {len(matrix)} rows")
        e = max(0.0, float(1 - np.diagonal(matrix).mean()))
        r, e = rates_of(e, self.ratio, self.error_rate)
        self._set("matrix", tuple(map(tuple, matrix.tolist())))
        self._set("ratio", r)
        self._set("error_rate", e)

    def _check_limit(self) -> None:
        limit = (self.num_classes - 1) / self.num_classes
        past = self.kind != "transition" and self.error_rate > limit + _SAME_RATE
        if past and not self.allow_adversarial:
            why = {
                "symmetric": "the true class would be the least likely label",
                "uniform_resample": "a larger share of labels would be redrawn than chance gets wrong",
            }.get(self.kind, "the label would name the wrong class almost always")
            raise ValueError(
                f"error_rate {self.error_rate:.6g} (ratio {self.ratio:.6g}) is past (C - 1)/C = {limit:.6g} for "
                f"{self.num_classes} classes: {why}; give a ratio up to C - 1 = {self.num_classes - 1}, or "
                "allow_adversarial=True if it is meant"
            )
        # Kept where it was needed alone, so that equal draws are equal values.
        self._set("allow_adversarial", past)

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to rebuild this noise, as JSON-able values; what a kind does not have is left out."""
        fields = super().to_dict()
        if self.mapping is not None:
            fields["mapping"] = [list(pair) for pair in self.mapping]
        if self.matrix is not None:
            fields["matrix"] = [list(row) for row in self.matrix]
        return {name: value for name, value in fields.items() if value is not None and value != math.inf}

    @property
    def transition(self) -> np.ndarray:
        """T[i, j] = p(noisy = j | clean = i), float64 [C, C], rows sum to 1; a new array each time.

        Raises ValueError for more than 2^15 classes, whose matrix would take more than 8 GiB.
        """
        check_matrix_size(self.num_classes)
        if self.kind == "transition":
            return np.array(self.matrix, dtype=np.float64)
        classes, e = self.num_classes, self.error_rate
        if self.kind == "symmetric":
            matrix = np.full((classes, classes), e / (classes - 1))
            np.fill_diagonal(matrix, 1 - e)
            return matrix
        matrix = np.eye(classes) * (1 - e)
        if self.kind == "uniform_resample":
            return matrix + e / classes
        matrix[np.arange(classes), self._partners] += e
        return matrix

    @property
    def error_rates(self) -> np.ndarray:
        if self.kind == "transition":
            return super().error_rates
        if self.kind == "uniform_resample":
            return np.full(self.num_classes, self.error_rate * (1 - 1 / self.num_classes))
        flips = self.kind == "symmetric" or self._partners != np.arange(self.num_classes)
        return np.where(flips, np.full(self.num_classes, self.error_rate), 0.0)

    def probability(self, clean: Any, noisy: Any) -> np.ndarray:
        """T[clean, noisy] of classes [...] in [0, C), float64 [...], for any number of classes."""
        if self.kind == "transition":
            return np.array(self.matrix)[clean, noisy]
        clean, noisy, e = np.asarray(clean), np.asarray(noisy), self.error_rate
        stays = np.where(clean == noisy, 1 - e, 0.0)
        if self.kind == "symmetric":
            return np.where(clean == noisy, 1 - e, e / (self.num_classes - 1))
        if self.kind == "uniform_resample":
            return stays + e / self.num_classes
        return stays + np.where(self._partners[clean] == noisy, e, 0.0)

    @property
    def breakdown_point(self) -> float:
        """The `error_rate` up to which every class is labelled as itself more often than as any other one.

        (C - 1)/C symmetric, 1 resampled, 1/2 cyclic and pairs. Beyond it the likeliest label is a wrong one. A matrix
        is taken as one of a family that keeps its pattern of errors and scales their rate (the entries off the
        diagonal, by one factor); 1 for a matrix without errors.
        """
        if self.kind == "transition":
            return super().breakdown_point
        return {"symmetric": 1 - 1 / self.num_classes, "uniform_resample": 1.0}.get(self.kind, 0.5)

    @cached_property
    def _partners(self) -> np.ndarray:
        """The class that each one flips to, int64 [C]; itself if it does not."""
        classes = np.arange(self.num_classes)
        if self.kind == "cyclic":
            return (classes + 1) % self.num_classes
        for source, target in self.mapping:
            classes[source] = target
        return classes

    @cached_property
    def _cells(self) -> np.ndarray:
        """The cells to draw from, int64 [C, C], see `alias.alias_table`."""
        return alias.alias_table(np.array(self.matrix))

    @cached_property
    def _tensors(self) -> dict[Any, Any]:
        """`_partners` or `_cells` by device, filled by `labels_torch`."""
        return {}

    def _epoch(self, epoch: int) -> int:
        epoch = check_epoch(epoch)
        return epoch if self.redraw == "epoch" else 0

    @property
    def summary(self) -> str:
        return _SUMMARIES[self.kind]

    def __call__(self, labels: Any, sample: Any, epoch: int = 0) -> Any:
        """Corrupt labels.

        Args:
            labels: integers of any shape [...], NumPy array or torch tensor on any device, values in [0, C) or -100
                (ignored, left as they are). Or a batch of columns (a mapping), as `datasets.map` passes it.
            sample: integers [...], the stable index of each label's sample; row numbers in the form for `datasets.map`.
            epoch: which epoch's noise to draw, in [0, 2^63) (no effect with `redraw="never"`).

        Returns:
            `(noisy, is_noisy)`: same shape, type, dtype and device as `labels`, and booleans that mark the labels that
            are wrong now. For a mapping: the new columns, see `columns`.

        Raises:
            ValueError: shapes differ, or labels are outside [0, C): their number and the first index (not checked on a
                GPU, where looking would make the device wait).
            TypeError: labels, samples or the epoch are not integers.
        """
        if isinstance(labels, Mapping):
            return self.columns(labels, sample, epoch)
        if is_tensor(labels):
            from hf_noise.noise import labels_torch

            return labels_torch.flip(self, labels, sample, epoch)
        return labels_numpy.flip(self, labels, sample, epoch)

    @property
    def _threshold(self) -> int:
        return draws.threshold(self.error_rate)

    @property
    def _uniform(self) -> tuple[int, int, bool]:
        """(threshold, choices, exclude) of `draws.replace_uniformly`."""
        exclude = self.kind == "symmetric"
        return self._threshold, self.num_classes - exclude, exclude

    def columns(self, batch: Mapping[str, Any], indices: Any, epoch: int = 0) -> dict[str, Any]:
        """The form for `datasets.map(noise, batched=True, with_indices=True)`.

        Args:
            batch: columns with `label` or `labels`, one integer per row.
            indices: row numbers, used as sample ids unless the batch has a column `sample_id`.

        Returns:
            The columns `label` (noisy), `clean_label`, `is_noisy` and `sample_id`; `labels` and `clean_labels` if that
            is the column's name.
        """
        check_batch(batch)
        name = "label" if "label" in batch else "labels"
        if name not in batch:
            raise ValueError(f"there is no column 'label' or 'labels' to corrupt, only: {', '.join(map(str, batch))}")
        clean = integers(name, batch[name])
        if clean.ndim != 1:
            raise ValueError(f"column {name!r} must hold one integer per row; pass whole batches, batched=True")
        sample = integers("sample_id", batch.get("sample_id", indices))
        noisy, is_noisy = self(clean, sample, epoch)
        return {name: noisy, f"clean_{name}": clean, "is_noisy": is_noisy, "sample_id": sample}
