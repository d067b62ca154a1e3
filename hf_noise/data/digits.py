"""`embedded/digits`: the 1,797 handwritten digits that scikit-learn brings along, as images of 8 x 8 pixels."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from hf_noise.data.cache import build_once

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DIGITS", "digits", "digits_files", "digits_identity"]

#: The name under which builders and recipes know these images.
DIGITS = "embedded/digits"

# Raised whenever the same digits would come as other pixels or splits.
_DATA_VERSION = 1
_BRIGHTEST = 16  # the largest pixel that scikit-learn gives
# Of each class, in the order of the file, four images to train on and one to test: both splits span the whole file.
_TEST_EVERY = 5
_SPLITS = ("train", "test")


def digits(split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of one split: uint8 [N, 8, 8] in [0, 255], int64 [N] in [0, 10).

    Scikit-learn's pixels v in [0, 16] come as round(v * 255 / 16), from which round(16 * pixel / 255) gives them back.
    Every fifth image of each class, in scikit-learn's order, is in the test split: 1,442 and 355 images.

    Raises:
        ValueError: there is no such split.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    if not isinstance(split, str) or split not in _SPLITS:
        raise ValueError(f'{DIGITS} has the splits "train" and "test", not {split!r}')
    data = load_digits()
    labels = data.target.astype(np.int64)
    # How many of its class came before each image.
    place = np.array([np.count_nonzero(labels[:row] == label) for row, label in enumerate(labels)])
    chosen = (place % _TEST_EVERY == _TEST_EVERY - 1) == (split == "test")
    return np.rint(data.images[chosen] * (255 / _BRIGHTEST)).astype(np.uint8), labels[chosen]


def digits_files(split: str = "train") -> list[str]:
    """The Parquet file (columns `image`, `label`) of one split, written on first use and kept in the cache.

    Raises:
        ValueError: there is no such split.
    """
    if not isinstance(split, str) or split not in _SPLITS:
        raise ValueError(f'{DIGITS} has the splits "train" and "test", not {split!r}')
    folder = build_once(f"embedded/digits-{_DATA_VERSION}", _write_digits)
    return [str(folder / f"{split}.parquet")]


def digits_identity() -> str:
    """A hash of the files: equal exactly when all images, labels and splits are stored alike."""
    contents = b"".join(Path(file).read_bytes() for split in _SPLITS for file in digits_files(split))
    return hashlib.sha256(contents).hexdigest()[:16]


def _write_digits(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import ClassLabel, Features, Image

    schema = Features({"image": Image(), "label": ClassLabel(names=list("0123456789"))}).arrow_schema
    for split in _SPLITS:
        images, labels = digits(split)
        columns = {"image": [{"bytes": _png(image), "path": None} for image in images], "label": labels}
        pq.write_table(pa.table(columns, schema=schema), folder / f"{split}.parquet")


def _png(pixels: np.ndarray) -> bytes:
    import PIL.Image

    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
