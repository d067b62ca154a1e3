"""Records that were made elsewhere: what they cover of a table, and what its cells took there."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import Any

import hf_noise
from hf_noise.reports.record import RunRecord
from hf_noise.studies.reproduce.alike import python_of
from hf_noise.studies.reproduce.cells import Cell, Part
from hf_noise.studies.reproduce.reading import read_lines
from hf_noise.studies.reproduce.same import differing

__all__ = ["Kept", "python_here", "usual_folder"]


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

    Args:
        records: as `RunRecord.to_dict` gives them.
        is_strict: whether a record counts only if it is of the data that there are here, as far as that can be told:
            of text that Python brings along those of this Python's minor version, and of what settings name on this
            machine (files, folders, patterns) none, since records do not say what was in it. What cells took is told
            by all records.
        places: of the records, in their order, where they are known: paths, by which heads find their model.
    """

    def __init__(
        self, records: Iterable[Mapping[str, Any]] = (), *, is_strict: bool = False, places: Iterable[Path] = ()
    ):
        records = [*records]
        self._is_strict = is_strict
        self._places = dict(zip(map(id, records), places))
        self._records: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
        self._seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
        for record in sorted(records, key=itemgetter("created"), reverse=True):
            self._records[record["task"], record["name"]].append(record)
            self._seconds[record["task"], str(record["settings"].get("scale"))].append(record["wall_seconds"])

    @classmethod
    def read(cls, folder: Path | None, *, is_strict: bool = False) -> Kept:
        """All records of runs below a folder, in files `records.jsonl` and `record.json`.

        Raises:
            ValueError: one of them cannot be read; the file is named, and its line.
        """
        lines = [] if folder is None else read_lines(folder)
        return cls([line.told for line in lines], is_strict=is_strict, places=[line.file for line in lines])

    def of(self, part: Part) -> RunRecord | None:
        """A record with this name and these settings; None if there is none."""
        told = self._told(part, self._is_strict)
        return None if told is None else RunRecord.from_dict(told)

    def covers(self, cell: Cell) -> bool:
        """Whether there is a record of all that a cell would leave."""
        return all(self._told(part, self._is_strict) is not None for part in cell.parts)

    def seconds(self, cell: Cell, scale: str) -> float | None:
        """What a cell took elsewhere, or others of its task at this scale; None where nothing is known of it."""
        told = [self._one(part, scale) for part in cell.parts]
        return None if None in told else sum(one for one in told if one is not None)

    def every(self, part: Part) -> list[RunRecord]:
        """All records with this name and these settings, the newest first."""
        return [RunRecord.from_dict(one) for one in self._every(part, self._is_strict)]

    def _told(self, part: Part, is_strict: bool = False) -> Mapping[str, Any] | None:
        return next(self._every(part, is_strict), None)

    def _every(self, part: Part, is_strict: bool) -> Iterator[Mapping[str, Any]]:
        for one in self._records[part.task, part.name]:
            is_of_here = not is_strict or python_of(one) in (None, python_here())
            is_alike = is_of_here and not differing(part, one["settings"], is_strict)
            if is_alike and (part.model is None or self._is_made_on(one, part.model, is_strict)):
                yield one

    def _is_made_on(self, record: Mapping[str, Any], model: Part, is_strict: bool) -> bool:
        """Whether all that is known of the model that a record names says that it was made with these settings."""
        named = Path(record["settings"]["model"])
        # Of folders outside the working one records have the last part alone.
        folder = named.parent if named.parent.name else Path(model.file.parent.parent.name)
        made = [one for one in self._records[model.task, model.name]
                if one["settings"].get("output") == folder.as_posix() and one["name"] == named.name]  # fmt: skip
        # Outputs of two studies may be called alike, as by default: the model lies nearest to its heads.
        near = [self._shared_folders(record, one) for one in made]
        own = [one for one, shared in zip(made, near) if shared == max(near)]
        return bool(own) and not any(differing(model, one["settings"], is_strict) for one in own)

    def _shared_folders(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
        """How many folders the places of two records have in common, from the first one on."""
        parts = (self._places.get(id(record), Path()).parts for record in (one, other))
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*parts)))

    def _one(self, part: Part, scale: str) -> float | None:
        if (record := self._told(part)) is not None:
            return record["wall_seconds"]
        same = self._records[part.task, part.name]
        named = [one["wall_seconds"] for one in same if one["settings"].get("scale") == scale]
        others = named or self._seconds[part.task, scale]
        return median(others) if others else None


def python_here() -> str:
    """The minor version of the Python that runs, such as "3.11"."""
    return ".".join(platform.python_version_tuple()[:2])
