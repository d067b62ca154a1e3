"""Pictures of any depth as 8-bit grey or colour."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as Picture
from PIL import Image

from hf_noise.trainers.eight_bits import to_eight_bits
from hf_noise.trainers.images import WorkerImages, decode_images

RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def stored(pixels, kind):
    """The picture after it was written to a file of this kind and opened again."""
    file = io.BytesIO()
    if kind == "PGM":  # by hand: Pillow before 11 does not write 16 bits of it
        file.write(b"P5 %d %d 65535\n" % pixels.shape[::-1] + pixels.astype(">u2").tobytes())
    else:
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        image.save(file, kind)
    return Image.open(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize(
    ("pixels", "kind", "mode"),
    [
        (RAMP, "PNG", "I;16"), (RAMP, "TIFF", "I;16"), (RAMP.astype(">u2"), "TIFF", "I;16B"), (RAMP, "PGM", "I"),
        ((RAMP / 65535).astype(np.float32), "TIFF", "F"),
    ],
)  # fmt: skip
def test_every_16_bit_value_and_float_is_rounded_to_its_level(pixels, kind, mode):
    image = stored(pixels, kind)
    grey = np.asarray(to_eight_bits(image, 1))
    assert image.mode == mode and grey.dtype == np.uint8
    # v / 257 by exact integers; halves do not occur, because 257 is odd.
    expected = (2 * RAMP.astype(int) + 257) // (2 * 257)
    assert (grey == expected).all() and grey.mean() == 127.5 and len(np.unique(grey)) == 256
    assert (np.asarray(to_eight_bits(image, 3)) == expected[..., None]).all()


def test_pillow_older_than_11_opens_16_bit_png_as_32_bit_integers():
    image = Image.fromarray(RAMP[:, :3].astype(np.int32))
    image.format = "PNG"
    assert np.asarray(to_eight_bits(image, 1))[-1, 0] == 254  # 65280 / 257


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV"])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_8_bits_stay_what_pillow_makes_of_them(mode, num_channels):
    bands = len(Image.new(mode, (1, 1)).getbands())
    draw = np.random.default_rng(0)
    if mode in ("1", "P"):
        image = Image.fromarray(draw.integers(0, 256, (5, 7, 3), dtype=np.uint8)).convert(mode)
    else:
        image = Image.frombytes(mode, (7, 5), draw.integers(0, 256, 35 * bands, dtype=np.uint8).tobytes())
    wanted = {1: "L", 3: "RGB"}[num_channels]
    made = to_eight_bits(image, num_channels)
    assert made.mode == wanted and made.tobytes() == image.convert(wanted).tobytes()


def test_transparency_is_dropped_and_palettes_are_looked_up():
    clear = Image.new("RGBA", (1, 1), (255, 0, 10, 0))
    assert to_eight_bits(clear, 3).getpixel((0, 0)) == (255, 0, 10)
    palette = Image.new("P", (1, 1), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.info["transparency"] = 1
    assert to_eight_bits(palette, 3).getpixel((0, 0)) == (9, 8, 7)
    assert to_eight_bits(Image.new("La", (1, 1), (100, 200)), 1).getpixel((0, 0)) == 127  # 100 * 255 / 200
    assert [to_eight_bits(Image.new("1", (1, 1), bit), 1).getpixel((0, 0)) for bit in (0, 1)] == [0, 255]


def test_32_bit_integers_of_8_bits_are_taken_as_they_are():
    values = np.arange(256, dtype=np.int32).reshape(16, 16)
    assert (np.asarray(to_eight_bits(stored(values, "TIFF"), 1)) == values).all()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.array([[0, 1.5]], np.float32), r"floats from 0 to 1.5, whose depth is not known.*\[0, 1\]; scale them"),
        (np.array([[-0.5, 1]], np.float32), "floats from -0.5 to 1"),
        (np.array([[0, np.nan]], np.float32), "floats from nan"),
        (np.array([[0, 255]], np.float32), "floats from 0 to 255"),
        (np.array([[0, 256]], np.int32), r"32-bit integers from 0 to 256, .*\[0, 255\]; scale them"),
        (np.array([[-1, 5]], np.int32), "32-bit integers from -1 to 5"),
    ],
)  # fmt: skip
def test_unknown_depths_are_refused_with_their_row(pixels, message):
    with pytest.raises(ValueError, match=message):
        to_eight_bits(Image.fromarray(pixels), 1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF")
    rows = rows_of([stored(np.zeros((1, 2), np.uint8), "PNG"), file.getvalue()])
    with pytest.raises(ValueError, match=f"image 1 cannot be read: .*{message}"):
        decode_images(rows, "image", 1)
    with pytest.raises(ValueError, match=f"image 1 .sample_id 1. cannot be read: .*{message}"):
        WorkerImages(rows, lambda image: image)[1]


@pytest.mark.parametrize(("given", "error"), [(None, ValueError), (np.zeros((2, 2)), TypeError), ({}, TypeError)])
def test_what_is_no_picture(given, error):
    with pytest.raises(error, match="missing|must be one of PIL"):
        to_eight_bits(given, 1)


@pytest.mark.parametrize("num_channels", [0, 2, 4, "1", None])
def test_other_numbers_of_channels(num_channels):
    with pytest.raises(ValueError, match="num_channels must be 1 or 3"):
        to_eight_bits(Image.new("L", (1, 1)), num_channels)


def rows_of(images):
    def content(image):
        if isinstance(image, bytes):
            return image
        image.load()
        file = io.BytesIO()
        image.save(file, image.format)
        return file.getvalue()

    columns = {"image": [{"bytes": content(image), "path": None} for image in images], "label": [0] * len(images)}
    return Dataset.from_dict(columns, features=Features({"image": Picture(), "label": Value("int64")}))


def test_all_readers_scale_alike():
    rows = rows_of([stored(RAMP, "PNG"), stored((RAMP // 257).astype(np.uint8), "PNG")])
    deep, plain = decode_images(rows, "image", 1)
    assert torch.equal(deep[0], torch.from_numpy(np.array(to_eight_bits(stored(RAMP, "PNG"), 1))))
    assert int((deep.int() - plain.int()).abs().max()) == 1  # rounded, not cut
    seen = WorkerImages(rows, lambda image: torch.from_numpy(np.array(image)))[0]["pixel_values"]
    assert seen.dtype == torch.uint8 and torch.equal(seen[..., 1], deep[0])
