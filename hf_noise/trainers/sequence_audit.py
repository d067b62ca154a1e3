"""Look at whole rows through a trained model and its mixture: how likely each is clean, or another model's writing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from hf_noise.atomic import replaced_whole
from hf_noise.losses.nll import IGNORE_INDEX
from hf_noise.losses.sequence_mixture import row_sums
from hf_noise.trainers.scoring import check_stored, rows_from

__all__ = ["SequenceScores", "audit_sequences", "score_sequences", "scored_under"]


@dataclass(frozen=True)
class SequenceScores:
    """One entry per row, all arrays [N].

    Attributes:
        sample_id: int64, the row.
        targets: int64, how many it has.
        nll: float64, -log p of the whole target under the model, in nats.
        other_nll: float64, -log q of it under the other writer; None of a loss that knows of none.
        p_clean: float64 in [0, 1], posterior that the row is clean; None of a loss that tells no rows apart.
        is_noisy: bool, what its mask says; None where rows have none. Nothing else depends on it.
    """

    sample_id: np.ndarray
    targets: np.ndarray
    nll: np.ndarray
    other_nll: np.ndarray | None
    p_clean: np.ndarray | None
    is_noisy: np.ndarray | None

    @property
    def mean_nll(self) -> np.ndarray:
        """NLL per target, what a search for noise with a plain model goes by; NaN for a row without a target."""
        with np.errstate(invalid="ignore"):
            return self.nll / self.targets


def score_sequences(trainer: Any, rows: Any = None, *, batch_size: int | None = None) -> SequenceScores:
    """Score rows in their order, as a trainer of `SequenceMixture` sees them now, without dropout.

    Each process that calls it scores all rows, so that the main one alone need do so.

    Args:
        trainer: a trainer on tokens whose loss is `SequenceMixture`, such as `Seq2SeqTrainer`.
        rows: map-style data set; by default those it is trained on. Their targets are taken as they are.
        batch_size: rows per forward pass, by default those of an evaluation.

    Raises:
        TypeError: the trainer's loss tells no rows apart.
        ValueError: there are no rows.
    """
    if not _tells_rows_apart(trainer):
        told = getattr(trainer, "loss", trainer)
        raise TypeError(f"trainer must have a loss that tells rows apart, SequenceMixture, got {told!r:.80}")
    rows = trainer.train_dataset if rows is None else rows
    batch_size = trainer.args.per_device_eval_batch_size if batch_size is None else batch_size
    check_stored([] if rows is None else rows, batch_size)
    return scored_under(trainer.model, trainer, rows, batch_size)


@torch.no_grad()
def scored_under(model: Any, trainer: Any, rows: Any, batch_size: int) -> SequenceScores:
    """As `score_sequences`, under a model in the place of the trainer's, and of a trainer with any loss."""
    modes = [(one, one.training) for one in (model, trainer.learned) if one is not None]
    for one, _ in modes:
        one.eval()
    try:
        parts = [
            _score(trainer, model, trainer._prepare_inputs(trainer.data_collator(rows_from(rows, start, batch_size))),
                   start)
            for start in range(0, len(rows), batch_size)
        ]  # fmt: skip
    finally:
        for one, was_training in modes:
            one.train(was_training)
    columns = ([value for value in column if value is not None] for column in zip(*parts, strict=True))
    return SequenceScores(*(torch.cat(found).numpy() if len(found) == len(parts) else None for found in columns))


def audit_sequences(trainer: Any, output: str | Path, rows: Any = None) -> SequenceScores:
    """Write the scores of all rows as Parquet, and give them back; arguments and errors as `score_sequences`.

    Columns: sample_id, targets, nll, other_nll, p_clean. The rows with the lowest p_clean are the ones to look at
    first. The file appears complete or not at all.
    """
    scores = score_sequences(trainer, rows)
    names = ("sample_id", "targets", "nll", "other_nll", "p_clean")
    with replaced_whole(Path(output)) as unfinished:
        pq.write_table(pa.table({name: getattr(scores, name) for name in names}), unfinished, compression="zstd")
    return scores


def _tells_rows_apart(trainer: Any) -> bool:
    return hasattr(getattr(trainer, "objective", None), "of_other")


def _score(trainer: Any, model: Any, inputs: dict[str, Tensor], start: int) -> tuple[Tensor | None, ...]:
    """The entries of a batch in the order of `SequenceScores`, on the CPU."""
    labels, _ = trainer.targets(inputs, draw=False)
    targets, _ = trainer.aligned(labels, None)
    nll, *_ = trainer.token_nll(model, inputs, targets)
    is_target = targets != IGNORE_INDEX
    sample = inputs.get("sample_id", torch.arange(start, start + len(targets), device=targets.device))
    other = clean = mask = None
    if _tells_rows_apart(trainer):
        forward = trainer.forward_of(model, inputs, targets, sample)
        other = trainer.objective.of_other(targets, forward).cpu().double()
        clean = trainer.objective.clean_posterior(nll, targets, forward).cpu().double()
    if "is_noisy" in inputs:
        mask = inputs["is_noisy"].bool()
        mask = (mask.flatten(1).any(-1) if mask.ndim > 1 else mask).cpu()
    return sample.cpu(), is_target.sum(-1).cpu(), row_sums(nll, is_target).cpu().double(), other, clean, mask
