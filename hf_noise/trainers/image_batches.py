"""Rows of labelled images to batches: columns by their names, shapes, kinds and ranges of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from hf_noise.noise.arrays import as_array
from hf_noise.trainers.collate import shown_columns
from hf_noise.trainers.label_names import CLEAN_LABELS, LABELS, check_clean_beside, rename_remedy

__all__ = [
    "KNOWN_NAMES", "ImageBatches", "as_tensor", "check_kind", "check_labels", "check_shape", "collate_images",
    "stacked", "whole",
]  # fmt: skip

#: Columns that are used, and other names that they may have; rows may hold others, of any kind, which are left alone.
_USED = {
    "pixel_values": ("pixel_values",), "labels": LABELS, "clean_labels": CLEAN_LABELS, "is_noisy": ("is_noisy",),
    "sample_id": ("sample_id",),
}  # fmt: skip

KNOWN_NAMES = frozenset(name for names in _USED.values() for name in names)


def collate_images(rows: Any) -> dict[str, Tensor]:
    """Rows to a batch of the columns that are used; a batch that a data set made as a whole stays as it is.

    Raises:
        ValueError: images or labels are missing, or rows cannot be one batch; the row is named.
        TypeError: rows that are no mappings of columns.
    """
    if isinstance(rows, Mapping):
        return rows
    if not isinstance(rows[0], Mapping):
        raise TypeError(f"rows must be mappings of columns, such as pixel_values, got {type(rows[0]).__name__}")
    there = {use: next((name for name in names if name in rows[0]), None) for use, names in _USED.items()}
    if missing := [use for use in ("pixel_values", "labels") if there[use] is None]:
        raise ValueError(f"rows need {' and '.join(missing)}, they have {', '.join(map(str, rows[0]))}; name the "
                         f"columns so, or make them with a transform; labels: {rename_remedy(rows[0])}")  # fmt: skip
    check_clean_beside(rows[0])
    # As `datasets` stores what a map has made of images.
    return {use: stacked(name, rows) for use, name in there.items() if name is not None}


def stacked(name: str, rows: Sequence[Mapping[str, Any]], remedy: str = "bring images to one size") -> Tensor:
    """A column of rows as one tensor; `remedy` says what to do where its values have several shapes."""
    values: list[Tensor] = []
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping) or name not in row:
            raise ValueError(f"row {i} of the batch has no column {name!r}, which row 0 has")
        value = as_tensor(name, row[name])
        if values and (value.dtype == torch.bool) != (values[0].dtype == torch.bool):
            raise ValueError(f"row {i} of the batch: column {name!r} holds {row[name]!r:.50}, row 0 "
                             f"{rows[0][name]!r:.50}; a column is of numbers or of booleans")  # fmt: skip
        if values and value.shape != values[0].shape:
            raise ValueError(f"row {i} of the batch: column {name!r} has the shape {list(value.shape)}, row 0 has "
                             f"{list(values[0].shape)}; {remedy}")  # fmt: skip
        values.append(value)
    return default_collate(values)


def as_tensor(name: str, value: Any) -> Tensor:
    """A value of a row, or a column of a batch, as a tensor of numbers; ValueError if it holds none."""
    if isinstance(value, Tensor):
        return value
    if value is None:
        raise ValueError(f"column {name!r} holds None, which is no number; leave such rows out, or fill them in")
    array = as_array(f"column {name!r}", value)
    if array.dtype.kind not in "iufb":
        raise ValueError(f"column {name!r} must hold numbers, got {repr(value)[:50]}; text becomes a number by "
                         f"dataset.class_encode_column({name!r})")  # fmt: skip
    # Pixels that were lists are float64, which no model is; a label that is a fraction is named later.
    if array.dtype.kind == "f" and array.itemsize > 4:
        array = array.astype(np.float32 if array.ndim else np.float64)
    return torch.from_numpy(array.astype(np.dtype(array.dtype.str)))  # C's names for a type, such as ulonglong, too


@dataclass(frozen=True)
class ImageBatches:
    """Batches of a collator whose labels lie in [0, C) and whose images fit; labels on a device were read before.

    The collator is shown the columns `shown` alone, as `remove_unused_columns` has it; all of them if that is None.
    """

    collator: Callable[[Any], Any]
    num_classes: int
    image_shape: tuple[int, int, int] | None
    shown: frozenset[str] | None = None

    def __call__(self, rows: Any) -> Any:
        made = self.collator(shown_columns(rows, self.shown, "pixel_values"))
        if not isinstance(made, Mapping):
            raise TypeError(f"data_collator must give a mapping of columns, got {type(made).__name__}")
        there = {use: next((name for name in names if name in made), None) for use, names in _USED.items()}
        batch = {use: as_tensor(name, made[name]) for use, name in there.items() if name is not None}
        if missing := [use for use in ("pixel_values", "labels") if use not in batch]:
            raise ValueError(f"a batch needs {' and '.join(missing)}, the collator gives {', '.join(map(str, made))}")
        if self.image_shape is not None:
            check_shape(batch["pixel_values"], self.image_shape)
        labels = {name: batch[name] for name in ("labels", "clean_labels") if name in batch}
        for name, values in labels.items():
            check_kind(name, values)
            batch[name] = values.long()
        if "sample_id" in batch:
            batch["sample_id"] = whole("sample_id", batch["sample_id"]).long()
        check_labels({name: values for name, values in labels.items() if values.device.type == "cpu"}, self.num_classes)
        return batch


def check_kind(name: str, labels: Tensor) -> None:
    """Raise ValueError unless labels are integers [B]."""
    if labels.is_floating_point() or labels.ndim != 1 or labels.dtype == torch.bool:
        raise ValueError(
            f"{name} must be integers [B], the number of each image's class, got {labels.dtype} {list(labels.shape)}; "
            "of one-hot or mixed labels take argmax(-1), and round no fractions"
        )


def whole(name: str, values: Any) -> Tensor:
    """Integers [B], or a ValueError."""
    if not isinstance(values, Tensor) or values.ndim != 1 or not _is_integer(values.dtype):
        told = f"{values.dtype} {list(values.shape)}" if isinstance(values, Tensor) else repr(values)[:80]
        raise ValueError(f"{name} must be one integer for each row, got {told}")
    return values


def _is_integer(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def check_labels(columns: Mapping[str, Tensor], num_classes: int) -> None:
    """Raise ValueError for labels outside [0, C), with their number and the first one, before anything is trained."""
    for name in ("labels", "clean_labels"):
        if name in columns:
            wrong = ((columns[name] < 0) | (columns[name] >= num_classes)).nonzero().flatten()
            if len(wrong):
                first = int(wrong[0])
                raise ValueError(
                    f"{len(wrong)} of {len(columns[name])} {name} are outside [0, {num_classes}), the first is "
                    f"{int(columns[name][first])} in row {first}; correct them, or make a model with more classes"
                )


def check_shape(images: Tensor, shape: tuple[int, int, int]) -> None:
    if tuple(images.shape[1:]) != shape:
        raise ValueError(
            f"the model takes images [channels, height, width] = {list(shape)}, the data have "
            f"{list(images.shape[1:])}; pad or convert them, or make a model for this shape"
        )
