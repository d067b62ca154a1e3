"""Find the checkpoint to go on from, and leave no half-written one behind."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open

__all__ = ["last_complete_checkpoint", "is_complete", "discard_incomplete"]

logger = logging.getLogger(__name__)

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def is_complete(checkpoint: str | Path) -> bool:
    """Whether a checkpoint was written to its end: the trainer's state comes last, and the weights can be opened."""
    folder = Path(checkpoint)
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        weights = list(folder.glob("*.safetensors"))
        for file in weights:
            with safe_open(file, framework="np"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return any(file.name.startswith(("model", "adapter_model")) for file in weights)


def _by_step(folder: Path) -> list[Path]:
    found = [(int(match[1]), path) for path in folder.glob("checkpoint-*") if (match := _CHECKPOINT.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


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
