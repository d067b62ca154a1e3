"""Short runs of each way to train on doubtful labels: heads on folds, which judge rows they were not fitted on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from hf_noise.audit.probe_fit import LinearHead, fit_head

if TYPE_CHECKING:
    from hf_noise.audit.probe_rows import Standardised

__all__ = ["FOLDS", "GAIN", "Probes", "Recipe"]

#: Strengths of the ridge that are tried, strongest first: each fit begins where the one before ended.
_RIDGES = (1e-1, 1e-2, 1e-3, 1e-4)
FOLDS = 5
_LARGE, _SMALL = (FOLDS - 1) / FOLDS, (FOLDS - 1) // 2 / FOLDS
#: What all rows gain over the large share, in units of what the large share gains over the small one, where the error
#: beyond that of endless rows falls as 1 / N.
GAIN = (1 / _LARGE - 1) / (1 / _SMALL - 1 / _LARGE)
_CHUNK = 1 << 14  # rows that are judged at once


@dataclass(frozen=True, eq=False)
class Recipe:
    """A way to train on given labels.

    Attributes:
        keep: bool [N], rows that are trained on.
        targets: classes int64 [N], or float64 [N, C] whose rows sum to 1.
        classes: C.
        transition: T [C, C] that the loss is corrected by; None for none.
        learns_given: whether its head learns p(given label | row), and not that of the true one.
        to_verify: int64 [n], rows to look at first.
    """

    keep: np.ndarray
    targets: np.ndarray
    classes: int
    transition: np.ndarray | None = None
    learns_given: bool = False
    to_verify: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def fit(self, features: np.ndarray, rows: np.ndarray, ridge: float, start: LinearHead | None = None) -> LinearHead:
        """The head of those of these rows that are kept."""
        rows = rows[self.keep[rows]]
        targets = self.targets[rows]
        targets = np.eye(self.classes)[targets] if targets.ndim == 1 else targets
        return fit_head(features[rows], targets, ridge=ridge, transition=self.transition, start=start)

    def of(self, rows: np.ndarray) -> Recipe:
        """The same of these rows alone, by their places in them; rows to look at are left out."""
        return replace(self, keep=self.keep[rows], targets=self.targets[rows], to_verify=self.to_verify[:0])


@dataclass(frozen=True, eq=False)
class Probes:
    """Heads that are fitted on some rows and judge all.

    Attributes:
        features: of all N rows.
        rows: int64 [n], those that heads are fitted on; recipes are of these, by their places.
        given: int64 [n], their labels.
        transition: T [C, C], by which a head of true classes foretells given ones.
        split: (rows to fit, rows to judge) of each of five folds, which share none, as places in `rows`; each sorted.
        folds: of the same folds all rows, int64.
        done: is called after each fit.
    """

    features: Standardised
    rows: np.ndarray
    given: np.ndarray
    transition: np.ndarray
    split: list[tuple[np.ndarray, np.ndarray]]
    folds: list[np.ndarray]
    done: Callable[[], object] = lambda: None
    fitted: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fitted", self.features.of(self.rows))

    def ridge(self, recipe: Recipe) -> tuple[float, LinearHead]:
        """The ridge whose head foretells the given labels of the first fold best, and this head."""
        (fitted, judged), found, head = self.split[0], [], None
        for ridge in _RIDGES:
            head = self._fit(recipe, fitted, ridge, head)
            p = head.probabilities(self.fitted[judged])
            said = p if recipe.learns_given else p @ self.transition
            nll = -np.log(np.maximum(said[np.arange(len(judged)), self.given[judged]], 1e-12)).mean()
            found.append((nll, ridge, head))
        _, ridge, head = min(found, key=lambda one: one[0])
        return ridge, head

    def by_folds(self, recipes: list[Recipe]) -> tuple[np.ndarray, np.ndarray, float]:
        """First classes of every row by heads that were fitted without its fold, each by the fold's own recipe.

        Returns:
            int64 [N] by heads of four folds, int64 [N] by heads of two, and the ridge.
        """
        large, small = np.zeros((2, len(self.features.raw)), np.int64)
        ridge, head = self.ridge(recipes[0])
        for fold, (recipe, (fitted, _), of) in enumerate(zip(recipes, self.split, self.folds, strict=True)):
            # Each begins anew: a head of another fold has seen the labels of this one.
            head = head if fold == 0 else self._fit(recipe, fitted, ridge)
            large[of] = self._first(head, of)
            half = np.concatenate([self.split[(fold + step) % FOLDS][1] for step in range(1, (FOLDS + 1) // 2)])
            small[of] = self._first(self._fit(recipe, half, ridge, head), of)
        return large, small, ridge

    def by_all(self, recipe: Recipe, judged: np.ndarray, ridge: float) -> np.ndarray:
        """First classes of other rows, standardised features [M, D], by the head of all that heads are fitted on."""
        return self._fit(recipe, np.arange(len(self.rows)), ridge).scores(judged).argmax(axis=1)

    def _fit(self, recipe: Recipe, rows: np.ndarray, ridge: float, start: LinearHead | None = None) -> LinearHead:
        head = recipe.fit(self.fitted, rows, ridge, start)
        self.done()
        return head

    def _first(self, head: LinearHead, rows: np.ndarray) -> np.ndarray:
        parts = (rows[begin : begin + _CHUNK] for begin in range(0, len(rows), _CHUNK))
        return np.concatenate([head.scores(self.features.of(part)).argmax(axis=1) for part in parts])
