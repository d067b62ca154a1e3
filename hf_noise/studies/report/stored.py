"""Records of a folder with the places where they stand, so that each figure can say which record it is of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from hf_noise.reports.record import RunRecord
from hf_noise.studies.reproduce.reading import read_lines
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
        """Raises ValueError: a record cannot be read, or there is none; its file and line, or the folder are named."""
        found: list[tuple[str, Mapping[str, Any]]] = []
        for file, lines in groupby(read_lines(folder), key=attrgetter("file")):
            home = file.parent.parent if file.name == "record.json" and file.parent != folder else file.parent
            study, of_file = home.relative_to(folder).as_posix(), [*lines]
            names = Counter(one.told["name"] for one in of_file)
            found += [(f"{study}/{(name := one.told['name'])}" + f" (line {one.line})" * (names[name] > 1), one.told)
                      for one in of_file]  # fmt: skip
        if not found:
            raise ValueError(f"{folder} holds no records of runs; python recipes/reproduce.py all makes them")
        return cls(folder, found)

    @cached_property
    def kept(self) -> Kept:
        """What tables are read of."""
        return Kept([one for _, one in self.told], places=[Path(place) for place, _ in self.told])

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
