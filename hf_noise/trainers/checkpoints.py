"""Find the checkpoint to go on from, and leave no half-written one behind."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hf_noise.reports.record import write_atomic

__all__ = ["claim_folder", "discard_incomplete", "is_complete", "last_complete_checkpoint", "release_folder"]

logger = logging.getLogger(__name__)

_SETTINGS = "run.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def is_complete(checkpoint: str | Path) -> bool:
    """Whether a checkpoint was written to its end: the trainer's state comes last, and what is safetensors opens.

    Weights may also be sharded files of another format, as FSDP writes them.
    """
    folder = Path(checkpoint)
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        for file in folder.glob("*.safetensors"):
            with safe_open(file, framework="np"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return True


def _by_step(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(_CHECKPOINT.fullmatch(path.name)[1]))


def last_complete_checkpoint(folder: str | Path) -> Path | None:
    """The latest complete `checkpoint-<step>` in a run's folder, None if there is none to go on from."""
    return next((path for path in reversed(_by_step(Path(folder))) if is_complete(path)), None)


def discard_incomplete(folder: str | Path) -> list[str]:
    """Delete checkpoints that a killed run left half-written; returns their names. Call it on one process."""
    broken = [path for path in _by_step(Path(folder)) if not is_complete(path)]
    for path in broken:
        logger.warning("%s was not written to its end and is deleted", path)
        shutil.rmtree(path)
    return [path.name for path in broken]


def claim_folder(folder: str | Path, settings: Mapping[str, Any]) -> None:
    """Make `folder` the one of the run with these settings, and tidy what a killed run left. Call it on one process.

    Args:
        folder: is made if it does not exist; the settings are kept in it as run.json.
        settings: JSON-able; everything that the result depends on.

    Raises:
        FileExistsError: the folder holds a run with other settings, which are named.
    """
    folder = Path(folder)
    file, ours = folder / _SETTINGS, json.loads(json.dumps(dict(settings)))
    if file.exists() and (theirs := json.loads(file.read_text(encoding="utf-8"))) != ours:
        changed = sorted(key for key in ours | theirs if ours.get(key) != theirs.get(key))
        raise FileExistsError(
            f"{folder} holds a run with other settings ({', '.join(changed)}); delete it or choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(ours, indent=2) + "\n")
    discard_incomplete(folder)


def release_folder(folder: str | Path) -> None:
    """Undo `claim_folder` where nothing was written since, so that a run that never began blocks no other."""
    folder = Path(folder)
    if [path.name for path in folder.glob("*")] == [_SETTINGS]:
        (folder / _SETTINGS).unlink()
        folder.rmdir()
