"""`hf_noise/noisy`: any data set with a column of tokens or labels, with noise in that column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, DatasetInfo, IterableDataset, SplitGenerator

from hf_noise.data.builder import first_sample_id, ratio_grid
from hf_noise.data.columns import check_same_columns
from hf_noise.data.corrupt import CorruptColumn, corrupted_features, holds_labels, holds_tokens
from hf_noise.data.labels import SHARD_BYTES, NoisyLabelsBuilder, NoisyLabelsConfig, check_labels, one_column
from hf_noise.data.reading import CorpusError, Shard, check_column, first_of, with_features
from hf_noise.data.sample_ids import SeenIds, check_unique
from hf_noise.data.settings import check_names, check_sizes
from hf_noise.data.sources import Source, find_splits
from hf_noise.data.tokenization import find_tokenizer, tokenizer_identity, vocabulary_size
from hf_noise.data.tokens import NoisyTokensConfig
from hf_noise.noise import Noise
from hf_noise.noise.base import Unit
from hf_noise.noise.protocols import protocol_names

_BATCH = 1000  # rows


@dataclass
class NoisyConfig(NoisyLabelsConfig, NoisyTokensConfig):
    """Settings of `hf_noise/noisy`. Its splits and other columns are those of the source.

    Args:
        column: the column to corrupt: lists of integer tokens of any lengths (-100 marks positions without a token), or
            single labels, a `ClassLabel` or integers.
        vocab_size: for tokens; replacements are 0 .. vocab_size - 1. Give this or `tokenizer`, whose size is taken.
        num_classes: for integer labels, which are 0 .. num_classes - 1; a `ClassLabel` brings it.
        protocol: for labels, "symmetric" by default; for tokens, "uniform-tokens".
    """

    UNITS: ClassVar[str] = "units"
    NOISE_UNITS: ClassVar[tuple[Unit, ...]] = ("tokens", "labels")
    DEFAULT_PROTOCOL: ClassVar[str | None] = None
    SETTINGS: ClassVar[Mapping[str, str]] = {**NoisyTokensConfig.SETTINGS, **NoisyLabelsConfig.SETTINGS}
    takes_alpha: ClassVar[bool] = False

    protocol: str | None = None
    column: str | None = None
    vocab_size: int | None = None
    num_classes: int | None = None

    def check(self) -> None:
        super().check()
        check_names(self, "column")
        check_sizes(self, vocab_size=31, num_classes=20)
        if self.source is None or self.column is None:
            raise ValueError("say what to corrupt: source= (a file, a folder or a data set on the Hub) and column=")

    def check_kind(self, kind: Any, where: str = "") -> None:
        """Raise ValueError unless the settings fit the feature `kind` of the column; `where` it was found, in words."""
        if not holds_labels(kind) and not holds_tokens(kind):
            raise ValueError(
                f"column {self.column!r} holds {kind}; only lists of integer tokens can be corrupted, such as "
                "List(Value('int32')), and single labels, a ClassLabel or integers (text becomes a ClassLabel by "
                f"dataset.class_encode_column({self.column!r})){where}"
            )
        own, other = ("vocab_size", "tokenizer", "exclude_original"), ("num_classes", *_FOR_LABELS)
        what = "lists of tokens"
        if holds_labels(kind):
            own, other, what = other, own, "single labels"
        is_for_tokens = self.protocol in protocol_names("tokens")
        if self.protocol is not None and is_for_tokens == holds_labels(kind):
            other = ("protocol", *other)
        default = {field.name: field.default for field in fields(self)}
        if wrong := [f"{name}={getattr(self, name)!r}" for name in other if getattr(self, name) != default[name]]:
            raise ValueError(
                f"column {self.column!r} holds {kind}, {what}, for which {', '.join(wrong)} means nothing{where}"
            )
        if not holds_labels(kind):
            if (self.vocab_size is None) == (self.tokenizer is None):
                raise ValueError("give vocab_size= (the number of tokens), or the tokenizer= whose size it is")
        elif isinstance(kind, ClassLabel):
            if self.num_classes not in (None, kind.num_classes):
                raise ValueError(f"column {self.column!r} has {kind.num_classes} classes, not {self.num_classes}")
        elif self.num_classes is None:
            raise ValueError(f"column {self.column!r} holds {kind}; give num_classes=, the largest label plus one")

    def identity(self) -> dict[str, Any]:
        changed = super().identity()
        if self.tokenizer is not None:
            changed["tokenizer"] = tokenizer_identity(self.found_tokenizer())
        return changed

    def found_splits(self) -> dict[str, tuple[Source, IterableDataset]]:
        found = find_splits(self.source, self.source_config)
        for source, dataset in found.values():
            check_column(dataset, self.column, source.name, "column")
        found = {split: (source, with_features(dataset, source.name)) for split, (source, dataset) in found.items()}
        first = next(iter(found.values()))[1]
        self.check_kind(first.features[self.column], first_of(first))
        return found

    def found_tokenizer(self) -> Any:
        return find_tokenizer(self.tokenizer)


_FOR_LABELS = ("pairs", "human_source", "allow_adversarial", "allow_missing_classes")


class Noisy(NoisyLabelsBuilder):
    """The columns of the source, of which one is noisy; and `clean_<column>`, `is_noisy` and `sample_id` beside it.

    A source with an integer column `sample_id` keeps its own ids, which have to differ in all splits (a stream is
    checked as far as it is read). A clean split in which no row has a label (-1, as the "unsupervised" one of IMDB)
    stays as it is.
    """

    DESCRIPTION = """
A data set in which one column is corrupted: tokens (paper A, algorithm 2) or labels (papers A and C) of the train split
are replaced at rate e = r / (1 + r), or labels are those that people gave. The original is in clean_<column>."""
    BUILDER_CONFIG_CLASS = NoisyConfig
    BUILDER_CONFIGS = ratio_grid(NoisyConfig)
    KEEPS_UNLABELLED = True

    _own_ids = False

    @cached_property
    def _seen(self) -> dict[str, SeenIds]:
        return {}

    @cached_property
    def kind(self) -> Any:
        """The feature of the column to corrupt."""
        _, dataset = next(iter(self.config.found_splits().values()))
        return dataset.features[self.config.column]

    @cached_property
    def _vocab_size(self) -> int:
        size = self.config.vocab_size
        return vocabulary_size(self.config.found_tokenizer()) if size is None else size

    def vocab_size(self) -> int:
        """Number of tokens that replacements are drawn from."""
        return self._vocab_size

    def num_classes(self) -> int:
        return self.kind.num_classes if isinstance(self.kind, ClassLabel) else self.config.num_classes

    @property
    def noise(self) -> Noise:
        return super().noise if holds_labels(self.kind) else self.config.token_noise(self.vocab_size())

    def requested_rate(self, split: str) -> float:
        return super().requested_rate(split) if holds_labels(self.kind) else self.noise_of(split).error_rate

    def check_written(self, split: str) -> None:
        if holds_labels(self.kind):
            super().check_written(split)

    def check_all_written(self, splits: list[str]) -> None:
        if self._own_ids:

            def ids() -> Iterator[np.ndarray]:
                for split in splits:
                    yield from (batch[0].astype(np.int64, copy=False) for batch in self.written(split, ["sample_id"]))

            check_unique(ids, f"{self.config.source!r}, column 'sample_id'")

    def no_noise(self) -> Noise:
        if holds_labels(self.kind):
            return super().no_noise()
        return self.noise.without_noise()

    @property
    def noisy_column(self) -> str:
        return self.config.column

    def _info(self) -> DatasetInfo:
        self.config.check()
        return self.describe(None)  # the columns are those of the source, which is looked at when it is read

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        found, column = self.config.found_splits(), self.config.column
        self.check_noisy_splits(list(found))
        check_same_columns({split: dataset.features for split, (_, dataset) in found.items()}, self.config.source)
        features = next(iter(found.values()))[1].features
        self.kind, self._own_ids = features[column], "sample_id" in features
        is_label, human = holds_labels(self.kind), {}
        if is_label:
            every = np.arange(self.num_classes())
            self.info.features = corrupted_features(features, self.no_noise(), column)
            for split, (source, dataset) in found.items():
                human[split] = self.read_labels(split, source, dataset, column, every.size, every)
        self.tell_noise()
        self.info.features = corrupted_features(features, self.noise, column)
        generators = []
        for split, (source, dataset) in found.items():
            shards = source.shards(dataset, SHARD_BYTES if is_label else None, features)
            first_sample_id(split, len(shards) - 1, found)  # too many shards or splits are refused at once
            given = human.get(split) or [None] * len(shards)
            # A tuple, because `datasets` would deal out the entries of a list to its processes.
            settings = {"split": split, "splits": tuple(found), "is_streaming": dl_manager.is_streaming}
            generators.append(SplitGenerator(split, {"shards": shards, "human": given, **settings}))
        return generators

    def _generate_tables(
        self, shards: list[Shard], human: list[np.ndarray | None], split: str, splits: tuple[str, ...],
        is_streaming: bool,
    ) -> Iterator[tuple[Any, pa.Table]]:  # fmt: skip
        function = CorruptColumn(self.noise_of(split), self.config.column, epoch=self.config.epoch)
        where = f"{self.config.source!r}, split {split!r}"
        seen = self._seen.get(split) or SeenIds(f"{where}, column 'sample_id'")
        for shard, given in zip(shards, human, strict=True):
            # A stream comes here for each shard.
            self._seen[split] = seen = seen.of_shard(shard.index)
            sample, row = first_sample_id(split, shard.index, splits), 0
            for number, table in enumerate(shard.tables(_BATCH)):
                ids = np.arange(sample + row, sample + row + len(table))
                if given is not None:
                    labels = given[row : row + len(table)]
                else:
                    labels = self._kept(table, split, f"{where}, shard {shard.index}", row)
                row += len(table)
                try:
                    noisy = function(table, ids, labels)
                except ValueError as error:
                    raise CorpusError(f"{where}: {error}") from error
                if self._own_ids and is_streaming:  # else all are looked at once they are written
                    seen.add(noisy["sample_id"].to_numpy().astype(np.int64, copy=False))
                yield (shard.index, number), noisy

    def _kept(self, table: pa.Table, split: str, where: str, row: int) -> np.ndarray | None:
        """The labels of rows that have none, which stay; None for others, once they are known to be in range."""
        if not holds_labels(self.kind):
            return None
        clean = one_column(table, self.config.column)
        if self.is_unlabelled(split, clean):
            return clean
        check_labels(clean, self.num_classes(), where, row)
        return None
