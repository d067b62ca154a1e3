"""Labelled images for training: small ones live on the training device, large ones come through workers.

Augmentation is a pure function of (seed, epoch, sample id), like the noise: the same in any batch, order and number of
processes and workers, and after a resume.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from hf_noise.noise import counter, counter_torch
from hf_noise.noise.arrays import real_numbers
from hf_noise.noise.checks import check_count, check_flag, check_seed
from hf_noise.trainers.eight_bits import to_eight_bits

__all__ = ["CropFlip", "DeviceImages", "WorkerImages", "channel_statistics", "label_columns"]

_MASK_31 = (1 << 31) - 1


@dataclass(frozen=True, kw_only=True)
class CropFlip:
    """A random crop after zero padding and a random horizontal flip, each from the counter.

    Args:
        padding: pixels of 0 on each side; 4 for CIFAR, 0 for no crop.
        flip: whether half of the images are mirrored; digits are not.
        seed: of the draws, in [0, 2^63).
    """

    padding: int = 4
    flip: bool = True
    seed: int = 0
    stream: ClassVar[int] = 64

    def __post_init__(self) -> None:
        check_count("padding", self.padding, 0, 15)  # of 16 random bits
        check_flag("flip", self.flip)
        check_seed(self.seed)

    def __call__(self, images: Tensor, sample: Tensor, epoch: int) -> Tensor:
        """Images [B, C, H, W] of any dtype, sample ids int64 [B] -> images of the same shape, on their device."""
        batch, channels, height, width = images.shape
        key = counter_torch.stream_key_on(self.seed, self.stream, epoch, images.device)
        words = counter_torch.mix(counter_torch.row_keys(key, sample) + counter_torch.GOLDEN)
        offsets = 2 * self.padding + 1
        down, right = (((words >> shift) & 0xFFFF) * offsets >> 16 for shift in (0, 16))
        columns = torch.arange(width, device=images.device)
        if self.flip:
            mirrored = (words >> 32) & 1
            columns = torch.where(mirrored[:, None] == 1, width - 1 - columns, columns)
        columns = columns + right[:, None]
        rows = torch.arange(height, device=images.device) + down[:, None]
        padded = F.pad(images, [self.padding] * 4)
        wide = width + 2 * self.padding
        pixels = (rows[:, :, None] * wide + columns[:, None, :]).view(batch, 1, height * width)
        flat = padded.view(batch, channels, -1).gather(2, pixels.expand(batch, channels, height * width))
        return flat.view(images.shape)


class DeviceImages(Dataset):
    """Images of one size as uint8 on a device; whole batches are gathered, augmented and normalised there.

    Rows that a DataLoader fetches are `pixel_values` float32 [B, C, H, W], `labels`, `sample_id`, and `clean_labels`
    and `is_noisy` if the data set has them. Use it with `dataloader_num_workers=0`.

    Args:
        images: uint8 [N, C, H, W].
        columns: int64 or bool [N] each, `labels` and `sample_id` among them.
        device: where to keep and work on them.
        mean, std: of each channel in [0, 1], taken off and divided by.
        augment: what to do with a batch of uint8 images, such as `CropFlip()`; None for nothing.
        info, split: of the data set that the rows are from, so that the trainer finds its noise.

    Raises:
        TypeError: images, columns, mean, std or augment are of another kind.
        ValueError: there is no column `labels`, one has another length, mean or std are none of these channels, or a
            std is not > 0.
    """

    def __init__(
        self,
        images: Tensor,
        columns: dict[str, Tensor],
        *,
        device: torch.device | str = "cpu",
        mean: Sequence[float],
        std: Sequence[float],
        augment: Callable[[Tensor, Tensor, int], Tensor] | None = None,
        info: Any = None,
        split: Any = None,
    ):
        _check_images(images)
        _check_columns(columns, len(images))
        if augment is not None and not callable(augment):
            raise TypeError(f"augment must be a function of images, sample ids and the epoch, got {augment!r:.80}")
        mean, std = (_of_channels(name, part, images.shape[1]) for name, part in (("mean", mean), ("std", std)))
        if not (std > 0).all():
            raise ValueError(f"std must be > 0 in each channel, got {std.tolist()}")
        self.images = images.to(device)
        # Integers of other widths have no comparisons on some devices.
        self.columns = {
            name: column.to(device, column.dtype if column.dtype == torch.bool else torch.int64)
            for name, column in columns.items()
        }
        self.mean = mean.to(device).view(-1, 1, 1) * 255
        self.scale = 1 / (std.to(device).view(-1, 1, 1) * 255)
        self.augment, self.info, self.split, self.epoch = augment, info, split, 0

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        *,
        num_channels: int,
        image_column: str = "image",
        label_column: str = "label",
        pad_to: int | None = None,
        **options: Any,
    ) -> DeviceImages:
        """Decode all images of a `datasets.Dataset` once.

        Args:
            dataset: rows with an `Image` column and a label column.
            num_channels: 1 (grey) or 3 (colour); images are converted, see `to_eight_bits`.
            pad_to: pad each side with zeros to this size, as MNIST is to 32.
            **options: for `DeviceImages`.

        Raises:
            ValueError: an image cannot be decoded, is of unknown depth or of another size than the first; the row is
                named.
        """
        images = decode_images(dataset, image_column, num_channels)
        if pad_to is not None:
            if pad_to < max(images.shape[-2:]):
                raise ValueError(f"pad_to={pad_to}, but the images are {list(images.shape[-2:])} pixels; none is cut")
            missing = [pad_to - images.shape[-1], pad_to - images.shape[-2]]
            images = F.pad(images, [part for all_ in missing for part in (all_ // 2, all_ - all_ // 2)])
        columns = label_columns(dataset, label_column)
        return cls(images, columns, info=dataset.info, split=dataset.split, **options)

    def set_epoch(self, epoch: int) -> None:
        """Whose epoch's augmentation to draw; the trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[0] for name, column in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        index = torch.as_tensor(indices, device=self.images.device)
        rows = {name: column[index] for name, column in self.columns.items()}
        images = self.images[index]
        if self.augment is not None:
            images = self.augment(images, rows["sample_id"], self.epoch)
        return {"pixel_values": images.float().sub_(self.mean).mul_(self.scale), **rows}


def _check_images(images: Any) -> None:
    is_right = isinstance(images, Tensor) and images.dtype == torch.uint8 and images.ndim == 4
    if not is_right or images.layout is not torch.strided:
        told = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else f"{images!r:.80}"
        raise TypeError(f"images must be a dense uint8 tensor [N, C, H, W], got {told}")


def _check_columns(columns: Any, rows: int) -> None:
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


def _of_channels(name: str, values: Any, channels: int) -> Tensor:
    """float32 [C] or [1]."""
    numbers = real_numbers(name, values)
    if numbers.shape not in ((channels,), (1,)) or not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be a finite number for each of {channels} channels, got {values!r:.80}")
    return torch.from_numpy(numbers.astype(np.float32))


class WorkerImages(Dataset):
    """Images of any size, decoded and transformed row by row in the workers of a DataLoader.

    Args:
        dataset: a `datasets.Dataset` with an `Image` column.
        transform: PIL image (mode "RGB", see `to_eight_bits`) -> float tensor [C, H, W]; what it draws with torch is
            seeded by (seed, epoch, sample id).
        seed: of these draws.
        image_column, label_column: names of its columns.
    """

    stream: ClassVar[int] = 65

    def __init__(
        self,
        dataset: Any,
        transform: Callable[[Any], Tensor],
        *,
        seed: int = 0,
        image_column: str = "image",
        label_column: str = "label",
    ):
        self.dataset, self.transform, self.seed, self.image_column = dataset, transform, seed, image_column
        self.columns = label_columns(dataset, label_column)
        # Shared memory: workers that go on over several epochs see the trainer's change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Whose epoch's augmentation to draw; the trainer calls it."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = {name: column[index] for name, column in self.columns.items()}
        sample = np.asarray(int(row["sample_id"]))
        key = counter.row_keys(self.seed, self.stream, int(self._epoch), sample)
        try:
            image = to_eight_bits(self.dataset[index][self.image_column], 3)
        except Exception as error:  # Pillow's decoders raise many kinds for files that they cannot read
            raise ValueError(f"image {index} (sample_id {int(sample)}) cannot be read: {error}") from error
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(int(key) & _MASK_31)  # that of the CPU alone
            return {"pixel_values": self.transform(image), **row}


def decode_images(dataset: Any, column: str, num_channels: int) -> Tensor:
    """All images of a column as uint8 [N, C, H, W]; raises ValueError naming the row that cannot be read or differs."""
    if not isinstance(num_channels, int) or num_channels not in (1, 3):
        raise ValueError(f"num_channels must be 1 or 3, got {num_channels}")
    if column not in getattr(dataset, "column_names", None) or []:
        raise ValueError(f"there is no column {column!r} in {type(dataset).__name__} of images; it has "
                         f"{getattr(dataset, 'column_names', None)}")  # fmt: skip
    decoded: Tensor | None = None
    rows = dataset.select_columns([column])
    for index in range(len(rows)):
        try:
            pixels = np.asarray(to_eight_bits(rows[index][column], num_channels))
        except Exception as error:  # Pillow's decoders raise many kinds
            raise ValueError(f"image {index} cannot be read: {error}") from error
        image = torch.from_numpy(pixels.copy()).reshape(*pixels.shape[:2], num_channels).permute(2, 0, 1)
        if decoded is None:
            decoded = torch.empty(len(rows), *image.shape, dtype=torch.uint8)
        if image.shape != decoded.shape[1:]:
            raise ValueError(
                f"image {index} is {list(image.shape[1:])} pixels, the first one {list(decoded.shape[2:])}; images of "
                "several sizes go through WorkerImages"
            )
        decoded[index] = image
    if decoded is None:
        raise ValueError("the data set has no rows")
    return decoded


def label_columns(dataset: Any, label: str = "label") -> dict[str, Tensor]:
    """`labels`, `sample_id` (row numbers if there is none), and `clean_labels`, `is_noisy` where the data have them.

    Raises:
        ValueError: the label column is missing; a column holds nulls, or no integers (booleans in `is_noisy`).
    """
    named = {"labels": label, "clean_labels": f"clean_{label}", "is_noisy": "is_noisy", "sample_id": "sample_id"}
    named = {name: column for name, column in named.items() if column in dataset.column_names}
    if "labels" not in named:
        raise ValueError(f"there is no column {label!r}; the data have {', '.join(map(repr, dataset.column_names))}: "
                         "choose one with label_column=")  # fmt: skip
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
    """Mean and standard deviation of each channel of uint8 images [N, C, H, W], in units where 255 is 1."""
    count = images[:, 0].numel()
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in range(images.shape[1]):
        share = torch.bincount(images[:, channel].flatten(), minlength=256).double().cpu() / count
        mean.append(float(share @ levels))
        std.append(float((share @ (levels - mean[-1]) ** 2).sqrt()))
    return mean, std
