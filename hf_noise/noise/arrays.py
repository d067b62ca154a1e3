"""What the protocols ask of the arrays they get; nothing here draws anything."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hf_noise.noise.checks import check_count

__all__ = [
    "IGNORE_INDEX",
    "as_array",
    "check_batch",
    "check_dtype",
    "check_num_classes",
    "check_one_each",
    "check_ragged",
    "check_rows",
    "check_vocab_size",
    "ignored_labels",
    "ignored_positions",
    "integer_rows",
    "integers",
    "is_tensor",
    "real_numbers",
]

#: Label of a position that carries no target; it is never corrupted (the convention of torch and transformers).
IGNORE_INDEX = -100
_UNSIGNED = {np.dtype(f"{order}{kind}{size}"): np.dtype(f"{order}u{size}")
             for order in "<>" for kind in "iu" for size in (1, 2, 4, 8)}  # fmt: skip


def is_tensor(values: Any) -> bool:
    """Whether these are torch's, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def as_array(name: str, values: Any) -> np.ndarray:
    """`values` as a NumPy array of whatever dtype: an array, a tensor on any device, a number or nested sequences.

    Raises:
        ValueError: a masked array, whose mask would be lost, or sequences of different lengths.
        TypeError: a tensor that no array can hold, such as a sparse one.
    """
    if is_tensor(values):
        values = _from_tensor(name, values)
    if type(values) is np.ndarray:
        return values
    if isinstance(values, np.ma.MaskedArray) or isinstance(values, list | tuple) and _holds_masked(values):
        raise ValueError(f"{name} is a masked array, and its mask would be lost; fill or drop what it hides")
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} cannot be read as an array: {error}") from error


def _holds_masked(values: list | tuple) -> bool:
    kinds = set(map(type, values))
    if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):
        return True
    return bool(kinds & {list, tuple}) and any(_holds_masked(part) for part in values if isinstance(part, list | tuple))


def _from_tensor(name: str, values: Any) -> np.ndarray:
    if values.is_floating_point() and values.itemsize < 4:
        values = values.float()  # NumPy does not know bfloat16
    try:
        return values.detach().cpu().resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{name} must be a dense tensor of numbers, got {values.dtype}, {values.layout}") from error


def integers(name: str, values: Any) -> np.ndarray:
    """`values` as an array, or a TypeError unless they are integers; see `as_array` for what else is refused."""
    array = as_array(name, values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    return array


def real_numbers(name: str, values: Any) -> np.ndarray:
    """`values` as float64, or a TypeError unless they are real numbers; see `as_array` for what else is refused."""
    array = as_array(name, values)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be real numbers, got {array.dtype}")
    return array.astype(np.float64, copy=False)


def integer_rows(name: str, rows: Iterable[Any]) -> list[np.ndarray]:
    """The rows of a column as integer arrays, or an error; an empty list has no type of its own and becomes int64."""
    try:
        rows = list(rows)
    except TypeError as error:
        raise TypeError(f"column {name!r} must hold one list of integers per row, got {rows!r:.80}") from error
    arrays = [as_array(name, row) for row in rows]
    if any(row.ndim != 1 for row in arrays):
        raise ValueError(f"column {name!r} must hold one list of integers per row; pass whole batches, batched=True")
    arrays = [
        row.astype(np.int64) if row.size == 0 and row.dtype.kind == "f" else integers(name, row) for row in arrays
    ]
    if len({row.dtype for row in arrays}) > 1 and np.result_type(*arrays).kind == "f":
        # Joined, uint64 and a signed type would become float64.
        if largest := [int(row.max()) for row in arrays if row.size and row.max() > np.iinfo(np.int64).max]:
            raise ValueError(f"{name} must hold integers below 2^63, got {largest[0]}")
        arrays = [row.astype(np.int64, copy=False) for row in arrays]
    return arrays


def check_vocab_size(vocab_size: Any, smallest: int, bits: int) -> int:
    """Return `vocab_size` as an int, or raise unless it is an integer in [smallest, 2^bits]."""
    return check_count("vocab_size", vocab_size, smallest, bits, "pass the largest id of the tokenizer + 1")


def check_num_classes(num_classes: Any, bits: int) -> int:
    """Return `num_classes` as an int, or raise unless it is an integer in [2, 2^bits]."""
    remedy = "pass the number of classes, the largest label plus one"
    return check_count("num_classes", num_classes, 2, bits, remedy)


def check_batch(batch: Any) -> None:
    """Raise TypeError unless this is a batch of columns, a mapping from their names."""
    if not isinstance(batch, Mapping):
        raise TypeError(f"batch must be a mapping of columns, as datasets.map passes it, got {type(batch).__name__}")


def check_rows(tokens: Any, sample: Any) -> None:
    """Raise unless tokens [..., L] come with sample ids [...], as arrays or as tensors."""
    if tokens.ndim == 0 or tokens.shape[:-1] != sample.shape:
        raise ValueError(
            f"tokens [..., L] need one sample id per row: tokens have shape {list(tokens.shape)}, "
            f"sample has {list(sample.shape)}"
        )


def check_ragged(values: np.ndarray, lengths: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """The lengths as int64 [N], or a ValueError unless rows of these lengths with one id each are all the values."""
    if values.ndim != 1 or lengths.ndim != 1:
        raise ValueError(f"values and lengths must be [N], got {list(values.shape)} and {list(lengths.shape)}")
    if lengths.shape != sample.shape:
        raise ValueError(f"{lengths.size} rows need {lengths.size} sample ids, got {sample.size}")
    shortest, longest = (int(lengths.min()), int(lengths.max())) if lengths.size else (0, 0)
    if shortest < 0:
        raise ValueError(f"lengths must be >= 0, got {shortest} in row {lengths.argmin()}")
    # The sum of what is larger than all values could wrap around to their number.
    if longest > values.size or lengths.sum() != values.size:
        raise ValueError(f"the rows hold {sum(lengths.tolist())} tokens together, but {values.size} values came")
    return lengths.astype(np.int64, copy=False)


def check_one_each(labels: Any, sample: Any) -> None:
    """Raise unless labels [...] come with sample ids of the same shape, as arrays or as tensors."""
    if labels.shape != sample.shape:
        raise ValueError(
            f"labels need one sample id each: labels have shape {list(labels.shape)}, sample has {list(sample.shape)}"
        )


def check_dtype(dtype: Any, largest: int, size: int, what: str = "tokens") -> None:
    """Raise unless the dtype, whose largest value is given, holds all of 0 .. size - 1."""
    if size - 1 > largest:
        raise ValueError(f"{dtype} cannot hold {what} up to {size - 1}; widen it first, to int32 or int64")


def ignored_positions(tokens: np.ndarray, vocab_size: int) -> np.ndarray | None:
    """The positions to leave alone (-100), None if there are none; raises if a token is outside [0, vocab_size)."""
    ignored, outside = _ignored_and_outside(tokens, vocab_size)
    if outside is not None:
        raise ValueError(
            f"token {tokens[outside][0]} is outside [0, {vocab_size}): vocab_size={vocab_size} is smaller than "
            "a token seen, or the column holds no token ids; pass the largest id of the tokenizer + 1"
        )
    return ignored


def ignored_labels(labels: np.ndarray, num_classes: int) -> np.ndarray | None:
    """The labels to leave alone (-100), None if there are none; raises if a label is outside [0, num_classes)."""
    ignored, outside = _ignored_and_outside(labels, num_classes)
    if outside is not None:
        first = tuple(int(axis[0]) for axis in np.nonzero(np.atleast_1d(outside)))
        value = np.atleast_1d(labels)[first]
        raise ValueError(
            f"{outside.sum()} of {labels.size} labels are outside [0, {num_classes}), the first at index "
            f"{first[0] if len(first) == 1 else first}: {value}; give the right num_classes, or drop samples without "
            f"a label (-1 on the Hub) or mark them with {IGNORE_INDEX}"
        )
    return ignored


def _ignored_and_outside(values: np.ndarray, size: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Where the values are -100, and where they are neither that nor in [0, size); None for nowhere."""
    # Read as unsigned, negative values are the largest: one pass instead of two finds that all is well.
    if values.size == 0 or values.view(_UNSIGNED[values.dtype]).max() < size:
        return None, None
    ignored = values == IGNORE_INDEX
    outside = ~ignored & ((values < 0) | (values >= size))
    return ignored, outside if outside.any() else None
