"""Columns of a data set of labelled images as tensors, and what is asked of such tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from hf_noise.noise.arrays import real_numbers
from hf_noise.trainers.eight_bits import to_eight_bits

__all__ = [
    "channel_statistics", "check_columns", "check_images", "check_rows", "decode_images", "label_columns", "of_channels"
]  # fmt: skip


def check_rows(dataset: Any, column: Any, option: str = "image_column") -> None:
    """Raise TypeError unless this is a stored data set of `datasets`, ValueError if it lacks a column."""
    from datasets import Dataset

    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset must be a datasets.Dataset, one split that is stored, got {type(dataset).__name__}")
    if not isinstance(column, str):
        raise TypeError(f"{option} must be the name of a column, got {column!r:.80}")
    if column not in dataset.column_names:
        raise ValueError(
            f"there is no column {column!r}; the data have {', '.join(map(repr, dataset.column_names))}: choose one "
            f"with {option}="
        )


def check_images(images: Any) -> None:
    is_right = isinstance(images, Tensor) and images.dtype == torch.uint8 and images.ndim == 4
    if not is_right or images.layout is not torch.strided:
        told = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else f"{images!r:.80}"
        raise TypeError(f"images must be a dense uint8 tensor [N, C, H, W], got {told}")


def check_columns(columns: Any, rows: int) -> None:
    if not isinstance(columns, Mapping):
        raise TypeError(f"columns must map names to tensors, got {columns!r:.80}")
    for name, column in columns.items():
        is_right = isinstance(column, Tensor) and column.ndim == 1 and column.layout is torch.strided
        if not isinstance(name, str) or not is_right or column.dtype.is_floating_point or column.dtype.is_complex:
            told = f"{column.dtype} {list(column.shape)}" if isinstance(column, Tensor) else f"{column!r:.80}"
            raise TypeError(f"columns must be tensors [N] of integers or bools by name, got {name!r}: {told}")
        if len(column) != rows:
            raise ValueError(f"column {name!r} has {len(column)} rows, and there are {rows} images")
    if "labels" not in columns:
        raise ValueError(f"columns need 'labels', they are: {', '.join(map(repr, columns))}")


def of_channels(name: str, values: Any, channels: int) -> Tensor:
    """float32 [C] or [1]."""
    with np.errstate(over="ignore"):
        numbers = real_numbers(name, values).astype(np.float32)
    if numbers.shape not in ((channels,), (1,)) or not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be a finite float32 for each of {channels} channels, got {values!r:.80}")
    return torch.from_numpy(numbers)


def decode_images(dataset: Any, column: str, num_channels: int, size: int | None = None) -> Tensor:
    """All images of a column as uint8 [N, C, H, W]; raises ValueError naming the row that cannot be read or differs.

    With a `size` all are cut to squares and resized to so many pixels on each side, see `DeviceImages.from_dataset`.
    """
    if isinstance(num_channels, bool) or not isinstance(num_channels, int) or num_channels not in (1, 3):
        raise ValueError(f"num_channels must be 1 or 3, got {num_channels!r}")
    check_rows(dataset, column)
    decoded: Tensor | None = None
    rows = dataset.select_columns([column])
    for index in range(len(rows)):
        try:
            picture = to_eight_bits(rows[index][column], num_channels)
            pixels = np.asarray(picture if size is None else _resized(picture, size))
        except Exception as error:  # Pillow's decoders raise many kinds
            raise ValueError(f"image {index} cannot be read: {error}") from error
        image = torch.from_numpy(pixels.copy()).reshape(*pixels.shape[:2], num_channels).permute(2, 0, 1)
        if decoded is None:
            decoded = torch.empty(len(rows), *image.shape, dtype=torch.uint8)
        if image.shape != decoded.shape[1:]:
            raise ValueError(
                f"image {index} is {list(image.shape[1:])} pixels, the first one {list(decoded.shape[2:])}; images of "
                "several sizes go through WorkerImages, or pad_to= with resize=True brings them to one"
            )
        decoded[index] = image
    if decoded is None:
        raise ValueError("the data set has no rows")
    return decoded


def _resized(picture: Any, size: int) -> Any:
    from PIL import Image, ImageOps

    return picture if picture.size == (size, size) else ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)


def label_columns(dataset: Any, label: str = "label") -> dict[str, Tensor]:
    """`labels`, `sample_id` (row numbers if there is none), and `clean_labels`, `is_noisy` where the data have them.

    Raises:
        ValueError: the label column is missing; a column holds nulls, or no integers (booleans in `is_noisy`).
        TypeError: this is no `datasets.Dataset`, or the name of the column no text.
    """
    check_rows(dataset, label, "label_column")
    named = {"labels": label, "clean_labels": f"clean_{label}", "is_noisy": "is_noisy", "sample_id": "sample_id"}
    named = {name: column for name, column in named.items() if column in dataset.column_names}
    table = dataset.select_columns(list(named.values())).with_format("arrow")[:]
    found = {name: torch.from_numpy(_numbers(table[column], column, name)) for name, column in named.items()}
    found.setdefault("sample_id", torch.arange(len(dataset)))
    return found


def _numbers(column: pa.ChunkedArray, name: str, use: str) -> np.ndarray:
    """A column as int64 [N], that of the mask as bool [N]; ValueError if it holds anything else."""
    if column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        raise ValueError(f"column {name!r} holds {column.null_count} null(s), the first in row {row}; every row needs "
                         "a value, so drop those without")  # fmt: skip
    if use == "is_noisy" and pa.types.is_boolean(column.type):
        return column.to_numpy()
    if not pa.types.is_integer(column.type):
        first = repr(column[0].as_py())[:50] if len(column) else "nothing"
        raise ValueError(
            f"column {name!r} holds {column.type} ({first} in row 0), where {use} are integers, the number of a class; "
            f"text becomes one by dataset.class_encode_column({name!r}), one-hot labels by argmax, and fractions are "
            "no classes"
        )
    return column.to_numpy().astype(np.int64)


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 images [N, C, H, W], in units where 255 is 1.

    Raises:
        TypeError: the images are of another kind.
        ValueError: they have no pixels.
    """
    check_images(images)
    if not images.numel():
        raise ValueError(f"images have no pixels of which there is a mean: {list(images.shape)}")
    count = images[:, 0].numel()
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in range(images.shape[1]):
        share = torch.bincount(images[:, channel].flatten(), minlength=256).double().cpu() / count
        mean.append(float(share @ levels))
        std.append(float((share @ (levels - mean[-1]) ** 2).sqrt()))
    return mean, std
