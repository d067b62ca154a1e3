"""What is asked of single values: numbers, integers, flags and names, before anything is computed from them."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np

__all__ = ["check_choice", "check_count", "check_epoch", "check_flag", "check_integer", "check_real", "check_seed"]


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


def check_integer(name: str, value: Any) -> int:
    """`value` as an int, or a TypeError: a bool, a float such as 2.0 or an array is no integer."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    return int(value)


def check_count(name: str, value: Any, smallest: int, bits: int, remedy: str = "") -> int:
    """`value` as an int, or an error unless it is an integer in [smallest, 2^bits]."""
    count = check_integer(name, value)
    if not smallest <= count <= 1 << bits:
        raise ValueError(f"{name} must lie in [{smallest}, 2^{bits}], got {value}" + (f"; {remedy}" if remedy else ""))
    return count


def check_seed(seed: Any) -> int:
    """Return `seed` as an int, or raise: it is an integer in [0, 2^63), which JSON and int64 both hold exactly."""
    number = check_integer("seed", seed)
    if not 0 <= number < 1 << 63:
        raise ValueError(f"seed must lie in [0, 2^63), got {seed}")
    return number


def check_epoch(epoch: Any) -> int:
    """Return `epoch` as an int, or raise: it is an integer in [0, 2^63); others would share the draws of one in it."""
    if type(epoch) is not int:
        epoch = check_integer("epoch", epoch)
    if not 0 <= epoch < 1 << 63:
        raise ValueError(f"epoch must lie in [0, 2^63), got {epoch}; it counts from 0 how often the data were seen")
    return epoch


def check_flag(name: str, value: Any) -> bool:
    """`value` as a bool, or a TypeError: what merely counts as true in Python, such as 1 or "no", is none."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type(value).__name__}")
    return bool(value)


def check_choice(name: str, value: Any, choices: Iterable[str], listed: str | None = None) -> str:
    """`value` as a str, or a ValueError unless it is one of these names; `listed` says them in the message."""
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be {listed or 'one of ' + ', '.join(choices)}, got {value!r}")
    return str(value)
