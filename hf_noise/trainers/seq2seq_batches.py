"""Pairs of source and target to a batch of tensors that an encoder-decoder can take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_noise.losses.nll import IGNORE_INDEX
from hf_noise.noise.arrays import as_array
from hf_noise.pair_sizes import longest_pair, source_tokens, target_tokens
from hf_noise.trainers.collate import collate_rows, shown_columns
from hf_noise.trainers.marked import as_mask
from hf_noise.trainers.parts import is_table, per_row

__all__ = [
    "PairBatches", "check_special_tokens", "collate_pairs", "longest_pair", "noisy_pairs", "source_tokens",
    "target_tokens",
]  # fmt: skip

#: Columns of pairs that are used, beside those that an objective names.
PAIR_COLUMNS = ("input_ids", "attention_mask", "labels", "clean_labels", "is_noisy", "sample_id")
_TARGETS = ("labels", "clean_labels")
_SIDES = {"input_ids": "source", "labels": "target", "clean_labels": "clean target"}


def collate_pairs(
    rows: Sequence[Mapping[str, Any]], *, pad_token: int = 0, columns: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Stack rows of pairs, padded on the right.

    Args:
        rows: with `input_ids` (the source) and `labels` (the target), and any of `attention_mask`, `clean_labels`,
            `is_noisy` (one bool, or one for each target) and `sample_id`.
        pad_token: what fills up sources.
        columns: names of further columns, of one number a row.

    Returns:
        `input_ids` and `attention_mask` int64 [B, S]; `labels` int64 [B, L] and `clean_labels` int64 [B, C], -100 for
        none; `is_noisy` bool [B] or [B, L] as it was; `sample_id` int64 [B]; further columns float32 or int64 [B].

    Raises:
        ValueError: a column is missing in some rows, or holds other than it should; it and the row are named.
        TypeError: rows that are no mappings of columns.
    """
    if isinstance(rows, Mapping) or not all(isinstance(row, Mapping) for row in rows):
        raise TypeError("pairs must be rows, each a mapping of columns such as input_ids and labels, got "
                        f"{type(rows if isinstance(rows, Mapping) else rows[0]).__name__}")  # fmt: skip
    for name in ("input_ids", "labels"):
        for i, row in enumerate(rows):
            if row.get(name) is None:
                raise ValueError(f"pairs need the column {name}, row {i} of the batch has: {', '.join(map(str, row))}")
    by_row = "is_noisy" in rows[0] and np.ndim(rows[0]["is_noisy"]) == 0
    names = [name for name in PAIR_COLUMNS if not (by_row and name == "is_noisy")]
    batch = collate_rows([{name: row[name] for name in names if name in row} for row in rows])
    sources = batch["input_ids"]
    if "attention_mask" not in batch:
        batch["attention_mask"] = torch.ones_like(sources)
    else:
        batch["input_ids"] = sources.masked_fill(batch["attention_mask"] == 0, pad_token)
    if by_row:
        batch["is_noisy"] = torch.from_numpy(_flags(rows))
    for name in columns:
        if name not in batch and any(name in row for row in rows):
            batch[name] = _numbers(name, rows)
    return batch


def noisy_pairs(rows: Any) -> np.ndarray | None:
    """Whether the target of each stored row is noisy, bool [N]; None where that is not known before a row is made."""
    return per_row(rows, _mask_of)


def _mask_of(data: Any, index: np.ndarray | None) -> np.ndarray | None:
    mask: Any = None
    if is_table(data) and "is_noisy" in data.column_names:
        mask = data.select_columns(["is_noisy"]).with_format("arrow")[:]["is_noisy"].to_numpy()
    elif isinstance(data, list | tuple):
        values = [row.get("is_noisy") for row in data]
        mask = np.array(values) if all(np.ndim(value) == 0 for value in values) else None
    if mask is None or mask.dtype == object:
        return None
    return as_mask(mask if index is None else mask[index])


def _flags(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    flags = np.empty(len(rows), dtype=bool)
    for i, row in enumerate(rows):
        flag = row.get("is_noisy")
        if np.ndim(flag) or flag is None or flag not in (0, 1):
            raise ValueError(f"row {i} of the batch: column 'is_noisy' holds {flag!r:.50}, not True or False as row 0")
        flags[i] = bool(flag)
    return flags


def _numbers(name: str, rows: Sequence[Mapping[str, Any]]) -> Tensor:
    values = [row.get(name) for row in rows]
    for i, value in enumerate(values):
        if value is None or isinstance(value, str) or np.ndim(value):
            raise ValueError(f"row {i} of the batch: column {name!r} holds {value!r:.50}, not one number")
    array = as_array(name, values)
    if array.dtype.kind not in "biuf":
        odd = next((i for i, value in enumerate(values) if np.asarray(value).dtype.kind not in "biuf"), 0)
        raise ValueError(f"row {odd} of the batch: column {name!r} holds {values[odd]!r:.50}, not one number")
    return torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))


@dataclass(frozen=True)
class PairBatches:
    """Batches of any collator as a trainer on pairs takes them: its columns alone, tokens in range, no empty target.

    Args:
        collator: rows -> mapping of tensors; None for `collate_pairs`.
        source_tokens, target_tokens: that the model knows, on either side.
        longest: positions of source and target that the model has; None if any number will do.
        pad_token: what stands behind short sources.
        columns: further columns that an objective reads.
        shown: the columns that the collator is shown; None for all of them.
    """

    collator: Callable[[Any], Mapping[str, Any]] | None
    source_tokens: int
    target_tokens: int
    longest: tuple[int | None, int | None]
    pad_token: int
    columns: tuple[str, ...] = ()
    shown: frozenset[str] | None = None

    def __call__(self, rows: Any) -> dict[str, Tensor]:
        if self.collator is None:
            batch = collate_pairs(rows, pad_token=self.pad_token, columns=self.columns)
        else:
            batch = self._of_other(rows)
        sources, labels = batch["input_ids"], batch["labels"]
        if sources.ndim != 2 or labels.ndim != 2 or len(sources) != len(labels):
            raise ValueError(f"input_ids and labels of a batch of pairs must be [B, S] and [B, L], got "
                             f"{list(sources.shape)} and {list(labels.shape)}")  # fmt: skip
        _check_range("input_ids", batch, self.source_tokens)
        for name in _TARGETS:  # clean ones are what an evaluation is held against
            if name in batch:
                _check_targets(name, batch)
                _check_range(name, batch, self.target_tokens)
        self._check_lengths(batch)
        return batch

    def _of_other(self, rows: Any) -> dict[str, Tensor]:
        made = self.collator(shown_columns(rows, self.shown, "input_ids"))
        if not isinstance(made, Mapping) or "input_ids" not in made or "labels" not in made:
            given = ", ".join(map(str, made)) if isinstance(made, Mapping) else type(made).__name__
            raise ValueError(f"a batch needs input_ids and labels, the collator (data_collator=) gives: {given}")
        batch = collate_rows({name: made[name] for name in PAIR_COLUMNS if name in made})
        if "attention_mask" not in batch:
            batch["attention_mask"] = torch.ones_like(batch["input_ids"])
        return batch | {name: torch.as_tensor(made[name]) for name in self.columns if name in made}

    def _check_lengths(self, batch: Mapping[str, Tensor]) -> None:
        lengths = batch["attention_mask"].sum(-1)
        if len(empty := (lengths == 0).nonzero()):
            raise ValueError(f"the source of {_named(batch, int(empty[0]))} is empty; leave such rows out")
        for name in ("input_ids", *_TARGETS):
            most = self.longest[name != "input_ids"]
            if name in batch and most is not None and (length := batch[name].shape[1]) > most:
                row = int((lengths if name == "input_ids" else (batch[name] != IGNORE_INDEX).sum(-1)).argmax())
                raise ValueError(
                    f"the {_SIDES[name]} of {_named(batch, row)} has {length} tokens, the model has positions for "
                    f"{most}; cut the rows to that length, or leave long ones out"
                )


def _named(batch: Mapping[str, Tensor], row: int) -> str:
    return f"sample_id {int(batch['sample_id'][row])}" if "sample_id" in batch else f"row {row} of the batch"


def _check_targets(name: str, batch: Mapping[str, Tensor]) -> None:
    targets, n = batch[name], len(batch["labels"])
    if targets.ndim != 2 or len(targets) != n:
        raise ValueError(f"{name} of a batch of pairs must be [{n}, L] as its rows, got {list(targets.shape)}")
    first = targets[:, 0] if targets.shape[1] else targets.new_full((n,), IGNORE_INDEX)
    without = (first == IGNORE_INDEX).nonzero()
    if len(without):
        row = int(without[0])
        what = "is empty: each ends with the end token at least" if bool((targets[row] == IGNORE_INDEX).all()) else (
            "begins with -100: padding has to stand behind it, tokenizer.padding_side = 'right'")  # fmt: skip
        raise ValueError(f"the {_SIDES[name]} of {_named(batch, row)} {what}")


def _check_range(name: str, batch: Mapping[str, Tensor], size: int) -> None:
    values = batch[name]
    outside = (values >= size) | (values < 0)
    if name in _TARGETS:
        outside &= values != IGNORE_INDEX
    if not bool(outside.any()):
        return
    where, none = outside.nonzero()[0], " and -100 for no target" if name in _TARGETS else ""
    raise ValueError(
        f"the {_SIDES[name]} ({name}) of {_named(batch, int(where[0]))} holds the token {int(values[tuple(where)])}, "
        f"the model knows the tokens 0 to {size - 1} there{none}; use the tokenizer of this model, or resize its "
        "embeddings: model.resize_token_embeddings(...)"
    )


def check_special_tokens(model: Any) -> int:
    """The pad token of an encoder-decoder.

    Raises:
        ValueError: it is no encoder-decoder, or its config names no pad token, or no token that a decoder starts with.
    """
    base = _base(model)
    config, name = base.config, type(base).__name__
    if not getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{name} is no encoder-decoder (config.is_encoder_decoder); use one of AutoModelForSeq2SeqLM, "
                         "or CausalLMTrainer")  # fmt: skip
    for token, why in (("decoder_start_token_id", "with which the decoder starts"), ("pad_token_id", "for padding")):
        if getattr(config, token, None) is None:
            raise ValueError(f"{name} has no config.{token}, the token {why}; set it before training, such as "
                             f"model.config.{token} = tokenizer.{_SUGGESTED[token]}")  # fmt: skip
    return config.pad_token_id


_SUGGESTED = {
    "decoder_start_token_id": "cls_token_id (BERT) or pad_token_id (T5, Marian)",
    "pad_token_id": "pad_token_id",
}


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # inside an adapter of peft
