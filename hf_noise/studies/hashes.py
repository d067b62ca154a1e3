"""What tells one array from another in a claim or record."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["hash_of"]


def hash_of(array: np.ndarray) -> str:
    """32 hexadecimal digits of an array's type, shape and values."""
    head = f"{array.dtype} {list(array.shape)}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()[:32]
