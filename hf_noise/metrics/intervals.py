"""Confidence intervals of shares."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from hf_noise.metrics.checks import check_real, real_numbers

__all__ = ["wilson_interval", "wilson_share"]


def wilson_interval(successes: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of a binomial share (Wilson 1927, no continuity correction), element by element.

    `scipy.stats.binomtest(k, n).proportion_ci(method="wilson")` is the same for one pair; this one takes arrays.

    Args:
        successes: integers of any shape, 0 <= successes <= n.
        n: integers of a shape that broadcasts with it; where n is 0 both ends are nan.
        confidence: in (0, 1).

    Returns:
        `(low, high)`, float64 in [0, 1] of the common shape.

    Raises:
        TypeError: successes, n or the confidence are no real numbers.
        ValueError: successes lie outside [0, n], or confidence outside (0, 1); they are not whole or not finite; their
            shapes do not fit together.
    """
    confidence = check_confidence(confidence)
    k, n = real_numbers("successes", successes), real_numbers("n", n)
    try:
        k, n = np.broadcast_arrays(k, n)
    except ValueError as error:
        raise ValueError(f"successes {list(k.shape)} and n {list(n.shape)} do not fit together") from error
    if not ((k >= 0) & (k <= n)).all():
        first = np.unravel_index(np.argmin((k >= 0) & (k <= n)), k.shape)
        raise ValueError(f"successes must lie in [0, n], got {k[first]:g} of n = {n[first]:g}")
    if not (np.isfinite(n) & (k == np.trunc(k)) & (n == np.trunc(n))).all():
        raise ValueError("successes and n must be whole and finite numbers; they count trials")
    z = -ndtri((1 - confidence) / 2)
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing was tried: nan is the answer
        half = z * np.sqrt(k * (n - k) / n + z * z / 4) / (n + z * z)
    centre = (k + z * z / 2) / (n + z * z)
    # The ends are exact there; rounding could put them outside [0, 1].
    low = np.where((k == 0) & (n > 0), 0.0, centre - half)
    high = np.where((k == n) & (n > 0), 1.0, centre + half)
    return low[()], high[()]


def check_confidence(confidence: float) -> float:
    """The confidence of an interval as a float, or an error unless it is a number in (0, 1)."""
    value = check_real("confidence", confidence)
    if not 0 < value < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}; 0.95 is usual")
    return value


def wilson_share(name: str, hits: np.ndarray, confidence: float) -> dict[str, Any]:
    """Share of True in a mask bool [n], n >= 1, under `name`, with its Wilson interval "low", "high", and "n"."""
    low, high = wilson_interval(hits.sum(), hits.size, confidence)
    return {name: float(hits.mean()), "low": float(low), "high": float(high), "n": int(hits.size)}
