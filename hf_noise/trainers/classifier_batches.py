"""Rows of text, images or sound with a label each to batches of what a classifier's forward takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase, SequenceFeatureExtractor

from hf_noise.trainers.collate import check_tokens, forward_names, known_tokens, shown_columns
from hf_noise.trainers.image_batches import as_tensor, check_kind, check_labels, stacked, whole
from hf_noise.trainers.label_names import CLEAN_LABELS, LABELS, check_clean_beside, rename_remedy
from hf_noise.trainers.networks import longest_input

__all__ = ["LABEL_NAMES", "ClassifierBatches", "classifier_batches", "input_names"]

#: Columns beside those that a model takes, and other names that they may have.
_OF_LABELS = {
    "labels": LABELS, "clean_labels": CLEAN_LABELS, "is_noisy": ("is_noisy",), "sample_id": ("sample_id",),
}  # fmt: skip

LABEL_NAMES = frozenset(name for names in _OF_LABELS.values() for name in names)

_OF_TOKENS = ("input_ids", "token_type_ids", "position_ids")

#: What a forward calls its input -> how rows get it.
_MADE_BY = {
    "input_ids": "a tokenizer: rows = rows.map(lambda batch: tokenizer(batch['text'], truncation=True), batched=True)",
    "pixel_values": "an image processor, in a map or by with_transform: processor(images, return_tensors='pt')",
    "input_values": "a feature extractor: rows.map(lambda row: extractor(row['audio']['array'], sampling_rate=...))",
    "input_features": "a feature extractor: rows.map(lambda row: extractor(row['audio']['array'], sampling_rate=...))",
}


#: What models take that are called with anything, `forward(*args, **kwargs)`.
_USUAL = (*_MADE_BY, "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")


def input_names(model: Any) -> tuple[str, ...]:
    """What a model's forward takes by name, but for labels; the usual names if it names none. peft is looked through.
    """
    named = tuple(name for name in forward_names(model) if name not in (*LABEL_NAMES, "args", "kwargs"))
    return named if any(name in named for name in _USUAL) else (*named, *_USUAL)


def classifier_batches(model: Any, num_classes: int, options: Mapping[str, Any], removes_unused: bool) -> Any:
    """The collator of a run.

    Args:
        model: that takes the batches.
        num_classes: C of the model.
        options: of `transformers.Trainer`: its `data_collator`, else what its `processing_class` pads by.
        removes_unused: whether a collator of the user's own is shown no other columns than those that are used.
    """
    own, processor, takes = options.get("data_collator"), options.get("processing_class"), input_names(model)
    shown = frozenset((*takes, *LABEL_NAMES))
    needed = tuple(name for name in (getattr(model, "main_input_name", None), "inputs_embeds") if name in takes)
    if own is None:
        pads = isinstance(processor, PreTrainedTokenizerBase | SequenceFeatureExtractor)
        own, removes_unused = DataCollatorWithPadding(processor) if pads else _collate, True
    of_text = getattr(model, "main_input_name", None) == "input_ids"
    return ClassifierBatches(
        own, num_classes, takes, needed, shown if removes_unused else None,
        known_tokens(model) if of_text else None, longest_input(model) if of_text else None,
    )  # fmt: skip


def _collate(rows: Any) -> Any:
    """Rows whose columns have one size; a batch that a data set made as a whole stays as it is."""
    if isinstance(rows, Mapping):
        return rows
    return {name: _column(name, rows) for name in rows[0]}


def _column(name: str, rows: Sequence[Mapping[str, Any]]) -> Tensor:
    """A column of rows as one tensor: at once where its values are lists or numbers of one type, else row by row."""
    values = [row.get(name) if isinstance(row, Mapping) else None for row in rows]
    if (kind := type(values[0])) in (list, int, bool) and all(type(value) is kind for value in values):
        try:
            array = np.array(values)
        except ValueError:  # of several lengths, which are named below
            array = np.empty(0, dtype=object)
        if array.dtype.kind in "iub" or (array.dtype.kind == "f" and array.ndim > 1):
            return torch.from_numpy(array.astype(np.float32) if array.dtype.kind == "f" else array)
    remedy = "pad rows of several lengths: give processing_class= the tokenizer or the feature extractor"
    return stacked(name, rows, remedy)


@dataclass(frozen=True)
class ClassifierBatches:
    """Batches of any collator as a classifier's trainer takes them: what forward takes, and the columns of labels.

    Args:
        collator: rows -> mapping of tensors. It is to keep `clean_labels`, `is_noisy` and `sample_id` where rows have
            them, as those of transformers do.
        num_classes: C of the model; labels lie in [0, C).
        takes: what the model's forward takes, by name; other columns of a batch are left out.
        needed: of these what a batch cannot do without, one is enough; none for a model that does not say.
        shown: the columns that the collator is shown, as `remove_unused_columns` has it; None for all.
        vocab_size, longest: tokens that a model of text knows, and positions that it has; None where any will do.
    """

    collator: Callable[[Any], Mapping[str, Any]]
    num_classes: int
    takes: tuple[str, ...]
    needed: tuple[str, ...] = ()
    shown: frozenset[str] | None = None
    vocab_size: int | None = None
    longest: int | None = None

    def __call__(self, rows: Any) -> dict[str, Tensor]:
        first = rows[0] if isinstance(rows, list) and rows else rows
        if not isinstance(first, Mapping):
            raise TypeError(f"rows must be mappings of columns, such as {self._main}, got {type(first).__name__}")
        if self.shown is not None:  # else the collator may make what is needed of other columns
            self._check_there(first, "rows need", "they have")
        made = self.collator(self._shown(rows, first))
        if not isinstance(made, Mapping):
            raise TypeError(f"data_collator must give a mapping of columns, got {type(made).__name__}")
        self._check_there(made, "a batch needs", "the collator gives")
        batch = {name: as_tensor(name, made[name]) for name in self.takes if name in made}
        for use, names in _OF_LABELS.items():
            name = next((name for name in names if name in made), None)
            if name is not None and not (use == "sample_id" and _is_text(made[name])):
                batch[use] = as_tensor(name, made[name])
        return self._checked(batch)

    @property
    def _main(self) -> str:
        return self.needed[0] if self.needed else "labels"

    def _shown(self, rows: Any, first: Mapping[str, Any]) -> Any:
        """Rows without columns that are left out, among them ids of the data set's own, such as file names."""
        named = isinstance(first.get("sample_id"), str)
        if not named or not isinstance(rows, list):
            return shown_columns(rows, self.shown, self._main)
        shown = self.shown or frozenset(first)
        return shown_columns(rows, shown - {"sample_id"}, self._main)

    def _check_there(self, columns: Mapping[str, Any], who: str, has: str) -> None:
        there = ", ".join(map(str, columns)) or "no column"
        if self.needed and not any(name in columns for name in self.needed):
            made_by = _MADE_BY.get(self._main)
            raise ValueError(f"{who} {self._main}, which the model's forward takes, {has}: {there}"
                             + (f"; make it by {made_by}" if made_by else ""))  # fmt: skip
        if not any(name in columns for name in _OF_LABELS["labels"]):
            raise ValueError(f"{who} labels (or label), the number of each row's class, {has}: {there}; rename it and "
                             f"its like: {rename_remedy(columns)}")  # fmt: skip
        check_clean_beside(columns)

    def _check_tokens(self, batch: Mapping[str, Tensor]) -> None:
        for name in _OF_TOKENS:
            if name in batch and (batch[name].is_floating_point() or batch[name].ndim < 2):
                told = f"{batch[name].dtype} {list(batch[name].shape)}"
                raise ValueError(f"{name} must hold integers [B, L], got {told}; take what the tokenizer gives")
        tokens = batch.get("input_ids")
        if tokens is None:
            return
        if self.longest is not None and tokens.shape[-1] > self.longest:
            raise ValueError(f"rows have {tokens.shape[-1]} tokens, the model has positions for {self.longest}; cut "
                             f"them: tokenizer(text, truncation=True, max_length={self.longest})")  # fmt: skip
        if self.vocab_size is not None:
            check_tokens({**batch, "labels": tokens}, self.vocab_size)

    def _checked(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self._check_tokens(batch)
        labels = {name: batch[name] for name in ("labels", "clean_labels") if name in batch}
        for name, values in labels.items():
            check_kind(name, values)
            batch[name] = values.long()
        if "sample_id" in batch:
            batch["sample_id"] = whole("sample_id", batch["sample_id"]).long()
        if "is_noisy" in batch and batch["is_noisy"].dtype != torch.bool:
            batch["is_noisy"] = whole("is_noisy", batch["is_noisy"]).bool()
        check_labels({name: values for name, values in labels.items() if values.device.type == "cpu"}, self.num_classes)
        return batch


def _is_text(values: Any) -> bool:
    return isinstance(values, str) or (isinstance(values, list | tuple) and bool(values) and isinstance(values[0], str))
