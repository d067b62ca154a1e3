"""An audit's probabilities after a person has looked at some rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit, logit

from hf_noise.audit.checks import shares
from hf_noise.metrics.checks import as_array, masked_units

__all__ = ["recalibrated", "tilted"]

_EDGE = 1e-6  # nearest to 0 and 1 that a probability counts
#: What holds offset and slope near 0 and 1, in rows: a handful of verified rows moves little.
_OFFSET_PRIOR, _SLOPE_PRIOR = 0.05, 2.0
_LEAST_SLOPE = 0.05  # never turns the order of rows round
_STEPS = 30
_LEAST_CHANCE = 1e-12  # of a row to be drawn; its inverse is a weight


def recalibrated(p_wrong: Any, rows: Any, is_wrong: Any, probability: Any) -> np.ndarray:
    """p_wrong of all rows, corrected by verified ones: p' = sigmoid(a + b logit p), which keeps the order of rows.

    Platt's two parameters by likelihood of the verified rows, each weighted by the inverse of its chance to be drawn
    (to a mean weight of 1), with a ridge that holds a near 0 and b near 1: isotonic steps, the other usual way, tie
    most rows where there are few hundred verified ones, and ties cost the ranking.

    Args:
        p_wrong: float [N] in [0, 1].
        rows: integers [n], numbers of the verified rows in [0, N).
        is_wrong: bool [n], what was found.
        probability: float [n] in [1e-12, 1], the chance of each to be drawn.

    Returns:
        float64 [N]; verified rows are 0 or 1.

    Raises:
        TypeError, ValueError: an argument is of another kind, range or length.

    Source: Platt, "Probabilistic outputs for support vector machines" (1999).
    """
    p_wrong = shares("p_wrong", p_wrong)
    rows, is_wrong, weight = _looked_at(rows, is_wrong, probability, len(p_wrong))
    if not len(rows):
        return p_wrong.copy()
    x = logit(np.clip(p_wrong, _EDGE, 1 - _EDGE))
    seen = x[rows]
    weight = weight / weight.mean()

    def slope_of(a: float, b: float) -> tuple[np.ndarray, np.ndarray, float]:
        p = expit(a + b * seen)
        left, curve = weight * (is_wrong - p), weight * p * (1 - p)
        gradient = np.array([left.sum() - _OFFSET_PRIOR * a, left @ seen - _SLOPE_PRIOR * (b - 1)])
        both = curve @ seen
        hessian = np.array([[curve.sum() + _OFFSET_PRIOR, both], [both, curve @ seen**2 + _SLOPE_PRIOR]])
        log = np.logaddexp(0, np.where(is_wrong, -1, 1) * (a + b * seen))
        return gradient, hessian, weight @ log + (_OFFSET_PRIOR * a * a + _SLOPE_PRIOR * (b - 1) ** 2) / 2

    at = np.array([0.0, 1.0])
    gradient, hessian, loss = slope_of(*at)
    for _ in range(_STEPS):  # Newton's steps on a convex function, halved until they go down
        step = np.linalg.solve(hessian, gradient)
        while (new := slope_of(*(at + step)))[2] > loss and np.abs(step).max() > 1e-12:
            step = step / 2
        at, (gradient, hessian, loss) = at + step, new
        if np.abs(step).max() < 1e-9:
            break
    result = expit(at[0] + max(at[1], _LEAST_SLOPE) * x)
    result[rows] = is_wrong
    return result


def _looked_at(rows: Any, is_wrong: Any, probability: Any, total: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    numbers, is_wrong = as_array("rows", rows), masked_units("is_wrong", is_wrong)
    if not numbers.size:
        numbers = numbers.astype(np.int64)
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"rows must be integers, got {numbers.dtype}")
    if numbers.ndim != 1 or is_wrong.shape != numbers.shape:
        raise ValueError(f"rows and is_wrong must be [n] each, got {list(numbers.shape)} and {list(is_wrong.shape)}")
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < total:
        raise ValueError(f"rows must lie in [0, {total}), as p_wrong has, got {numbers.min()} to {numbers.max()}")
    if len(np.unique(numbers)) < len(numbers):
        raise ValueError("rows must differ; a row that was looked at twice counts once")
    chance = shares("probability", probability) if numbers.size else np.ones(0)
    if chance.shape != numbers.shape or numbers.size and not chance.min() >= _LEAST_CHANCE:
        raise ValueError(
            f"probability must be [{len(numbers)}] as rows, each >= {_LEAST_CHANCE:g}, got {list(chance.shape)}"
        )
    return numbers.astype(np.int64), is_wrong, 1 / chance


def tilted(posterior: np.ndarray, labels: np.ndarray, p_wrong: np.ndarray) -> np.ndarray:
    """p(true = c), float64 [N, C], where 1 - p_wrong is that of the given label and the others keep their ratios."""
    rows = np.arange(len(labels))
    others = posterior.copy()
    others[rows, labels] = 0
    total = others.sum(axis=1, keepdims=True)
    even = np.full_like(others, 1 / (others.shape[1] - 1))
    even[rows, labels] = 0
    made = np.where(total > 0, others / np.where(total > 0, total, 1), even) * p_wrong[:, None]
    made[rows, labels] = 1 - p_wrong
    return made
