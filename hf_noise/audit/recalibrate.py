"""An audit's probabilities after a person has looked at some rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit, logit

from hf_noise.audit.checks import shares
from hf_noise.metrics.checks import as_array, masked_units
from hf_noise.metrics.labels import class_indices

__all__ = ["recalibrated", "tilted"]

_EDGE = 1e-6  # nearest to 0 and 1 that a probability counts
#: What holds offset and slope near 0 and 1, in rows: a handful of verified rows moves little.
_OFFSET_PRIOR, _SLOPE_PRIOR = 0.05, 2.0
#: And what holds each class's own offset near 0. Of 0.3, 1 and 3, 1 was best or close to it in p_wrong by class, Brier
#: score and AUROC, of people's mistakes on images and of swapped classes of texts (60, 200 and 400 verified rows).
_CLASS_PRIOR = 1.0
_LEAST_SLOPE = 0.05  # never turns the order of rows round
_STEPS = 30
_LEAST_CHANCE = 1e-12  # of a row to be drawn; its inverse is a weight


def recalibrated(p_wrong: Any, rows: Any, is_wrong: Any, probability: Any, *, given: Any = None) -> np.ndarray:
    """p_wrong of all rows, corrected by verified ones: p' = sigmoid(a + c_given + b logit p).

    Platt's two parameters by likelihood of the verified rows, each weighted by the inverse of its chance to be drawn
    (to a mean weight of 1), with a ridge that holds a near 0 and b near 1: isotonic steps, the other usual way, tie
    most rows where there are few hundred verified ones, and ties cost the ranking. Rows of a given label have an offset
    c of their own, near 0 where few of them were looked at: mistakes that the audit missed in one class would else be
    laid on all. Within a given label the order of rows is kept.

    Args:
        p_wrong: float [N] in [0, 1].
        rows: integers [n], numbers of the verified rows in [0, N).
        is_wrong: bool [n], what was found.
        probability: float [n] in [1e-12, 1], the chance of each to be drawn.
        given: given label of each row, integers [N] >= 0; without them all rows share one offset.

    Returns:
        float64 [N]; verified rows are 0 or 1.

    Raises:
        TypeError, ValueError: an argument is of another kind, range or length.

    Source: Platt, "Probabilistic outputs for support vector machines" (1999).
    """
    p_wrong = shares("p_wrong", p_wrong)
    rows, is_wrong, weight = _looked_at(rows, is_wrong, probability, len(p_wrong))
    classes = np.zeros(len(p_wrong), np.int64)
    if given is not None:
        classes = np.unique(class_indices("given", given, None), return_inverse=True)[1]
    if len(classes) != len(p_wrong):
        raise ValueError(f"given must be [{len(p_wrong)}], one for each of p_wrong, got {len(classes)}")
    if not len(rows):
        return p_wrong.copy()
    x = logit(np.clip(p_wrong, _EDGE, 1 - _EDGE))
    seen, own = x[rows], np.unique(classes[rows]) if given is not None else np.zeros(0, np.int64)
    # What a verified row adds to each parameter: a, b, and the offsets of classes that were looked at.
    design = np.column_stack([np.ones(len(rows)), seen, classes[rows, None] == own])
    start, ridge = np.zeros(2 + len(own)), np.full(2 + len(own), _CLASS_PRIOR)
    start[1], ridge[:2] = 1.0, (_OFFSET_PRIOR, _SLOPE_PRIOR)
    weight = weight / weight.mean()

    def slope_of(at: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        score, off = design @ at, at - start
        p = expit(score)
        gradient = design.T @ (weight * (is_wrong - p)) - ridge * off
        hessian = (design.T * (weight * p * (1 - p))) @ design + np.diag(ridge)
        return gradient, hessian, weight @ np.logaddexp(0, np.where(is_wrong, -score, score)) + ridge @ off**2 / 2

    at = start
    gradient, hessian, loss = slope_of(at)
    for _ in range(_STEPS):  # Newton's steps on a convex function, halved until they go down
        step = np.linalg.solve(hessian, gradient)
        while (new := slope_of(at + step))[2] > loss and np.abs(step).max() > 1e-12:
            step = step / 2
        at, (gradient, hessian, loss) = at + step, new
        if np.abs(step).max() < 1e-9:
            break
    offset = np.zeros(classes.max() + 1)
    offset[own] = at[2:]
    result = expit(at[0] + offset[classes] + max(at[1], _LEAST_SLOPE) * x)
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
