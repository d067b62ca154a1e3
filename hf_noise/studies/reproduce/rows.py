"""From records to the rows of a table, and from rows to what its claims are worth.

What a table says of reading (`reads` of its `Runs`) is either `by`, the name of a reader of the study's family, or

- `row`: the place in a record of what tells rows apart, as `noise.ratio`,
- `where`: places and what must stand there, one value or a list of them; what is said of noise and of the plan of
  compute is not asked of runs without noise, which are the same for all,
- `columns`: a metric for each column, or `{"metric": name or names, "times": factor}`; of several names the first that
  a record has.

Runs without noise that got more compute than their own are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from hf_noise.reports.claims import Rows, judge, others_of, with_others
from hf_noise.reports.paper import Claim, PaperTable, Runs, published
from hf_noise.reports.record import RunRecord, is_number
from hf_noise.reports.verdicts import Verdict, joined
from hf_noise.studies.compute import has_more_compute
from hf_noise.studies.reproduce.cells import family
from hf_noise.studies.reproduce.flags import COMPUTED

__all__ = ["Outcome", "claims_asked", "half_widths", "others_of_table", "outcome", "read_rows"]

Records = Mapping[int, Sequence[RunRecord]]
#: What one figure of a study is of, where it is not of a seed.
_OF = {COMPUTED: "computation", "backbones": "model"}


@dataclass(frozen=True)
class Outcome:
    """A table beside what was measured of it.

    Attributes:
        table: as published.
        scale: of the runs.
        rows: measured, by row, column and seed.
        verdicts: of each claim that this scale is asked for.
        records: what it was read of.
        stand_in: what was measured in place of the paper's data and models.
    """

    table: PaperTable
    scale: str
    rows: Rows
    verdicts: Mapping[str, Verdict]
    records: Sequence[RunRecord] = ()
    stand_in: Sequence[str] = field(default_factory=tuple)


def claims_asked(table: PaperTable, scale: str) -> list[Claim]:
    """The claims that runs of this scale are held against."""
    return [claim for claim in table.claims if claim.replica or scale == "paper"]


def others_of_table(table: PaperTable) -> list[str]:
    """Ids of the tables that its claims look at, too."""
    return sorted({other for claim in table.claims for other in others_of(claim)})


def outcome(name: str, scale: str, records_of: Mapping[str, Records]) -> Outcome:
    """What the records say of a table.

    Args:
        name: its id.
        scale: of the runs.
        records_of: records of each table and place among its `runs`; of other tables that its claims look at, too.
    """
    table, records = published(name), records_of.get(name, {})
    rows, halves = table_rows(table, records), half_widths(table, records)
    told = {claim.id: _verdict(claim, table, rows, halves, records_of) for claim in claims_asked(table, scale)}
    used = [runs for at, runs in enumerate(table.runs) if records.get(at)]
    stand_in = [runs.stand_in[scale] for runs in used if scale in runs.stand_in]
    every = [record for of_runs in records.values() for record in of_runs]
    return Outcome(table, scale, rows, told, every, tuple(dict.fromkeys(stand_in)))


def table_rows(table: PaperTable, records: Records) -> Rows:
    """All runs of a table together, in the order of its rows; rows that it does not have come last."""
    found: dict[Any, dict[str, dict[int, float]]] = {}
    for at, runs in enumerate(table.runs):
        if at in records:
            for key, row in read_rows(runs, records[at]).items():
                there = found.setdefault(_key_of(table, key), {})
                for column in table.columns:  # a reader may know more
                    if column in row:
                        told = {seed: value for seed, value in row[column].items() if is_number(value)}
                        there.setdefault(column, {}).update(told)
    order = {key: place for place, key in enumerate(table.keys)}
    return {key: found[key] for key in sorted(found, key=lambda key: (order.get(key, len(order)), str(key)))}


def _key_of(table: PaperTable, key: Any) -> Any:
    """The table's own spelling of a key: rates are written with few digits there."""
    if not isinstance(key, float | int):
        return key
    numbers = [one for one in table.keys if isinstance(one, float | int)]
    return next((one for one in numbers if math.isclose(one, key, rel_tol=1e-4)), key)


def read_rows(runs: Runs, records: Sequence[RunRecord]) -> Rows:
    """Figures of the records of some runs by row, column and seed."""
    reads = runs.reads
    if by := reads.get("by"):
        of_theory = runs.study == COMPUTED  # which is computed, and leaves no record
        return family(runs.study).readers[by](records, reads) if records or of_theory else {}
    found: dict[Any, dict[str, dict[int, float]]] = {}
    for record in records:
        if has_more_compute(record) or not _fits(record, reads.get("where", {})):
            continue
        row = found.setdefault(_at(record, reads["row"]), {})
        for column, told in reads["columns"].items():
            if (value := _figure(record, told)) is not None:
                row.setdefault(column, {})[record.seed] = value
    return found


def _figure(record: RunRecord, told: Any) -> float | None:
    told = told if isinstance(told, Mapping) else {"metric": told}
    names = [told["metric"]] if isinstance(told["metric"], str) else told["metric"]
    value = next((record.metrics[name]["value"] for name in names if name in record.metrics), None)
    return None if value is None else told.get("times", 1) * value


def _fits(record: RunRecord, where: Mapping[str, Any]) -> bool:
    is_clean = not record.noise.get("error_rate", record.noise.get("alpha", 0))
    for place, wanted in where.items():
        if is_clean and place.startswith(("noise.", "budget.plan")):
            continue
        if _at(record, place) not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def _at(record: RunRecord, place: str) -> Any:
    part, *keys = place.split(".")
    value = getattr(record, part)
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def half_widths(table: PaperTable, records: Records) -> Rows:
    """Of the 95 % intervals over test rows that records have for figures of a table; it says nothing of the others."""
    if not any(map(_has_interval, (one for of in records.values() for told in of for one in told.metrics.values()))):
        return {}
    rows, ends = table_rows(table, records), [
        table_rows(table, {at: [_at_end(one, end) for one in of] for at, of in records.items()})
        for end in ("low", "high")]  # fmt: skip
    return {key: {column: {seed: half for seed, value in cell.items()
                           if (half := max(abs(one[key][column][seed] - value) for one in ends))}
                  for column, cell in row.items()} for key, row in rows.items()}  # fmt: skip


def _has_interval(metric: Mapping[str, Any]) -> bool:
    return all(metric.get(end) is not None for end in ("low", "high"))


def _at_end(record: RunRecord, end: str) -> RunRecord:
    """As if metrics had the ends of their intervals as values: whatever reads a record reads those of it, too."""
    moved = copy(record)
    told = {name: one | {"value": one[end]} if _has_interval(one) else one for name, one in record.metrics.items()}
    object.__setattr__(moved, "metrics", told)  # checks take time, and were made
    return moved


def _verdict(
    claim: Claim, table: PaperTable, rows: Rows, halves: Rows, records_of: Mapping[str, Records]
) -> Verdict:
    """By the study's own verdicts where it has them, else by the tests of the claim."""
    if claim.of_study is None:
        studies = {runs.study for runs in table.runs}
        others = {name: (published(name), records_of.get(name, {})) for name in others_of(claim)}
        every = with_others(claim, rows, lambda name: table_rows(*others[name]))
        halves = with_others(claim, halves, lambda name: half_widths(*others[name]))
        found = judge(claim, every, keys=table.keys, half_widths=None if studies == {COMPUTED} else halves)
        return replace(found, of=_OF.get(*studies, found.of) if len(studies) == 1 else found.of)
    records = records_of.get(table.id, {})
    found = [one for at, runs in enumerate(table.runs) if records.get(at) or runs.study == COMPUTED
             for one in family(runs.study).verdicts(records.get(at, ())) if one.source == claim.of_study]  # fmt: skip
    if claim.settings:
        found = [one for one in found if _setting_of(one, claim)]
    if not found:
        return Verdict(claim.says, claim.id, "no figures", None, seeds=0)
    named = [_setting_of(one, claim) or one.claim for one in found]
    told = [f"{name}: {one.statistic}" for name, one in zip(named, found, strict=True)]
    lacks = tuple(name for name in claim.settings if name not in named)
    told = [*told, f"without {' and '.join(lacks)}"] if lacks else told
    return Verdict(claim.says, claim.id, "; ".join(told), *joined([one.lies for one in found]), found[0].of,
                   any(one.on_rows for one in found), lacks)  # fmt: skip


def _setting_of(verdict: Verdict, claim: Claim) -> str | None:
    """Which of a claim's settings a study's verdict is of."""
    return next((name for name in claim.settings if f"{verdict.claim}:".startswith(f"{name}:")), None)
