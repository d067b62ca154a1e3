"""What trainers on labelled images share beside their labels: shapes, ranges and the memory layout of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hf_noise.noise.checks import check_flag
from hf_noise.trainers.arguments import check_given
from hf_noise.trainers.image_batches import KNOWN_NAMES, ImageBatches, check_shape, collate_images
from hf_noise.trainers.images import DeviceImages
from hf_noise.trainers.labels import LabelTrainer

__all__ = ["ImageLabelTrainer", "check_images"]

#: How far from 0 pixels in [-1, 1] may be: rounding, and what resizing adds at edges.
_BEYOND = 1.5


class ImageLabelTrainer(LabelTrainer):
    """`LabelTrainer` on labelled images; a subclass says how many classes its model has, and which images it takes.

    Rows hold `pixel_values` beside the columns of labels; see `hf_noise.trainers.images`. Other columns are left alone.

    Args:
        channels_last: memory layout of model and images; by default on a GPU.

    Raises:
        ValueError: images do not fit the model (in training, where they are in no column that can be read before), or
            `DeviceImages` are to be read by workers; and what `LabelTrainer` refuses.
    """

    rows_are = "images"

    def __init__(self, model: Any, args: Any, *, channels_last: bool | None = None, **kwargs: Any):
        check_given(model, args, kwargs)
        if channels_last is not None:
            check_flag("channels_last", channels_last)
        own = kwargs.get("data_collator")
        if own is None:
            kwargs["data_collator"] = collate_images
        self.shows_all = own is not None  # which may make pixels and labels of other columns
        is_trimmed = own is not None and (args is None or args.remove_unused_columns)
        super().__init__(model, args, **kwargs)
        if self.image_shape is not None:
            for rows in self._row_sets():
                check_images(rows, self.image_shape)
        # What cannot be read now is looked at batch by batch, on the CPU: no device has to wait for it.
        self.data_collator = ImageBatches(
            self.data_collator, self.num_classes, self.image_shape, KNOWN_NAMES if is_trimmed else None
        )  # fmt: skip
        if any(isinstance(rows, DeviceImages) for rows in self._row_sets()):
            if self.args.dataloader_num_workers:
                raise ValueError("DeviceImages are on the device already: dataloader_num_workers must be 0")
            self.args.dataloader_pin_memory = False
        self.channels_last = self.args.device.type == "cuda" if channels_last is None else channels_last
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of the images, which then lie in [-1, 1]; None for a model that takes any."""
        return None

    def check_fit(self, inputs: Mapping[str, Tensor]) -> None:
        if self.image_shape is None:
            return
        low, high = (float(end) for end in inputs["pixel_values"].aminmax())
        if low < -_BEYOND or high > _BEYOND:
            raise ValueError(f"images must lie in [-1, 1], those of the first batch do in [{low:.3g}, {high:.3g}]; "
                             "bytes become so by x / 127.5 - 1")  # fmt: skip

    def laid_out(self, images: Tensor) -> Tensor:
        """Images in the memory layout of the model."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images


def check_images(rows: Any, shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless images, where they are `DeviceImages`, have this shape [channels, H, W] and [-1, 1]."""
    if not isinstance(rows, DeviceImages):
        return
    check_shape(rows.images, shape)
    low, high = ((level - rows.mean) * rows.scale for level in (0, 255))
    if not (torch.allclose(low, -torch.ones_like(low)) and torch.allclose(high, torch.ones_like(high))):
        raise ValueError(
            f"images must lie in [-1, 1], these do in [{float(low.min()):.3g}, {float(high.max()):.3g}]; make "
            "DeviceImages with a mean and a std of 0.5 for each channel"
        )
