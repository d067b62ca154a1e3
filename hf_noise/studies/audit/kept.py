"""Arrays that are made once: kept in the folder of the study, and made again where what they are of has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hf_noise.atomic import replaced_whole
from hf_noise.data.features import processes_of_run

__all__ = ["kept_array"]

_NAME = "values"


def kept_array(path: Path, key: str, make: Callable[[], np.ndarray], *, is_alone: bool = False) -> np.ndarray:
    """The array of a file whose key is this one; else what `make` gives, which the main process writes there.

    All processes of a run call it, and `make` runs on all of them or on none; or the main one calls it alone.
    """
    found, state = _read(path, key), processes_of_run()
    if not is_alone:
        state.wait_for_everyone()  # before the first of them writes it
    if found is not None:
        return found
    made = make()
    if state.is_main_process:
        from safetensors.numpy import save

        with replaced_whole(path) as unfinished:
            # Not by `save_file`, whose files nobody else may read.
            unfinished.write_bytes(save({_NAME: np.ascontiguousarray(made)}, metadata={"key": key}))
    if not is_alone:
        state.wait_for_everyone()
    return made


def _read(path: Path, key: str) -> np.ndarray | None:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            return file.get_tensor(_NAME) if (file.metadata() or {}).get("key") == key else None
    except (SafetensorError, OSError):  # cut off, or something else
        return None
