"""Look at whole rows through a trained model and its mixture: how likely each is clean, or another model's writing."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate.utils import gather_object
from torch import Tensor
from tqdm.auto import tqdm

from hf_noise.atomic import replaced_whole
from hf_noise.evaluation_mode import evaluation_mode
from hf_noise.losses.nll import IGNORE_INDEX
from hf_noise.losses.sequence_mixture import row_sums
from hf_noise.trainers.resuming import agreed
from hf_noise.trainers.scoring import check_stored, rows_at

__all__ = ["SequenceScores", "audit_sequences", "doubt_of", "score_sequences", "scored_under"]

logger = logging.getLogger(__name__)

_COLUMNS, _TOLD = ("sample_id", "targets", "nll", "other_nll", "p_clean", "log_odds"), "hf_noise"


@dataclass(frozen=True)
class SequenceScores:
    """One entry per row, all arrays [N].

    Attributes:
        sample_id: int64, the row.
        targets: int64, how many it has.
        nll: float64, -log p of the whole target under the model, in nats.
        other_nll: float64, -log q of it under the other writer; None of a loss that knows of none.
        log_odds: float64, of the row being clean, log p_clean - log(1 - p_clean): what rows are ranked by, also where
            p_clean rounds to 0 or 1, or there is doubt about it; None of a loss that tells no rows apart.
        is_noisy: bool, what its mask says; None where rows have none. Nothing else depends on it.
        groups: of a loss that goes by scores, the two groups that these rows show, see
            `hf_noise.losses.score_groups.ScoreGroups`: share, low, high, separation, valley; else empty.
        doubt: why nothing is told of single rows; p_clean is NaN then. None where rows are told apart.
    """

    sample_id: np.ndarray
    targets: np.ndarray
    nll: np.ndarray
    other_nll: np.ndarray | None
    log_odds: np.ndarray | None
    is_noisy: np.ndarray | None
    groups: Mapping[str, float] = field(default_factory=dict)
    doubt: str | None = None

    @property
    def mean_nll(self) -> np.ndarray:
        """NLL per target, what a search for noise with a plain model goes by; NaN for a row without a target."""
        with np.errstate(invalid="ignore"):
            return self.nll / self.targets

    @property
    def p_clean(self) -> np.ndarray | None:
        """Posterior float64 [N] in [0, 1] that the row is clean; NaN of all where there is doubt whether it says that.

        None of a loss that tells no rows apart.
        """
        if self.log_odds is None or self.doubt is not None:
            return None if self.log_odds is None else np.full(len(self.log_odds), np.nan)
        return np.exp(-np.logaddexp(0, -self.log_odds))

    @property
    def error_rate(self) -> float | None:
        """Share of rows that are not clean, the mean of 1 - p_clean; None where rows are not told apart.

        An estimate where e is not known, as good as what it rests on: that scores of either writer make one hill, of
        much the same width. Clean rows of two kinds are taken for two writers.
        """
        return None if self.log_odds is None or self.doubt is not None else float(np.mean(1 - self.p_clean))


def score_sequences(trainer: Any, rows: Any = None, *, batch_size: int | None = None) -> SequenceScores:
    """Score rows as a trainer of `SequenceMixture` sees them now, without dropout (a collective call, as `evaluate`).

    Args:
        trainer: a trainer on tokens whose loss is `SequenceMixture`, such as `Seq2SeqTrainer`.
        rows: map-style data set; by default those it is trained on. Their targets are taken as they are. Where the
            loss tells rows apart by scores, two groups are sought among those of these rows: give many, of both kinds.
        batch_size: rows per forward pass, by default those of an evaluation.

    Returns:
        The scores of all rows, in their order.

    Raises:
        TypeError: the trainer's loss tells no rows apart.
        ValueError: there are no rows; the loss needs an early copy of the model, and the trainer has none; a row has an
            NLL that is not finite.
    """
    if not _tells_rows_apart(trainer):
        told = getattr(trainer, "loss", trainer)
        raise TypeError(f"trainer must have a loss that tells rows apart, SequenceMixture, got {told!r:.80}")
    rows = trainer.train_dataset if rows is None else rows
    batch_size = trainer.args.per_device_eval_batch_size if batch_size is None else batch_size
    check_stored([] if rows is None else rows, batch_size)
    return _scored(trainer.model, trainer, rows, batch_size, trainer.args.process_index, trainer.args.world_size)


def scored_under(model: Any, trainer: Any, rows: Any, batch_size: int) -> SequenceScores:
    """As `score_sequences`, under a model in the place of the trainer's, of a trainer with any loss, in one process."""
    return _scored(model, trainer, rows, batch_size, 0, 1)


def audit_sequences(trainer: Any, output: str | Path, rows: Any = None) -> SequenceScores:
    """Write the scores of all rows as Parquet, and give them back; arguments and errors as `score_sequences`.

    Columns: sample_id, targets, nll, other_nll, p_clean, log_odds, and is_noisy where rows have a mask. The rows with
    the lowest log_odds are the ones to look at first. The metadata `hf_noise` has error_rate, groups and doubt as JSON.
    The main process writes the file, which appears complete or not at all.
    """
    if Path(output).is_dir():
        raise IsADirectoryError(f"output is a folder, {output}; give the name of a file in it, such as audit.parquet")
    scores = score_sequences(trainer, rows)

    def write() -> None:
        told = {name: getattr(scores, name) for name in ("error_rate", "groups", "doubt")}
        found = {name: getattr(scores, name) for name in (*_COLUMNS, "is_noisy")}
        table = pa.table({name: values for name, values in found.items() if values is not None})
        with replaced_whole(Path(output)) as unfinished:
            pq.write_table(table.replace_schema_metadata({_TOLD: json.dumps(told)}), unfinished, compression="zstd")

    agreed(trainer, write if trainer.is_world_process_zero() else None)
    return scores


def doubt_of(audit: str | Path) -> str | None:
    """Why a file of `audit_sequences` tells nothing of single rows; None where it does. ValueError: it is another."""
    told = (pq.read_schema(audit).metadata or {}).get(_TOLD.encode())
    if told is None:
        raise ValueError(f"{audit} does not say what its audit rests on; audit_sequences() writes it anew")
    return json.loads(told)["doubt"]


@torch.no_grad()
def _scored(model: Any, trainer: Any, rows: Any, batch_size: int, rank: int, world: int) -> SequenceScores:
    """Each process takes every so many-th batch; rows of like length are together."""
    if _tells_rows_apart(trainer):
        trainer.objective.check_can_tell()
    order = _order(trainer, rows)
    starts = range(rank * batch_size, len(rows), world * batch_size)
    parts = []
    with evaluation_mode(model, trainer.learned):
        for start in tqdm(starts, desc="rows", unit="batch", leave=False, disable=rank > 0 or len(starts) < 100):
            chosen = order[start : start + batch_size]
            inputs = trainer._prepare_inputs(trainer.data_collator(rows_at(rows, chosen.tolist())))
            parts.append((chosen, *_score(trainer, model, inputs, chosen)))
    parts = gather_object(parts) if world > 1 else parts
    places, *columns = zip(*parts, strict=True)
    back = np.argsort(np.concatenate(places))
    whole = [None if any(part is None for part in column) else np.concatenate(column)[back] for column in columns]
    sample, targets, nll, other, is_noisy = whole
    _check_finite("under the model", nll, sample)
    if other is None:
        return SequenceScores(sample, targets, nll, None, None, is_noisy)
    if trainer.objective.module is not None:
        _check_finite("under the other writer", other, sample)
    told = trainer.objective.told_apart(nll, other, targets)
    if told.doubt is not None:
        logger.warning("an audit of %d rows tells nothing of single ones: %s", len(nll), told.doubt)
    return SequenceScores(sample, targets, nll, other, told.log_odds, is_noisy, told.groups, told.doubt)


def _check_finite(where: str, nll: np.ndarray, sample: np.ndarray) -> None:
    if len(odd := np.flatnonzero(~np.isfinite(nll))):
        raise ValueError(f"the NLL of {len(odd)} of {len(nll)} rows {where} is not finite, {nll[odd[0]]} of sample_id "
                         f"{sample[odd[0]]}: the model has diverged, or the row holds what it cannot read")  # fmt: skip


def _order(trainer: Any, rows: Any) -> np.ndarray:
    """The longest first: what does not fit is seen at once, and little is padded."""
    lengths = trainer.row_lengths(rows)
    return np.arange(len(rows)) if lengths is None else np.argsort(-lengths, kind="stable")


def _tells_rows_apart(trainer: Any) -> bool:
    return hasattr(getattr(trainer, "objective", None), "of_other")


def _score(trainer: Any, model: Any, inputs: dict[str, Tensor], rows: np.ndarray) -> Iterator[np.ndarray | None]:
    """Of a batch: sample_id, targets, nll, other_nll and is_noisy as in `SequenceScores`."""
    labels, _ = trainer.targets(inputs, draw=False)
    targets, _ = trainer.aligned(labels, None)
    with trainer.accelerator.autocast():  # as the other writer is scored, also where the model lost its wrapper
        nll, *_ = trainer.token_nll(model, inputs, targets)
    is_target = targets != IGNORE_INDEX
    sample = inputs.get("sample_id")
    yield rows if sample is None else sample.cpu().numpy()
    yield is_target.sum(-1).cpu().numpy()
    yield row_sums(nll, is_target).double().cpu().numpy()
    if _tells_rows_apart(trainer):
        forward = trainer.forward_of(model, inputs, targets, sample)
        yield trainer.objective.of_other(targets, forward).double().cpu().numpy()
    else:
        yield None
    mask = inputs["is_noisy"].bool() if "is_noisy" in inputs else None
    yield None if mask is None else (mask.flatten(1).any(-1) if mask.ndim > 1 else mask).cpu().numpy()
