"""What the losses ask of their arguments: Python numbers, dtypes and shapes, and values only where nothing has to wait.

Looking into a tensor makes a GPU wait and breaks a compiled graph, so the values of tensors are checked on a CPU in
eager mode alone (`looked_at`). Everything else is known to the host, and is checked everywhere.
"""

from __future__ import annotations

import math
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "check_count", "check_device", "check_flag", "check_floats", "check_integers", "check_positive",
    "check_real", "check_tensor", "holds_masked", "looked_at", "on_host",
]  # fmt: skip

_INTEGERS = (
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip


_SAID = {"(0, inf)": "be finite and > 0", "(-inf, inf)": "be finite"}


def looked_at(values: Tensor) -> np.ndarray | None:
    """The values of a tensor on a CPU, without a copy; None on a device, while a graph is made, and in `vmap`."""
    if (
        values.device.type != "cpu"
        or type(values) not in (Tensor, torch.nn.Parameter)  # a fake or distributed one has no values here
        or torch.compiler.is_compiling()
        or torch._C._functorch.is_functorch_wrapped_tensor(values)
    ):
        return None
    values = values.detach()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def check_real(name: str, value: Any, allowed: str, remedy: str = "") -> float:
    """`value` as a float, or an error unless it is a finite real number in a range.

    Args:
        allowed: an interval such as "[0, 1)" or "(0, inf)", whose ends say what is inside.
        remedy: what the number means or what to give.

    Raises:
        TypeError: it is no real number; a bool is none.
        ValueError: it is outside, NaN or infinite.
    """
    if type(value) is not float and (isinstance(value, bool) or not isinstance(value, Real)):
        raise TypeError(f"{name} must be a real number in {allowed}, got {value!r} of type {type(value).__name__}")
    low, high, from_low, to_high = _ends(allowed)
    if not (low < value < high or (from_low and value == low) or (to_high and value == high)):
        said = _SAID.get(allowed, f"lie in {allowed}")
        raise ValueError(f"{name} must {said}, got {value!r}" + (f"; {remedy}" if remedy else ""))
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} must be a number that a float can hold, got {value!r:.40}") from error


@lru_cache
def _ends(allowed: str) -> tuple[float, float, bool, bool]:
    low, high = map(float, allowed[1:-1].split(","))
    return low, high, allowed[0] == "[", allowed[-1] == "]"


def check_count(name: str, value: Any, smallest: int = 1, largest: float = math.inf) -> int:
    """`value` as an int, or a TypeError unless it is an integer, a ValueError unless it lies in the range."""
    if type(value) is not int and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    if value < smallest:
        raise ValueError(f"{name} must be >= {smallest}, got {value}")
    if value > largest:
        raise ValueError(f"{name} must be <= {largest}, got {value}")
    return int(value)


def check_flag(name: str, value: Any) -> bool:
    """`value` as a bool, or a TypeError: what merely counts as true in Python is none."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type(value).__name__}")
    return bool(value)


def check_device(name: str, device: Any) -> torch.device:
    """The device, with its number, or a ValueError if torch does not know it or cannot reach it."""
    if isinstance(device, bool) or not isinstance(device, str | int | torch.device):
        raise TypeError(f"device must be one of torch's, such as 'cpu', got {device!r}")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be a device that torch can use here, got {device!r}: {error}") from error


def check_tensor(name: str, values: Any) -> None:
    """Raise TypeError unless this is a dense tensor."""
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(values).__name__}; take torch.as_tensor(...) of it")
    if values.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got one of layout {values.layout}; take {name}.to_dense()")


def check_floats(name: str, values: Any) -> None:
    """Raise TypeError unless this is a dense tensor of floating-point numbers."""
    check_tensor(name, values)
    if not values.is_floating_point():
        raise TypeError(f"{name} must be floating-point, got {values.dtype}")


def check_positive(name: str, values: Tensor) -> None:
    """Raise ValueError for values <= 0, where they may be looked at.

    NaN passes, as it does through the loss: whoever watches that can name the batch.
    """
    array = looked_at(values)
    if array is not None and array.size and (smallest := np.fmin.reduce(array, axis=None)) <= 0:
        raise ValueError(f"{name} must be > 0, got {smallest}")


def check_integers(name: str, values: Any) -> Tensor:
    """The tensor as int64, or a TypeError unless it is a dense one of integers, on a CPU a ValueError from 2^63 on."""
    check_tensor(name, values)
    if values.dtype not in _INTEGERS:
        raise TypeError(f"{name} must be integers, got {values.dtype}")
    if values.dtype == torch.uint64 and (array := looked_at(values)) is not None and (array >> 63).any():
        raise ValueError(f"{name} must lie below 2^63, which int64 does not reach")
    return values.long()


def holds_masked(values: Any) -> bool:
    """Whether this is a masked array, or lists with one in them."""
    if isinstance(values, list | tuple):
        return any(map(holds_masked, values))
    return isinstance(values, np.ma.MaskedArray)


def on_host(name: str, values: Any) -> Tensor:
    """An array, a tensor or nested sequences of real numbers as float64 on the CPU, without gradient.

    Raises:
        TypeError: they are no real numbers.
        ValueError: they are ragged, or a masked array whose mask would be lost.
    """
    if isinstance(values, Tensor):
        check_tensor(name, values)
        if values.is_complex() or values.dtype == torch.bool:
            raise TypeError(f"{name} must be real numbers, got {values.dtype}")
        return values.detach().to("cpu", torch.float64)
    if holds_masked(values):
        raise ValueError(f"{name} is a masked array, and its mask would be lost; fill or drop what it hides")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} cannot be read as an array: {error}") from error
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be real numbers, got {array.dtype}")
    return torch.from_numpy(array.astype(np.float64, order="C"))
