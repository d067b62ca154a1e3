"""Whose an output folder is: one process at a time uses it, and one run's settings belong to it."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hf_noise.atomic import sweep_temporaries, write_atomic

try:
    import fcntl
except ImportError:  # no Unix
    fcntl = None

__all__ = ["LOCK_FILE", "claim_folder", "claimed", "is_claimed", "locked", "refuse_other", "release_folder"]

logger = logging.getLogger(__name__)

_SETTINGS = "run.json"
#: In a folder while a process uses it. Trainer.push_to_hub leaves out what begins with "_".
LOCK_FILE = "_hf_noise.lock"
# What systems of files without locks answer.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class _Held:
    """Locks of this process: real path of the folder -> [file descriptor, number of users]."""

    guard = threading.RLock()
    folders: dict[str, list[int]] = {}

    @classmethod
    def forget(cls) -> None:
        """A forked child, such as a DataLoader's worker, must not keep its dead parent's folder in use."""
        cls.guard = threading.RLock()
        for descriptor, _ in cls.folders.values():
            os.close(descriptor)
        cls.folders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Held.forget)


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Use a folder, which is made if it does not exist, as the only process; call it on one process of a run.

    The same process may do so again within, as a trainer does within a recipe. What killed processes left half-written
    is swept. The operating system takes the lock from a process that ends, however it ends (`kill -9` too), so nothing
    has to be tidied by hand. Other machines are kept out as far as the file system shares locks (NFS does, Lustre when
    it is mounted with `flock`); where it has none, a warning says so and nobody is kept out.

    Raises:
        BlockingIOError: the folder is in use; the message says by which process.
    """
    folder = Path(folder)
    with _Held.guard:
        folder.mkdir(parents=True, exist_ok=True)
        key = os.path.realpath(folder)
        held = key in _Held.folders
        if not held and (descriptor := _lock(folder)) is not None:
            _Held.folders[key] = [descriptor, 0]
        if entry := _Held.folders.get(key):
            entry[1] += 1
    try:
        if not held:
            sweep_temporaries(folder)
        yield
    finally:
        with _Held.guard:
            # In a child that was forked within, the entry is the parent's and gone.
            if entry and _Held.folders.get(key) is entry:
                entry[1] -= 1
                if not entry[1]:
                    del _Held.folders[key]
                    # Removed while it is held, so that nobody's file is: `_lock` looks whether it got the one in place.
                    (folder / LOCK_FILE).unlink(missing_ok=True)
                    os.close(entry[0])


def _lock(folder: Path) -> int | None:
    """Descriptor of the locked file, None where the file system has no locks."""
    file = folder / LOCK_FILE
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "this system has no locks of files")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                    told = {"process": os.getpid(), "machine": platform.node()}
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, json.dumps(told).encode())
                    return descriptor
            os.close(descriptor)  # its holder removed the file after it was opened here
        except BlockingIOError:
            holder = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            raise BlockingIOError(
                f"{folder} is in use by {_named(holder)}; wait until it has ended, or choose another folder"
            ) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            file.unlink(missing_ok=True)
            logger.warning("%s cannot be locked (%s): see to it that no other process uses it", folder, error.strerror)
            return None


def _named(holder: bytes) -> str:
    try:
        told = json.loads(holder)
        here = told["machine"] == platform.node()
        return f"process {told['process']} on {'this machine' if here else told['machine']}"
    except (ValueError, KeyError, TypeError):  # it has just begun and not written yet
        return "another process"


@contextmanager
def claimed(folder: str | Path, settings: Mapping[str, Any], *, is_main: bool = True) -> Iterator[None]:
    """Use a folder for the run with these settings: `locked` and `claim_folder`.

    A claim is given back if the run breaks off before anything was written, so that it blocks no other.

    Args:
        is_main: whether this is the process of a run that claims; the others do nothing.
    """
    if not is_main:
        yield
        return
    folder, is_void = Path(folder), False
    try:
        with locked(folder):
            claim_folder(folder, settings)
            try:
                yield
            except BaseException:
                is_void = release_folder(folder)
                raise
    finally:
        if is_void:
            with suppress(OSError):  # somebody else has come in
                folder.rmdir()


def claim_folder(folder: str | Path, settings: Mapping[str, Any]) -> None:
    """Make `folder` the one of the run with these settings. Call it on one process, within `locked`.

    Args:
        folder: is made if it does not exist; the settings are kept in it as run.json.
        settings: JSON-able; everything that the result depends on.

    Raises:
        FileExistsError: the folder holds a run with other settings, which are named.
    """
    folder = Path(folder)
    file, ours = folder / _SETTINGS, json.loads(json.dumps(dict(settings)))
    refuse_other(folder, dict.fromkeys(_claim(folder) or ()) | ours)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(ours, indent=2) + "\n")


def refuse_other(folder: str | Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder whose run has other values of these settings, of which `claim_folder` may be told more later.

    Raises:
        FileExistsError: it has; they are named.
    """
    theirs, ours = _claim(folder), json.loads(json.dumps(dict(settings)))
    if theirs is not None and (changed := sorted(name for name in ours if theirs.get(name) != ours[name])):
        raise FileExistsError(
            f"{folder} holds a run with other settings ({', '.join(changed)}); delete it or choose another folder"
        )


def is_claimed(folder: str | Path) -> bool:
    """Whether a folder belongs to a run; raises ValueError where that cannot be told."""
    return _claim(folder) is not None


def _claim(folder: str | Path) -> dict[str, Any] | None:
    """Settings of the run that a folder belongs to, None if it is free."""
    file = Path(folder) / _SETTINGS
    if not file.is_file():
        return None
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise ValueError(
            f"{file} is damaged, so it cannot be told whose folder this is; delete that file if the folder is this "
            "run's, or choose another folder"
        ) from None


def release_folder(folder: str | Path) -> bool:
    """Undo `claim_folder` where nothing was written since, so that a run that never began blocks no other.

    Returns whether that was so.
    """
    folder = Path(folder)
    is_empty = {path.name for path in folder.glob("*")} - {LOCK_FILE} == {_SETTINGS}
    if is_empty:
        (folder / _SETTINGS).unlink()
    return is_empty
