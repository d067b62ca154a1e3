"""Records of the papers' tables, of every seed that there are any of: a table's own flags name the fewest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hf_noise.reports.paper import paper_table_ids
from hf_noise.reports.record import RunRecord
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.reproduce.alike import newest_of_one_data
from hf_noise.studies.reproduce.cells import Cell, Family, Part, family
from hf_noise.studies.reproduce.flags import COMPUTED
from hf_noise.studies.reproduce.plan import Asked, Planned, counted_and_rest, planned
from hf_noise.studies.reproduce.rows import Outcome, Records, outcome

__all__ = ["outcomes_in", "tables_in"]


def tables_in(
    stored: Stored, scale: str, more: Sequence[str] = ()
) -> tuple[dict[str, Planned], dict[str, Records], dict[str, list[str]]]:
    """Of each table of the papers what is asked for at a scale, its records, and which were left out, in words.

    Args:
        stored: records of a folder.
        scale: one of `hf_noise.reports.paper.SCALES`.
        more: flags that the runs of all studies were told, as behind `--` of the command that made them.
    """
    asked = Asked(scale, stored.folder, more=tuple(more))
    plans, records, rest = {}, {}, {}
    for name in paper_table_ids():
        plans[name] = planned(name, asked)
        records[name], rest[name] = _records_and_rest(stored, plans[name])
    return plans, records, rest


def outcomes_in(stored: Stored, scale: str) -> list[Outcome]:
    """What records say of each table of the papers, of all their seeds."""
    plans, records, _ = tables_in(stored, scale)
    return [outcome(name, scale, records) for name in plans]


def _records_and_rest(stored: Stored, plan: Planned) -> tuple[Records, list[str]]:
    """The records that differ from those which a plan names in nothing but the seed, by place among the table's runs.

    A cell that is of several records counts with those that are there. The rest, in words, does not count.
    """
    found: dict[int, list[list[RunRecord]]] = {}
    for at, cells in plan.cells.items():
        study = plan.table.runs[at].study
        parts = {part.file: part for part in _parts(family(study), cells, stored.seeds)}
        records = [of_part for part in parts.values() if (of_part := _records(part, stored))]
        if records or study == COMPUTED:  # which is computed, whether or not it was drawn
            found[at] = records
    return counted_and_rest(plan, newest_of_one_data(found))


def _parts(study: Family, cells: Sequence[Cell], seeds: Mapping[str, frozenset[int]]) -> Iterable[Part]:
    """What cells would leave, of their own seeds and of those that there are of their tasks."""
    there = frozenset[int]().union(*(seeds.get(part.task, ()) for cell in cells for part in cell.parts))
    yield from (part for cell in cells for part in cell.parts)
    for argv in dict.fromkeys(cell.argv for cell in cells) if there else ():
        settings = study.settings(argv)
        yield from (part for other in _seeded(settings, study.seeds, there) for _, parts in study.cells(other)
                    for part in parts)  # fmt: skip


def _seeded(settings: Any, names: Sequence[str], seeds: Iterable[int]) -> Iterable[Any]:
    """Settings with other seeds in the places of these names: some studies take all at once, some one, and some none.
    """
    own = {name: getattr(settings, name) for name in names if getattr(settings, name, None) is not None}
    lists = {name: sorted({*seeds, *value}) for name, value in own.items() if isinstance(value, list)}
    if any(lists[name] != sorted(own[name]) for name in lists):
        yield replace(settings, **lists)
    for name in own.keys() - lists.keys():
        yield from (replace(settings, **{name: seed}) for seed in sorted({*seeds} - {own[name]}))


def _records(part: Part, stored: Stored) -> list[RunRecord]:
    """What there is of a part: the one that was made here, or all that are stored, the newest first."""
    made = part.record() if part.is_done else None
    return stored.kept.every(part) if made is None else [made]
