"""How much of the labels' information survives noise (paper A, equations 1, 2 and 17).

An observed label says less about the true one than the true one itself would. What it still says is the mutual
information I(true; observed) = H(true) - H(true | observed), and the relative information loss is the share of the
labels' entropy that is gone, H(true | observed) / H(true). It is a property of the noise alone. Structured noise loses
less information than uniform noise at the same rate and can hurt more, so it does not predict accuracy. Entropies are
in nats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import entr, rel_entr, xlog1py, xlogy

from hf_noise.analysis.checks import broadcast, integers_in, numbers_in
from hf_noise.noise.transition import check_prior, check_transition

__all__ = [
    "channel_information_loss", "conditional_entropy", "independence_point", "information_loss_slope",
    "mutual_information", "pac_sample_bound", "relative_information_loss",
]  # fmt: skip

_MOST_CLASSES = 1 << 53  # up to which n - 1 is exact


def relative_information_loss(error_rate: Any, num_classes: Any) -> np.ndarray:
    """Share of the labels' information that symmetric noise takes, in [0, 1].

    (-(1 - e) log(1 - e) - e log e + e log(n - 1)) / log n, of a uniform prior over n classes and an error rate e that
    is spread evenly over the n - 1 wrong ones. Exactly 0 at e = 0 and exactly 1 at `independence_point(n)`; beyond,
    labels tell again: of two classes, labels that are always wrong lose nothing.

    Args:
        error_rate: e, in [0, 1].
        num_classes: n, integers in [2, 2^53].

    Returns:
        float64 of the common shape.

    Raises:
        TypeError: error rates are no real numbers, or numbers of classes no integers.
        ValueError: outside their range, or shapes that do not fit together.

    Source: paper A, equations 1 and 17, figure 3.

    >>> relative_information_loss(0.5, [2, 10, 50257]).round(4)
    array([1.    , 0.7782, 0.564 ])
    """
    e, n = _rate_and_classes(error_rate, num_classes)
    entropy = -xlogy(e, e) - xlog1py(1 - e, -e) + xlogy(e, n - 1)
    # Near the independence point what is kept, log n - H, is of second order and would be lost in the rounding of H.
    beyond = n * (e - (1 - 1 / n))
    is_near = np.abs(beyond) < 0.5
    beyond = np.where(is_near, beyond, 0.0)
    kept = xlog1py(1 - e, -beyond) + xlog1py(e, beyond / (n - 1))
    loss = np.where(is_near, 1 - kept / np.log(n), entropy / np.log(n))
    return np.clip(loss, 0.0, 1.0)[()]


def information_loss_slope(error_rate: Any, num_classes: Any) -> np.ndarray:
    """Derivative of `relative_information_loss` in e: log((1 - e)(n - 1) / e) / log n.

    0 at the independence point and only there; inf at 0, -inf at 1. Arguments and errors as there.
    """
    e, n = _rate_and_classes(error_rate, num_classes)
    with np.errstate(divide="ignore", over="ignore"):
        apart, near = np.log1p(-e) + np.log(n - 1) - np.log(e), np.log1p((n - 1 - n * e) / e)
    return (np.where(e < 0.1, apart, near) / np.log(n))[()]


def independence_point(num_classes: Any) -> np.ndarray:
    """The error rate at which observed labels say nothing about the true ones, (n - 1) / n.

    Args:
        num_classes: n, integers in [2, 2^53].

    Raises TypeError or ValueError: no integers, or outside their range.
    """
    n = _classes(num_classes)
    return (1 - 1 / n)[()]


def conditional_entropy(transition: Any, prior: Any = None) -> float:
    """H(true | observed) in nats: what is still unknown of the true label once the observed one is seen.

    From the joint distribution prior[i] T[i, j], exactly 0 of labels that are all right. `mutual_information` is the
    rest of H(true).

    Args:
        transition: T, real numbers [C, C], rows sum to 1: T[i, j] = p(observed = j | true = i).
        prior: p(true) [C], uniform by default.

    Raises TypeError or ValueError: T is no transition matrix, or the prior no distribution over its classes.

    >>> round(conditional_entropy([[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]]), 4)  # one of two, equally likely
    0.6931
    """
    joint, _ = _joint(transition, prior)
    # Minus joint * log(joint / observed), each term >= 0: nothing cancels where little is lost.
    return max(0.0, float(-rel_entr(joint, joint.sum(axis=0)).sum()))


def mutual_information(transition: Any, prior: Any = None) -> float:
    """I(true; observed) in nats: what the observed labels still say of the true ones.

    H(true) where all labels are right, 0 where they are drawn without a look at the true one; no noise adds to it.

    Args:
        transition: T, real numbers [C, C], rows sum to 1: T[i, j] = p(observed = j | true = i).
        prior: p(true) [C], uniform by default.

    Raises TypeError or ValueError: T is no transition matrix, or the prior no distribution over its classes.

    >>> round(mutual_information([[0.9, 0.1], [0.1, 0.9]]) / 0.6931, 3)  # of ln 2, what a tenth of wrong labels leaves
    0.531
    """
    joint, prior = _joint(transition, prior)
    # As a divergence from independence: where labels say little, a difference of entropies would be rounding alone.
    kept = float(rel_entr(joint, prior[:, None] * joint.sum(axis=0)).sum())
    return min(max(0.0, kept), float(entr(prior).sum()))


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
    total = float(entr(_joint(transition, prior)[1]).sum())
    if not total > 0:
        raise ValueError("the prior gives all of its probability to one class: its labels carry no information to lose")
    return min(conditional_entropy(transition, prior) / total, 1.0)


def pac_sample_bound(eps: Any, delta: Any, dimension: Any, *, error_rate: Any = 0.0, c0: Any = 1.0) -> np.ndarray:
    """Lower bound of the number of samples: c0 ((1 / eps) ln(1 / delta) + (d / eps) ln(1 / eps)) / (1 - e).

    The paper states the clean samples that it takes; of m samples at error rate e, (1 - e) m are clean. c0 is a
    constant that nobody states, so only ratios mean anything: the bound grows linearly with d, half the eps takes more
    than twice the samples, and half of the labels wrong take twice as many.

    Args:
        eps: error to reach, in [1e-100, 1).
        delta: probability to miss it, in [1e-100, 1).
        dimension: d > 0, VC dimension: large where little is given beside the target, up to 1e100.
        error_rate: e, share of the samples that are wrong, in [0, 1).
        c0: > 0, up to 1e50.

    Returns:
        float64 of the common shape.

    Raises:
        TypeError: no real numbers.
        ValueError: outside their range, or shapes that do not fit together.

    Source: paper A, equation 2.

    >>> float(pac_sample_bound(0.1, 0.05, 10) / pac_sample_bound(0.1, 0.05, 10, error_rate=0.5))
    0.5
    """
    eps, delta, d, e, c0 = broadcast(
        eps=numbers_in("eps", eps, 1e-100, 1.0, is_below=True, remedy="it is the error to reach"),
        delta=numbers_in("delta", delta, 1e-100, 1.0, is_below=True, remedy="it is the probability to miss it"),
        dimension=numbers_in("dimension", dimension, 1e-100, 1e100, remedy="it is the VC dimension"),
        error_rate=numbers_in("error_rate", error_rate, 0.0, 1.0, is_below=True, remedy="of wrong samples alone "
                              "nothing is learned"),
        c0=numbers_in("c0", c0, 1e-50, 1e50, remedy="it is a constant above 0"),
    )  # fmt: skip
    return (c0 / eps * (-np.log(delta) - d * np.log(eps)) / (1 - e))[()]


def _classes(num_classes: Any) -> np.ndarray:
    told = "it is the number of classes"
    return integers_in("num_classes", num_classes, 2, _MOST_CLASSES, remedy=told).astype(np.float64)


def _rate_and_classes(error_rate: Any, num_classes: Any) -> list[np.ndarray]:
    rate = numbers_in("error_rate", error_rate, 0.0, 1.0, remedy="it is the share of wrong labels")
    return broadcast(error_rate=rate, num_classes=_classes(num_classes))


def _joint(transition: Any, prior: Any) -> tuple[np.ndarray, np.ndarray]:
    """p(true = i, observed = j) [C, C] and p(true) [C], float64."""
    transition = check_transition(transition)
    prior = check_prior(prior, len(transition))
    prior = prior / prior.sum()
    return prior[:, None] * transition, prior
