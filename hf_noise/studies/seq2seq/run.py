"""Encoder-decoders on a teacher's targets: the pairs of each task, the trainer of a run, and what its record says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from datasets import Dataset
from transformers import TrainingArguments

from hf_noise.data.tokenization import vocabulary_size
from hf_noise.models.seq2seq import encoder_decoder
from hf_noise.noise import NoisyTeacher
from hf_noise.reports.provenance import portable
from hf_noise.studies.engine import Job
from hf_noise.studies.launch import split_batch, training_world
from hf_noise.studies.seq2seq.measure import measure
from hf_noise.studies.seq2seq.pairs import (
    Pairs,
    Written,
    ids_of,
    mean_length,
    noisy_rows,
    read_task,
    right_rows,
    tokenizers_of,
)
from hf_noise.studies.seq2seq.runs import ORACLE, Run, objective_of
from hf_noise.studies.seq2seq.study import Settings
from hf_noise.studies.seq2seq.teachers import decoding_of, network_of, no_teacher, pretrained, with_tokens, writes
from hf_noise.trainers import Seq2SeqTrainer
from hf_noise.trainers.sequence_audit import audit_sequences
from hf_noise.trainers.token_budget import TokenBudget, budget_for, pair_lengths

__all__ = ["Shared", "build", "describe", "finish", "helpers", "load"]


@dataclass(frozen=True, eq=False)
class Shared:
    """The pairs of each task, and what its teacher wrote for them."""

    pairs: dict[str, Pairs]
    written: dict[str, Written]


def load(settings: Settings, args: TrainingArguments, runs: Sequence[Run], is_trial: bool = False) -> Shared:
    """Read and tokenise the pairs; what any of the runs would refuse is refused before a teacher is trained."""
    decoding_of(settings)
    with args.main_process_first(desc="reading pairs"):
        texts = [read_task(settings, task) for task in settings.task]
        tokenizers = tokenizers_of(settings, texts)
        pairs = {one.task: with_tokens(settings, one, tokenizers[one.task]) for one in texts}
    for one in pairs.values():
        tokens_per_pass(settings, settings.batch_size, one.task, one.train_tokens, one.longest)
    for run in runs:
        if run.ratio and not noise_of(run, pairs[run.task], no_teacher(pairs[run.task])).num_noisy:
            raise ValueError(f"--ratio {run.ratio:g} of {len(pairs[run.task].train)} pairs is not one pair; raise it, "
                             "or give more pairs")  # fmt: skip
    if is_trial:
        return Shared(pairs, {task: no_teacher(one) for task, one in pairs.items()})
    return Shared(pairs, {task: writes(settings, one, runs) for task, one in pairs.items()})


def describe(settings: Settings, data: Shared) -> list[str]:
    """What the data are, for a dry run."""
    lines = [line for one in data.pairs.values() for line in one.described()]
    if settings.is_controlled:
        lines.append("both tasks have the same targets, and one tokenizer of all sources and targets")
    for task in settings.task:
        given = settings.place(task).teacher
        how = f"trained first, {settings.teacher_steps:,} steps" if given is None else given
        lines.append(f"{task}: teacher: {how}; it writes all targets once, {settings.decoding}, at most "
                     f"{settings.max_new_tokens} tokens")  # fmt: skip
    return lines


def helpers(job: Job) -> list[Job]:
    """Nothing that is a run: teachers are trained when the pairs are read."""
    return []


def noise_of(run: Run, pairs: Pairs, written: Written) -> NoisyTeacher:
    """The noise of a run: exactly round(e N) of its pairs; those of a smaller e are among those of a larger one."""
    noise = NoisyTeacher(ratio=run.ratio, teacher=written.teacher if run.ratio else None, seed=run.seed)
    return noise.exactly(ids_of(pairs.train))


def tokens_per_pass(settings: Settings, batch_size: int, task: str, rows: Dataset, longest: int | None = None) -> int:
    """Tokens of a process's forward pass: so many that a step has `batch_size` of these rows on average, or a process's
    share of --tokens_per_batch.

    `longest` is the longest that a row may become, if not all is written yet. Raises ValueError: it has more tokens.
    """
    world = training_world()
    _, passes = split_batch(batch_size, world, settings.micro_batch)
    sources, targets = pair_lengths(rows)
    longest = longest or int((sources + targets).max())
    if settings.tokens_per_batch is None:
        tokens = budget_for(sources, targets, batch_size, num_processes=world, passes=passes)
        batches = len(TokenBudget(sources, targets, tokens, num_processes=world))
        is_more = len(rows) / -(-batches // (world * passes)) > 1.1 * batch_size
        if is_more and tokens <= int((sources + targets).max()):
            raise ValueError(
                f"--batch_size {batch_size} in {world} processes of {passes} passes each is less for a pass than the "
                f"longest pair of the {task} task, {tokens} tokens, and shorter ones beside it would make steps "
                "larger; raise --batch_size or --micro_batch, lower --max_source_tokens, or take fewer processes"
            )
        return tokens
    tokens = settings.tokens_per_batch // (world * passes)
    if tokens < longest:
        raise ValueError(f"--tokens_per_batch {settings.tokens_per_batch} is {tokens} for each process and pass, and "
                         f"the longest pair of the {task} task has {longest}; raise it, or lower "
                         "--max_source_tokens")  # fmt: skip
    return tokens


def build(job: Job) -> Seq2SeqTrainer:
    settings, run = job.settings, job.run
    pairs, written = job.data.pairs[run.task], job.data.written[run.task]
    noise = noise_of(run, pairs, written)
    rows = noisy_rows(pairs, written, noise)
    if run.loss == ORACLE:  # the same steps and pairs per step: what is right comes the more often
        rows = right_rows(rows)
        noise = NoisyTeacher(ratio=0.0, seed=run.seed).exactly(ids_of(rows))
    args = job.arguments(len(rows), dataloader_drop_last=False)
    if settings.model is None:
        tokens = {"pad_token": pairs.tokenizer.pad_token_id, "eos_token": pairs.tokenizer.eos_token_id}
        model = encoder_decoder(vocabulary_size(pairs.tokenizer), **tokens, **network_of(settings, run.task))
    else:
        model = pretrained(settings.model)
    return Seq2SeqTrainer(
        model, args, noise=noise, loss=objective_of(run), train_dataset=rows, eval_dataset=pairs.test_tokens,
        tokens_per_batch=tokens_per_pass(settings, job.plan.batch_size, run.task, rows),
        processing_class=pairs.tokenizer,
    )  # fmt: skip


def finish(job: Job, trainer: Seq2SeqTrainer) -> dict[str, Any]:
    """What the record says."""
    settings, run, plan = job.settings, job.run, job.plan
    pairs, written = job.data.pairs[run.task], job.data.written[run.task]
    metrics, realised, trained = measure(job, trainer), trainer.realised_noise(), trainer.rows_trained()
    if not trainer.is_world_process_zero():
        return {}
    if settings.audit and run.loss == "sequence-mixture":
        audit_sequences(trainer, job.folder / "audit.parquet")
    model = trainer.accelerator.unwrap_model(trainer.model)
    config = {name: value for name, value in model.config.to_diff_dict().items() if not name.startswith("hf_noise")}
    weights = sum(one.numel() for name, one in model.named_parameters() if not name.startswith(trainer.own_prefix))
    teacher = asdict(written.teacher) | {"name": portable(written.teacher.name)}
    return dict(
        model={"name": portable(settings.model or "encoder-decoder"), "parameters": weights, "config": config},
        data={
            "task": run.task, "source": pairs.name, "columns": list(pairs.columns), "targets": pairs.targets,
            "vocab_size": vocabulary_size(pairs.tokenizer), "train_rows": len(trainer.train_dataset),
            "test_rows": len(pairs.test), "source_tokens": mean_length(pairs.train_tokens, "input_ids"),
            "target_tokens": mean_length(pairs.train_tokens, "labels"), "sources_cut": pairs.cut,
            "max_source_tokens": settings.place(run.task).max_source_tokens,
            "max_target_tokens": settings.max_target_tokens, "teacher": teacher,
        },
        noise=trainer.noise.to_dict() | {"realised": realised},
        budget=replace(plan, ratio=run.ratio).to_dict() | {
            "tokens_per_batch": trainer.tokens_per_batch, "processes": trainer.args.world_size,
            "sequences": trained, "pairs_per_step": trained / plan.steps,
        },
        loss=trainer.loss_record() | {"cure": run.cure, "own": run.own},
        metrics=metrics,
    )  # fmt: skip
