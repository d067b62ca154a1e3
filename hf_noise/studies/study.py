"""What a study consists of, and how it is run as a command; the engine is loaded when there is work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

from hf_noise.noise.schedule import Plan, Schedule
from hf_noise.studies.settings import StudySettings, parse

__all__ = ["Run", "Study", "deciding", "identity", "most_compute", "planned", "steps_of"]

_MANY = 10_000  # steps by which compute is compared, so that rounding does not count


class Run(Protocol):
    """One setting of a study, a frozen dataclass; `ratio` is None where the noise in the data has the rate it has.

    It may have `ignores`, names of settings that only other runs of the study depend on, and without noise
    `compute_of`, the ratio whose steps and batch it gets.
    """

    ratio: float | None
    seed: int

    @property
    def name(self) -> str:
        """That of its folder."""


@dataclass(frozen=True)
class Study:
    """What a study consists of, in the order in which it is used.

    Two modules of its package are imported when there is work. `run` has

    - `load(settings, args, runs, is_trial=False) -> data`: what all runs share, read once; refuses what any of the
      runs would refuse, and trains nothing in a trial,
    - `describe(settings, data) -> lines`: what the data are, for a dry run,
    - `build(job) -> Trainer`: the trainer of one run,
    - `helpers(job) -> jobs`: what is trained before it, beside what the settings list,
    - `finish(job, trainer) -> parts`: measures, on all processes; what the record says, see `RunRecord`,

    and `report` has `show(records, settings, runs) -> str`, the table, which draws the figure too.
    """

    package: str
    recipe: str
    task: str
    description: str
    settings: type[StudySettings]
    #: The runs of a study from its settings.
    runs: Callable[[Any], Sequence[Any]]
    #: Steps and batch of a run, from settings, run, and the number of training rows.
    plan: Callable[[Any, Any, int | None], Plan]
    #: The number of training rows, without reading any where it is known; None where no plan depends on it.
    rows: Callable[[Any], int | None] = lambda settings: None
    #: Whether that number, or the plans without it, are known before any data are read.
    knows_rows: Callable[[Any], bool] = lambda settings: True
    #: Name of the data on the Hub, None where they are on this machine; only a run downloads.
    elsewhere: Callable[[Any], str | None] = lambda settings: None
    #: Whether the data are on this machine although `elsewhere` names something, so a model; `run` then has
    #: `describe_rows(settings, runs) -> lines`, of the data alone.
    has_rows: Callable[[Any], bool] = lambda settings: False
    #: What follows from a plan, in words, from settings, plan and rows.
    derived: Callable[[Any, Plan, int | None], str] = lambda settings, plan, rows: "rows"
    #: How often the weights are on the disk at one time.
    copies: int = 3

    @property
    def work(self) -> ModuleType:
        return import_module(f"{self.package}.run")

    @property
    def report(self) -> ModuleType:
        return import_module(f"{self.package}.report")

    def parse(self, argv: Sequence[str] | None = None) -> Any:
        """Settings from a command line, see `hf_noise.studies.settings.parse`."""
        return parse(self.settings, argv, self.description)

    def planned(self, settings: Any) -> tuple[list[Any], list[Plan], int | None]:
        """The runs, steps and batch of each, and the number of training rows where that decides them."""
        runs, rows = list(self.runs(settings)), self.rows(settings)
        return runs, [self.plan(settings, run, rows) for run in runs], rows

    def main(self, argv: Sequence[str] | None = None) -> None:
        """The study as a command: its settings, then a look at what they mean, or the runs and their table."""
        settings = self.parse(argv)
        if settings.dry_run:
            from hf_noise.studies.dry_run import look

            look(self, settings)
            return
        runs, plans, _ = self.planned(settings)
        from hf_noise.reports.record import RunRecord, read_records
        from hf_noise.studies.engine import train

        if train(self, settings, runs, plans):
            # Those of earlier commands with this output too; data sets may have been written there as well.
            records = [one for one in read_records(settings.output) if isinstance(one, RunRecord)]
            print(self.report.show(records, settings, runs))


def steps_of(epochs: float, rows: int, batch_size: int) -> int:
    """Optimiser steps of so many passes over the rows."""
    return max(1, round(epochs * rows / batch_size))


def most_compute(schedule: Schedule, ratios: Iterable[float], batch_size: int) -> float | None:
    """The ratio whose run takes most, None if none takes more than the run without noise."""
    found = {0.0: 1.0}
    for ratio in ratios:
        with suppress(ValueError):  # a ratio that the schedule does not know is refused with its own run
            plan = schedule.plan(ratio, steps=_MANY, batch_size=batch_size)
            found[ratio] = plan.sequences / (_MANY * batch_size)
    most = max(found, key=found.__getitem__)
    return most if found[most] > 1.001 else None


def planned(schedule: Schedule, run: Run, *, steps: int, batch_size: int) -> Plan:
    """Steps and batch of a run; human labels, whose rate is what it is, get what the run without noise gets."""
    if (compute_of := getattr(run, "compute_of", None)) is not None:
        return replace(schedule.plan(compute_of, steps=steps, batch_size=batch_size), ratio=0.0)
    return schedule.plan(run.ratio or 0.0, steps=steps, batch_size=batch_size)


def deciding(settings: Any, ignores: Iterable[str] = ()) -> dict[str, Any]:
    """The settings that a result depends on as they stand, without those that this run ignores."""
    ignored = {one.name for one in fields(settings) if not one.metadata["in_result"]} | {*ignores}
    ignored |= {one.name for one in fields(settings) if one.metadata["is_later"] and not getattr(settings, one.name)}
    return {name: value for name, value in asdict(settings).items() if name not in ignored}


def identity(settings: Any, run: Any) -> dict[str, Any]:
    """All that the result of a run depends on, with the run's own values; without noise every plan is the same."""
    is_plain = run.ratio == 0 and getattr(run, "compute_of", None) is None
    return deciding(settings, getattr(run, "ignores", ())) | asdict(run) | ({"plan": "any"} if is_plain else {})
