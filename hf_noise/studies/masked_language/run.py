"""Masked language models among noise documents: all that `hf_noise.studies.documents` does, with BERT and its trainer."""

from __future__ import annotations

from typing import Any

from transformers import TrainingArguments

from hf_noise.analysis.nll_floor import masked_entropy
from hf_noise.models.bert import bert
from hf_noise.noise import Masking
from hf_noise.studies.documents import run as documents
from hf_noise.studies.documents.run import describe, helpers, load
from hf_noise.studies.engine import Job
from hf_noise.trainers import MaskedLMTrainer

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
    parts = documents.finish(job, trainer)
    if parts:
        for name, noise in documents.noises_of(job.settings, job.run, trainer.noise).items():
            parts["metrics"][f"{name}_nll"]["entropy"] = masked_entropy(
                trainer.masking, noise.probabilities()
            )
    return parts
