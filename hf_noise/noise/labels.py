"""Label noise of papers A and C: the class of a sample replaced by another one, given its true class alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from hf_noise.noise import draws, rates
from hf_noise.noise.alias import ALIAS_BITS, alias_table
from hf_noise.noise.arrays import check_num_classes
from hf_noise.noise.base import Redraw, check_redraw
from hf_noise.noise.checks import check_choice, check_flag, check_seed
from hf_noise.noise.label_maps import check_label_map
from hf_noise.noise.label_noise import LabelNoise, is_past_chance
from hf_noise.noise.transition import check_matrix_size, check_transition, rates_of

__all__ = ["LABEL_PROTOCOLS", "LabelFlips"]

#: Kinds of `LabelFlips` that a noise ratio and a number of classes, for pairs also a map, make up.
LABEL_PROTOCOLS = ("symmetric", "uniform_resample", "cyclic", "pairs")

_KINDS = (*LABEL_PROTOCOLS, "transition")
_OWN = {"pairs": "mapping", "transition": "matrix"}  # the field that one kind alone has
_SUMMARIES = {
    "symmetric": "Labels become any other class, all alike",
    "uniform_resample": "Labels are drawn anew from all classes, the true one among them",
    "cyclic": "Labels become the next class, (y + 1) mod C",
    "pairs": "Labels of some classes become those of a similar class",
    "transition": "Labels are drawn from the row of their class in a transition matrix",
}


@dataclass(frozen=True, kw_only=True)
class LabelFlips(LabelNoise):
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
    names: ClassVar[Mapping[str, Mapping[str, Any]]] = {kind: {"kind": kind} for kind in LABEL_PROTOCOLS}

    kind: Literal["symmetric", "uniform_resample", "cyclic", "pairs", "transition"]
    # Equal rates are equal noises, whichever way and with however many digits the rate was spelt.
    ratio: float = field(default=None, compare=False)  # type: ignore[assignment]
    error_rate: float = None  # type: ignore[assignment]
    num_classes: int
    seed: int = 0
    redraw: Redraw = "epoch"  # type: ignore[misc]
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
            kind="symmetric", ratio=ratio, error_rate=error_rate,  # type: ignore[arg-type]
            num_classes=num_classes, seed=seed, redraw=redraw, allow_adversarial=allow_adversarial,
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
            kind="uniform_resample", ratio=ratio, error_rate=error_rate,  # type: ignore[arg-type]
            num_classes=num_classes, seed=seed, redraw=redraw, allow_adversarial=allow_adversarial,
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
            kind="cyclic", ratio=ratio, error_rate=error_rate,  # type: ignore[arg-type]
            num_classes=num_classes, seed=seed, redraw=redraw, allow_adversarial=allow_adversarial,
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
            kind="pairs", mapping=mapping, ratio=ratio, error_rate=error_rate,  # type: ignore[arg-type]
            num_classes=num_classes, seed=seed, redraw=redraw, allow_adversarial=allow_adversarial,
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
        classes = len(matrix)
        return cls(kind="transition", num_classes=classes, matrix=matrix, seed=seed, redraw=redraw)  # type: ignore[arg-type]

    @classmethod
    def named(cls, protocol: str, *, known: Mapping[str, Any] | None = None, **settings: Any) -> LabelFlips:
        """The noise of a kind by its name, as a command line or a configuration has it.

        Args:
            protocol: one of the kinds above; "uniform-resample" is "uniform_resample".
            known: fields that one kind alone has, such as `mapping`, which count where the settings lack them.
            **settings: fields of `LabelFlips`.

        Raises:
            ValueError: another protocol, or it lacks its own field or has that of another; else as the class method.
            TypeError: a setting that is no field.
        """
        kind = check_choice("protocol", protocol.replace("-", "_") if isinstance(protocol, str) else protocol, _KINDS)
        given = {name: value for name, value in settings.items() if value is not None or name not in _OWN.values()}
        if unknown := sorted(set(given) - {own.name for own in fields(cls)} | given.keys() & {"kind"}):
            raise TypeError(f"protocol {kind!r} has no setting {', '.join(unknown)}")
        if not isinstance(known, Mapping | None):
            raise TypeError(f"known must be fields by their names, got {known!r:.80}")
        own = _OWN.get(kind)
        if own is not None and own not in given:
            if (value := (known or {}).get(own)) is None:
                raise ValueError(f"protocol {kind!r} needs {own}=")
            given[own] = value
        if own is not None and kind == "transition":
            given.setdefault("num_classes", len(check_transition(given[own])))
        if "num_classes" not in given:
            raise TypeError(f"protocol {kind!r} needs num_classes=")
        return cls(kind=kind, **given)  # type: ignore[arg-type]

    def without_noise(self) -> LabelFlips:
        return LabelFlips.symmetric(ratio=0.0, num_classes=self.num_classes, seed=self.seed)

    def __post_init__(self) -> None:
        self._set("kind", check_choice("kind", self.kind, _KINDS))
        for kind, name in _OWN.items():
            if (getattr(self, name) is not None) != (self.kind == kind):
                raise ValueError(f"{name} belongs to kind={kind!r} and to no other, got kind={self.kind!r}")
        self._set("seed", check_seed(self.seed))
        self._set("num_classes", check_num_classes(self.num_classes, ALIAS_BITS))
        self._set("redraw", check_redraw(self.redraw))
        self._set("allow_adversarial", check_flag("allow_adversarial", self.allow_adversarial))
        has_matrix = self.kind == "transition"
        r, e = self._take_matrix() if has_matrix else rates.resolve(self.ratio, self.error_rate)
        self._set("ratio", r)
        self._set("error_rate", e)
        if not has_matrix:
            draws.threshold(e)  # raises for a rate too small to draw
        if self.kind == "pairs":
            self._set("mapping", check_label_map(self.mapping, self.num_classes))
        # Kept where it was needed alone, so that equal draws are equal values.
        self._set("allow_adversarial", not has_matrix and is_past_chance(self, self.allow_adversarial))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _take_matrix(self) -> tuple[float, float]:
        matrix = check_transition(self.matrix)
        if len(matrix) != self.num_classes:
            raise ValueError(f"num_classes={self.num_classes}, but the matrix has {len(matrix)} rows")
        e = max(0.0, float(1 - np.diagonal(matrix).mean()))
        self._set("matrix", tuple(map(tuple, matrix.tolist())))
        return rates_of(e, self.ratio, self.error_rate)

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
            return self._matrix.copy()
        classes, e = self.num_classes, self.error_rate
        if self.kind == "symmetric":
            matrix = np.full((classes, classes), e / (classes - 1))
            np.fill_diagonal(matrix, 1 - e)
            return matrix
        matrix = np.eye(classes) * (1 - e)
        if self.kind == "uniform_resample":
            return matrix + e / classes
        matrix[np.arange(classes), self.partners] += e
        return matrix

    @property
    def error_rates(self) -> np.ndarray:
        if self.kind == "transition":
            return super().error_rates
        if self.kind == "uniform_resample":
            return np.full(self.num_classes, self.error_rate * (1 - 1 / self.num_classes))
        flips = self.kind == "symmetric" or self.partners != np.arange(self.num_classes)
        return np.where(flips, np.full(self.num_classes, self.error_rate), 0.0)

    def probability(self, clean: Any, noisy: Any) -> np.ndarray:
        """T[clean, noisy] of classes [...] in [0, C), float64 [...], for any number of classes."""
        if self.kind == "transition":
            return self._matrix[clean, noisy]
        clean, noisy, e = np.asarray(clean), np.asarray(noisy), self.error_rate
        stays = np.where(clean == noisy, 1 - e, 0.0)
        if self.kind == "symmetric":
            return np.where(clean == noisy, 1 - e, e / (self.num_classes - 1))
        if self.kind == "uniform_resample":
            return stays + e / self.num_classes
        return stays + np.where(self.partners[clean] == noisy, e, 0.0)

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
    def partners(self) -> np.ndarray:
        """The class that each one flips to, int64 [C]; itself if it does not."""
        classes = np.arange(self.num_classes)
        if self.kind == "cyclic":
            return (classes + 1) % self.num_classes
        for source, target in self.mapping or ():
            classes[source] = target
        return classes

    @cached_property
    def cells(self) -> np.ndarray:
        """The cells to draw from, int64 [C, C], see `alias_table`."""
        return alias_table(self._matrix)

    @cached_property
    def tables(self) -> dict[Any, Any]:
        """`partners` or `cells` as a tensor by device, filled by `labels_torch`."""
        return {}

    @cached_property
    def _matrix(self) -> np.ndarray:
        """T of the kind "transition", float64 [C, C], made once and not to be written to."""
        return np.frombuffer(np.array(self.matrix, dtype=np.float64).tobytes()).reshape(self.num_classes, -1)

    @property
    def summary(self) -> str:
        return _SUMMARIES[self.kind]

    @property
    def threshold(self) -> int:
        """A label is redrawn if the upper half of its word is below this integer in [0, 2^32]."""
        return draws.threshold(self.error_rate)

    @property
    def draw_arguments(self) -> tuple[int, int, bool]:
        """(threshold, choices, exclude) of `draws.replace_uniformly`, for the kinds that redraw uniformly."""
        exclude = self.kind == "symmetric"
        return self.threshold, self.num_classes - exclude, exclude
