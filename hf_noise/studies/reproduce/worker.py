"""A process that makes cells one after the other: what ends it, ends one cell alone."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hf_noise.studies.reproduce.cells import Cell, family
from hf_noise.trainers.folders import locked

__all__ = ["Worker"]

#: Between two looks at whether the command that started a worker is still there.
_LOOK = 1.0  # seconds
#: After which a process that was told to end is killed.
_LONGEST_END = 20.0  # seconds
#: Bars of progress are written to a file, where nobody sees each of their steps.
_BARS = {"TQDM_MININTERVAL": "2"}


class Worker:
    """The process, started when there is a first cell, and anew after one that ended it.

    Args:
        cores: numbers of those that it may use; None: all.
        gpu: the one that it sees, as CUDA_VISIBLE_DEVICES has it; None: what there is.
    """

    def __init__(self, cores: list[int] | None = None, gpu: str | None = None):
        self._cores, self._gpu, self._process, self._connection = cores, gpu, None, None

    def make(self, cell: Cell, log: Path) -> str | None:
        """Make a cell, what it prints goes to a file. Returns what went wrong, or None."""
        if self._process is None or not self._process.is_alive():
            self._start()
        process = self._process
        try:
            self._connection.send((cell, log))
            return self._connection.recv()
        except (EOFError, OSError):
            process.join()
            code, self._process = process.exitcode, None
            how = f"signal {-code}" if code is not None and code < 0 else f"status {code}"
            told = ", which is also what a machine without memory left sends" if code == -9 else ""
            return f"its process ended ({how}{told})"

    def stop(self, *, at_once: bool = False) -> None:
        """End the process: when it has nothing to do, or whatever it does."""
        process = self._process
        if process is None:
            return
        if not at_once:
            self._connection.close()
            process.join(_LONGEST_END)
        process.kill()
        process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # threads and CUDA do not survive a fork
        self._connection, theirs = context.Pipe()
        told = theirs, os.getpid(), self._cores, self._gpu
        self._process = context.Process(target=_work, args=told, daemon=True)
        self._process.start()
        theirs.close()


def _work(connection: Connection, parent: int, cores: list[int] | None, gpu: str | None) -> None:
    """Make what comes, until nothing more does."""
    # One GPU for a process: of several a trainer would make one model that is copied in each step.
    os.environ |= _BARS | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
    # That of processes, which is the default, would be reported as leaked by one that is killed.
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            connection.send(_made(*connection.recv()))


def _end_with(parent: int) -> None:
    """A command that is killed tells nobody; what it started would go on, and keep its folder from the next one."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


def _made(cell: Cell, log: Path) -> str | None:
    try:
        # Before the log is emptied, which another command that makes this cell may be writing.
        with _held({part.file.parent for part in cell.parts}):
            return _made_alone(cell, log)
    except OSError as error:  # in use, or no folder can be made there
        return _told(error)


@contextmanager
def _held(folders: Iterable[Path]) -> Iterator[None]:
    """Use these folders alone; the process of a command that was killed is given the time that it takes to end."""
    end = time.monotonic() + 3 * _LOOK
    while True:
        with ExitStack() as held:
            try:
                for folder in sorted(folders):
                    held.enter_context(locked(folder))
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
            else:
                yield
                return
        time.sleep(_LOOK / 4)


def _made_alone(cell: Cell, log: Path) -> str | None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())  # of libraries in C, too
        try:
            for part in cell.parts:
                if part.is_cut_off:  # for its study a run with a record is finished, whatever is in it
                    print(f"{part.file} was not written to its end and is made again")
                    part.file.unlink()
            of_study = family(cell.study)
            of_study.make(of_study.settings(cell.argv), cell.name)
        except Exception as error:  # noqa: BLE001  (any of them is of this cell alone)
            traceback.print_exc()
            return _told(error)
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
    return None if cell.is_done else "it ended without a record"


def _told(error: Any) -> str:
    message = " ".join(str(error).split())
    return message if isinstance(error, ValueError | OSError) and message else f"{type(error).__name__}: {message}"
