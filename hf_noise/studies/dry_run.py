"""What `--dry_run` shows: the settings, what follows from them, the data, and what the whole will take."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import SaveStrategy

from hf_noise.noise.schedule import Plan
from hf_noise.studies.engine import Job, world_of
from hf_noise.studies.launch import bytes_needed, check_disk
from hf_noise.studies.study import Study

__all__ = ["look"]

WARM_UP, TIMED = 2, 5
LONGEST = 8.0  # seconds, after which two steps have to do
# On a processor, a step of more weights takes longer than a dry run should.
LARGEST_ON_CPU = 50_000_000


def look(study: Study, settings: Any) -> None:
    """Print settings with their real values; then the data; then steps and noise of each run, time and disk.

    What cannot be read is refused as it would be by a run. Data on the Hub are not downloaded; steps that depend on the
    number of their rows are then not told either. Where the model alone is there, the data are looked at all the same.
    """
    print(json.dumps(asdict(settings), indent=2), flush=True)
    elsewhere = study.elsewhere(settings)
    has_rows = elsewhere is None or study.has_rows(settings)
    runs, plans, rows = study.planned(settings) if has_rows or study.knows_rows(settings) else ([], [], None)
    if elsewhere is not None:
        if has_rows:
            _say(study.work.describe_rows(settings, runs))
            what = f"model: {elsewhere}"
        else:
            what = f"data: {elsewhere}"
        _say(_planned_lines(study, settings, runs, plans, rows))
        print(f"{what} on the Hub, which a run downloads; a dry run looks at what is on this machine")
        return
    with tempfile.TemporaryDirectory(prefix="hf_noise-dry-run-") as folder:
        args = world_of(replace(settings, output=folder))
        data = study.work.load(settings, args, runs, is_trial=True)
        _say(study.work.describe(settings, data))
        _say(_planned_lines(study, settings, runs, plans, rows))
        jobs = [Job(study, settings, run, plan, Path(folder) / run.name, data, run.name, is_trial=True)
                for run, plan in zip(runs, plans)]  # fmt: skip
        # What runs need first is trained first, once.
        helpers = {job.folder.name: job for one in jobs for job in study.work.helpers(one)}
        _say(costs([*helpers.values(), *jobs], settings.output))


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)  # a pipe too shows it now, and not after all that takes long


def _planned_lines(
    study: Study, settings: Any, runs: Sequence[Any], plans: Sequence[Plan], rows: int | None
) -> Iterator[str]:
    """What each run is, in a line."""
    for run, plan in zip(runs, plans):
        # The rate of human labels stands in the data.
        rate = "that of the labels" if run.ratio is None else f"{plan.error_rate:.4f}"
        exposure = "1 - e" if run.ratio is None else f"{plan.exposure:.3f}"
        yield (f"{run.name}: e = {rate}, {plan.steps:,} steps x {plan.batch_size} "
               f"{study.derived(settings, plan, rows)}, clean exposure {exposure}")  # fmt: skip


def costs(jobs: Sequence[Job], output: str) -> list[str]:
    """Time and disk of all runs, from a few steps of one of each kind of network and loss.

    Raises OSError: the disk is too small for the checkpoints of one run.
    """
    seconds, needed, timed = 0.0, 0, {}
    for job in tqdm(jobs, desc="a few steps of each kind of run", unit="run", leave=False):
        run = job.run
        kind = (job.study.package, getattr(run, "loss", None), getattr(run, "transition", None), run.ratio == 0,
                getattr(run, "kind", None), job.plan.batch_size)  # fmt: skip
        if kind not in timed:
            trainer = replace(job, plan=replace(job.plan, steps=WARM_UP + TIMED)).build()
            weights = trainer.num_weights
            check_disk(output, trainer.num_saved, job.study.copies)
            timed[kind] = (time_of_step(trainer, weights), bytes_needed(trainer.num_saved, job.study.copies))
        step, size = timed[kind]
        seconds = None if step is None or seconds is None else seconds + step * job.plan.steps
        needed += size
    disk = f"disk: at most {needed / 2**30:.2f} GiB in {output}, checkpoints included"
    if seconds is None:
        return [f"time: not measured, {weights / 1e6:.0f} M weights are too many for this processor; try it where it "
                "will be trained", disk]  # fmt: skip
    each = ", ".join(f"{1000 * step:.0f} ms" for step, _ in timed.values())
    return [f"time: about {in_words(seconds)} of training here, without measurements (a step takes {each})", disk]


def time_of_step(trainer: Trainer, weights: int) -> float | None:
    """Seconds of an optimiser step, None where that would take too long to find out."""
    if trainer.args.device.type == "cpu" and weights > LARGEST_ON_CPU:
        return None
    clock, trainer.args.save_strategy = _Clock(), SaveStrategy.NO
    trainer.add_callback(clock)
    trainer.train()
    first = min(WARM_UP, len(clock.ends) - 1)
    return (clock.ends[-1] - clock.ends[first - 1]) / (len(clock.ends) - first)


class _Clock(TrainerCallback):
    """Looks at the clock at the end of each step."""

    def __init__(self):
        self.begin, self.ends = time.perf_counter(), []

    def on_step_end(self, args, state, control, **kwargs):
        if args.device.type == "cuda":
            torch.cuda.synchronize(args.device)
        self.ends.append(time.perf_counter())
        if len(self.ends) > 1 and self.ends[-1] - self.begin > LONGEST:
            control.should_training_stop = True


def in_words(seconds: float) -> str:
    """A duration in the unit that fits it."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
