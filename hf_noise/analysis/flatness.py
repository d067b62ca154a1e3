"""Why local gradient matching cannot be large at a flat minimum (paper B, Proposition 2), for a linear softmax head.

Features t are perturbed to t_hat = t + d. The norm of the difference of the head's mean gradients at t and at t_hat,
L_gm, is at most 2 beta + 2 L_ce + R_rho: smoothness, cross-entropy, and how much the loss can rise within |d| <= rho.
The bound is loose. The head's logits are W t + b; losses are in nats.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import log_softmax

from hf_noise.analysis.checks import broadcast, numbers_in
from hf_noise.noise.arrays import integers, real_numbers
from hf_noise.noise.checks import check_count, check_flag, check_real

__all__ = ["flatness_lower", "flatness_upper", "gradient_bound", "head_smoothness", "perturbation_radius"]

_LARGEST = 1e100


def gradient_bound(beta: Any, cross_entropy: Any, flatness: Any) -> np.ndarray:
    """Upper bound of L_gm, 2 beta + 2 L_ce + R_rho (paper B, Proposition 2).

    Args:
        beta: smoothness of the loss in the head's parameters, >= 0, at all features and perturbed ones; see
            `head_smoothness`.
        cross_entropy: mean loss on the features themselves, >= 0, in nats.
        flatness: R_rho >= 0, mean over samples of the largest rise of the loss within rho; see `flatness_upper`.

    Raises:
        TypeError: no real numbers.
        ValueError: NaN, or outside [0, 1e100]; or their shapes do not fit together.
    """
    named = {"beta": beta, "cross_entropy": cross_entropy, "flatness": flatness}
    told = "smoothness, loss and flatness are >= 0"
    beta, loss, rise = broadcast(
        **{name: numbers_in(name, value, 0.0, _LARGEST, remedy=told) for name, value in named.items()}
    )
    return (2 * beta + 2 * loss + rise)[()]


def perturbation_radius(gamma: float, size: int) -> float:
    """rho = gamma (sqrt(d) + 3): all but about one in a thousand draws gamma N(0, I_d) lie within.

    The proposition asks for bounded perturbations, and Gaussian ones are not. The norm of N(0, I_d) exceeds sqrt(d) by
    3 with probability below exp(-9/2) = 0.011, and in fact below 0.003.

    Args:
        gamma: standard deviation of the perturbation, in [0, 1e100].
        size: d >= 1, length of a feature.

    Raises TypeError or ValueError: no number, or outside its range.
    """
    return _amount("gamma", gamma) * (math.sqrt(check_count("size", size, 1, 40)) + 3)


def head_smoothness(features: Any, rho: float = 0.0, *, has_bias: bool = True) -> float:
    """beta of the cross-entropy of a linear softmax head: max over samples of ((|t| + rho)^2 + 1) / 2.

    The Hessian in (W, b) is (diag p - p p^T) x (t, 1)(t, 1)^T, and the largest eigenvalue of its first factor is at
    most 1/2. Proposition 2 needs it at perturbed features as well, hence rho.

    Args:
        features: real numbers [N, d], N >= 1.
        rho: radius of the perturbations, in [0, 1e100].
        has_bias: whether b is a parameter; without it, the 1 goes.

    Raises TypeError or ValueError: of another kind or shape, not finite, or outside its range.
    """
    features, rho = _matrix("features", features), _amount("rho", rho)
    longest = np.linalg.norm(features, axis=1).max() + rho
    return float(0.5 * (longest**2 + check_flag("has_bias", has_bias)))


def flatness_upper(weight: Any, rho: float) -> float:
    """Upper bound of R_rho of a linear head, sqrt(2) |W|_2 rho: the loss is sqrt(2)-Lipschitz in the logits.

    Args:
        weight: W, real numbers [C, d].
        rho: radius of the perturbations, in [0, 1e100].

    Raises TypeError or ValueError: of another kind or shape, not finite, or outside its range.
    """
    return float(math.sqrt(2) * np.linalg.norm(_matrix("weight", weight), 2) * _amount("rho", rho))


def flatness_lower(weight: Any, bias: Any, features: Any, labels: Any, rho: float, *, num_steps: int = 10) -> float:
    """Lower bound of R_rho of a linear head: the rise of the loss at perturbations that were found.

    The loss is convex in t, so it rises with every step d <- rho g / |g| to where its linear part is largest; no step
    size is needed. Started at each sample itself.

    Args:
        weight: W, real numbers [C, d].
        bias: b, real numbers [C].
        features: t, real numbers [N, d], N >= 1.
        labels: y, integers [N] in [0, C).
        rho: radius of the perturbations, in [0, 1e100].
        num_steps: from 1 on.

    Returns:
        Mean over samples, in nats, >= 0.

    Raises TypeError or ValueError: of another kind, not finite, outside its range, or shapes that do not fit together.
    """
    weight, features, rho = _matrix("weight", weight), _matrix("features", features), _amount("rho", rho)
    labels, bias = integers("labels", labels), real_numbers("bias", bias)
    num_steps = check_count("num_steps", num_steps, 1, 20)
    rows, classes = len(features), len(weight)
    if weight.shape[1] != features.shape[1] or bias.shape != (classes,) or labels.shape != (rows,):
        raise ValueError(
            f"shapes do not fit together: weight [C, d] {list(weight.shape)}, bias [C] {list(bias.shape)}, features "
            f"[N, d] {list(features.shape)}, labels [N] {list(labels.shape)}"
        )
    if not np.isfinite(bias).all() or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"bias must be finite and labels lie in [0, {classes}), got labels from {labels.min()} to "
                         f"{labels.max()}")  # fmt: skip

    def losses(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loss of each sample [N], and its gradient in t [N, d]."""
        log_p = log_softmax(t @ weight.T + bias, axis=1)
        residual = np.exp(log_p)
        residual[np.arange(rows), labels] -= 1
        return -log_p[np.arange(rows), labels], residual @ weight

    before, slope = losses(features)
    for _ in range(num_steps):
        norm = np.linalg.norm(slope, axis=1, keepdims=True)
        moved = features + rho * np.divide(slope, norm, out=np.zeros_like(slope), where=norm > 0)
        after, slope = losses(moved)
    return float(np.maximum(after - before, 0.0).mean())


def _matrix(name: str, values: Any) -> np.ndarray:
    told = "give finite numbers, a row for each sample or class"
    matrix = numbers_in(name, values, -_LARGEST, _LARGEST, remedy=told)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"{name} must have two axes and be not empty, got shape {list(matrix.shape)}")
    return matrix


def _amount(name: str, value: Any) -> float:
    amount = check_real(name, value)
    if not 0 <= amount <= _LARGEST:
        raise ValueError(f"{name} must lie in [0, {_LARGEST:g}], got {value!r}")
    return amount
