"""What the analyses ask of arrays of numbers: all of them in their range, and of shapes that fit together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hf_noise.noise.arrays import integers, real_numbers

__all__ = ["broadcast", "integers_in", "numbers_in"]


def numbers_in(
    name: str, values: Any, low: float = -math.inf, high: float = math.inf, *, remedy: str, is_below: bool = False
) -> np.ndarray:
    """`values` as finite float64 of any shape in [low, high], or in [low, high) with `is_below`.

    Raises:
        TypeError: they are no real numbers.
        ValueError: one is NaN, infinite or outside the range; the message says which, and `remedy`.
    """
    array = real_numbers(name, values)
    inside = np.isfinite(array) & (array >= low) & (array < high if is_below else array <= high)
    if not inside.all():
        first = array[~inside].flat[0]
        of_many = f" ({np.count_nonzero(~inside)} of {array.size} values do not)" if array.size > 1 else ""
        bounds = f"lie in [{low:g}, {high:g}{')' if is_below else ']'}" if math.isfinite(low) else "be finite"
        raise ValueError(f"{name} must {bounds}, got {first!s}{of_many}; {remedy}")
    return array


def integers_in(name: str, values: Any, low: int, high: int, *, remedy: str) -> np.ndarray:
    """`values` as integers of any shape in [low, high]; raises as `numbers_in`."""
    array = integers(name, values)
    if array.size and (array.min() < low or array.max() > high):
        first = array[(array < low) | (array > high)].flat[0]
        raise ValueError(f"{name} must lie in [{low}, {high}], got {first}; {remedy}")
    return array


def broadcast(**arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays in their common shape, each a copy of its own; ValueError names those that do not fit together."""
    try:
        shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        told = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise ValueError(f"shapes do not fit together: {told}; give single numbers, or arrays that broadcast") from None
    return [np.broadcast_to(array, shape).copy() for array in arrays.values()]
