"""`hf_noise/noisy`: any data set with a column of tokens, with noise in that column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import DatasetInfo, SplitGenerator

from hf_noise.data.builder import CorpusError, NoisyTokensBuilder, NoisyTokensConfig, first_sample_id, ratio_grid
from hf_noise.data.corrupt import CorruptColumn, corrupted_features
from hf_noise.data.sources import Shard, Source, check_column, find_source, with_features
from hf_noise.data.tokenization import find_tokenizer, tokenizer_identity

_BATCH = 1000  # rows


@dataclass
class NoisyConfig(NoisyTokensConfig):
    """Settings of `hf_noise/noisy`.

    Args:
        source: a local file, glob or folder, or a data set on the Hub; its splits and other columns are kept.
        column: the column to corrupt, lists of integer tokens of any lengths; -100 marks positions without a token.
        vocab_size: replacements are 0 .. vocab_size - 1. Give this or `tokenizer`, whose size is taken.
    """

    column: str | None = None
    vocab_size: int | None = None

    def check(self) -> None:
        super().check()
        if self.source is None or self.column is None:
            raise ValueError("say what to corrupt: source= (a file, a folder or a data set on the Hub) and column=")
        if (self.vocab_size is None) == (self.tokenizer is None):
            raise ValueError("give vocab_size= (the number of tokens), or the tokenizer= whose size it is")

    def identity(self) -> dict[str, Any]:
        changed = {**super().identity(), "source": self.found_source().identity}
        if self.tokenizer is not None:
            changed["tokenizer"] = tokenizer_identity(self.found_tokenizer())
        return changed

    def found_source(self) -> Source:
        return find_source(self.source, self.source_config)

    def found_tokenizer(self) -> Any:
        return find_tokenizer(self.tokenizer)


class Noisy(NoisyTokensBuilder):
    """The columns of the source, of which one is noisy; and `clean_<column>`, `is_noisy` and `sample_id` beside it.

    A source with an integer column `sample_id` keeps its own ids.
    """

    DESCRIPTION = """
A data set in which one column of tokens is corrupted: tokens of the train split are replaced by uniform draws from the
vocabulary at rate e = r / (1 + r) (paper A, algorithm 2). The original is in clean_<column>."""
    BUILDER_CONFIG_CLASS = NoisyConfig
    BUILDER_CONFIGS = ratio_grid(NoisyConfig)

    @cached_property
    def _vocab_size(self) -> int:
        size = self.config.vocab_size
        return len(self.config.found_tokenizer()) if size is None else size

    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def noisy_column(self) -> str:
        return self.config.column

    def _info(self) -> DatasetInfo:
        self.config.check()
        return self.describe(None)  # the columns are those of the source, which is looked at when it is read

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        source, column = self.config.found_source(), self.config.column
        splits = source.splits()
        self.check_noisy_splits(list(splits))
        for name, dataset in splits.items():
            check_column(dataset, column, source.name, "column")
            splits[name] = with_features(dataset)
        self.tell_noise()
        self.info.features = corrupted_features(next(iter(splits.values())).features, column)
        generators = []
        for name, dataset in splits.items():
            shards = source.shards(dataset)
            first_sample_id(name, len(shards) - 1, splits)  # too many shards or splits are refused at once
            # A tuple, because `datasets` would deal out the entries of a list to its processes.
            generators.append(SplitGenerator(name, {"shards": shards, "split": name, "splits": tuple(splits)}))
        return generators

    def _generate_tables(
        self, shards: list[Shard], split: str, splits: tuple[str, ...]
    ) -> Iterator[tuple[Any, pa.Table]]:
        function = CorruptColumn(self.noise_of(split), self.config.column, epoch=self.config.epoch)
        for shard in shards:
            sample = first_sample_id(split, shard.index, splits)
            for number, table in enumerate(shard.tables(_BATCH)):
                ids = np.arange(sample, sample + len(table))
                sample += len(table)
                try:
                    noisy = function(table, ids)
                except ValueError as error:
                    raise CorpusError(f"{self.config.source!r}, split {split!r}: {error}") from error
                yield (shard.index, number), noisy
