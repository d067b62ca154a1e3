"""Checks of the numbers and names that networks, samplers and pipelines take, before a library is handed them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

__all__ = [
    "MANY", "as_json", "check_class_names", "check_floats", "check_int", "check_name", "check_number", "check_sizes",
    "check_unmasked", "shown",
]  # fmt: skip

#: More classes, or images of one call, than this are taken for a slip.
MANY = 2**17


def shown(value: Any) -> str:
    """A value as error messages name it, on one line of at most 80 characters."""
    if isinstance(value, int) and abs(value) >= 10**60:  # Python writes out no number of thousands of digits
        return f"a whole number of {value.bit_length()} bits"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_number(name: str, value: Any, within: str, hint: str = "") -> float:
    """`value` as a float.

    Args:
        within: interval in which it must lie, such as "[0, 1)"; an open end at "inf" asks for a finite number.
        hint: what it is, or what to do, for the message.

    Raises:
        TypeError: it is no real number; a bool is none.
        ValueError: it lies outside, or is NaN.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number in {within}, got {shown(value)}{_after(hint)}")
    try:
        number = float(value)
    except OverflowError:  # of a whole number beyond float64
        number = math.nan
    if not _lies(number, within):
        raise ValueError(f"{name} must lie in {within}, got {shown(value)}{_after(hint)}")
    return number


def check_int(name: str, value: Any, within: str, hint: str = "") -> int:
    """`value` as an int; as `check_number`, for whole numbers."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number in {within}, got {shown(value)}{_after(hint)}")
    number = int(value)
    if not _lies(number, within):
        raise ValueError(f"{name} must be a whole number in {within}, got {shown(number)}{_after(hint)}")
    return number


def check_name(name: str, value: Any, known: Iterable[str]) -> None:
    """Raise ValueError unless `value` is one of the names, TypeError unless it is a string."""
    known = list(known)
    message = f"{name} must be one of {', '.join(map(repr, known))}, got {shown(value)}"
    if not isinstance(value, str):
        raise TypeError(message)
    if value not in known:
        raise ValueError(message)


def check_sizes(name: str, values: Any, within: str, at_least: int = 1) -> tuple[int, ...]:
    """`values` as a tuple of whole numbers in `within`, `at_least` so many; raises as `check_int` does."""
    if not isinstance(values, list | tuple):
        raise TypeError(f"{name} must be a list of whole numbers in {within}, got {shown(values)}")
    if len(values) < at_least:
        raise ValueError(f"{name} must have {at_least} entries at least, got {shown(values)}")
    return tuple(check_int(f"each of {name}", value, within) for value in values)


def check_floats(name: str, value: Any, what: str) -> None:
    """Raise TypeError unless `value` is a dense tensor of floating-point numbers; none is read back from a device."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.layout is not torch.strided:
        kind = f"{value.dtype}, {value.layout}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a tensor of floating-point numbers, {what}, got {kind}")


def as_json(name: str, value: Any) -> dict | None:
    """A dictionary that JSON can hold, such as `noise.to_dict()`, or None; TypeError for anything else."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dictionary, got {shown(value)}; pass noise.to_dict()")
    try:
        json.dumps(dict(value))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} cannot be written as JSON ({error}); pass noise.to_dict()") from None
    return dict(value)


def check_unmasked(name: str, value: Any) -> None:
    """Raise TypeError for a masked array, or lists with one, whose mask would be lost on the way to a tensor."""
    if isinstance(value, list | tuple):
        for one in value:
            check_unmasked(name, one)
    elif isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array, got {shown(value)}; fill it or leave masked entries out")


def check_class_names(names: Any, classes: int | None = None) -> list[str]:
    """Names of classes as a list: strings, each another one, `classes` of them; else ValueError or TypeError."""
    if isinstance(names, str | bytes) or not isinstance(names, Sequence) or not all(isinstance(n, str) for n in names):
        raise TypeError(f"names of classes must be a list of strings, got {shown(names)}")
    if classes is not None and len(names) != classes:
        raise ValueError(f"class_names has {len(names)} entries for {classes} classes; use the same number")
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ValueError(f"two classes have the name {shown(twice)}; a class is told by its name")
    return list(names)


def _lies(value: Any, within: str) -> bool:
    low, high = (float(end) for end in within[1:-1].split(","))
    above = value >= low if within[0] == "[" else value > low
    return bool(above and (value <= high if within[-1] == "]" else value < high))


def _after(hint: str) -> str:
    return f"; {hint}" if hint else ""
