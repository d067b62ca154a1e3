"""Claims of the papers, held against printed figures and against those of new runs.

A test looks at statistics of a table's rows, and says in which range each of them must lie. Those of several seeds are
taken seed by seed, and lie there where the 95 % interval of their mean does (`hf_noise.reports.verdicts`); of one seed
alone it is the interval over test rows that has to, where one is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from hf_noise.reports.paper import Claim
from hf_noise.reports.record import is_number
from hf_noise.reports.verdicts import Spread, Verdict, all_held, is_inside, lies_in, spread

__all__ = ["KINDS", "Rows", "judge", "others_of", "with_others"]

#: Figures by row, column and seed, rows in the order of the table.
Rows = Mapping[Any, Mapping[str, Mapping[int, float]]]
#: Of statistics that are not in the unit of their columns.
_UNITS = {**dict.fromkeys(("relative_rise", "relative_drop", "flat", "within"), " %"), "rises_less": " points",
          "falls_more": " points"}  # fmt: skip
#: Above 0 and below it, so that what stays the same neither rises nor falls.
_ABOVE = math.nextafter(0, 1)


class _Figure(NamedTuple):
    """A value and the half-width of its interval over test rows: 0 of what is exact, None where nothing is known."""

    value: float
    half: float | None = 0.0


_Cell = Mapping[int, _Figure]
_Cells = Mapping[Any, Mapping[str, _Cell]]


@dataclass(frozen=True)
class _Part:
    """A statistic by seed, and where it must lie."""

    values: _Cell
    low: float = -math.inf
    high: float = math.inf

    @property
    def spread(self) -> Spread:
        return spread([one.value for one in self.values.values()])

    @property
    def alone(self) -> _Figure | None:
        """The figure of one seed."""
        return next(iter(self.values.values())) if len(self.values) == 1 else None

    def lies(self) -> tuple[bool | None, int]:
        if self.alone and self.alone.half:
            value, half = self.alone
            return is_inside(value - half, value + half, self.low, self.high), 1
        return lies_in(self.spread, self.low, self.high)

    def told(self) -> str:
        order = math.floor(math.log10(max(map(abs, self.spread.values)) or 10))
        form = f".{min(max(0, 3 - order), max(5, 2 - order))}f" if -4 <= order <= 9 else ".2e"
        half = f" ± {self.alone.half:{form}}" if self.alone and self.alone.half else ""
        return self.spread.told(form) + half


def judge(
    claim: Claim, rows: Rows, *, is_printed: bool = False, keys: Sequence[Any] = (), half_widths: Rows | None = None
) -> Verdict:
    """Whether the figures of these rows show what a claim says.

    Tests are dictionaries with a `kind` and the `columns` that they look at; of several, all must hold. A row or column
    that was not measured is left out, as long as the rest says something, and the verdict tells which (`lacks`); a
    share of 0 counts as not measured, that of what is 0 within its error is open. The kinds, with what else they are
    told; "the first row" is that of the table, without which nothing is said:

    - monotone_up, monotone_down: from the first row on, each is above, or below, the one before,
    - relative_rise, relative_drop: in percent, `from` a row `to` another, lies between `low` and `high`,
    - range: every figure, or those of rows `at`, lies between `low` and `high`,
    - flat: largest less smallest, in percent of the first row, is at most `high`,
    - within: each row differs from the first by at most `high` percent of that,
    - greater, less: the figure of row `a` is above, or below, that of row `b`,
    - difference: `a` less `b` lies between `low` and `high`,
    - ratio_range: `a` over `b` does,
    - above: in each row, or those of `at`, the first column is above the second,
    - rises_less: from the first row, or row `from`, to each, or those of `at`, the first column rises by less, in
      percent, than the second,
    - falls_more: from row `a` to row `b` the first column falls by `low` times as much, in percent, as the second,
    - weighted_sum: in each row, or those of `at`, columns times `weights` together lie between `low` and `high`,
    - linear: of a line in the rows' keys, which are numbers, the share of variance that it explains is at least `low`,
    - gain: the mean over columns of rows "x+y" less their rows "x" lies above `low`.

    Args:
        claim: what is judged, by `claim.again`.
        rows: figures by row, column and seed.
        is_printed: judge by `claim.printed`, as of the paper's own figures.
        keys: of all rows of the table, in its order; those of `rows` if not given.
        half_widths: of 95 % intervals of the figures over test rows, where they are known, and not over seeds. They
            count for what one seed alone says: figures are taken as if they were measured apart. Not given: the figures
            are exact.

    Returns:
        A verdict: held, not held, open, or not measured; its statistic says what the figures were.

    Raises:
        TypeError: this is no claim, or no rows of numbers.
        ValueError: a test of the claim has an unknown kind.
    """
    _check(claim, rows)
    _check(claim, half_widths or {})
    cells = _cells(rows, keys, half_widths)
    parts, told, lacks = [], [], []
    for test in claim.printed if is_printed else claim.again:
        by_name = dict(_KINDS[test["kind"]](test, cells))
        for column, found in by_name.items():
            parts += found
            told.append(f"{column}: {', '.join(part.told() for part in found)}{_UNITS.get(test['kind'], '')}")
        lacks += _lacking(test, cells, keys or [*rows], [*by_name])
    if not parts:
        why = "by reading" if claim.by_reading else "no figures"
        return Verdict(claim.says, claim.id, why, None, seeds=0, by_reading=claim.by_reading)
    held, seeds = zip(*(part.lies() for part in parts))
    lacks = tuple(dict.fromkeys(lacks))
    told = [*told, f"without {', '.join(lacks)}"] if lacks else told
    on_rows = any(part.alone and part.alone.half is None for part in parts)
    return Verdict(claim.says, claim.id, "; ".join(told), all_held(held), min(seeds), on_rows=on_rows, lacks=lacks)


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


def _cells(rows: Rows, keys: Sequence[Any], half_widths: Rows | None) -> _Cells:
    """Rows in the order of the table, those that were not measured too, with what is known of their test error."""

    def half(*at: Any) -> float | None:
        found: Any = half_widths
        for one in at:
            found = found.get(one, {})
        return found or None

    return {key: {column: {seed: _Figure(value, 0.0 if half_widths is None else half(key, column, seed))
                           for seed, value in cell.items()} for column, cell in rows.get(key, {}).items()}
            for key in dict.fromkeys([*keys, *rows])}  # fmt: skip


def _lacking(test: Mapping[str, Any], cells: _Cells, keys: Sequence[Any], told: Sequence[str]) -> Iterator[str]:
    """Rows, and columns as a whole, that a test looks at and could say nothing of; it told of columns, or of all."""
    asked = [test[name] for name in ("from", "to", "a", "b") if name in test]
    asked = [*asked, *test["at"]] if "at" in test else asked if "to" in test or "a" in test else [*keys]
    if test["kind"] == "gain":
        asked = [one for key in keys if "+" in str(key) for one in (str(key).rpartition("+")[0], key)]
    is_by_column = any(column in told for column in test["columns"])
    for column in test["columns"]:
        missing = [str(key) for key in asked if not _cell(cells, key, column)]
        is_told = column in told if is_by_column else bool(told)
        yield from missing if 0 < len(missing) < len(asked) else [column] if missing or not is_told else []


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


def _cell(rows: _Cells, key: Any, column: str) -> _Cell:
    return rows.get(key, {}).get(column, {})


def _of_seeds(figure: Callable[..., float], *cells: _Cell, bases: Sequence[int] = ()) -> dict[int, _Figure]:
    """A figure of some cells, which divides by those at `bases`, by the seeds of all; none where one has no value."""
    seeds = sorted(set.intersection(*({*cell} for cell in cells)))
    has_base = all(cells[at][seed].value for at in bases for seed in seeds)
    found = {seed: _combined(figure, [cell[seed] for cell in cells], bases) for seed in seeds if has_base}
    return found if all(math.isfinite(one.value) for one in found.values()) else {}


def _combined(figure: Callable[..., float], of: Sequence[_Figure], bases: Sequence[int]) -> _Figure:
    """A figure of others, whose errors count as independent, to first order; a base that may be 0 leaves it open."""
    values, halves = zip(*of)
    if None in halves:
        return _Figure(figure(*values), None)
    if any(abs(values[at]) <= halves[at] for at in bases):
        return _Figure(figure(*values), math.inf)
    moved = [[figure(*values[:at], values[at] + sign * half, *values[at + 1:]) for sign in (-1, 1)]
             for at, half in enumerate(halves) if half]  # fmt: skip
    return _Figure(figure(*values), math.hypot(*((high - low) / 2 for low, high in moved)))


def _from_first(rows: _Cells, column: str) -> list[_Cell]:
    """The cells of a column that were measured, the first row's before all others; none without that."""
    cells = [_cell(rows, key, column) for key in rows]
    return [cell for cell in cells if cell] if cells and cells[0] else []


def _steps(test: Mapping[str, Any], rows: _Cells, low: float, high: float) -> Found:
    for column in test["columns"]:
        steps = pairwise(_from_first(rows, column))
        yield from _kept(column, [_Part(_of_seeds(lambda a, b: b - a, *step), low, high) for step in steps])


def _kept(column: str, found: Sequence[_Part]) -> Found:
    """What was measured; nothing where the seeds of a part have nothing in common."""
    if found and all(part.values for part in found):
        yield column, list(found)


def _two(figure: Callable[..., float], first: str, second: str, bases: Sequence[int] = ()) -> Callable[..., Found]:
    """A statistic of two rows of a column."""

    def parts(test: Mapping[str, Any], rows: _Cells, low: float | None = None, high: float | None = None) -> Found:
        low = test.get("low", -math.inf) if low is None else low
        high = test.get("high", math.inf) if high is None else high
        for column in test["columns"]:
            a, b = (_cell(rows, test[name], column) for name in (first, second))
            yield from _kept(column, [_Part(_of_seeds(figure, a, b, bases=bases), low, high)])

    return parts


def _range(test: Mapping[str, Any], rows: _Cells) -> Found:
    low, high = test.get("low", -math.inf), test.get("high", math.inf)
    for column in test["columns"]:
        cells = [_cell(rows, key, column) for key in rows if key in test.get("at", [key])]
        yield from _kept(column, [_Part(cell, low, high) for cell in cells if cell])


def _flat(test: Mapping[str, Any], rows: _Cells) -> Found:
    for column in test["columns"]:
        cells = _from_first(rows, column)
        if len(cells) > 1:
            values = _of_seeds(lambda *of: 100 * (max(of) - min(of)) / abs(of[0]), *cells, bases=[0])
            yield from _kept(column, [_Part(values, -math.inf, test["high"])])


def _within(test: Mapping[str, Any], rows: _Cells) -> Found:
    for column in test["columns"]:
        first, *others = _from_first(rows, column) or [{}]
        rises = [_of_seeds(_rise, first, one, bases=[0]) for one in others]
        yield from _kept(column, [_Part(rise, -test["high"], test["high"]) for rise in rises])


def _linear(test: Mapping[str, Any], rows: _Cells) -> Found:
    for column in test["columns"]:
        found = {key: cell for key in rows if (cell := _cell(rows, key, column))}
        if len(found) > 2:
            values = _of_seeds(lambda *of: float(np.corrcoef([*found], of)[0, 1]) ** 2  # noqa: B023
                               if len({*of}) > 1 else math.nan, *found.values())  # fmt: skip
            yield from _kept(column, [_Part(values, test["low"])])


def _columns_by_row(test: Mapping[str, Any], rows: _Cells) -> Iterator[tuple[Any, list[_Cell]]]:
    for key in rows:
        cells = [_cell(rows, key, column) for column in test["columns"]]
        if all(cells) and key in test.get("at", [key]):
            yield key, cells


def _above(test: Mapping[str, Any], rows: _Cells) -> Found:
    found = [_Part(_of_seeds(lambda one, other: one - other, *cells), _ABOVE)
             for _, cells in _columns_by_row(test, rows)]  # fmt: skip
    yield from _kept(" less ".join(test["columns"]), found)


def _rises_less(test: Mapping[str, Any], rows: _Cells) -> Found:
    found = []
    first = test.get("from", next(iter(rows), None))
    base = [_cell(rows, first, column) for column in test["columns"]]
    for key, cells in _columns_by_row(test, rows):
        if key != first and all(base):
            values = _of_seeds(lambda one, other, a, b: _rise(a, one) - _rise(b, other), *cells, *base, bases=[2, 3])
            found.append(_Part(values, high=-_ABOVE))
    yield from _kept(" less ".join(test["columns"]), found)


def _weighted_sum(test: Mapping[str, Any], rows: _Cells) -> Found:
    low, high = test.get("low", -math.inf), test.get("high", math.inf)
    found = [_Part(_of_seeds(lambda *of: float(np.dot(test["weights"], of)), *cells), low, high)
             for _, cells in _columns_by_row(test, rows)]  # fmt: skip
    yield from _kept(" and ".join(f"{one:g} {name}" for one, name in zip(test["weights"], test["columns"])), found)


def _falls_more(test: Mapping[str, Any], rows: _Cells) -> Found:
    cells = [_cell(rows, test[name], column) for column in test["columns"] for name in ("a", "b")]
    if all(cells):
        # Compared by difference: of a column that hardly falls there is no ratio.
        values = _of_seeds(lambda a, b, c, d: test["low"] * _rise(c, d) - _rise(a, b), *cells, bases=[0, 2])
        yield from _kept(f"fall of {test['columns'][0]} beyond {test['low']:g} times that of {test['columns'][1]}",
                         [_Part(values, _ABOVE)])  # fmt: skip


def _gain(test: Mapping[str, Any], rows: _Cells) -> Found:
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
_KINDS: dict[str, Callable[[Mapping[str, Any], _Cells], Found]] = {
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
#: What a test may be.
KINDS = tuple(_KINDS)
