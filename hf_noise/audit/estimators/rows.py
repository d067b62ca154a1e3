"""The rows that estimators fit: logarithms of probabilities, margins, a sample of what is too much."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.special

__all__ = ["CHUNK", "Rows", "in_chunks", "log_probabilities", "margins", "softmax", "surest"]

#: Of each row of [n, C]; -inf gives 0.
softmax = partial(scipy.special.softmax, axis=1)

#: Probabilities below this are not told apart: float16 and the softmax of most networks hold no more.
_SMALLEST = 1e-4
#: Rows that a fit reads: its parameters are few, and more rows would make it slower and hardly more exact.
_MOST_ROWS, _LEAST_ROWS, _MOST_CELLS = 20_000, 5_000, 2_000_000
#: Rows that are worked on at a time where all are.
CHUNK = 1 << 15


class Rows:
    """Given labels and log probabilities of the rows that a fit reads.

    Attributes:
        labels: int64 [n].
        log_p: float64 [n, C], centred so that the largest of a row is 0.
        given: bool [n, C], where the given label is.
        margin: float64 [n] >= 0, by how much the log probability of the first class exceeds that of the second.
    """

    def __init__(self, labels: np.ndarray, log_p: np.ndarray):
        self.labels, self.log_p = labels, log_p
        self.given = labels[:, None] == np.arange(log_p.shape[1])
        self.margin = margins(log_p)

    @classmethod
    def sample(cls, labels: np.ndarray, probabilities: np.ndarray, most: int = _MOST_ROWS) -> Rows:
        """At most so many rows, drawn without replacement and always the same; fewer for hundreds of classes."""
        n, classes = probabilities.shape
        most = min(most, max(_LEAST_ROWS, _MOST_CELLS // classes))
        if n > most:
            kept = np.sort(np.random.default_rng(0).choice(n, most, replace=False))
            labels, probabilities = labels[kept], probabilities[kept]
        return cls(labels, log_probabilities(probabilities))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        return self.log_p.shape[1]

    def part(self, which: np.ndarray) -> Rows:
        """The rows of a mask [n]."""
        return Rows(self.labels[which], self.log_p[which])


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    log_p = np.log(np.maximum(probabilities, _SMALLEST))
    return log_p - log_p.max(axis=1, keepdims=True)


def margins(scores: np.ndarray) -> np.ndarray:
    """By how much the largest of each row exceeds the second, float64 [n]."""
    highest = np.partition(scores, -2, axis=1)[:, -2:]
    return highest[:, 1] - highest[:, 0]


def surest(classes: np.ndarray, margin: np.ndarray, share: float) -> np.ndarray:
    """The rows of each class [n] whose margin [n] is largest, this share of them rounded up; a mask [n]."""
    # Within a class, from the largest margin down; its first row stands where the classes before it end.
    order = np.lexsort((-margin, classes))
    counts = np.bincount(classes)
    place = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(len(classes), dtype=bool)
    chosen[order] = place < np.ceil(share * np.repeat(counts, counts))
    return chosen


def in_chunks(
    labels: np.ndarray, probabilities: np.ndarray, posterior: Callable[[Rows], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """What a fitted model says of all rows: posterior [N, C], and p(clean = i, noisy = j) [C, C] as it adds up."""
    n, classes = probabilities.shape
    found, joint = np.empty((n, classes)), np.zeros((classes, classes))
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        rows = Rows(labels[part], log_probabilities(probabilities[part]))
        found[part] = posterior(rows)
        joint += found[part].T @ rows.given
    return found, joint / n
