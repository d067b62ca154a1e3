"""Tokenise and pack: documents become rows of exactly `block_size` tokens, in constant memory, read without copying."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from hf_noise.data.bits import BitRows
from hf_noise.data.documents import Piece
from hf_noise.data.tokenization import check_tokenizer
from hf_noise.noise.arrays import integers

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

__all__ = ["PackedRows", "Packing", "check_block_size"]

logger = logging.getLogger(__name__)

# Characters that are tokenised together, where documents are shorter.
_MOST_TEXT = 1 << 19


def check_block_size(block_size: int) -> int:
    """Return `block_size`, or raise: a row needs two tokens to have one to predict."""
    if isinstance(block_size, bool) or not isinstance(block_size, Integral) or block_size < 2:
        raise ValueError(f"block_size must be an integer >= 2 (tokens per row), got {block_size!r}")
    return int(block_size)


@dataclass
class Packing:
    """Packs one shard: `Packing(tokenizer, 1024).rows(batches)` yields blocks of rows, the fields count what went in.

    The end-of-text token closes every document (but not a `Piece` of one, see `hf_noise.data.documents`). A row does
    not care where documents begin. The tokens after the last full row, fewer than `block_size`, are dropped and
    counted; memory holds one batch of documents, of which half a million characters (or one longer document) are
    tokenised at a time.

    Raises:
        TypeError: this is no tokenizer of transformers, or (by `rows`) a batch is no list of texts.
        ValueError: block_size is no integer >= 2.
    """

    tokenizer: PreTrainedTokenizerBase
    block_size: int
    documents: int = field(default=0, init=False)
    tokens: int = field(default=0, init=False)
    rows_made: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        check_tokenizer(self.tokenizer)
        self.block_size = check_block_size(self.block_size)

    @property
    def dropped(self) -> int:
        """Tokens that are in no row (so far)."""
        return self.tokens - self.rows_made * self.block_size

    def rows(self, batches: Iterable[Sequence[str]]) -> Iterator[np.ndarray]:
        """Blocks of rows, int32 [n, block_size], n >= 1; documents that are empty or None add nothing."""
        rest = np.empty(0, dtype=np.int32)
        for tokens, _ in self.pieces(batches):
            flat = np.concatenate([rest, tokens])
            whole = flat.size // self.block_size
            rest = flat[whole * self.block_size :]
            self.rows_made += whole
            if whole:
                yield flat[: whole * self.block_size].reshape(whole, self.block_size)

    def pieces(self, batches: Iterable[Sequence[str]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The tokens of some documents, int32 [n], and where documents end among them, int64 [k] in (0, n]."""
        for texts in _parts(batches):
            start = time.perf_counter()
            piece = self._encode(texts)
            self.seconds += time.perf_counter() - start
            yield piece

    def log(self, what: str) -> None:
        """One line on what was packed: documents, tokens, rows, dropped tokens, tokens/s."""
        speed = self.tokens / self.seconds if self.seconds else 0.0
        logger.info(
            "%s: %d documents, %d tokens -> %d rows of %d, %d tokens dropped at the end, %.0f tokens/s",
            what, self.documents, self.tokens, self.rows_made, self.block_size, self.dropped, speed,
        )

    def _encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        if not texts:
            return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)
        ends = [() if isinstance(text, Piece) else (self.tokenizer.eos_token_id,) for text in texts]
        # verbose=False: rows are cut afterwards, so documents longer than the model's context are no reason to warn.
        # split_special_tokens: a document that spells out "<|endoftext|>" does not end there.
        encoded = self.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, verbose=False,
            return_attention_mask=False, return_token_type_ids=False,
        )["input_ids"]
        closed = chain.from_iterable(zip(encoded, ends, strict=True))
        ids = np.fromiter(chain.from_iterable(closed), dtype=np.int32)
        self.documents += sum(map(len, ends))
        self.tokens += ids.size
        stops = np.cumsum([len(tokens) + len(end) for tokens, end in zip(encoded, ends, strict=True)])
        return ids, stops[[len(end) > 0 for end in ends]]


def _parts(batches: Iterable[Sequence[str]]) -> Iterator[list[str]]:
    """The same documents without empty ones, some at a time: tokens take a hundred times the memory of their text."""
    try:
        batches = iter(batches)
    except TypeError as error:
        raise TypeError(f"batches must be lists of texts, one after the other, got {batches!r:.80}") from error
    for texts in batches:
        if not isinstance(texts, list | tuple):
            raise TypeError(f"each of batches must be a list of texts, got {texts!r:.80}")
        part, size = [], 0
        for text in texts:
            if text is None or text == "":
                continue
            if not isinstance(text, str):
                raise TypeError(f"batches must hold texts, got {text!r:.80} of type {type(text).__name__}")
            if part and size + len(text) > _MOST_TEXT:
                yield part
                part, size = [], 0
            part.append(text)
            size += len(text)
        yield part


class PackedRows:
    """Rows of fixed length from a memory-mapped `datasets.Dataset`, as NumPy views without copies.

    A map-style data set for torch: `rows[i]` is `{"input_ids": int [L], "sample_id": int}`, a view on the mapped file;
    a batch, which a `DataLoader` asks for with `__getitems__`, is ONE dictionary `{"input_ids": int [B, L],
    "sample_id": int64 [B]}` and so needs `collate_fn=` a function of that dictionary. Batches of neighbours are views
    too, all others one gather. It pickles as its data set does, for workers that are forked or spawned.

    Rows with documents of noise among them bring `is_noisy` too, bool [L] and [B, L]; a mask of other columns, such as
    of noisy `labels`, is left out with them, and so is one that the format of the data set hides.

    Args:
        dataset: has a list column of integers of equal lengths and `sample_id`; may be sliced, selected or shuffled.
        column: the token column.

    Raises:
        ValueError: a column is missing, or its rows differ in length or hold no integers, or ids are no integers.
        TypeError: this is no `datasets.Dataset` in memory or on disk, such as a stream or a dictionary of splits.
    """

    def __init__(self, dataset: Dataset, column: str = "input_ids") -> None:
        from datasets import Dataset

        if not isinstance(dataset, Dataset):
            raise TypeError(
                f"dataset must be a datasets.Dataset, one split that is stored, got {type(dataset).__name__}"
                + _instead_of_rows(dataset)
            )
        if not isinstance(column, str):
            raise TypeError(f"column must be the name of a column, got {column!r:.80}")
        missing = {column, "sample_id"} - set(dataset.column_names)
        if missing:
            raise ValueError(
                f"the data set has no column {', '.join(map(repr, sorted(missing)))}, only "
                f"{', '.join(map(repr, dataset.column_names))}"
            )
        self.dataset, self.column = dataset, column
        of_column = f"clean_{column}" in dataset.column_names
        of_others = any(name.startswith("clean_") for name in dataset.column_names) and not of_column
        self.has_mask = "is_noisy" in dataset.format["columns"] and not of_others
        self._map()

    def _map(self) -> None:
        table = self.dataset.data.table
        blocks = [_matrix(chunk, self.column) for chunk in table[self.column].chunks if len(chunk)]
        lengths = {block.shape[1] for block in blocks}
        if len(lengths) > 1:
            raise ValueError(f"the rows of {self.column!r} have several lengths: {sorted(lengths)}; pack them first")
        self.block_size = lengths.pop() if lengths else 0
        self._tokens = _Chunks(blocks)
        ids = table["sample_id"]
        if ids.null_count or not pa.types.is_integer(ids.type):
            raise ValueError(f"column 'sample_id' holds {ids.type} with {ids.null_count} null(s), not an integer a row")
        self._ids = _Chunks([chunk.to_numpy() for chunk in ids.chunks if len(chunk)])
        masks = table["is_noisy"].chunks if self.has_mask else []
        self._masks = _Chunks([BitRows(chunk, "is_noisy", self.block_size) for chunk in masks if len(chunk)])
        # After select() or shuffle(), `datasets` keeps the table and a list of row numbers beside it.
        indices = self.dataset._indices
        self._order = None if indices is None else indices.column(0).to_numpy()

    def __getstate__(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "column": self.column, "has_mask": self.has_mask}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map()

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def column_names(self) -> list[str]:
        """What its rows have."""
        return ["input_ids", *["is_noisy"] * self.has_mask, "sample_id"]

    def __getitem__(self, index: int) -> dict[str, Any]:
        place = integers("row", index)
        if place.ndim:
            raise TypeError(f"a row is named by one integer, got {index!r:.80}")
        row = self._rows(place[None])
        mask = {"is_noisy": self._masks.take(row)[0]} if self.has_mask else {}
        return {"input_ids": self._tokens.take(row)[0], **mask, "sample_id": int(self._ids.take(row)[0])}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        rows = self._rows(indices)
        mask = {"is_noisy": self._masks.take(rows)} if self.has_mask else {}
        ids = self._ids.take(rows).astype(np.int64, copy=False)
        return {"input_ids": self._tokens.take(rows), **mask, "sample_id": ids}

    def _rows(self, indices: Sequence[int]) -> np.ndarray:
        """Table rows of data set positions, at least one; negative positions count from the end."""
        rows = integers("rows", indices)
        if rows.ndim != 1 or not rows.size:
            raise TypeError(f"rows must be a list of one integer or more, got {indices!r:.80}")
        outside = (rows < -len(self)) | (rows >= len(self))
        if outside.any():
            raise IndexError(f"row {rows[outside][0]} is outside a data set of {len(self)} rows")
        rows = rows.astype(np.int64, copy=False)
        rows = np.where(rows < 0, rows + len(self), rows)
        return rows if self._order is None else self._order[rows].astype(np.int64)


def _instead_of_rows(dataset: Any) -> str:
    """What to do with what is no stored split, for the message."""
    if isinstance(dataset, Mapping):
        return f"; choose one of its splits ({', '.join(map(str, dataset))}), as in PackedRows(data['train'])"
    if type(dataset).__name__ == "IterableDataset":
        return (
            "; a stream has no rows to look up: hand it to the trainer as it is (train_dataset=stream, with max_steps "
            "in its arguments), or load the data without streaming=True"
        )
    return "; load one with hf_noise.load_dataset(..., split=\"train\"), or make one with datasets.Dataset.from_dict"


class _Chunks:
    """Arrays that follow one another, as the chunks of an Arrow column do, read as one."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts
        self.starts = np.cumsum([0] + [len(part) for part in parts])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The given rows: a view where they are neighbours in one chunk, else a copy."""
        chunks = np.searchsorted(self.starts, rows, side="right") - 1
        first, start = chunks[0], rows[0] - self.starts[chunks[0]]
        if chunks[-1] == first and np.array_equal(rows, np.arange(rows[0], rows[0] + rows.size)):
            return self.parts[first][start : start + rows.size]
        taken = np.empty((rows.size, *self.parts[first].shape[1:]), dtype=self.parts[first].dtype)
        for chunk in np.unique(chunks):
            here = chunks == chunk
            taken[here] = self.parts[chunk][rows[here] - self.starts[chunk]]
        return taken


def _matrix(chunk: pa.Array, column: str) -> np.ndarray:
    """The [n, L] view on one chunk of a list column."""
    kind = chunk.type
    fixed = pa.types.is_fixed_size_list(kind)
    if not (fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise ValueError(f"column {column!r} holds {kind}, not lists of tokens")
    if not pa.types.is_integer(kind.value_type):
        raise ValueError(f"column {column!r} holds lists of {kind.value_type}, not of integers")
    if chunk.null_count:
        raise ValueError(f"column {column!r} holds rows that are null")
    if not fixed:
        lengths = np.diff(chunk.offsets.to_numpy())
        if lengths.min() != lengths.max():
            raise ValueError(
                f"the rows of {column!r} have several lengths ({lengths.min()} to {lengths.max()}); pack them first"
            )
    values = chunk.flatten()
    if values.null_count:
        raise ValueError(f"column {column!r} holds {values.null_count} token(s) that are null")
    return values.to_numpy(zero_copy_only=True).reshape(len(chunk), -1)
