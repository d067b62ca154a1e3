"""Rows of booleans as Arrow keeps them, eight in a byte, read from the mapped file some rows at a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

__all__ = ["BitRows"]


class BitRows:
    """A chunk of a column of lists of L booleans, [n, L]: a slice or a list of rows makes booleans of these alone.

    Args:
        chunk: fixed-size lists, or lists of equal lengths.
        column: its name, for messages.

    Raises ValueError: the lists hold no booleans, nulls, or other than `length` of them each.
    """

    dtype = np.dtype(bool)

    def __init__(self, chunk: pa.Array, column: str, length: int) -> None:
        kind = chunk.type
        fixed = pa.types.is_fixed_size_list(kind)
        if not (fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)) or kind.value_type != pa.bool_():
            raise ValueError(f"column {column!r} holds {kind}, not lists of booleans; it says which tokens are noise")
        lengths = {kind.list_size} if fixed else set(np.unique(np.diff(chunk.offsets.to_numpy())).tolist())
        values = chunk.flatten()
        if chunk.null_count or values.null_count or not lengths <= {length}:
            raise ValueError(
                f"the rows of {column!r} need {length} booleans each, as many as there are tokens, and have "
                f"{sorted(lengths)} with {chunk.null_count + values.null_count} null(s)"
            )
        self._n, self._length, self._first = len(chunk), length, values.offset
        self._bytes = np.frombuffer(values.buffers()[1], dtype=np.uint8)

    def __len__(self) -> int:
        return self._n

    @property
    def shape(self) -> tuple[int, int]:
        return self._n, self._length

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        rows = np.arange(self._n)[rows] if isinstance(rows, slice) else rows
        if not rows.size or not self._length:
            return np.zeros((rows.size, self._length), dtype=bool)
        first = self._first + rows * self._length  # bits
        shift = first % 8
        size = (self._length + int(shift.max()) + 7) // 8
        # What is read beyond the end of the file's last row is cut off again.
        places = np.minimum(first[:, None] // 8 + np.arange(size), self._bytes.size - 1)
        bits = np.unpackbits(self._bytes[places], axis=1, bitorder="little").view(bool)
        if not shift.any():
            return bits[:, : self._length]
        return np.take_along_axis(bits, shift[:, None] + np.arange(self._length), axis=1)
