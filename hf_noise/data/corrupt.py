"""Corrupt a column of a data set you already have, at Arrow speed: no Python list is ever made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict

from hf_noise.data.added import MASK, added_to, added_to_stream, free_ids
from hf_noise.data.counting import count_noisy
from hf_noise.data.kinds import SAMPLE_ID, adds_rows, check_id_type, corrupted_features
from hf_noise.data.sample_ids import check_unique, repeated, sample_ids
from hf_noise.data.settings import names_of
from hf_noise.noise import Noise
from hf_noise.noise.describe import describe_noise

__all__ = [
    "CorruptColumn",
    "corrupt",
]


@dataclass(frozen=True)
class CorruptColumn:
    """What `datasets.map` calls on Arrow tables: a value, so that its fingerprint is the same in every process.

    Args:
        noise: a noise for tokens or for labels.
        column: for tokens, a column of integer lists, of equal or different lengths; for labels, a column of integers.
            -100 marks positions without a token, and rows without a label.
        sample_id: integer column with the stable index of each row.
        epoch: which epoch's noise to draw.
    """

    noise: Noise
    column: str
    sample_id: str = SAMPLE_ID
    epoch: int = 0

    def __call__(
        self, table: pa.Table, indices: list[int] | None = None, given: np.ndarray | None = None
    ) -> pa.Table:
        """The table with the noisy column in place, and `clean_<column>` and `is_noisy` (and a sample id) beside it.

        `indices` are the row numbers; they become the sample ids where the table brings none. `given` are noisy labels
        [n] to put in place instead of drawing some.
        """
        if self.sample_id not in table.column_names:
            table = table.append_column(self.sample_id, pa.array(np.asarray(indices, dtype=np.int64)))
        clean = _one_array(table[self.column])
        sample = sample_ids(table[self.sample_id], self.sample_id)
        noisy, is_noisy = self._draw(clean, sample, given)
        position = table.column_names.index(self.column)
        table = table.set_column(position, self.column, noisy)
        return table.append_column(f"clean_{self.column}", clean).append_column(MASK, is_noisy)

    def _draw(self, clean: pa.Array, sample: np.ndarray, given: np.ndarray | None) -> tuple[pa.Array, pa.Array]:
        is_label = not pa.types.is_nested(clean.type)
        if clean.null_count or not is_label and clean.flatten().null_count:
            raise ValueError(f"column {self.column!r} holds nulls; drop those rows, or mark positions with -100")
        if is_label:
            labels = clean.to_numpy()
            noisy, is_noisy = self._drawn(self.noise, labels, sample) if given is None else (given, given != labels)
            return pa.array(noisy, type=clean.type), pa.array(is_noisy)
        # Views on the Arrow buffers: `values` is what lies between the first and the last offset.
        values = clean.flatten().to_numpy(zero_copy_only=True)
        if pa.types.is_fixed_size_list(clean.type):
            length = clean.type.list_size
            lengths = np.full(len(clean), length)
            rebuild = lambda flat: pa.FixedSizeListArray.from_arrays(flat, length)  # noqa: E731
        else:
            offsets = clean.offsets.to_numpy()
            lengths = np.diff(offsets)
            starts = pa.array(offsets - offsets[0])
            make = pa.LargeListArray if pa.types.is_large_list(clean.type) else pa.ListArray
            rebuild = lambda flat: make.from_arrays(starts, flat)  # noqa: E731
        noisy, is_noisy = self._drawn(self.noise.flat, values, lengths, sample)
        return rebuild(pa.array(noisy, type=clean.type.value_type)), rebuild(pa.array(is_noisy))

    def _drawn(self, draw: Callable[..., tuple[np.ndarray, np.ndarray]], *given: np.ndarray) -> tuple[Any, Any]:
        """What the noise draws; its errors name the column."""
        try:
            return draw(*given, self.epoch)
        except ValueError as error:
            raise ValueError(f"column {self.column!r}: {error}") from error


class CorruptStream(CorruptColumn):
    """The same for a stream, of which one batch is all that is seen together: it refuses ids that repeat there."""

    def __call__(self, table: pa.Table, *given: Any) -> pa.Table:
        ids = sample_ids(table[self.sample_id], self.sample_id)
        if twice := ids.size - np.unique(ids).size:
            raise repeated(twice, ids.size, None, f"column {self.sample_id!r}, one batch")
        return super().__call__(table, *given)


def corrupt(
    dataset: Dataset | DatasetDict | IterableDataset | IterableDatasetDict,
    noise: Noise,
    column: str = "labels",
    *,
    sample_id: str = SAMPLE_ID,
    epoch: int = 0,
    batch_size: int = 1000,
    num_proc: int | None = None,
    noisy_splits: tuple[str, ...] = (),
) -> Any:
    """Corrupt a column of tokens or labels of a data set; the noisy ones take its name.

    Args:
        dataset: a `Dataset`, an `IterableDataset`, or a dictionary of splits, of which "train" is corrupted and those
            that `noisy_splits` names.
        noise: which tokens or labels to replace, see `UniformTokens` and `LabelFlips`; or documents of noise, see
            `RandomDocuments`: with `placement="append"` or `"interleave"` rows of it are added, so that they are the
            share alpha of all; with "replace" they take the place of rows of which `column` is all there is.
        column: column of integer lists for `UniformTokens`; of a `ClassLabel` or integers for `LabelFlips`. Positions
            that hold -100 carry no token or label and stay as they are.
        sample_id: column with a stable integer for each row, to which its noise belongs. If a `Dataset` has none, the
            row number is taken and kept in such a column; so corrupt before you shuffle or select.
        epoch: which epoch's noise to draw.
        batch_size: rows at a time; has no influence on the noise.
        num_proc: processes, for a `Dataset`; has no influence on the noise.

    Returns:
        The data set in the same format, with `column` noisy, the original as `clean_<column>` (same type), the mask
        of replaced positions as `is_noisy`, and `sample_id`. The description in its `info` says which noise was drawn,
        as those of `load_dataset("hf_noise/...")` do, in place of what it stated before; that of a `Dataset` also its
        realised rate.

        Where rows are added, the clean ones are neither copied nor changed. Beside `column` (and `labels` or
        `input_ids`, in which noise stands too) and `sample_id` there are `is_noisy`, a boolean for each token, and
        `noise_share`, float32, 1 for a row of noise. The row of noise with the id s is `noise.rows(s, length)`; their
        ids follow those of the clean rows. Of a stream, rows are counted as they pass, in one shard.

    Raises:
        ValueError: a column is missing or of another kind, the data set is corrupted already or has no rows, an
            `IterableDataset` has no sample ids, rows have equal ones (of a stream, rows of one batch), or a token lies
            outside [0, vocab_size), a label outside [0, num_classes). Where rows are added: rows differ in length or
            have further columns, or alpha is less than one row.
        TypeError: not a noise for tokens or labels, not a data set, or a name that is no text.

    Example:
        >>> noisy = corrupt(dataset, UniformTokens(ratio=0.5, vocab_size=50257), column="labels")
        >>> noisy = corrupt(dataset, LabelFlips.symmetric(ratio=0.5, num_classes=10), column="label")
        >>> mixed = corrupt(packed, RandomDocuments(alpha=0.05, vocab_size=50257), column="input_ids")
    """
    _check_arguments(noise, column, sample_id, epoch=epoch, batch_size=batch_size, num_proc=num_proc)
    function = CorruptColumn(noise, column, sample_id, int(epoch))
    if not isinstance(dataset, DatasetDict | IterableDatasetDict):
        if names_of("noisy_splits", noisy_splits):
            raise ValueError(f"noisy_splits={noisy_splits!r:.80} is for a DatasetDict, and dataset is "
                             f"{dataset!r:.80} of type {type(dataset).__name__}; leave it out")  # fmt: skip
        split = str(getattr(dataset, "split", None) or "train")
        return _corrupt([(split, dataset)], function, batch_size, num_proc)[0]
    chosen = {"train"} | names_of("noisy_splits", noisy_splits)
    if missing := sorted(chosen - set(dataset)):
        raise ValueError(f"there is no split {', '.join(missing)} to corrupt, only {', '.join(dataset)}")
    parts = [(name, part) for name, part in dataset.items() if name in chosen]
    others = [part for name, part in dataset.items() if name not in chosen]
    made = _corrupt(parts, function, batch_size, num_proc, others)
    noisy = dict(zip((name for name, _ in parts), made, strict=True))
    return type(dataset)({name: noisy.get(name, part) for name, part in dataset.items()})


def _check_arguments(noise: Any, column: Any, sample_id: Any, **numbers: Any) -> None:
    if not isinstance(noise, Noise):
        raise TypeError(
            "noise must be a noise for tokens or labels, such as UniformTokens(ratio=0.5, ...) or "
            f"LabelFlips.symmetric(ratio=0.5, ...), got {noise!r}"
        )
    if not noise.is_drawn and noise.unit != "documents":
        raise TypeError(f"noise must be drawn on rows that are there: {noise.if_not_drawn}")
    for name, value in (("column", column), ("sample_id", sample_id)):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be the name of a column, got {value!r:.80}")
    if column == sample_id:
        raise ValueError(f"column and sample_id are both {column!r}; noise belongs to ids that stay as they are")
    for name, value in numbers.items():
        smallest = 0 if name == "epoch" else 1
        is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if (value is not None or name != "num_proc") and not (is_integer and smallest <= value < 1 << 63):
            raise ValueError(f"{name} must be an integer >= {smallest}, and below 2^63, got {value!r}")


def _corrupt(
    parts: list[tuple[str, Any]], function: CorruptColumn, batch_size: int, num_proc: int | None,
    others: Sequence[Any] = (),
) -> list[Any]:
    """All splits that are corrupted; each says the realised rate of all. No row that is added has an id of `others`."""
    stored = [part for _, part in parts if isinstance(part, Dataset)]
    _check_ids([part for part in stored if function.sample_id in part.column_names], function.sample_id)
    adds = adds_rows(function.noise)
    stay = [one for one in others if isinstance(one, Dataset) and len(one) and function.sample_id in one.column_names]
    taken = [_ids_of(part, function.sample_id) for part in (*stored, *stay)] if adds else []
    noisy, realised = [], {}
    for name, part in parts:
        if isinstance(part, Dataset):
            noisy.append(_add(part, function, batch_size, num_proc, taken) if adds else
                         _map(part, function, batch_size, num_proc))  # fmt: skip
            column = function.column if adds else f"clean_{function.column}"
            realised[name] = count_noisy(_units(noisy[-1], column))
        else:
            noisy.append(_map_stream(part, function, batch_size))
    for part in noisy:
        part.info.description = describe_noise(part.info.description, function.noise, function.epoch, realised)
    return noisy


def _ids_of(dataset: Dataset, column: str) -> tuple[int, int]:
    """The smallest and the largest sample id, or row number where there are none."""
    if not len(dataset):
        raise ValueError("the data set has no rows to corrupt")
    if column not in dataset.column_names:
        return 0, len(dataset) - 1
    ids = pc.min_max(dataset.data.column(column))  # of all rows of its table, selected or not
    return ids["min"].as_py(), ids["max"].as_py()


def _add(
    dataset: Dataset, function: CorruptColumn, batch_size: int, num_proc: int | None, taken: list[tuple[int, int]]
) -> Dataset:
    """The mixture; the ids of its noise join those that are `taken`."""
    corrupted_features(dataset.features, function.noise, function.column, function.sample_id)
    n, before = function.noise.number_of_noise_rows(len(dataset)), dataset.format
    first_id = free_ids(taken, _ids_of(dataset, function.sample_id), n)
    taken.append((first_id, first_id + n))
    mixed = added_to(dataset, function.noise, function.column, function.sample_id, first_id, batch_size, num_proc)
    return mixed.with_format(before["type"], None, **before["format_kwargs"])


def _map(dataset: Dataset, function: CorruptColumn, batch_size: int, num_proc: int | None) -> Dataset:
    features = corrupted_features(dataset.features, function.noise, function.column, function.sample_id)
    if not len(dataset):
        raise ValueError("the data set has no rows to corrupt")
    before = dataset.format
    mapped = dataset.with_format("arrow").map(
        function, with_indices=True, batched=True, batch_size=batch_size, num_proc=num_proc, features=features,
        desc=f"Corrupting {function.column}",
    )
    if set(before["columns"]) == set(dataset.column_names):
        before["columns"] = None
    return mapped.with_format(before["type"], before["columns"], **before["format_kwargs"])


def _map_stream(dataset: Any, function: CorruptColumn, batch_size: int) -> IterableDataset:
    if not isinstance(dataset, IterableDataset):
        raise TypeError(f"dataset must come from the library `datasets`, got {type(dataset).__name__}")
    if dataset.features is None:
        first = next(dataset.with_format("arrow").iter(batch_size=100), None)
        if first is None:
            raise ValueError("the stream is empty: it has no rows")
        dataset = dataset.cast(Features.from_arrow_schema(first.schema))
    if function.sample_id not in dataset.features:
        raise ValueError(
            f"an IterableDataset needs a column {function.sample_id!r} with a stable integer for each row, because row "
            "numbers change with shuffling and sharding; add it when you write the data, or on one unsharded, "
            f"unshuffled stream: dataset.map(lambda row, i: {{{function.sample_id!r}: i}}, with_indices=True)"
        )
    features = corrupted_features(dataset.features, function.noise, function.column, function.sample_id)
    formatting = dataset._formatting
    if adds_rows(function.noise):
        mixed = added_to_stream(dataset, function.noise, function.column, function.sample_id, batch_size)
        return mixed.with_format(formatting.format_type if formatting else None)
    on_stream = CorruptStream(function.noise, function.column, function.sample_id, function.epoch)
    mapped = dataset.with_format("arrow").map(on_stream, batched=True, batch_size=batch_size, features=features)
    return mapped.with_format(formatting.format_type if formatting else None)


def _check_ids(datasets: list[Dataset], column: str) -> None:
    def batches() -> Iterator[np.ndarray]:
        for dataset in datasets:
            check_id_type(dataset.features, column)
            for table in dataset.select_columns([column]).with_format("arrow").iter(batch_size=1 << 16):
                yield sample_ids(table[column], column)

    check_unique(batches, f"column {column!r}")


def _units(dataset: Dataset, column: str) -> Iterator[tuple[pa.Array, pa.Array]]:
    """The mask and a column of data that were just corrupted, chunk by chunk."""
    for batch in dataset.data.table.select([MASK, column]).to_batches():
        yield batch[0], batch[1]


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
