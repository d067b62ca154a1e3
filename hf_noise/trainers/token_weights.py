"""What an audit of tokens found, as something that a stock Trainer or SFT trainer learns from.

A Trainer hands its `compute_loss_func` the outputs, the labels and how many there are, and nothing else. So a weight
travels in the label that it belongs to: its upper bits hold the weight, its lower ones the token, and -100 stays what
it is. Any collator that pads labels with -100 does, such as `DataCollatorForSeq2Seq`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_noise.noise.arrays import integers, real_numbers
from hf_noise.noise.checks import check_real

__all__ = ["split_labels", "weighted_labels", "weighted_loss", "with_weights"]

_TOKEN_BITS, _STEPS = 32, 1 << 16  # of a token, and of a weight in [0, 1]
_IGNORED = -100


def with_weights(rows: Any, audit: str | Path, *, threshold: float | None = None) -> Any:
    """A data set with what `audit_tokens` found of it: new columns `weights` and `labels` beside `input_ids`.

    `weights` are lists of floats in [0, 1], p(clean) of each token, 1 for those that are no target of the audit, such
    as the first of a row. Without a threshold `labels` carry them (`weighted_labels`): train on them by
    `compute_loss_func=weighted_loss`. With one they are plain labels, -100 where the weight is below it, for any loss.

    Args:
        rows: `datasets.Dataset` with `input_ids` and, unless the audit counted rows, `sample_id`; and `labels`, if
            other than the inputs are to be learned.
        audit: file of `audit_tokens` on these rows.
        threshold: in (0, 1].

    Raises:
        TypeError: rows are no `datasets.Dataset`.
        ValueError: the audit has no weights, is of other rows, or the threshold is out of its range.
    """
    from datasets import Dataset

    if not isinstance(rows, Dataset):
        raise TypeError(f"rows must be a datasets.Dataset, got {type(rows).__name__}")
    if "input_ids" not in rows.column_names:
        raise ValueError(f"rows need the column input_ids, they have: {', '.join(rows.column_names)}")
    if threshold is not None and not 0 < check_real("threshold", threshold) <= 1:
        raise ValueError(f"threshold must lie in (0, 1], got {threshold!r}")
    found = _weights_by_row(audit)
    ids = rows["sample_id"] if "sample_id" in rows.column_names else range(len(rows))
    column = "labels" if "labels" in rows.column_names else "input_ids"
    weights, labels = [], []
    for sample, tokens in zip(ids, rows[column], strict=True):
        position, weight = found.get(int(sample), (np.empty(0, dtype=np.int64), np.empty(0)))
        if len(position) and position.max() >= len(tokens):
            raise ValueError(f"the audit has a target {position.max()} in row {sample} of {len(tokens)} tokens; it is "
                             "of other rows")  # fmt: skip
        full = np.ones(len(tokens))
        full[position] = weight
        tokens = np.asarray(tokens, dtype=np.int64)
        weights.append(full)
        labels.append(weighted_labels(tokens, full) if threshold is None else np.where(full < threshold, -100, tokens))
    if not found.keys() <= set(map(int, ids)):
        raise ValueError(f"the audit has {len(found)} rows, of which some are not among these {len(rows)}")
    kept = rows.remove_columns([name for name in ("weights", "labels") if name in rows.column_names])
    return kept.add_column("weights", weights).add_column("labels", labels)


def weighted_labels(labels: Any, weights: Any) -> np.ndarray:
    """Labels int64 that carry weights, to 2^-16; -100 stays.

    Args:
        labels: integers of any shape in [0, 2^31], or -100.
        weights: float of the same shape in [0, 1].

    Raises:
        TypeError: labels are no integers, or weights no numbers.
        ValueError: shapes differ, or a number is out of its range.
    """
    labels, weights = integers("labels", labels).astype(np.int64), real_numbers("weights", weights)
    if labels.shape != weights.shape:
        raise ValueError(f"weights must be {list(labels.shape)} as labels, got {list(weights.shape)}")
    if not ((weights >= 0) & (weights <= 1)).all():
        raise ValueError(f"weights must lie in [0, 1], they span [{weights.min()}, {weights.max()}]")
    is_target = labels != _IGNORED
    if (wrong := is_target & ((labels < 0) | (labels > 1 << 31))).any():
        raise ValueError(f"labels must lie in [0, 2^31] or be -100, got {labels[wrong][0]}")
    steps = np.round(weights * _STEPS).astype(np.int64)
    # A step of 1 more than the weight, so that plain labels are told from those that carry one.
    return np.where(is_target, labels + ((steps + 1) << _TOKEN_BITS), _IGNORED)


def split_labels(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens int64 and weights float32 of labels that carry them; plain labels weigh 1, -100 weighs 0."""
    carried = labels >> _TOKEN_BITS
    tokens = torch.where(labels >= 0, labels & ((1 << _TOKEN_BITS) - 1), labels)
    weights = torch.where(carried > 0, (carried - 1) / _STEPS, 1.0).where(labels >= 0, 0.0)
    return tokens, weights.float()


def weighted_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None, **_: Any) -> Tensor:
    """Cross-entropy of a causal model with each target's weight, for `Trainer(compute_loss_func=weighted_loss)`.

    The sum of weight x NLL over all targets, divided by how many there are: a token that is likely wrong teaches
    little, and does not make the others teach more. Accumulation of gradients changes nothing.

    Args:
        outputs: of the model, with logits [B, L, V].
        labels: int64 [B, L] of `weighted_labels`, or plain ones.
        num_items_in_batch: targets of the whole step, as Trainer counts them; those of this batch if None.
    """
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs.logits
    tokens, weights = split_labels(labels)
    tokens = F.pad(tokens, (-1, 1), value=_IGNORED).flatten()
    weights = F.pad(weights, (-1, 1), value=0.0).flatten()
    nll = F.cross_entropy(logits.flatten(0, 1).float(), tokens, ignore_index=_IGNORED, reduction="none")
    count = (labels != _IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    return (nll * weights).sum() / count


def _weights_by_row(audit: str | Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    if "weight" not in pq.read_schema(audit).names:
        raise ValueError(f"{audit} has no column weight; audit_tokens() writes it anew")
    table = pq.read_table(audit, columns=["sample_id", "position", "weight"])
    sample, position, weight = (table[name].to_numpy() for name in table.column_names)
    order = np.argsort(sample, kind="stable")
    ids, starts = np.unique(sample[order], return_index=True)
    parts = zip(np.split(position[order], starts[1:]), np.split(weight[order], starts[1:]), strict=True)
    return {int(one): part for one, part in zip(ids, parts, strict=True)}
