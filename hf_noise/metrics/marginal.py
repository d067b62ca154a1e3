"""How far the distribution of predicted classes lies from the true one (definitions of paper A's table 13).

Label noise can cost accuracy and leave this distribution alone. Both distances are above 0 by chance already;
`sampling_kl` and `sampling_tv` say how far.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import rel_entr

from hf_noise.metrics.checks import check_count, real_numbers
from hf_noise.metrics.labels import check_num_classes, class_indices, class_pairs

__all__ = ["marginal_kl", "marginal_shift", "marginal_tv", "predicted_marginal", "sampling_kl", "sampling_tv"]

# Probabilities computed in float32 add up to 1 only so far.
_SUM_TOLERANCE = 1e-5


def predicted_marginal(predictions: ArrayLike, *, num_classes: int) -> np.ndarray:
    """Share of each class among predictions, integers [n] in [0, C): float64 [C], sums to 1.

    Raises:
        TypeError: predictions are not integers.
        ValueError: predictions are empty or outside [0, C).
    """
    predictions = class_indices("predictions", predictions, check_num_classes(num_classes))
    return np.bincount(predictions, minlength=num_classes) / predictions.size


def marginal_kl(
    predictions: ArrayLike,
    references: ArrayLike | None = None,
    *,
    num_classes: int,
    true: ArrayLike | None = None,
) -> float:
    """KL(predicted || true) of the class marginals, in nats, >= 0.

    It is inf if a class is predicted that has no true probability: with few references name the true marginal itself.

    Args:
        predictions: integers [n] in [0, num_classes).
        references: integers [n] in [0, num_classes); the true marginal is their histogram.
        num_classes: C >= 2.
        true: float [C], the true marginal, in place of references.

    Raises:
        TypeError: predictions or references are not integers, or `true` holds no real numbers.
        ValueError: predictions or references are empty, of different length or outside [0, C); `true` is no
            distribution over C classes; both references and `true` are given, or neither.
    """
    return _kl(*_marginals(predictions, references, num_classes, true))


def marginal_tv(
    predictions: ArrayLike,
    references: ArrayLike | None = None,
    *,
    num_classes: int,
    true: ArrayLike | None = None,
) -> float:
    """Total variation of the class marginals, half their L1 distance, in [0, 1].

    Arguments and errors are those of `marginal_kl`; classes without true probability are no exception here.
    """
    return _tv(*_marginals(predictions, references, num_classes, true))


def marginal_shift(
    predictions: ArrayLike,
    references: ArrayLike | None = None,
    *,
    num_classes: int,
    true: ArrayLike | None = None,
) -> dict[str, float | int]:
    """Both distances beside what sampling alone is expected to give. Arguments and errors of `marginal_kl`.

    Returns:
        {"marginal_kl", "sampling_kl"} in nats, {"marginal_tv", "sampling_tv"} in [0, 1], and {"n"}, the predictions.
    """
    predicted, truth = _marginals(predictions, references, num_classes, true)
    n = len(predictions)
    return {
        "marginal_kl": _kl(predicted, truth),
        "sampling_kl": sampling_kl(truth, n),
        "marginal_tv": _tv(predicted, truth),
        "sampling_tv": sampling_tv(truth, n),
        "n": n,
    }


def sampling_kl(true: ArrayLike, n: int) -> float:
    """Expected KL in nats of n independent predictions that do follow the true marginal [C]: (C - 1) / (2 n).

    C counts the classes of positive probability; the terms left out fall as 1 / n^2. A good classifier on a balanced
    test set stays below it, since its predictions are not independent draws.

    >>> round(sampling_kl([0.1] * 10, 10_000), 8)
    0.00045

    Raises ValueError: `true` is no distribution, or n < 1; TypeError: it holds no numbers, or n is no integer.
    """
    return float(np.count_nonzero(_distribution(true)) - 1) / (2 * _positive(n))


def sampling_tv(true: ArrayLike, n: int) -> float:
    """Expected total variation of n independent predictions that do follow the true marginal [C].

    sum_i sqrt(p_i (1 - p_i) / (2 pi n)): each share is taken as normal, so n p_i should not be small.

    >>> round(sampling_tv([0.1] * 10, 10_000), 5)
    0.01197

    Raises ValueError: `true` is no distribution, or n < 1; TypeError: it holds no numbers, or n is no integer.
    """
    p = _distribution(true)
    return float(np.sqrt(p * (1 - p) / (2 * np.pi * _positive(n))).sum())


def _kl(predicted: np.ndarray, truth: np.ndarray) -> float:
    # The sum of equal marginals can round to just below 0.
    return max(0.0, float(rel_entr(predicted, truth).sum()))


def _tv(predicted: np.ndarray, truth: np.ndarray) -> float:
    return min(1.0, float(np.abs(predicted - truth).sum() / 2))


def _marginals(
    predictions: ArrayLike, references: ArrayLike | None, num_classes: int, true: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """The predicted and the true marginal, float64 [C] each."""
    if (references is None) == (true is None):
        raise ValueError("give the true marginal once: references=[n] to count, or true=[C] probabilities")
    if true is None:
        class_pairs(predictions, references, check_num_classes(num_classes))
        truth = predicted_marginal(references, num_classes=num_classes)
    else:
        truth = _distribution(true)
        if truth.size != check_num_classes(num_classes):
            raise ValueError(f"true names {truth.size} classes and num_classes is {num_classes}")
    return predicted_marginal(predictions, num_classes=num_classes), truth


def _distribution(true: ArrayLike) -> np.ndarray:
    p = real_numbers("true", true)
    if p.ndim != 1 or p.size < 2:
        raise ValueError(f"true must be probabilities [C] of C >= 2 classes, got shape {list(p.shape)}")
    if not (p >= 0).all() or abs(p.sum() - 1) > _SUM_TOLERANCE:
        raise ValueError(f"true must be >= 0 and sum to 1, got a sum of {p.sum():g}, minimum {p.min():g}; normalise it")
    return p / p.sum()


def _positive(n: int) -> int:
    if isinstance(n, int | np.integer) and n < 1:
        raise ValueError(f"n must be >= 1 predictions, got {n!r}")
    return check_count("n", n)
