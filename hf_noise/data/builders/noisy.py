"""`hf_noise/noisy`: any data set with a column of tokens or labels, or pairs of texts, with noise in that column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, DatasetInfo, Features, IterableDataset, SplitGenerator

from hf_noise.data.builder import first_sample_id, ratio_grid
from hf_noise.data.classes import Classes, is_label_kind, one_column
from hf_noise.data.columns import check_same_columns
from hf_noise.data.corrupt import CorruptColumn
from hf_noise.data.images import NoisyImagesBuilder, NoisyImagesConfig
from hf_noise.data.kinds import corrupted_features, holds_labels, holds_tokens
from hf_noise.data.labels import SHARD_BYTES, NoisyLabelsConfig, check_labels
from hf_noise.data.reading import CorpusError, Shard, check_column, first_of, with_features
from hf_noise.data.sample_ids import SeenIds, check_unique
from hf_noise.data.settings import check_names, check_sizes
from hf_noise.data.source_names import SourceLike
from hf_noise.data.sources import Source
from hf_noise.data.tokenization import find_tokenizer, tokenizer_identity, vocabulary_size
from hf_noise.data.tokens import NoisyTokensConfig
from hf_noise.noise import Noise
from hf_noise.noise.base import Unit
from hf_noise.noise.protocols import protocol_names

_BATCH = 1000  # rows


@dataclass
class NoisyConfig(NoisyImagesConfig, NoisyTokensConfig):
    """Settings of `hf_noise/noisy`. Its splits and other columns are those of the source.

    Args:
        column: the column to corrupt: lists of integer tokens of any lengths (-100 marks positions without a token), or
            single labels, a `ClassLabel`, words, booleans or integers. Words (sorted) and booleans (false, true) come
            out as a `ClassLabel`, and so do integers of which `num_classes` is not given.
        vocab_size: for tokens; replacements are 0 .. vocab_size - 1. Give this or `tokenizer`, whose size is taken.
        num_classes: for integer labels, which are 0 .. num_classes - 1 and keep their type; without it they have to be
            0, 1, 2, ... without a gap. Others bring it.
        protocol: for labels, "symmetric" by default; for tokens, "uniform-tokens".
        human_column, weak_column: beside labels that are true, a column of those that people or rules gave; they come
            out as the noisy ones, see `NoisyLabelsConfig`.
        image_column: the column with images. With it the data set is one of labelled images, and has their columns,
            whatever the source calls its own: `image`, `label`, `sample_id`, `clean_label` and `is_noisy`.
        check_images, on_error, image_size, resize: for images, see `NoisyImagesConfig`.
    """

    UNITS: ClassVar[str] = "units"
    LABEL_COLUMNS: ClassVar[tuple[str, ...]] = ()
    LABEL_OPTION: ClassVar[str] = "column"
    NOISE_UNITS: ClassVar[tuple[Unit, ...]] = ("tokens", "labels")
    DEFAULT_PROTOCOL: ClassVar[str | None] = None
    SETTINGS: ClassVar[Mapping[str, str]] = {**NoisyTokensConfig.SETTINGS, **NoisyLabelsConfig.SETTINGS}
    takes_alpha: ClassVar[bool] = False

    source: SourceLike | Mapping[str, SourceLike] | None = None
    column: str | None = None
    vocab_size: int | None = None
    num_classes: int | None = None

    def check(self) -> None:
        super().check()
        check_names(self, "column")
        check_sizes(self, vocab_size=31, num_classes=20)
        if self.source is None or self.column is None:
            missing = "source= (a file, a folder or a data set on the Hub)" * (self.source is None)
            missing += " and " * (self.source is None and self.column is None)
            missing += "column= (or columns=, the source and target of pairs)" * (self.column is None)
            raise ValueError(f"say what to corrupt: {missing}")
        if self.label_column is not None:
            raise ValueError(f"label_column={self.label_column!r} means nothing here; name the labels with column=")
        default = {field.name: field.default for field in fields(self)}
        if self.image_column is None and (wrong := [n for n in _FOR_IMAGES if getattr(self, n) != default[n]]):
            raise ValueError(f"{wrong[0]}={getattr(self, wrong[0])!r} is for images; name their column, image_column=")

    @property
    def labels_from(self) -> str | None:
        return self.column

    def check_kind(self, kind: Any, where: str = "") -> None:
        """Raise ValueError unless the settings fit the feature `kind` of the column; `where` it was found, in words."""
        if not is_label_kind(kind) and not holds_tokens(kind):
            raise ValueError(
                f"column {self.column!r} holds {kind}; only lists of integer tokens can be corrupted, such as "
                f"List(Value('int32')), and single labels: a ClassLabel, words, booleans or integers{where}"
            )
        own, other = ("vocab_size", "tokenizer", "exclude_original"), ("num_classes", *_FOR_LABELS)
        what = "lists of tokens"
        if is_label_kind(kind):
            own, other, what = other, own, "single labels"
        is_for_tokens = self.protocol in protocol_names("tokens")
        if self.protocol is not None and is_for_tokens == is_label_kind(kind):
            other = ("protocol", *other)
        default = {field.name: field.default for field in fields(self)}
        if wrong := [f"{name}={getattr(self, name)!r}" for name in other if getattr(self, name) != default[name]]:
            raise ValueError(
                f"column {self.column!r} holds {kind}, {what}, for which {', '.join(wrong)} means nothing{where}"
            )
        if not is_label_kind(kind):
            if (self.vocab_size is None) == (self.tokenizer is None):
                raise ValueError("give vocab_size= (the number of tokens), or the tokenizer= whose size it is")
        elif isinstance(kind, ClassLabel) and self.num_classes not in (None, kind.num_classes):
            raise ValueError(f"column {self.column!r} has {kind.num_classes} classes, not {self.num_classes}")

    def identity(self) -> dict[str, Any]:
        changed = super().identity()
        if self.tokenizer is not None:
            changed["tokenizer"] = tokenizer_identity(self.found_tokenizer())
        return changed

    def found_splits(self) -> dict[str, tuple[Source, IterableDataset]]:
        found = NoisyLabelsConfig.found_splits(self) if self.image_column is None else super().found_splits()
        for source, dataset in found.values():
            check_column(dataset, self.column, source.name, "column")
        found = {split: (source, with_features(dataset, source.name)) for split, (source, dataset) in found.items()}
        first = next(iter(found.values()))[1]
        self.check_kind(first.features[self.column], first_of(first))
        return found

    def found_tokenizer(self) -> Any:
        return find_tokenizer(self.tokenizer)


_FOR_LABELS = (
    "pairs", "human_source", "human_column", "weak_column", "allow_adversarial", "allow_missing_classes",
    "image_column",
)  # fmt: skip
_FOR_IMAGES = ("check_images", "on_error", "image_size", "resize")


class Noisy(NoisyImagesBuilder):
    """The columns of the source, of which one is noisy; and `clean_<column>`, `is_noisy` and `sample_id` beside it.
    With `image_column`, those of `NoisyImagesBuilder`.

    A source with an integer column `sample_id` keeps its own ids, which have to differ in all splits (a stream is
    checked as far as it is read). A clean split in which no row has a label (-1, as the "unsupervised" one of IMDB)
    stays as it is. With `columns` the data set is one of pairs, with the settings and columns of `NoisyPairsBuilder`.
    """

    DESCRIPTION = """
A data set in which one column is corrupted: tokens (paper A, algorithm 2) or labels (papers A and C) of the train split
are replaced at rate e = r / (1 + r), or labels are those that people gave. The original is in clean_<column>."""
    BUILDER_CONFIG_CLASS = NoisyConfig
    BUILDER_CONFIGS = ratio_grid(NoisyConfig)
    KEEPS_UNLABELLED = True

    _own_ids = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("columns") is None:
            return super().__new__(cls)
        from hf_noise.data.pairs_of_any import NoisyPairs

        return NoisyPairs(*args, **kwargs)

    @cached_property
    def _seen(self) -> dict[str, SeenIds]:
        return {}

    @cached_property
    def kind(self) -> Any:
        """The feature of the column to corrupt, as it comes out."""
        if self.info.features:
            return self.info.features[self.noisy_column]
        found = self.config.found_splits()
        kind = next(iter(found.values()))[1].features[self.config.column]
        if is_label_kind(kind):
            kind = self._label_feature(found)
            self._labels_read.clear()
        return kind

    def _label_feature(self, found: Mapping[str, tuple[Source, IterableDataset]]) -> Any:
        """That of the noisy labels: integers of a given number of classes stay what they are."""
        classes = self.source_classes(found, dict.fromkeys(found, self.config.column))
        kind = next(iter(found.values()))[1].features[self.config.column]
        return kind if classes.names is None else classes.feature()

    def source_classes(
        self, found: Mapping[str, tuple[Source, IterableDataset]], columns: Mapping[str, str]
    ) -> Classes:
        return self.find_classes(found, columns, "column", self.config.num_classes)

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

            check_unique(ids, f"{self.config.source_name}, column 'sample_id'")

    def no_noise(self) -> Noise:
        if holds_labels(self.kind):
            return super().no_noise()
        return self.noise.without_noise()

    @property
    def noisy_column(self) -> str:
        return self.config.column if self.config.image_column is None else super().noisy_column

    def _info(self) -> DatasetInfo:
        self.config.check()
        return self.describe(None)  # the columns are those of the source, which is looked at when it is read

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        if self.config.image_column is not None:
            return super()._split_generators(dl_manager)
        found, column = self.config.found_splits(), self.config.column
        self.check_noisy_splits(list(found))
        features, only = self._common_columns(found)
        self.kind, self._own_ids = features[column], "sample_id" in features
        is_label, human = is_label_kind(self.kind), {}
        if is_label:
            self.kind = self._label_feature(found)
            every = np.arange(self.num_classes())
            out = Features({**features, column: self.kind})
            self.info.features = corrupted_features(out, self.no_noise(), column)
            for split, (source, dataset) in found.items():
                human[split] = self.read_labels(split, source, dataset, column, every.size, every)
        self.tell_noise()
        self.info.features = corrupted_features(Features({**features, column: self.kind}), self.noise, column)
        generators = []
        for split, (source, dataset) in found.items():
            shards = source.shards(dataset, SHARD_BYTES if is_label else None, features)
            first_sample_id(split, len(shards) - 1, found)  # too many shards or splits are refused at once
            given = human.get(split) or [None] * len(shards)
            # Tuples, because `datasets` would deal out the entries of a list to its processes.
            settings = {
                "split": split, "splits": tuple(found), "only": only, "is_streaming": dl_manager.is_streaming
            }  # fmt: skip
            generators.append(SplitGenerator(split, {"shards": shards, "human": given, **settings}))
        return generators

    def _common_columns(
        self, found: Mapping[str, tuple[Source, IterableDataset]]
    ) -> tuple[Features, tuple[str, ...] | None]:
        """The columns of all splits; and their names, if the train split alone has the labels that people gave."""
        features = {split: dataset.features for split, (_, dataset) in found.items()}
        people = self.config.human_labels if self.config.human is not None else None
        having = [split for split, columns in features.items() if people in columns]
        is_partly_there = 0 < len(having) < len(features)
        if is_partly_there:
            features = {
                split: Features({name: kind for name, kind in columns.items() if name != people})
                for split, columns in features.items()
            }
        check_same_columns(features, self.config.source_name)
        common = next(iter(features.values()))
        return common, tuple(common) if is_partly_there else None

    def _generate_tables(
        self, shards: list[Shard], human: list[np.ndarray | None], split: str, splits: tuple[str, ...],
        is_streaming: bool, only: tuple[str, ...] | None = None, **of_images: Any,
    ) -> Iterator[tuple[Any, pa.Table]]:  # fmt: skip
        if of_images:
            yield from super()._generate_tables(shards, human, split, splits, is_streaming=is_streaming, **of_images)
            return
        function = CorruptColumn(self.noise_of(split), self.config.column, epoch=self.config.epoch)
        where, held = f"{self.config.source_name}, split {split!r}", self.config.held
        seen = self._seen.get(split) or SeenIds(f"{where}, column 'sample_id'")
        for shard, given in zip(shards, human, strict=True):
            # A stream comes here for each shard.
            self._seen[split] = seen = seen.of_shard(shard.index)
            sample, row = first_sample_id(held.origin(split), shard.index, splits), 0
            for number, table in enumerate(shard.tables(_BATCH, only and list(only))):
                ids = np.arange(sample + row, sample + row + len(table))
                table = self._as_numbers(table)
                labels = None if given is None else given[row : row + len(table)]
                inside = held.rows(split, ids)
                if inside is not None:
                    table, ids = table.filter(pa.array(inside)), ids[inside]
                    labels = None if labels is None else labels[inside]
                if labels is None:
                    labels = self._kept(table, split, f"{where}, shard {shard.index}", row)
                row += ids.size if inside is None else inside.size
                if not ids.size:
                    continue
                try:
                    noisy = function(table, ids, labels)
                except ValueError as error:
                    raise CorpusError(f"{where}: {error}") from error
                if self._own_ids and is_streaming:  # else all are looked at once they are written
                    seen.add(noisy["sample_id"].to_numpy().astype(np.int64, copy=False))
                yield (shard.index, number), noisy

    def _as_numbers(self, table: pa.Table) -> pa.Table:
        """The table with words, booleans and integers of a class as the numbers of a `ClassLabel`."""
        place = table.column_names.index(self.config.column)
        if not isinstance(self.kind, ClassLabel) or table[place].type == self.kind.pa_type:
            return table
        numbers = self._numbers(table[place], self.config.column)
        return table.set_column(place, self.config.column, pa.array(numbers, self.kind.pa_type))

    def _kept(self, table: pa.Table, split: str, where: str, row: int) -> np.ndarray | None:
        """The labels of rows that have none, which stay; None for others, once they are known to be in range."""
        if not holds_labels(self.kind):
            return None
        clean = one_column(table, self.config.column)
        if self.is_unlabelled(split, clean):
            return clean
        check_labels(clean, self.num_classes(), where, row)
        return None
