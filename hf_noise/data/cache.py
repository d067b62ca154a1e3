"""The package's own cache: folders that several processes may build at once and that are whole or absent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["cache_root", "build_once"]


def cache_root() -> Path:
    """Root of hf_noise's own files: the environment variable HF_NOISE_CACHE, else `~/.cache/hf_noise`."""
    return Path(os.environ.get("HF_NOISE_CACHE") or "~/.cache/hf_noise").expanduser()


def build_once(relative: str, build: Callable[[Path], None]) -> Path:
    """The cached folder `relative`, made by `build(empty_folder)` if it is not there.

    `build` writes into a temporary folder beside the final one, which then takes its name in one step. Processes that
    start together each build their own copy; the first to finish wins and the others use its result, so `build` has
    to be deterministic. A build that fails leaves nothing behind.
    """
    final = cache_root() / relative
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
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
