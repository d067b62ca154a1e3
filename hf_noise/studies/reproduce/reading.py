"""The records of runs below a folder, each checked, with the file and line where it stands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_noise.reports.record import DataRecord, RunRecord

__all__ = ["Line", "read_lines"]


@dataclass(frozen=True)
class Line:
    """A record and where it stands: `line` counts from 1, and is 1 in a file `record.json`, which holds one record."""

    file: Path
    line: int
    told: Mapping[str, Any]


def read_lines(folder: Path) -> list[Line]:
    """All records of runs below a folder, in files `records.jsonl` of a study and `record.json` of a run, by path.

    Records of data sets, which lie in such files too, are left out.

    Raises:
        ValueError: one of them is no record, or one of another version; the file and its line are named.
    """
    return [line for file in sorted([*folder.rglob("records.jsonl"), *folder.rglob("record.json")])
            for line in _lines(file)]  # fmt: skip


def _lines(file: Path) -> Iterator[Line]:
    is_lines = file.suffix == ".jsonl"
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _refusal(file, error) from None
    # Not splitlines: texts in a record may hold what that takes for the end of a line.
    for number, part in enumerate(text.split("\n") if is_lines else [text], start=1):
        if is_lines and not part.strip():
            continue
        is_data = f'"{DataRecord.schema}"' in part
        try:
            (DataRecord if is_data else RunRecord).from_json(part)
        except ValueError as error:
            raise _refusal(f"{file} line {number}" if is_lines else file, error) from None
        if not is_data:
            yield Line(file, number, json.loads(part))


def _refusal(place: Any, error: Exception) -> ValueError:
    return ValueError(f"{place} is no record ({error}); delete it, or name another folder")
