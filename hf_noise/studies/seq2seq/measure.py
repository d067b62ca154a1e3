"""What is measured of a run: exact NLL of clean test targets, of the teacher's, and of noisy training pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from hf_noise.losses.nll import IGNORE_INDEX
from hf_noise.metrics.sequences import sequence_scores
from hf_noise.objectives.base import Forward
from hf_noise.studies.engine import Job
from hf_noise.studies.seq2seq.pairs import by_length
from hf_noise.trainers import Seq2SeqTrainer

__all__ = ["PairScores", "measure", "score_pairs"]

_NATS = {"unit": "nats per token"}
_SCORES = {"bleu": "test_bleu", "chrf": "test_chrf", "rougeL": "test_rouge_l"}


@dataclass(frozen=True)
class PairScores:
    """One entry for each pair, all arrays [N].

    Attributes:
        sample_id: int64.
        targets: int64, tokens of its target as trained on.
        nll: float64, their NLL under the model together, in nats.
        is_noisy: bool, whether the teacher wrote it.
        p_clean: float64, the posterior of the loss that it is clean; None of losses that have none.
    """

    sample_id: np.ndarray
    targets: np.ndarray
    nll: np.ndarray
    is_noisy: np.ndarray
    p_clean: np.ndarray | None

    @property
    def suspicion(self) -> np.ndarray:
        """What noisy pairs are looked for by: the posterior, else the mean NLL, as loss truncation does."""
        return self.nll / self.targets if self.p_clean is None else -self.p_clean


@torch.no_grad()
def score_pairs(trainer: Seq2SeqTrainer, rows: Any, batch_size: int) -> PairScores:
    """Score pairs under the model of a trainer, on this process alone; a few thousand rows in seconds."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    posterior = trainer.objective.clean_posterior if hasattr(trainer.objective, "of_other") else None
    was_training, parts, clean = model.training, [], []
    model.eval()
    try:
        for start in range(0, len(rows), batch_size):
            batch = trainer.data_collator([rows[i] for i in range(start, min(start + batch_size, len(rows)))])
            batch = {name: column.to(trainer.args.device) for name, column in batch.items()}
            targets = batch["labels"]
            nll, *_ = trainer.token_nll(model, batch, targets)
            exact = torch.float32 if nll.device.type == "mps" else torch.float64
            sums = ((targets != IGNORE_INDEX).sum(-1), nll.sum(-1, dtype=exact))
            parts.append([column.cpu().numpy() for column in (batch["sample_id"], *sums, batch["is_noisy"])])
            if posterior is not None:
                forward = Forward(model=model, inputs=batch, sample_ids=batch["sample_id"], epoch=trainer.epoch)
                clean.append(posterior(nll, targets, forward).double().cpu().numpy())
    finally:
        model.train(was_training)
    return PairScores(*map(np.concatenate, zip(*parts, strict=True)), np.concatenate(clean) if clean else None)


def measure(job: Job, trainer: Seq2SeqTrainer) -> dict[str, dict]:
    """The figures of a run, each with the number behind it (a collective call; the main process has all of them)."""
    settings, run = job.settings, job.run
    pairs, written = job.data.pairs[run.task], job.data.written[run.task]
    test, of_written = trainer.evaluate(), trainer.evaluate(written.test, metric_key_prefix="written")
    padding = trainer.padding()
    metrics = {
        "test_target_nll": {"value": test["eval_nll"], "n": test["eval_tokens"], **_NATS},
        "written_nll": {"value": of_written["written_nll"], "n": of_written["written_tokens"], **_NATS},
        "teacher_nll": {"value": written.test_nll / test["eval_tokens"], "n": test["eval_tokens"], **_NATS},
        "padding_share": {"value": padding["share"], "n": padding["n"]},
    }
    if settings.generated:
        sample = by_length(_some(pairs.test_tokens, settings.generated))
        texts = trainer.predictions_and_references(sample, max_new_tokens=settings.max_new_tokens)
        found = sequence_scores(*texts)
        metrics |= {name: found[theirs] for theirs, name in _SCORES.items()}
    if trainer.is_world_process_zero():
        metrics |= _of_training(trainer, _some(trainer.train_dataset, settings.score_rows), settings.micro_batch)
    return metrics


def _of_training(trainer: Seq2SeqTrainer, rows: Any, batch_size: int) -> Mapping[str, dict]:
    scores = score_pairs(trainer, by_length(rows), batch_size)
    metrics = {}
    for name, which in (("clean", ~scores.is_noisy), ("corrupted", scores.is_noisy)):
        if n := int(scores.targets[which].sum()):
            metrics[f"train_nll_{name}"] = {"value": float(scores.nll[which].sum()) / n, "n": n, **_NATS}
    if 0 < scores.is_noisy.sum() < len(scores.is_noisy):
        auroc = float(roc_auc_score(scores.is_noisy, scores.suspicion))
        metrics["row_auroc"] = {"value": auroc, "n": len(scores.is_noisy)}
    if trainer.objective.source == "learned" and (rate := trainer.objective.error_rate) is not None:
        metrics["learned_error_rate"] = {"value": rate, "n": len(trainer.train_dataset)}
    return metrics


def _some(rows: Any, wanted: int) -> Any:
    """So many rows, always the same ones."""
    return rows.select(np.sort(np.random.default_rng(0).permutation(len(rows))[:wanted]))

