"""Whether records are of the same data: what Python brings along differs by version, and files may be other ones."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

from hf_noise.reports.record import RunRecord
from hf_noise.studies.reproduce.naming import few

__all__ = ["newest_of_one_data", "of_one_data", "python_of"]

#: Texts and pairs of the running Python's own library.
_OF_PYTHON = "embedded/docs-"
#: What records say of how much their data are, which all runs of one command share.
_SIZES = ("train_rows", "train_tokens", "validation_rows", "validation_tokens", "test_rows", "targets")


def python_of(record: Mapping[str, Any]) -> str | None:
    """Minor version of the Python whose library a record's data are, such as "3.11"; None of other data."""
    if not str(record["data"].get("source", "")).startswith(_OF_PYTHON):
        return None
    return ".".join(str(record["versions"].get("python", "unknown")).split(".")[:2])


def of_one_data(
    records: Mapping[int, Sequence[RunRecord]], here: Collection[int] = ()
) -> tuple[dict[int, list[RunRecord]], list[str]]:
    """Records of a table without those of other data than the rest, and what was left out, in words.

    Text that Python brings along must be of one version in all of the table, and the runs of one command must say the
    same of how many rows and tokens there are. The group with most records made here counts, else the largest one.

    Args:
        records: by place among the table's runs.
        here: `id` of those that were made here.
    """
    every = [(at, record) for at, of_runs in records.items() for record in of_runs]
    told = [(record, None if (python := python_of(record.to_dict())) is None else "Python", {"Python": python})
            for _, record in every]  # fmt: skip
    out, notes = _others(told, here)
    left = [(at, record) for at, record in every if id(record) not in out]
    sizes = [(record, (at, record.task, str(record.data.get("source")), str(record.data.get("task"))),
              _sizes_of(record)) for at, record in left]  # fmt: skip
    more, other = _others(sizes, here)
    kept = {at: [one for one in of_runs if id(one) not in out | more] for at, of_runs in records.items()}
    return kept, notes + other


def newest_of_one_data(
    parts: Mapping[int, Sequence[Sequence[RunRecord]]], here: Collection[int] = ()
) -> dict[int, list[RunRecord]]:
    """One record of each part of a table: the newest of the data that counts, or else the newest.

    Were the newest taken first, a set of other data that was begun later would hide a whole one.

    Args:
        parts: by place among the table's runs, of each part all records that there are, the newest first.
        here: `id` of those that were made here.
    """
    every = {at: [one for records in of_parts for one in _newest_by_data(records)] for at, of_parts in parts.items()}
    alike = {id(record) for records in of_one_data(every, here)[0].values() for record in records}
    return {at: [next((one for one in records if id(one) in alike), records[0]) for records in of_parts if records]
            for at, of_parts in parts.items()}  # fmt: skip


def _newest_by_data(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The first record of each data, so that a part that was often made counts once."""
    found: dict[str, RunRecord] = {}
    for record in records:
        found.setdefault(json.dumps([python_of(record.to_dict()), _sizes_of(record)], sort_keys=True), record)
    return [*found.values()]


def _sizes_of(record: RunRecord) -> dict[str, Any]:
    return {name: record.data[name] for name in _SIZES if name in record.data}


def _others(
    told: Iterable[tuple[RunRecord, Hashable | None, Mapping[str, Any]]], here: Collection[int]
) -> tuple[set[int], list[str]]:
    """Of records that should say the same (those with the same second value), `id` of those that do not."""
    found: dict[Hashable, dict[str, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record, group, data in told:
        if group is not None:
            found[group][json.dumps(data, sort_keys=True)].append(record)
    out, notes = set(), []
    for groups in found.values():
        best = max(groups, key=lambda name: _weight(groups[name], here))
        for name, records in groups.items():
            if name != best:
                out |= {id(record) for record in records}
                notes.append(_note(records, json.loads(name), json.loads(best)))
    return out, notes


def _weight(records: Sequence[RunRecord], here: Collection[int]) -> tuple[int, int, str]:
    return sum(id(record) in here for record in records), len(records), max(record.created for record in records)


def _note(records: Sequence[RunRecord], theirs: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    names = [record.name for record in records]
    told = [f"{name} {theirs.get(name, '-')}, not {best.get(name, '-')}" for name in sorted({*theirs} | {*best})
            if theirs.get(name) != best.get(name)]  # fmt: skip
    return f"left out as of other data than the rest ({'; '.join(told)}): {few(names)}"
