"""One column of stored rows, read before training: of numbers, or of lists of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Column"]


@dataclass(frozen=True)
class Column:
    """Values one after the other, [n], and how many of them each row has, [N]; None where each row has one."""

    values: np.ndarray
    lengths: np.ndarray | None = None

    @property
    def kind(self) -> str:
        return self.values.dtype.kind

    def differs_from(self, other: Column) -> np.ndarray:
        """Of columns of lists, whether a row is another one there: bool [N]."""
        differs = self.lengths != other.lengths
        starts = [np.cumsum(column.lengths) - column.lengths for column in (self, other)]
        kept = np.where(differs, 0, self.lengths)
        places = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)
        ours, theirs = (column.values[np.repeat(start, kept) + places] for column, start in zip((self, other), starts))
        row = np.repeat(np.arange(len(kept)), kept)
        differs[row[ours != theirs]] = True
        return differs

    def has_shape_of(self, other: Column) -> bool:
        if self.lengths is None or other.lengths is None:
            return self.lengths is other.lengths and len(self.values) == len(other.values)
        return np.array_equal(self.lengths, other.lengths)
