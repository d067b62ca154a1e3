"""The package's own cache: folders that several processes may build at once and that are whole or absent."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["cache_root", "build_once"]


def cache_root() -> Path:
    """Root of hf_noise's own files: embedded data, features, teachers and what they wrote.

    The environment variable HF_NOISE_CACHE; else `hf_noise` in the folder HF_HOME, where the caches of Hugging Face's
    libraries are; else `hf_noise` in that of XDG_CACHE_HOME, which is `~/.cache` if it is not set.
    """
    if given := os.environ.get("HF_NOISE_CACHE"):
        return Path(given).expanduser()
    above = os.environ.get("HF_HOME") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expandvars(above)).expanduser() / "hf_noise"


def build_once(relative: str, build: Callable[[Path], None]) -> Path:
    """The cached folder `relative`, made by `build(empty_folder)` if it is not there.

    `build` writes into a temporary folder beside the final one, which then takes its name in one step. Processes that
    start together each build their own copy; the first to finish wins and the others use its result, so `build` has
    to be deterministic. A build that fails leaves nothing behind; what a process left that was killed, the next build
    beside it on that machine removes.
    """
    final = cache_root() / relative
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}-{_machine()}-{os.getpid()}-", dir=final.parent))
    try:
        build(temporary)
        # mkdtemp makes folders for the owner only; a shared cache follows its parent instead.
        temporary.chmod(final.parent.stat().st_mode & 0o777)
        try:
            os.replace(temporary, final)
        except OSError:
            # A folder cannot replace a filled one: somebody else was first. Anything else is a real failure.
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _sweep(folder: Path) -> None:
    """Remove temporary folders of processes that are no more; those of living ones and of other machines stay."""
    owner = re.compile(rf"\..*-{re.escape(_machine())}-(\d+)-[^-]*")
    for left in folder.glob(".*"):
        found = owner.fullmatch(left.name)
        if found and not _is_alive(int(found[1])):
            shutil.rmtree(left, ignore_errors=True)


def _machine() -> str:
    """Process numbers mean nothing on another machine, or in another container, with which a cache may be shared."""
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "localhost"


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where the signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):  # no number of a process; one of another user
        return True
    return True
