"""What a stated probability is worth: of a classifier's predictions, and of any yes-or-no event."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax

from hf_noise.metrics.checks import as_array, check_count
from hf_noise.metrics.labels import class_indices

__all__ = ["calibration_error", "classifier_calibration", "classifier_reliability", "stated_and_observed"]


def stated_and_observed(stated: np.ndarray, happened: np.ndarray, bins: int) -> list[dict[str, float]]:
    """Mean stated probability and observed share of an event, in bins of equal width.

    Args:
        stated: float [n] in [0, 1]; bin i holds [i / bins, (i + 1) / bins), and 1 belongs to the last.
        happened: bool [n].
        bins: number of bins >= 1; empty ones are left out.

    Returns:
        For each bin {"stated", "observed", "n"}, by rising "stated".

    Raises:
        TypeError: bins is no integer.
        ValueError: bins < 1.
    """
    bins = check_count("bins", bins, remedy="15 is usual")
    number = np.minimum((stated * bins).astype(int), bins - 1)
    rows = []
    for i in np.unique(number):
        inside = number == i
        mean = float(stated[inside].mean(dtype=np.float64))
        rows.append({"stated": mean, "observed": float(happened[inside].mean()), "n": int(inside.sum())})
    return rows


def calibration_error(rows: list[dict[str, float]]) -> float:
    """Expected calibration error in [0, 1] of the rows of `stated_and_observed`: mean |stated - observed| over units.

    It is above 0 by chance: at most about sqrt(bins / n) / 2 for probabilities that are exactly right.
    """
    n = sum(row["n"] for row in rows)
    return sum(row["n"] / n * abs(row["stated"] - row["observed"]) for row in rows)


def classifier_reliability(logits: ArrayLike, references: ArrayLike, *, bins: int = 15) -> list[dict[str, float]]:
    """What the probability of the predicted class was worth, in bins of equal width (Guo et al. 2017).

    Args:
        logits: float [n, C], or log-probabilities.
        references: integers [n] in [0, C).
        bins: number of bins >= 1; empty ones are left out.

    Returns:
        For each bin {"stated", "observed", "n"}: mean probability of the predicted class (the first one of ties), share
        of right predictions, number of predictions.

    Raises:
        TypeError: logits are no real numbers, or references or bins no integers.
        ValueError: logits are not [n, C] with C >= 2, or have a row with NaN, inf or nothing but -inf; references are
            empty, of another length or outside [0, C); bins < 1.
    """
    log_p, _, right = _scored(logits, references)
    return stated_and_observed(np.exp(log_p.max(axis=1)), right, bins)


def classifier_calibration(logits: ArrayLike, references: ArrayLike, *, bins: int = 15) -> dict[str, Any]:
    """Calibration error, likelihood and Brier score of a classifier, computed in float64.

    Args:
        logits: float [n, C], or log-probabilities; it takes about 24 bytes of memory for each.
        references: integers [n] in [0, C).
        bins: of the calibration error, >= 1.

    Returns:
        "ece": expected calibration error in [0, 1] of the predicted class, in bins of equal width.
        "nll": mean -ln p(reference) in nats, inf if a reference has probability 0.
        "brier": mean over rows of the sum over classes of (p - one-hot)^2, in [0, 2].
        "confidence": mean probability of the predicted class; below "accuracy" if the classifier doubts what it knows.
        "accuracy": share of right predictions.
        "n": number of rows.

    Raises:
        TypeError: logits are no real numbers, or references or bins no integers.
        ValueError: logits are not [n, C] with C >= 2, or have a row with NaN, inf or nothing but -inf; references are
            empty, of another length or outside [0, C); bins < 1.
    """
    log_p, references, right = _scored(logits, references)
    of_reference = log_p[np.arange(references.size), references]
    p = np.exp(log_p)
    confidence = p.max(axis=1)
    return {
        "ece": calibration_error(stated_and_observed(confidence, right, bins)),
        "nll": float(-of_reference.mean()),
        # sum_c (p_c - [c = y])^2, multiplied out so that no one-hot matrix is needed
        "brier": float((np.einsum("nc,nc->n", p, p) - 2 * np.exp(of_reference) + 1).mean()),
        "confidence": float(confidence.mean()),
        "accuracy": float(right.mean()),
        "n": references.size,
    }


def _scored(logits: ArrayLike, references: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log p(class), float64 [n, C], the references, int64 [n], and whether the prediction is right, bool [n]."""
    logits = as_array("logits", logits)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits must be [n, C] with C >= 2 classes, got shape {list(logits.shape)}")
    if logits.dtype.kind not in "iuf":
        raise TypeError(f"logits must be real numbers, got {logits.dtype}")
    references = class_indices("references", references, logits.shape[1])
    if len(logits) != references.size:
        raise ValueError(f"{len(logits)} rows of logits do not belong to {references.size} references")
    unusable = ~np.isfinite(logits.max(axis=1))  # NaN and inf show in the maximum, -inf alone is a class ruled out
    if unusable.any():
        raise ValueError(
            f"{unusable.sum()} of {len(logits)} rows of logits hold NaN or inf, the first is row {unusable.argmax()}; "
            "look at how the model was trained before measuring it"
        )
    # Of the logits themselves, as everyone counts it: the softmax rounds near ties to exact ones.
    right = logits.argmax(axis=1) == references
    return log_softmax(logits.astype(np.float64), axis=1), references, right
