"""The base of builders that tokenise text, pack it into rows of equal length and corrupt the targets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import DatasetInfo, Features, IterableDataset, SplitGenerator, Value

from hf_noise.data.added import MASK, SHARE
from hf_noise.data.builder import first_sample_id
from hf_noise.data.counting import flat_values
from hf_noise.data.documents import DOCUMENTS, Ending, find_ending, pieces_of_files
from hf_noise.data.embedded import DOCS_TEXT
from hf_noise.data.held_out import Side, check_apart, held_out_files, is_held_out
from hf_noise.data.held_rows import MissingSplitError
from hf_noise.data.local_files import TEXT
from hf_noise.data.mixing import ShardText, less_than_a_token, mixed_rows
from hf_noise.data.packing import Packing, check_block_size
from hf_noise.data.reading import CorpusError, Shard, check_column, extension, file_names, first_of, source_features
from hf_noise.data.settings import check_names
from hf_noise.data.source_names import SourceLike, source_name
from hf_noise.data.sources import Source, find_source, find_splits, source_identity
from hf_noise.data.tokenization import find_tokenizer, tokenizer_identity, vocabulary_size
from hf_noise.data.tokens import NoisyTokensBuilder, NoisyTokensConfig
from hf_noise.noise.checks import check_real

__all__ = ["PackedTextBuilder", "PackedTextConfig"]

logger = logging.getLogger(__name__)

_BATCH = 256  # documents that are tokenised together
_LOCAL_VALIDATION_FRACTION = 0.01
_MOST_DROPPED = 0.01  # of the tokens, without a warning
_FEW_ROWS = 10  # for validation, below which a warning says so


_ALL = Side()


@dataclass
class PackedTextConfig(NoisyTokensConfig):
    """Settings of text that is tokenised and packed.

    Args:
        block_size: tokens per row, >= 2.
        text_column: the column with the text of a document.
        documents: what a document of a .txt or .md file is, "file" (the default), "line" or "paragraph" (blocks between
            blank lines). Rows of other files are documents.
        validation_source: a second source, used whole as the validation split; no file of it is in `source` as well.
        validation_fraction: what is held out for validation if the source has no such split, in [0, 1); 0 for no such
            split. Of several files of any kind the share of the files, each whole, so that no file is on both sides;
            they are chosen by a hash of how they begin, and copies are on one side. In a single file, and in files of
            rows (Parquet, JSON, CSV, Arrow) of which the share is less than one, the share of the documents, chosen by
            a hash of their text, so that equal documents are on one side. Of a single document the last part, from a
            paragraph (else a line or word) on, which the description tells. See `hf_noise.data.held_out`.
    """

    source: SourceLike | Mapping[str, SourceLike] | None = DOCS_TEXT
    block_size: int = 1024
    text_column: str = "text"
    documents: str | None = None
    validation_source: SourceLike | None = None
    validation_fraction: float | None = None

    def check(self) -> None:
        super().check()
        self.block_size = check_block_size(self.block_size)
        if self.text_column is None:
            raise TypeError("text_column must be the name of a column, got None")
        check_names(self, "text_column", "documents")
        if self.documents not in (None, *DOCUMENTS):
            raise ValueError(f"documents must be one of {', '.join(DOCUMENTS)}, got {self.documents!r}")
        if self.validation_fraction is not None:
            self.validation_fraction = check_real("validation_fraction", self.validation_fraction)
            if not 0 <= self.validation_fraction < 1:
                raise ValueError(f"validation_fraction must lie in [0, 1), got {self.validation_fraction!r}")
        if self.validation_source is not None and self.validation_fraction:
            raise ValueError("give validation_source or validation_fraction, not both")

    def identity(self) -> dict[str, Any]:
        # What is behind the names counts: a file that was changed, or a tokenizer at another place.
        changed = {**super().identity(), "source": source_identity(self.source_choice(), self.source_config)}
        if self.documents == "file":
            changed.pop("documents")
        if self.validation_source is not None:
            changed["validation_source"] = source_identity(self.validation_source)
        return {**changed, "tokenizer": tokenizer_identity(self.found_tokenizer())}

    def source_choice(self) -> Any:
        """The source that was asked for, or the default of this data set."""
        return type(self).source if self.source is None else self.source

    @property
    def source_name(self) -> str:
        return source_name(self.source_choice())

    def found_splits(self, source: Any = None) -> dict[str, tuple[Source, IterableDataset]]:
        """The splits of the source, or of another one, looked up again each time: a file may have changed."""
        documents = self.documents or "file"
        if source is None:
            source, config = self.source_choice(), self.source_config
        else:
            config = None
        if isinstance(source, Mapping):
            return find_splits(source, config, documents)
        found = find_source(source, config, documents)
        return {split: (found, dataset) for split, dataset in found.splits().items()}

    @property
    def is_local(self) -> bool:
        """Whether the source is on this machine."""
        source = self.source_choice()
        parts = source.values() if isinstance(source, Mapping) else [source]
        return all(find_source(part).is_local for part in parts)

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

    Documents of noise, of the length of a row, are noise as context and as target. They come after the text; or, with
    `protocol_kwargs={"placement": "interleave"}`, between its documents; there is no `clean_labels`, and `noise_share`
    float32 says how much of a row is noise. With `{"placement": "replace"}` whole rows take the place of some, with
    `clean_input_ids` and `clean_labels`."""

    BUILDER_CONFIG_CLASS = PackedTextConfig
    TEXT = ""  # what it is, in words

    _is_held_out = False  # the validation split, from the train split of the source
    _ending: Ending | None = None  # where it begins in a single document

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

    def text_of_description(self) -> str:
        return f"{self.TEXT} {self.config.described}"

    def end_of_text(self) -> int | None:
        return self.tokenizer.eos_token_id

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        config, splits = self.config, self.config.found_splits()
        if "train" not in splits:
            raise MissingSplitError("train", splits, f"the source {config.source_name}")
        source, train = splits["train"]
        if config.documents is not None and not source.is_text:
            raise ValueError(
                f"documents={config.documents!r} is for .txt and .md files; of {config.source_name} each row is a "
                "document, so leave it out"
            )
        parts = {split: (*part, _ALL) for split, part in splits.items() if split in ("train", "validation", "test")}
        if config.validation_source is not None:
            found = config.found_splits(config.validation_source)
            chosen = "validation" if "validation" in found else "train"
            if chosen not in found:
                named = source_name(config.validation_source)
                raise ValueError(f"{named} has no validation or train split, only {', '.join(found)}")
            other, validation = found[chosen]
            check_apart(file_names(train), file_names(validation), source.name, other.name)
            parts["validation"] = (other, validation, _ALL)
        elif "validation" not in splits and config.held_out():
            for side, of_it in zip(("train", "validation"), self._sides(source, train), strict=True):
                parts[side] = (source, train, of_it)
        parts = {split: parts[split] for split in ("train", "validation", "test") if split in parts}
        self.check_noisy_splits(list(parts))
        self.tell_noise()
        return [self._split_generator(name, *part, dl_manager.is_streaming) for name, part in parts.items()]

    def _sides(self, source: Source, train: IterableDataset) -> tuple[Side, Side]:
        """The two sides of what is cut in two for validation."""
        share, names = self.config.held_out(), file_names(train)
        files, self._is_held_out = held_out_files(names, share, source.name), True
        if source.is_text and len(names) == 1 and self.config.documents in (None, "file"):
            column = self.config.text_column
            check_column(train, column, source.name, "text_column")
            (shard,) = source.shards(train)
            total = sum(pc.sum(pc.utf8_length(table[0])).as_py() for _, table in shard.files([column]))
            self._ending = find_ending((table for _, table in shard.files([column])), total, share, source.name)
        return Side(False, files, self._ending), Side(True, files, self._ending)

    def told(self) -> dict[str, Any]:
        return super().told() | ({} if self._ending is None else {"validation": self._ending.told()})

    def _split_generator(
        self, split: str, source: Source, dataset: IterableDataset, side: Side, is_streaming: bool
    ) -> SplitGenerator:
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
        held_out = side.held_out
        if not (is_streaming and held_out) and not any(self._has_row(shard, side) for shard in shards):
            remedy = "give more text or smaller blocks"
            if held_out:
                remedy = "give validation_source=, or a larger share as validation_fraction="
            remedy += ", or lower validation_fraction=" if held_out is False else ""
            has_text = any(any(self._texts(shard, side)) for shard in shards)
            lacks = "has no document" + (" with any text" if held_out is None else "")
            block = f"is shorter than one block of {self.config.block_size} tokens in each of its {len(shards)} shards"
            raise CorpusError(
                f"the {split} split of {source.name!r} {block if has_text else lacks}; {remedy}"
            )
        # Of a tuple `datasets` makes no parts: how much noise comes last is known once all rows are counted.
        shards = tuple(shards) if self.config.adds_rows and not self.config.spreads_noise else shards
        return SplitGenerator(name=split, gen_kwargs={"shards": shards, "split": split, "side": side})

    def check_written(self, split: str) -> None:
        alpha = self.noise_of(split).error_rate
        if self.config.spreads_noise and alpha and not (written := self._realised(split))["rate"]:
            told = f"the {split} split of {self.config.source_name}, or of each of its shards,"
            raise CorpusError(less_than_a_token(alpha, written["n"], told))

    def check_all_written(self, splits: list[str]) -> None:
        if self._is_held_out and (rows := self.info.splits["validation"].num_examples) < _FEW_ROWS:
            logger.warning(
                "validation of %s: %d row%s of %d tokens held out at validation_fraction=%g, too few to measure on; "
                "raise it, or give validation_source=",
                self.config.source_name, rows, "s" * (rows > 1), self.config.block_size, self.config.held_out(),
            )

    def _has_row(self, shard: Shard, side: Side) -> bool:
        packing = Packing(self.tokenizer, self.config.block_size)
        return next(packing.rows(self._texts(shard, side, batch_size=8)), None) is not None

    def _generate_tables(
        self, shards: Sequence[Shard], split: str, side: Side
    ) -> Iterator[tuple[tuple[int, ...], pa.Table]]:
        made = self._mixed if self.config.adds_rows else self._packed
        packings = {shard.index: Packing(self.tokenizer, self.config.block_size) for shard in shards}
        kept = 0
        for key, columns in made(shards, split, side, packings):
            kept += len(columns["sample_id"]) * self.config.block_size
            if SHARE in columns:
                kept -= int(np.count_nonzero(flat_values(columns[MASK])))
            yield key, pa.table(columns)
        tokens = sum(packing.tokens for packing in packings.values())
        if (dropped := tokens - kept) > _MOST_DROPPED * tokens:
            logger.warning(
                "%s: %d of %d tokens (%.1f%%) are in no row, because each of the %d shards read here drops what is "
                "left after its last row of %d; a smaller block_size=, or fewer and larger files, lose less",
                split, dropped, tokens, 100 * dropped / tokens, len(shards), self.config.block_size,
            )

    def _packed(
        self, shards: Sequence[Shard], split: str, side: Side, packings: Mapping[int, Packing]
    ) -> Iterator[tuple[tuple[int, int], dict[str, pa.Array]]]:
        """The columns of rows of text, with noise on them or without."""
        for shard in shards:
            packing, sample = packings[shard.index], first_sample_id(split, shard.index)
            for number, block in enumerate(packing.rows(self._texts(shard, side))):
                ids = np.arange(sample, sample + len(block), dtype=np.int64)
                sample += len(block)
                yield (shard.index, number), self.columns(block, ids, split)
            packing.log(f"{split} shard {shard.index}")

    def _mixed(
        self, shards: Sequence[Shard], split: str, side: Side, packings: Mapping[int, Packing]
    ) -> Iterator[tuple[tuple[int, ...], dict[str, pa.Array]]]:
        """The columns of rows of text among which there are documents of noise."""
        texts = (
            ShardText(shard.index, first_sample_id(split, shard.index),
                      packings[shard.index].pieces(self._texts(shard, side)))
            for shard in shards
        )  # fmt: skip
        last = None if self.config.spreads_noise else first_sample_id(split, 1 + max(shard.index for shard in shards))
        told = f"the {split} split of {self.config.source_name}"
        for key, block, is_noisy, ids in mixed_rows(texts, self.noise_of(split), self.config.block_size, last, told):
            yield key, self.mixed_columns(block, is_noisy, ids)
        n_documents = sum(packing.documents for packing in packings.values())
        if last is None and self.noise_of(split).error_rate and n_documents <= len(shards):
            logger.warning("%s: each shard is one document, so that noise has no place between them and comes last; "
                           'documents="paragraph" makes more of a .txt file', split)  # fmt: skip

    def _texts(self, shard: Shard, side: Side, batch_size: int = _BATCH) -> Iterator[list[str]]:
        """The documents of a shard that belong to this side of the split."""
        column, share, names = self.config.text_column, self.config.held_out(), file_names(shard.dataset)
        wanted = None if side.files is None else lambda file: (file in side.files) == side.held_out
        if self.config.documents in (None, "file") and names and all(extension(name) in TEXT for name in names):
            if wanted is None or any(map(wanted, names)):
                files = ((file, table) for file, table in shard.files([column]) if wanted is None or wanted(file))
                yield from pieces_of_files(files, side.ending, side.held_out)
            return
        for table in shard.tables(batch_size, [column], wanted):
            texts = [text for text in table[column].to_pylist() if text]
            if side.held_out is not None and wanted is None:
                texts = [text for text in texts if is_held_out(text, share) == side.held_out]
            yield texts
