"""Shares of a data set from a stratified sample and a prediction for every row: prediction-powered inference.

Within each stratum the truth of drawn rows gives a share; what the prediction says of all rows, less what it says of
drawn ones, times a fitted power, takes chance out of their sum. A prediction that is worth nothing has the power 0, and
one that is wrong shifts nothing on average: the interval rests on the draw alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hf_noise.audit.tilted import farthest

__all__ = ["PoweredShare", "powered_share", "share_interval"]


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
    is sum_h W_h (y_h + power (F_h - f_h)). Its interval is that of the mean of what the prediction leaves of each drawn
    row, at a power that was not fitted to that row (`farthest`). It counts with rows on which the prediction fails
    although it failed on none that was looked at: any drawn row might as well have been of the other kind.

    Args:
        truth: [..., n], 0 or 1, or scores in between; leading axes are so many questions, or samples of the same sizes.
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
    middle = (share * weight)[..., seen].sum(-1)
    power, left = _power(truth - share[..., stratum], prediction - predicted[..., stratum], stratum, n, sizes)
    left = left - (left @ member / np.maximum(n, 1))[..., stratum]
    reach = {}
    for kind in (0, 1):
        # What would be left of each drawn row if it were of this kind.
        turned = kind - share[..., stratum] - power[..., None] * (prediction - predicted[..., stratum])
        sign = 2 * kind - 1
        ends = np.maximum(sign * turned, sign * left)
        extreme = np.stack([ends[..., stratum == h].max(-1, initial=-1) for h in range(len(sizes))], -1)
        reach[kind] = farthest(sign * left, np.ones(len(stratum)), extreme, stratum, n, sizes, total, confidence)
    shift = power * ((means - predicted) * weight)[..., seen].sum(-1)
    unseen = (np.clip(means, 0, 1) * weight)[..., ~seen].sum(-1)
    # What was looked at is known, whatever the rest is.
    least, most = found.sum(-1) / total, 1 - (n.sum() - found.sum(-1)) / total
    value = np.clip(middle + shift + unseen, least, most)
    low = np.clip(middle + shift - reach[0], least, value)
    high = np.clip(middle + shift + reach[1] + weight[~seen].sum(), value, most)
    return PoweredShare(value, low, high, power)


def share_interval(
    share: np.ndarray, n: np.ndarray, sizes: np.ndarray, confidence: float = 0.95, total: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of sum_h W_h p_h of independent binomial shares, that is never a point where rows were left out.

    It holds the sums of all shares p_h whose power divergence from the observed ones is small (`farthest`). Where no
    row was true it ends near 2.9 / n.

    Args:
        share: float [..., H] in [0, 1], observed.
        n, sizes: integers [H], rows looked at and there are; n counts for more where it is much of its stratum.
        confidence: in (0, 1).
        total: of the weights N_h / total, if other than the sum of sizes.

    Returns:
        (low, high), float64 [...].
    """
    total = sizes.sum() if total is None else total
    middle = (share * sizes).sum(-1) / total
    # Two values in each stratum: what is left of a false row and of a true one.
    values, counts = np.concatenate([-share, 1 - share], -1), np.concatenate([n * (1 - share), n * share], -1)
    stratum = np.tile(np.arange(len(n)), 2)
    low, high = (
        farthest(sign * values, counts, extreme, stratum, n, sizes, total, confidence)
        for sign, extreme in ((-1, share), (1, 1 - share))
    )
    return middle - low, middle + high


def _power(
    truth: np.ndarray, prediction: np.ndarray, stratum: np.ndarray, n: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Power [...] of a prediction, and what it leaves [..., n] of each row; arguments less their strata's means.

    One power for all strata: those that know little of theirs would each fit chance.
    """
    # Part of a row's square in the variance of the sum; a row is left out of its own stratum's mean as well.
    others = np.maximum(n - 1, 1)
    part = ((sizes / sizes.sum()) ** 2 * (1 - n / sizes) / np.maximum(n, 1) / others * (n / others))[stratum]
    both, own = part * truth * prediction, part * prediction**2
    with np.errstate(divide="ignore", invalid="ignore"):
        power = both.sum(-1) / own.sum(-1)
        without = (both.sum(-1, keepdims=True) - both) / (own.sum(-1, keepdims=True) - own)
        left = truth - without * prediction
        part_left = (part * left**2).sum(-1) / (part * truth**2).sum(-1)
    is_of_use = np.isfinite(part_left) & np.isfinite(power) & (part_left < 1)
    return np.where(is_of_use, power, 0.0), np.where(is_of_use[..., None], left, truth)
