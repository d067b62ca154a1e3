"""What the metrics of classifiers ask of class indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_noise.metrics.checks import as_array, check_count

__all__ = ["check_num_classes", "class_indices", "class_pairs"]


def check_num_classes(num_classes: Any) -> int:
    """Return `num_classes` as an int, or raise unless it is an integer in [2, 2^20]."""
    if isinstance(num_classes, bool) or not isinstance(num_classes, int | np.integer):
        raise TypeError(f"num_classes must be an integer, got {num_classes!r} of type {type(num_classes).__name__}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be >= 2, got {num_classes}")
    return check_count("num_classes", num_classes, 1 << 20)


def class_indices(name: str, values: Any, num_classes: int | None) -> np.ndarray:
    """`values` as int64 [n], each in [0, num_classes), or >= 0 where num_classes is None.

    Raises:
        TypeError: they are not integers, or num_classes is not one.
        ValueError: their shape is not [n], n is 0, or some lie outside.
    """
    array = as_array(name, values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be class indices [n] with n >= 1, got shape {list(array.shape)}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}; take argmax(axis=-1) of logits first")
    limit = np.iinfo(np.int64).max if num_classes is None else check_num_classes(num_classes)
    outside = (array < 0) | (array >= limit)
    limit = "inf" if num_classes is None else limit
    if outside.any():
        first = int(outside.argmax())
        raise ValueError(
            f"{outside.sum()} of {array.size} {name} lie outside [0, {limit}), the first is {array[first]} at index "
            f"{first}; drop what carries no label (-100) and check num_classes"
        )
    return array.astype(np.int64, copy=False)


def class_pairs(predictions: Any, references: Any, num_classes: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and references as int64 [n] each; raises as `class_indices` does, and if their lengths differ."""
    predictions = class_indices("predictions", predictions, num_classes)
    references = class_indices("references", references, num_classes)
    if predictions.size != references.size:
        raise ValueError(f"{predictions.size} predictions do not belong to {references.size} references")
    return predictions, references
