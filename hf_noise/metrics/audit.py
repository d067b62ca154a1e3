"""How well a posterior tells clean units from corrupted ones."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import brier_score_loss, roc_auc_score

from hf_noise.metrics.calibration import calibration_error, stated_and_observed
from hf_noise.metrics.checks import masked_units, real_numbers

__all__ = ["audit_metrics", "reliability"]


def reliability(clean_posterior: np.ndarray, is_noisy: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """What a stated probability of being clean was worth, in bins of equal width.

    Args:
        clean_posterior: float [n] in [0, 1].
        is_noisy: bool [n], the truth.
        bins: number of bins >= 1; empty ones are left out.

    Returns:
        For each bin {"stated", "observed", "n"}: the mean posterior, the share that was clean, the number of units.

    Raises:
        TypeError: the posterior holds no real numbers, or the truth is no mask.
        ValueError: shapes differ, a value lies outside [0, 1], or bins < 1.
    """
    clean_posterior, is_noisy = _checked(clean_posterior, is_noisy)
    return stated_and_observed(clean_posterior, ~is_noisy, bins)


def _checked(clean_posterior: np.ndarray, is_noisy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    clean_posterior = real_numbers("clean_posterior", clean_posterior)
    is_noisy = masked_units("is_noisy", is_noisy)
    if clean_posterior.shape != is_noisy.shape or clean_posterior.ndim != 1:
        raise ValueError(
            f"two arrays [n] are needed, got clean_posterior {clean_posterior.shape} and is_noisy {is_noisy.shape}"
        )
    if clean_posterior.size == 0 or not (clean_posterior.min() >= 0 and clean_posterior.max() <= 1):
        raise ValueError("a clean posterior lies in [0, 1]; pass probabilities, not log-probabilities or NaN")
    return clean_posterior, is_noisy


def audit_metrics(clean_posterior: np.ndarray, is_noisy: np.ndarray, bins: int = 15) -> dict[str, float | int]:
    """AUROC, expected calibration error and Brier score of a clean posterior against the truth.

    Args:
        clean_posterior: float [n] in [0, 1], the stated probability that a unit is clean.
        is_noisy: bool [n], the truth; both kinds must occur.
        bins: of the calibration error.

    Returns:
        {"auroc", "ece", "brier", "n"}; AUROC is the probability that a clean unit scores above a corrupted one.

    Raises:
        TypeError: the posterior holds no real numbers, or the truth is no mask.
        ValueError: shapes differ, a value lies outside [0, 1], only one kind occurs, or bins < 1.
    """
    clean_posterior, is_noisy = _checked(clean_posterior, is_noisy)
    if is_noisy.all() or not is_noisy.any():
        raise ValueError("the audit needs clean and corrupted units, and by is_noisy all of these are of one kind")
    rows = reliability(clean_posterior, is_noisy, bins)
    return {
        "auroc": float(roc_auc_score(~is_noisy, clean_posterior)),
        "ece": calibration_error(rows),
        "brier": float(brier_score_loss(~is_noisy, clean_posterior)),
        "n": is_noisy.size,
    }
