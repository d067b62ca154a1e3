"""Kinds of tests of a claim: statistics of a table's rows, and the ranges that they must lie in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from hf_noise.reports.verdicts import Lies, Spread, interval_lies, lies_in, spread

__all__ = ["STATISTICS", "Cell", "Cells", "Figure", "Part", "cell_of", "told"]

#: Of statistics that are not in the unit of their columns.
_UNITS = {**dict.fromkeys(("relative_rise", "relative_drop", "flat", "within"), " %"), "rises_less": " points",
           "falls_more": " points"}  # fmt: skip
#: Of those that the column alone would not tell from its figures.
_WORDS = {"linear": ", share that a line explains", "flat": ", largest less smallest", "within": ", from the first row"}
#: Above 0 and below it, so that what stays the same neither rises nor falls.
_ABOVE = math.nextafter(0, 1)


class Figure(NamedTuple):
    """A value and the half-width of its interval over test rows: 0 of what is exact, None where nothing is known."""

    value: float
    half: float | None = 0.0


Cell = Mapping[int, Figure]
Cells = Mapping[Any, Mapping[str, Cell]]


@dataclass(frozen=True)
class Part:
    """A statistic by seed, and where it must lie; of one that is `too_few` no claim of every step can hold."""

    values: Cell
    low: float = -math.inf
    high: float = math.inf
    too_few: bool = False

    @property
    def spread(self) -> Spread:
        return spread([one.value for one in self.values.values()])

    @property
    def alone(self) -> Figure | None:
        """The figure of one seed."""
        return next(iter(self.values.values())) if len(self.values) == 1 else None

    @property
    def has_base_of_0(self) -> bool:
        """Whether it is a share of what is 0 within its error."""
        return self.alone is not None and self.alone.half == math.inf

    def lies(self) -> Lies:
        if self.alone and self.alone.half:
            value, half = self.alone
            found = interval_lies(value, value - half, value + half, self.low, self.high, seeds=1)
        else:
            found = lies_in(self.spread, self.low, self.high)
        return found._replace(held=None) if self.too_few and found.held else found

    def told(self) -> str:
        order = math.floor(math.log10(max(map(abs, self.spread.values)) or 10))
        form = f".{min(max(0, 3 - order), max(5, 2 - order))}f" if -4 <= order <= 9 else ".2e"
        half = f" ± {self.alone.half:{form}}" if self.alone and self.alone.half and not self.has_base_of_0 else ""
        return self.spread.told(form) + half


def told(test: Mapping[str, Any], column: str, parts: Sequence[Part]) -> str:
    """What a test looks at, in which rows where it names some, and the figures."""
    rows = f", from {test['from']}" if "from" in test else ""
    if "to" in test:
        rows += f" to {test['to']}"
    if "a" in test:
        a, b = test["a"], test["b"]
        words = {"ratio_range": f"{a} over {b}", "falls_more": f"from {a} to {b}"}
        rows = f", {words.get(test['kind'], f'{a} less {b}')}"
    if "at" in test:
        rows += f" at {', '.join(map(str, test['at']))}"
    limit = " (the base may be 0)" if any(part.has_base_of_0 for part in parts) else ""
    limit = " (one step alone)" if any(part.too_few for part in parts) else limit
    figures = ", ".join(part.told() for part in parts)
    return f"{column}{_WORDS.get(test['kind'], '')}{rows}: {figures}{_UNITS.get(test['kind'], '')}{limit}"


Found = Iterator[tuple[str, list[Part]]]


def cell_of(rows: Cells, key: Any, column: str) -> Cell:
    return rows.get(key, {}).get(column, {})


def _of_seeds(figure: Callable[..., float], *cells: Cell, bases: Sequence[int] = ()) -> dict[int, Figure]:
    """A figure of some cells, which divides by those at `bases`, by the seeds of all; none where one has no value."""
    seeds = sorted(set.intersection(*({*cell} for cell in cells)))
    has_base = all(cells[at][seed].value for at in bases for seed in seeds)
    found = {seed: _combined(figure, [cell[seed] for cell in cells], bases) for seed in seeds if has_base}
    return found if all(math.isfinite(one.value) for one in found.values()) else {}


def _combined(figure: Callable[..., float], of: Sequence[Figure], bases: Sequence[int]) -> Figure:
    """A figure of others, whose errors count as independent, to first order; a base that may be 0 leaves it open."""
    values, halves = zip(*of)
    if None in halves:
        return Figure(figure(*values), None)
    if any(abs(values[at]) <= halves[at] for at in bases):
        return Figure(figure(*values), math.inf)
    moved = [[figure(*values[:at], values[at] + sign * half, *values[at + 1:]) for sign in (-1, 1)]
             for at, half in enumerate(halves) if half]  # fmt: skip
    return Figure(figure(*values), math.hypot(*((high - low) / 2 for low, high in moved)))


def _from_first(rows: Cells, column: str) -> list[Cell]:
    """The cells of a column that were measured, the first row's before all others; none without that."""
    cells = [cell_of(rows, key, column) for key in rows]
    return [cell for cell in cells if cell] if cells and cells[0] else []


def _steps(test: Mapping[str, Any], rows: Cells, low: float, high: float) -> Found:
    for column in test["columns"]:
        steps = [*pairwise(_from_first(rows, column))]
        too_few = len(steps) < 2 < len(rows)
        yield from _kept(column, [Part(_of_seeds(lambda a, b: b - a, *step), low, high, too_few) for step in steps])


def _kept(column: str, found: Sequence[Part]) -> Found:
    """What was measured; nothing where the seeds of a part have nothing in common."""
    if found and all(part.values for part in found):
        yield column, list(found)


def _two(figure: Callable[..., float], first: str, second: str, bases: Sequence[int] = ()) -> Callable[..., Found]:
    """A statistic of two rows of a column."""

    def parts(test: Mapping[str, Any], rows: Cells, low: float | None = None, high: float | None = None) -> Found:
        low = test.get("low", -math.inf) if low is None else low
        high = test.get("high", math.inf) if high is None else high
        for column in test["columns"]:
            a, b = (cell_of(rows, test[name], column) for name in (first, second))
            yield from _kept(column, [Part(_of_seeds(figure, a, b, bases=bases), low, high)])

    return parts


def _range(test: Mapping[str, Any], rows: Cells) -> Found:
    low, high = test.get("low", -math.inf), test.get("high", math.inf)
    for column in test["columns"]:
        cells = [cell_of(rows, key, column) for key in rows if key in test.get("at", [key])]
        yield from _kept(column, [Part(cell, low, high) for cell in cells if cell])


def _flat(test: Mapping[str, Any], rows: Cells) -> Found:
    for column in test["columns"]:
        cells = _from_first(rows, column)
        if len(cells) > 1:
            values = _of_seeds(lambda *of: 100 * (max(of) - min(of)) / abs(of[0]), *cells, bases=[0])
            yield from _kept(column, [Part(values, -math.inf, test["high"])])


def _within(test: Mapping[str, Any], rows: Cells) -> Found:
    for column in test["columns"]:
        first, *others = _from_first(rows, column) or [{}]
        rises = [_of_seeds(_rise, first, one, bases=[0]) for one in others]
        yield from _kept(column, [Part(rise, -test["high"], test["high"]) for rise in rises])


def _linear(test: Mapping[str, Any], rows: Cells) -> Found:
    for column in test["columns"]:
        found = {key: cell for key in rows if (cell := cell_of(rows, key, column))}
        if len(found) > 2:
            values = _of_seeds(lambda *of: float(np.corrcoef([*found], of)[0, 1]) ** 2  # noqa: B023
                               if len({*of}) > 1 else math.nan, *found.values())  # fmt: skip
            yield from _kept(column, [Part(values, test["low"])])


def _columns_by_row(test: Mapping[str, Any], rows: Cells) -> Iterator[tuple[Any, list[Cell]]]:
    for key in rows:
        cells = [cell_of(rows, key, column) for column in test["columns"]]
        if all(cells) and key in test.get("at", [key]):
            yield key, cells


def _above(test: Mapping[str, Any], rows: Cells) -> Found:
    found = [Part(_of_seeds(lambda one, other: one - other, *cells), _ABOVE)
             for _, cells in _columns_by_row(test, rows)]  # fmt: skip
    yield from _kept(" less ".join(test["columns"]), found)


def _rises_less(test: Mapping[str, Any], rows: Cells) -> Found:
    found = []
    first = test.get("from", next(iter(rows), None))
    base = [cell_of(rows, first, column) for column in test["columns"]]
    for key, cells in _columns_by_row(test, rows):
        if key != first and all(base):
            values = _of_seeds(lambda one, other, a, b: _rise(a, one) - _rise(b, other), *cells, *base, bases=[2, 3])
            found.append(Part(values, high=-_ABOVE))
    yield from _kept(" less ".join(test["columns"]), found)


def _weighted_sum(test: Mapping[str, Any], rows: Cells) -> Found:
    low, high = test.get("low", -math.inf), test.get("high", math.inf)
    found = [Part(_of_seeds(lambda *of: float(np.dot(test["weights"], of)), *cells), low, high)
             for _, cells in _columns_by_row(test, rows)]  # fmt: skip
    yield from _kept(" and ".join(f"{one:g} {name}" for one, name in zip(test["weights"], test["columns"])), found)


def _falls_more(test: Mapping[str, Any], rows: Cells) -> Found:
    cells = [cell_of(rows, test[name], column) for column in test["columns"] for name in ("a", "b")]
    if all(cells):
        # Compared by difference: of a column that hardly falls there is no ratio.
        values = _of_seeds(lambda a, b, c, d: test["low"] * _rise(c, d) - _rise(a, b), *cells, bases=[0, 2])
        yield from _kept(f"fall of {test['columns'][0]} beyond {test['low']:g} times that of {test['columns'][1]}",
                         [Part(values, _ABOVE)])  # fmt: skip


def _gain(test: Mapping[str, Any], rows: Cells) -> Found:
    pairs = [(str(key).rpartition("+")[0], key) for key in rows if "+" in str(key)]
    cells = [(cell_of(rows, plain, column), cell_of(rows, more, column))
             for plain, more in pairs for column in test["columns"]]  # fmt: skip
    gains = [_of_seeds(lambda plain, more: more - plain, *pair) for pair in cells if all(pair)]
    if gains:
        values = _of_seeds(lambda *of: mean(of), *gains)
        yield from _kept(f"{', '.join(test['columns'])}, mean gain of {len(gains)} cells",
                         [Part(values, test.get("low", _ABOVE))])  # fmt: skip


def _rise(base: float, value: float) -> float:
    return 100 * (value - base) / abs(base)


_difference = _two(lambda a, b: a - b, "a", "b")
#: Of each kind of test, what it looks at, by what that is called.
STATISTICS: dict[str, Callable[[Mapping[str, Any], Cells], Found]] = {
    "monotone_up": lambda test, rows: _steps(test, rows, _ABOVE, math.inf),
    "monotone_down": lambda test, rows: _steps(test, rows, -math.inf, -_ABOVE),
    "relative_rise": _two(_rise, "from", "to", [0]),
    "relative_drop": _two(lambda base, value: -_rise(base, value), "from", "to", [0]),
    "range": _range, "flat": _flat, "within": _within, "above": _above, "rises_less": _rises_less,
    "falls_more": _falls_more, "weighted_sum": _weighted_sum, "linear": _linear,
    "greater": lambda test, rows: _difference(test, rows, low=_ABOVE),
    "less": lambda test, rows: _difference(test, rows, high=-_ABOVE),
    "difference": _difference, "ratio_range": _two(lambda a, b: a / b, "a", "b", [1]), "gain": _gain,
}  # fmt: skip
