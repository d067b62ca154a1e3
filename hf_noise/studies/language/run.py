"""Language models: packed rows, the trainer of a run, and what is measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from hf_noise.analysis.error_rate import error_rate_from_ranks
from hf_noise.data.tokenization import vocabulary_size
from hf_noise.metrics.audit import audit_metrics
from hf_noise.models.gpt2 import gpt2
from hf_noise.noise import Noise, rates
from hf_noise.noise.protocols import named_noise
from hf_noise.objectives import Objective
from hf_noise.objectives.base import RunContext
from hf_noise.reports.record import read_records
from hf_noise.studies.engine import Job
from hf_noise.studies.language.study import TOKEN_NOISE, Run, Settings, tuned_by
from hf_noise.studies.losses import objective_class
from hf_noise.studies.text import Text
from hf_noise.trainers import CausalLMTrainer
from hf_noise.trainers.audit import audit_tokens, posterior
from hf_noise.trainers.scoring import score_tokens

# An epoch that no run reaches, so that noisy targets are measured on noise the model has not seen.
UNSEEN_EPOCH = 1 << 30
AUDITED = ("nll", "corrected")  # losses whose model is one of clean or of noisy text, so that p(clean) follows from it


def load(
    settings: Settings, args: TrainingArguments, runs: Sequence[Run], is_trial: bool = False
) -> Text:
    data = Text.load(settings, args, settings.score_rows)
    vocab_size = vocabulary_size(data.tokenizer)
    for run in runs:  # what a loss cannot make of this noise is refused before anything is trained
        if run.loss not in AUDITED:
            loss_of(run).bound(RunContext(noise=noise_of(settings, run, vocab_size), num_classes=vocab_size))
    return data


def noise_of(settings: Settings, run: Run, vocab_size: int) -> Noise:
    protocol = settings.protocol or TOKEN_NOISE[0]
    return named_noise(protocol, ("tokens",), ratio=run.ratio, vocab_size=vocab_size, seed=run.seed)


def loss_of(run: Run) -> Objective:
    """A loss by name, with the value of its own parameter that is tried."""
    own = {} if run.own is None else {tuned_by(run.loss)[0]: run.own}
    return objective_class(run.loss, "tokens")(**own)


def describe(settings: Settings, data: Text) -> list[str]:
    """What the data are, for a dry run."""
    return data.described(settings.block_size)


def helpers(job: Job) -> list[Job]:
    """Nothing is trained before a run."""
    return []


def build(job: Job) -> CausalLMTrainer:
    settings, run, data = job.settings, job.run, job.data
    args = job.arguments(
        data.train_rows, lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr_rate": 0.1},
        adam_beta1=0.9, adam_beta2=0.95, max_grad_norm=1.0,
        # A stream is read by every process for itself, each its own shards.
        accelerator_config={"dispatch_batches": False} if settings.streaming else None,
    )  # fmt: skip
    vocab_size = vocabulary_size(data.tokenizer)
    model = gpt2(
        settings.model, vocab_size=vocab_size, block_size=settings.block_size, end_of_text=data.tokenizer.eos_token_id
    )
    return CausalLMTrainer(
        model, args, noise=noise_of(settings, run, vocab_size),
        loss=run.loss if run.loss in AUDITED else loss_of(run),
        error_rate="known" if job.is_trial else stated_rate(run, job.folder.parent),
        train_dataset=data.shuffled(run.seed), eval_dataset=data.validation, processing_class=data.tokenizer,
    )  # fmt: skip


def finish(job: Job, trainer: CausalLMTrainer) -> dict[str, Any]:
    """What the record says; an audit of the training data too if it was asked for."""
    settings, run, data = job.settings, job.run, job.data
    validation, realised = trainer.evaluate(), trainer.realised_noise()
    if not trainer.is_world_process_zero():
        return {}
    model = bare_model(trainer)
    parts = dict(
        model={"name": settings.model, "parameters": model.num_parameters(), "config": model.config.to_diff_dict()},
        data=data.recorded(settings),
        noise=trainer.noise.to_dict() | {"realised": realised},
        budget=job.plan.to_dict(settings.block_size) | {"processes": trainer.args.world_size},
        loss=trainer.loss_record() | ({"source": "estimated"} if run.stated == "estimated" else {}),
        metrics=measure(settings, run, trainer, data, validation),
    )  # fmt: skip
    if settings.audit:
        audit_tokens(
            model, data.train, job.folder / "audit.parquet", noise=trainer.noise,
            error_rate=believed_rate(run, trainer), trained=run.loss, batch_size=score_batch(settings),
        )  # fmt: skip
    return parts


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


def score_batch(settings: Settings) -> int:
    """Rows whose logits are held at once: about 4,096 tokens."""
    return max(1, 4096 // settings.block_size)


def measure(
    settings: Settings, run: Run, trainer: CausalLMTrainer, data: Text, validation: dict
) -> dict[str, dict]:
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
    held_out = score_tokens(model, data.validation, noise=noise, epoch=UNSEEN_EPOCH, batch_size=score_batch(settings))
    n = len(held_out.nll)
    metrics["noisy_validation_accuracy"] = {"value": float((held_out.above == 0).mean()), "n": n}
    metrics["noisy_validation_nll"] = {"value": float(held_out.nll.mean(dtype="float64")), "n": n, **nats}
    ranks = error_rate_from_ranks(scores.above, noise.vocab_size)
    metrics["error_rate_by_ranks"] = {"value": ranks.value, "low": ranks.low, "high": ranks.high, "n": ranks.n}
    if run.loss not in AUDITED:
        return metrics
    if trainer.objective.source == "learned":
        metrics["learned_error_rate"] = {"value": trainer.objective.error_rate, "n": scores.nll.size}
    clean = posterior(scores.nll, error_rate=believed_rate(run, trainer), vocab_size=noise.vocab_size, trained=run.loss)
    audit = audit_metrics(clean, scores.is_noisy)
    metrics |= {f"audit_{name}": {"value": audit[name], "n": audit["n"]} for name in ("auroc", "ece", "brier")}
    if run.loss == "nll":
        after = score_tokens(
            model, data.validation, error_rates=(noise.mixture_rate, ranks.value), vocab_size=noise.vocab_size,
            ranks=False, batch_size=score_batch(settings),
        ).posthoc  # fmt: skip
        for name, rate in (("posthoc", noise.mixture_rate), ("posthoc_estimated", ranks.value)):
            nll = after[rate]
            metrics[f"validation_nll_{name}"] = {
                "value": float(nll.mean(dtype="float64")), "n": nll.size, "error_rate": rate, **nats,
            }  # fmt: skip
    return metrics
