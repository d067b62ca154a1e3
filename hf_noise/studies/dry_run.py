"""What `--dry_run` shows: the settings, what follows from them, the data, and what the whole will take."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import SaveStrategy

from hf_noise.noise.schedule import Plan
from hf_noise.studies.engine import Job, world_of
from hf_noise.studies.launch import bytes_needed
from hf_noise.studies.study import Study

__all__ = ["look"]

WARM_UP, TIMED = 2, 5
# On a processor, a step of more weights takes longer than a dry run should.
LARGEST_ON_CPU = 50_000_000


def look(study: Study, settings: Any, runs: Sequence[Any], plans: Sequence[Plan], rows: int | None) -> None:
    """Print settings with their real values, steps and noise of each run; then the data, time and disk.

    What cannot be read is refused as it would be by a run, after the part that needs no data.
    """
    print(json.dumps(asdict(settings), indent=2))
    for run, plan in zip(runs, plans):
        # The rate of human labels stands in the data.
        rate = "that of the labels" if run.ratio is None else f"{plan.error_rate:.4f}"
        exposure = "1 - e" if run.ratio is None else f"{plan.exposure:.3f}"
        print(f"{run.name}: e = {rate}, {plan.steps:,} steps x {plan.batch_size} "
              f"{study.derived(settings, plan, rows)}, clean exposure {exposure}", flush=True)  # fmt: skip
    if (name := study.elsewhere(settings)) is not None:
        print(f"data: {name} on the Hub, which a run downloads; a dry run looks at data on this machine (--source)")
        return
    with tempfile.TemporaryDirectory(prefix="hf_noise-dry-run-") as folder:
        args = world_of(replace(settings, output=folder))
        data = study.work.load(settings, args, runs, is_trial=True)
        for line in study.work.describe(settings, data):
            print(line)
        for line in costs(study, settings, runs, plans, data, Path(folder)):
            print(line)


def costs(
    study: Study, settings: Any, runs: Sequence[Any], plans: Sequence[Plan], data: Any, folder: Path
) -> list[str]:
    """Time and disk of all runs, from a few steps of one of each kind of loss."""
    seconds, needed, timed = 0.0, 0, {}
    for run, plan in zip(runs, plans):
        kind = (getattr(run, "loss", None), getattr(run, "transition", None), run.ratio == 0, plan.batch_size)
        if kind not in timed:
            short = replace(plan, steps=WARM_UP + TIMED)
            job = Job(study, settings, run, short, folder / run.name, data, run.name, is_trial=True)
            trainer = job.build()
            weights = sum(p.numel() for p in trainer.model.parameters())
            timed[kind] = (time_of_step(trainer, weights), bytes_needed(weights, study.copies))
        step, size = timed[kind]
        seconds = None if step is None or seconds is None else seconds + step * plan.steps
        needed += size
    disk = f"disk: at most {needed / 2**30:.2f} GiB in {settings.output}, checkpoints included"
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
    return (clock.ends[-1] - clock.ends[WARM_UP - 1]) / (len(clock.ends) - WARM_UP)


class _Clock(TrainerCallback):
    """Looks at the clock at the end of each step."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        if args.device.type == "cuda":
            torch.cuda.synchronize(args.device)
        self.ends.append(time.perf_counter())


def in_words(seconds: float) -> str:
    """A duration in the unit that fits it."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
