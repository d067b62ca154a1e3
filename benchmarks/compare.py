"""Compare ways to do the same thing: interleaved in one process, as ratios, against stated bars.

A machine that is busy, throttles or warms up changes the seconds of everything that runs at the same time, but hardly
the ratio of two things that ran a moment apart. So the variants take turns, every round gives one ratio, and the table
shows the median and quartiles of these.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_noise.reports.record import command_line, git_commit, hardware, now, versions, write_atomic

__all__ = ["Report", "Spread", "arguments", "clock", "interleave", "ratio", "start"]


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: does it run? (no figures)")
    parser.add_argument("--rounds", type=int, help="how often every variant gets its turn")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; 1 measures CPU time, more wall time")
    parser.add_argument("--output", type=Path, help="write all figures to this JSON file")
    return parser


def start(args: argparse.Namespace) -> None:
    """Check and apply what `arguments` parsed."""
    if args.threads < 1 or (args.rounds is not None and args.rounds < 2):
        raise SystemExit(f"--threads must be >= 1 and --rounds >= 2, got {args.threads} and {args.rounds}")
    torch.set_num_threads(args.threads)


def clock() -> float:
    """Seconds. With one thread the CPU time of this process, which other processes on the machine hardly disturb."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


@dataclass(frozen=True)
class Spread:
    """Quartiles of repeated measurements."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Any) -> Spread:
        low, median, high = np.percentile(np.asarray(values, dtype=np.float64), [25, 50, 75])
        return cls(float(median), float(low), float(high), len(values))

    def __str__(self) -> str:
        return f"{self.median:.4g} [{self.low:.4g}, {self.high:.4g}]"


def interleave(
    variants: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    repeats: int = 1,
    timer: Callable[[Callable[[], Any]], float] | None = None,
    after: Callable[[], Any] = lambda: None,
) -> dict[str, np.ndarray]:
    """Seconds [rounds] of each variant, which take turns; every second round goes backwards.

    Args:
        variants: callables by name; each is called once before anything is measured.
        repeats: calls per turn, for what takes microseconds.
        timer: measures one turn and returns seconds per unit of work; by default `clock` around `repeats` calls.
        after: called after each turn, not measured.
    """

    def seconds(variant: Callable[[], Any]) -> float:
        if repeats > 1:
            variant()  # what was collected and run in between has emptied the processor's caches
        started = clock()
        for _ in range(repeats):
            variant()
        return (clock() - started) / repeats

    timer = timer or seconds
    for variant in variants.values():
        variant()
        after()
    measured: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        for name in list(variants)[:: -1 if number % 2 else 1]:
            gc.collect()  # the garbage of the variant before
            measured[name].append(timer(variants[name]))
            after()
    return {name: np.array(values) for name, values in measured.items()}


def ratio(above: np.ndarray, below: np.ndarray) -> Spread:
    """Quartiles of the ratio of two variants, round by round."""
    return Spread.of(above / below)


@dataclass
class Report:
    """Rows of a table, each a figure and the bar it is held to."""

    title: str
    settings: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def equal(self, what: str, agrees: bool, detail: str) -> None:
        """State that two variants do the same; times of things that differ mean nothing, so it stops if they do."""
        if not agrees:
            raise SystemExit(f"{self.title}: {what} differ ({detail}); nothing was timed")
        self._add(what, detail, "equal", True)

    def add(
        self,
        what: str,
        value: float | Spread,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        unit: str = "x",
    ) -> None:
        """Add a figure; without a bar it is there for information. A spread is judged by its median."""
        middle = value.median if isinstance(value, Spread) else value
        bar, passed = "", None
        if at_least is not None:
            bar, passed = f">= {at_least:g}", bool(middle >= at_least)
        if at_most is not None:
            bar, passed = f"<= {at_most:g}", bool(middle <= at_most)
        # A bar between the quartiles is one that another run may judge otherwise.
        limit = at_least if at_least is not None else at_most
        close = limit is not None and isinstance(value, Spread) and value.low <= limit <= value.high
        self._add(what, f"{value:.4g}" if isinstance(value, float) else str(value), bar, passed, unit, value, close)

    def _add(self, what, text, bar, passed, unit="", value=None, close=False) -> None:
        verdict = "" if passed is None else ("PASS" if passed else "FAIL") + (", within the scatter" if close else "")
        figure = asdict(value) if isinstance(value, Spread) else value
        self.rows.append(
            {"what": what, "figure": figure, "text": f"{text} {unit}".strip(), "bar": bar, "passed": passed,
             "close": close}
        )  # fmt: skip
        print(f"  {what}: {self.rows[-1]['text']}{f' (bar {bar})' if bar else ''} {verdict}".rstrip(), flush=True)

    def markdown(self) -> str:
        """The table."""
        lines = ["| what | measured | bar | |", "|---|---|---|---|"]
        for row in self.rows:
            verdict = {None: "", True: "PASS", False: "FAIL"}[row["passed"]] + (" (within the scatter)" * row["close"])
            lines.append(f"| {row['what']} | {row['text']} | {row['bar']} | {verdict} |")
        return "\n".join(lines)

    def finish(self, output: Path | None) -> int:
        """Print the table, write the JSON file; the number of bars that were missed."""
        timed = f"{torch.get_num_threads()} thread(s), {'CPU' if torch.get_num_threads() == 1 else 'wall'} time"
        print(f"\n## {self.title}\n\n{timed}; median [quartiles] over rounds\n\n{self.markdown()}")
        if output is not None:
            record = {
                "title": self.title, "clock": timed, "settings": self.settings, "rows": self.rows,
                "command": command_line(), "versions": versions(), "hardware": hardware(), "git": git_commit(),
                "created": now(),
            }  # fmt: skip
            write_atomic(output, json.dumps(record, indent=2, allow_nan=False) + "\n")
        return sum(row["passed"] is False for row in self.rows)
