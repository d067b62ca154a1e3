"""What the protocols for tokens ask of the arrays they get; nothing here draws anything."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = [
    "IGNORE_INDEX",
    "as_numpy",
    "check_dtype",
    "check_rows",
    "check_vocab_size",
    "ignored_positions",
    "integer_rows",
    "integers",
    "is_tensor",
]

#: Label of a position that carries no target; it is never corrupted (the convention of torch and transformers).
IGNORE_INDEX = -100


def as_numpy(values: Any) -> Any:
    """Tensors as NumPy arrays on the CPU, anything else as it is."""
    return values.detach().cpu().numpy() if is_tensor(values) else values


def is_tensor(values: Any) -> bool:
    """Whether these are torch's, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def integers(name: str, values: Any) -> np.ndarray:
    """`values` as an array, or a TypeError unless they are integers."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    return array


def integer_rows(name: str, rows: Iterable[Any]) -> list[np.ndarray]:
    """The rows of a column as integer arrays, or an error; an empty list has no type of its own and becomes int64."""
    arrays = [np.asarray(row) for row in rows]
    if any(row.ndim != 1 for row in arrays):
        raise ValueError(f"column {name!r} must hold one list of integers per row; pass whole batches, batched=True")
    return [row.astype(np.int64) if row.size == 0 and row.dtype.kind == "f" else integers(name, row) for row in arrays]


def check_vocab_size(vocab_size: Any, smallest: int, bits: int) -> int:
    """Return `vocab_size` as an int, or raise unless it is an integer in [smallest, 2^bits]."""
    if isinstance(vocab_size, bool) or not isinstance(vocab_size, int | np.integer):
        raise TypeError(f"vocab_size must be an integer, got {vocab_size!r}")
    if not smallest <= vocab_size <= 1 << bits:
        raise ValueError(f"vocab_size must lie in [{smallest}, 2^{bits}], got {vocab_size}; pass len(tokenizer)")
    return int(vocab_size)


def check_rows(tokens: Any, sample: Any) -> None:
    """Raise unless tokens [..., L] come with sample ids [...], as arrays or as tensors."""
    if tokens.ndim == 0 or tokens.shape[:-1] != sample.shape:
        raise ValueError(
            f"tokens [..., L] need one sample id per row: tokens have shape {list(tokens.shape)}, "
            f"sample has {list(sample.shape)}"
        )


def check_dtype(dtype: Any, largest: int, vocab_size: int) -> None:
    """Raise unless the dtype, whose largest value is given, holds every token of the vocabulary."""
    if vocab_size - 1 > largest:
        raise ValueError(f"{dtype} cannot hold tokens up to {vocab_size - 1}; widen it first, to int32 or int64")


def ignored_positions(tokens: np.ndarray, vocab_size: int) -> np.ndarray | None:
    """The positions to leave alone (-100), None if there are none; raises if a token is outside [0, vocab_size)."""
    # Read as unsigned, negative values are the largest: one pass instead of two finds that all is well.
    if tokens.size == 0 or tokens.view(tokens.dtype.str.replace("i", "u")).max() < vocab_size:
        return None
    ignored = tokens == IGNORE_INDEX
    outside = tokens[~ignored & ((tokens < 0) | (tokens >= vocab_size))]
    if outside.size:
        raise ValueError(
            f"token {outside[0]} is outside [0, {vocab_size}): vocab_size={vocab_size} is smaller than "
            "a token seen, or the column holds no token ids; pass len(tokenizer)"
        )
    return ignored
