"""What the recipes share: one run after the other, each in a folder of its own, the finished ones skipped."""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import HfArgumentParser, TrainingArguments

from hf_noise.hub.card import model_card
from hf_noise.hub.push import push_checkpoint
from hf_noise.reports.provenance import portable
from hf_noise.reports.record import RunRecord, write_atomic
from hf_noise.studies.launch import check_world, split_batch, take_back_cores
from hf_noise.studies.ranges import check_flags
from hf_noise.trainers.folders import claimed

# Settings that change nothing in a run's result: a study may go on with other values.
NOT_IN_RESULT = ("scale", "output", "seed", "num_processes", "save_steps", "push_to_hub", "private", "dry_run")
CHECKPOINTS_KEPT = 2


def parse_scaled(
    settings: type, scales: dict[str, dict], argv: list[str] | None, description: str, one_or_more: Sequence[str]
) -> tuple[argparse.ArgumentParser, Any]:
    """Settings from a command line, on top of those of its `--scale`, in the ranges that their types say.

    Lists may be empty unless named here.
    """
    parser = HfArgumentParser(settings, description=description)
    told = {action.dest: action.help for action in parser._actions if not _is_negation(action)}
    for action in parser._actions:
        if action.nargs == "+" and action.dest not in one_or_more:
            action.nargs = "*"
        if _is_negation(action):  # which is made with the help of what it negates
            action.help, action.default = f"not: {told[action.dest]}", argparse.SUPPRESS
    scale = parser.parse_known_args(argv)[0].scale
    parser.set_defaults(**scales[scale])
    parsed, unknown = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if unknown:
        parser.error(f"no flag takes {' '.join(unknown)}")
    check_flags(parser, parsed, settings)
    for name in one_or_more:
        if not getattr(parsed, name):
            parser.error(f"--{name} is empty: nothing would be done")
    return parser, parsed


def _is_negation(action: argparse.Action) -> bool:
    return action.option_strings[:1] in ([f"--no_{action.dest}"], [f"--no-{action.dest}"])


def check_model(parser: argparse.ArgumentParser, flag: str, name: str | None) -> None:
    """Stop at a model that is no folder and cannot be a repository either, before anything is trained."""
    if name is not None and not may_be_read(name):
        parser.error(f"--{flag} {name}: there is no such folder; give that of a checkpoint, or owner/name on the Hub")


def may_be_read(name: str) -> bool:
    """Whether this is a folder, or can be a repository on the Hub."""
    if Path(name).is_dir():
        return True
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


@contextmanager
def reading(what: str, name: str) -> Iterator[None]:
    """Say which model could not be read, and that its name was taken for one on the Hub if it is no folder."""
    try:
        yield
    except OSError as error:
        place = "cannot be read" if Path(name).is_dir() else "is no folder here and cannot be read from the Hub"
        raise OSError(f"{what} {name} {place}: {error}") from error


def print_plans(settings: Any, runs: Sequence[Any], plans: Sequence[Any], derived: Callable[[Any], str]) -> None:
    """What `--dry_run` shows: the settings, then for each run what follows from them."""
    print(json.dumps(asdict(settings), indent=2))
    for run, plan in zip(runs, plans):
        # The rate of human labels stands in the data, which a dry run does not read.
        rate = "that of the labels" if run.ratio is None else f"{plan.error_rate:.4f}"
        exposure = "1 - e" if run.ratio is None else f"{plan.exposure:.3f}"
        print(f"{run.name}: e = {rate}, {plan.steps:,} steps x {plan.batch_size} {derived(plan)}, "
              f"clean exposure {exposure}")  # fmt: skip


def run_all(
    settings: Any,
    runs: Sequence[Any],
    plans: Sequence[Any],
    *,
    load: Callable[[Any, TrainingArguments], Any],
    make: Callable[[Any, Any, Any, Path, Any, bool, str], None],
    left_out: Sequence[str],
) -> bool:
    """Make all runs that are not finished, then push what is to be pushed; returns whether this is the main process.

    Args:
        load: the data, from settings and arguments that know the world; called when the first run needs them.
        make: trains and records one run: (settings, run, plan, folder, data, on_cpu, title).
        left_out: settings that a run's result does not depend on, besides those of every recipe; a folder with a run
            of other settings is not touched.
    """
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        take_back_cores()
    args = TrainingArguments(output_dir=settings.output, use_cpu=on_cpu, report_to="none")
    check_world(args, settings.num_processes)
    for plan in plans:
        split_batch(plan.batch_size, args.world_size, settings.micro_batch)  # refuses now what would fail hours later
    data = None
    for number, (run, plan) in enumerate(zip(runs, plans), 1):
        folder = Path(settings.output) / run.name
        with claimed(folder, identity(settings, run, left_out), is_main=args.process_index == 0):
            Accelerator().wait_for_everyone()
            if (folder / "record.json").exists():
                continue
            data = data or load(settings, args)
            make(settings, run, plan, folder, data, on_cpu, f"[{number}/{len(runs)}] {run.name}")
        gc.collect()
        torch._dynamo.reset()  # each run compiles a model of its own, and the number of versions kept is limited
    if getattr(settings, "push_to_hub", None) and args.process_index == 0:
        for run in runs:
            repo = settings.push_to_hub if len(runs) == 1 else f"{settings.push_to_hub}-{run.name}"
            push_checkpoint(Path(settings.output) / run.name, repo, private=settings.private or None)
    return args.process_index == 0


def identity(settings: Any, run: Any, left_out: Sequence[str]) -> dict:
    """All that the result of a run depends on, with the run's own values; without noise every plan is the same.

    A run may have `ignores`, names of settings that only others of the study depend on.
    """
    ignored = {*NOT_IN_RESULT, *left_out, *getattr(run, "ignores", ())}
    kept = {name: value for name, value in asdict(settings).items() if name not in ignored}
    return kept | asdict(run) | ({"plan": "any"} if run.ratio == 0 else {})


def with_interval(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A record's entry for a share that `hf_noise.metrics` found among so many images."""
    return {"value": found[name]} | {key: found[key] for key in ("low", "high", "n")}


def write_result(record: RunRecord, folder: Path) -> None:
    """Card and record; the record comes last, because a folder that has one counts as finished."""
    write_atomic(folder / "README.md", str(model_card(record, repo_id=portable(str(folder)))))
    record.write(folder / "record.json")
