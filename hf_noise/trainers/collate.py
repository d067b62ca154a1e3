"""Rows of tokens to a batch of tensors that a language model can take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hf_noise.losses.nll import IGNORE_INDEX
from hf_noise.noise.arrays import as_array

__all__ = [
    "MODEL_INPUTS", "TokenBatches", "check_tokens", "collate_rows", "forward_names", "known_tokens", "model_inputs",
    "padded_on_the_right", "shown_columns", "text_config", "without_padding_as_context",
]  # fmt: skip

#: Columns that go into the model. Rows may hold more, such as the clean tokens beside noisy ones.
MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids", "token_type_ids")
#: All columns that are used; rows may hold others, of any kind, which are left alone.
USED = (*MODEL_INPUTS, "labels", "clean_labels", "is_noisy", "sample_id")

_BOOLEAN = (bool, np.bool_)  # which NumPy takes for 0 and 1 where they stand among integers

# What fills the end of a shorter row; 0 for every other column.
_FILL = {"labels": IGNORE_INDEX, "clean_labels": IGNORE_INDEX}


def collate_rows(rows: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Stack rows into int64 (bool for masks) tensors.

    Args:
        rows: one mapping of columns that are batches already, or a sequence of rows with `input_ids` and any of
            `attention_mask`, `position_ids`, `token_type_ids`, `labels`, `clean_labels`, `is_noisy`, `sample_id`.

    Returns:
        `input_ids`, `labels` (the inputs where rows have none) and the other columns, each [B, L] or [B]. Rows of
        different lengths are padded on the right, with `attention_mask` 0 and labels -100 there. Columns of other names
        are left out.

    Raises:
        ValueError: the rows have no `input_ids`, or a column is missing in some, or holds no integers, or as many axes
            as it should not; it and the row are named.
        TypeError: rows that are no mappings of columns.
    """
    if isinstance(rows, Mapping):
        batch = {name: _tensor(name, rows[name]) for name in USED if name in rows and not _is_text(name, rows[name])}
    else:
        if not isinstance(rows[0], Mapping):
            raise TypeError(f"rows must be mappings of columns, such as input_ids, got {type(rows[0]).__name__}")
        batch = {name: _column(name, rows) for name in USED if name in rows[0] and not _is_text(name, rows[0][name])}
        if "input_ids" in batch and "attention_mask" not in batch:
            lengths = torch.tensor([len(row["input_ids"]) for row in rows])
            if lengths.min() != lengths.max():
                batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    if "input_ids" not in batch:
        there = rows if isinstance(rows, Mapping) else rows[0]
        raise ValueError(f"rows need the column input_ids, they have: {', '.join(map(str, there))}")
    if "labels" not in batch:
        labels = batch["input_ids"]
        mask = batch.get("attention_mask")
        batch["labels"] = labels if mask is None else labels.masked_fill(mask == 0, _FILL["labels"])
    return batch


def _is_text(name: str, values: Any) -> bool:
    """Whether these are ids of a data set's own, such as file names: nothing is drawn from them."""
    if name != "sample_id":
        return False
    first = values if isinstance(values, str) or not len(np.shape(values)) else values[0] if len(values) else None
    return isinstance(first, str)


def _tensor(name: str, values: Any) -> Tensor:
    if isinstance(values, Tensor):
        if values.is_floating_point() or values.is_complex():
            raise ValueError(f"column {name!r} must hold integers, got {values.dtype}")
        return values if values.dtype == torch.bool else values.long()
    array = values if type(values) is np.ndarray else as_array(f"column {name!r}", values)
    if array.dtype.kind not in "iub" and array.size:
        first = repr(array.reshape(-1)[0].item() if array.dtype != object else array.reshape(-1)[0])[:50]
        raise ValueError(f"column {name!r} must hold integers, got {array.dtype} such as {first}")
    if array.dtype == np.uint64 and array.size and array.max() >= 1 << 63:
        raise ValueError(f"column {name!r} holds {array.max()}, the largest integer it can be is 2**63 - 1")
    # A copy in any case: rows may be read-only views on a mapped file.
    return torch.from_numpy(array.astype(np.bool_ if array.dtype == np.bool_ else np.int64))


def _column(name: str, rows: Sequence[Mapping[str, Any]]) -> Tensor:
    try:
        made = _stacked(name, [row[name] for row in rows])
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(_fault_of(name, rows) or str(error)) from error
    if made.ndim != 1 + _axes(name) or name == "sample_id" and any(isinstance(row[name], _BOOLEAN) for row in rows):
        raise ValueError(_fault_of(name, rows))
    return made


def _stacked(name: str, values: list) -> Tensor:
    if np.ndim(values[0]) == 0:
        return _tensor(name, values)
    if len({len(value) for value in values}) == 1:
        return _tensor(name, np.stack(values))
    rows = [_tensor(name, value) for value in values]
    return pad_sequence(rows, batch_first=True, padding_value=_FILL.get(name, 0))


def _axes(name: str) -> int:
    """Of a column in one row."""
    return 0 if name == "sample_id" else 1


def _fault_of(name: str, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What is wrong with the first row whose column is no integer, or no sequence of them."""
    kind = "a sequence of integers" if _axes(name) else "one integer"
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping) or name not in row:
            return f"row {i} of the batch has no column {name!r}, which row 0 has"
        try:
            found = _tensor(name, row[name])
        except (TypeError, ValueError) as error:
            return f"row {i} of the batch: column {name!r} holds {row[name]!r:.50}, not {kind} ({error})"
        if found.ndim != _axes(name) or name == "sample_id" and found.dtype == torch.bool:
            return f"row {i} of the batch: column {name!r} holds {row[name]!r:.50}, not {kind}"
    return None


def padded_on_the_right(batch: dict[str, Tensor], rows: Any) -> dict[str, Tensor]:
    """A batch whose collator put padding before rows, with it behind them: noise is drawn by the position in a row."""
    mask = batch.get("attention_mask")
    if mask is None or mask.ndim != 2 or not isinstance(rows, list) or not bool((mask[:, 0] == 0).any()):
        return batch
    length = mask.shape[1]
    added = [length - len(row["input_ids"]) if "input_ids" in row else 0 for row in rows]  # rows may hold their own
    first = torch.tensor(added).clamp_min(0).minimum(mask.long().argmax(1))
    order = (torch.arange(length) + first[:, None]) % length
    moved = {name: values.gather(1, order) if values.shape == mask.shape else values for name, values in batch.items()}
    is_added = torch.arange(length) >= length - first[:, None]
    return {
        name: values.masked_fill(is_added, IGNORE_INDEX) if name in ("labels", "clean_labels") else values
        for name, values in moved.items()
    }


def without_padding_as_context(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch in which padding, wherever it stands, moves no position and is no target's only context.

    What follows a position of padding is no target: after padding on the left that is the first token of a text, which
    nothing predicts, as without padding. Positions count from the first token of a text.
    """
    mask = batch.get("attention_mask")
    if mask is None or mask.ndim != 2:
        return batch
    follows_padding = F.pad(mask, (1, 0), value=1)[:, :-1] == 0
    batch = {**batch, "labels": batch["labels"].masked_fill(follows_padding, IGNORE_INDEX)}
    if "position_ids" not in batch and bool((mask[:, 0] == 0).any()):
        batch["position_ids"] = (mask.long().cumsum(-1) - 1).clamp_min(0)
    return batch


@dataclass(frozen=True)
class TokenBatches:
    """Batches of any collator as trainers on tokens take them: its columns alone, tokens in range, padding aside.

    Args:
        collator: rows -> mapping of tensors.
        vocab_size: tokens that the model knows.
        longest: positions that the model has embeddings of; None if any number will do.
        shown: the columns that the collator is shown, as `remove_unused_columns` has it; None for all of them, which it
            sees too where rows have none of `input_ids`.
        is_causal: the model predicts a target from what stands before it.
    """

    collator: Callable[[Any], Mapping[str, Any]]
    vocab_size: int
    longest: int | None = None
    shown: frozenset[str] | None = None
    is_causal: bool = True

    def __call__(self, rows: Any) -> dict[str, Tensor]:
        made = self._collated(shown_columns(rows, self.shown, "input_ids"))
        if not isinstance(made, Mapping) or "input_ids" not in made or "labels" not in made:
            given = ", ".join(map(str, made)) if isinstance(made, Mapping) else type(made).__name__
            raise ValueError(f"a batch needs input_ids and labels, the collator (data_collator=) gives: {given}")
        is_ours = self.collator is collate_rows  # whose columns are such tensors
        batch = made if is_ours else {name: _tensor(name, made[name]) for name in USED if name in made}
        batch = padded_on_the_right(batch, rows)
        shape = tuple(batch["input_ids"].shape)
        if len(shape) != 2 or batch["labels"].shape != shape:
            raise ValueError(
                f"input_ids and labels of a batch must be [B, L] of the same shape, got {list(shape)} and "
                f"{list(batch['labels'].shape)}; a row's input_ids is one sequence of tokens"
            )
        if self.longest is not None and shape[1] > self.longest:
            raise ValueError(
                f"rows have {shape[1]} tokens, the model has positions for {self.longest}; cut or pack the rows to "
                "that length"
            )
        check_tokens(batch, self.vocab_size)
        return without_padding_as_context(batch) if self.is_causal else batch

    def _collated(self, rows: Any) -> Any:
        try:
            return self.collator(rows)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if not isinstance(rows, Mapping) or self.collator is collate_rows:
                raise
            raise TypeError(
                f"the collator (data_collator=) fails ({type(error).__name__}: {error}) on the mapping of columns that "
                "these rows give for a batch, as PackedRows does; leave it out, or write one for a mapping"
            ) from error


def shown_columns(rows: Any, shown: frozenset[str] | None, needed: str) -> Any:
    """Rows without the columns that are not shown; as they are if none is left out, or they lack the one needed."""
    if shown is None or not isinstance(rows, list) or not isinstance(rows[0], Mapping) or needed not in rows[0]:
        return rows
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(f"rows must be mappings of columns, such as {needed}, row {i} of the batch is {row!r:.50}")
    return [{name: value for name, value in row.items() if name in shown} for row in rows]


def check_tokens(batch: Mapping[str, Tensor], vocab_size: int) -> None:
    """Raise ValueError for tokens of a batch outside [0, V), or labels that are neither that nor -100.

    Tensors on a GPU are not looked at, which would make it wait.
    """
    for name in ("input_ids", "labels"):
        values = batch[name]
        if not values.numel() or values.device.type != "cpu" or (name == "labels" and values is batch["input_ids"]):
            continue
        # Read as unsigned, negative values are the largest: one look tells that all is well.
        if values.dtype == torch.int64 and values.numpy().view(np.uint64).max() < vocab_size:
            continue
        outside = (values >= vocab_size) | (values < 0)
        if name == "labels":
            outside &= values != IGNORE_INDEX
        where = outside.nonzero()
        if len(where):
            row = int(where[0, 0])
            named = f"sample_id {int(batch['sample_id'][row])}" if "sample_id" in batch else f"row {row} of the batch"
            raise ValueError(
                f"{name} hold {int(values[tuple(where[0])])} ({named}), the model knows the tokens 0 to "
                f"{vocab_size - 1}{' and -100 for no target' if name == 'labels' else ''}; use the tokenizer of this "
                "model, or resize its embeddings: model.resize_token_embeddings(...)"
            )


def text_config(model: Any) -> Any:
    """The configuration of the language model in a model, which may have parts for images or sound beside it."""
    config = model.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def known_tokens(model: Any) -> int:
    """Number of tokens that a model has an embedding of; as its configuration says if it does not show them."""
    find = getattr(model, "get_input_embeddings", None)
    try:
        embeddings = find() if find is not None else None
    except (AttributeError, NotImplementedError):  # of models that have none
        embeddings = None
    return getattr(embeddings, "num_embeddings", None) or text_config(model).vocab_size


def forward_names(model: nn.Module) -> tuple[str, ...]:
    """What a model's forward takes, by name."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside an adapter of peft
    return tuple(inspect.signature(base.forward).parameters)


def model_inputs(model: nn.Module) -> tuple[str, ...]:
    """The columns of `MODEL_INPUTS` that a model's forward names; all of them if it names none."""
    named = forward_names(model)
    return tuple(name for name in MODEL_INPUTS if name in named) if "input_ids" in named else MODEL_INPUTS
