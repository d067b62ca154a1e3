"""Makes the cells that are missing, some lanes side by side, and goes on when one fails."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from hf_noise.studies.door import Stopped
from hf_noise.studies.reproduce.board import Board
from hf_noise.studies.reproduce.cells import Cell
from hf_noise.studies.reproduce.plan import Asked, is_there
from hf_noise.studies.reproduce.worker import Worker

__all__ = ["Failure", "log_of", "run", "usual_jobs"]

#: Each of the processes holds its data and model in memory.
_MOST_BY_CORES = 4
#: Between two looks at how far cells are.
_TICK = 0.5  # seconds


@dataclass(frozen=True)
class Failure:
    """A cell that was not made, and why."""

    cell: Cell
    message: str
    log: Path


def log_of(cell: Cell, asked: Asked) -> Path:
    """Where what a cell prints is kept."""
    return asked.output / asked.scale / "logs" / cell.folder.name / f"{cell.name}.log"


def usual_jobs() -> int:
    """How many processes this machine has room for: one for each GPU, or where there is none for each core, up to 4."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return len(_there()) or min(cores, _MOST_BY_CORES)


def run(lanes: Sequence[Sequence[Cell]], asked: Asked, jobs: int = 1) -> list[Failure]:
    """Make the cells that are not there.

    Args:
        lanes: cells in groups, of which one process at a time works on one.
        asked: what the command asks for.
        jobs: how many processes.

    Returns:
        Those that failed, in the order in which they did.

    Raises:
        Stopped: Ctrl-C; it says how far it had come.
    """
    left = [[cell for cell in lane if not is_there(cell, asked)] for lane in lanes]
    left = sorted((lane for lane in left if lane), key=lambda lane: -sum(_seconds(cell, asked) for cell in lane))
    cells = [cell for lane in left for cell in lane]
    board = Board({cell: asked.kept.seconds(cell, asked.scale) for cell in cells}, min(jobs, max(1, len(left))))
    waiting: queue.SimpleQueue[Sequence[Cell]] = queue.SimpleQueue()
    for lane in left:
        waiting.put(lane)
    failures: list[Failure] = []
    workers = [Worker(cores, gpu) for cores, gpu in zip(_shares(board.jobs), _gpus(board.jobs))]
    stopped = threading.Event()
    with board, ThreadPoolExecutor(len(workers)) as pool:
        takers = [pool.submit(_take, worker, waiting, asked, board, failures, stopped) for worker in workers]
        try:
            while wait(takers, _TICK).not_done:
                board.tick()
            for taker in takers:
                taker.result()  # raises what a slip in the code raised there
        except KeyboardInterrupt as error:
            raise Stopped(f"after {board.made} of {len(cells)} cells") from error
        finally:
            stopped.set()
            for worker, taker in zip(workers, takers):
                worker.stop(at_once=not taker.done())
    return failures


def _seconds(cell: Cell, asked: Asked) -> float:
    return asked.kept.seconds(cell, asked.scale) or 60.0


def _take(
    worker: Worker, waiting: queue.SimpleQueue, asked: Asked, board: Board, failures: list[Failure],
    stopped: threading.Event,
) -> None:  # fmt: skip
    """Make the cells of one lane after the other, until there is none."""
    while not stopped.is_set():
        try:
            lane = waiting.get_nowait()
        except queue.Empty:
            return
        for cell in lane:
            if stopped.is_set():
                return
            log = log_of(cell, asked)
            board.started(cell, log)
            message = _refused(cell) or worker.make(cell, log)
            if stopped.is_set():
                return
            if message is not None:
                failures.append(Failure(cell, message, log))
            board.ended(cell, message)


def _refused(cell: Cell) -> str | None:
    """Why a folder cannot be used, before a process is bothered."""
    for part in cell.parts:
        if not part.file.is_file():
            continue
        if names := part.differs:
            return (f"{part.file.parent} holds a run with other settings ({', '.join(names)}); delete it, or give "
                    "another --output")  # fmt: skip
        if not part.is_cut_off and (problem := part.problem) is not None:
            return problem
    return None


def _shares(jobs: int) -> list[list[int] | None]:
    """Cores of each of several processes; of one it is all."""
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return [None] * jobs
    cores = sorted(os.sched_getaffinity(0))
    return [cores[at::jobs] or [cores[at % len(cores)]] for at in range(jobs)]


def _gpus(jobs: int) -> list[str | None]:
    """The GPU of each of several processes, in turn; None where there is none."""
    there = _there()
    return [there[at % len(there)] for at in range(jobs)] if there else [None] * jobs


def _there() -> list[str]:
    """The GPUs of this machine: asked of the driver's own tool, since torch would take hold of them."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [one.strip() for one in given.split(",") if one.strip()]
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True,
                              text=True, timeout=30, check=True)  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split()
