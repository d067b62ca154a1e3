"""What paper A claims of gradients (table 4), each claim held against the records of a study.

A claim held or did not where the whole 95 % interval over batches says so, and is open where it says both. Of several
figures see `hf_noise.reports.verdicts`. Settings share their rows, so that ratios of two are, if anything, known better
than their intervals say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
from scipy.stats import binom

from hf_noise.analysis.gradients import Estimate
from hf_noise.reports.tables import markdown_table
from hf_noise.reports.verdicts import Lies, Verdict, are_alike, interval_lies, is_inside, joined

__all__ = ["ABOUT_ZERO", "claims_table", "expected_length", "verdicts"]

_NORMS = ("clean_norm", "corrupt_norm")

Key = tuple[float, int]  # rate of corruption, examples in a batch
Found = Mapping[Key, Mapping[str, Estimate]]

#: Cosines beyond it are clearly positive, those within about 0; the paper has 0.52 and 0.001.
ABOUT_ZERO = 0.05
#: By how much the clean cosine may differ between settings and still be independent of them.
_ALIKE = 0.05
#: Of the paper, by how much the corrupt sum grows when the batch doubles (claims c4, c5).
_CORRUPT_GROWTH = (1.35, 1.7)


def verdicts(found: Found) -> list[Verdict]:
    """Every claim that these settings can be held against."""
    made = [*_cosines(found)]
    for rate in sorted({rate for rate, _ in found}):
        sizes = sorted(size for one, size in found if one == rate)
        for size in sizes:
            if 2 * size in sizes:
                made += _doubled(found, rate, size)
        steps = [*pairwise(sizes), *([(sizes[0], sizes[-1])] if len(sizes) > 2 else [])]
        for small, large in steps:
            claim = f"{_percent(rate)} corrupt: SNR rises from a batch of {small} to one of {large}"
            made += _greater(found, (rate, large), (rate, small), claim)
    for size in sorted({size for _, size in found}):
        for low, high in pairwise(sorted(rate for rate, one in found if one == size)):
            claim = f"batch of {size}: SNR falls from {_percent(low)} to {_percent(high)} corrupt"
            made += _greater(found, (low, size), (high, size), claim)
    return made


def claims_table(found: Found) -> str:
    """`verdicts` in Markdown."""
    rows = [[one.claim, one.statistic, one.word] for one in verdicts(found)]
    return markdown_table(["claim", "measured", "verdict"], rows)


def _cosines(found: Found) -> Iterator[Verdict]:
    clean = [one["clean_cosine"] for one in found.values() if "clean_cosine" in one]
    if clean:
        values = [one.value for one in clean]
        yield _verdict(f"clean gradients agree: cosine above {ABOUT_ZERO:g}", _span(values),
                      _all_inside(clean, ABOUT_ZERO, math.inf))  # fmt: skip
        if len(clean) > 1:
            yield _verdict("their cosine depends on neither rate nor batch", f"{_span(values)}, apart by "
                          f"{max(values) - min(values):.3f}",
                          are_alike([(one.value, _half(one)) for one in clean], _ALIKE))  # fmt: skip
    others = {"corrupt_cosine": "corrupt gradients do not", "cross_cosine": "nor a clean and a corrupt one"}
    for name, told in others.items():
        some = [one[name] for one in found.values() if name in one]
        if some:
            yield _verdict(f"{told}: cosine within {ABOUT_ZERO:g} of 0", _span([one.value for one in some]),
                          _all_inside(some, -ABOUT_ZERO, ABOUT_ZERO))  # fmt: skip


def _doubled(found: Found, rate: float, size: int) -> Iterator[Verdict]:
    """By how much the sums grow with twice the batch: clean ones by 1.8 to 2 in the paper."""
    head = f"{_percent(rate)} corrupt, batch {size} to {2 * size}"
    alone = expected_length(2 * size, 1 - rate, 0) / expected_length(size, 1 - rate, 0)
    clean, corrupt = (_ratio(found[rate, 2 * size][name], found[rate, size][name]) for name in _NORMS)
    yield _verdict(f"{head}: the clean sum grows by more than chance (x {alone:.2f})", f"x {_told(clean)}",
                  _inside(clean, alone, math.inf))  # fmt: skip
    low, high = _CORRUPT_GROWTH
    yield _verdict(f"{head}: the corrupt sum grows x {low:g} to {high:g}", f"x {_told(corrupt)}",
                  _inside(corrupt, low, high))  # fmt: skip


def expected_length(size: int, share: float, cosine: float) -> float:
    """E sqrt(n + n (n - 1) c), n ~ Binomial(size, share): a sum of n gradients of length 1 with pairwise cosine c."""
    n = np.arange(size + 1)
    chance = binom.pmf(n, size, share)
    return float(np.dot(chance, np.sqrt(np.maximum(n + n * (n - 1) * cosine, 0))))


def _greater(found: Found, one: Key, other: Key, claim: str) -> Iterator[Verdict]:
    if "snr" in found[one] and "snr" in found[other]:
        more = _ratio(found[one]["snr"], found[other]["snr"])
        yield _verdict(claim, f"x {_told(more)}", _inside(more, 1, math.inf))


def _ratio(over: Estimate, under: Estimate) -> Estimate:
    """One figure over another, as if they were measured apart (the delta method, on the logarithm)."""
    n = min(over.n, under.n)
    if not (over.value > 0 and under.value > 0):  # of one kind there was no example
        return Estimate(math.nan, None, None, n, math.nan, math.nan)
    value = over.value / under.value
    if over.low is None or under.low is None:
        return Estimate(value, None, None, n, value, value)
    half = math.hypot(*((one.high - one.value) / one.value for one in (over, under)))
    return Estimate(value, value * math.exp(-half), value * math.exp(half), n, value, value)


def _verdict(claim: str, statistic: str, held: bool | None) -> Verdict:
    """Intervals are over batches, so that there is no seed alone."""
    return Verdict(claim, "table 4", statistic, held)


def _half(one: Estimate) -> float | None:
    return None if one.low is None else one.high - one.value


def _inside(one: Estimate, low: float, high: float) -> bool | None:
    """Whether the whole interval lies between; None where a part does, or there is no interval."""
    return None if one.low is None else is_inside(one.low, one.high, low, high)


def _all_inside(found: list[Estimate], low: float, high: float) -> bool | None:
    """Whether all do: of several, one does not at 1 - 0.05 / m, where its interval counts as one of a normal figure."""
    return joined([Lies(None, 1, 1.0) if one.low is None else
                   interval_lies(one.value, one.low, one.high, low, high, seeds=1) for one in found]).held  # fmt: skip


def _told(one: Estimate) -> str:
    if math.isnan(one.value):
        return "-"
    return f"{one.value:.2f}" if one.low is None else f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


def _span(values: list[float]) -> str:
    low, high = (f"{round(how(values), 3) + 0.0:.3f}" for how in (min, max))
    return low if low == high else f"{low} to {high}"


def _percent(rate: float) -> str:
    return f"{100 * rate:g}%"
