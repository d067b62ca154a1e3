"""What a recipe checks and sets before it trains."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from transformers import TrainingArguments

from hf_noise.reports.provenance import available_cores

__all__ = ["check_world", "bytes_needed", "check_disk", "split_batch", "take_back_cores", "training_world"]

# AdamW keeps two moments per weight, all in float32: one checkpoint is the weights three times.
_BYTES_PER_PARAMETER = 12


def training_world() -> int:
    """Number of processes that the launcher started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def take_back_cores() -> int:
    """Give torch this process's share of the cores, and return it.

    `accelerate launch` sets OMP_NUM_THREADS=1 on a machine without a GPU, and a run then uses one core of many.
    """
    share = max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    torch.set_num_threads(share)
    return share


def check_world(args: TrainingArguments, expected: int | None = None) -> None:
    """Stop a run that would train with fewer processes than it was asked to.

    Args:
        args: the run's arguments, whose creation joins the process group.
        expected: number of processes that the user asked the recipe for, None to trust the launcher.

    Raises:
        RuntimeError: the processes do not work together, or there are fewer than expected. Known ways to get there:
            `accelerate launch --cpu --num_processes 2` starts one process, and a process group without `use_cpu=True`
            on a machine without a GPU trains every process alone.
    """
    launched = training_world()
    wanted = expected or launched
    if args.world_size != wanted or launched != wanted:
        raise RuntimeError(
            f"asked for {wanted} processes, the launcher started {launched}, and {args.world_size} train together; "
            "start them with `torchrun --nproc_per_node 2 recipe.py ...` or `accelerate launch --multi_gpu "
            "--num_processes 2 --num_machines 1 --mixed_precision no recipe.py ...` (both also work on a CPU)"
        )


def bytes_needed(parameters: int, checkpoints: int) -> int:
    """Size of so many checkpoints at one time, of so many weights."""
    return parameters * _BYTES_PER_PARAMETER * checkpoints


def check_disk(folder: str | Path, parameters: int, checkpoints: int) -> None:
    """Stop before work starts if the disk cannot hold the checkpoints to come.

    Args:
        folder: where checkpoints go; it need not exist yet.
        parameters: number of weights that a checkpoint holds.
        checkpoints: how many are there at one time, the one being written included.

    Raises:
        OSError: too little space, with the amounts in GiB.
    """
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    needed, free = bytes_needed(parameters, checkpoints), shutil.disk_usage(existing).free
    if needed > free:
        raise OSError(
            f"{checkpoints} checkpoints of {parameters / 1e6:.0f} M weights need {needed / 2**30:.1f} GiB, the disk of "
            f"{folder} has {free / 2**30:.1f} GiB free; make room, or choose another folder with --output"
        )


def split_batch(batch_size: int, world: int, micro_batch: int) -> tuple[int, int]:
    """Divide a batch over processes and forward passes, exactly and in as few passes as fit.

    Args:
        batch_size: rows of an optimiser step, all processes together.
        world: number of processes.
        micro_batch: rows that a process can hold in one pass, at most.

    Returns:
        (rows per process and pass, passes): their product times `world` is `batch_size`.

    Raises:
        ValueError: the batch cannot be shared equally, or `micro_batch` is no positive number.
    """
    if micro_batch < 1:
        raise ValueError(f"micro_batch must be >= 1, got {micro_batch}")
    if batch_size % world:
        raise ValueError(f"a batch of {batch_size} rows cannot be shared equally by {world} processes")
    share = batch_size // world
    rows = next(rows for rows in range(min(micro_batch, share), 0, -1) if share % rows == 0)
    return rows, share // rows
