"""Shares of a data set from a stratified sample and a prediction for every row: prediction-powered inference.

Within each stratum the truth of drawn rows gives a share; what the prediction says of all rows, less what it says of
drawn ones, times a fitted power, takes chance out of their sum. A prediction that is worth nothing has the power 0, and
one that is wrong shifts nothing on average: the interval rests on the draw alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

__all__ = ["PoweredShare", "powered_share", "share_interval"]

#: Member of Cressie and Read's family of power divergences: 0 is the likelihood ratio, whose interval is somewhat short
#: where hardly a wrong row was found, and 1 Pearson's statistic (Wilson's score), whose interval is far too wide there.
_DIVERGENCE = 0.1
#: A row added to those that bear on the spread, as if the prediction were worth nothing on them: that it fitted every
#: row which was looked at does not show that it never fails.
_UNSEEN = 1
_STEPS = 48  # halvings of a range


class PoweredShare(NamedTuple):
    """A share with its interval, float64 [...] each, and the `power` in it that the prediction was given."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    power: np.ndarray


def powered_share(
    truth: np.ndarray,
    prediction: np.ndarray,
    means: np.ndarray,
    stratum: np.ndarray,
    sizes: np.ndarray,
    confidence: float = 0.95,
) -> PoweredShare:
    """The share of a data set's rows that are true, from n that were looked at and a prediction for all.

    With weights W_h = N_h / N, drawn rows' means y_h and f_h, and means F_h of the prediction over all rows, the value
    is sum_h W_h (y_h + power (F_h - f_h)). Its interval is that of the stratified share (`share_interval`), moved by
    the prediction's part and shortened by the root of the share of variance that the prediction leaves, which is
    counted on rows that its power was not fitted to.

    Args:
        truth: [..., n], 0 or 1; leading axes are so many questions, or samples of the same sizes.
        prediction: float [..., n], of the same rows.
        means: float [..., H], of the prediction over all rows of each stratum.
        stratum: integers [n] in [0, H).
        sizes: integers [H], all rows of each stratum. One of which all rows were looked at is known exactly; of one of
            which none was, the share is the prediction's, and the interval holds everything between none and all.
        confidence: of the interval.

    Source: Angelopoulos, Bates, Fannjiang, Jordan, Zrnic, "Prediction-powered inference", Science 382 (2023);
    Angelopoulos, Duchi, Zrnic, "PPI++" (arXiv:2311.01453), the fitted power; Fisch et al., "Stratified
    prediction-powered inference" (arXiv:2406.04291).
    """
    truth, prediction = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    member = stratum[:, None] == np.arange(len(sizes))
    n, total = member.sum(0), sizes.sum()
    seen, weight = n > 0, sizes / total
    found = truth @ member
    share, predicted = found / np.maximum(n, 1), prediction @ member / np.maximum(n, 1)
    means = np.broadcast_to(means, share.shape)
    low, high = share_interval(share[..., seen], n[seen], sizes[seen], confidence, total)
    middle = (share * weight)[..., seen].sum(-1)
    power, left = _power(truth - share[..., stratum], prediction - predicted[..., stratum], stratum, n, sizes)
    shift = power * ((means - predicted) * weight)[..., seen].sum(-1)
    unseen = (np.clip(means, 0, 1) * weight)[..., ~seen].sum(-1)
    # What was looked at is known, whatever the rest is.
    least, most = found.sum(-1) / total, 1 - (n.sum() - found.sum(-1)) / total
    value = np.clip(middle + shift + unseen, least, most)
    low = np.clip(middle + shift - (middle - low) * left, least, value)
    high = np.clip(middle + shift + (high - middle) * left + weight[~seen].sum(), value, most)
    return PoweredShare(value, low, high, power)


def share_interval(
    share: np.ndarray, n: np.ndarray, sizes: np.ndarray, confidence: float = 0.95, total: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of sum_h W_h p_h of independent binomial shares, that is never a point where rows were left out.

    It holds the sums of all shares p_h whose power divergence from the observed ones is small; on the curve of those
    that come closest to the observation at each sum (its likelihood's, under a Lagrange multiplier, a quadratic
    equation). The bound is Student's t squared with n - H degrees of freedom. Where no row was true it ends near 2.1 /
    n.

    Args:
        share: float [..., H] in [0, 1], observed.
        n, sizes: integers [H], rows looked at and there are; n counts for more where it is much of its stratum.
        confidence: in (0, 1).
        total: of the weights N_h / total, if other than the sum of sizes.

    Returns:
        (low, high), float64 [...].
    """
    weight = sizes / (sizes.sum() if total is None else total)
    known = n >= sizes
    exact = (share * weight)[..., known].sum(-1)
    if known.all():
        return exact, exact
    share, weight, rows = share[..., ~known], weight[~known], n[~known]
    bound = student.ppf((1 + confidence) / 2, max(rows.sum() - len(rows), 1)) ** 2
    rows = rows * (sizes[~known] - 1) / (sizes[~known] - rows)
    scale = (rows / weight).max()
    ends = []
    for sign in (-1, 1):
        inside, outside = np.zeros(share.shape[:-1]), np.ones(share.shape[:-1])
        for _ in range(_STEPS):
            middle = (inside + outside) / 2
            shares = _closest(share, rows, (sign * scale * middle / (1 - middle))[..., None] * weight)
            is_near = _divergence(share, rows, shares) < bound
            inside, outside = np.where(is_near, middle, inside), np.where(is_near, outside, middle)
        shares = _closest(share, rows, (sign * scale * inside / (1 - inside))[..., None] * weight)
        ends.append(exact + (shares * weight).sum(-1))
    return ends[0], ends[1]


def _closest(share: np.ndarray, n: np.ndarray, pull: np.ndarray) -> np.ndarray:
    """Shares x of largest likelihood plus pull x: n (share - x) + pull x (1 - x) = 0."""
    b = n - pull
    root = np.sqrt(b * b + 4 * pull * n * share)
    with np.errstate(divide="ignore", invalid="ignore"):  # each form where the other one would cancel
        x = np.where(b >= 0, 2 * n * share / (b + root), (root - b) / (2 * pull))
    return np.clip(np.where((pull == 0) | (root == 0), share, x), 0, 1)  # 0 / 0 where nothing pulls, or just too little


def _divergence(share: np.ndarray, n: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Cressie and Read's power divergence [...] of observed shares from x, summed over strata."""
    with np.errstate(divide="ignore", invalid="ignore"):
        of_true = np.where(share > 0, share * ((share / x) ** _DIVERGENCE - 1), 0)
        of_false = np.where(share < 1, (1 - share) * (((1 - share) / (1 - x)) ** _DIVERGENCE - 1), 0)
    return 2 / (_DIVERGENCE * (_DIVERGENCE + 1)) * (n * (of_true + of_false)).sum(-1)


def _power(
    truth: np.ndarray, prediction: np.ndarray, stratum: np.ndarray, n: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Power [...] of a prediction, and what is left of the interval's length; arguments less their strata's means.

    One power for all strata: those that know little of theirs would each fit chance.
    """
    # Part of a row's square in the variance of the sum; a row is left out of its own stratum's mean as well.
    others = np.maximum(n - 1, 1)
    part = ((sizes / sizes.sum()) ** 2 * (1 - n / sizes) / np.maximum(n, 1) / others * (n / others))[stratum]
    both, own = part * truth * prediction, part * prediction**2
    spread = part * truth**2
    with np.errstate(divide="ignore", invalid="ignore"):
        power = both.sum(-1) / own.sum(-1)
        without = (both.sum(-1, keepdims=True) - both) / (own.sum(-1, keepdims=True) - own)
        left = (part * (truth - without * prediction) ** 2).sum(-1) / spread.sum(-1)
        rows = spread.sum(-1) ** 2 / (spread**2).sum(-1)
        left = (left * rows + _UNSEEN) / (rows + _UNSEEN)
    is_of_use = np.isfinite(left) & np.isfinite(power) & (left < 1)
    return np.where(is_of_use, power, 0.0), np.where(is_of_use, np.sqrt(np.where(is_of_use, left, 1)), 1.0)
