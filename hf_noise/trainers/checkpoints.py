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

__all__ = [
    "claim_folder", "discard_incomplete", "is_complete", "last_complete_checkpoint", "refuse_other", "release_folder",
]  # fmt: skip

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
    refuse_other(folder, dict.fromkeys(_claim(folder) or ()) | ours)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(ours, indent=2) + "\n")
    discard_incomplete(folder)


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


def _claim(folder: str | Path) -> dict[str, Any] | None:
    """Settings of the run that a folder belongs to, None if it is free."""
    file = Path(folder) / _SETTINGS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def release_folder(folder: str | Path) -> None:
    """Undo `claim_folder` where nothing was written since, so that a run that never began blocks no other."""
    folder = Path(folder)
    if [path.name for path in folder.glob("*")] == [_SETTINGS]:
        (folder / _SETTINGS).unlink()
        folder.rmdir()
