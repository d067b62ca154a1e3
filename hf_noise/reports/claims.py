"""Claims of the papers, held against printed figures and against those of new runs.

A test looks at statistics of a table's rows, and says in which range each of them must lie. Those of several seeds are
taken seed by seed, and lie there where the 95 % interval of their mean does (`hf_noise.reports.verdicts`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Any

from hf_noise.reports.paper import Claim
from hf_noise.reports.record import is_number
from hf_noise.reports.verdicts import Verdict, all_held, lies_in, spread

__all__ = ["KINDS", "Rows", "judge", "others_of", "with_others"]

#: Figures by row, column and seed, rows in the order of the table.
Rows = Mapping[Any, Mapping[str, Mapping[int, float]]]
#: Above 0 and below it, so that what stays the same neither rises nor falls.
_ABOVE = math.nextafter(0, 1)


@dataclass(frozen=True)
class _Part:
    """A statistic by seed, and where it must lie."""

    values: Mapping[int, float]
    low: float = -math.inf
    high: float = math.inf


def judge(claim: Claim, rows: Rows, *, is_printed: bool = False) -> Verdict:
    """Whether the figures of these rows show what a claim says.

    Tests are dictionaries with a `kind` and the `columns` that they look at; of several, all must hold. A column that
    was measured nowhere is left out, as long as another one was. The kinds, with what else they are told:

    - monotone_up, monotone_down: each row is above, or below, the one before,
    - relative_rise, relative_drop: in percent, `from` a row `to` another, lies between `low` and `high`,
    - range: every figure lies between `low` and `high`,
    - flat: largest less smallest, in percent of the first, is at most `high`,
    - greater, less: the figure of row `a` is above, or below, that of row `b`,
    - difference: `a` less `b` lies between `low` and `high`,
    - ratio_range: `a` over `b` does,
    - above: in each row, or those of `at`, the first column is above the second,
    - rises_less: from the first row to each, or those of `at`, the first column rises by less, in percent, than the
      second,
    - falls_more: from row `a` to row `b` the first column falls by `low` times as much, in percent, as the second,
    - gain: the mean over columns of rows "x+y" less their rows "x" lies above `low`.

    Args:
        claim: what is judged, by `claim.again`.
        rows: figures by row, column and seed.
        is_printed: judge by `claim.printed`, as of the paper's own figures.

    Returns:
        A verdict: held, not held, open, or not measured; its statistic says what the figures were.

    Raises:
        TypeError: this is no claim, or no rows of numbers.
        ValueError: a test of the claim has an unknown kind.
    """
    _check(claim, rows)
    parts, told = [], []
    for test in claim.printed if is_printed else claim.again:
        for column, found in _KINDS[test["kind"]](test, rows):
            parts += found
            told.append(f"{column}: {', '.join(_told(part) for part in found)}")
    if not parts:
        why = "no figures" if claim.again else "no program judges it"
        return Verdict(claim.says, claim.id, why, None, seeds=0)
    held, seeds = zip(*(lies_in(spread([*part.values.values()]), part.low, part.high) for part in parts))
    return Verdict(claim.says, claim.id, "; ".join(told), all_held(held), min(seeds))


def _check(claim: Any, rows: Any) -> None:
    if not isinstance(claim, Claim):
        raise TypeError(f"claim must be one of hf_noise.reports.paper.published(id).claims, got {claim!r:.80}")
    for test in (*claim.printed, *claim.again):
        if test.get("kind") not in _KINDS:
            raise ValueError(f"claim {claim.id} has a test of kind {test.get('kind')!r:.80}; known: {', '.join(KINDS)}")
    told = "rows must map keys to columns, these to seeds and these to numbers"
    if not isinstance(rows, Mapping):
        raise TypeError(f"{told}, got {rows!r:.80}")
    for key, row in rows.items():
        cells = row.values() if isinstance(row, Mapping) else [None]
        if not all(isinstance(cell, Mapping) and all(map(is_number, cell.values())) for cell in cells):
            raise TypeError(f"{told}, got {row!r:.80} at {key!r:.40}")


def others_of(claim: Claim) -> set[str]:
    """Ids of other tables that a claim looks at: of columns such as `A.table2:cifar10`."""
    columns = [column for test in (*claim.printed, *claim.again) for column in test["columns"]]
    return {column.partition(":")[0] for column in columns if ":" in column}


def with_others(claim: Claim, rows: Rows, rows_of: Callable[[str], Rows]) -> Rows:
    """The rows of a claim's table with the columns of other tables that it looks at."""
    joined: dict[Any, dict[str, Mapping[int, float]]] = {key: dict(row) for key, row in rows.items()}
    for table in sorted(others_of(claim)):
        for key, row in rows_of(table).items():
            joined.setdefault(key, {}).update({f"{table}:{column}": values for column, values in row.items()})
    return joined


Found = Iterator[tuple[str, list[_Part]]]


def _cell(rows: Rows, key: Any, column: str) -> Mapping[int, float]:
    return rows.get(key, {}).get(column, {})


def _of_seeds(figure: Callable[..., float], *cells: Mapping[int, float]) -> dict[int, float]:
    """A figure of some cells, by the seeds that all of them have."""
    seeds = sorted(set.intersection(*({*cell} for cell in cells)))
    return {seed: figure(*(cell[seed] for cell in cells)) for seed in seeds}


def _measured(rows: Rows, column: str) -> list[Any]:
    """Keys of the rows that have a figure."""
    return [key for key in rows if _cell(rows, key, column)]


def _steps(test: Mapping[str, Any], rows: Rows, low: float, high: float) -> Found:
    for column in test["columns"]:
        found = [_Part(_of_seeds(lambda a, b: b - a, _cell(rows, a, column), _cell(rows, b, column)), low, high)
                 for a, b in pairwise(_measured(rows, column))]  # fmt: skip
        yield from _kept(column, found)


def _kept(column: str, found: Sequence[_Part]) -> Found:
    """What was measured; nothing where the seeds of a part have nothing in common."""
    if found and all(part.values for part in found):
        yield column, list(found)


def _two(figure: Callable[[float, float], float], first: str, second: str) -> Callable[..., Found]:
    """A statistic of two rows of a column."""

    def parts(test: Mapping[str, Any], rows: Rows, low: float | None = None, high: float | None = None) -> Found:
        low = test.get("low", -math.inf) if low is None else low
        high = test.get("high", math.inf) if high is None else high
        for column in test["columns"]:
            a, b = (_cell(rows, test[name], column) for name in (first, second))
            yield from _kept(column, [_Part(_of_seeds(figure, a, b), low, high)])

    return parts


def _range(test: Mapping[str, Any], rows: Rows) -> Found:
    low, high = test.get("low", -math.inf), test.get("high", math.inf)
    for column in test["columns"]:
        keys = [key for key in _measured(rows, column) if key in test.get("at", [key])]
        yield from _kept(column, [_Part(_cell(rows, key, column), low, high) for key in keys])


def _flat(test: Mapping[str, Any], rows: Rows) -> Found:
    for column in test["columns"]:
        cells = [_cell(rows, key, column) for key in _measured(rows, column)]
        if len(cells) > 1:
            values = _of_seeds(lambda *of: 100 * (max(of) - min(of)) / abs(of[0]), *cells)
            yield from _kept(column, [_Part(values, -math.inf, test["high"])])


def _columns_by_row(test: Mapping[str, Any], rows: Rows) -> Iterator[tuple[Any, list[Mapping[int, float]]]]:
    for key in rows:
        cells = [_cell(rows, key, column) for column in test["columns"]]
        if all(cells) and key in test.get("at", [key]):
            yield key, cells


def _above(test: Mapping[str, Any], rows: Rows) -> Found:
    found = [_Part(_of_seeds(lambda one, other: one - other, *cells), _ABOVE)
             for _, cells in _columns_by_row(test, rows)]  # fmt: skip
    yield from _kept(" less ".join(test["columns"]), found)


def _rises_less(test: Mapping[str, Any], rows: Rows) -> Found:
    found = []
    first = next(iter(rows), None)
    base = [_cell(rows, first, column) for column in test["columns"]]
    for key, cells in _columns_by_row(test, rows):
        if key != first and all(base):
            values = _of_seeds(lambda one, other, a, b: _rise(a, one) - _rise(b, other), *cells, *base)
            found.append(_Part(values, high=-_ABOVE))
    yield from _kept(" less ".join(test["columns"]), found)


def _falls_more(test: Mapping[str, Any], rows: Rows) -> Found:
    cells = [_cell(rows, test[name], column) for column in test["columns"] for name in ("a", "b")]
    if all(cells):
        # Compared by difference: of a column that hardly falls there is no ratio.
        values = _of_seeds(lambda a, b, c, d: test["low"] * _rise(c, d) - _rise(a, b), *cells)
        yield from _kept(f"fall of {test['columns'][0]} beyond {test['low']:g} times that of {test['columns'][1]}",
                         [_Part(values, _ABOVE)])  # fmt: skip


def _gain(test: Mapping[str, Any], rows: Rows) -> Found:
    pairs = [(str(key).rpartition("+")[0], key) for key in rows if "+" in str(key)]
    cells = [(_cell(rows, plain, column), _cell(rows, more, column))
             for plain, more in pairs for column in test["columns"]]  # fmt: skip
    gains = [_of_seeds(lambda plain, more: more - plain, *pair) for pair in cells if all(pair)]
    if gains:
        values = _of_seeds(lambda *of: mean(of), *gains)
        yield from _kept(f"mean gain of {len(gains)} cells", [_Part(values, test.get("low", _ABOVE))])


def _rise(base: float, value: float) -> float:
    return 100 * (value - base) / abs(base)


_difference = _two(lambda a, b: a - b, "a", "b")
_KINDS: dict[str, Callable[[Mapping[str, Any], Rows], Found]] = {
    "monotone_up": lambda test, rows: _steps(test, rows, _ABOVE, math.inf),
    "monotone_down": lambda test, rows: _steps(test, rows, -math.inf, -_ABOVE),
    "relative_rise": _two(_rise, "from", "to"),
    "relative_drop": _two(lambda base, value: -_rise(base, value), "from", "to"),
    "range": _range, "flat": _flat, "above": _above, "rises_less": _rises_less, "falls_more": _falls_more,
    "greater": lambda test, rows: _difference(test, rows, low=_ABOVE),
    "less": lambda test, rows: _difference(test, rows, high=-_ABOVE),
    "difference": _difference, "ratio_range": _two(lambda a, b: a / b, "a", "b"), "gain": _gain,
}  # fmt: skip
#: What a test may be.
KINDS = tuple(_KINDS)


def _told(part: _Part) -> str:
    found = spread([*part.values.values()])
    largest = max(map(abs, found.values))
    digits = 2 if largest == 0 else min(5, max(0, 3 - math.floor(math.log10(largest))))
    return found.told(digits)
