"""The base of builders of pairs, source -> target, where a teacher wrote some of the targets."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetInfo, Features, SplitGenerator, Value

from hf_noise.data.builder import NoisyDataBuilder, first_sample_id
from hf_noise.data.counting import count_noisy
from hf_noise.data.held_rows import MissingSplitError
from hf_noise.data.pairs_reading import check_pairs_filled, read_pairs
from hf_noise.data.pairs_settings import NoisyPairsConfig
from hf_noise.data.reading import CorpusError
from hf_noise.data.sample_ids import check_unique
from hf_noise.data.sources import find_splits
from hf_noise.noise import NoisyTeacher, counter, noise_from_description

__all__ = ["NoisyPairsBuilder"]

logger = logging.getLogger(__name__)

_BATCH = 1000  # rows of a table
_SUBSET_STREAM = 7


class NoisyPairsBuilder(NoisyDataBuilder):
    """Columns: `source` and `target` (NOISY), `clean_target`, texts; `is_noisy` bool, one a row; `sample_id` int64.
    With `with_nll` also `teacher_nll` float32, the nats of the whole `target` under the teacher that wrote the noise.

    All rows of a split are in memory while it is built.
    """

    BUILDER_CONFIG_CLASS = NoisyPairsConfig
    DESCRIPTION = """
Pairs of texts. Whole targets (`target`) of the train split are those that a teacher wrote, at rate e = r / (1 + r)
(paper A, K.3); sources stay clean. The true targets are in `clean_target`."""

    _noise: NoisyTeacher | None = None

    @cached_property
    def _unfinished(self) -> dict[str, float]:
        """Of each split that was written for, the share of all its outputs that were cut."""
        return {}

    @property
    def noise(self) -> NoisyTeacher:
        if self._noise is not None:
            return self._noise
        stated = noise_from_description(self.info.description)
        return stated if isinstance(stated, NoisyTeacher) else self.no_noise()

    def no_noise(self) -> NoisyTeacher:
        return NoisyTeacher(ratio=0.0, seed=self.config.seed)

    @property
    def noisy_column(self) -> str:
        return "target"

    def _info(self) -> DatasetInfo:
        self.config.check()
        kinds = {name: Value("string") for name in ("source", "target", "clean_target")}
        kinds |= {"is_noisy": Value("bool"), "sample_id": Value("int64")}
        return self.describe(Features(kinds | ({"teacher_nll": Value("float32")} if self.config.wants_nll else {})))

    def told(self) -> dict[str, Any]:
        if not self.config.ratio:
            return super().told()
        limits = {name: getattr(self.config, name) for name in ("max_source_tokens", "max_target_tokens", "truncate")}
        limits["unfinished_outputs"] = self._unfinished
        return super().told() | {name: value for name, value in limits.items() if value}

    def _realised(self, split: str) -> dict[str, Any]:
        return count_noisy(self._columns_written(split, ["is_noisy"]))

    def download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        """As that of `datasets`, whose lock lets one process in; those that were started together write before it."""
        if int(os.environ.get("WORLD_SIZE", 1)) > 1 and self.config.ratio and not Path(self._output_dir).exists():
            self._splits  # noqa: B018 - parts are shared, and what this process read is kept
        super().download_and_prepare(*args, **kwargs)

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        splits = self._splits
        self.tell_noise()
        generators = []
        for split, columns in splits.items():
            parts = [(start, columns.slice(start, _BATCH)) for start in range(0, len(columns), _BATCH)]
            generators.append(SplitGenerator(split, {"parts": parts}))
        return generators

    @cached_property
    def _splits(self) -> dict[str, pa.Table]:
        """All columns of all splits; the noise is known then."""
        pairs = self._read()
        self.check_noisy_splits(list(pairs))
        noisy = [split for split in pairs if self.is_noisy_split(split)] if self.config.ratio else []
        if noisy:
            first = "train" if "train" in noisy else noisy[0]
            teacher = self._teacher(pairs)
            noise = NoisyTeacher(ratio=self.config.r, error_rate=self.config.error_rate, teacher=teacher.identity,
                                 seed=self.config.seed)  # fmt: skip
            self._noise = noise.exactly(pairs[first]["sample_id"].to_numpy()) if self.config.exact else noise
        return {
            split: self._noisy(split, table, teacher) if split in noisy else self._clean(table)
            for split, table in pairs.items()
        }

    def _generate_tables(self, parts: Sequence[tuple[int, pa.Table]]) -> Iterator[tuple[int, pa.Table]]:
        schema = self.info.features.arrow_schema
        for start, table in parts:
            yield start, table.select(schema.names).cast(schema)

    def _read(self) -> dict[str, pa.Table]:
        """All splits with `source`, `target` and `sample_id`, whole and checked."""
        config = self.config
        found, held = find_splits(config.source, config.source_config), config.held
        if held and "train" not in found:
            raise MissingSplitError("train", found, config.source_name)
        if taken := [split for split in held.splits if split in found]:
            raise ValueError(f"the source {config.source_name} has a {taken[0]} split already; leave out "
                             f"{taken[0]}_fraction=")  # fmt: skip
        pairs, splits = {}, [*found, *held.splits]
        whole = {split: read_pairs(*part, config.columns) for split, part in found.items()}
        for split in splits:
            table = whole[held.origin(split)]
            first = first_sample_id(held.origin(split), 0, found)
            numbers = np.arange(first, first + len(table))
            inside = held.rows(split, numbers)
            if not (has_ids := "sample_id" in table.column_names):
                table = table.append_column("sample_id", pa.array(numbers))
            table = table if inside is None else table.filter(pa.array(inside))
            if split == "train":
                table = self._subset(table)
            if not len(table):
                raise CorpusError(f"the split {split!r} of {config.source_name} came out empty")
            ids = table["sample_id"].to_numpy()
            names = ("sample_id", ids) if has_ids else ("row", ids - first)  # as its owner finds them
            check_pairs_filled(table, config.columns, f"the {split} split of {config.source_name}", *names)
            pairs[split] = table
        ids = [table["sample_id"].to_numpy() for table in pairs.values()]
        check_unique(lambda: ids, f"{config.source_name}, column 'sample_id'")
        return pairs

    def _subset(self, table: pa.Table) -> pa.Table:
        """`max_pairs` of the rows, those with the smallest words, in their order."""
        most = self.config.max_pairs
        if most is None or len(table) <= most:
            return table
        key = counter.stream_key(self.config.subset_seed, _SUBSET_STREAM, 0)
        words = counter.words_at(key, table["sample_id"].to_numpy())
        logger.info("%d of %d pairs of the train split are taken", most, len(table))
        return table.take(pa.array(np.sort(np.argpartition(words, most - 1)[:most])))

    @cached_property
    def _loaded(self) -> Any:
        from hf_noise.data.teacher_files import load_teacher

        config = self.config
        tokenizer = None if config.tokenizer is None or config.teacher is None else config.found_tokenizer()
        place = config.teacher if config.teacher is not None else self._trained
        return load_teacher(place, decoding=config.found_decoding, tokenizer=tokenizer, task=config.task)

    _trained: str | None = None

    def _teacher(self, pairs: Mapping[str, pa.Table]) -> Any:
        """The teacher, loaded; trained on the clean train split before, where none is named."""
        if self.config.teacher is None:
            from hf_noise.data.teacher_training import train_teacher

            if "train" not in pairs:
                raise MissingSplitError("train", pairs, self.config.source_name)
            train = Dataset(pairs["train"].select(["source", "target"]))
            self._trained = train_teacher(train, *self._how_to_train(train), **self.config.training())
        return self._loaded

    def _how_to_train(self, train: Dataset) -> tuple[Any]:
        from hf_noise.data.pair_tokens import pair_tokenizer

        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ValueError(
                "teacher_steps= trains a teacher while the data are built, which one process does alone; build them "
                "once before accelerate launch, or train with train_teacher() in all processes and give teacher= its "
                "folder"
            )
        if self.config.tokenizer is not None:
            return (self.config.found_tokenizer(),)
        return (pair_tokenizer(zip(train["source"], train["target"], strict=True), self.config.vocab_size),)

    def _clean(self, table: pa.Table) -> pa.Table:
        is_noisy = pa.array(np.zeros(len(table), dtype=bool))
        columns = table.append_column("clean_target", table["target"]).append_column("is_noisy", is_noisy)
        if not self.config.wants_nll:
            return columns
        return columns.append_column("teacher_nll", pa.array(self._nll(columns)))

    def _noisy(self, split: str, table: pa.Table, teacher: Any) -> pa.Table:
        from hf_noise.data.teacher_targets import unfinished, written_rows

        config, ids = self.config, table["sample_id"].to_numpy()
        noise = self.noise if not config.exact else self.noise.exactly(ids)
        written = written_rows(
            Dataset(table.select(["source", "sample_id"])), teacher, tokens_per_batch=config.tokens_per_batch,
            max_source_tokens=config.max_source_tokens, truncate=config.truncate, seed=config.seed,
        )  # fmt: skip
        self._unfinished[split] = round(unfinished(written.data["target_ids"], teacher), 6)
        noisy, is_noisy = noise.replaced(table["target"].to_pylist(), written["target"][:], ids)
        columns = table.append_column("clean_target", table["target"]).append_column("is_noisy", pa.array(is_noisy))
        columns = columns.set_column(columns.column_names.index("target"), "target", pa.array(noisy, pa.large_string()))
        if not config.wants_nll:
            return columns
        ids = written.data["target_ids"]
        chosen = pc.if_else(pa.array(is_noisy), ids, pa.scalar(None, ids.type))
        return columns.append_column("teacher_nll", pa.array(self._nll(columns, chosen)))

    def _nll(self, columns: pa.Table, chosen: pa.ChunkedArray | None = None) -> np.ndarray:
        """Of the tokens that the teacher chose where there are some, else of those that the text has."""
        from hf_noise.data.teacher_targets import teacher_nll

        config = self.config
        columns = columns.select(["source", "target", "is_noisy", "sample_id"])
        if chosen is not None:
            columns = columns.append_column("target_ids", chosen)
        return teacher_nll(
            Dataset(columns), self._loaded,
            tokens_per_batch=config.tokens_per_batch, max_source_tokens=config.max_source_tokens,
            max_target_tokens=config.max_target_tokens, truncate=config.truncate,
        )  # fmt: skip
