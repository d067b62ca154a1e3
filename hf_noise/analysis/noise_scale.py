"""The gradient noise scale of McCandlish et al. (2018), from squared norms at a small and a big batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import stdtrit

from hf_noise.analysis.checks import broadcast, numbers_in
from hf_noise.noise.checks import check_real

__all__ = ["NoiseScale", "gradient_noise_scale", "ratio_interval"]

_LARGEST = 1e100


@dataclass(frozen=True)
class NoiseScale:
    """B_simple = tr(Sigma) / |G|^2, in what batches are counted in: the batch at which noise is as large as signal.

    Attributes:
        value: the ratio of the two means, >= 0; infinite where the mean of |G|^2 is not above 0.
        low, high: its interval at `confidence` (Fieller); `high` is infinite, and `low` may be 0, where the signal
            cannot be told from 0.
        signal: mean estimate of |G|^2, the squared norm of the expected gradient; it may come out below 0.
        variance: mean estimate of tr(Sigma), the summed variances of the gradient of one example.
        n: measurements.
        confidence: of the interval.
    """

    value: float
    low: float
    high: float
    signal: float
    variance: float
    n: int
    confidence: float

    def times(self, units: float) -> NoiseScale:
        """The same in smaller units, of which there are so many in each: of rows times tokens in a row, in tokens.

        Raises TypeError or ValueError: this is no number > 0.
        """
        units = check_real("units", units)
        if not 0 < units < math.inf:
            raise ValueError(f"units must be a number > 0, got {units!r}; it is how many there are in each, such as "
                             "the tokens of a row")  # fmt: skip
        return replace(self, value=self.value * units, low=self.low * units, high=self.high * units,
                       variance=self.variance * units)  # fmt: skip


def gradient_noise_scale(
    small: Any, big: Any, *, small_batch: Any, big_batch: Any, confidence: float = 0.95
) -> NoiseScale:
    """B_simple from squared gradient norms, each pair at the same weights.

    The mean gradient of B independent examples has E|G_B|^2 = |G|^2 + tr(Sigma) / B. So of a pair at b < B

        |G|^2 = (B |G_B|^2 - b |G_b|^2) / (B - b),    tr(Sigma) = (|G_b|^2 - |G_B|^2) / (1 / b - 1 / B)

    are unbiased, whether or not the small batch is a part of the big one (which makes the spread smaller). Their means
    over all pairs are divided once: a mean of ratios would be biased. The interval of that ratio is Fieller's, from the
    spread over pairs and Student's t; it takes the pairs for independent and the weights for nearly the same in all.

    Args:
        small, big: squared norms >= 0 of mean gradients, real [n] or single numbers, n >= 1; of the loss that is a
            mean over the batch, before clipping.
        small_batch, big_batch: examples (or whatever is independent) behind each, > 0, small_batch < big_batch; real
            [n] or single numbers. Of batches of several sizes that are averaged, the harmonic mean.
        confidence: in (0, 1).

    Raises:
        TypeError: no real numbers.
        ValueError: other shapes, NaN, outside their range, or a big batch that is not the bigger one.

    Source: McCandlish, Kaplan, Amodei, "An Empirical Model of Large-Batch Training" (2018), appendix A.1.

    Example: |G|^2 = 1 and tr(Sigma) = 12, without scatter
        >>> found = gradient_noise_scale([4.0, 4.0], [2.0, 2.0], small_batch=4, big_batch=12)
        >>> round(found.signal, 9), round(found.variance, 9), round(found.value, 9)
        (1.0, 12.0, 12.0)
    """
    named = {
        "small": numbers_in("small", small, 0, _LARGEST, remedy="give squared norms of gradients"),
        "big": numbers_in("big", big, 0, _LARGEST, remedy="give squared norms of gradients"),
        "small_batch": numbers_in("small_batch", small_batch, 1e-9, 1e15, remedy="give the number of examples"),
        "big_batch": numbers_in("big_batch", big_batch, 1e-9, 1e15, remedy="give the number of examples"),
    }
    if wrong := [name for name, array in named.items() if array.ndim > 1]:
        raise ValueError(f"{wrong[0]} must be [n] or a single number, got the shape {list(named[wrong[0]].shape)}")
    small, big, b_small, b_big = (np.atleast_1d(array) for array in broadcast(**named))
    if not small.size:
        raise ValueError("small and big are empty; the noise scale takes at least one pair of norms")
    if not (b_small < b_big).all():
        at = int(np.argmax(b_small >= b_big))
        raise ValueError(f"small_batch must be below big_batch, got {b_small[at]:g} and {b_big[at]:g}; the estimate is "
                         "a difference between the two")  # fmt: skip
    confidence = check_real("confidence", confidence)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}; 0.95 is usual")
    signal = (b_big * big - b_small * small) / (b_big - b_small)
    variance = (small - big) / (1 / b_small - 1 / b_big)
    mean_signal, mean_variance = float(signal.mean()), float(variance.mean())
    low, high = ratio_interval(variance, signal, confidence)
    value = max(0.0, mean_variance) / mean_signal if mean_signal > 0 else math.inf
    # Where the variance came out below 0, the value is 0, which its interval has to hold.
    return NoiseScale(value, min(low, value), max(high, value), mean_signal, mean_variance, signal.size, confidence)


def ratio_interval(above: np.ndarray, below: np.ndarray, confidence: float) -> tuple[float, float]:
    """Fieller's interval of mean(above) / mean(below) of pairs float64 [n] that a caller has checked, cut to [0, inf].

    All of [0, inf] of one pair; without an end where the mean below cannot be told from 0.
    """
    n = above.size
    if n < 2:
        return 0.0, math.inf
    scale_a, scale_b = np.abs(above).max() or 1.0, np.abs(below).max() or 1.0  # squares of tiny numbers are 0
    above, below = above / scale_a, below / scale_b
    t2 = float(stdtrit(n - 1, (1 + confidence) / 2)) ** 2 / n
    (v_aa, v_ab), (_, v_bb) = np.cov(above, below).tolist()
    a, b = float(above.mean()), float(below.mean())
    # The ratios R with (a - R b)^2 <= t^2 (v_aa - 2 R v_ab + R^2 v_bb) / n: a quadratic inequality in R.
    square, half, constant = b * b - t2 * v_bb, a * b - t2 * v_ab, a * a - t2 * v_aa
    root = math.sqrt(max(0.0, half * half - square * constant))
    unit = float(scale_a / scale_b)
    if square > 0 and b > 0:
        return max(0.0, (half - root) / square) * unit, max(0.0, (half + root) / square) * unit
    if square < 0 and half * half > square * constant:  # all but what lies between two roots
        # Of a positive signal: from the upper root on, without an end, unless what lies below both is positive too.
        return (0.0 if half + root < 0 else max(0.0, (half - root) / square) * unit), math.inf
    return 0.0, math.inf
