"""Masked language models among noise documents: what `hf_noise.studies.documents` does, with BERT and its trainer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments

from hf_noise.analysis.nll_floor import masked_entropy
from hf_noise.losses.document_mixture import noise_nll, noise_table
from hf_noise.models.bert import bert
from hf_noise.noise import Masking
from hf_noise.studies.documents import run as documents
from hf_noise.studies.documents.run import describe, helpers, load
from hf_noise.studies.documents.settings import DocumentRun, DocumentSettings
from hf_noise.studies.engine import Job
from hf_noise.trainers import MaskedLMTrainer
from hf_noise.trainers.collate import TokenBatches, collate_rows
from hf_noise.trainers.row_scores import RowScores

__all__ = ["BERT_RECIPE", "build", "describe", "finish", "helpers", "load", "masking_of"]

#: How BERT is trained, where no setting says it: Devlin et al. (2019), appendix A.2, and the code beside it.
BERT_RECIPE = dict(lr_scheduler_type="linear", adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-6, max_grad_norm=1.0)


def build(job: Job) -> MaskedLMTrainer:
    return documents.build_trainer(job, bert_trainer, BERT_RECIPE)


def masking_of(job: Job) -> Masking:
    """The masking of a run; a tokenizer without a mask token leaves the id after its last free for it."""
    tokenizer = job.data.text.tokenizer
    return Masking.of_tokenizer(
        tokenizer, mask_token="beyond" if tokenizer.mask_token_id is None else None,
        probability=job.settings.mask_probability, seed=job.run.seed,
    )  # fmt: skip


def bert_trainer(job: Job, args: TrainingArguments, **own: Any) -> MaskedLMTrainer:
    settings, masking = job.settings, masking_of(job)
    model = bert(
        settings.model, vocab_size=masking.num_tokens, block_size=settings.block_size, dropout=settings.dropout
    )  # fmt: skip
    return MaskedLMTrainer(model, args, masking=masking, **own)


def finish(job: Job, trainer: MaskedLMTrainer) -> dict[str, Any]:
    """What the record says; the loss on noise tends to the entropy of its tokens where some of them can be read."""
    found, parts = found_rows(job.settings, job.run, trainer), documents.finish(job, trainer)
    if parts:
        for name, noise in documents.noises_of(job.settings, job.run, trainer.noise).items():
            parts["metrics"][f"{name}_nll"]["entropy"] = masked_entropy(trainer.masking, noise.probabilities())
        parts["metrics"] |= found
    return parts


def found_rows(settings: DocumentSettings, run: DocumentRun, trainer: MaskedLMTrainer) -> dict[str, dict]:
    """As of the study of documents, by the masked tokens of each row that has any; on all processes."""
    if run.alpha == 0 or settings.streaming:
        return {}
    some = documents.some_rows(trainer.train_dataset, settings.score_rows)
    sums = trainer.predict(some).predictions
    batch = TokenBatches(collate_rows, trainer.masking.num_tokens)([some[i] for i in range(len(some))])
    tokens, sample = batch["input_ids"].numpy(), batch["sample_id"].numpy()
    _, targets = trainer.masking(tokens, sample, targets=batch["labels"].numpy(), evaluation=True)
    table = noise_table(trainer.noise.probabilities(), trainer.masking.num_tokens)
    under_noise = noise_nll(table, torch.from_numpy(targets))
    columns = (
        sample, sums[:, 1].astype(np.int64), sums[:, 0], under_noise.sum(-1, dtype=torch.float64).numpy(),
        batch["is_noisy"].double().mean(-1).numpy(),
    )  # fmt: skip
    has_any = sums[:, 1] > 0
    return documents.figures_of_rows(run, trainer, RowScores(*(column[has_any] for column in columns)))
