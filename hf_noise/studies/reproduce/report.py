"""Paper beside measured, and which claims held: of one table, and of all that a command asked for."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from statistics import stdev
from typing import Any

from hf_noise.reports.paper import PaperTable, published
from hf_noise.reports.record import command_line, now, versions
from hf_noise.reports.tables import in_cell, pipe_table
from hf_noise.reports.verdicts import KINDS, kind_of, spread
from hf_noise.studies.reproduce.board import counted
from hf_noise.studies.reproduce.cells import Cell
from hf_noise.studies.reproduce.naming import few
from hf_noise.studies.reproduce.plan import Asked, Planned, is_there, planned, records_and_rest, records_of
from hf_noise.studies.reproduce.rows import Outcome, claims_asked, others_of_table, outcome

__all__ = ["DECIDED", "absent", "figures", "in_print", "measured", "outcomes", "shown", "summary", "tally",
           "told_otherwise", "values_of"]  # fmt: skip

#: Of what verdicts come to.
DECIDED = ("held", "not held")


def outcomes(names: Sequence[str], asked: Asked) -> list[Outcome]:
    """What there is of these tables: made with this output and scale, or kept where that counts."""
    every = dict.fromkeys([*names, *(other for name in names for other in others_of_table(published(name)))])
    records = {name: records_of(planned(name, asked), asked) for name in every}
    return [told_otherwise(outcome(name, asked.scale, records), asked.more) for name in names]


def told_otherwise(found: Outcome, more: Sequence[str]) -> Outcome:
    """The same of runs that were told flags beside the table's own, of which alone its words on the data are."""
    if not more:
        return found
    return replace(found, stand_in=[f"{told}, but for {shlex.join(more)}" for told in found.stand_in])


def absent(plan: Planned, asked: Asked, failed: Mapping[Cell, str] | None = None) -> str | None:
    """Which cells of a table are not there, the first of them with why they failed, and which records were left out.

    None if nothing is missing.
    """
    parts = [*filter(None, [_not_made(plan, asked, failed)]), *records_and_rest(plan, asked)[1]]
    return "; ".join(parts) or None


def _not_made(plan: Planned, asked: Asked, failed: Mapping[Cell, str] | None) -> str | None:
    cells = [cell for cell in plan.every if not is_there(cell, asked)]
    if not cells:
        return None
    why = failed or {}
    told = [f"{cell.title} ({why[cell]})" if cell in why else cell.title for cell in cells]
    return f"{len(cells)} of {counted(len(plan.every))} not made: {few(told)}"


def shown(found: Outcome, plan: Planned | None = None, lacks: str | None = None) -> str:
    """A table in Markdown: figures, what stands in for the paper's data, and the verdicts.

    Args:
        found: what was measured.
        plan: says why some of it could not be.
        lacks: what else is not there, see `absent`.
    """
    table = found.table
    parts = [f"## {table.id}: {table.title}"]
    if found.stand_in:
        parts.append(f"Measured at {found.scale} scale on {'; '.join(found.stand_in)}.")
    rows = _lines(found)
    if rows:
        head = [table.key.replace("_", " "), "figure", "paper", "measured", "spread", "n"]
        parts.append(pipe_table(head, rows, numeric=range(2, 6), show=in_cell, is_aligned=True))
        if lacks:
            parts.append(f"{lacks}.")
    else:
        reasons = [*filter(None, [lacks]), *(plan.missing if plan is not None else [])]
        parts.append(f"Not measured{': ' * bool(reasons)}{'; '.join(dict.fromkeys(reasons))}.")
    if found.verdicts:
        parts.append("\n".join(_claims(found)))
    return "\n\n".join(parts)


def figures(found: Outcome) -> Iterator[tuple[Any, str, Any, Mapping[int, float]]]:
    """Row, column, what is printed there and what was measured by seed, of columns that something was measured of."""
    printed = {row[found.table.key]: row for row in found.table.rows}
    columns = [name for name in found.table.columns if any(row.get(name) for row in found.rows.values())]
    for key in [*printed, *(key for key in found.rows if key not in printed)]:
        for column in columns:
            of_paper, values = printed.get(key, {}).get(column), found.rows.get(key, {}).get(column, {})
            if of_paper is not None or values:
                yield key, column, of_paper, values


def _lines(found: Outcome) -> list[list[str]]:
    return [[str(key), f"{column.replace('_', ' ')}, {_unit(found.table, column)}", in_print(of_paper),
             *measured([*values.values()]), str(len(values))]
            for key, column, of_paper, values in figures(found)]  # fmt: skip


def _unit(table: PaperTable, column: str) -> str:
    return table.columns[column]["unit"]


def in_print(value: Any) -> str:
    """A figure of a paper; mean and spread where it has both, a dash for what it leaves out."""
    if isinstance(value, list):
        return " ± ".join(map(in_print, value))
    return "-" if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)


def measured(values: Sequence[float]) -> tuple[str, str]:
    """Mean and standard deviation over seeds, a dash for what there is not."""
    if not values:
        return "-", "-"
    return f"{spread(values).mean:.5g}", f"{stdev(values):.2g}" if len(values) > 1 else "-"


def _claims(found: Outcome) -> Iterable[str]:
    for claim in claims_asked(found.table, found.scale):
        verdict = found.verdicts[claim.id]
        in_print = "" if claim.holds else " (not true in print)"
        yield f"- {claim.id}: {verdict.word}. {claim.says}{in_print} [{verdict.statistic}]"


def values_of(found: Sequence[Outcome], lacks: Sequence[str | None] = ()) -> dict[str, Any]:
    """All that is shown, as JSON holds it: figures by row, column and seed beside the printed ones, and verdicts.

    Args:
        found: tables.
        lacks: of each, what is not there, see `absent`; nothing of those without.
    """
    tables = []
    for one, lack in zip_longest(found, lacks):
        rows = [{"row": key, "column": column, "unit": _unit(one.table, column),
                 "paper": next((row.get(column) for row in one.table.rows if row[one.table.key] == key), None),
                 "by_seed": {str(seed): value for seed, value in sorted(values.items())}}
                for key, row in one.rows.items() for column, values in row.items() if values]  # fmt: skip
        claims = [{"id": claim.id, "says": claim.says, "holds_in_print": claim.holds,
                   "verdict": (verdict := one.verdicts[claim.id]).word, "held": verdict.held,
                   "seeds": verdict.seeds, "without": [*verdict.lacks], "by_reading": verdict.by_reading,
                   "statistic": verdict.statistic}
                  for claim in claims_asked(one.table, one.scale)]  # fmt: skip
        tables.append({"id": one.table.id, "title": one.table.title, "stand_in": [*one.stand_in], "lacks": lack,
                       "rows": rows, "claims": claims})  # fmt: skip
    told = {"command": command_line(), "versions": versions(), "created": now()}
    return {"scale": found[0].scale if found else None, "summary": summary(found), "tables": tables} | told


def tally(found: Outcome) -> Counter[str]:
    """How many claims of a table came out as which of `KINDS`, and beside that

    - "reading": of those not measured, that no program judges,
    - "computed", "one", "part": of those decided, that are computed of no run, that one seed decided, and a part of the
      table's rows or columns.
    """
    told = [found.verdicts[claim.id] for claim in claims_asked(found.table, found.scale)]
    count = Counter(kind_of(verdict.word) for verdict in told)
    decided = [verdict for verdict in told if kind_of(verdict.word) in DECIDED]
    count["computed"] = sum(verdict.of == "computation" for verdict in decided)
    # What is computed needs no second seed.
    count["one"] = sum(verdict.seeds == 1 and verdict.of != "computation" for verdict in decided)
    count["part"] = sum(bool(verdict.lacks) for verdict in decided)
    count["reading"] = sum(verdict.by_reading for verdict in told)
    return count


def summary(found: Sequence[Outcome]) -> str:
    """How many claims were asked, how many were decided, and how they came out."""
    total = sum(map(tally, found), Counter())
    if not (asked := sum(total[kind] for kind in KINDS)):
        return "no claims are asked of these tables at this scale"
    return (
        f"{asked} claims asked, {sum(total[kind] for kind in DECIDED)} decided: {total['held']} held, "
        f"{total['not held']} did not; {total['open']} open, {total['not measured']} not measured. Of those decided "
        f"{total['computed']} are computed from formulas alone, of no run, {total['one']} are by one seed and "
        f"{total['part']} by a part of the table; {total['reading']} of those not measured no program judges"
    )
