"""Given labels as an audit needs them, from an array or a column of a data set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hf_noise.audit.class_names import check_class_names

__all__ = ["as_given", "read_given"]


def read_given(data: Any, column: str | None, names: Any) -> tuple[np.ndarray, tuple[str, ...] | None, Any]:
    """Labels int64 [N], names of classes where there are any, and the data set, None of an array.

    Args as of `audit_labels`, and its errors.
    """
    if names is not None:
        check_class_names(names)
        names = tuple(names)
    if not hasattr(data, "column_names"):
        if column is not None:
            raise ValueError(f"column={column!r} is of a data set, and labels were given as an array; leave it out")
        from hf_noise.noise.arrays import integers

        if hasattr(data, "iloc") and hasattr(data, "columns"):
            raise TypeError("data is a DataFrame, and an audit reads labels or a datasets.Dataset; give "
                            "datasets.Dataset.from_pandas(data)")  # fmt: skip
        return integers("labels", data).astype(np.int64), names, None  # a copy of one's own
    from datasets import Dataset

    from hf_noise.data.classes import classes_of

    if not isinstance(data, Dataset):
        what = "choose a split of it" if isinstance(data, dict) else "read it into a Dataset"
        raise TypeError(f"data must be labels or a datasets.Dataset, got {type(data).__name__}; {what}")
    if column is None or column not in data.column_names:
        raise ValueError(f"column={column!r}: which column holds the labels? There are {', '.join(data.column_names)}")
    table = data.select_columns([column]).with_format("arrow")[:]
    if nulls := table[column].null_count:
        raise ValueError(f"column {column!r} holds {nulls} rows without a label; leave them out of the audit")
    found = classes_of({"data": data.features}, {"data": column}, {"data": table[column]}, "the data set", "column")
    if found.names is not None and names is not None:
        if set(names) != set(found.names) or not found.is_words and names != tuple(found.names):
            raise ValueError(f"column {column!r} has the classes {', '.join(found.names[:10])}, and class_names are "
                             f"{', '.join(names[:10])}; leave them out, or give these{' in any order' * found.is_words}"
                             )  # fmt: skip
        found = replace(found, names=names)
    own = None if found.names is None else tuple(found.names)
    if own is not None:
        check_class_names(own, f"classes of column {column!r}")
    return found.numbers(table, column), names if own is None else own, data


def as_given(classes: np.ndarray, names: tuple[str, ...], data: Any, column: str | None) -> tuple[Any, Any]:
    """Classes int64 [N] as a column of a data set holds its labels, and the feature: words of words, else numbers."""
    from datasets import ClassLabel

    kind = ClassLabel(names=list(names)) if data is None or column is None else data.features[column]
    if isinstance(kind, ClassLabel):
        return classes, kind
    if "string" in kind.dtype:
        return np.array(names, object)[classes].tolist(), kind
    return classes.astype(kind.pa_type.to_pandas_dtype()), kind
