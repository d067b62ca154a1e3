"""Pictures of one size: smaller ones between zeros, or all of them resized."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
from datasets import Image
from PIL import ImageOps

from hf_noise.data.reading import CorpusError

__all__ = ["of_one_size"]

_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")


def of_one_size(images: pa.Array, size: int, resize: bool, where: str, rows: Sequence[int]) -> pa.Array:
    """Pictures [n] (storage of the feature `Image`) as squares of `size` pixels; those that are stay as they are.

    With `resize`, the longer side is cut at both ends to a square, which is brought to the size by Pillow's Lanczos
    filter (it averages over what it shrinks, so that nothing flickers). Without, zeros are put around, on all sides
    alike. What changes is stored as PNG in its own mode, 16 bits included.

    Raises:
        CorpusError: a picture is larger and shall not be resized, or cannot be read; named by `where` and its row.
    """
    done = []
    for stored, row in zip(images.to_pylist(), rows, strict=True):
        try:
            done.append(_of_one_size(stored, size, resize))
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
            raise CorpusError(f"{where}: the image in row {row} {error}") from error
    return pa.array(done, type=images.type)


def _of_one_size(stored: dict[str, Any], size: int, resize: bool) -> dict[str, Any]:
    if stored["bytes"] is not None and _size_told(stored["bytes"]) == (size, size):
        return stored
    picture = Image().decode_example(stored)
    if picture.size == (size, size):
        return stored
    if not resize and max(picture.size) > size:
        width, height = picture.size
        raise ValueError(
            f"has {width} x {height} pixels, more than image_size={size}; pass resize=True, which scales it and cuts "
            f"it to a square, or image_size={max(picture.size)} or more"
        )
    stream = io.BytesIO()
    (_resized if resize else _between_zeros)(picture, size).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def _size_told(content: bytes) -> tuple[int, int]:
    """The size that the header says, without decoding."""
    with PIL.Image.open(io.BytesIO(content)) as picture:
        return picture.size


def _resized(picture: Any, size: int) -> Any:
    if picture.mode in _SIXTEEN:  # Pillow filters these as floats only
        deep = ImageOps.fit(picture.convert("I").convert("F"), (size, size), PIL.Image.Resampling.LANCZOS)
        return PIL.Image.fromarray(_rounded(deep))
    if picture.mode in ("P", "PA", "1"):  # whose numbers are no brightness
        picture = picture.convert("RGBA" if "transparency" in picture.info else "L" if picture.mode == "1" else "RGB")
    return ImageOps.fit(picture, (size, size), PIL.Image.Resampling.LANCZOS)


def _rounded(deep: Any) -> Any:
    return np.clip(np.rint(np.asarray(deep)), 0, 65535).astype(np.uint16)


def _between_zeros(picture: Any, size: int) -> Any:
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    square = PIL.Image.new(picture.mode, (size, size))
    square.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    return square
