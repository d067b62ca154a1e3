"""Encoder-decoders on a teacher's targets: the pairs of each task, the trainer of a run, and what its record says."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import TrainingArguments

from hf_noise.data.tokenization import tokenizer_identity, vocabulary_size
from hf_noise.models.seq2seq import encoder_decoder
from hf_noise.noise import NoisyTeacher
from hf_noise.reports.provenance import portable
from hf_noise.studies.engine import Job
from hf_noise.studies.launch import split_batch, training_world
from hf_noise.studies.seq2seq.kept import AUDIT, check_audits, kept_pairs, told_of
from hf_noise.studies.seq2seq.measure import measure
from hf_noise.studies.seq2seq.pairs import (
    Pairs,
    Written,
    have_same_targets,
    ids_of,
    mean_length,
    noisy_rows,
    read_task,
    tokenizers_of,
)
from hf_noise.studies.seq2seq.runs import Run, objective_of
from hf_noise.studies.seq2seq.study import Settings
from hf_noise.studies.seq2seq.teachers import (
    check_model,
    decoding_of,
    has_same_tokens,
    network_of,
    no_teacher,
    pretrained,
    with_tokens,
    writes,
)
from hf_noise.trainers import Seq2SeqTrainer
from hf_noise.trainers.sequence_audit import audit_sequences
from hf_noise.trainers.token_budget import TokenBudget, pair_lengths

__all__ = ["Shared", "build", "describe", "describe_rows", "finish", "helpers", "load"]


logger = logging.getLogger(__name__)
#: By how much a step may have more pairs than it was asked for without a word; the record says it in any case.
_MORE = 1.05


@dataclass(frozen=True, eq=False)
class Shared:
    """The pairs of each task, and what its teacher wrote for them."""

    pairs: dict[str, Pairs]
    written: dict[str, Written]


def load(settings: Settings, args: TrainingArguments, runs: Sequence[Run], is_trial: bool = False) -> Shared:
    """Read and tokenise the pairs; what any of the runs would refuse is refused before a teacher is trained."""
    with args.main_process_first(desc="reading pairs"):
        pairs = read_pairs(settings)
    check_pairs(settings, pairs, runs)
    check_audits(settings, runs)
    same = {task: has_same_tokens(settings, one) for task, one in pairs.items()}  # before the first of them writes
    if is_trial:
        return Shared(pairs, {task: replace(no_teacher(one), has_same_tokens=same[task])
                              for task, one in pairs.items()})  # fmt: skip
    return Shared(pairs, {task: writes(settings, one, runs) for task, one in pairs.items()})


def read_pairs(settings: Settings) -> dict[str, Pairs]:
    """The pairs of each task with their tokens; those of a model that is given fit it."""
    decoding_of(settings)
    model = None if settings.model is None else pretrained(settings.model)
    texts = [read_task(settings, task) for task in settings.task]
    tokenizers = tokenizers_of(settings, texts)
    pairs = {one.task: with_tokens(settings, one, tokenizers[one.task]) for one in texts}
    for one in pairs.values() if model is not None else ():
        check_model(settings.model, one, model)
    return pairs


def check_pairs(settings: Settings, pairs: Mapping[str, Pairs], runs: Sequence[Run]) -> None:
    """Raise ValueError where the pairs do not do for a run: a pass cannot hold one, or a noise has none."""
    for one in pairs.values():
        tokens_per_pass(settings, settings.batch_size, one)
    for run in runs:
        if run.ratio and not noise_of(run, pairs[run.task], no_teacher(pairs[run.task])).num_noisy:
            raise ValueError(f"--ratio {run.ratio:g} of {len(pairs[run.task].train)} pairs is not one pair; raise it, "
                             "or give more pairs")  # fmt: skip


def describe(settings: Settings, data: Shared) -> list[str]:
    """What the data are, for a dry run."""
    return _described(settings, data.pairs, {task: one.has_same_tokens for task, one in data.written.items()})


def describe_rows(settings: Settings, runs: Sequence[Run]) -> list[str]:
    """What the data and the teachers on this machine are, for a dry run where another model is not."""
    if settings.model is not None and not Path(settings.model).exists():  # whose tokenizer says how long texts are
        return [line for task in settings.task for line in read_task(settings, task).described()]
    pairs = read_pairs(settings)
    check_pairs(settings, pairs, runs)
    check_audits(settings, runs)
    here = [task for task in settings.task if Path(settings.place(task).teacher or ".").exists()]
    return _described(settings, pairs, {task: has_same_tokens(settings, pairs[task]) for task in here})


def _described(settings: Settings, pairs: Mapping[str, Pairs], has_same: Mapping[str, bool]) -> list[str]:
    lines = [line for one in pairs.values() for line in one.described()]
    if have_same_targets(pairs.values()):
        lines.append("both tasks have the same targets, and one tokenizer of all sources and targets")
    for task in settings.task:
        given = settings.place(task).teacher
        how = f"trained first, {settings.teacher_steps:,} steps" if given is None else given
        other = "" if has_same.get(task, True) else " of its own, which are not those of the models"
        lines.append(f"{task}: teacher: {how}; it writes all targets once, {settings.decoding}, at most "
                     f"{settings.max_new_tokens} tokens{other}")  # fmt: skip
    return lines


def helpers(job: Job) -> list[Job]:
    """Nothing that is a run: teachers are trained when the pairs are read."""
    return []


def noise_of(run: Run, pairs: Pairs, written: Written) -> NoisyTeacher:
    """The noise of a run: exactly round(e N) of its pairs; those of a smaller e are among those of a larger one."""
    noise = NoisyTeacher(ratio=run.ratio, teacher=written.teacher if run.ratio else None, seed=run.seed)
    return noise.exactly(ids_of(pairs.train))


def tokens_per_pass(settings: Settings, batch_size: int, pairs: Pairs) -> int:
    """Tokens of a process's forward pass: its share of those of a step.

    Raises ValueError: the longest pair has more.
    """
    world = training_world()
    _, passes = split_batch(batch_size, world, settings.micro_batch)
    longest = pairs.longest
    if settings.tokens_per_batch is None:
        return max(longest, math.ceil(batch_size * pairs.mean_tokens / (world * passes)))
    tokens = settings.tokens_per_batch // (world * passes)
    if tokens < longest:
        raise ValueError(f"--tokens_per_batch {settings.tokens_per_batch} is {tokens} for each process and pass, and "
                         f"the longest pair of the {pairs.task} task has {longest}; raise it, or lower "
                         "--max_source_tokens")  # fmt: skip
    return tokens


def budget_of(settings: Settings, batch_size: int, pairs: Pairs, rows: Dataset) -> int:
    """`tokens_per_pass`, or what gives `batch_size` pairs a step on average of these rows, with their padding.

    A pass holds the longest pair at least, so that a step of many of them may have more pairs, which is told.
    """
    tokens, world = tokens_per_pass(settings, batch_size, pairs), training_world()
    if settings.tokens_per_batch is not None:
        return tokens
    _, passes = split_batch(batch_size, world, settings.micro_batch)
    lengths = pair_lengths(rows)
    for _ in range(4):
        found = TokenBudget(*lengths, tokens, num_processes=world, passes=passes).rows_per_step
        if abs(found / batch_size - 1) < 0.005:
            break
        if tokens == pairs.longest and found > batch_size:
            if found > _MORE * batch_size and not int(os.environ.get("RANK", 0)):
                logger.warning(
                    "steps of the %s task have %.1f pairs on average, and not --batch_size %d: each of %d processes "
                    "times %d passes holds the longest pair, which has %d tokens. Take fewer processes, a larger "
                    "--batch_size or --micro_batch, or shorter texts (--max_source_tokens with --truncate)",
                    pairs.task, found, batch_size, world, passes, tokens,
                )  # fmt: skip
            break
        tokens = max(pairs.longest, round(tokens * batch_size / found))
    return tokens


def build(job: Job) -> Seq2SeqTrainer:
    settings, run = job.settings, job.run
    pairs, written = job.data.pairs[run.task], job.data.written[run.task]
    noise: NoisyTeacher | None = noise_of(run, pairs, written)
    rows = noisy_rows(pairs, written, noise)
    ids = ids_of(pairs.train)
    if (kept := kept_pairs(job, ids, noise.is_noisy(ids))) is not None:  # of these the noise is another one
        rows = rows.select(np.flatnonzero(kept)).select_columns(["input_ids", "labels", "sample_id"])
        noise = None
    args = job.arguments(len(rows), dataloader_drop_last=False)
    if settings.model is None:
        tokens = {"pad_token": pairs.tokenizer.pad_token_id, "eos_token": pairs.tokenizer.eos_token_id}
        model = encoder_decoder(vocabulary_size(pairs.tokenizer), **tokens, **network_of(settings, run.task))
    else:
        model = pretrained(settings.model)
    return Seq2SeqTrainer(
        model, args, noise=noise, loss=objective_of(run, settings), train_dataset=rows, eval_dataset=pairs.test_tokens,
        tokens_per_batch=budget_of(settings, job.plan.batch_size, pairs, rows), processing_class=pairs.tokenizer,
    )  # fmt: skip


def finish(job: Job, trainer: Seq2SeqTrainer) -> dict[str, Any]:
    """What the record says."""
    settings, run, plan = job.settings, job.run, job.plan
    pairs, written = job.data.pairs[run.task], job.data.written[run.task]
    noise, loss = noise_of(run, pairs, written), trainer.loss_record() | {"cure": run.cure}
    audit = audit_sequences(trainer, job.folder / AUDIT) if run.loss == "sequence-mixture" else None
    metrics, realised = measure(job, trainer, noise, audit), {} if trainer.noise is None else trainer.realised_noise()
    if not trainer.is_world_process_zero():
        return {}
    is_noisy = noise.is_noisy(ids := ids_of(pairs.train))
    if (kept := kept_pairs(job, ids, is_noisy)) is not None:
        realised = {"rate": float(is_noisy[kept].mean()), "n": int(kept.sum())}
        metrics["kept_share"] = {"value": float(kept.mean()), "n": len(kept)}
        loss["rows"] = told_of(job.run, kept)
    if audit is not None:
        loss["audit"] = {"groups": dict(audit.groups), "doubt": audit.doubt}
    if "dropped" in (facts := trainer.objective.facts()):
        metrics["dropped_share"] = {"value": facts["dropped"], "n": len(ids)}
    model = trainer.accelerator.unwrap_model(trainer.model)
    config = {name: value for name, value in model.config.to_diff_dict().items() if not name.startswith("hf_noise")}
    weights = sum(one.numel() for name, one in model.named_parameters() if not name.startswith(trainer.own_prefix))
    teacher = asdict(written.teacher) | {
        "name": portable(written.teacher.name), "has_same_tokens": written.has_same_tokens,
    }  # fmt: skip
    return dict(
        model={"name": portable(settings.model or "encoder-decoder"), "parameters": weights, "config": config},
        data={
            "task": run.task, "source": pairs.name, "columns": list(pairs.columns), "targets": pairs.targets,
            "vocab_size": vocabulary_size(pairs.tokenizer), "train_rows": len(pairs.train),
            "test_rows": len(pairs.test), "source_tokens": mean_length(pairs.train_tokens, "input_ids"),
            "target_tokens": mean_length(pairs.train_tokens, "labels"), "sources_cut": pairs.cut,
            "targets_cut": pairs.targets_cut,
            "max_source_tokens": settings.place(run.task).max_source_tokens,
            "max_target_tokens": settings.max_target_tokens, "teacher": teacher,
            "tokenizer": tokenizer_identity(pairs.tokenizer),
        },
        noise=noise.to_dict() | {"realised": realised},
        budget=replace(plan, ratio=run.ratio).to_dict() | {
            "tokens_per_batch": trainer.tokens_per_batch, "processes": trainer.args.world_size,
            "pairs_per_step": trainer.pairs_per_step,
        },
        loss=loss,
        metrics=metrics,
    )  # fmt: skip
