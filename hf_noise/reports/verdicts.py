"""Whether a claim held: values over seeds with their interval, and what the interval says of a range.

A claim held or did not where the whole 95 % interval over seeds says so, and is open where the interval says both, or
seeds are too few; one seed alone is told as such. A claim of m comparisons held where each of them did, and did not
hold where one of them did not at 1 - 0.05 / m: of many 95 % intervals some leave their range by chance alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import mean
from typing import NamedTuple

from scipy.special import stdtr, stdtrit

from hf_noise.analysis.paired import FEWEST_PAIRS, mean_interval

__all__ = ["FALSE_ALARM", "KINDS", "Lies", "Spread", "Verdict", "are_alike", "interval_lies", "is_inside", "joined",
           "kind_of", "lies_in", "of_test_rows", "spread"]  # fmt: skip

#: What a verdict comes to.
KINDS = ("held", "not held", "open", "not measured")

#: How often a claim that is true may at most be told as not held, of however many comparisons it is.
FALSE_ALARM = 0.05
#: Differences of losses, points and ratios that floating point alone may have made.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Spread:
    """Values of several seeds: their mean, and a 95 % interval of it by Student's t.

    There is none of one seed alone, and where all seeds have the same value, which is no certainty.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        return mean_interval(self.values, rounding=_ROUNDING * max(1.0, *map(abs, self.values)))

    def told(self, digits: int | str = 2, unit: str = "") -> str:
        """Such as `0.21 [0.05, 0.37] %`, with so many digits after the point or in a format such as ".2e"."""
        form = digits if isinstance(digits, str) else f".{digits}f"
        ends = "" if self.interval is None else f" [{self.interval[0]:{form}}, {self.interval[1]:{form}}]"
        return f"{self.mean:{form}}{ends}{unit}"


def spread(values: Sequence[float]) -> Spread:
    return Spread(tuple(values))


class Lies(NamedTuple):
    """Whether something lies where it must.

    Attributes:
        held: None if that is open.
        seeds: that it is of.
        p: of what does not lie there, how often chance alone takes a figure from the edge so far to either side; 1 of
            all else, None where no error is known, or there is none.
    """

    held: bool | None
    seeds: int
    p: float | None = None


@dataclass(frozen=True)
class Verdict:
    """A claim, what was measured, and whether it held.

    Attributes:
        held: None where the seeds disagree, or cannot say.
        seeds: behind the interval; 0 where nothing was measured.
        p: of what speaks against it, see `Lies`.
        of: what they are seeds of, where one alone is told as such: "seed" or "model".
        on_rows: whether nothing says that it would be so on other test rows.
        lacks: rows and columns of the paper's table that the claim is of, and that were not measured: it is judged by
            the others.
        by_reading: whether no program judges the claim, which is then not for want of figures "not measured".
    """

    claim: str
    source: str
    statistic: str
    held: bool | None
    seeds: int = 2
    p: float | None = None
    of: str = "seed"
    on_rows: bool = False
    lacks: tuple[str, ...] = ()
    by_reading: bool = False

    @property
    def lies(self) -> Lies:
        return Lies(self.held, self.seeds, self.p)

    @property
    def word(self) -> str:
        if self.seeds == 0:
            return "not measured (by reading)" if self.by_reading else "not measured"
        word = {True: "held", False: "not held", None: "open"}[self.held]
        if self.on_rows and self.held is not None:
            word += " on these test rows"
        limits = [f"one {self.of}"] * (self.seeds == 1) + ["a part of the table"] * bool(self.lacks)
        return f"{word} ({', '.join(limits)})" if limits else word


def of_test_rows(found: Sequence[Verdict]) -> list[Verdict]:
    """Verdicts of which nothing was held against the error of test rows: those of one seed are of these rows alone."""
    return [replace(one, on_rows=one.on_rows or one.seeds == 1) for one in found]


def lies_in(found: Spread, low: float = -math.inf, high: float = math.inf) -> Lies:
    """Whether the whole 95 % interval does, None if a part of it, False if nothing.

    One seed is read by its value, as `Verdict` tells. Of several without an interval, or of fewer than `FEWEST_PAIRS`,
    nothing is known (None), but that differences which are all 0 are none.
    """
    n = len(found.values)
    if n == 1 or not any(found.values):
        is_so = is_inside(found.mean, found.mean, low, high)
        return Lies(None if n > 1 and is_so else is_so, n)
    if n < FEWEST_PAIRS or found.interval is None:
        return Lies(None, n, 1.0)
    return interval_lies(found.mean, *found.interval, low, high, seeds=n, freedom=n - 1)


def interval_lies(
    value: float, start: float, end: float, low: float, high: float, *, seeds: int, freedom: float = math.inf
) -> Lies:
    """Whether a 95 % interval about a value does, by Student's t of so many degrees of freedom; else it is normal."""
    held = is_inside(start, end, low, high)
    if held is not False or start == end:
        return Lies(held, seeds, None if start == end else 1.0)
    far, half = (low - value, end - value) if value < low else (value - high, value - start)
    return Lies(held, seeds, float(2 * stdtr(freedom, -far / half * stdtrit(freedom, 0.975))))


def is_inside(start: float, end: float, low: float, high: float) -> bool | None:
    """Whether the whole interval from start to end lies in that from low to high, None if a part, False if nothing."""
    return True if low <= start and end <= high else False if end < low or high < start else None


def are_alike(found: Sequence[tuple[float, float | None]], margin: float) -> bool | None:
    """Whether each two values are within a margin, by the interval of their difference, as if they were measured apart.

    `found` are two or more values and half-widths of their intervals, None of one without; the answer is None if that
    is open.
    """
    told = []
    for (one, half), (other, of_other) in combinations(found, 2):
        if half is None or of_other is None:
            told.append(Lies(None, 1, 1.0))
            continue
        apart, wide = one - other, math.hypot(half, of_other)
        told.append(interval_lies(apart, apart - wide, apart + wide, -margin, margin, seeds=1))
    return joined(told).held


def joined(parts: Sequence[Lies]) -> Lies:
    """Whether all parts of a claim held, one or more; None if that is open.

    It held where each of them did at 95 %: of however many, one that is not so has to be taken for so by chance. It did
    not where one of m did not at 1 - 0.05 / m (Bonferroni), if its error is known; one that did not at 95 % alone
    leaves the claim open.
    """
    against = [1.0 if part.p is None else min(1.0, len(parts) * part.p) for part in parts]
    fails = [part.held is False and (part.p is None or p <= FALSE_ALARM) for part, p in zip(parts, against)]
    held = False if any(fails) else True if all(part.held for part in parts) else None
    exact = any(part.held is False and part.p is None for part in parts)
    return Lies(held, min(part.seeds for part in parts), None if exact else min(against))


def kind_of(word: str) -> str:
    """Which of `KINDS` the word of a verdict is, such as "held" for "held (one seed)". Raises ValueError: none."""
    found = next((kind for kind in sorted(KINDS, key=len, reverse=True) if word.startswith(kind)), None)
    if found is None:
        raise ValueError(f"a verdict is one of {', '.join(KINDS)}, got {word!r:.80}")
    return found
