"""How many units of data are noise, from their masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from hf_noise.noise.arrays import IGNORE_INDEX

__all__ = ["count_noisy", "flat_values"]


def count_noisy(batches: Iterable[Sequence[pa.Array]]) -> dict[str, float | int]:
    """The share of noisy units and the number of units, `{"rate", "n"}`; of documents their tokens count.

    Args:
        batches: masks, or masks and a column of the same lengths, both of lists or both of single values; where the
            column holds -100 is no unit.
    """
    noisy = total = 0
    for is_noisy, *column in batches:
        mask = flat_values(is_noisy)
        noisy += int(np.count_nonzero(mask))
        total += int(np.count_nonzero(flat_values(column[0]) != IGNORE_INDEX)) if column else mask.size
    return {"rate": noisy / total if total else 0.0, "n": total}


def flat_values(column: pa.Array) -> np.ndarray:
    """The values of a column, those of lists one after another."""
    while pa.types.is_nested(column.type):
        column = column.flatten()
    return column.to_numpy(zero_copy_only=False)
