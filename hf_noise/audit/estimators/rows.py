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
_MOST_ROWS, _LEAST_ROWS, _MOST_CELLS = 20_000, 5_000, 500_000
#: Rows that are worked on at a time where all are.
CHUNK = 1 << 13


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
        n, most = len(labels), _at_most(probabilities, most)
        if n > most:
            kept = _drawn(n, most)
            labels, probabilities = labels[kept], probabilities[kept]
        return cls(labels, log_probabilities(probabilities))

    @classmethod
    def unseen(cls, labels: np.ndarray, probabilities: np.ndarray) -> Rows | None:
        """As many rows that `sample` leaves out; None if there are fewer."""
        n, most = len(labels), _at_most(probabilities, _MOST_ROWS)
        if n < 2 * most:
            return None
        left = np.ones(n, dtype=bool)
        left[_drawn(n, most)] = False
        kept = np.flatnonzero(left)[_drawn(n - most, most)]
        return cls(labels[kept], log_probabilities(probabilities[kept]))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        return self.log_p.shape[1]

    def part(self, which: np.ndarray) -> Rows:
        """The rows of a mask [n]."""
        return Rows(self.labels[which], self.log_p[which])


def _at_most(probabilities: np.ndarray, most: int) -> int:
    return min(most, max(_LEAST_ROWS, _MOST_CELLS // probabilities.shape[1]))


def _drawn(n: int, most: int) -> np.ndarray:
    return np.sort(np.random.default_rng(0).choice(n, most, replace=False))


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
    labels: np.ndarray, probabilities: np.ndarray, *posteriors: Callable[[Rows], np.ndarray], is_kept: bool = True
) -> tuple[np.ndarray | None, np.ndarray]:
    """What M fitted models say of all rows.

    Returns:
        Their mean posterior [N, C], None if it is not kept, which takes as much memory as the probabilities; and the
        p(clean = i, noisy = j) of each as it adds up, [M, C, C].
    """
    n, classes = probabilities.shape
    found, joints = np.empty((n, classes)) if is_kept else None, np.zeros((len(posteriors), classes, classes))
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        rows = Rows(labels[part], log_probabilities(probabilities[part]))
        told = np.zeros((len(rows), classes))
        for joint, posterior in zip(joints, posteriors, strict=True):
            said = posterior(rows)
            joint += said.T @ rows.given
            told += said
        if found is not None:
            found[part] = told / len(posteriors)
    return found, joints / n
