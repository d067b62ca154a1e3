"""Labelled images for training: small ones live on the training device, large ones come through workers.

Augmentation is a pure function of (seed, epoch, sample id), like the noise: the same in any batch, order and number of
processes and workers, and after a resume.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from hf_noise.noise import counter, counter_torch
from hf_noise.noise.checks import check_count, check_epoch, check_flag, check_integer, check_seed
from hf_noise.trainers.eight_bits import to_eight_bits
from hf_noise.trainers.image_columns import (
    channel_statistics,
    check_columns,
    check_images,
    check_rows,
    decode_images,
    label_columns,
    of_channels,
)

__all__ = ["CropFlip", "DeviceImages", "WorkerImages", "channel_statistics", "decode_images", "label_columns"]

_MASK_31 = (1 << 31) - 1
_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64)


@dataclass(frozen=True, kw_only=True)
class CropFlip:
    """A random crop after zero padding and a random horizontal flip, each from the counter.

    Args:
        padding: pixels of 0 on each side, in [0, 2^15]; 4 for CIFAR, 0 for no crop.
        flip: whether half of the images are mirrored; digits are not.
        seed: of the draws, in [0, 2^63).
    """

    padding: int = 4
    flip: bool = True
    seed: int = 0
    stream: ClassVar[int] = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "padding", check_count("padding", self.padding, 0, 15))  # of 16 random bits
        object.__setattr__(self, "flip", check_flag("flip", self.flip))
        object.__setattr__(self, "seed", check_seed(self.seed))

    def __call__(self, images: Tensor, sample: Tensor, epoch: int) -> Tensor:
        """Images [B, C, H, W] of any dtype, sample ids int64 [B] -> images of the same shape, on their device."""
        epoch = check_epoch(epoch)
        if not isinstance(images, Tensor) or images.ndim != 4 or images.layout is not torch.strided:
            told = list(images.shape) if isinstance(images, Tensor) else f"{images!r:.80}"
            raise TypeError(f"images must be a dense tensor [B, C, H, W], got {told}")
        if not isinstance(sample, Tensor) or sample.dtype not in _INTEGERS or sample.shape != images.shape[:1]:
            told = f"{sample.dtype} {list(sample.shape)}" if isinstance(sample, Tensor) else f"{sample!r:.80}"
            raise TypeError(f"sample must hold an integer for each of {len(images)} images, as a tensor, got {told}")
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
        flat = padded.reshape(batch, channels, -1).gather(2, pixels.expand(batch, channels, height * width))
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
        check_images(images)
        check_columns(columns, len(images))
        if augment is not None and not callable(augment):
            raise TypeError(f"augment must be a function of images, sample ids and the epoch, got {augment!r:.80}")
        mean, std = (of_channels(name, part, images.shape[1]) for name, part in (("mean", mean), ("std", std)))
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
        resize: bool = False,
        **options: Any,
    ) -> DeviceImages:
        """Decode all images of a `datasets.Dataset` once.

        Args:
            dataset: a `datasets.Dataset` with an `Image` column and a label column.
            num_channels: 1 (grey) or 3 (colour); images are converted, see `to_eight_bits`.
            pad_to: pad each side with zeros to this size, as MNIST is to 32.
            resize: scale images of any size to `pad_to` instead: the longer side is cut at both ends to a square, which
                Pillow's Lanczos filter (it averages over what it shrinks) brings to the size.
            **options: for `DeviceImages`.

        Raises:
            ValueError: an image cannot be decoded, is of unknown depth or of another size than the first, the row is
                named; or images are larger than `pad_to` and not to be resized.
            TypeError: this is no `datasets.Dataset`, or a setting is of another kind.
        """
        if pad_to is not None:
            pad_to = check_count("pad_to", pad_to, 0, 16)
        if check_flag("resize", resize) and not pad_to:
            raise ValueError(f"resize=True needs pad_to=, the pixels on each side (>= 1), got {pad_to!r}")
        images = decode_images(dataset, image_column, num_channels, pad_to if resize else None)
        if pad_to is not None:
            if pad_to < max(images.shape[-2:]):
                raise ValueError(
                    f"pad_to={pad_to}, but the images are {list(images.shape[-2:])} pixels; none is cut: pass "
                    f"resize=True, which scales them, or pad_to={max(images.shape[-2:])} or more"
                )
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
        if index.dtype not in _INTEGERS:
            raise TypeError(f"indices must be integers, the numbers of rows, got {indices!r:.80}")
        rows = {name: column[index] for name, column in self.columns.items()}
        images = self.images[index]
        if self.augment is not None:
            images = self.augment(images, rows["sample_id"], self.epoch)
        return {"pixel_values": images.float().sub_(self.mean).mul_(self.scale), **rows}


class WorkerImages(Dataset):
    """Images of any size, decoded and transformed row by row in the workers of a DataLoader.

    Args:
        dataset: a `datasets.Dataset` with an `Image` column.
        transform: PIL image (mode "RGB", see `to_eight_bits`) -> float tensor [C, H, W]; what it draws with torch is
            seeded by (seed, epoch, sample id).
        seed: of these draws.
        image_column, label_column: names of its columns.

    Raises:
        TypeError: this is no data set, transform no function, seed no integer or the name of a column no text.
        ValueError: a column is missing, or one of labels holds something else (`label_columns`).
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
        check_rows(dataset, image_column)
        if not callable(transform):
            raise TypeError(f"transform must be a function of an image, got {transform!r:.80}")
        seed = check_seed(seed)
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
        index = check_integer("index", index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} is outside a data set of {len(self)} rows")
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
