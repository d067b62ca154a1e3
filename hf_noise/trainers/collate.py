"""Rows of tokens to a batch of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hf_noise.losses.nll import IGNORE_INDEX

__all__ = ["MODEL_INPUTS", "collate_rows"]

#: Columns that go into the model. Rows may hold more, such as the clean tokens beside noisy ones.
MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids", "token_type_ids")

# What fills the end of a shorter row; 0 for every other column.
_FILL = {"labels": IGNORE_INDEX, "clean_labels": IGNORE_INDEX}


def collate_rows(rows: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Stack rows into int64 (bool for masks) tensors.

    Args:
        rows: one mapping of columns that are batches already, or a sequence of rows with `input_ids` and any of
            `labels`, `is_noisy`, `sample_id`, ...

    Returns:
        `input_ids`, `labels` (the inputs where rows have none) and the other columns, each [B, L] or [B]. Rows of
        different lengths are padded on the right, with `attention_mask` 0 and labels -100 there. Columns of text and
        the like are left out.

    Raises:
        ValueError: the rows have no `input_ids`.
    """
    if isinstance(rows, Mapping):
        batch = {name: _tensor(column) for name, column in rows.items() if _is_numeric(column)}
    else:
        names = [name for name, value in rows[0].items() if _is_numeric(value)]
        batch = {name: _column(name, [row[name] for row in rows]) for name in names}
        if "input_ids" in batch and "attention_mask" not in batch:
            lengths = torch.tensor([len(row["input_ids"]) for row in rows])
            if lengths.min() != lengths.max():
                batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    if "input_ids" not in batch:
        raise ValueError(f"rows need the column input_ids, they have: {', '.join(batch)}")
    if "labels" not in batch:
        labels = batch["input_ids"]
        mask = batch.get("attention_mask")
        batch["labels"] = labels if mask is None else labels.masked_fill(mask == 0, _FILL["labels"])
    return batch


def _is_numeric(values: Any) -> bool:
    return isinstance(values, Tensor) or np.asarray(values).dtype.kind in "iub"


def _tensor(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values if values.dtype == torch.bool else values.long()
    array = np.asarray(values)
    # A copy in any case: rows may be read-only views on a mapped file.
    return torch.from_numpy(array.astype(np.bool_ if array.dtype == np.bool_ else np.int64))


def _column(name: str, values: list) -> Tensor:
    if np.ndim(values[0]) == 0:
        return _tensor(values)
    if len({len(value) for value in values}) == 1:
        return _tensor(np.stack(values))
    return pad_sequence([_tensor(value) for value in values], batch_first=True, padding_value=_FILL.get(name, 0))
