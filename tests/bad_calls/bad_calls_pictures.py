"""Bad pictures, and bad rows of them, for what makes tensors of pictures."""

from __future__ import annotations

import io
from typing import Any

import bad_places as places
import bad_twins as twin
import datasets
import numpy as np
import PIL.Image
import torch
from bad_calls import Target
from bad_calls_data import some
from bad_calls_sources import whole_of
from bad_readers import close, confirm, flag, ints, reals, same, text, whole
from bad_values import pick

from hf_noise.trainers.eight_bits import to_eight_bits
from hf_noise.trainers.images import CropFlip, DeviceImages, WorkerImages, channel_statistics, label_columns

# ---- one picture


def picture(mode: str, value: float = 300, size: tuple[int, int] = (3, 2)) -> PIL.Image.Image:
    """Another value in each pixel, up to this one."""
    shares = np.linspace(0, value, size[0] * size[1]).reshape(size[1], size[0])
    kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    if mode in kinds:
        return PIL.Image.fromarray(shares.astype(kinds[mode]))
    return PIL.Image.fromarray((shares % 256).astype(np.uint8)).convert(mode)


def reopened(mode: str, form: str) -> PIL.Image.Image:
    stream = io.BytesIO()
    picture(mode, 60_000).save(stream, form)
    return PIL.Image.open(io.BytesIO(stream.getvalue()))


PICTURES = tuple(
    (lambda mode=mode, value=value: picture(mode, value))
    for mode, value in (
        ("L", 255), ("1", 255), ("RGB", 255), ("P", 255), ("RGBA", 255), ("LA", 255), ("CMYK", 255), ("HSV", 255),
        ("I;16", 65535), ("F", 1), ("F", 1.5), ("F", np.nan), ("I", 255), ("I", 60_000), ("I", -5), ("YCbCr", 200),
    )
) + (
    lambda: reopened("I;16", "PNG"), lambda: reopened("L", "GIF"), lambda: picture("L", 255, (0, 0)),
    lambda: picture("F", 1, (0, 2)), lambda: np.zeros((2, 2), np.uint8), lambda: "picture.png",
)  # fmt: skip


def pixels(image: Any, num_channels: Any) -> tuple[str, np.ndarray]:
    made = to_eight_bits(image, num_channels)
    return made.mode, np.array(made)


def expected_pixels(image: Any, channels: Any) -> np.ndarray:
    channels = whole(channels)
    confirm(channels in (1, 3) and isinstance(image, PIL.Image.Image), "no picture")
    values = np.asarray(image)
    if image.mode in ("I;16", "F", "I"):
        deep = image.mode == "I;16" or image.mode == "I" and image.format in ("PNG", "PPM")
        most = 65535 if deep else 1 if image.mode == "F" else 255
        confirm(all(0 <= value <= most for value in values.reshape(-1)), "depth")
        grey = np.array([round(float(value) * 255 / most) for value in values.reshape(-1)]).reshape(values.shape)
        return grey if channels == 1 else np.stack([grey] * 3, axis=-1)
    return np.asarray(image.convert("L" if channels == 1 else "RGB"))


def check_pixels(given: dict[str, Any], result: tuple[str, np.ndarray]) -> None:
    same(result[1], expected_pixels(given["image"], given["num_channels"]))
    confirm(result[0] == ("L" if given["num_channels"] == 1 else "RGB"), "mode")


# ---- rows of pictures


def rows(labels: Any = (0, 1, 2), images: Any = None, kind: Any = None, **columns: Any) -> datasets.Dataset:
    images = [places.png(i, 3) for i in range(len(labels))] if images is None else images
    features = {"image": datasets.Image(), **({"label": kind} if kind else {})}
    made = datasets.Dataset.from_dict({"image": images, "label": list(labels), **columns})
    for name, feature in features.items():
        made = made.cast_column(name, feature)
    return made


def noisy_rows() -> datasets.Dataset:
    more = {"clean_label": [0, 1, 1], "is_noisy": [False, False, True], "sample_id": [7, 8, 2**40]}
    return rows(kind=datasets.ClassLabel(names=["a", "b", "c"]), **more)


ROWS = (
    rows, noisy_rows, lambda: rows().rename_column("label", "labels"), lambda: rows([0, None, 1]),
    lambda: rows([0.5, 1.0, 0.0]), lambda: rows(["a", "b", "c"]), lambda: rows([[0, 1], [1, 0], [0, 1]]),
    lambda: rows([True, False, True]), lambda: rows([0, 1], [places.png(1, 3), places.png(2, 4)]),
    lambda: rows([0, 1], [b"nothing", places.png(2)]), lambda: rows([0, 1], [None, places.png(2)]),
    lambda: rows().select([]), lambda: rows().to_iterable_dataset(), lambda: datasets.DatasetDict({"train": rows()}),
    lambda: rows().select([2, 0]), lambda: rows().with_format("torch"), lambda: rows(sample_id=[1, None, 3]),
    lambda: rows(is_noisy=[0, 1, 0]), lambda: rows(is_noisy=["a", "b", "c"]), lambda: rows([-1, 2**40, 3]),
    lambda: rows(kind=datasets.Value("uint8")), lambda: rows().cast_column("image", datasets.Image(decode=False)),
    lambda: rows().remove_columns("image"), lambda: [{"image": picture("L"), "label": 0}],
)  # fmt: skip


def dataset_call(draw: np.random.Generator) -> dict[str, Any]:
    channels = pick(draw, 1, 3)
    given = {
        "dataset": pick(draw, rows, noisy_rows)(), "num_channels": channels, "image_column": "image",
        "label_column": "label", "pad_to": pick(draw, None, 3, 5), "mean": [0.5] * channels, "std": [0.25],
    }  # fmt: skip
    return some(draw, given, ("dataset", "num_channels", "mean", "std"))


def device_images(dataset: Any, **given: Any) -> dict[str, Any]:
    found = DeviceImages.from_dataset(dataset, **given)
    return {name: column.numpy() for name, column in found.__getitems__(list(range(len(found)))).items()}


def read_rows(dataset: Any, label: str) -> dict[str, np.ndarray]:
    confirm(isinstance(dataset, datasets.Dataset), "no data set")
    dataset = dataset.with_format(None)
    names = {"labels": label, "clean_labels": f"clean_{label}", "is_noisy": "is_noisy", "sample_id": "sample_id"}
    found = {}
    for name, column in names.items():
        if column in dataset.column_names:
            values = list(dataset[column])
            is_mask = name == "is_noisy" and all(isinstance(value, bool) for value in values)
            found[name] = np.array(values) if is_mask else np.array([whole(value) for value in values], dtype=np.int64)
    confirm("labels" in found, "no labels")
    found.setdefault("sample_id", np.arange(len(dataset)))
    return found


def normalised(images: np.ndarray, mean: Any, std: Any) -> np.ndarray:
    """[N, C, H, W], each channel by its own numbers or all by one."""
    mean, std = (reals(part, 1) for part in (mean, std))
    channels = images.shape[1]
    confirm(all(part.shape in ((1,), (channels,)) and np.isfinite(part).all() for part in (mean, std)), "channels")
    confirm((std > 0).all(), "std")
    mean, std = (np.broadcast_to(part, channels).reshape(1, -1, 1, 1) for part in (mean, std))
    return (images / 255 - mean) / std


def check_dataset(given: dict[str, Any], result: dict[str, Any]) -> None:
    dataset, column = given["dataset"], text(given.get("image_column", "image"))
    expected = read_rows(dataset, text(given.get("label_column", "label")))
    images = [expected_pixels(row, given["num_channels"]) for row in dataset.with_format(None)[column]]
    confirm(images and all(image.shape == images[0].shape for image in images), "sizes")
    stacked = np.stack(images).reshape(len(images), *images[0].shape[:2], given["num_channels"]).transpose(0, 3, 1, 2)
    if given.get("pad_to") is not None:
        size = whole(given["pad_to"], max(stacked.shape[2:]))
        padded = np.zeros((*stacked.shape[:2], size, size))
        top, left = ((size - side) // 2 for side in stacked.shape[2:])
        padded[:, :, top : top + stacked.shape[2], left : left + stacked.shape[3]] = stacked
        stacked = padded
    confirm(set(result) == {*expected, "pixel_values"}, "columns")
    close(result["pixel_values"], normalised(stacked, given["mean"], given["std"]), 1e-4)
    for name, values in expected.items():
        same(result[name], values, name)


def check_label_columns(given: dict[str, Any], result: dict[str, Any]) -> None:
    expected = read_rows(given["dataset"], text(given["label"]))
    confirm(set(result) == set(expected), "columns")
    for name, values in expected.items():
        same(result[name], values, name)


def worker_call(draw: np.random.Generator) -> dict[str, Any]:
    made = pick(draw, rows, noisy_rows)()
    given = {"dataset": made, "seed": pick(draw, 0, 5), "image_column": "image", "label_column": "label"}
    return {**some(draw, given, ("dataset",)), "index": pick(draw, 0, 2, -1), "_transform": as_tensor}


def as_tensor(image: PIL.Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).float() + torch.rand(())


def worker_row(dataset: Any, _transform: Any, index: Any, **given: Any) -> Any:
    images = WorkerImages(dataset, _transform, **given)
    try:
        return {name: np.asarray(value) for name, value in images[index].items()}
    except IndexError as error:
        return f"no such row: {error}"


def check_worker(given: dict[str, Any], result: Any) -> None:
    dataset, index = given["dataset"], whole_of(given["index"])
    expected = read_rows(dataset, text(given.get("label_column", "label")))
    column, seed = text(given.get("image_column", "image")), whole(given.get("seed", 0), *twin.SEED)
    if not -len(dataset) <= index < len(dataset):
        confirm(isinstance(result, str), "a row outside")
        return
    confirm(isinstance(result, dict) and set(result) == {*expected, "pixel_values"}, "columns")
    sample = int(expected["sample_id"][index])
    row_key = twin.mix(((sample & twin.WORD) ^ twin.key_of(seed, 65, 0)) + twin.GOLDEN)
    torch.manual_seed(row_key & 0x7FFFFFFF)
    shift = float(torch.rand(()))
    close(result["pixel_values"], expected_pixels(dataset.with_format(None)[index][column], 3) + shift, 1e-6)
    for name, values in expected.items():
        same(result[name], values[index], name)


# ---- tensors


def statistics_call(draw: np.random.Generator) -> dict[str, Any]:
    return {"images": torch.from_numpy(draw.integers(0, 256, (2, pick(draw, 1, 3), 3, 2), dtype=np.uint8))}


def byte_images(images: Any) -> np.ndarray:
    confirm(isinstance(images, torch.Tensor) and images.dtype == torch.uint8 and images.ndim == 4, "no images")
    confirm(images.layout is torch.strided, "sparse")
    return images.numpy()


def check_statistics(given: dict[str, Any], result: tuple[list[float], list[float]]) -> None:
    images = byte_images(given["images"]).astype(np.float64) / 255
    confirm(images.size, "no pixels")
    close(result[0], images.mean((0, 2, 3)), 1e-9)
    close(result[1], images.std((0, 2, 3)), 1e-9)


def crop_call(draw: np.random.Generator) -> dict[str, Any]:
    images = torch.from_numpy(draw.integers(0, 256, (3, 1, 3, 4), dtype=np.uint8))
    return {"padding": pick(draw, 0, 2), "flip": bool(draw.integers(2)), "seed": pick(draw, 0, 2**63 - 1),
            "images": images, "sample": torch.tensor([0, 5, 2**40]), "epoch": pick(draw, 0, 3)}  # fmt: skip


def cropped(images: Any, sample: Any, epoch: Any, **fields: Any) -> tuple[str, torch.Tensor]:
    found = CropFlip(**fields)(images, sample, epoch)
    return str(found.dtype), found.cdouble() if found.is_complex() else found.double()


def check_cropped(given: dict[str, Any], result: tuple[str, torch.Tensor]) -> None:
    dtype, result = result
    pad, flips, seed = whole(given["padding"], 0, 2**15), flag(given["flip"]), whole(given["seed"], *twin.SEED)
    images = given["images"]
    confirm(isinstance(images, torch.Tensor) and images.ndim == 4 and images.layout is torch.strided, "no images")
    confirm(isinstance(given["sample"], torch.Tensor), "no ids")
    sample, epoch = ints(given["sample"], 1).tolist(), whole(given["epoch"], 0, 2**63 - 1)
    confirm(len(sample) == len(images) and result.shape == images.shape and dtype == str(images.dtype), "shape")
    expected = torch.zeros_like(result)
    for row, number in enumerate(sample):
        word = twin.word_of(twin.key_of(seed, 64, epoch), number, 0)
        down, right = (((word >> shift & 0xFFFF) * (2 * pad + 1) >> 16) - pad for shift in (0, 16))
        for i in range(images.shape[2]):
            for j in range(images.shape[3]):
                column = images.shape[3] - 1 - j if flips and word >> 32 & 1 else j
                y, x = i + down, column + right
                if 0 <= y < images.shape[2] and 0 <= x < images.shape[3]:
                    expected[row, :, i, j] = images[row, :, y, x]
    confirm(torch.equal(torch.nan_to_num(result), torch.nan_to_num(expected)), "pixels")


COLUMN = ("column", "columns", "data set", "row", "rows", "image", "labels")
WORDS = {
    "image_column": COLUMN, "label_column": COLUMN, "dataset": COLUMN, "label": COLUMN, "image": ("picture", "pixels"),
    "index": ("row", "image"), "sample": ("sample ids",),
}  # fmt: skip

TARGETS = [
    Target("data.to_eight_bits", pixels, lambda draw: {"image": picture(pick(draw, "L", "RGB"), 255),
           "num_channels": pick(draw, 1, 3)}, check_pixels, WORDS, {"image": PICTURES}),
    Target("data.DeviceImages.from_dataset", device_images, dataset_call, check_dataset, WORDS, {"dataset": ROWS}),
    Target("data.label_columns", label_columns, lambda draw: {"dataset": pick(draw, rows, noisy_rows)(),
           "label": "label"}, check_label_columns, WORDS, {"dataset": ROWS}),
    Target("data.WorkerImages", worker_row, worker_call, check_worker, WORDS, {"dataset": ROWS}),
    Target("data.channel_statistics", channel_statistics, statistics_call, check_statistics, WORDS),
    Target("data.CropFlip", cropped, crop_call, check_cropped, WORDS),
]  # fmt: skip
