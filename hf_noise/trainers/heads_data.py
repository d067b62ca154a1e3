"""The rows that heads are fitted on, read once and checked: features, labels, weights, ids, and validation rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_noise.losses.checks import check_count, check_integers, check_tensor, holds_masked

__all__ = ["HeadData", "read_features", "read_labels"]


#: More are taken for ids or other numbers that are no classes.
_MOST_CLASSES = 1 << 20


@dataclass(frozen=True)
class HeadData:
    """Rows on the device that fits.

    Attributes:
        features: float32 or float64 [N, D].
        labels: int64 [N].
        weights: [N] of mean 1, None where all are alike.
        sample_ids: int64 [N].
        num_classes: C.
        validation: features [N', D], labels [N'] and weights [N'] of mean 1 or None; None for no rows.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor | None
    sample_ids: Tensor
    num_classes: int
    validation: tuple[Tensor, Tensor, Tensor | None] | None

    @classmethod
    def read(cls, features: Any, labels: Any, weights: Any, sample_ids: Any, num_classes: int | None,
             validation: Any, device: torch.device | None) -> HeadData:  # fmt: skip
        """Raises as `hf_noise.trainers.heads.fit_heads` says."""
        features = read_features("features", features, device)
        device, rows = features.device, len(features)
        labels = read_labels("labels", labels, rows)
        apart = None
        if validation is not None:
            if not isinstance(validation, list | tuple) or len(validation) not in (2, 3):
                raise TypeError("validation must be (features, labels), or (features, labels, weights), got a "
                                f"{type(validation).__name__}")  # fmt: skip
            held = read_features("features of validation", validation[0], device, features.dtype, features.shape[1])
            of_held = None if len(validation) == 2 else _read_weights(validation[2], len(held)).to(device, held.dtype)
            apart = held, read_labels("labels of validation", validation[1], len(held)), of_held
        largest = max(int(of.max()) for of in (labels, *(apart or ())[1:2]))
        classes = min(largest + 1, _MOST_CLASSES) if num_classes is None else (
            check_count("num_classes", num_classes, 2, _MOST_CLASSES))  # fmt: skip
        if largest >= classes:
            raise ValueError(f"labels must lie in [0, {classes}), got {largest}, in training or validation; "
                             "num_classes= says how many there are")  # fmt: skip
        weights = None if weights is None else _read_weights(weights, rows)
        present = labels if weights is None else labels[weights > 0]
        if len(present.unique()) < 2:
            raise ValueError(f"labels hold one class only ({int(present[0])}), so there is nothing to tell apart; give "
                             "rows of two classes at least")  # fmt: skip
        if sample_ids is None:
            ids = torch.arange(rows)
        else:
            ids = _as_tensor("sample_ids", sample_ids)
            ids = check_integers("sample_ids", ids)
            if ids.shape != (rows,):
                raise ValueError(f"sample_ids must be [{rows}], one of each row of features, got {list(ids.shape)}")
        moved = None if weights is None else weights.to(device, features.dtype)
        apart = None if apart is None else (apart[0], apart[1].to(device), apart[2])
        return cls(features, labels.to(device), moved, ids.to(device), classes, apart)


def _as_tensor(name: str, values: Any) -> Tensor:
    if isinstance(values, Tensor):
        check_tensor(name, values)
        if values.dtype == torch.bool or values.is_complex():
            raise TypeError(f"{name} must be real numbers, got {values.dtype}")
        return values.detach()
    if holds_masked(values):
        raise ValueError(f"{name} is a masked array, and its mask would be lost; fill or drop what it hides")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} cannot be read as an array: {error}") from error
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numbers, got {array.dtype}")
    dtype = np.dtype(f"{array.dtype.kind}{min(array.dtype.itemsize, 8)}")  # of this machine's byte order
    copied = np.array(array, dtype=dtype, order="C")  # neither read-only nor anyone else's
    return torch.from_numpy(copied.view(dtype))  # by the name that torch knows, of those that NumPy has for a size


def read_features(name: str, values: Any, device: Any = None, dtype: Any = None, width: int | None = None) -> Tensor:
    """Finite features [N, D] as float32, or float64 if they are, or as `dtype`; TypeError or ValueError if not."""
    features = _as_tensor(name, values)
    if features.ndim != 2 or not features.numel():
        raise ValueError(f"{name} must be [N, D] with rows, got {list(features.shape)}")
    if width is not None and features.shape[1] != width:
        raise ValueError(f"{name} must be [N, {width}], of as many numbers as those of training, got "
                         f"{list(features.shape)}")  # fmt: skip
    wanted = dtype or (torch.float64 if features.dtype == torch.float64 else torch.float32)
    features = features.to(features.device if device is None else device, wanted)
    is_finite = features.isfinite().all(1)
    if not bool(is_finite.all()):
        row = int((~is_finite).nonzero()[0, 0])
        raise ValueError(f"{name} must be finite, and row {row} holds NaN, infinity or what {wanted} does not hold; "
                         "drop such rows")  # fmt: skip
    return features


def read_labels(name: str, values: Any, rows: int, classes: int | None = None) -> Tensor:
    """Labels [N] as int64 on their device, >= 0, and below `classes`; TypeError or ValueError if not."""
    labels = check_integers(name, _as_tensor(name, values))
    if labels.shape != (rows,):
        raise ValueError(f"{name} must be [{rows}], one of each row of features, got {list(labels.shape)}")
    smallest, largest = int(labels.min()), int(labels.max())
    if smallest < 0 or (classes is not None and largest >= classes):
        wrong = smallest if smallest < 0 else largest
        raise ValueError(f"{name} must lie in [0, {'C' if classes is None else classes}), got {wrong}; leave out rows "
                         "without a label (-100)")  # fmt: skip
    return labels.cpu()


def _read_weights(values: Any, rows: int) -> Tensor:
    weights = _as_tensor("sample_weight", values).double().cpu()
    if weights.shape != (rows,):
        raise ValueError(f"sample_weight must be [{rows}], one of each row of features, got {list(weights.shape)}")
    if not bool((weights.isfinite() & (weights >= 0)).all()) or not bool(weights.any()):
        raise ValueError("sample_weight must be finite, >= 0 and not all 0, got values from "
                         f"{float(weights.min()):.4g} to {float(weights.max()):.4g}")  # fmt: skip
    return weights / weights.mean()
