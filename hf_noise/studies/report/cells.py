"""Each figure of the papers' tables with the records that it was read of."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import StatisticsError
from typing import Any

from hf_noise.reports.paper import PaperTable
from hf_noise.studies.report.seeds import tables_in
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.reproduce.cells import family
from hf_noise.studies.reproduce.flags import COMPUTED
from hf_noise.studies.reproduce.report import figures, in_print, measured, told_otherwise
from hf_noise.studies.reproduce.rows import Outcome, Records, others_of_table, outcome, table_rows

__all__ = ["Cell", "Found", "found_in"]

#: Where figures come from that are computed, and of which there is no record.
_FORMULAS = f"computed: hf_noise.studies.{COMPUTED}"

#: Values and places by row, column and seed; no value of records that a figure is the mean of.
Sources = dict[tuple[Any, str, int], list[tuple[float | None, str]]]


@dataclass(frozen=True)
class Cell:
    """A figure of a table: as printed, and as measured over seeds.

    Attributes:
        key: what tells the row apart.
        column: its name, and `unit` its unit.
        printed: as in the paper; None where it has none.
        values: measured, one for each seed.
        places: of the records that they were read of.
    """

    key: str
    column: str
    unit: str
    printed: Any
    values: tuple[float, ...]
    places: tuple[str, ...]

    @property
    def measured(self) -> str:
        return measured(self.values)[0]

    @property
    def spread(self) -> str:
        """The standard deviation over seeds."""
        return measured(self.values)[1]

    @property
    def paper(self) -> str:
        """Mean and spread, where the paper has both."""
        return in_print(self.printed)


@dataclass(frozen=True)
class Found:
    """A table, what came out, why some of it was not measured, its figures, and where its records stand.

    Attributes:
        left_out: sentences on records that do not count.
    """

    outcome: Outcome
    missing: Sequence[str]
    cells: Sequence[Cell]
    places: Sequence[str]
    left_out: Sequence[str] = ()

    @property
    def table(self) -> PaperTable:
        return self.outcome.table


def found_in(stored: Stored, scale: str, more: Sequence[str] = ()) -> list[Found]:
    """What records say of each table of the papers, as `tables_in` finds them."""
    plans, records, rest = tables_in(stored, scale, more)
    found = []
    for name, plan in plans.items():
        one = told_otherwise(outcome(name, scale, records), more)
        sources = _sources(one.table, records[name], stored)
        others = [records[other] for other in others_of_table(one.table)]
        every = [record for of in (records[name], *others) for of_runs in of.values() for record in of_runs]
        is_theory = any(cell.study == COMPUTED for cell in plan.every)
        places = (*dict.fromkeys(stored.place_of(record) for record in every), *[_FORMULAS] * is_theory)
        missing = [*dict.fromkeys(plan.missing)] if plan.missing and plan.table.kind == "measured" else []
        left_out = [f"{note[:1].upper()}{note[1:]}." for note in rest[name]]
        found.append(Found(one, missing, _cells(one, sources, places), places, left_out))
    return found


def _sources(table: PaperTable, records: Records, stored: Stored) -> Sources:
    """What each record alone says of a table, by row, column and seed, with its place."""
    found: Sources = {}
    for at, of_runs in records.items():
        runs = table.runs[at]
        is_mean = runs.reads.get("by") in family(runs.study).averaging
        for record in of_runs:
            with suppress(KeyError, IndexError, StatisticsError, ValueError):  # some figures are of several records
                for key, row in table_rows(table, {at: [record]}).items():
                    for column, values in row.items():
                        for seed, value in values.items():
                            told = None if is_mean else value
                            found.setdefault((key, column, seed), []).append((told, stored.place_of(record)))
    return found


def _cells(found: Outcome, sources: Sources, every: Sequence[str]) -> list[Cell]:
    """The figures of columns that something was measured of, row by row.

    A mean is of the records that have one of its values; a figure that no record says alone, such as a difference, is
    of `every` record of the table.
    """
    cells = []
    for key, column, of_paper, values in figures(found):
        told = [_places(value, sources.get((key, column, seed), ())) for seed, value in values.items()]
        places = tuple(dict.fromkeys(place for of in told for place in of)) if all(told) else tuple(every)
        cells.append(Cell(str(key), column.replace("_", " "), found.table.columns[column]["unit"], of_paper,
                          tuple(values.values()), places))  # fmt: skip
    return cells


def _places(value: float, of: Sequence[tuple[float | None, str]]) -> list[str]:
    alone = [place for told, place in of if told == value]
    return alone[:1] or [place for told, place in of if told is None]
