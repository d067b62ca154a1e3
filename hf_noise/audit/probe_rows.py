"""Rows of the probe runs of a plan: their features, their folds, and which of many the heads are fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_noise.audit.out_of_fold import finite_features, split_rows
from hf_noise.audit.probe_runs import FOLDS
from hf_noise.noise.counter import row_keys

__all__ = ["Standardised", "fitted_rows", "read_features", "within"]

_STREAM = 181  # of the counter
Split = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Standardised:
    """Features [N, D] as they came, and what makes them of mean 0 and spread 1."""

    raw: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    def of(self, rows: Any) -> np.ndarray:
        """Standardised ones of these rows, float64 [n, D]."""
        return (self.raw[rows] - self.mean) / self.spread

    @property
    def values(self) -> np.ndarray:
        """Those of all rows."""
        return self.of(slice(None))


def read_features(features: Any, labels: np.ndarray, seed: int) -> tuple[Standardised, Split]:
    """Features of the audited rows, and (other rows, rows) of five folds, in which copies of a row are together."""
    x = finite_features("features", features)
    if len(x) != len(labels):
        raise ValueError(f"features are of {len(x)} rows, and the audit of {len(labels)}; give those of the same rows")
    split = split_rows(x, labels, FOLDS, seed)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    return Standardised(x, mean, np.where(spread > 0, spread, 1)), split


def fitted_rows(given: np.ndarray, split: Split, known: np.ndarray, most: int, seed: int) -> np.ndarray:
    """The rows that heads are fitted on, int64 [n] in ascending order: all, or of more than `most` about so many.

    Of each class and fold the same share is drawn at random, rounded up, so that none is lost; rows that were verified
    are kept besides.

    Args:
        given: int64 [N].
        split: of all rows.
        known: int64 [m], verified rows.
        most: >= 1.
        seed: of the draw.
    """
    total = len(given)
    if total <= most:
        return np.arange(total)
    fold = np.empty(total, np.int64)
    for number, (_, judged) in enumerate(split):
        fold[judged] = number
    cell = given * len(split) + fold
    sizes = np.bincount(cell)
    order = np.lexsort((row_keys(seed, _STREAM, 0, np.arange(total)), cell))
    place = np.arange(total) - (np.cumsum(sizes) - sizes)[cell[order]]
    return np.union1d(order[place < np.ceil(most * sizes / total)[cell[order]]], known)


def within(rows: np.ndarray, split: Split, total: int) -> Split:
    """The folds of these rows alone, as places in them."""
    places = np.full(total, -1)
    places[rows] = np.arange(len(rows))
    found = [(places[fitted], places[judged]) for fitted, judged in split]
    return [(fitted[fitted >= 0], judged[judged >= 0]) for fitted, judged in found]
