"""Whether a claim held: values over seeds with their interval, and what the interval says of a range.

A claim held or did not where the whole 95 % interval over seeds says so, and is open where the interval says both, or
seeds are too few; one seed alone is told as such.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import mean

from hf_noise.analysis.paired import FEWEST_PAIRS, mean_interval

__all__ = ["KINDS", "Spread", "Verdict", "all_held", "are_alike", "is_inside", "kind_of", "lies_in", "of_test_rows",
           "spread"]  # fmt: skip

#: What a verdict comes to.
KINDS = ("held", "not held", "open", "not measured")

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


@dataclass(frozen=True)
class Verdict:
    """A claim, what was measured, and whether it held.

    Attributes:
        held: None where the seeds disagree, or cannot say.
        seeds: behind the interval; 0 where nothing was measured.
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
    of: str = "seed"
    on_rows: bool = False
    lacks: tuple[str, ...] = ()
    by_reading: bool = False

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


def lies_in(found: Spread, low: float = -math.inf, high: float = math.inf) -> tuple[bool | None, int]:
    """Whether the whole interval does, None if a part of it, False if nothing; and of how many seeds it is.

    One seed is read by its value, as `Verdict` tells. Of several without an interval, or of fewer than `FEWEST_PAIRS`,
    nothing is known (None), but that differences which are all 0 are none.
    """
    n = len(found.values)
    if n > 1 and not any(found.values):
        return None if low <= 0 <= high else False, n
    interval = found.interval if n >= FEWEST_PAIRS else (found.mean, found.mean) if n == 1 else None
    if interval is None:
        return None, n
    return is_inside(*interval, low, high), n


def is_inside(start: float, end: float, low: float, high: float) -> bool | None:
    """Whether the whole interval from start to end lies in that from low to high, None if a part, False if nothing."""
    return True if low <= start and end <= high else False if end < low or high < start else None


def are_alike(found: Sequence[tuple[float, float | None]], margin: float) -> bool | None:
    """Whether each two values are within a margin, by the interval of their difference, as if they were measured apart.

    `found` are values and half-widths of their intervals, None of one without; the answer is None if that is open.
    """
    told = []
    for (one, half), (other, of_other) in combinations(found, 2):
        if half is None or of_other is None:
            told.append(None)
            continue
        apart, wide = one - other, math.hypot(half, of_other)
        told.append(is_inside(apart - wide, apart + wide, -margin, margin))
    return all_held(told)


def all_held(held: Sequence[bool | None]) -> bool | None:
    """Whether all parts of a claim held; None if that is open."""
    return False if False in held else None if None in held else True


def kind_of(word: str) -> str:
    """Which of `KINDS` the word of a verdict is, such as "held" for "held (one seed)". Raises ValueError: none."""
    found = next((kind for kind in sorted(KINDS, key=len, reverse=True) if word.startswith(kind)), None)
    if found is None:
        raise ValueError(f"a verdict is one of {', '.join(KINDS)}, got {word!r:.80}")
    return found
