"""The confident joint: counts of given labels against the classes that the classifier is confident of."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_noise.audit.checks import check_labels
from hf_noise.audit.estimators.noise_estimate import NoiseEstimate
from hf_noise.audit.estimators.rows import CHUNK

__all__ = ["confident_joint", "count_confident"]

_ASSUMPTION = (
    "the classifier is about as confident of a row as it is on average of rows labelled as its class; where it repeats "
    "people's mistakes, or is confident of its own, the rate comes out wrong, and nothing here shows it"
)


def confident_joint(labels: Any, probabilities: Any) -> NoiseEstimate:
    """Count, for each given label, the rows of which the classifier is confident that they are of a class.

    A row counts for the most probable of the classes whose probability reaches that class' threshold, the mean
    probability that rows with its label give it. The counts of each label are scaled to how often it was given.

    Args:
        labels: given labels, integers [N] in [0, C), every class at least once.
        probabilities: out-of-fold, real numbers [N, C], rows sum to 1.

    Raises:
        TypeError, ValueError: as `hf_noise.audit.checks.check_labels`.

    Source: Northcutt et al., "Confident learning: estimating uncertainty in dataset labels", JAIR 2021, section 3.1.
    """
    return count_confident(*check_labels(labels, probabilities))


def count_confident(y: np.ndarray, p: np.ndarray) -> NoiseEstimate:
    """The estimate, of what `check_labels` returned."""
    n, classes = p.shape
    given = np.bincount(y, minlength=classes)
    threshold = np.bincount(y, p[np.arange(n), y], classes) / given
    counts = np.zeros((classes, classes))
    for start in range(0, n, CHUNK):
        reached, of = p[start : start + CHUNK], y[start : start + CHUNK]
        reached = np.where(reached >= threshold - 1e-6, reached, -1.0)
        clean, sure = reached.argmax(axis=1), reached.max(axis=1) >= 0
        np.add.at(counts, (clean[sure], of[sure]), 1.0)
    # A label of which no row is confident stands for itself.
    empty = counts.sum(axis=0) == 0
    counts[empty, empty] = 1.0
    joint = counts / counts.sum(axis=0) * given / n
    rate = float(1 - np.trace(joint))
    return NoiseEstimate(joint, None, "confident joint", _ASSUMPTION, (rate, rate))
