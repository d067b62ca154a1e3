"""What stands beside claims that were judged: what stood in for the papers' data, limits, and who shares their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hf_noise.reports.claims import others_of
from hf_noise.reports.verdicts import Verdict, kind_of
from hf_noise.studies.reproduce.rows import Outcome, claims_asked

__all__ = ["MEANINGS", "chip", "measured_on", "shared"]

#: What the columns of the table of claims mean.
MEANINGS = (
    "Of those decided, some are “computed” from formulas alone, of no run, “of one seed”, without an interval over "
    "seeds, or “of a part”, where rows or columns that the claim is of were not measured. “Open” is what the 95 % "
    "interval over seeds leaves open, or too few seeds; “by reading”, what no program judges."
)


def measured_on(found: Sequence[Outcome]) -> dict[str, list[str]]:
    """What was measured in place of the papers' data and models, by claim; nothing of what is computed.

    A claim that looks at other tables is of what was measured there, too.
    """
    by_table = {one.table.id: one.stand_in for one in found}
    told = {}
    for one in found:
        for claim in claims_asked(one.table, one.scale):
            verdict = one.verdicts[claim.id]
            is_of_runs = verdict.seeds > 0 and verdict.of != "computation"
            tables = [one.table.id, *sorted(others_of(claim))] if is_of_runs else []
            told[claim.id] = [*dict.fromkeys(says for name in tables for says in by_table.get(name, ()))]
    return told


def chip(verdict: Verdict) -> str:
    """The word of a verdict where there is little room, such as `held (one seed, a part)`."""
    kind = kind_of(verdict.word)
    limits = [
        ("computed" if verdict.of == "computation" else f"one {verdict.of}") * (verdict.seeds == 1),
        "these rows" * (verdict.on_rows and verdict.held is not None),
        "a part" * bool(verdict.lacks),
    ]
    limits = [*filter(None, limits)] if verdict.seeds else []
    return f"{kind} ({', '.join(limits)})" if limits else kind


def shared(found: Sequence[Outcome]) -> list[str]:
    """Sentences on tables that were measured by the same runs, in whole or in part, and on claims about other tables.

    Each table counts on its own, so that a reader has to know which verdicts are not independent.
    """
    groups = _groups(found)
    told = []
    if groups:
        names = "; ".join(map(_listed, groups))
        told.append("Each table is judged on its own, also where tables are of the same runs, in whole or in part, so "
                    f"that their verdicts are not independent: {names}.")  # fmt: skip
    if others := _others(found, groups):
        told.append(f"Claims of {'; of '.join(f'{name} look at {_listed(of)}' for name, of in others.items())}.")
    return told


def _groups(found: Sequence[Outcome]) -> list[list[str]]:
    """Ids of tables that share runs with another one of the group, in the order of the tables."""
    place = {one.table.id: at for at, one in enumerate(found)}
    groups: list[tuple[set[str], set[tuple[str, str, str]]]] = []
    for one in found:
        if not any(verdict.seeds for verdict in one.verdicts.values()):
            continue
        names, runs = {one.table.id}, {(record.task, record.name, record.created) for record in one.records}
        apart = []
        for group in groups:
            if group[1] & runs:
                names, runs = names | group[0], runs | group[1]
            else:
                apart.append(group)
        groups = [*apart, (names, runs)]
    alike = [sorted(names, key=place.__getitem__) for names, _ in groups if len(names) > 1]
    return sorted(alike, key=lambda names: place[names[0]])


def _others(found: Sequence[Outcome], groups: Sequence[Sequence[str]]) -> Mapping[str, list[str]]:
    """By table, the other ones with runs that its judged claims look at; not those of its group."""
    have_runs = {one.table.id for one in found if one.records}
    told = {}
    for one in found:
        near = {name for group in groups if one.table.id in group for name in group}
        judged = [claim for claim in claims_asked(one.table, one.scale) if one.verdicts[claim.id].seeds]
        if of := sorted({name for claim in judged for name in others_of(claim)} & have_runs - near):
            told[one.table.id] = of
    return told


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
