"""How much uniform noise is in the targets, asked of the ranks that a model gives them.

A replaced token is uniform over the vocabulary whatever the context, so its rank under ANY model is uniform on
1 .. V; a clean token ranks near the top. The share of targets in the lowest ranks therefore shows e, as the share of
large p-values shows the proportion of true null hypotheses (Storey, 2002). Unlike the likelihood, ranks do not
confuse noise with a model that spreads its own probability too evenly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from hf_noise.noise.arrays import integers
from hf_noise.noise.checks import check_count, check_real

__all__ = ["ErrorRateEstimate", "error_rate_from_ranks"]


@dataclass(frozen=True)
class ErrorRateEstimate:
    """An estimate of the weight of uniform noise with its interval.

    `low` and `high` bound, with the stated confidence, what the lowest ranks hold. Clean tokens that the model ranks
    there push it up, so `high` is an upper bound for e, and `value` is too high if it is off by more than chance.
    `cutoff` is the share of the vocabulary above the ranks that were counted, `n` the number of targets.
    """

    value: float
    low: float
    high: float
    cutoff: float
    n: int
    confidence: float = 0.95


def error_rate_from_ranks(
    above: np.ndarray, vocab_size: int, *, confidence: float = 0.95, cutoffs: int = 50
) -> ErrorRateEstimate:
    """Estimate e from ranks.

    For a cut-off c the estimate is (share of targets that at least c V tokens outrank) / (1 - c). A larger c lets
    fewer clean tokens in, and counts fewer targets. Taken is the smallest one whose estimate still agrees, within a
    standard error each, with those of all larger ones (Lepski's rule); the interval is Clopper and Pearson's there.

    Args:
        above: integers [n] in [0, V), the number of tokens that the model finds more probable than the target.
        vocab_size: V in [2, 2^31].
        confidence: of the interval, in (0, 1).
        cutoffs: number of cut-offs to try, in [1, 2^20], from one half of the vocabulary to its last two percent.

    Raises:
        TypeError: ranks, V or cutoffs are no integers, or the confidence is no number.
        ValueError: no targets, a rank outside [0, V), or a setting outside its range.
    """
    above = np.asarray(above) if isinstance(above, list) and not above else integers("above", above)
    if above.size == 0:
        raise ValueError("above is empty: there are no targets to estimate an error rate from")
    if above.ndim != 1:
        raise ValueError(f"above must be ranks [n], got shape {list(above.shape)}")
    vocab_size = check_count("vocab_size", vocab_size, 1, 31)
    cutoffs = check_count("cutoffs", cutoffs, 1, 20)
    confidence = check_real("confidence", confidence)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}; 0.95 is usual")
    if vocab_size < 2 or above.min() < 0 or above.max() >= vocab_size:
        raise ValueError(
            f"ranks must lie in [0, {vocab_size}), they span [{above.min()}, {above.max()}]; pass the number of tokens "
            "above each target and the vocabulary that they were counted in"
        )
    n = above.size
    first = np.unique(np.linspace(vocab_size / 2, vocab_size * 0.98, cutoffs).round().astype(int))
    first = np.minimum(first, vocab_size - 1)
    hits = n - np.searchsorted(np.sort(above), first, side="left")
    width = 1 - first / vocab_size
    estimates = hits / n / width
    error = np.sqrt(np.maximum(hits, 1)) / n / width
    # From the largest cut-off down: the intervals seen so far must have a point in common.
    highest = np.minimum.accumulate((estimates + error)[::-1])[::-1]
    lowest = np.maximum.accumulate((estimates - error)[::-1])[::-1]
    best = len(first) - 1
    while best > 0 and lowest[best - 1] <= highest[best - 1]:
        best -= 1
    tail = (1 - confidence) / 2
    k = hits[best]
    low = beta.ppf(tail, k, n - k + 1) if k else 0.0
    high = beta.ppf(1 - tail, k + 1, n - k) if k < n else 1.0
    return ErrorRateEstimate(
        value=float(min(estimates[best], 1.0)),
        low=float(min(low / width[best], 1.0)),
        high=float(min(high / width[best], 1.0)),
        cutoff=float(first[best] / vocab_size),
        n=int(n),
        confidence=confidence,
    )
