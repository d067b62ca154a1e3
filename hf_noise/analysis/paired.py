"""Whether one method beats another, from values that come in pairs: of the same seed, or of the same test row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from hf_noise.analysis.checks import numbers_in
from hf_noise.noise.checks import check_real

__all__ = ["FEWEST_PAIRS", "MOST_EXACT", "PairedTest", "mean_interval", "paired_test"]

#: Pairs up to which all 2^n ways to swap them are counted.
MOST_EXACT = 16
#: Pairs of which an interval tells methods apart: two differences may agree by chance to the last test row.
FEWEST_PAIRS = 3
# Share of the largest value by which sums of alike numbers may differ in floating point, with room to spare.
_ROUNDING = 1e-12
_LARGEST = 1e100


@dataclass(frozen=True)
class PairedTest:
    """What n pairs say of the difference ours - theirs.

    The interval and `t_p` are of Student's t and take the differences for normal. `sign_p` and `permutation_p` do not:
    the one counts who wins, the other asks how often the mean difference would be as far from 0 if the sides of every
    pair were swapped at random. Both are exact and two-sided, and of few pairs neither can be small, see `smallest_p`.

    Attributes:
        n: pairs.
        mean: of the differences.
        low, high: interval of the mean at `confidence`; None of one pair, and where all differences are equal but for
            rounding: an interval of no width would look like certainty.
        t_p: two-sided p of a mean difference of 0; None where there is no interval.
        sign_p: two-sided p of the sign test, ties left out; 1.0 of ties alone.
        permutation_p: two-sided p over all 2^n swaps; None of more than `MOST_EXACT` pairs.
        wins, ties, losses: pairs in which ours is larger, equal, smaller.
        confidence: of the interval.
    """

    n: int
    mean: float
    low: float | None
    high: float | None
    t_p: float | None
    sign_p: float
    permutation_p: float | None
    wins: int
    ties: int
    losses: int
    confidence: float

    @property
    def smallest_p(self) -> float:
        """The smallest p that the exact tests can give for so many pairs: 2^(1 - n), 0.0625 of five."""
        return min(1.0, 2.0 ** (1 - self.n))

    @property
    def is_apart(self) -> bool | None:
        """Whether the interval leaves out 0; None where there is none, and of fewer than `FEWEST_PAIRS`."""
        return None if self.low is None or self.n < FEWEST_PAIRS else self.low > 0 or self.high < 0


def mean_interval(values: Any, *, rounding: float, confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean of values [n] that a caller has checked.

    None of one value, and where they differ by no more than `rounding`: seeds that agree by chance, to the last test
    row, would give an interval of no width, which looks like certainty.
    """
    values = np.asarray(values, dtype=float)
    if values.size < 2 or np.ptp(values) <= rounding:
        return None
    mean, error = float(values.mean()), float(values.std(ddof=1)) / np.sqrt(values.size)
    if error == 0:  # squares of tiny numbers
        return None
    half = -float(stdtrit(values.size - 1, (1 - confidence) / 2)) * error
    return mean - half, mean + half


def paired_test(ours: Any, theirs: Any, *, confidence: float = 0.95) -> PairedTest:
    """Compare values in pairs, ours[i] with theirs[i].

    Args:
        ours, theirs: real numbers [n] of one length, n >= 1, in [-1e100, 1e100].
        confidence: in (0, 1).

    Raises:
        TypeError: no real numbers.
        ValueError: another shape, NaN, or outside their range.

    Example:
        >>> found = paired_test([0.75, 0.8125, 0.75], [0.625, 0.75, 0.8125])
        >>> round(found.mean, 4), found.wins, found.losses, found.sign_p, found.permutation_p
        (0.0417, 2, 1, 1.0, 0.75)
    """
    from scipy.stats import binomtest, t  # which takes half a second to import

    sides = [
        numbers_in(name, values, -_LARGEST, _LARGEST, remedy="give finite numbers, one for each pair")
        for name, values in (("ours", ours), ("theirs", theirs))
    ]
    if sides[0].ndim != 1 or sides[0].shape != sides[1].shape or not sides[0].size:
        raise ValueError(
            f"ours and theirs must be [n] each, n >= 1, got shapes {list(sides[0].shape)} and {list(sides[1].shape)}; "
            "a pair is of one seed, or of one row"
        )
    confidence = check_real("confidence", confidence)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}; 0.95 is usual")
    differences = sides[0] - sides[1]
    n, mean = differences.size, float(differences.mean())
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    largest = max(float(np.abs(side).max()) for side in sides)
    low = high = t_p = None
    if (interval := mean_interval(differences, rounding=_ROUNDING * largest, confidence=confidence)) is not None:
        low, high = interval
        t_p = float(2 * t.sf(abs(mean) / (float(differences.std(ddof=1)) / np.sqrt(n)), n - 1))
    return PairedTest(
        n=n, mean=mean, low=low, high=high, t_p=t_p,
        sign_p=float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0,
        permutation_p=_permutation_p(differences) if n <= MOST_EXACT else None,
        wins=wins, ties=n - wins - losses, losses=losses, confidence=confidence,
    )  # fmt: skip


def _permutation_p(differences: np.ndarray) -> float:
    """Share of the 2^n signs under which the sum is at least as far from 0 as it is."""
    sums = np.zeros(1)
    for one in differences:
        sums = np.concatenate([sums + one, sums - one])
    # Sums of the same numbers in another order differ in the last places.
    slack = 1e-9 * float(np.abs(differences).sum())
    return float((np.abs(sums) >= abs(float(differences.sum())) - slack).mean())
