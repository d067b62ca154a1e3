"""Some of the rows of a split, always the same ones."""

from __future__ import annotations

import numpy as np

__all__ = ["rows_asked_for", "some_rows"]


def some_rows(n: int, wanted: int | None = None) -> np.ndarray:
    """Indices of so many of n rows in their order, always the same; a source may be sorted by class."""
    if wanted is None or wanted >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).permutation(n)[:wanted])


def rows_asked_for(n: int, wanted: int | None, flag: str, of: str = "rows") -> np.ndarray:
    """As `some_rows`. Raises ValueError: there are fewer than the flag asks for."""
    if wanted is not None and wanted > n:
        raise ValueError(f"--{flag} {wanted}, but there are {n} {of}; leave it out")
    return some_rows(n, wanted)
