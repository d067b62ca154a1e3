"""Work on many rows in parts that are kept as they get done: resumed after a kill, shared by any number of processes.

Each part is a Parquet file that appears whole or not at all. Who works on one holds its lock, which the system lets go
when the process ends, however it ends; so no part is worked on twice, and nothing is waited for that nobody does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_noise.atomic import replaced_whole, sweep_temporaries, write_atomic

__all__ = ["Parts", "check_folder", "digest_of_texts"]

logger = logging.getLogger(__name__)

#: Rows of a part: what a kill may cost, less than a minute of a GPU.
ROWS_PER_PART = 512
_ROW = "row"
_PAUSE = 0.2  # seconds between looks at what others do


def digest_of_texts(*columns: Iterable[str]) -> str:
    """64 hexadecimal digits that are equal only where all texts are."""
    digest = hashlib.sha256()
    for column in columns:
        for text in column:
            written = text.encode("utf-8", "surrogatepass")
            digest.update(len(written).to_bytes(8, "little") + written)
        digest.update(b"\xff" * 8)
    return digest.hexdigest()


def check_folder(name: str, folder: str | os.PathLike) -> Path:
    """A folder that is there or can be made, or an error that names what is none."""
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        raise TypeError(f"{name} must be a folder, got {folder!r:.80}")
    try:
        path = Path(folder).expanduser()
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return path
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be a folder, got {folder!r:.80}: {error}") from error
    except OSError as error:
        raise OSError(f"{name} must be a folder that can be read, got {folder!r:.80}: {error!s:.80}") from error
    if not is_folder:
        raise NotADirectoryError(f"{name} must be a folder, {folder!r:.80} is a file")
    return path


class Parts:
    """A folder of parts, and a file beside them that says what they are of.

    Args:
        folder: made if it is not there.
        stated: what the parts depend on, JSON-able, with "teacher".
        file: the name of the file that says so.

    Raises:
        ValueError: the folder holds parts of something else, which are named.
    """

    def __init__(self, folder: str | os.PathLike, stated: Mapping[str, Any], file: str = "teacher.json") -> None:
        self.folder, self.stated = check_folder("cache", folder), json.loads(json.dumps(stated))
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(self.folder)
        told = self.folder / file
        if not told.is_file():
            if next(self.folder.glob("*.parquet"), None):
                raise ValueError(f"the folder {self.folder} holds parts, and no {file} says who wrote them; empty it, "
                                 "or give another cache=")  # fmt: skip
            write_atomic(told, json.dumps(self.stated, indent=1))
        try:
            there = json.loads(told.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{told} cannot be read ({error}); empty the folder, or give another cache=") from error
        if _nameless(there) != _nameless(self.stated):
            raise ValueError(_other(self.folder, there, self.stated))

    def run(self, order: np.ndarray, work: Callable[[np.ndarray], Mapping[str, Any]], first: float = 0) -> pa.Table:
        """The columns that `work` gives for all rows, in the order of the rows.

        Args:
            order: int64 [N], the rows as they are worked on.
            work: rows int64 [n], a piece of `order`, to columns of n values.
            first: where among the parts to begin, in [0, 1), which spreads processes that begin together.

        Raises:
            ValueError: a part that is there cannot be read, or holds other rows.
        """
        parts = [order[start : start + ROWS_PER_PART] for start in range(0, len(order), ROWS_PER_PART)]
        left = [(int(first * len(parts)) + i) % len(parts) for i in range(len(parts))]
        left = [part for part in left if not self._file(part).is_file()]
        if len(left) < len(parts):
            logger.info("%s: %d of %d parts are there already", self.folder, len(parts) - len(left), len(parts))
        while left:
            before = len(left)
            left = [part for part in left if not self._done(part, parts[part], work)]
            if len(left) == before:  # others are at them
                time.sleep(_PAUSE)
        table = pa.concat_tables([self._read(part, rows) for part, rows in enumerate(parts)])
        return table.take(pa.array(np.argsort(order))).drop_columns([_ROW])

    def _file(self, part: int) -> Path:
        return self.folder / f"part-{part:06d}.parquet"

    def _done(self, part: int, rows: np.ndarray, work: Callable[[np.ndarray], Mapping[str, list]]) -> bool:
        """Do a part unless it is there or somebody else is at it; whether it is there now."""
        from filelock import FileLock, Timeout

        file = self._file(part)
        if file.is_file():
            return True
        try:
            with FileLock(self.folder / f".part-{part:06d}.lock").acquire(timeout=0):
                if not file.is_file():
                    table = pa.table({_ROW: pa.array(rows), **work(rows)})
                    with replaced_whole(file) as unfinished:
                        pq.write_table(table, unfinished)
        except Timeout:
            return False
        return True

    def _read(self, part: int, rows: np.ndarray) -> pa.Table:
        file = self._file(part)
        try:
            table = pq.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{file} cannot be read ({error}); remove it, and it will be made again") from error
        if _ROW not in table.column_names or not np.array_equal(table[_ROW].to_numpy(), rows):
            raise ValueError(f"{file} holds other rows than it was made for; remove it, and it will be made again")
        return table


def _nameless(stated: Any) -> Any:
    """Without the place of the teacher, which may be moved."""
    teacher = stated.get("teacher") if isinstance(stated, Mapping) else None
    return {**stated, "teacher": {**teacher, "name": ""}} if isinstance(teacher, Mapping) else stated


def _other(folder: Path, there: Any, stated: Mapping[str, Any]) -> str:
    """Why what is in a folder is not what is wanted, in words."""
    wrote = there.get("teacher") if isinstance(there, Mapping) else None
    if not isinstance(wrote, Mapping):
        return f"the folder {folder} holds something else than what a teacher wrote; give another cache="
    own = stated["teacher"]
    if differs := [key for key in own if key != "name" and wrote.get(key) != own[key]]:
        named = "; ".join(f"{key} {wrote.get(key)!r:.100}, not {own[key]!r:.100}" for key in differs)
        return (f"the folder {folder} holds what another teacher wrote, {wrote.get('name')!r} ({named}); give another "
                "cache=, or that teacher")  # fmt: skip
    differs = ", ".join(key for key in sorted({*there, *stated} - {"teacher"}) if there.get(key) != stated.get(key))
    return (f"the folder {folder} holds what the same teacher wrote for other rows or settings ({differs}); give "
            "another cache=")  # fmt: skip
