"""One run of `gpt2_noise.py` after the other: data, training, measurements, record, card."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from datasets import IterableDataset
from transformers import ProgressCallback, TrainingArguments, set_seed

import hf_noise
from hf_noise.analysis.error_rate import error_rate_from_ranks
from hf_noise.data.packing import PackedRows
from hf_noise.data.tokenization import find_tokenizer, vocabulary_size
from hf_noise.metrics.audit import audit_metrics
from hf_noise.models.gpt2 import gpt2
from hf_noise.noise import UniformTokens, rates
from hf_noise.reports.record import RunRecord, read_records
from hf_noise.studies.engine import CHECKPOINTS_KEPT, run_all, write_result
from hf_noise.studies.launch import check_disk, split_batch, training_world
from hf_noise.studies.progress import FigureProgress
from hf_noise.trainers import CausalLMTrainer
from hf_noise.trainers.audit import audit_tokens, posterior
from hf_noise.trainers.resuming import AUTO
from hf_noise.trainers.scoring import score_tokens

# An epoch that no run reaches, so that noisy targets are measured on noise the model has not seen.
UNSEEN_EPOCH = 1 << 30
SHUFFLE_BUFFER = 10_000  # rows of a stream among which the next one is drawn

# Lists of which a run has one value each, and what else changes nothing in its result.
NOT_IN_A_RUN = ("plan", "ratio", "corrected", "learned", "estimated", "misstated", "num_proc", "audit")


@dataclass(frozen=True)
class Run:
    """One setting. `stated` says where e comes from: "none", "known", "learned", "estimated" by the ranks of the run
    with the plain loss, or a ratio r that it is taken from."""

    ratio: float
    loss: str
    stated: str | float
    plan: str
    seed: int

    @property
    def name(self) -> str:
        if self.ratio == 0:
            return f"r0-seed{self.seed}"
        how = self.loss if self.stated in ("none", "known") else f"{self.loss}-{self.stated}"
        how = how if isinstance(self.stated, str) else f"{self.loss}-as-r{self.stated:g}"
        return f"r{self.ratio:g}-{how}-{self.plan}-seed{self.seed}"


@dataclass(frozen=True)
class Data:
    """Packed rows, the tokenizer they were made with, and the first training rows to measure on.

    `train` is a stream with `--streaming`, and then has no length.
    """

    train: PackedRows | IterableDataset
    validation: PackedRows | list
    sample: PackedRows | list
    tokenizer: object

    def shuffled(self, seed: int) -> PackedRows | IterableDataset:
        """The training rows; a stream is shuffled in a buffer, stored rows are by the trainer's sampler."""
        is_stored = isinstance(self.train, PackedRows)
        return self.train if is_stored else self.train.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)

    @property
    def train_rows(self) -> int | None:
        return len(self.train) if isinstance(self.train, PackedRows) else None

    @classmethod
    def load(cls, settings, args: TrainingArguments) -> Data:
        tokenizer = find_tokenizer(settings.tokenizer)
        options = dict(
            path="hf_noise/packed", source=settings.source, validation_source=settings.validation_source,
            tokenizer=settings.tokenizer, block_size=settings.block_size,
        )  # fmt: skip
        own = {name: getattr(settings, name) for name in ("text_column", "validation_fraction")}
        options |= {name: value for name, value in own.items() if value is not None}
        if settings.streaming:
            splits = hf_noise.load_dataset(**options, streaming=True)
            train, validation = splits["train"], list(splits["validation"])
            sample = list(train.take(settings.score_rows))
            return cls(train, validation, sample, tokenizer)
        with args.main_process_first(desc="packing"):
            splits = hf_noise.load_dataset(**options, num_proc=settings.num_proc)
        train = PackedRows(splits["train"])
        sample = torch.utils.data.Subset(train, range(min(settings.score_rows, len(train))))
        return cls(train, PackedRows(splits["validation"]), sample, tokenizer)


def train(settings, runs, plans) -> bool:
    """Make all runs that are not finished; returns whether this is the main process."""
    return run_all(settings, runs, plans, load=Data.load, make=make_run, left_out=NOT_IN_A_RUN)


def make_run(settings, run: Run, plan, folder: Path, data: Data, on_cpu: bool, title: str) -> None:
    started = time.perf_counter()
    world = training_world()
    rows_per_pass, accumulation = split_batch(plan.batch_size, world, settings.micro_batch)
    args = TrainingArguments(
        output_dir=str(folder), max_steps=plan.steps, per_device_train_batch_size=rows_per_pass,
        gradient_accumulation_steps=accumulation, per_device_eval_batch_size=settings.micro_batch,
        learning_rate=settings.learning_rate, lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1}, warmup_steps=settings.warmup, weight_decay=settings.weight_decay,
        adam_beta1=0.9, adam_beta2=0.95, max_grad_norm=1.0, bf16=settings.bf16, torch_compile=settings.torch_compile,
        logging_steps=settings.logging_steps, save_steps=settings.save_steps, save_total_limit=CHECKPOINTS_KEPT,
        use_cpu=on_cpu, dataloader_pin_memory=not on_cpu, report_to="none", seed=run.seed,
        # The last, smaller batch of an epoch would be filled up with other rows on other numbers of processes.
        dataloader_drop_last=data.train_rows is not None and data.train_rows >= plan.batch_size,
        # A stream is read by every process for itself, each its own shards.
        accelerator_config={"dispatch_batches": False} if settings.streaming else None,
    )  # fmt: skip
    set_seed(run.seed)
    vocab_size = vocabulary_size(data.tokenizer)
    model = gpt2(
        settings.model, vocab_size=vocab_size, block_size=settings.block_size, end_of_text=data.tokenizer.eos_token_id
    )
    check_disk(folder, model.num_parameters(), CHECKPOINTS_KEPT + 1)
    noise = UniformTokens(ratio=run.ratio, vocab_size=vocab_size, seed=run.seed)
    trainer = CausalLMTrainer(
        model, args, noise=noise, loss=run.loss, error_rate=stated_rate(run, folder.parent),
        train_dataset=data.shuffled(run.seed), eval_dataset=data.validation, processing_class=data.tokenizer,
    )  # fmt: skip
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(FigureProgress(title))
    trainer.train(resume_from_checkpoint=AUTO)
    validation = trainer.evaluate()
    realised = trainer.realised_noise()
    trainer.save_model()
    if trainer.is_world_process_zero():
        record = RunRecord(
            name=run.name, recipe="recipes/gpt2_noise.py", seed=run.seed, settings=asdict(settings),
            model={"name": settings.model, "parameters": model.num_parameters(), "config": model.config.to_diff_dict()},
            data={
                "source": settings.source, "tokenizer": settings.tokenizer, "vocab_size": vocab_size,
                "block_size": settings.block_size,
                "train_rows": data.train_rows,
                "train_tokens": data.train_rows and data.train_rows * settings.block_size,
                "validation_rows": len(data.validation),
                "validation_tokens": len(data.validation) * settings.block_size,
            },
            noise=noise.to_dict() | {"realised": realised},
            budget=plan.to_dict(settings.block_size) | {"processes": world},
            loss={
                "name": run.loss, "error_rate": trainer.objective.error_rate,
                "source": "estimated" if run.stated == "estimated" else trainer.objective.source,
            },
            metrics=measure(settings, run, trainer, data, validation),
            wall_seconds=time.perf_counter() - started,
        )  # fmt: skip
        if settings.audit:
            audit_tokens(
                bare_model(trainer), data.train, folder / "audit.parquet", noise=noise,
                error_rate=believed_rate(run, trainer), trained=run.loss, batch_size=score_batch(settings),
            )  # fmt: skip
        write_result(record, folder)
    trainer.accelerator.wait_for_everyone()


def stated_rate(run: Run, study: Path) -> str | float:
    """What the trainer is told about e."""
    if isinstance(run.stated, float):
        return rates.error_rate(run.stated)
    if run.stated == "estimated":
        plain = Run(run.ratio, "nll", "none", run.plan, run.seed)
        return read_records(study / plain.name)[0].metrics["error_rate_by_ranks"]["value"]
    return "learned" if run.stated == "learned" else "known"


def believed_rate(run: Run, trainer: CausalLMTrainer) -> float:
    """e as the model has it: what the corrected loss was given or learned; the truth for the plain one."""
    return trainer.noise.mixture_rate if run.loss == "nll" else trainer.objective.error_rate


def bare_model(trainer: CausalLMTrainer):
    """The model without wrappers, autocast included: ranks need logits that do not tie by rounding."""
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)


def score_batch(settings) -> int:
    """Rows whose logits are held at once: about 4,096 tokens."""
    return max(1, 4096 // settings.block_size)


def measure(settings, run: Run, trainer: CausalLMTrainer, data: Data, validation: dict) -> dict[str, dict]:
    """The figures of a run, each with the number of tokens behind it."""
    nats = {"unit": "nats per token"}
    metrics = {
        "validation_nll": {"value": validation["eval_nll"], "n": validation["eval_tokens"], **nats},
        "validation_perplexity": {"value": validation["eval_perplexity"], "n": validation["eval_tokens"]},
    }
    model, noise = bare_model(trainer), trainer.noise
    scores = score_tokens(model, data.sample, noise=noise, epoch=UNSEEN_EPOCH, batch_size=score_batch(settings))
    kinds = {"noisy": slice(None), "clean": ~scores.is_noisy, "corrupted": scores.is_noisy}
    for kind, which in kinds.items():
        if len(nll := scores.nll[which]):
            metrics[f"train_nll_{kind}"] = {"value": float(nll.mean(dtype="float64")), "n": len(nll), **nats}
    if run.ratio == 0:
        return metrics
    ranks = error_rate_from_ranks(scores.above, noise.vocab_size)
    metrics["error_rate_by_ranks"] = {"value": ranks.value, "low": ranks.low, "high": ranks.high, "n": ranks.n}
    if trainer.objective.source == "learned":
        metrics["learned_error_rate"] = {"value": trainer.objective.error_rate, "n": scores.nll.size}
    clean = posterior(scores.nll, error_rate=believed_rate(run, trainer), vocab_size=noise.vocab_size, trained=run.loss)
    audit = audit_metrics(clean, scores.is_noisy)
    metrics |= {f"audit_{name}": {"value": audit[name], "n": audit["n"]} for name in ("auroc", "ece", "brier")}
    if run.loss == "nll":
        after = score_tokens(
            model, data.validation, error_rates=(noise.mixture_rate, ranks.value), vocab_size=noise.vocab_size,
            batch_size=score_batch(settings),
        ).posthoc  # fmt: skip
        for name, rate in (("posthoc", noise.mixture_rate), ("posthoc_estimated", ranks.value)):
            nll = after[rate]
            metrics[f"validation_nll_{name}"] = {
                "value": float(nll.mean(dtype="float64")), "n": nll.size, "error_rate": rate, **nats,
            }  # fmt: skip
    return metrics
