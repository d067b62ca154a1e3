"""What the pages of an audit show of users' data: texts that any file can hold, and pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["picture", "readable", "template"]

_QUALITY = 85


def readable(text: str, most: int) -> str:
    """A text as UTF-8 and HTML can hold it, of at most so many characters and an ellipsis."""
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= most else text[:most] + " \N{HORIZONTAL ELLIPSIS}"


def picture(image: Any, name: str, *, side: int, small: int, on_white: bool = False) -> dict[str, Any]:
    """A picture as a data URI of at most `side` x `side` pixels, and whether it is one of few pixels.

    Args:
        image: of PIL, or uint8 [H, W], [H, W, 3] or [H, W, 4].
        name: what an error calls it.
        side: pixels that a thumbnail is at most wide and high.
        small: up to which a picture keeps every pixel as it is.
        on_white: lay transparent pictures on white, so that large ones are as short as photographs.

    Raises:
        TypeError: it is neither.
        ValueError: it is an array of another dtype or shape, or has no pixel.
    """
    from PIL import Image

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.ndim == 3 and image.shape[2] not in (3, 4):
            raise ValueError(f"{name} must be uint8 [H, W] or [H, W, 3], got {image.dtype} {list(image.shape)}")
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"{name} must be a PIL image or an array, got {type(image).__name__}")
    if not min(image.size):
        raise ValueError(f"{name} has no pixel, its size is {image.width} x {image.height}")
    is_small = max(image.size) <= small
    image = image.convert("RGBA" if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info else "RGB")
    image.thumbnail((side, side))
    if on_white and image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    kind, stream = ("PNG" if is_small or image.mode == "RGBA" else "JPEG"), io.BytesIO()
    image.save(stream, kind, **({"quality": _QUALITY} if kind == "JPEG" else {"optimize": True}))
    uri = f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"
    return {"image": uri, "is_small": is_small}


def template(name: str, **filters: Callable[[Any], str]) -> Any:
    """A template of this package, which escapes whatever is put into it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("hf_noise.audit"), autoescape=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    made.filters |= filters
    return made.get_template(name)
