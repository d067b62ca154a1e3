"""Records of a folder with the places where they stand, so that each figure can say which record it is of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hf_noise.reports.record import RunRecord
from hf_noise.studies.reproduce.records import Kept

__all__ = ["Stored"]


@dataclass(frozen=True)
class Stored:
    """The records of runs below a folder, in files `records.jsonl` of a study and `record.json` of a run.

    Attributes:
        folder: where they lie.
        told: the place of each record, its study's folder and its name, and its fields; of
            several records of a name the place tells their lines.
    """

    folder: Path
    told: Sequence[tuple[str, Mapping[str, Any]]]

    @classmethod
    def read(cls, folder: Path) -> Stored:
        """Raises ValueError: a file cannot be read, or there are no records; the file or the folder is named."""
        found: list[tuple[str, Mapping[str, Any]]] = []
        for file in sorted([*folder.rglob("records.jsonl"), *folder.rglob("record.json")]):
            text = file.read_text(encoding="utf-8")
            of_run = file.name == "record.json"
            home = file.parent.parent if of_run and file.parent != folder else file.parent
            study = home.relative_to(folder).as_posix()
            try:
                lines = [json.loads(line) for line in ([text] if of_run else text.splitlines()) if line.strip()]
            except ValueError as error:
                raise ValueError(f"{file} is no record ({error}); delete it, or name another folder") from None
            runs = [(i, one) for i, one in enumerate(lines, 1) if one.get("schema") == RunRecord.schema]
            names = Counter(one["name"] for _, one in runs)
            found += [(f"{study}/{one['name']}" + f" (line {i})" * (names[one["name"]] > 1), one) for i, one in runs]
        if not found:
            raise ValueError(f"{folder} holds no records of runs; python recipes/reproduce.py all makes them")
        return cls(folder, found)

    @cached_property
    def kept(self) -> Kept:
        """What tables are read of."""
        return Kept(one for _, one in self.told)

    @cached_property
    def seeds(self) -> Mapping[str, frozenset[int]]:
        """Those that there are records of, by task."""
        tasks = {one["task"] for _, one in self.told}
        return {task: frozenset(one["seed"] for _, one in self.told if one["task"] == task) for task in tasks}

    @cached_property
    def _places(self) -> dict[tuple[str, str, str], str]:
        return {(one["task"], one["name"], one["created"]): place for place, one in self.told}

    def place_of(self, record: RunRecord) -> str:
        """Where a record stands, as `edm-demo/r1-symmetric-tdsm-seed0`; its name alone if it is of elsewhere."""
        return self._places.get((record.task, record.name, record.created), record.name)

    def of_task(self, task: str) -> dict[str, list[tuple[str, RunRecord]]]:
        """Records of a task with their places, by their study's folder."""
        found: dict[str, list[tuple[str, RunRecord]]] = {}
        for place, one in self.told:
            if one["task"] == task:
                found.setdefault(place.rpartition("/")[0], []).append((place, RunRecord.from_dict(one)))
        return found

    def of_study(self, study: str) -> list[RunRecord]:
        """Records of one folder."""
        return [RunRecord.from_dict(one) for place, one in self.told if place.rpartition("/")[0] == study]
