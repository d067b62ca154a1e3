"""Short runs of each way to train on doubtful labels: heads on folds, which judge rows they were not fitted on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hf_noise.audit.probe_fit import LinearHead, fit_head

__all__ = ["FOLDS", "GAIN", "Probes", "Recipe"]

#: Strengths of the ridge that are tried, strongest first: each fit begins where the one before ended.
_RIDGES = (1e-1, 1e-2, 1e-3, 1e-4)
FOLDS = 5
_LARGE, _SMALL = (FOLDS - 1) / FOLDS, (FOLDS - 1) // 2 / FOLDS
#: What all rows gain over the large share, in units of what the large share gains over the small one, where the error
#: beyond that of endless rows falls as 1 / N.
GAIN = (1 / _LARGE - 1) / (1 / _SMALL - 1 / _LARGE)


@dataclass(frozen=True, eq=False)
class Recipe:
    """A way to train on given labels.

    Attributes:
        keep: bool [N], rows that are trained on.
        targets: float64 [N, C], rows sum to 1.
        transition: T [C, C] that the loss is corrected by; None for none.
        learns_given: whether its head learns p(given label | row), and not that of the true one.
        to_verify: int64 [n], rows to look at first.
    """

    keep: np.ndarray
    targets: np.ndarray
    transition: np.ndarray | None = None
    learns_given: bool = False
    to_verify: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def fit(self, features: np.ndarray, rows: np.ndarray, ridge: float, start: LinearHead | None = None) -> LinearHead:
        """The head of those of these rows that are kept."""
        rows = rows[self.keep[rows]]
        return fit_head(features[rows], self.targets[rows], ridge=ridge, transition=self.transition, start=start)


@dataclass(frozen=True, eq=False)
class Probes:
    """Rows that heads are fitted on.

    Attributes:
        features: float64 [N, D], standardised.
        given: int64 [N].
        transition: T [C, C], by which a head of true classes foretells given ones.
        split: (rows to fit, rows to judge) of each of five folds, which share none; each sorted.
    """

    features: np.ndarray
    given: np.ndarray
    transition: np.ndarray
    split: list[tuple[np.ndarray, np.ndarray]]

    def ridge(self, recipe: Recipe) -> tuple[float, LinearHead]:
        """The ridge whose head foretells the given labels of the first fold best, and this head."""
        (fitted, judged), found, head = self.split[0], [], None
        for ridge in _RIDGES:
            head = recipe.fit(self.features, fitted, ridge, head)
            p = head.probabilities(self.features[judged])
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
        large, small = np.zeros(len(self.given), np.int64), np.zeros(len(self.given), np.int64)
        ridge, head = self.ridge(recipes[0])
        for fold, (recipe, (fitted, of)) in enumerate(zip(recipes, self.split, strict=True)):
            # Each begins anew: a head of another fold has seen the labels of this one.
            head = head if fold == 0 else recipe.fit(self.features, fitted, ridge)
            large[of] = head.scores(self.features[of]).argmax(axis=1)
            half = np.concatenate([self.split[(fold + step) % FOLDS][1] for step in range(1, (FOLDS + 1) // 2)])
            small[of] = recipe.fit(self.features, half, ridge, head).scores(self.features[of]).argmax(axis=1)
        return large, small, ridge

    def by_all(self, recipe: Recipe, judged: np.ndarray, ridge: float) -> np.ndarray:
        """First classes of other rows, features [M, D], by the head of all rows."""
        return recipe.fit(self.features, np.arange(len(self.given)), ridge).scores(judged).argmax(axis=1)
