"""Pictures that are whole can be decoded; what decoders refuse is never taken for whole."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest
from datasets import Image
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.data.whole_images import WholeImages

KNOWN = WholeImages()
DRAW = np.random.default_rng(0)


def picture(kind: str, mode: str = "RGB", size: int = 12, **options) -> bytes:
    shape = (size, size) if mode in ("L", "I;16", "1", "P") else (size, size, {"RGB": 3, "RGBA": 4, "LA": 2}[mode])
    pixels = DRAW.integers(0, 256, shape)
    image = PIL.Image.fromarray(pixels.astype(np.uint16 if mode == "I;16" else np.uint8))
    stream = io.BytesIO()
    (image if image.mode == mode else image.convert(mode)).save(stream, kind, **options)
    return stream.getvalue()


WHOLE = [
    *(picture("PNG", mode) for mode in ("L", "RGB", "RGBA", "LA", "I;16", "1", "P")),
    picture("JPEG"), picture("JPEG", "L"), picture("JPEG", comment=b"of a test"),
    picture("JPEG", quality=100, subsampling=0), picture("PNG", size=200),
]  # fmt: skip


for content in WHOLE:
    Image().decode_example({"bytes": content, "path": None})
    KNOWN.decoded(content)


@pytest.mark.parametrize("content", WHOLE)
def test_what_pillow_writes_is_whole(content):
    assert KNOWN.has(content)


def test_a_jpeg_is_whole_once_its_header_was_decoded():
    known, other = WholeImages(), picture("JPEG", size=40)
    assert not known.has(WHOLE[7]) and not known.has(other)
    known.decoded(other)
    assert known.has(WHOLE[7]) and not known.has(picture("JPEG", quality=30))


@settings(max_examples=300)
@given(st.sampled_from(WHOLE), st.data())
def test_what_is_taken_for_whole_can_be_decoded(content, data):
    """Cut anywhere, or a byte changed anywhere: what cannot be decoded is never said to be whole."""
    place = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(["cut", "change", "drop"]))
    changed = bytes([content[place] ^ data.draw(st.integers(1, 255))])
    broken = {"cut": content[:place], "change": content[:place] + changed + content[place + 1 :],
              "drop": content[:place] + content[place + 1 :]}[how]  # fmt: skip
    if KNOWN.has(broken):
        Image().decode_example({"bytes": broken, "path": None})


@pytest.mark.parametrize("content", WHOLE)
def test_what_is_cut_is_not_whole(content):
    assert not any(KNOWN.has(content[:end]) for end in range(len(content)))


@pytest.mark.parametrize(
    "content",
    [b"", b"no picture", b"\xff\xd8\xff\xd9", picture("GIF", "L"), picture("BMP"), picture("JPEG", progressive=True)],
)
def test_other_kinds_are_left_to_the_decoder(content):
    KNOWN.decoded(content)
    assert not KNOWN.has(content)
