"""Draws from the rows of a matrix in constant time per draw, with integers alone.

Walker, "An efficient method for generating discrete random variables with general distributions" (ACM TOMS 1977).
A row is cut into C cells of equal probability 2^32, each shared by at most two classes: cell k belongs to class k below
a threshold and to its alias above it.
"""

from __future__ import annotations

import numpy as np

from hf_noise.noise.draws import put

__all__ = ["ALIAS_BITS", "alias_table", "draw", "integer_weights"]

#: A cell is one integer: threshold * 2^20 + alias, with a threshold in [0, 2^32].
ALIAS_BITS = 20

_CELL = 1 << 32
_ALIAS = (1 << ALIAS_BITS) - 1


def integer_weights(matrix: np.ndarray) -> np.ndarray:
    """Rows of probabilities [R, C] as integers that sum to C * 2^32, int64; zeros stay zeros."""
    total = matrix.shape[1] * _CELL
    weights = np.rint(matrix * total).astype(np.int64)
    # What rounding left over goes to the largest entry, where it is the smallest change.
    weights[np.arange(len(weights)), weights.argmax(axis=1)] += total - weights.sum(axis=1)
    return weights


def alias_table(matrix: np.ndarray) -> np.ndarray:
    """Cells to draw from each row of probabilities.

    Args:
        matrix: float64 [R, C], rows sum to 1, C <= 2^20.

    Returns:
        int64 [R, C]. A draw takes a cell k uniformly from 0 .. C - 1 and u uniformly from 0 .. 2^32 - 1, and is k if
        u < table[row, k] >> 20, else table[row, k] & (2^20 - 1). The probabilities are those of `integer_weights`.
    """
    weights = integer_weights(matrix)
    n_rows, n = weights.shape
    rows, last = np.arange(n_rows), n - 1
    # Sweep over each row's light classes (that fill a cell or less) and its heavy ones side by side: what a light class
    # leaves of its cell goes to the current heavy one, and a heavy class that has shrunk to a cell or less becomes
    # light itself. Every step completes one cell of every row.
    is_heavy = weights > _CELL
    order = np.argsort(is_heavy, axis=1, kind="stable")
    n_light = n - is_heavy.sum(axis=1)
    light, heavy = np.zeros(n_rows, dtype=np.int64), n_light.copy()
    left = weights[rows, order[rows, np.minimum(heavy, last)]]
    table = np.empty_like(weights)
    for _ in range(n):
        light_id, heavy_id, next_id = (order[rows, np.minimum(at, last)] for at in (light, heavy, heavy + 1))
        is_last = heavy >= last
        takes_light = (light < n_light) & ((left > _CELL) | is_last)
        light_weight = weights[rows, light_id]
        threshold = np.where(takes_light, light_weight, left)
        alias = np.where(takes_light, heavy_id, next_id)
        table[rows, np.where(takes_light, light_id, heavy_id)] = (threshold << ALIAS_BITS) | alias
        left = left + np.where(takes_light, light_weight, weights[rows, next_id]) - _CELL
        light += takes_light
        heavy += ~takes_light
    return table


def draw(table: np.ndarray, rows: np.ndarray, columns: np.ndarray, words: np.ndarray) -> np.ndarray:
    """One draw from each of the given rows.

    Args:
        table: int64 [R, C], the result of `alias_table`.
        rows: integers [N].
        columns: int64 [N], uniform draws from 0 .. C - 1 that do not depend on the upper halves of the words; used up.
        words: uint64 [N], used up.

    Returns:
        int64 [N], the drawn classes.
    """
    index = rows.astype(np.int64)
    index *= table.shape[1]
    index += columns
    cells = table.reshape(-1)[index]
    words >>= np.uint64(32)
    is_alias = words.view(np.int64) >= np.right_shift(cells, ALIAS_BITS, out=index)
    cells &= _ALIAS
    put(columns, cells, is_alias)
    return columns
