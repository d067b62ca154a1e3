"""Who trains a teacher: one run at a time, which the others wait for, and which goes on where a killed one was."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_noise.atomic import write_atomic
from hf_noise.data.teacher_files import TOLD, told_of

__all__ = ["last_checkpoint", "scratch", "scratch_of", "turn_at"]

logger = logging.getLogger(__name__)

_PAUSE = 0.5  # seconds between looks at what others do


def scratch_of(folder: Path) -> Path:
    """Where a teacher is trained, beside the place where it will be."""
    return folder.parent / f".{folder.name}-training"


@contextmanager
def scratch(folder: Path) -> Iterator[str]:
    """`scratch_of` a teacher while it is trained; it stays where that is cut short, so that the next run goes on."""
    yield str(scratch_of(folder))
    if not int(os.environ.get("RANK", 0)):
        shutil.rmtree(scratch_of(folder), ignore_errors=True)


@contextmanager
def turn_at(folder: Path, made_of: str) -> Iterator[bool]:
    """Whether this run has to train the teacher, the same in all its processes; for those that are at it, it waits.

    The system lets go of a lock when its process ends, however it ends.

    Raises:
        ValueError: the folder holds something else.
    """
    from filelock import FileLock

    processes = int(os.environ.get("WORLD_SIZE", 1))
    if processes == 1 and _is_there(folder, made_of):  # also where nothing can be written
        yield False
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        while (found := _of_first(lock, folder, made_of, processes)) is None:
            time.sleep(_PAUSE)
        if isinstance(found, Exception):
            raise found
        yield found
    finally:
        if lock.is_locked and not any(scratch_of(folder).glob("checkpoint-*")):
            shutil.rmtree(scratch_of(folder), ignore_errors=True)
        lock.release()


def _of_first(lock: object, folder: Path, made_of: str, processes: int) -> bool | Exception | None:
    """What the first process finds, for all: None while other runs are at work. They train together, or none does."""
    if processes == 1:
        return _look(lock, folder, made_of)
    import torch
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState(cpu=not torch.cuda.is_available())
    found = [_look(lock, folder, made_of) if state.is_main_process else None]
    return broadcast_object_list(found, from_process=0)[0]


def _look(lock: object, folder: Path, made_of: str) -> bool | Exception | None:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    try:
        if _is_there(folder, made_of):
            return False
        _make_room(scratch_of(folder), made_of)
    except Exception as error:  # the other processes have to hear of it
        return error
    return True


def _is_there(folder: Path, made_of: str) -> bool:
    if not folder.exists() or not any(folder.iterdir() if folder.is_dir() else [folder]):
        return False
    if told_of(folder).get("made_of") != made_of:
        raise ValueError(f"the folder {folder} holds something else than this teacher, or a part of it; give another "
                         "output=, or remove it")  # fmt: skip
    logger.info("the teacher is there already: %s", folder)
    return True


def _make_room(scratch: Path, made_of: str) -> None:
    """Keep what a run that was killed has left of this very teacher, and nothing of another one."""
    if scratch.exists() and told_of(scratch).get("made_of") != made_of:
        shutil.rmtree(scratch)
    scratch.mkdir(exist_ok=True)
    write_atomic(scratch / TOLD, json.dumps({"made_of": made_of}))


def last_checkpoint(scratch: str) -> str | None:
    """The last one that is whole: what says its step is written last."""
    whole = {}
    for folder in Path(scratch).glob("checkpoint-*"):
        step = told_of(folder, "trainer_state.json").get("global_step")
        if isinstance(step, int):
            whole[step] = folder
    if not whole:
        return None
    logger.info("the training of a teacher goes on from step %d", max(whole))
    return str(whole[max(whole)])
