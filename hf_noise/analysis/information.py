"""How much of the labels' information survives noise (paper A, equations 1, 2 and 17).

An observed label says less about the true one than the true one itself would. The relative information loss is the
share of the labels' entropy that is gone: H(true | observed) / H(true). It is a property of the noise alone. Structured
noise loses less information than uniform noise at the same rate and can hurt more, so it does not predict accuracy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import entr, rel_entr, xlog1py, xlogy

from hf_noise.analysis.checks import broadcast, integers_in, numbers_in
from hf_noise.noise.transition import check_prior, check_transition

__all__ = [
    "channel_information_loss", "independence_point", "information_loss_slope", "pac_samples",
    "relative_information_loss",
]  # fmt: skip

_MOST_CLASSES = 1 << 53  # up to which n - 1 is exact


def relative_information_loss(p_e: Any, n: Any) -> np.ndarray:
    """Share of the labels' information that symmetric noise takes, in [0, 1].

    (-(1 - p) log(1 - p) - p log p + p log(n - 1)) / log n, of a uniform prior over n classes and an error rate p that
    is spread evenly over the n - 1 wrong ones. 1 at p = (n - 1) / n and only there; beyond, labels tell again.

    Args:
        p_e: error rate, in [0, 1].
        n: number of classes, integers in [2, 2^53].

    Returns:
        float64 of the common shape.

    Raises:
        TypeError: p_e are no real numbers, or n no integers.
        ValueError: outside their range, or shapes that do not fit together.

    Source: paper A, equations 1 and 17, figure 3.

    >>> relative_information_loss(0.5, [2, 10, 50257]).round(4)
    array([1.    , 0.7782, 0.564 ])
    """
    p, n = _rate_and_classes(p_e, n)
    entropy = -xlogy(p, p) - xlog1py(1 - p, -p) + xlogy(p, n - 1)
    return np.clip(entropy / np.log(n), 0.0, 1.0)[()]


def information_loss_slope(p_e: Any, n: Any) -> np.ndarray:
    """Derivative of `relative_information_loss` in p_e: log((1 - p)(n - 1) / p) / log n.

    0 at the independence point and only there; inf at 0, -inf at 1. Arguments and errors as there.
    """
    p, n = _rate_and_classes(p_e, n)
    with np.errstate(divide="ignore", over="ignore"):
        apart, near = np.log1p(-p) + np.log(n - 1) - np.log(p), np.log1p((n - 1 - n * p) / p)
    return (np.where(p < 0.1, apart, near) / np.log(n))[()]


def independence_point(n: Any) -> np.ndarray:
    """The error rate at which observed labels say nothing about the true ones, (n - 1) / n.

    Args:
        n: number of classes, integers in [2, 2^53].

    Raises TypeError or ValueError: no integers, or outside their range.
    """
    n = _classes(n)
    return (1 - 1 / n)[()]


def channel_information_loss(transition: Any, prior: Any = None) -> float:
    """Share of the labels' information that noise of any kind takes: H(true | observed) / H(true), in [0, 1].

    From the joint distribution prior[i] T[i, j]. Of symmetric noise and a uniform prior this is
    `relative_information_loss`.

    Args:
        transition: T, real numbers [C, C], rows sum to 1: T[i, j] = p(observed = j | true = i).
        prior: p(true) [C], uniform by default.

    Raises:
        TypeError, ValueError: T is no transition matrix or the prior no distribution over its classes; or one class
            has all of the prior, so that there is no information to lose.

    >>> cyclic = [[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]]
    >>> round(channel_information_loss(cyclic), 4)
    0.6309
    """
    transition = check_transition(transition)
    prior = check_prior(prior, len(transition))
    prior = prior / prior.sum()
    total = entr(prior).sum()
    if not total > 0:
        raise ValueError("the prior gives all of its probability to one class: its labels carry no information to lose")
    joint = prior[:, None] * transition
    # Minus joint * log(joint / observed), each term >= 0: nothing cancels where little is lost.
    lost = -rel_entr(joint, joint.sum(axis=0)).sum()
    return float(np.clip(lost / total, 0.0, 1.0))


def pac_samples(eps: Any, delta: Any, dimension: Any, c0: Any = 1.0) -> np.ndarray:
    """Lower bound of the number of clean samples: c0 ((1 / eps) ln(1 / delta) + (d / eps) ln(1 / eps)).

    c0 is a constant that nobody states, so only ratios mean anything: the bound grows linearly with d, and half the
    eps takes more than twice the samples. Of m samples at error rate e, (1 - e) m are clean.

    Args:
        eps: error to reach, in [1e-100, 1).
        delta: probability to miss it, in [1e-100, 1).
        dimension: d > 0, VC dimension: large where little is given beside the target, up to 1e100.
        c0: > 0, up to 1e50.

    Raises:
        TypeError: no real numbers.
        ValueError: outside their range, or shapes that do not fit together.

    Source: paper A, equation 2.
    """
    eps, delta, d, c0 = broadcast(
        eps=numbers_in("eps", eps, 1e-100, 1.0, is_below=True, remedy="it is the error to reach"),
        delta=numbers_in("delta", delta, 1e-100, 1.0, is_below=True, remedy="it is the probability to miss it"),
        dimension=numbers_in("dimension", dimension, 1e-100, 1e100, remedy="it is the VC dimension"),
        c0=numbers_in("c0", c0, 1e-50, 1e50, remedy="it is a constant above 0"),
    )
    return (c0 / eps * (-np.log(delta) - d * np.log(eps)))[()]


def _classes(n: Any) -> np.ndarray:
    return integers_in("n", n, 2, _MOST_CLASSES, remedy="it is the number of classes").astype(np.float64)


def _rate_and_classes(p_e: Any, n: Any) -> list[np.ndarray]:
    rate = numbers_in("p_e", p_e, 0.0, 1.0, remedy="it is the share of wrong labels")
    return broadcast(p_e=rate, n=_classes(n))
