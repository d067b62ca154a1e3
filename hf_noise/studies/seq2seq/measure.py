"""What is measured of a run: exact NLL of clean test targets, of the teacher's, and of noisy training pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from hf_noise.metrics.sequences import sequence_scores
from hf_noise.noise import NoisyTeacher
from hf_noise.studies.chosen_rows import some_rows
from hf_noise.studies.engine import Job
from hf_noise.studies.seq2seq.pairs import by_length
from hf_noise.trainers import Seq2SeqTrainer
from hf_noise.trainers.sequence_audit import SequenceScores, scored_under

__all__ = ["measure"]

_NATS = {"unit": "nats per token"}
_SCORES = {"bleu": "test_bleu", "chrf": "test_chrf", "rougeL": "test_rouge_l"}


def measure(
    job: Job, trainer: Seq2SeqTrainer, noise: NoisyTeacher, audit: SequenceScores | None
) -> dict[str, dict]:
    """The figures of a run, each with the number behind it (a collective call; the main process has all of them).

    Those of training pairs are of all where they are audited, else of some. The noise is that of all pairs of the run,
    which the trainer does not know where it has some of them alone.
    """
    settings, run = job.settings, job.run
    pairs, written = job.data.pairs[run.task], job.data.written[run.task]
    test, of_written = trainer.evaluate(), trainer.evaluate(written.test, metric_key_prefix="written")
    padding = trainer.padding()
    metrics = {
        "test_target_nll": {"value": test["eval_nll"], "n": test["eval_tokens"], **_NATS},
        "written_nll": {"value": of_written["written_nll"], "n": of_written["written_tokens"], **_NATS},
        "padding_share": {"value": padding["share"], "n": padding["n"]},
    }
    if written.test_nll is not None:
        metrics["teacher_nll"] = {"value": written.test_nll / test["eval_tokens"], "n": test["eval_tokens"], **_NATS}
    if settings.generated:
        sample = by_length(pairs.test_tokens.select(some_rows(len(pairs.test_tokens), settings.generated)))
        texts = trainer.predictions_and_references(sample, max_new_tokens=settings.max_new_tokens)
        found = sequence_scores(*texts)
        metrics |= {name: found[theirs] for theirs, name in _SCORES.items()}
    if trainer.is_world_process_zero():
        metrics |= _of_training(trainer, _on_some(trainer, settings) if audit is None else audit, noise)
    return metrics


def _on_some(trainer: Seq2SeqTrainer, settings: Any) -> SequenceScores:
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    rows = trainer.train_dataset
    rows = rows.select(some_rows(len(rows), settings.score_rows))
    return scored_under(model, trainer, rows, settings.micro_batch)


def _of_training(trainer: Seq2SeqTrainer, scores: SequenceScores, noise: NoisyTeacher) -> Mapping[str, dict]:
    metrics, is_noisy = {}, noise.is_noisy(scores.sample_id)
    for name, which in (("clean", ~is_noisy), ("corrupted", is_noisy)):
        if n := int(scores.targets[which].sum()):
            metrics[f"train_nll_{name}"] = {"value": float(scores.nll[which].sum()) / n, "n": n, **_NATS}
    if scores.is_noisy is None:  # pairs that were chosen by their noise, or for it
        return metrics
    if 0 < scores.is_noisy.sum() < len(scores.is_noisy):
        # What noisy pairs are looked for by: their odds, else the mean NLL, as loss truncation does.
        suspicion = scores.mean_nll if scores.log_odds is None else -np.clip(scores.log_odds, -1e9, 1e9)
        auroc = float(roc_auc_score(scores.is_noisy, suspicion))
        metrics["row_auroc"] = {"value": auroc, "n": len(scores.is_noisy)}
    if trainer.objective.source == "learned" and scores.error_rate is not None:  # else it would be what was told
        metrics["audited_error_rate"] = {"value": scores.error_rate, "n": len(scores.targets)}
    if trainer.objective.source == "learned" and (rate := trainer.objective.error_rate) is not None:
        metrics["learned_error_rate"] = {"value": rate, "n": len(trainer.train_dataset)}
    return metrics
