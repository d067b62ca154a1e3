"""Files that appear whole or not at all, also when the power fails, and what killed processes left of them."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["fsync_folder", "is_alive", "replaced_whole", "sweep_temporaries", "temporary_beside", "write_atomic"]

# name, machine if told, process; see `temporary_beside`.
_TEMPORARY = re.compile(r"\..+?(?:\.(?P<machine>[0-9a-f]{8}))?\.(?P<process>\d+)\.tmp")


@functools.cache
def _machine() -> str:
    """8 hexadecimal digits of this machine's name: the number of a process says nothing on another one."""
    return hashlib.blake2s(platform.node().encode(), digest_size=4).hexdigest()


def temporary_beside(path: str | os.PathLike) -> Path:
    """Where this process writes what is to become `path`: hidden, beside it, with machine and process in its name."""
    path = Path(path)
    return path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.tmp")


@contextmanager
def replaced_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Where to write what becomes `path` when the block ends: readers see the old file or the new one, never a half.

    If the block raises, the old file stays and nothing else does. Content and name are on the disk afterwards; parent
    folders are made.

    >>> with replaced_whole("figure.png") as unfinished:  # doctest: +SKIP
    ...     fig.savefig(unfinished, format="png")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def write_atomic(path: str | os.PathLike, text: str) -> Path:
    """Write UTF-8 text as `replaced_whole` does, and return the path."""
    with replaced_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return Path(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(folder: str | os.PathLike) -> None:
    """Put the names in a folder on the disk: without it a file may be there and its name not, or an old one."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no such call, and keep names by themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def is_alive(process: int) -> bool:
    """Whether a process of this number runs on this machine; one that was killed and not yet waited for does not."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # another system than Linux
        return True
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def sweep_temporaries(folder: str | os.PathLike) -> list[str]:
    """Remove temporary files (`temporary_beside`) whose process is dead from a folder; returns their names.

    What living processes write stays, as does what a process of another machine wrote, whose life cannot be seen, and
    what carries no process in its name. Subfolders are not entered.
    """
    swept = []
    for path in sorted(Path(folder).glob(".*.tmp")):
        owner = _TEMPORARY.fullmatch(path.name)
        if owner and owner["machine"] in (None, _machine()) and not is_alive(int(owner["process"])) and path.is_file():
            path.unlink(missing_ok=True)
            swept.append(path.name)
    return swept
