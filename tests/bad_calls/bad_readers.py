"""How checkers of bad calls read arguments and compare results: strictly, and with nothing of the code under test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch


class Unconfirmed(Exception):
    """A checker does not confirm the result of a call."""


def confirm(condition: Any, what: str) -> None:
    """Raise Unconfirmed unless the condition holds."""
    if not condition:
        raise Unconfirmed(what)


def number(value: Any) -> float:
    confirm(isinstance(value, Real) and not isinstance(value, bool), f"{value!r:.60} is no real number")
    try:
        return float(value)
    except OverflowError:
        raise Unconfirmed("no float holds this") from None


def whole(value: Any, low: float = -math.inf, high: float = math.inf) -> int:
    """An integer in [low, high]."""
    confirm(isinstance(value, Integral) and not isinstance(value, bool), f"{value!r:.60} is no integer")
    confirm(low <= int(value) <= high, f"{value!r:.60} is outside [{low}, {high}]")
    return int(value)


def flag(value: Any) -> bool:
    confirm(isinstance(value, bool | np.bool_), f"{value!r:.60} is no bool")
    return bool(value)


def text(value: Any, *allowed: str) -> str:
    confirm(isinstance(value, str) and (not allowed or value in allowed), f"{value!r:.60} is none of {allowed}")
    return str(value)


def _nested(value: Any) -> tuple[list[int], list[Any]]:
    """Shape and numbers, in order, of an array, a tensor, a number or sequences of them."""
    if isinstance(value, np.ma.MaskedArray):
        raise Unconfirmed("a masked array")
    if isinstance(value, torch.Tensor):
        confirm(value.layout is torch.strided, "not dense")
        return list(value.shape), value.detach().resolve_conj().reshape(-1).tolist()
    if isinstance(value, memoryview | bytearray) or hasattr(value, "typecode"):
        value = np.asarray(value)
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind == "b":
            return list(value.shape), value.reshape(-1).tolist()  # refused, but in a list of numbers
        confirm(value.dtype.kind in "iuf", f"dtype {value.dtype}")
        values = np.asarray(value)
        values = values.astype(np.float64) if value.dtype.kind == "f" else values
        return list(value.shape), values.reshape(-1).tolist()
    if isinstance(value, list | tuple | range):
        parts = [_nested(part) for part in value]
        confirm(all(shape == parts[0][0] for shape, _ in parts), "ragged")
        return [len(parts), *(parts[0][0] if parts else [])], [entry for _, part in parts for entry in part]
    return [], [value]


def _objects(shape: list[int], values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


def _numbers(value: Any, ndim: int | None) -> tuple[list[int], list[Any]]:
    shape, values = _nested(value)
    confirm(ndim is None or len(shape) == ndim, f"shape {shape}")
    is_bool = [isinstance(entry, bool | np.bool_) for entry in values]
    if isinstance(value, list | tuple) and not all(is_bool):  # in a list of numbers True is 1, as Python has it
        values = [int(entry) if bad else entry for entry, bad in zip(values, is_bool)]
    return shape, values


def ints(value: Any, ndim: int | None = None) -> np.ndarray:
    """An array of Python's integers."""
    shape, values = _numbers(value, ndim)
    return _objects(shape, [whole(entry) for entry in values])


def reals(value: Any, ndim: int | None = None) -> np.ndarray:
    """An array of Python's floats, as float64."""
    shape, values = _numbers(value, ndim)
    return np.array([number(entry) for entry in values], dtype=np.float64).reshape(shape)


def same(found: Any, expected: Any, what: str = "result") -> None:
    """Confirm two values, arrays or containers to be equal; NaN equals NaN."""
    if isinstance(expected, Mapping):
        confirm(isinstance(found, Mapping) and set(found) == set(expected), f"{what} has other keys")
        for key in expected:
            same(found[key], expected[key], f"{what}[{key!r}]")
        return
    if isinstance(expected, np.ndarray) and expected.dtype == object:  # of `ints`
        expected = expected.tolist()
    left, right = (
        _nested(side) if not isinstance(side, str | None | bool) else ([], [side]) for side in (found, expected)
    )
    equal = left[0] == right[0] and all(a == b or (a != a and b != b) for a, b in zip(left[1], right[1]))
    confirm(equal, f"{what} is {found!r:.200}, not {expected!r:.200}")


def close(found: Any, expected: Any, tolerance: float = 1e-6, what: str = "result") -> None:
    """Confirm numbers to be near, relatively or absolutely; NaN is near NaN, and inf near itself."""
    left, right = reals(found), np.asarray(expected, dtype=np.float64)
    confirm(left.shape == right.shape, f"{what} has the shape {left.shape}, not {right.shape}")
    with np.errstate(invalid="ignore"):
        near = np.abs(left - right) <= tolerance * np.maximum(1, np.abs(right))
    near |= (left == right) | (np.isnan(left) & np.isnan(right))
    confirm(near.all(), f"{what} is {left[~near][:3]}, not {right[~near][:3]}")
