"""The one way through a study: its runs one after the other, each in a folder of its own, the finished ones skipped."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import ProgressCallback, Trainer, TrainingArguments, set_seed

from hf_noise.hub.card import model_card
from hf_noise.hub.checkpoint import ADAPTER_CONFIG
from hf_noise.hub.push import push_checkpoint
from hf_noise.hub.reading import json_object
from hf_noise.noise.schedule import Plan
from hf_noise.reports.provenance import portable
from hf_noise.reports.record import RunRecord, write_atomic
from hf_noise.studies.door import Stopped
from hf_noise.studies.launch import check_disk, check_world, split_batch, take_back_cores, training_world
from hf_noise.studies.progress import FigureProgress
from hf_noise.studies.study import Study, identity
from hf_noise.trainers.folders import claimed
from hf_noise.trainers.resuming import AUTO

__all__ = ["Job", "make", "train", "with_interval", "world_of"]

CHECKPOINTS_KEPT = 2

# Settings of any study and what they are called in TrainingArguments.
_ARGUMENTS = {
    "learning_rate": "learning_rate", "warmup": "warmup_steps", "weight_decay": "weight_decay",
    "schedule": "lr_scheduler_type", "max_grad_norm": "max_grad_norm", "label_smoothing": "label_smoothing_factor",
    "bf16": "bf16", "fp16": "fp16", "tf32": "tf32", "torch_compile": "torch_compile",
    "logging_steps": "logging_steps", "save_steps": "save_steps",
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One run of a study, and all that it takes to make it."""

    study: Study
    settings: Any
    run: Any
    plan: Plan
    folder: Path
    data: Any
    title: str
    #: Whether it is only looked at: nothing that it needs is trained, and nothing is written that stays.
    is_trial: bool = False
    started: float = field(default_factory=time.perf_counter)

    def arguments(self, rows: int | None, **own: Any) -> TrainingArguments:
        """What the settings say to `transformers.Trainer`, after which all random numbers are those of the run's seed.

        Args:
            rows: of training data, None for a stream.
            own: arguments of this study.
        """
        on_cpu = not torch.cuda.is_available()
        rows_per_pass, passes = split_batch(self.plan.batch_size, training_world(), self.settings.micro_batch)
        told = {theirs: getattr(self.settings, ours) for ours, theirs in _ARGUMENTS.items()
                if hasattr(self.settings, ours)}  # fmt: skip
        told |= dict(
            output_dir=str(self.folder), max_steps=self.plan.steps, per_device_train_batch_size=rows_per_pass,
            gradient_accumulation_steps=passes, per_device_eval_batch_size=self.settings.micro_batch,
            save_total_limit=CHECKPOINTS_KEPT, use_cpu=on_cpu, dataloader_pin_memory=not on_cpu, report_to="none",
            seed=self.run.seed,
            # The last, smaller batch of an epoch would be filled up with other rows on other numbers of processes.
            dataloader_drop_last=rows is not None and rows >= self.plan.batch_size,
        )  # fmt: skip
        args = TrainingArguments(**told | own)
        set_seed(self.run.seed)
        return args

    def build(self) -> Trainer:
        """The trainer, with a bar that carries the figures of the log. Raises OSError: the disk is too small for it."""
        trainer = self.study.work.build(self)
        trainer.remove_callback(ProgressCallback)
        if not self.is_trial:
            check_disk(self.folder, trainer.num_saved, self.study.copies)
            trainer.add_callback(FigureProgress(self.title))
        return trainer

    def write(self, parts: dict[str, Any]) -> None:
        """Card and record; the record comes last, because a folder that has one counts as finished."""
        if (compute_of := getattr(self.run, "compute_of", None)) is not None:
            parts["budget"]["compute_of"] = compute_of
        record = RunRecord(
            name=self.folder.name, task=self.study.task, recipe=self.study.recipe, seed=self.run.seed,
            settings=asdict(self.settings), wall_seconds=time.perf_counter() - self.started, **parts,
        )  # fmt: skip
        place, adapter = portable(str(self.folder)), self.folder / ADAPTER_CONFIG
        config = json_object(adapter) if adapter.is_file() else None
        write_atomic(self.folder / "README.md", str(model_card(record, repo_id=place, adapter=config)))
        record.write(self.folder / "record.json")


def make(job: Job) -> Trainer:
    """Train one run, going on from its last checkpoint if it has one, measure it, and write record and card."""
    trainer = job.build()
    trainer.train(resume_from_checkpoint=AUTO)
    parts = job.study.work.finish(job, trainer)
    trainer.save_model()
    if trainer.is_world_process_zero():
        job.write(parts)
    trainer.accelerator.wait_for_everyone()
    return trainer


def train(study: Study, settings: Any, runs: Sequence[Any], plans: Sequence[Plan], data: Any = None) -> bool:
    """Make all runs that are not finished, then push what is to be pushed; returns whether this is the main process.

    Args:
        data: what the study would load, if it is there already.
    """
    args = world_of(settings)
    for plan in plans:
        split_batch(plan.batch_size, args.world_size, settings.micro_batch)  # refuses now what would fail hours later
    for number, (run, plan) in enumerate(zip(runs, plans), 1):
        folder, title = Path(settings.output) / run.name, f"[{number}/{len(runs)}] {run.name}"
        with claimed(folder, identity(settings, run), is_main=args.process_index == 0), stopped_in(title, settings):
            Accelerator().wait_for_everyone()
            if (folder / "record.json").exists():
                continue
            data = data or study.work.load(settings, args, runs)
            make(Job(study, settings, run, plan, folder, data, title))
        gc.collect()
        torch._dynamo.reset()  # each run compiles a model of its own, and the number of versions kept is limited
    if settings.push_to_hub and args.process_index == 0:
        for run in runs:
            repo = settings.push_to_hub if len(runs) == 1 else f"{settings.push_to_hub}-{run.name}"
            push_checkpoint(Path(settings.output) / run.name, repo, private=settings.private or None)
    return args.process_index == 0


@contextmanager
def stopped_in(title: str, settings: Any) -> Iterator[None]:
    """Let Ctrl-C say which run it ended."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Stopped(f"in {title} of {settings.output}") from error


def world_of(settings: Any) -> TrainingArguments:
    """Arguments that know the processes of this study, of which each has its share of the cores.

    Raises RuntimeError: there are fewer than asked for, see `check_world`.
    """
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        take_back_cores()
    args = TrainingArguments(output_dir=settings.output, use_cpu=on_cpu, report_to="none")
    check_world(args, settings.num_processes)
    return args


def with_interval(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A record's entry for a share that `hf_noise.metrics` found among so many images."""
    return {"value": found[name]} | {key: found[key] for key in ("low", "high", "n")}
