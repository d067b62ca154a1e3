"""What can be read of rows before training: their columns, ids and masks, without making a row that has to be made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from hf_noise.noise.arrays import as_array
from hf_noise.trainers.marked import Marked, as_mask
from hf_noise.trainers.parts import ROWS_READ, behind, columns_in, held_columns, is_table, parts_of, per_row
from hf_noise.trainers.stored_column import Column

__all__ = [
    "column_of", "described", "different_rows", "hides_mask", "ids_behind", "is_same_row", "marked_rows", "stored_ids",
]  # fmt: skip

# So many units are read before training.
_UNITS_READ = 1 << 20


def hides_mask(rows: Any) -> bool:
    """Whether rows have a mask that `with_format(columns=...)` leaves out of them."""
    return any(is_table(data) and "is_noisy" in set(data.column_names) - set(columns_in(data))
               for data, _ in parts_of(rows))  # fmt: skip


def _once(index: np.ndarray) -> np.ndarray:
    """Numbers in ascending order, each once; np.unique takes ten times as long."""
    index = index if (index[1:] > index[:-1]).all() else np.sort(index)
    is_first = np.ones(len(index), dtype=bool)
    is_first[1:] = index[1:] != index[:-1]
    return index[is_first]


def different_rows(rows: Any) -> tuple[list[tuple[Any, np.ndarray | None]], bool]:
    """The same with each row once, however often it is taken, in ascending order; and whether one is taken twice."""
    merged: dict[int, tuple[Any, np.ndarray | None]] = {}
    again = False
    for data, index in parts_of(rows):
        once = None if index is None else _once(index)
        again |= id(data) in merged or index is not None and len(once) < len(index)
        if id(data) in merged:  # of several parts of one data set
            before = merged[id(data)][1]
            once = None if once is None or before is None else _once(np.append(once, before))
        merged[id(data)] = (data, once)
    return list(merged.values()), again


def described(rows: Any) -> Iterator[Any]:
    """What has the `info` of `datasets` among the data sets that rows are made of, None for one that has none."""
    from datasets import DatasetInfo

    if isinstance(rows, ConcatDataset):
        for part in rows.datasets:
            yield from described(part)
    elif isinstance(getattr(rows, "info", None), DatasetInfo):
        yield rows
    elif (inner := getattr(rows, "dataset", None)) is not None:
        yield from described(inner)
    elif rows is not None:
        yield None


def stored_ids(rows: Any) -> np.ndarray | None:
    """The column `sample_id` of stored rows, None where there is none or reading it would make rows."""
    if (held := held_columns(rows)) is not None:
        return as_array("sample_id", held["sample_id"]) if "sample_id" in held else None
    if isinstance(rows, ConcatDataset):
        parts = list(map(stored_ids, rows.datasets))
        return None if any(part is None for part in parts) or not parts else np.concatenate(parts)
    if isinstance(rows, Subset):
        ids = stored_ids(rows.dataset)
        return None if ids is None or not len(rows) else ids[np.asarray(rows.indices)]
    data = behind(rows)
    return column_of(data, "sample_id") if is_table(data) else None


def ids_behind(rows: Any) -> np.ndarray | None:
    """Sample ids int64 [N] also of lists, and of tables whose rows a transform makes, which leaves ids alone.

    None where they are not known before a row is made.
    """

    def read(data: Any, index: np.ndarray | None) -> np.ndarray | None:
        ids = _ids_of(data)
        return ids if ids is None or index is None else ids[index]

    ids = per_row(rows, read)
    return None if ids is None else ids.astype(np.int64)


def _ids_of(data: Any) -> np.ndarray | None:
    from datasets import Dataset

    if isinstance(data, list | tuple):
        ids = [row.get("sample_id") if isinstance(row, Mapping) else None for row in data]
        is_whole = all(isinstance(one, int | np.integer | Tensor) and not isinstance(one, bool) for one in ids)
        return np.array([int(one) for one in ids], dtype=np.int64) if is_whole else None
    table = behind(data)
    return column_of(table, "sample_id") if isinstance(table, Dataset) else stored_ids(data)


def is_same_row(rows: Any, i: int, j: int) -> bool:
    """Whether two places of stored rows hold the same content under one id."""
    if hasattr(rows, "images"):  # DeviceImages, of which none is cropped or turned yet
        return bool((rows.images[i] == rows.images[j]).all())
    data = behind(rows)
    data = data.with_format(None) if is_table(data) else data
    return _is_equal(data[i], data[j])


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_is_equal(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple | str | bytes | int | float) or one is None:
        return bool(np.array_equal(one, other)) if isinstance(one, list | tuple) else one == other
    try:
        return bool(np.array_equal(np.asarray(one), np.asarray(other)))
    except (TypeError, ValueError, RuntimeError):
        return False


def column_of(table: Any, name: str) -> np.ndarray | None:
    """A whole column of integers of a `datasets.Dataset`, in the order of its rows; None if it is none."""
    import pyarrow as pa

    if name not in table.column_names:
        return None
    column = table.data.column(name)
    if not pa.types.is_integer(column.type) or column.null_count:
        return None
    values, order = column.to_numpy(), table._indices  # the table in order first: NumPy picks faster than Arrow
    return values if order is None else values[order.column(0).to_numpy()]


def marked_rows(rows: Any, parts: Sequence[tuple[Any, np.ndarray | None]] | None = None) -> Marked | None:
    """The units of stored rows with a mask, of many rows a part; None where they have none or have to be made.

    Args:
        parts: `different_rows(rows)`, where they were looked for already.

    Raises:
        ValueError: a mask is none, or a row lacks what others have.
    """
    parts = different_rows(rows)[0] if parts is None else parts
    parts = [(data, index) for data, index in parts if _is_read(data) and (len(data) if index is None else len(index))]
    has_mask = ["is_noisy" in columns_in(data) for data, _ in parts]
    if any(has_mask) and not all(has_mask):
        raise ValueError(
            f"{has_mask.count(False)} of {len(parts)} data sets that were put together have no is_noisy, which others "
            "have; give the column to all of them, or train on one kind"
        )
    found = [_marked(data, index) for data, index in parts]
    found = [one for one in found if one is not None]
    return Marked.joined(found) if found else None


def _is_read(data: Any) -> bool:
    return isinstance(data, list | tuple) or is_table(data) or held_columns(data) is not None


def _marked(data: Any, index: np.ndarray | None) -> Marked | None:
    columns = _read(data, index)
    if columns is None:
        return None
    labels, clean, mask, sample = columns
    if labels is None or clean is None or labels.kind not in "iu" or clean.kind not in "iu":
        return None  # named when the labels themselves are looked at
    found = as_mask(mask.values) if mask is not None else None
    ids = sample.values if sample is not None and sample.lengths is None and sample.kind in "iu" else None
    if found is not None and mask.lengths is None and labels.lengths is not None and clean.lengths is not None:
        # Of pairs, whose sources say nothing of targets: without clean ones beside them the mask is all there is.
        has_clean = _names(columns_in(data))[1] != "input_ids"
        return Marked.whole(labels.differs_from(clean) if has_clean else found, found, ids)
    if found is None or not labels.has_shape_of(clean) or not labels.has_shape_of(mask):
        return None
    return Marked.made(labels.values, clean.values, found, ids, labels.lengths)


def _read(data: Any, index: np.ndarray | None) -> list[Column | None] | None:
    """Labels, clean labels, mask and ids of some of these rows; None if they have no mask."""
    named = _names(columns_in(data))
    if named is None:
        return None
    index = np.arange(len(data)) if index is None else index
    if (held := held_columns(data)) is not None:
        index = index[_some(len(index), 1)]
        return [None if name is None else Column(as_array(name, held[name])[index]) for name in named]
    if not is_table(data):
        first = data[index[0]]
        index = index[_some(len(index), np.size(first.get("is_noisy")) if isinstance(first, Mapping) else 1)]
        picked = [data[i] for i in index]
        return [None if name is None else _of_values(name, _values(name, picked, index), index) for name in named]
    index = index[_some(len(index), np.size(data.with_format(None)[int(index[0])]["is_noisy"]))]
    # By place in the table, where a shuffled data set has its rows: far faster than row by row.
    places = index if data._indices is None else data._indices.column(0).to_numpy()[index].astype(np.int64)
    order = np.argsort(places, kind="stable")
    index, places = index[order], places[order]
    return [None if name is None else _of_arrow(name, data.data.column(name), index, places) for name in named]


def _of_arrow(name: str, column: Any, numbers: np.ndarray, places: np.ndarray) -> Column:
    """Rows of a column of Arrow, whose places rise: of numbers or of lists of them; of anything else an example."""
    import pyarrow as pa
    import pyarrow.compute as pc

    starts = np.cumsum([0, *map(len, column.chunks)])
    cuts = np.searchsorted(places, starts)
    array = pa.concat_arrays([
        chunk.take(pa.array(places[low:high] - start))
        for chunk, start, low, high in zip(column.chunks, starts, cuts, cuts[1:]) if low < high
    ])  # fmt: skip
    lengths = None
    _refuse_nulls(name, array, numbers)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False).astype(np.int64)
        array = array.flatten()
        _refuse_nulls(name, array, np.repeat(numbers, lengths))
    if pa.types.is_integer(array.type) or pa.types.is_boolean(array.type) or pa.types.is_floating(array.type):
        return Column(array.to_numpy(zero_copy_only=False), lengths)
    return Column(np.array(array[:1].to_pylist(), dtype=object), lengths)


def _refuse_nulls(name: str, array: Any, numbers: np.ndarray) -> None:
    if array.null_count:
        raise ValueError(_lacks(numbers[int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))], name))


def _values(name: str, rows: Sequence[Any], numbers: np.ndarray) -> list[Any]:
    values = []
    for number, row in zip(numbers, rows):
        if not isinstance(row, Mapping):
            raise TypeError(f"rows must be mappings of columns, such as input_ids, row {number} is {row!r:.50}")
        values.append(row.get(name))
        if values[-1] is None:
            raise ValueError(_lacks(number, name))
    return values


def _lacks(number: int, name: str) -> str:
    return (f"row {number} has no {name}, which others have: rows with noise and rows without were put together; give "
            "the column to all of them, or train on one kind")  # fmt: skip


def _of_values(name: str, values: Sequence[Any], numbers: np.ndarray) -> Column | None:
    """A column of one value for each row; None where they are neither numbers nor lists of them."""
    arrays = [as_array(f"column {name!r} of row {number}", value) for number, value in zip(numbers, values)]
    axes = {array.ndim for array in arrays}
    if axes == {0}:
        return Column(np.array([array[()] for array in arrays]))
    return Column(np.concatenate(arrays), np.array(list(map(len, arrays)))) if axes == {1} else None


def _names(there: Any) -> tuple[str | None, ...] | None:
    """Columns of labels, clean labels, mask and ids among those that are there."""
    # The inputs are the labels where rows have none, as they are for a batch.
    label = next((name for name in ("labels", "label", "input_ids") if name in there), None)
    if label is None or "is_noisy" not in there:
        return None
    if label == "input_ids" and any(f"clean_{name}" in there for name in there if name != label):
        return None  # the mask is of that column, which a collator may make the labels of
    cleans = (f"clean_{label}", "clean_labels", "clean_label", "input_ids")
    clean = next((name for name in cleans if name in there), None)
    return None if clean is None else (label, clean, "is_noisy", "sample_id" if "sample_id" in there else None)


def _some(n: int, units: int) -> np.ndarray:
    """Numbers of rows to read, evenly spread."""
    wanted = min(n, ROWS_READ, max(1, _UNITS_READ // max(1, units)))
    return np.unique(np.linspace(0, n - 1, wanted).round().astype(np.int64))
