"""What a checkpoint must hold to be whole: names, sizes and SHA-256 of its files, written after all of them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from hf_noise.atomic import fsync_folder, write_atomic

__all__ = ["MANIFEST", "STATE_FILE", "Manifest", "faults", "read_manifest", "write_manifest"]

#: Names in a checkpoint's folder: this manifest, and the exact counts and own parameters of a trainer.
MANIFEST = "hf_noise_manifest.json"
STATE_FILE = "hf_noise_state.safetensors"

_SCHEMA = "hf_noise.checkpoint/1"
# What transformers lays into a checkpoint that it writes on SIGTERM, and takes out again.
_PASSING = {"checkpoint-is-incomplete.txt"}
# A bad sector, a folder in place of a file; any other error of reading may have passed tomorrow.
_DAMAGE = (errno.EIO, errno.EISDIR)
_CHUNK = 1 << 20  # bytes that a thread holds
_THREADS = 4

T = TypeVar("T")


@dataclass(frozen=True)
class Manifest:
    """What stands in a manifest.

    Attributes:
        step: of the optimiser.
        order: the how-many-th checkpoint this is in its run's folder. A run that starts anew in a folder that holds
            later steps of another one is newer than these.
        processes: number of processes that trained.
        is_resumable: whether optimiser, scheduler and random states are there (not with `save_only_model`).
        files: path below the folder -> (size in bytes, SHA-256 in hexadecimal).
    """

    step: int
    order: int
    processes: int
    is_resumable: bool
    files: dict[str, tuple[int, str]]


def write_manifest(folder: str | Path, *, step: int, order: int, processes: int, is_resumable: bool) -> Manifest:
    """Seal a checkpoint: put its files on the disk, then the manifest that names them. Call it on one process."""
    folder = Path(folder)
    files = _files(folder)
    # The disk works on the one while the processor works on the other.
    _, *hashes = _in_threads([lambda: _sync(folder, files), *(lambda path=path: _sha256(path) for path in files)])
    found = {path.relative_to(folder).as_posix(): one for path, one in zip(files, hashes)}
    manifest = Manifest(step, order, processes, is_resumable, found)
    write_atomic(folder / MANIFEST, json.dumps(_to_dict(manifest), indent=1) + "\n")
    fsync_folder(folder.parent)
    return manifest


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a checkpoint.

    Raises:
        FileNotFoundError: it has none.
        ValueError: the manifest itself is damaged.
        RuntimeError: another version of hf_noise wrote it.
    """
    try:
        read = json.loads((Path(folder) / MANIFEST).read_bytes())
        told = read.pop("sha256")
        if told != _digest(read):
            raise ValueError("its content is not what was written")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{MANIFEST} is damaged ({error})") from None
    except OSError as error:
        if error.errno in _DAMAGE:
            raise ValueError(f"{MANIFEST} cannot be read ({error.strerror})") from None
        raise
    if read.pop("schema") != _SCHEMA:
        raise RuntimeError(f"{folder} was written by another version of hf_noise: its {MANIFEST} is not {_SCHEMA}")
    files = {name: (one["size"], one["sha256"]) for name, one in read.pop("files").items()}
    return Manifest(**read, files=files)


def faults(folder: str | Path, manifest: Manifest) -> list[str]:
    """What is wrong with a checkpoint's files, one sentence for each; empty if it is whole.

    Contents are read only if all sizes are right.

    Raises OSError: a file is there and may not be read, which tells nothing about it.
    """
    folder, wrong = Path(folder), []
    for name, (size, _) in manifest.files.items():
        try:
            found = os.stat(folder / name).st_size
        except (FileNotFoundError, NotADirectoryError):
            wrong.append(f"{name} is missing")
            continue
        if found != size:
            wrong.append(f"{name} has {found:,} bytes, {size:,} were written")
    if wrong:
        return wrong
    checks = [lambda name=name, entry=entry: _fault(folder, name, entry) for name, entry in manifest.files.items()]
    return [one for one in _in_threads(checks) if one]


def _fault(folder: Path, name: str, entry: tuple[int, str]) -> str | None:
    try:
        return None if _sha256(folder / name) == entry else f"{name} has other content than was written (SHA-256)"
    except OSError as error:
        if error.errno in _DAMAGE:
            return f"{name} cannot be read ({error.strerror})"
        raise


def _files(folder: Path) -> list[Path]:
    """All files of a checkpoint but its manifest, the largest first."""
    left_out = {folder / MANIFEST, *(folder / name for name in _PASSING)}
    found = [path for path in folder.rglob("*") if path.is_file() and path not in left_out]
    return sorted(found, key=lambda path: (-path.stat().st_size, path))


def _sha256(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file, read in chunks; other threads run meanwhile."""
    digest, size, chunk = hashlib.sha256(), 0, memoryview(bytearray(_CHUNK))
    with open(path, "rb", buffering=0) as file:
        while read := file.readinto(chunk):
            digest.update(chunk[:read])
            size += read
    return size, digest.hexdigest()


def _sync(folder: Path, files: Iterable[Path]) -> None:
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    for path in {folder, *(path for path in folder.rglob("*") if path.is_dir())}:
        fsync_folder(path)


def _in_threads(calls: list[Callable[[], T]]) -> list[T]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda call: call(), calls))


def _to_dict(manifest: Manifest) -> dict:
    """As JSON holds it, with a checksum of its own."""
    files = {name: {"size": size, "sha256": sha256} for name, (size, sha256) in manifest.files.items()}
    told = {"schema": _SCHEMA} | asdict(manifest) | {"files": files}
    return told | {"sha256": _digest(told)}


def _digest(told: dict) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
