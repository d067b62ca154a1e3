"""Rows of noise added to rows of tokens that are there, which are not copied: the mixture of paper B, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, IterableDataset, List, Value, concatenate_datasets
from datasets.iterable_dataset import ArrowExamplesIterable

from hf_noise.data.sample_ids import repeated, sample_ids
from hf_noise.noise.arrays import check_dtype, ignored_positions
from hf_noise.noise.mixture import DocumentNoise

__all__ = ["MASK", "SHARE", "added_features", "added_to", "added_to_stream", "free_ids"]

MASK, SHARE = "is_noisy", "noise_share"
# Sample ids come in blocks of as many rows as a shard may have, see `hf_noise.data.builder`.
_BLOCK_BITS = 40
# In a stream the largest id is not known; there noise takes the upper half of the shards of a split.
_UPPER_HALF, _SPLIT_BITS = 1 << 59, 60
_TOKENS_AT_ONCE = 1 << 20  # of noise


def added_features(features: Features, noise: DocumentNoise, column: str, sample_id: str) -> Features:
    """The features of the mixture; raises ValueError if rows of noise cannot stand beside these rows."""
    names = _token_columns(features, noise, column)
    if others := [name for name in features if name not in (*names, sample_id)]:
        raise ValueError(
            f"rows of noise hold {', '.join(names)} and {sample_id}, and nothing that could stand in the column(s) "
            f"{', '.join(map(repr, others))}; drop them: dataset.remove_columns({others!r})"
        )
    kinds = {name: str(features[name]) for name in names}
    if len(set(kinds.values())) > 1:
        raise ValueError(f"a document of noise is noise as context and as target, but the columns differ: {kinds}")
    ids = {} if sample_id in features else {sample_id: Value("int64")}
    mask = List(Value("bool"), length=getattr(features[column], "length", -1))
    return Features({**features, **ids, MASK: mask, SHARE: Value("float32")})


def _token_columns(features: Features, noise: DocumentNoise, column: str) -> list[str]:
    """The columns that a document of noise stands in: the one that is named, and inputs or labels beside it."""
    return [name for name in features if name == column or name in noise.noisy_columns]


def lengths_of(column: pa.Array) -> np.ndarray:
    """Lengths of the lists of a chunk, integers [n]."""
    if pa.types.is_fixed_size_list(column.type):
        return np.full(len(column), column.type.list_size)
    return np.diff(column.offsets.to_numpy())


def row_length(columns: list[pa.ChunkedArray], name: str, told: int | None = None) -> int:
    """Tokens in each row, or a ValueError unless all rows have as many; `told` those that came before."""
    found: set[int] = set() if told is None else {told}
    for chunk in (chunk for column in columns for chunk in column.chunks if len(chunk)):
        if chunk.null_count:
            raise ValueError(f"column {name!r} holds {chunk.null_count} row(s) that are null; drop them")
        found |= set(np.unique(lengths_of(chunk)).tolist())
    if len(found) != 1 or not min(found):
        raise ValueError(
            f"the rows of {name!r} have {min(found)} to {max(found)} tokens, and the share alpha counts rows of one "
            "length >= 1: pack them first (hf_noise/packed, or documents by name: load_dataset('hf_noise/docs-noisy', "
            'protocol="random-documents", alpha=0.05)), or use placement="replace"'
        )
    return found.pop()


def free_ids(taken: list[tuple[int, int]], own: tuple[int, int], n: int) -> int:
    """The first id of a block of ids that no row has: after those of the rows themselves, `own`.

    Args:
        taken: smallest and largest id of each of the data sets that noise is added to, and of noise added before.
        n: how many are needed.

    Raises ValueError: no block is left below 2^63.
    """
    block, blocks = max(own[1] >> _BLOCK_BITS, -1) + 1, -(-max(n, 1) >> _BLOCK_BITS)
    while any(low >> _BLOCK_BITS < block + blocks and block <= high >> _BLOCK_BITS for low, high in taken):
        block += 1 + max(high >> _BLOCK_BITS for low, high in taken if block <= high >> _BLOCK_BITS) - block
    if block + blocks > 1 << 63 - _BLOCK_BITS:
        raise ValueError(
            f"the largest sample id is {own[1]}, and rows of noise take ids after it, below 2^63; number the rows from "
            "0 on, or remove the column and they are numbered"
        )
    return block << _BLOCK_BITS


@dataclass(frozen=True)
class Beside:
    """What `datasets.map` makes of clean rows, the columns that stand beside them: nothing of it is noise."""

    noise: DocumentNoise
    columns: tuple[str, ...]
    sample_id: str

    def __call__(self, table: pa.Table, indices: list[int]) -> pa.Table:
        if self.sample_id in table.column_names:
            return beside(table, self.noise, self.columns)
        ids = pa.array(np.asarray(indices, dtype=np.int64))
        made = beside(table, self.noise, self.columns)
        return pa.table({self.sample_id: ids, MASK: made[MASK], SHARE: made[SHARE]})


def beside(table: pa.Table, noise: DocumentNoise, columns: tuple[str, ...]) -> pa.Table:
    """The mask and the share of clean rows, after a look at their tokens."""
    for name in columns:
        column = table[name].combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        values = column.flatten()
        if column.null_count or values.null_count:
            raise ValueError(f"column {name!r} holds nulls; drop those rows, or mark positions with -100")
        values = values.to_numpy(zero_copy_only=True)
        try:
            check_dtype(values.dtype, np.iinfo(values.dtype).max, noise.vocab_size)
            ignored_positions(values, noise.vocab_size)
        except ValueError as error:
            raise ValueError(f"column {name!r}: {error}") from error
    mask = np.zeros(len(values), dtype=bool)
    return pa.table({MASK: rows_like(mask, column), SHARE: pa.array(np.zeros(len(column), dtype=np.float32))})


def rows_like(values: np.ndarray, column: pa.Array) -> pa.Array:
    """Values [sum of the lengths] in lists of the lengths and the kind of those of a column."""
    if pa.types.is_fixed_size_list(column.type):
        return pa.FixedSizeListArray.from_arrays(pa.array(values), column.type.list_size)
    offsets = column.offsets.to_numpy()
    return pa.ListArray.from_arrays(pa.array((offsets - offsets[0]).astype(np.int32)), pa.array(values))


@dataclass(frozen=True)
class NoiseRows:
    """Rows of noise with consecutive ids, as tables of the mixture's columns.

    Attributes:
        schema: of the mixture.
        columns: that hold the tokens.
        length: tokens of each row.
        first_id: the id of the row of number 0.
    """

    noise: DocumentNoise
    schema: pa.Schema
    columns: tuple[str, ...]
    sample_id: str
    length: int
    first_id: int

    def rows(self, start: int, stop: int) -> pa.Table:
        """Those of the numbers from `start` up to `stop`."""
        ids = np.arange(self.first_id + start, self.first_id + stop, dtype=np.int64)
        tokens, made = self.noise.rows(ids, self.length).reshape(-1), {}
        for field in self.schema:
            if field.name == self.sample_id:
                made[field.name] = pa.array(ids).cast(field.type)
            elif field.name == SHARE:
                made[field.name] = pa.array(np.ones(ids.size, dtype=np.float32))
            else:
                values = tokens if field.name in self.columns else np.ones(tokens.size, dtype=bool)
                made[field.name] = _lists(values, self.length, ids.size, field.type)
        return pa.table(made)


def _lists(values: np.ndarray, length: int, n: int, kind: pa.DataType) -> pa.Array:
    flat = pa.array(values).cast(kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(flat, length)
    large = pa.types.is_large_list(kind)
    offsets = pa.array(np.arange(n + 1) * length, pa.int64() if large else pa.int32())
    return (pa.LargeListArray if large else pa.ListArray).from_arrays(offsets, flat)


@dataclass(frozen=True)
class NoiseFor:
    """What `datasets.map` makes instead of clean rows: so many of the rows of noise as these are of the clean ones."""

    noise_rows: NoiseRows
    n_clean: int
    n_noise: int

    def __call__(self, table: pa.Table, indices: list[int]) -> pa.Table:
        start, stop = (number * self.n_noise // self.n_clean for number in (indices[0], indices[-1] + 1))
        return self.noise_rows.rows(start, stop)


def added_to(
    dataset: Dataset, noise: DocumentNoise, column: str, sample_id: str, first_id: int, batch_size: int,
    num_proc: int | None,
) -> Dataset:  # fmt: skip
    """The rows of a data set and rows of noise, in the order of `noise.order`, without its format or description.

    Clean rows stay where they lie, in memory or in their file; what is new is written beside it by `datasets.map`, a
    bit a token for the mask of clean rows. Only the order takes memory, 8 bytes a row, unless noise comes last.

    Raises ValueError: rows differ in length, or the share is less than one row.
    """
    features = added_features(dataset.features, noise, column, sample_id)
    names = tuple(_token_columns(dataset.features, noise, column))
    n_clean = len(dataset)
    n_noise = noise.number_of_noise_rows(n_clean)
    _check_share(noise, n_clean, n_noise)
    if dataset._indices is not None:
        dataset = dataset.flatten_indices(num_proc=num_proc)
    length = row_length([dataset.data.column(name) for name in names], column)
    options = {"with_indices": True, "batched": True, "num_proc": num_proc}
    kept = set(dataset.column_names)
    tables, added = dataset.with_format("arrow"), Features({k: v for k, v in features.items() if k not in kept})
    masks = tables.map(
        Beside(noise, names, sample_id), batch_size=batch_size, remove_columns=list(kept), features=added,
        desc=f"Looking at {column}", **options,
    )
    whole = {"info": dataset.info.copy(), "split": dataset.split}
    whole["info"].features = features
    clean = concatenate_datasets([dataset.with_format(None), masks.with_format(None)], axis=1, **whole)
    clean = clean.select_columns(list(features))
    if not n_noise:
        return clean
    made = NoiseRows(noise, features.arrow_schema, names, sample_id, length, first_id)
    at_once = max(1, min(batch_size, int(_TOKENS_AT_ONCE / (length * max(noise.ratio, 1e-3)))))
    some = sample_id if sample_id in kept else column
    rows = tables.select_columns([some]).map(
        NoiseFor(made, n_clean, n_noise), batch_size=at_once, remove_columns=[some], features=features,
        desc="Drawing rows of noise", **options,
    )
    mixed = concatenate_datasets([clean, rows.with_format(None)], **whole)
    return mixed.select(noise.order(n_clean)) if noise.placement == "interleave" else mixed


def _check_share(noise: DocumentNoise, n_clean: int, n_noise: int) -> None:
    if noise.alpha > 0 and not n_noise:
        raise ValueError(
            f"alpha={noise.alpha} beside {n_clean} clean rows is less than one row of noise; raise alpha=, or give "
            "more rows or shorter ones"
        )


def added_to_stream(
    dataset: IterableDataset, noise: DocumentNoise, column: str, sample_id: str, batch_size: int
) -> IterableDataset:
    """The same for a stream with known features, whose rows are counted as they pass; it has one shard.

    With placement "interleave" each row of noise stands at a random place of a stretch of the clean ones, and what the
    share lacks at the end comes last; so it is exact, as in `added_to`, though in another order.

    Raises ValueError (when it is read): as `added_to`; ids repeat in a batch, or leave none for rows of noise.
    """
    features = added_features(dataset.features, noise, column, sample_id)
    settings = {"stream": dataset.with_format("arrow"), "features": features, "noise": noise, "column": column,
                "sample_id": sample_id, "batch_size": batch_size}  # fmt: skip
    info = dataset.info.copy()
    info.features = features
    return IterableDataset(ArrowExamplesIterable(_mixture, settings), info=info, split=dataset.split)


def _mixture(
    stream: IterableDataset, features: Features, noise: DocumentNoise, column: str, sample_id: str, batch_size: int
) -> Iterator[tuple[Any, pa.Table]]:
    names = tuple(name for name in features if name == column or name in noise.noisy_columns)
    schema, length, rows, seen = features.arrow_schema, None, None, (1 << 63, -1 << 63)
    n_clean = n_noise = 0
    spread = noise.placement == "interleave"
    for number, table in enumerate(stream.iter(batch_size=batch_size)):
        ids = sample_ids(table[sample_id], sample_id)
        if twice := ids.size - np.unique(ids).size:
            raise repeated(twice, ids.size, None, f"column {sample_id!r}, one batch")
        length = row_length([table[name] for name in names], column, length)
        seen = min(seen[0], int(ids.min())), max(seen[1], int(ids.max()))
        made = beside(table, noise, names)
        clean = table.append_column(MASK, made[MASK]).append_column(SHARE, made[SHARE]).select(schema.names)
        clean = clean.cast(schema)
        if spread and rows is None:
            first_id = (int(ids[0]) >> _SPLIT_BITS << _SPLIT_BITS) + _UPPER_HALF
            rows = NoiseRows(noise, schema, names, sample_id, length, first_id)
        if spread:
            _check_lower_half(ids, sample_id)
            upto = _noise_before(noise, n_clean, len(clean), n_noise)
            noisy = rows.rows(n_noise, n_noise + int(upto[-1]))
            n_noise += len(noisy)
            of_noise = np.searchsorted(upto, np.arange(len(noisy)), side="right")
            place = np.argsort(np.concatenate([np.arange(len(clean)), of_noise]), kind="stable")
            clean = pa.concat_tables([clean, noisy.cast(schema)]).take(pa.array(place))
        n_clean += ids.size
        yield number, clean
    if not n_clean:
        raise ValueError("the stream is empty: it has no rows")
    last = noise.number_of_noise_rows(n_clean)
    _check_share(noise, n_clean, last)
    rows = rows or NoiseRows(noise, schema, names, sample_id, length, free_ids([seen], seen, last))
    at_once = max(1, _TOKENS_AT_ONCE // length)
    for start in range(n_noise, last, at_once):
        yield ("noise", start), rows.rows(start, min(start + at_once, last)).cast(schema)


def _noise_before(noise: DocumentNoise, before: int, n: int, placed: int) -> np.ndarray:
    """How many further rows of noise stand before the end of each of the next `n` clean rows: integers [n].

    The row of noise i comes once the clean rows are worth i + 1/2 of them and a random part of one more; so there are
    never more than `number_of_noise_rows` of what has passed.
    """
    worth = noise.ratio * np.arange(before + 1, before + n + 1, dtype=np.float64)
    numbers = np.arange(placed, max(placed, int(worth[-1]) + 1))
    return np.searchsorted(numbers + 0.5 + noise.jitter(numbers), worth, side="left")


def _check_lower_half(ids: np.ndarray, name: str) -> None:
    upper = ids & _UPPER_HALF != 0
    if upper.any():
        raise ValueError(
            f"column {name!r} of the stream holds {ids[upper][0]}, an id that rows of noise could have (those with the "
            'bit of 2^59); number the rows from 0 on, or use placement="append"'
        )
