"""One way from a picture of any depth to 8-bit grey or colour, for all that read images."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["to_eight_bits"]

_MODES = {1: "L", 3: "RGB"}
_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
# Pillow opens their 16-bit pictures as 32-bit integers, in full range: PNG before version 11, PGM still.
_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")


def to_eight_bits(image: Any, num_channels: int) -> Any:
    """A picture in 8 bits a channel: mode "L" for one channel, "RGB" for three.

    Pillow's `convert` clips what is deeper: a 16-bit picture comes out white, one of floats in [0, 1] black. Here

    - 16-bit integers are scaled by 1/257 and rounded, so that 65535 is 255;
    - floats are scaled by 255 and rounded, and have to lie in [0, 1];
    - 32-bit integers are 16-bit where the file's format has no more (PNG, PGM), and 8-bit values where all lie in
      [0, 255], as `datasets` stores arrays of integers;
    - all others are what `convert` makes of them, to the bit: grey is repeated in colour, colour becomes its luma,
      black and white are 0 and 255, palettes are looked up, CMYK becomes RGB, and transparency is dropped - the colour
      below it stays, nothing is blended.

    Args:
        image: a `PIL.Image.Image`.
        num_channels: 1 or 3.

    Raises:
        ValueError: there is no picture, its depth cannot be told (floats outside [0, 1] or not finite, 32-bit integers
            beyond 8 bits), its mode cannot be converted, or `num_channels` is another.
        TypeError: this is no picture.
        Exception: what Pillow raises for a file that it cannot read: OSError, SyntaxError, EOFError, struct.error, ...
    """
    if isinstance(num_channels, bool) or not isinstance(num_channels, int) or num_channels not in _MODES:
        raise ValueError(f"num_channels must be 1 or 3, got {num_channels!r}")
    mode = _MODES[num_channels]
    if image is None:
        raise ValueError("the image is missing")
    if not hasattr(image, "convert"):
        raise TypeError(f"an image must be one of PIL, as the feature Image() gives them, got {type(image).__name__}")
    if image.mode in _SIXTEEN or image.mode == "I" and image.format in _SIXTEEN_BIT_FORMATS:
        return _grey((np.asarray(image).astype(np.uint32) + 128) // 257, mode)
    if image.mode == "F":
        return _grey(np.rint(_within(np.asarray(image), 1, "floats") * 255), mode)
    if image.mode == "I":
        return _grey(_within(np.asarray(image), 255, "32-bit integers"), mode)
    if image.mode == "La":  # grey times its opacity, which Pillow turns back into plain grey alone
        image = image.convert("LA")
    return image.convert(mode)


def _within(pixels: np.ndarray, largest: int, what: str) -> np.ndarray:
    low, high = (pixels.min(), pixels.max()) if pixels.size else (0, 0)
    if not (low >= 0 and high <= largest):  # which NaN is not
        raise ValueError(
            f"its pixels are {what} from {low:g} to {high:g}, whose depth is not known: they have to lie in "
            f"[0, {largest}]; scale them, or store them in 8 or 16 bits"
        )
    return pixels


def _grey(pixels: np.ndarray, mode: str) -> Any:
    from PIL import Image

    grey = Image.fromarray(pixels.astype(np.uint8))
    return grey if mode == "L" else grey.convert(mode)
