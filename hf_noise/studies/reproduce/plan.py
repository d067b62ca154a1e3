"""Which cells a command asks for: those of its tables at a scale, each once, in lanes that may run side by side."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from hf_noise.reports.paper import PaperTable, Runs, published
from hf_noise.reports.record import RunRecord
from hf_noise.studies.reproduce.alike import newest_of_one_data, of_one_data
from hf_noise.studies.reproduce.cells import Cell, UnknownFlags, family
from hf_noise.studies.reproduce.flags import COMPUTED
from hf_noise.studies.reproduce.records import Kept
from hf_noise.studies.reproduce.rows import Records
from hf_noise.studies.settings import SettingError

__all__ = ["Asked", "Planned", "cells_of", "counted_and_rest", "is_there", "lanes", "planned", "records_and_rest",
           "records_of"]  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What a command asks for, beside its tables.

    Attributes:
        scale: one of `hf_noise.reports.paper.SCALES`.
        output: folder of all runs.
        seeds: how many, from 0 on; None as the tables have them.
        only: names of cells, with * and ?; none: all.
        more: flags that the commands of all studies get, but for that whose figures are computed.
        kept: records of before.
        reuses: whether a cell that they cover counts as made.
    """

    scale: str
    output: Path
    seeds: int | None = None
    only: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    kept: Kept = field(default_factory=Kept)
    reuses: bool = False


@dataclass(frozen=True)
class Planned:
    """The cells of a table by place among its `runs`, and why others have none.

    Attributes:
        cells: of each of the table's `runs` that has some.
        missing: reasons, of those that have none at this scale.
        refused: those of them that a study gives, which other flags may change.
        unknown: by study, flags of those that all studies get which it does not have.
    """

    table: PaperTable
    cells: dict[int, list[Cell]]
    missing: list[str]
    refused: list[str] = field(default_factory=list)
    unknown: dict[str, set[str]] = field(default_factory=dict)

    @property
    def every(self) -> list[Cell]:
        return [cell for cells in self.cells.values() for cell in cells]


def planned(name: str, asked: Asked) -> Planned:
    """The cells of a table at a scale."""
    table, cells, missing, refused, unknown = published(name), {}, [], [], {}
    for at, runs in enumerate(table.runs):
        if asked.scale in runs.missing:
            missing.append(runs.missing[asked.scale])
            continue
        try:
            cells[at] = cells_of(runs, asked)
        except SettingError as error:  # most scales but demo need data of one's own
            refused.append(f"{error}; what stands after -- goes to the studies")
            if isinstance(error, UnknownFlags):
                unknown.setdefault(runs.study, set()).update({*error.flags} & {*asked.more})
    missing = [*dict.fromkeys(missing + refused)] if table.runs else [table.not_built or "judged by other tables"]
    return Planned(table, cells, missing, refused, unknown)


def cells_of(runs: Runs, asked: Asked) -> list[Cell]:
    """The cells of some runs. Raises SettingError: a study refuses its flags."""
    of_study, found = family(runs.study), []
    folder = asked.output / asked.scale / "-".join(filter(None, [runs.study, runs.folder.get(asked.scale)]))
    more = () if runs.study == COMPUTED else asked.more
    flags = [*shlex.split(runs.flags[asked.scale]), *more]
    for argv in of_study.commands(flags, folder, asked.seeds):
        for name, parts in of_study.cells(of_study.settings(argv)):
            cell = Cell(runs.study, tuple(argv), name, folder, tuple(parts))
            if not asked.only or any(fnmatch(one, pattern) for pattern in asked.only for one in (name, cell.title)):
                found.append(cell)
    return found


def lanes(plans: Sequence[Planned]) -> list[list[Cell]]:
    """Cells in groups by folder, of which one process at a time has one: those of a study share what it makes first."""
    found: dict[Path, dict[str, Cell]] = {}
    for plan in plans:
        for cell in plan.every:
            found.setdefault(cell.folder, {}).setdefault(cell.name, cell)
    return [[*cells.values()] for cells in found.values()]


def records_of(plan: Planned, asked: Asked) -> Records:
    """What there is of a table's cells, of one set of data: made here, or else kept where those count."""
    return records_and_rest(plan, asked)[0]


def records_and_rest(plan: Planned, asked: Asked) -> tuple[Records, list[str]]:
    """As `records_of`, with what was left out, in words."""
    every: dict[int, list[list[RunRecord]]] = {}
    here: set[int] = set()
    for at, cells in plan.cells.items():
        for cell in cells:
            of_parts = _of_cell(cell, asked)
            here |= {id(record) for records in of_parts for record in records if cell.is_done}
            every.setdefault(at, []).extend(of_parts)
    alike, rest = counted_and_rest(plan, newest_of_one_data(every, here), here)
    found = {at: records for at, records in alike.items() if records}
    if any(cell.study == COMPUTED for cell in plan.every):  # computed, whether or not it was drawn
        found |= {at: [] for at in plan.cells if at not in found}
    return found, rest


def counted_and_rest(
    plan: Planned, records: Mapping[int, Sequence[RunRecord]], here: Collection[int] = ()
) -> tuple[dict[int, list[RunRecord]], list[str]]:
    """Records of one set of data by place among a table's runs, and what is left out of the table, in words."""
    alike, rest = of_one_data(records, here)
    more = [note for at, of in alike.items() for note in family(plan.table.runs[at].study).uncounted(of)]
    return alike, rest + more


def _of_cell(cell: Cell, asked: Asked) -> list[list[RunRecord]]:
    """What there is of each part: the one that was made here, or all that are kept, the newest first."""
    if cell.is_done:
        return [[record] for part in cell.parts if (record := part.record()) is not None]
    return [asked.kept.every(part) for part in cell.parts] if is_there(cell, asked) else []


def is_there(cell: Cell, asked: Asked) -> bool:
    """Whether nothing has to be run for a cell."""
    return cell.is_done or (asked.reuses and asked.kept.covers(cell))
