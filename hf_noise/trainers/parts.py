"""The data sets that rows are made of, behind torch's own wrappers and ours, and the columns that they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

__all__ = ["ROWS_READ", "behind", "columns_in", "columns_of", "held_columns", "is_table", "parts_of", "per_row"]

#: So many rows are looked at before training; evenly spread, as a corpus may be sorted.
ROWS_READ = 100_000


def columns_of(rows: Any) -> Sequence[str]:
    """Names of the columns that rows have, or some of them, as far as they can be told without making one."""
    return list(dict.fromkeys(name for data, _ in parts_of(rows) for name in columns_in(data)))


def columns_in(data: Any) -> Sequence[str]:
    if (held := held_columns(data)) is not None:
        return list(held)
    if isinstance(data, list | tuple):
        return list(dict.fromkeys(name for row in data[:: max(1, len(data) // ROWS_READ)] for name in _keys(row)))
    if is_table(data):
        return data.format["columns"]  # a format may hide some
    names = getattr(data, "column_names", None)  # of a stream, which may not know; others may have anything there
    return names if isinstance(names, list) else []


def _keys(row: Any) -> Sequence[str]:
    return list(row) if isinstance(row, Mapping) else []


def parts_of(rows: Any) -> list[tuple[Any, np.ndarray | None]]:
    """The data sets behind torch's own wrappers, each with the numbers [N] of the rows that are taken, None for all.

    A data set's rows are together, which is not their order in a `Subset` of several: see `per_row`.
    """
    return [(data, index) for data, index, _ in _placed_parts(rows)]


def per_row(rows: Any, read: Callable[[Any, np.ndarray | None], np.ndarray | None]) -> np.ndarray | None:
    """What `read` finds of the rows of each of `parts_of`, in the order of all rows; None where it finds nothing."""
    found, places = [], []
    for data, index, place in [] if rows is None else _placed_parts(rows):
        values = read(data, index)
        if values is None:
            return None
        found.append(values)
        places.append(place)
    if not found or len(found) == 1 and places[0] is None:
        return found[0] if found else None
    values = np.concatenate(found)
    ordered = np.empty_like(values)
    ordered[np.concatenate(places)] = values
    return ordered


def _placed_parts(rows: Any) -> list[tuple[Any, np.ndarray | None, np.ndarray | None]]:
    """`parts_of` with where its rows stand among all, None for one part that is all of them in order."""
    if isinstance(rows, ConcatDataset):
        starts = [0, *rows.cumulative_sizes]
        return [
            (data, index, start + (np.arange(len(inner)) if places is None else places))
            for start, inner in zip(starts, rows.datasets) for data, index, places in _placed_parts(inner)
        ]  # fmt: skip
    if not isinstance(rows, Subset):
        return [(behind(rows) if _shows_mask(rows) else rows, None, None)]
    taken = np.asarray(rows.indices, dtype=np.int64)
    taken, parts = np.where(taken < 0, taken + len(rows.dataset), taken), []
    for data, index, places in _placed_parts(rows.dataset):
        if places is None:
            own, there = taken, None
        else:
            of_part = np.full(len(rows.dataset), -1)
            of_part[places] = np.arange(len(places))
            there = np.flatnonzero(of_part[taken] >= 0)
            own = of_part[taken[there]]
        parts.append((data, own if index is None else index[own], there))
    return parts


def _shows_mask(rows: Any) -> bool:
    """Whether these are rows of ours, such as `PackedRows`, that bring the mask of the data set behind them."""
    is_ours = type(rows).__module__.startswith("hf_noise.") and hasattr(rows, "dataset")
    return is_ours and "is_noisy" in columns_in(rows)


def behind(rows: Any) -> Any:
    """What our own wrappers read, such as `PackedRows`; others may give their rows ids of their own."""
    return getattr(rows, "dataset", rows) if type(rows).__module__.startswith("hf_noise.") else rows


def held_columns(rows: Any) -> Mapping[str, Any] | None:
    """The columns of rows that hold them as arrays, such as `DeviceImages`."""
    columns = getattr(rows, "columns", None)  # others may have anything of that name
    if not isinstance(columns, Mapping) or not all(isinstance(c, np.ndarray | Tensor) for c in columns.values()):
        return None
    return columns if all(column.ndim and len(column) == len(rows) for column in columns.values()) else None


def is_table(rows: Any) -> bool:
    """Whether rows are a `datasets.Dataset` whose columns come as they are stored."""
    from datasets import Dataset

    return isinstance(rows, Dataset) and rows.format["type"] != "custom"  # a transform may make others of a column
