"""What the metrics ask of their arguments: arrays that hold numbers, single numbers, masks and devices."""

from __future__ import annotations

import os
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["as_array", "check_count", "check_device", "check_path", "check_real", "masked_units", "real_numbers"]


def as_array(name: str, values: Any) -> np.ndarray:
    """`values` as a NumPy array of whatever dtype: an array, a tensor on any device, a number or nested sequences.

    Raises:
        ValueError: a masked array, whose mask would be lost, or sequences of different lengths.
        TypeError: a tensor that no array can hold, such as a sparse one.
    """
    if hasattr(values, "detach"):  # a tensor; NumPy knows neither a GPU's memory nor bfloat16
        values = _from_tensor(name, values)
    if type(values) is np.ndarray:
        return values
    if isinstance(values, np.ma.MaskedArray) or isinstance(values, list | tuple) and _holds_masked(values):
        raise ValueError(f"{name} is a masked array, and its mask would be lost; fill or drop what it hides")
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} cannot be read as an array: {error}") from error


def _holds_masked(values: list | tuple) -> bool:
    kinds = set(map(type, values))
    if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):
        return True
    return bool(kinds & {list, tuple}) and any(_holds_masked(part) for part in values if isinstance(part, list | tuple))


def _from_tensor(name: str, values: Any) -> np.ndarray:
    if values.is_floating_point() and values.itemsize < 4:
        values = values.float()
    try:
        return values.detach().cpu().resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{name} must be a dense tensor of numbers, got {values.dtype}, {values.layout}") from error


def real_numbers(name: str, values: Any) -> np.ndarray:
    """`values` as float64, or a TypeError unless they are real numbers; see `as_array` for what else is refused."""
    array = as_array(name, values)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be real numbers, got {array.dtype}")
    return array.astype(np.float64, copy=False)


def masked_units(name: str, values: Any) -> np.ndarray:
    """A mask as booleans, or a TypeError unless it holds booleans, or integers that are 0 and 1."""
    array = as_array(name, values)
    if not array.size:
        return np.zeros(array.shape, dtype=bool)  # an empty list has no type of its own
    is_01 = array.dtype.kind in "iu" and 0 <= array.min() <= array.max() <= 1
    if array.dtype != bool and not is_01:
        raise TypeError(f"{name} must be a mask of booleans (or integers 0 and 1), got {array.dtype}")
    return array.astype(bool, copy=False)


def check_real(name: str, value: Any) -> float:
    """`value` as a float, NaN and infinities too, or a TypeError: a bool, a text or an array is no real number.

    Raises ValueError for one that is too large for a float.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {value!r} of type {type(value).__name__}")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} must be a number that a float can hold, got {value!r:.40}") from error


def check_count(name: str, value: Any, largest: int = 1 << 53, remedy: str = "") -> int:
    """`value` as an int, or a TypeError unless it is an integer, a ValueError unless it lies in [1, largest]."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be >= 1, got {value}" + (f"; {remedy}" if remedy else ""))
    if value > largest:
        raise ValueError(f"{name} must be <= {largest}, got {value}" + (f"; {remedy}" if remedy else ""))
    return int(value)


def check_device(device: Any) -> torch.device:
    """The device, or a ValueError if torch does not know it or cannot reach it."""
    import torch

    if isinstance(device, bool) or not isinstance(device, str | int | torch.device):
        raise TypeError(f"device must be one of torch's, such as 'cpu', got {device!r}")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, ValueError, OverflowError) as error:
        raise ValueError(f"device must be one that torch can use here, got {device!r}: {error}") from error


def check_path(name: str, path: Any) -> Path:
    """A path that this system can look for; TypeError or FileNotFoundError for what is none."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name} must be a path, got {path!r:.80} of type {type(path).__name__}")
    try:
        Path(path).is_file()
    except (OSError, ValueError) as error:  # too long, or with a null character
        raise FileNotFoundError(f"{name} = {path!r:.80} cannot be a path: {error}") from error
    return Path(path)
