"""The folder of training dynamics: Parquet files of some steps of an epoch each, whole or not there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_noise.atomic import replaced_whole

__all__ = ["Part", "SCHEMA", "check_whole", "first_copies", "keep_until", "parts_in", "read_part", "write_part"]

#: A row is what one pass of training gave for one sample; `step` counts finished optimiser steps before it.
SCHEMA = pa.schema([
    ("sample_id", pa.int64()), ("epoch", pa.int32()), ("step", pa.int32()), ("label", pa.int32()),
    ("loss", pa.float32()), ("margin", pa.float32()), ("p_given", pa.float32()),
])  # fmt: skip

_NAME = re.compile(r"epoch(\d+)-steps(\d+)-(\d+)-process(\d+)of(\d+)\.parquet")
_SHOWN = 8


@dataclass(frozen=True)
class Part:
    """What one of `processes` wrote of the steps [first, end) of a run, all of one epoch."""

    epoch: int
    first: int
    end: int
    process: int
    processes: int

    @property
    def name(self) -> str:
        steps = f"{self.first:08d}-{self.end:08d}"
        return f"epoch{self.epoch:05d}-steps{steps}-process{self.process}of{self.processes}.parquet"

    @classmethod
    def named(cls, name: str) -> Part | None:
        """The part that a file's name tells, None for a file that is none."""
        found = _NAME.fullmatch(name)
        return None if found is None else cls(*map(int, found.groups()))


def parts_in(folder: str | os.PathLike) -> list[Part]:
    """The parts of a folder in the order of their steps; other files are passed over."""
    found = [Part.named(path.name) for path in Path(folder).glob("*.parquet")]
    return sorted((one for one in found if one is not None), key=lambda one: (one.first, one.end, one.process))


def write_part(folder: str | os.PathLike, part: Part, columns: Mapping[str, np.ndarray]) -> Path:
    """Write the columns of `SCHEMA` but for the epoch, each [n]; the file is whole and on the disk, or not there."""
    n = len(columns["sample_id"])
    arrays = [np.full(n, part.epoch) if field.name == "epoch" else columns[field.name] for field in SCHEMA]
    table = pa.table([pa.array(one, type=field.type) for one, field in zip(arrays, SCHEMA)], schema=SCHEMA)
    path = Path(folder) / part.name
    with replaced_whole(path) as unfinished:
        pq.write_table(table, unfinished)
    return path


def read_part(folder: str | os.PathLike, part: Part) -> dict[str, np.ndarray]:
    """The columns of a part by name, each [n].

    Raises:
        ValueError: the file is damaged, or holds other columns or steps than its name says.
    """
    path = Path(folder) / part.name
    remedy = "copy it again from where it is whole, or resume the run from a checkpoint before these steps"
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read ({str(error).splitlines()[0]:.200}); {remedy}") from error
    if not table.schema.equals(SCHEMA):
        raise ValueError(f"{path} has the columns {', '.join(table.column_names)}, a part of training dynamics "
                         f"{', '.join(SCHEMA.names)} as {', '.join(map(str, SCHEMA.types))}; {remedy}")  # fmt: skip
    columns = {name: table[name].to_numpy() for name in SCHEMA.names}
    steps, epochs = columns["step"], columns["epoch"]
    if len(steps) and not (part.first <= steps.min() <= steps.max() < part.end and (epochs == part.epoch).all()):
        raise ValueError(f"{path} holds steps {steps.min()} to {steps.max()} of epochs {epochs.min()} to "
                         f"{epochs.max()}, which its name does not say: it was renamed; {remedy}")  # fmt: skip
    return columns


def check_whole(folder: str | os.PathLike, parts: Sequence[Part], end: int | None = None) -> None:
    """Refuse parts that do not hold every step from 0 on once, of each process.

    Args:
        parts: in the order of `parts_in`.
        end: the step that they have to reach, None for wherever they end.

    Raises ValueError: which steps are missing or there twice, and what to do.
    """
    at = 0
    spans: dict[tuple[int, int, int, int], set[int]] = {}
    for part in parts:
        spans.setdefault((part.first, part.end, part.epoch, part.processes), set()).add(part.process)
    for (first, last, _, processes), there in spans.items():
        if first < at:
            raise ValueError(f"{folder} holds the steps {first} to {min(at, last) - 1} twice: a run was stopped while "
                             "it was taken up, or files of two runs lie here; resume the run, which drops what is "
                             "double, or take a folder of its own for each")  # fmt: skip
        if first > at:
            break
        if missing := sorted(set(range(processes)) - there):
            raise ValueError(f"{folder} lacks what process {missing[0]} of {processes} saw in the steps {first} to "
                             f"{last - 1}: the run is still writing, or was killed; resume it, or copy all files of "
                             "the folder")  # fmt: skip
        at = last
    after = next((part.first for part in parts if part.first > at), end)
    if after is not None and at < after:
        raise ValueError(f"{folder} holds nothing of the steps {at} to {after - 1}, which the run has made: the "
                         "recording began later, or files are gone; begin the run anew in a folder of its own, or copy "
                         "all files of this one")  # fmt: skip


def keep_until(folder: str | os.PathLike, step: int) -> int:
    """Drop from a folder what was seen from this step on; returns the number of rows dropped.

    A part that reaches beyond is written again first and then removed, so that a process that is killed here loses no
    row, and the next one finds what to do.
    """
    folder, dropped = Path(folder), 0
    for part in parts_in(folder):
        if part.end <= step:
            continue
        columns = read_part(folder, part) if part.first < step else None
        if columns is None:
            dropped += pq.read_metadata(folder / part.name).num_rows if _is_parquet(folder / part.name) else 0
        else:
            before = columns["step"] < step
            dropped += int((~before).sum())
            kept = Part(part.epoch, part.first, step, part.process, part.processes)
            write_part(folder, kept, {name: values[before] for name, values in columns.items()})
        (folder / part.name).unlink()
    return dropped


def _is_parquet(path: Path) -> bool:
    try:
        pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return False
    return True


def first_copies(ids: np.ndarray, steps: np.ndarray, *, epoch: int, processes: int) -> np.ndarray:
    """Which rows of an epoch to count: of a sample that was given out twice to fill the last step, the first.

    Several processes share out whole batches, and what the last one lacks is filled by samples of the epoch's begin.

    Args:
        ids, steps: int [n] of all rows of the epoch, those of a step in the order of their processes.
        processes: that took part.

    Returns:
        int64 [m], the rows to count in the order of their ids.

    Raises:
        ValueError: a sample was seen twice elsewhere, so that two rows of data have one id, or the model is called
            twice in a pass.
    """
    order = np.lexsort((steps, ids))
    ids, at = ids[order], steps[order]
    is_copy = np.zeros(len(ids), dtype=bool)
    is_copy[1:] = ids[1:] == ids[:-1]
    is_filling = is_copy & (at == (steps.max() if len(steps) else 0)) & (processes > 1)
    if (is_copy & ~is_filling).any():
        twice = np.unique(ids[is_copy & ~is_filling])
        more = ", ..." if len(twice) > _SHOWN else ""
        raise ValueError(f"sample_id repeats in epoch {epoch} for {len(twice)} samples "
                         f"({', '.join(map(str, twice[:_SHOWN]))}{more}): rows share an id, or the model is called "
                         "more than once in a pass; number the rows: rows.remove_columns('sample_id')"
                         ".add_column('sample_id', range(len(rows)))")  # fmt: skip
    return order[~is_copy]
