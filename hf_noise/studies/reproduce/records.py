"""Records that were made elsewhere: what they cover of a table, and what its cells took there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import Any

import hf_noise
from hf_noise.reports.record import RunRecord
from hf_noise.reports.secrets import portable
from hf_noise.studies.reproduce.cells import Cell, Part
from hf_noise.studies.reproduce.reading import read_lines

__all__ = ["Kept", "usual_folder"]

#: Folder of the models that the study of backbones trains.
_MADE = "backbones"


def usual_folder() -> Path | None:
    """`benchmarks/results` of the repository that holds this package, or else of one that is the working folder."""
    # An installed package lies elsewhere, and is still started from its clone: python recipes/report.py.
    for root in (Path(hf_noise.__file__).resolve().parents[1], Path.cwd()):
        if (folder := root / "benchmarks" / "results").is_dir() and (root / "hf_noise").is_dir():
            return folder
    return None


class Kept:
    """Records of a folder by task and name; read whole when they are asked for, since checks of all take seconds.

    Of several with the same settings the newest counts.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()):
        self._records: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
        self._seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
        for record in sorted(records, key=itemgetter("created"), reverse=True):
            self._records[record["task"], record["name"]].append(record)
            self._seconds[record["task"], str(record["settings"].get("scale"))].append(record["wall_seconds"])

    @classmethod
    def read(cls, folder: Path | None) -> Kept:
        """All records of runs below a folder, in files `records.jsonl` and `record.json`.

        Raises:
            ValueError: one of them cannot be read; the file is named, and its line.
        """
        return cls(line.told for line in (() if folder is None else read_lines(folder)))

    def of(self, part: Part) -> RunRecord | None:
        """A record with this name and these settings; None if there is none."""
        told = self._told(part)
        return None if told is None else RunRecord.from_dict(told)

    def covers(self, cell: Cell) -> bool:
        """Whether there is a record of all that a cell would leave."""
        return all(self._told(part) is not None for part in cell.parts)

    def seconds(self, cell: Cell, scale: str) -> float | None:
        """What a cell took elsewhere, or others of its task at this scale; None where nothing is known of it."""
        told = [self._one(part, scale) for part in cell.parts]
        return None if None in told else sum(one for one in told if one is not None)

    def _told(self, part: Part) -> Mapping[str, Any] | None:
        return next((one for one in self._records[part.task, part.name] if _is_alike(part, one["settings"])), None)

    def _one(self, part: Part, scale: str) -> float | None:
        if (record := self._told(part)) is not None:
            return record["wall_seconds"]
        same = self._records[part.task, part.name]
        named = [one["wall_seconds"] for one in same if one["settings"].get("scale") == scale]
        others = named or self._seconds[part.task, scale]
        return median(others) if others else None


def _is_alike(part: Part, theirs: Mapping[str, Any]) -> bool:
    """Whether a record's settings are those of a part; one that it does not know was off then."""
    return all(_same(value, theirs[name]) if name in theirs else not value for name, value in part.settings.items())


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, list | tuple):
        return isinstance(theirs, list) and len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(ours, str) and isinstance(theirs, str) and ours != theirs:
        # Records leave out folders of a machine, and a model that a study made itself lies in another output.
        is_made = f"/{_MADE}/" in ours and Path(ours).name == Path(theirs).name
        return portable(ours) == theirs or is_made
    return ours == theirs
