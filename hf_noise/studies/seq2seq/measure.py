"""What is measured of a run: exact NLL of clean test targets, of the teacher's, and of noisy training pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.metrics import roc_auc_score

from hf_noise.metrics.sequences import sequence_scores
from hf_noise.noise import NoisyTeacher
from hf_noise.studies.chosen_rows import some_rows
from hf_noise.studies.engine import Job
from hf_noise.studies.seq2seq.pairs import by_length
from hf_noise.trainers import Seq2SeqTrainer
from hf_noise.trainers.sequence_audit import scored_under

__all__ = ["measure"]

_NATS = {"unit": "nats per token"}
_SCORES = {"bleu": "test_bleu", "chrf": "test_chrf", "rougeL": "test_rouge_l"}


def measure(job: Job, trainer: Seq2SeqTrainer, noise: NoisyTeacher) -> dict[str, dict]:
    """The figures of a run, each with the number behind it (a collective call; the main process has all of them).

    The noise is that of all its pairs, which the trainer does not know where it has some of them alone.
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
        rows = trainer.train_dataset
        rows = rows.select(some_rows(len(rows), settings.score_rows))
        metrics |= _of_training(trainer, rows, settings.micro_batch, noise)
    return metrics


def _of_training(trainer: Seq2SeqTrainer, rows: Any, batch_size: int, noise: NoisyTeacher) -> Mapping[str, dict]:
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    scores = scored_under(model, trainer, by_length(rows), batch_size)
    metrics, is_noisy = {}, noise.is_noisy(scores.sample_id)
    for name, which in (("clean", ~is_noisy), ("corrupted", is_noisy)):
        if n := int(scores.targets[which].sum()):
            metrics[f"train_nll_{name}"] = {"value": float(scores.nll[which].sum()) / n, "n": n, **_NATS}
    if scores.is_noisy is None:  # pairs that were chosen by their noise, or for it
        return metrics
    if 0 < scores.is_noisy.sum() < len(scores.is_noisy):
        # What noisy pairs are looked for by: the posterior, else the mean NLL, as loss truncation does.
        suspicion = scores.mean_nll if scores.p_clean is None else -scores.p_clean
        auroc = float(roc_auc_score(scores.is_noisy, suspicion))
        metrics["row_auroc"] = {"value": auroc, "n": len(scores.is_noisy)}
    if trainer.objective.source == "learned" and (rate := trainer.objective.error_rate) is not None:
        metrics["learned_error_rate"] = {"value": rate, "n": len(trainer.train_dataset)}
    return metrics
