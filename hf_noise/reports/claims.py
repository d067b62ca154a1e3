"""Claims of the papers, held against printed figures and against those of new runs.

A test looks at statistics of a table's rows, and says in which range each of them must lie. Those of several seeds are
taken seed by seed, and lie there where the 95 % interval of their mean does (`hf_noise.reports.verdicts`); of one seed
alone it is the interval over test rows that has to, where one is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hf_noise.reports.kinds import STATISTICS, Cells, Figure, cell_of, told
from hf_noise.reports.paper import Claim
from hf_noise.reports.record import is_number
from hf_noise.reports.verdicts import Verdict, joined

__all__ = ["KINDS", "Rows", "judge", "others_of", "with_others"]

#: Figures by row, column and seed, rows in the order of the table.
Rows = Mapping[Any, Mapping[str, Mapping[int, float]]]
#: What a test may be.
KINDS = tuple(STATISTICS)


def judge(
    claim: Claim, rows: Rows, *, is_printed: bool = False, keys: Sequence[Any] = (), half_widths: Rows | None = None
) -> Verdict:
    """Whether the figures of these rows show what a claim says.

    Tests are dictionaries with a `kind` and the `columns` that they look at; of several, all must hold. Of m figures
    together one refutes a claim at 1 - 0.05 / m (`hf_noise.reports.verdicts.joined`). A row or column that was not
    measured is left out, as long as the rest says something, and the verdict tells which (`lacks`); a share of 0 counts
    as not measured, that of what is 0 within its error is open. The kinds, with what else they are
    told; "the first row" is that of the table, without which nothing is said:

    - monotone_up, monotone_down: from the first row on, each is above, or below, the one before; a single step of
      several may refute that, and does not show it,
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
    parts, said, lacks = [], [], []
    for test in claim.printed if is_printed else claim.again:
        by_name = dict(STATISTICS[test["kind"]](test, cells))
        for column, found in by_name.items():
            parts += found
            said.append(told(test, column, found))
        lacks += _lacking(test, cells, keys or [*rows], [*by_name])
    if not parts:
        why = "by reading" if claim.by_reading else "no figures"
        return Verdict(claim.says, claim.id, why, None, seeds=0, by_reading=claim.by_reading)
    lies = joined([part.lies() for part in parts])
    lacks = tuple(dict.fromkeys(lacks))
    said = [*said, f"without {', '.join(lacks)}"] if lacks else said
    on_rows = any(part.alone and part.alone.half is None for part in parts)
    return Verdict(claim.says, claim.id, "; ".join(said), *lies, on_rows=on_rows, lacks=lacks)


def _check(claim: Any, rows: Any) -> None:
    if not isinstance(claim, Claim):
        raise TypeError(f"claim must be one of hf_noise.reports.paper.published(id).claims, got {claim!r:.80}")
    for test in (*claim.printed, *claim.again):
        if test.get("kind") not in STATISTICS:
            raise ValueError(f"claim {claim.id} has a test of kind {test.get('kind')!r:.80}; known: {', '.join(KINDS)}")
    told = "rows must map keys to columns, these to seeds and these to numbers"
    if not isinstance(rows, Mapping):
        raise TypeError(f"{told}, got {rows!r:.80}")
    for key, row in rows.items():
        cells = row.values() if isinstance(row, Mapping) else [None]
        if not all(isinstance(cell, Mapping) and all(map(is_number, cell.values())) for cell in cells):
            raise TypeError(f"{told}, got {row!r:.80} at {key!r:.40}")


def _cells(rows: Rows, keys: Sequence[Any], half_widths: Rows | None) -> Cells:
    """Rows in the order of the table, those that were not measured too, with what is known of their test error."""

    def half(*at: Any) -> float | None:
        found: Any = half_widths
        for one in at:
            found = found.get(one, {})
        return found or None

    return {key: {column: {seed: Figure(value, 0.0 if half_widths is None else half(key, column, seed))
                           for seed, value in cell.items()} for column, cell in rows.get(key, {}).items()}
            for key in dict.fromkeys([*keys, *rows])}  # fmt: skip


def _lacking(test: Mapping[str, Any], cells: Cells, keys: Sequence[Any], told: Sequence[str]) -> Iterator[str]:
    """Rows, and columns as a whole, that a test looks at and could say nothing of; it told of columns, or of all."""
    asked = [test[name] for name in ("from", "to", "a", "b") if name in test]
    asked = [*asked, *test["at"]] if "at" in test else asked if "to" in test or "a" in test else [*keys]
    if test["kind"] == "gain":
        asked = [one for key in keys if "+" in str(key) for one in (str(key).rpartition("+")[0], key)]
    is_by_column = any(column in told for column in test["columns"])
    for column in test["columns"]:
        missing = [str(key) for key in asked if not cell_of(cells, key, column)]
        is_told = column in told if is_by_column else bool(told)
        is_skipped = is_by_column and not is_told  # such as one without its first row, whatever else it has
        is_part = 0 < len(missing) < len(asked) and not is_skipped
        yield from missing if is_part else [column] if missing or not is_told else []


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
