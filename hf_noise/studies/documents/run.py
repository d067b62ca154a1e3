"""Language models among noise documents: the rows of each mixture, the trainer of a run, and what is measured of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from datasets import IterableDataset
from sklearn.metrics import roc_auc_score
from transformers import TrainingArguments

import hf_noise
from hf_noise.analysis.document_share import document_share
from hf_noise.data.packing import PackedRows
from hf_noise.data.tokenization import vocabulary_size
from hf_noise.metrics.words import METRICS
from hf_noise.models.gpt2 import gpt2
from hf_noise.noise import Noise
from hf_noise.noise.protocols import named_noise
from hf_noise.studies.documents.corpora import Corpora, read_corpora
from hf_noise.studies.documents.settings import DocumentRun, DocumentSettings, corpora_of
from hf_noise.studies.engine import Job
from hf_noise.studies.losses import objective_class
from hf_noise.studies.text import Text, options_of, shuffled
from hf_noise.trainers import CausalLMTrainer
from hf_noise.trainers.row_scores import RowScores, score_rows
from hf_noise.trainers.tokens import TokenTrainer

__all__ = [
    "GPT2_RECIPE", "build", "build_trainer", "describe", "finish", "helpers", "load", "noise_of_run",
    "figures_of_rows", "noises_of", "some_rows",
]  # fmt: skip

#: How GPT-2 is trained, where no setting says it.
GPT2_RECIPE = dict(
    lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr_rate": 0.1}, adam_beta1=0.9, adam_beta2=0.95,
    max_grad_norm=1.0,
)  # fmt: skip

# Documents of noise that no training row is, of the same distribution.
HELD_OUT = 1 << 62


def load(
    settings: DocumentSettings, args: TrainingArguments, runs: Sequence[DocumentRun], is_trial: bool = False
) -> Corpora:
    data = read_corpora(settings, args)
    for run in runs:  # refuses before anything is trained: a small vocabulary, a share of less than one row
        noise = noise_of_run(settings, run, vocabulary_size(data.text.tokenizer), data.text.tokenizer.eos_token_id)
        if run.alpha and data.train_rows is not None and not noise.number_of_noise_rows(data.train_rows):
            raise ValueError(
                f"--alpha {run.alpha:g} beside {data.train_rows} rows of text is not one row of noise; raise it, give "
                "more text, or a smaller --block_size"
            )
    return data


def describe(settings: DocumentSettings, data: Corpora) -> list[str]:
    """What the data are, for a dry run."""
    others = [f"{name}: {len(rows):,} rows" for name, rows in data.others.items()]
    return [*data.text.described(settings.block_size), *others]


def helpers(job: Job) -> list[Job]:
    """Nothing is trained before a run."""
    return []


def noise_of_run(settings: DocumentSettings, run: DocumentRun, vocab_size: int, end_of_text: int | None) -> Noise:
    """The noise of a run; one without noise has that of the first protocol, at alpha 0."""
    protocol = settings.protocol[0] if run.protocol == "none" else run.protocol
    return named_noise(
        protocol, ("documents",), alpha=run.alpha, vocab_size=vocab_size, seed=run.seed,
        placement=settings.placement, exclude=end_of_text,
    )  # fmt: skip


def mixture(settings: DocumentSettings, run: DocumentRun, text: Text, noise: Noise) -> PackedRows | IterableDataset:
    """The rows that a run is trained on."""
    if run.alpha == 0:
        return text.shuffled(run.seed)
    if not settings.streaming:
        return PackedRows(hf_noise.corrupt(text.train.dataset, noise, column="input_ids"))
    stream = hf_noise.load_dataset(
        **options_of(settings), streaming=True, split="train", protocol=run.protocol, alpha=run.alpha, seed=run.seed,
        protocol_kwargs={"placement": settings.placement},
    )  # fmt: skip
    return shuffled(stream, run.seed)


def noises_of(settings: DocumentSettings, run: DocumentRun, noise: Noise) -> dict[str, Noise]:
    """What a run is measured on beside text: its own noise, or without noise that of every protocol."""
    if run.alpha:
        return {"noise": noise}
    every = (replace(run, protocol=protocol) for protocol in settings.protocol)
    return {
        f"noise_{one.protocol.replace('-', '_')}": noise_of_run(settings, one, noise.vocab_size, noise.exclude)
        for one in every
    }


def held_out_rows(noise: Noise, settings: DocumentSettings) -> list[dict[str, Any]]:
    """Rows of noise that are in no training set."""
    ids = np.arange(HELD_OUT, HELD_OUT + settings.noise_rows)
    rows = noise.rows(ids, settings.block_size)
    return [{"input_ids": row, "sample_id": int(number)} for row, number in zip(rows, ids, strict=True)]


def build(job: Job) -> TokenTrainer:
    return build_trainer(job, gpt2_trainer, GPT2_RECIPE)


def build_trainer(job: Job, trainer_of: Callable[..., TokenTrainer], recipe: Mapping[str, Any]) -> TokenTrainer:
    """The trainer of a run, which `trainer_of(job, args, **own)` makes with its model; `recipe` goes into args."""
    settings, run, data = job.settings, job.run, job.data
    vocab_size, end_of_text = vocabulary_size(data.text.tokenizer), data.text.tokenizer.eos_token_id
    noise = noise_of_run(settings, run, vocab_size, end_of_text)
    rows = mixture(settings, run, data.text, noise)
    args = job.arguments(
        len(rows) if isinstance(rows, PackedRows) else None, **recipe,
        eval_strategy="no" if job.is_trial else "steps", eval_steps=math.ceil(job.plan.steps / settings.evaluations),
        accelerator_config={"dispatch_batches": False} if settings.streaming else None,
    )  # fmt: skip
    measured = {
        "validation": data.text.validation, **data.others,
        **{name: held_out_rows(one, settings) for name, one in noises_of(settings, run, noise).items()},
    }  # fmt: skip
    return trainer_of(
        job, args, noise=noise, loss=loss_of(run), train_dataset=rows,
        eval_dataset=measured, processing_class=data.text.tokenizer,
    )  # fmt: skip


def loss_of(run: DocumentRun) -> Any:
    return "nll" if run.loss == "nll" else objective_class("document-mixture", "tokens")(alpha=run.loss)


def gpt2_trainer(job: Job, args: TrainingArguments, **own: Any) -> CausalLMTrainer:
    settings, tokenizer = job.settings, job.data.text.tokenizer
    model = gpt2(
        settings.model, vocab_size=vocabulary_size(tokenizer), block_size=settings.block_size,
        end_of_text=tokenizer.eos_token_id,
    )  # fmt: skip
    return CausalLMTrainer(model, args, **own)


def finish(job: Job, trainer: TokenTrainer) -> dict[str, Any]:
    """What the record says."""
    settings, run, data, corpora = job.settings, job.run, job.data, corpora_of(job.settings)
    last, realised = trainer.evaluate(), trainer.realised_noise()
    if not trainer.is_world_process_zero():
        return {}
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    budget = job.plan.to_dict(settings.block_size) | {"processes": trainer.args.world_size}
    return dict(
        model={"name": settings.model, "parameters": model.num_parameters(), "config": model.config.to_diff_dict()},
        data=data.text.recorded(settings) | {"measured_on": {name: told[0] for name, told in corpora.items()}},
        noise=trainer.noise.to_dict() | {"realised": realised},
        budget=budget | ({} if run.clean_of is None else {"clean_of": run.clean_of}),
        loss=trainer.loss_record(),
        metrics=measure(settings, run, trainer, data, last) | found_rows(settings, run, trainer),
    )  # fmt: skip


def measure(
    settings: DocumentSettings, run: DocumentRun, trainer: TokenTrainer, data: Corpora, last: dict[str, float]
) -> dict[str, dict]:
    """NLL on each held-out set, at the end and along training, each with the number of tokens behind it."""
    noises, found = noises_of(settings, run, trainer.noise), {}
    log = trainer.state.log_history
    for name in ("validation", *noises, *data.others):
        key = f"{name}_nll" if name == "validation" or name in noises else f"nll_{name}"
        words = {"unit": METRICS[key].unit} if key in METRICS else {"name": f"NLL on {name}, nats per token"}
        curve = curve_of(log, f"eval_{name}_nll")
        found[key] = {"value": last[f"eval_{name}_nll"], "n": last[f"eval_{name}_tokens"], **words, **curve}
        if name in noises:
            found[key]["entropy"] = noises[name].entropy
    for key, kind in (("validation_nll", "clean"), ("noise_nll", "corrupted")):
        if key in found and (curve := curve_of(log, f"nll_{kind}_targets"))["steps"]:
            found[key]["train"] = curve  # of training targets of that kind, each a mean since the point before
    return found


def found_rows(settings: DocumentSettings, run: DocumentRun, trainer: TokenTrainer) -> dict[str, dict]:
    """How well the rows of noise are found among training rows spread over all of them, by their likelihoods.

    With the mixture's likelihood, by the posterior that a row is text; with the plain loss by the mean NLL of a row, as
    one would do who knows nothing of the noise. A learned alpha is estimated once more, from these rows under the final
    model, with an interval; `in_loss` is where the loss had it at the end.
    """
    if run.alpha == 0 or settings.streaming or not isinstance(trainer, CausalLMTrainer):
        return {}
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    by = trainer.noise if run.loss == "nll" else trainer.objective
    some = some_rows(trainer.train_dataset, settings.score_rows)
    return figures_of_rows(run, trainer, score_rows(model, some, by, batch_size=max(1, 4096 // settings.block_size)))


def some_rows(rows: PackedRows, n: int) -> torch.utils.data.Subset:
    """At most `n` rows spread evenly over all."""
    return torch.utils.data.Subset(rows, np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int).tolist())


def figures_of_rows(run: DocumentRun, trainer: TokenTrainer, scores: RowScores) -> dict[str, dict]:
    """What `found_rows` says, from the likelihoods of the rows."""
    is_text = scores.noise_share < 0.5
    if is_text.all() or not is_text.any():
        return {}
    ranked = -scores.mean_nll if run.loss == "nll" else scores.log_odds
    found = {"row_auroc": {"value": float(roc_auc_score(is_text, np.clip(ranked, -1e30, 1e30))), "n": len(is_text)}}
    if run.loss == "learned":
        share = document_share(scores.log_odds)
        found["learned_alpha"] = {
            "value": share.value, "low": share.low, "high": share.high, "n": share.n,
            "in_loss": trainer.objective.alpha,
        }  # fmt: skip
    return found


def curve_of(log: Sequence[dict[str, float]], key: str) -> dict[str, list]:
    """What a training log says of a figure: its last value at each step."""
    points = {entry["step"]: entry[key] for entry in log if key in entry}
    return {"steps": list(points), "values": list(points.values())}
