"""What runs, what is done, and how long it will take: one line that moves on a terminal, else a line for each cell."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TextIO

from tqdm import tqdm

from hf_noise.studies.reproduce.cells import Cell

__all__ = ["Board", "counted", "in_words"]

#: How far a bar of progress is, in what a cell printed.
_BAR = re.compile(rb"(\d+)%\|")
#: Of what a cell took so far, what it takes at least to end: nobody knows when one ends that is late.
_LEAST_LEFT = 0.1
_TAIL = 4096  # bytes of a log in which the latest bar is looked for


class Board:
    """Progress of cells.

    Args:
        expected: cells that will be made, with the seconds that they took elsewhere, None where nobody knows.
        jobs: how many are made at a time.
        file: what it is shown on.
    """

    def __init__(self, expected: Mapping[Cell, float | None], jobs: int, file: TextIO | None = None):
        self.expected, self.jobs, self.file = dict(expected), jobs, file or sys.stderr
        self.made, self._failed = 0, 0
        self._running: dict[Cell, tuple[float, Path]] = {}
        self._took: dict[Cell, float] = {}
        self._ended: set[Cell] = set()
        self._lock = threading.Lock()
        self._bar: tqdm | None = None

    def __enter__(self) -> Board:
        if self.expected and self.file.isatty():
            told = "{n_fmt}/{total_fmt} |{bar:16}| {desc}"
            self._bar = tqdm(total=len(self.expected), bar_format=told, file=self.file, dynamic_ncols=True)
        elif self.expected:
            self._say(f"{counted(len(self.expected))} to make{self._left(', about ')}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def started(self, cell: Cell, log: Path) -> None:
        with self._lock:
            self._running[cell] = time.perf_counter(), log

    def ended(self, cell: Cell, message: str | None) -> None:
        """A cell was made, or failed with this message."""
        with self._lock:
            seconds = time.perf_counter() - self._running.pop(cell)[0]
            self._ended.add(cell)
            if message is None:  # how soon one fails says nothing of how long others take
                self._took[cell] = seconds
            self.made += message is None
            self._failed += message is not None
            done, total = len(self._ended), len(self.expected)
            if self._bar is not None:
                self._bar.update()
            if message is not None:
                self._say(f"[{done}/{total}] {cell.title} failed: {message}")
            elif self._bar is None:
                self._say(f"[{done}/{total}] {cell.title}: {in_words(seconds)}{self._left(', ')}")

    def tick(self) -> None:
        """Show how far the cells are that run."""
        if self._bar is not None:
            with self._lock:
                self._bar.set_description_str(self.line())

    def line(self) -> str:
        """Such as `2 failed, 12 minutes left: language/r1-nll-batch-seed0 40%`."""
        parts = [f"{self._failed} failed"] * (self._failed > 0) + [self._left("").strip()]
        told = [f"{cell.title}{_share(log)}" for cell, (_, log) in self._running.items()]
        return f"{', '.join(filter(None, parts))}: {', '.join(told)}"

    @property
    def seconds_left(self) -> float | None:
        """From what cells took elsewhere, and how fast those made here and those that run are beside that.

        Cells of a folder are made one after the other, however many processes there are. None: nothing is known.
        """
        gone = {cell: time.perf_counter() - begun for cell, (begun, _) in self._running.items()}
        known, speed = [one for one in self.expected.values() if one], self._speed(gone)
        usual = speed * mean(known) if known else mean(self._took.values()) if self._took else None
        if usual is None:
            return None
        left: dict[Path, float] = defaultdict(float)
        for cell, seconds in self.expected.items():
            if cell not in self._ended:
                here = gone.get(cell, 0.0)
                left[cell.folder] += max((speed * seconds if seconds else usual) - here, _LEAST_LEFT * here)
        return max(sum(left.values()) / self.jobs, *left.values()) if left else 0.0

    def _speed(self, gone: Mapping[Cell, float]) -> float:
        """Seconds here for one elsewhere. A cell that still runs counts once it took longer than the others tell."""
        both = [(took, known) for cell, took in self._took.items() if (known := self.expected[cell])]
        speed = _ratio(both)
        return _ratio(both + [(here, known) for cell, here in gone.items()
                              if (known := self.expected[cell]) and here > speed * known])  # fmt: skip

    def _left(self, head: str) -> str:
        seconds = self.seconds_left
        return "" if seconds is None or len(self._ended) == len(self.expected) else f"{head}{in_words(seconds)} left"

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=self.file)
        else:
            print(line, file=self.file, flush=True)


def _ratio(both: Sequence[tuple[float, float]]) -> float:
    return sum(here for here, _ in both) / sum(known for _, known in both) if both else 1.0


def _share(log: Path) -> str:
    """How far a cell is, by the last bar that it wrote."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            found = _BAR.findall(file.read())
    except OSError:
        return ""
    return f" {int(found[-1])}%" if found else ""


def counted(cells: int) -> str:
    """Such as `1 cell` and `2 cells`."""
    return f"{cells} cell{'s' * (cells != 1)}"


def in_words(seconds: float) -> str:
    """A duration in the unit that fits it."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
