"""Which share of the documents is noise, asked of their likelihoods as text and as noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2

from hf_noise.noise.arrays import as_array
from hf_noise.noise.checks import check_real

__all__ = ["DocumentShare", "document_share"]

_CLOSEST = 1e-15  # to the ends of [0, 1]


@dataclass(frozen=True)
class DocumentShare:
    """The likeliest share of noise documents, and those that the rows do not contradict with the stated confidence."""

    value: float
    low: float
    high: float
    n: int
    confidence: float = 0.95


def document_share(log_odds: np.ndarray, *, confidence: float = 0.95) -> DocumentShare:
    """Maximum likelihood estimate of alpha in a mixture of two known sources, with the profile likelihood's interval.

    The likelihood of alpha is the product of (1 - alpha) exp(-L_c) + alpha exp(-L_n) over rows. Its logarithm is
    concave, so that the interval is one, also where no row or every row is noise. Rows that are certain either way give
    the interval of a proportion. It takes rows as draws, and the two likelihoods as right: a model whose NLL of text is
    worse than that of the noise makes alpha too large.

    Args:
        log_odds: float [N], L_n - L_c, how much more likely a row is as text than as noise, in nats; +inf where the
            noise cannot have made it.
        confidence: in (0, 1).

    Raises:
        TypeError: log_odds are no numbers.
        ValueError: there are no rows, one of them is NaN, or the confidence is out of its range.
    """
    odds = as_array("log_odds", log_odds)
    if odds.dtype.kind not in "fiu":
        raise TypeError(f"log_odds must be real numbers, got {odds.dtype}")
    odds = odds.astype(np.float64)
    if odds.ndim != 1 or not odds.size or np.isnan(odds).any():
        raise ValueError(f"log_odds must be numbers [N] of at least one row, none of them NaN, got {list(odds.shape)}")
    confidence = check_real("confidence", confidence)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}; 0.95 is usual")
    # The likelihoods of each row relative to that of its likelier source.
    text, noise = np.exp(np.minimum(odds, 0)), np.exp(-np.maximum(odds, 0))

    def slope(alpha: float) -> float:
        return float(((noise - text) / ((1 - alpha) * text + alpha * noise)).sum())

    def likelihood(alpha: float) -> float:
        with np.errstate(divide="ignore"):
            return float(np.log((1 - alpha) * text + alpha * noise).sum())

    first, last = _CLOSEST, 1 - _CLOSEST
    value = 0.0 if slope(first) <= 0 else 1.0 if slope(last) >= 0 else brentq(slope, first, last, xtol=1e-15)
    least = likelihood(value) - chi2.ppf(confidence, 1) / 2

    def above(alpha: float) -> float:
        return max(likelihood(alpha), -1e300) - least

    low = 0.0 if value == 0 or above(0.0) >= 0 else brentq(above, 0.0, value, xtol=1e-15)
    high = 1.0 if value == 1 or above(1.0) >= 0 else brentq(above, value, 1.0, xtol=1e-15)
    return DocumentShare(value=float(value), low=float(low), high=float(high), n=odds.size, confidence=confidence)
