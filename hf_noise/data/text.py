"""The base of builders that tokenise text, pack it into rows of equal length and corrupt the targets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import DatasetInfo, Features, IterableDataset, SplitGenerator, Value

from hf_noise.data.builder import first_sample_id
from hf_noise.data.embedded import DOCS_TEXT
from hf_noise.data.held_out import check_apart, held_out_files, is_held_out
from hf_noise.data.packing import Packing, check_block_size
from hf_noise.data.reading import CorpusError, Shard, check_column, file_names, first_of, source_features
from hf_noise.data.settings import check_names
from hf_noise.data.sources import Source, find_source
from hf_noise.data.tokenization import find_tokenizer, tokenizer_identity, vocabulary_size
from hf_noise.data.tokens import NoisyTokensBuilder, NoisyTokensConfig
from hf_noise.noise.checks import check_real

__all__ = ["PackedTextBuilder", "PackedTextConfig"]

logger = logging.getLogger(__name__)

_BATCH = 256  # documents that are tokenised together
_LOCAL_VALIDATION_FRACTION = 0.01
_MOST_DROPPED = 0.01  # of the tokens, without a warning
_FEW_ROWS = 10  # for validation, below which a warning says so


@dataclass
class PackedTextConfig(NoisyTokensConfig):
    """Settings of text that is tokenised and packed.

    Args:
        block_size: tokens per row, >= 2.
        text_column: the column with the text of a document.
        validation_source: a second source, used whole as the validation split; no file of it is in `source` as well.
        validation_fraction: what is held out for validation if the source has no such split, in [0, 1); 0 for no such
            split. Of several files of any kind the share of the files, each whole, so that no file is on both sides;
            they are chosen by a hash of how they begin, and copies are on one side. In a single file, and in files of
            rows (Parquet, JSON, CSV, Arrow) of which the share is less than one, the share of the documents, chosen by
            a hash of their text, so that equal documents are on one side. See `hf_noise.data.held_out`.
    """

    source: str | None = DOCS_TEXT
    block_size: int = 1024
    text_column: str = "text"
    validation_source: str | None = None
    validation_fraction: float | None = None

    def check(self) -> None:
        super().check()
        self.block_size = check_block_size(self.block_size)
        if self.text_column is None:
            raise TypeError("text_column must be the name of a column, got None")
        check_names(self, "text_column")
        if self.validation_fraction is not None:
            self.validation_fraction = check_real("validation_fraction", self.validation_fraction)
            if not 0 <= self.validation_fraction < 1:
                raise ValueError(f"validation_fraction must lie in [0, 1), got {self.validation_fraction!r}")
        if self.validation_source is not None and self.validation_fraction:
            raise ValueError("give validation_source or validation_fraction, not both")

    def identity(self) -> dict[str, Any]:
        # What is behind the names counts: a file that was changed, or a tokenizer at another place.
        changed = {**super().identity(), "source": self.found_source().identity}
        if self.validation_source is not None:
            changed["validation_source"] = find_source(self.validation_source).identity
        return {**changed, "tokenizer": tokenizer_identity(self.found_tokenizer())}

    def source_choice(self) -> str:
        """The source that was asked for, or the default of this data set."""
        return type(self).source if self.source is None else self.source

    def found_source(self) -> Source:
        """The source, looked up again each time: a file may have changed."""
        return find_source(self.source_choice(), self.source_config)

    def tokenizer_choice(self) -> Any:
        """The tokenizer that was asked for, or the default."""
        return "embedded" if self.tokenizer is None else self.tokenizer

    def found_tokenizer(self) -> Any:
        """The tokenizer itself."""
        return find_tokenizer(self.tokenizer_choice())

    def held_out(self) -> float:
        """Share of documents to hold out for validation."""
        if self.validation_source is not None:
            return 0.0
        return _LOCAL_VALIDATION_FRACTION if self.validation_fraction is None else self.validation_fraction


class PackedTextBuilder(NoisyTokensBuilder):
    """Columns: `input_ids` [L] int32 the clean context, `labels` [L] int32 the noisy targets (index t is predicted
    from the tokens before t), `clean_labels` [L] int32, `is_noisy` [L] bool, `sample_id` int64.

    Documents of noise are noise as context and as target: `is_noisy` is True along the whole row. They come after the
    rows of text, so that there is no `clean_labels`; or, with `protocol_kwargs={"placement": "replace"}`, in the place
    of some, with `clean_input_ids` and `clean_labels`."""

    BUILDER_CONFIG_CLASS = PackedTextConfig

    _is_held_out = False  # the validation split, from the train split of the source

    @cached_property
    def tokenizer(self) -> Any:
        config, tokenizer = self.config, self.config.found_tokenizer()
        chosen = "default" if config.tokenizer is None else "given"
        what = (chosen, config.tokenizer_choice(), len(tokenizer))
        if config.tokenizer is None and config.tokenizer_choice() == "embedded" and config.source_choice() != DOCS_TEXT:
            # It was trained on another text, and few would choose so small a vocabulary for their own.
            logger.warning("%s tokenizer %r with %d tokens; choose another with tokenizer=", *what)
        else:
            logger.info("%s tokenizer %r with %d tokens", *what)
        return tokenizer

    @cached_property
    def _vocab_size(self) -> int:
        return vocabulary_size(self.tokenizer)

    def vocab_size(self) -> int:
        return self._vocab_size

    def _info(self) -> DatasetInfo:
        self.config.check()
        return self.describe(self.row_features(self.config.block_size))

    def end_of_text(self) -> int | None:
        return self.tokenizer.eos_token_id

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        config, source = self.config, self.config.found_source()
        splits = source.splits()
        if "train" not in splits:
            raise ValueError(f"the source {source.name!r} has no train split, only {', '.join(splits)}")
        # Data, where they are from, and of what is cut in two: which side, and its files if whole files are dealt out.
        parts: dict[str, tuple[IterableDataset, Source, bool | None, frozenset[str] | None]]
        parts = {"train": (splits["train"], source, None, None)}
        if config.validation_source is not None:
            other = find_source(config.validation_source)
            found = other.splits()
            chosen = "validation" if "validation" in found else "train"
            if chosen not in found:
                raise ValueError(f"{other.name!r} has no validation or train split, only {', '.join(found)}")
            check_apart(file_names(splits["train"]), file_names(found[chosen]), source.name, other.name)
            parts["validation"] = (found[chosen], other, None, None)
        elif "validation" in splits:
            parts["validation"] = (splits["validation"], source, None, None)
        elif config.held_out():
            self._is_held_out = True
            files = held_out_files(file_names(splits["train"]), config.held_out(), source.name)
            sides = {"train": False, "validation": True}
            parts = {split: (splits["train"], source, side, files) for split, side in sides.items()}
        if "test" in splits:
            parts["test"] = (splits["test"], source, None, None)
        self.check_noisy_splits(list(parts))
        self.tell_noise()
        return [self._split_generator(name, *part, dl_manager.is_streaming) for name, part in parts.items()]

    def _split_generator(
        self, split: str, dataset: IterableDataset, source: Source, held_out: bool | None,
        held_files: frozenset[str] | None, is_streaming: bool,
    ) -> SplitGenerator:  # fmt: skip
        column = self.config.text_column
        check_column(dataset, column, source.name, "text_column")
        kind = source_features(dataset, source.name)[column]
        if kind not in (Value("string"), Value("large_string"), Value("null")):
            holds = kind.dtype if isinstance(kind, Value) else kind
            raise CorpusError(
                f"column {column!r} holds {holds}, not text, in {source.name!r}; choose another with text_column="
                f"{first_of(dataset)}"
            )
        text = Features({column: kind if kind != Value("null") else Value("string")})
        shards = source.shards(source.narrowed(dataset, [column]), features=text)
        first_sample_id(split, len(shards) - 1)  # too many shards are refused before hours of work
        # One row must exist, which is known before hours of work. A stream is not searched for held-out documents:
        # there may be one in thousands, and each of them is a download.
        chosen = {"held_out": held_out, "held_files": held_files}
        if not (is_streaming and held_out) and not any(self._has_row(shard, **chosen) for shard in shards):
            remedy = "raise validation_fraction= (0: no such split)" if held_out else "give more text or smaller blocks"
            remedy += ", or lower validation_fraction=" if held_out is False else ""
            has_text = any(any(self._texts(shard, **chosen)) for shard in shards)
            lacks = "has no document" + (" with any text" if held_out is None else "")
            block = f"is shorter than one block of {self.config.block_size} tokens in each of its {len(shards)} shards"
            raise CorpusError(
                f"the {split} split of {source.name!r} {block if has_text else lacks}; {remedy}"
            )
        # Of a tuple `datasets` makes no parts: how much noise is added is known once all rows are counted.
        shards = tuple(shards) if self.config.adds_rows else shards
        return SplitGenerator(name=split, gen_kwargs={"shards": shards, "split": split, **chosen})

    def check_all_written(self, splits: list[str]) -> None:
        if self._is_held_out and (rows := self.info.splits["validation"].num_examples) < _FEW_ROWS:
            logger.warning(
                "validation of %r: %d row%s of %d tokens held out at validation_fraction=%g, too few to measure on; "
                "raise it, or give validation_source=",
                self.config.source_choice(), rows, "s" * (rows > 1), self.config.block_size, self.config.held_out(),
            )

    def _has_row(self, shard: Shard, held_out: bool | None, held_files: frozenset[str] | None) -> bool:
        packing = Packing(self.tokenizer, self.config.block_size)
        return next(packing.rows(self._texts(shard, held_out, held_files, batch_size=8)), None) is not None

    def _generate_tables(
        self, shards: list[Shard], split: str, held_out: bool | None, held_files: frozenset[str] | None
    ) -> Iterator[tuple[tuple[int, int], pa.Table]]:
        tokens = dropped = rows = 0
        for shard in shards:
            packing = Packing(self.tokenizer, self.config.block_size)
            sample = first_sample_id(split, shard.index)
            for number, block in enumerate(packing.rows(self._texts(shard, held_out, held_files))):
                ids = np.arange(sample, sample + len(block), dtype=np.int64)
                sample += len(block)
                yield (shard.index, number), pa.table(self.columns(block, ids, split))
            packing.log(f"{split} shard {shard.index}")
            tokens, dropped, rows = tokens + packing.tokens, dropped + packing.dropped, rows + packing.rows_made
        if dropped > _MOST_DROPPED * tokens:
            logger.warning(
                "%s: %d of %d tokens (%.1f%%) are in no row, because each of the %d shards read here drops what is "
                "left after its last row of %d; a smaller block_size=, or fewer and larger files, lose less",
                split, dropped, tokens, 100 * dropped / tokens, len(shards), self.config.block_size,
            )
        if self.config.adds_rows:
            after = 1 + max(shard.index for shard in shards)
            added = self.noise_rows(split, rows, first_sample_id(split, after), self.config.block_size)
            yield from (((after, number), pa.table(columns)) for number, columns in enumerate(added))

    def _texts(
        self, shard: Shard, held_out: bool | None, held_files: frozenset[str] | None, batch_size: int = _BATCH
    ) -> Iterator[list[str]]:
        """The documents of a shard that belong to this side of the split; `held_out` None for all of them."""
        column, share = self.config.text_column, self.config.held_out()
        by_file = None if held_files is None else lambda file: (file in held_files) == held_out
        for table in shard.tables(batch_size, [column], by_file):
            texts = [text for text in table[column].to_pylist() if text]
            if held_out is not None and by_file is None:
                texts = [text for text in texts if is_held_out(text, share) == held_out]
            yield texts
