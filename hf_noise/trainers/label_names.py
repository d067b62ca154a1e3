"""Which columns hold the labels of rows: by their names, or because `is_noisy` says of them where they are wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from torch.utils.data import ConcatDataset, Subset

from hf_noise.trainers.parts import columns_of, is_table

__all__ = ["CLEAN_LABELS", "LABELS", "check_clean_beside", "rename_remedy", "with_label_names"]

#: Names of the column of labels, and of the one with what was right.
LABELS, CLEAN_LABELS = ("labels", "label"), ("clean_labels", "clean_label")


def with_label_names(rows: Any, renamed: dict[int, Any] | None = None) -> Any:
    """Rows whose noisy labels stand in `label` and whose clean ones in `clean_label`, so far as they can be told.

    A noisy data set of a source of its own keeps the names there: `topic`, `clean_topic`, `is_noisy`. They are looked
    for in what is stored, in streams whose columns are known, in lists of mappings, and behind torch's `Subset` and
    `ConcatDataset`. Rows that a transform or a class of the user's own makes are left alone.

    Args:
        renamed: what was made of a data set, by its `id`; a data set that comes again is to stay one.

    Raises:
        ValueError: rows have `is_noisy`, and it cannot be told which columns are the labels and the clean labels.
    """
    renamed = {} if renamed is None else renamed
    if id(rows) not in renamed:
        renamed[id(rows)] = _renamed(rows, renamed)
    return renamed[id(rows)]


def _renamed(rows: Any, renamed: dict[int, Any]) -> Any:
    from datasets import IterableDataset

    if type(rows) is Subset:
        inner = with_label_names(rows.dataset, renamed)
        return rows if inner is rows.dataset else Subset(inner, rows.indices)
    if type(rows) is ConcatDataset:
        inner = [with_label_names(part, renamed) for part in rows.datasets]
        return rows if all(map(lambda a, b: a is b, inner, rows.datasets)) else ConcatDataset(inner)
    if isinstance(rows, list | tuple):
        first = rows[0] if rows and isinstance(rows[0], Mapping) else {}
        change = _change(first, lambda name: _is_integer(first[name]))
        return [{change.get(name, name): value for name, value in row.items()} for row in rows] if change else rows
    if is_table(rows) or isinstance(rows, IterableDataset):
        kinds = rows.features or {}
        change = _change(columns_of(rows), lambda name: _is_label(kinds.get(name)))
        return rows.rename_columns(change) if change else rows
    return rows


def _change(columns: Collection[str], is_label: Callable[[str], bool]) -> dict[str, str]:
    """Columns to rename, none where that is not needed; ValueError where is_noisy marks what cannot be told."""
    check_clean_beside(columns)
    if "is_noisy" not in columns or _first(LABELS, columns):
        return {}
    pairs = [pair for pair in _pairs(columns) if all(map(is_label, pair))]
    if len(pairs) == 1 and not _first(CLEAN_LABELS, columns):
        return dict(zip(pairs[0], ("label", "clean_label")))
    where = ("may be " + " or ".join(noisy for noisy, _ in pairs) if pairs else
             "are in no column of integers that has its clean_ one beside it")  # fmt: skip
    remedy = "rows.rename_columns({'topic': 'label'})" if _first(CLEAN_LABELS, columns) else rename_remedy(columns)
    raise ValueError(f"is_noisy says which labels are wrong, and the labels {where} (columns: "
                     f"{', '.join(map(str, columns))}); say which they are, such as {remedy}")  # fmt: skip


def check_clean_beside(columns: Collection[str]) -> None:
    """Raise ValueError for rows with labels and `is_noisy` whose clean labels are under no name that is known."""
    label = _first(LABELS, columns)
    if label is None or "is_noisy" not in columns or _first(CLEAN_LABELS, columns):
        return
    others = [pair for pair in _pairs(columns) if pair[0] not in LABELS]
    cleans = [name for name in columns if str(name).startswith("clean_")]
    if others:
        remedy = (f"if {others[0][0]} is meant, rows.remove_columns({label!r}).rename_columns("
                  f"{dict(zip(others[0], ('label', 'clean_label')))})")  # fmt: skip
    elif cleans:
        remedy = f"rename them too: rows.rename_columns({{{cleans[0]!r}: 'clean_label'}})"
    else:
        remedy = "add the column clean_label"
    raise ValueError(f"rows have {label} and is_noisy, and no clean_label (or clean_labels) with what is right where "
                     f"is_noisy says that they are wrong; {remedy}, or drop is_noisy to take the labels as they are "
                     f"(columns: {', '.join(map(str, columns))})")  # fmt: skip


def rename_remedy(columns: Collection[str]) -> str:
    """How to name the labels of rows, as code: of the first pair that could be them, else of an example."""
    pair = next(iter(_pairs(columns)), ("target", "clean_target"))
    return f"rows.rename_columns({dict(zip(pair, ('label', 'clean_label')))})"


def _pairs(columns: Collection[str]) -> list[tuple[str, str]]:
    return [(name, f"clean_{name}") for name in columns if f"clean_{name}" in columns]


def _first(names: tuple[str, ...], columns: Collection[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_label(kind: Any) -> bool:
    """Whether a feature of `datasets` is one integer a row, the number of a class or not."""
    from datasets import ClassLabel, Value

    return isinstance(kind, ClassLabel) or isinstance(kind, Value) and pa.types.is_integer(kind.pa_type)
