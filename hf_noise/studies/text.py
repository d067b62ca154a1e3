"""The text of a study of language models, as packed rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from datasets import IterableDataset
from transformers import TrainingArguments

import hf_noise
from hf_noise.data.held_rows import split_of
from hf_noise.data.packing import PackedRows
from hf_noise.data.tokenization import find_tokenizer, vocabulary_size
from hf_noise.studies.reading import source_of
from hf_noise.studies.text_settings import TextSettings

__all__ = ["Text", "options_of"]

SHUFFLE_BUFFER = 10_000  # rows of a stream among which the next one is drawn


@dataclass(frozen=True)
class Text:
    """Packed rows, the tokenizer they were made with, and the first training rows to measure on.

    `train` is a stream with `--streaming`, and then has no length.
    """

    train: PackedRows | IterableDataset
    validation: PackedRows | list
    sample: PackedRows | list
    tokenizer: Any

    def shuffled(self, seed: int) -> PackedRows | IterableDataset:
        """The training rows; a stream is shuffled in a buffer, stored rows are by the trainer's sampler."""
        return shuffled(self.train, seed)

    @property
    def train_rows(self) -> int | None:
        return len(self.train) if isinstance(self.train, PackedRows) else None

    @classmethod
    def load(cls, settings: TextSettings, args: TrainingArguments, score_rows: int) -> Text:
        """Read, tokenise and pack; of `score_rows` rows there is a sample."""
        tokenizer, options = find_tokenizer(settings.tokenizer), options_of(settings)
        if settings.streaming:
            splits = hf_noise.load_dataset(**options, streaming=True)
            train, validation = splits["train"], list(split_of(splits, "validation", settings.source))
            return cls(train, validation, list(train.take(score_rows)), tokenizer)
        with args.main_process_first(desc="packing"):
            splits = hf_noise.load_dataset(**options, num_proc=settings.num_proc)
        train = PackedRows(splits["train"])
        sample = torch.utils.data.Subset(train, range(min(score_rows, len(train))))
        return cls(train, PackedRows(split_of(splits, "validation", settings.source)), sample, tokenizer)

    def described(self, block_size: int) -> list[str]:
        """What the data are, for a dry run."""
        rows = "a stream of rows" if self.train_rows is None else f"{self.train_rows:,} rows"
        first = self.tokenizer.decode(self.sample[0]["input_ids"][: min(48, block_size)])
        return [
            f"{rows} of {block_size} tokens to train on, {len(self.validation):,} to validate on, columns "
            f"{', '.join(self.sample[0])}; vocabulary of {vocabulary_size(self.tokenizer):,} tokens",
            f"first row: {first!r}",
        ]

    def recorded(self, settings: TextSettings) -> dict[str, Any]:
        """The entry `data` of a record."""
        block = settings.block_size
        return {
            "source": settings.source, "tokenizer": settings.tokenizer,
            "vocab_size": vocabulary_size(self.tokenizer), "block_size": block, "train_rows": self.train_rows,
            "train_tokens": self.train_rows and self.train_rows * block,
            "validation_rows": len(self.validation), "validation_tokens": len(self.validation) * block,
        }  # fmt: skip


def options_of(settings: TextSettings) -> dict[str, Any]:
    """What `load_dataset` is told to make clean rows of this text."""
    options = dict(
        path="hf_noise/packed", source=source_of(settings.source), tokenizer=settings.tokenizer,
        validation_source=source_of(settings.validation_source), block_size=settings.block_size,
    )  # fmt: skip
    own = {name: getattr(settings, name) for name in ("text_column", "documents", "validation_fraction")}
    return options | {name: value for name, value in own.items() if value is not None}


def shuffled(rows: PackedRows | IterableDataset, seed: int) -> PackedRows | IterableDataset:
    """As `Text.shuffled`, for any rows."""
    return rows if isinstance(rows, PackedRows) else rows.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
