"""Images with labels as all studies of them read them: training and test rows, and the noise of their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset, load_dataset_builder
from torchvision.transforms import v2
from transformers import TrainingArguments

import hf_noise
from hf_noise.data.held_rows import split_of
from hf_noise.data.hook import builder_class
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.studies.chosen_rows import rows_asked_for, some_rows
from hf_noise.studies.image_settings import drawn_noise
from hf_noise.trainers.base import noise_of as noise_in_rows
from hf_noise.trainers.images import CropFlip, DeviceImages, WorkerImages, channel_statistics, label_columns

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

# Modes of Pillow without colour.
GREY = ("1", "L", "I;16", "I;16B", "I;16L", "I", "F")


@dataclass
class ImageData:
    """Training and test rows, their labels' names, and what images are normalised with."""

    settings: object
    device: torch.device
    classes: list[str]
    num_channels: int
    image_size: int
    mean: list[float]
    std: list[float]
    source: str
    train_rows: int
    train_images: DeviceImages | None
    test: DeviceImages | WorkerImages
    is_square: bool = True
    human: dict[str, Dataset] = field(default_factory=dict)

    @staticmethod
    def read(settings, protocol: str | None = None):
        """Training and test rows: clean ones, or with the human labels of a protocol."""
        options = settings.source_options()
        options |= {"protocol": protocol} | settings.human_options() if protocol else {"r": 0.0}
        splits = hf_noise.load_dataset(settings.data, **options)
        train, test = splits["train"], split_of(splits, "test", str(settings.source or settings.data), "validation")
        clean = "label" if protocol is None else "clean_label"
        return part_of(train, settings.train_rows, "train_rows", clean), part_of(test, settings.test_rows, "test_rows")

    @classmethod
    def load(cls, settings, args: TrainingArguments) -> ImageData:
        with args.main_process_first(desc="data"):
            train, test = cls.read(settings)
        channels, size, is_square = look_at([train, test], settings)
        common = {
            "settings": settings, "device": args.device, "classes": train.features["label"].names,
            "num_channels": channels, "image_size": size, "is_square": is_square, "train_rows": len(train),
            "source": settings.source or load_dataset_builder(settings.data, r=0.0).config.source,
        }  # fmt: skip
        if not settings.on_device:
            return cls(**common, mean=IMAGENET_MEAN, std=IMAGENET_STD, train_images=None,
                       test=WorkerImages(test, transform_of(size, settings, train=False)))  # fmt: skip
        options = {"num_channels": channels, "pad_to": size, "resize": settings.resize, "device": args.device}
        images = DeviceImages.from_dataset(train, mean=[0.0] * channels, std=[1.0] * channels, **options)
        mean, std = channel_statistics(images.images)
        return cls(**common, mean=mean, std=std, train_images=images,
                   test=DeviceImages.from_dataset(test, mean=mean, std=std, **options))  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """What a record says of the data."""
        return {
            "builder": self.settings.data, "source": self.source, "classes": len(self.classes),
            "image_size": self.image_size, "channels": self.num_channels, "train_rows": self.train_rows,
            "test_rows": len(self.test),
        }  # fmt: skip

    def labelled(self, protocol: str) -> Dataset:
        """Training rows with the labels that people gave them, read once."""
        if protocol not in self.human:
            self.human[protocol] = self.read(self.settings, protocol)[0]
        return self.human[protocol]

    def training(self, run: Any) -> DeviceImages | WorkerImages:
        """The rows of a run, with augmentation."""
        settings = self.settings
        if self.train_images is None:
            transform = transform_of(self.image_size, settings, train=True)
            return WorkerImages(self.pictures(run), transform, seed=run.seed)
        augment = CropFlip(padding=settings.crop_padding, flip=settings.flip, seed=run.seed)
        return self.scored(run, augment=augment)

    def pictures(self, run: Any) -> Dataset:
        """Training rows as they are read, with human labels if the run has them."""
        return self.read(self.settings)[0] if run.ratio is not None else self.labelled(run.protocol)

    def scored(
        self, run: Any, rows: int | None = None, augment: CropFlip | None = None
    ) -> DeviceImages | WorkerImages:
        """Training images of a run with its labels: all, or some on which to measure."""
        base = self.train_images
        if base is None:
            read = self.pictures(run)
            part = read.select(some_rows(len(read), rows))
            return WorkerImages(part, transform_of(self.image_size, self.settings, train=False))
        columns, info = base.columns, base.info
        if run.ratio is None:
            read = self.labelled(run.protocol)
            columns, info = label_columns(read), read.info
        part = torch.from_numpy(some_rows(len(base), rows)).to(self.device)
        return DeviceImages(
            base.images[part], {name: column[part] for name, column in columns.items()}, device=self.device,
            mean=self.mean, std=self.std, augment=augment, info=info,
        )  # fmt: skip


def look_at(splits: Sequence[Dataset], settings: Any) -> tuple[int, int, bool]:
    """Channels of the images, 1 if they are grey, else 3; pixels of a side; and whether they are square as they are.

    Of a user's own images all are looked at, of known data sets the first.

    Raises ValueError: images of several sizes are to be kept as they are.
    """
    of_all = settings.source is not None
    images = (image for rows in splits for image in (rows["image"] if of_all else rows[:1]["image"]))
    modes, sizes = zip(*((image.mode, image.size) for image in images))
    largest, smallest = max(map(max, sizes)), min(map(min, sizes))
    is_square = all(width == height for width, height in sizes)
    if settings.on_device and settings.image_size is not None and largest > settings.image_size and not settings.resize:
        raise ValueError(
            f"images of {settings.source or settings.data} have up to {largest} pixels on a side, and "
            f"image_size={settings.image_size} only pads smaller ones; bring them to it with resize=True"
        )
    if len(set(sizes)) > 1 and not settings.resize and settings.on_device:
        raise ValueError(
            f"images of {settings.source} have {len(set(sizes))} sizes, sides of {smallest} to {largest} pixels; bring "
            f"them to one with resize=True and image_size={settings.image_size or smallest}"
        )
    channels = 1 if settings.on_device and all(mode in GREY for mode in modes) else 3
    return channels, settings.image_size or largest, is_square


def part_of(rows: Dataset, wanted: int | None, flag: str, labels: str = "label") -> Dataset:
    """So many of the rows, always the same; all for None. Raises ValueError: there are fewer, or a class is missing."""
    if wanted is None:
        return rows
    part = rows.select(rows_asked_for(len(rows), wanted, flag, "images"))
    if absent := sorted(set(range(rows.features["label"].num_classes)) - set(part[labels])):
        others = f" and of {len(absent) - 1} others" if absent[1:] else ""
        raise ValueError(f"--{flag} {wanted} leaves no image of class {absent[0]}{others}; take more")
    return part


def transform_of(size: int, settings, *, train: bool):
    """The usual crops of large images: random ones for training, the middle for a test."""
    if train:
        crop = [v2.RandomResizedCrop(size, antialias=True)]
        crop += [v2.RandomHorizontalFlip()] if settings.flip else []
    else:
        crop = [v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size)]
    return v2.Compose([
        v2.ToImage(), *crop, v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ])  # fmt: skip


def load_images(settings: Any, args: TrainingArguments, runs: Sequence[Any]) -> ImageData:
    """The images; refuses now what cannot be of the noise of any run, and not when others have been trained."""
    data = ImageData.load(settings, args)
    config = builder_class(settings.data).BUILDER_CONFIG_CLASS
    known, size = getattr(config, "CLASS_NAMES", None), getattr(config, "NUM_CLASSES", None)
    is_other = list(known) != data.classes if known else len(data.classes) != size
    if is_other and any(run.protocol == "pairs" for run in runs):
        raise ValueError(
            f"--protocol pairs relies on the {', '.join(known) if known else size} classes of {settings.data} in their "
            f"order, those of {data.source} are {', '.join(data.classes[:10])}; choose another protocol"
        )
    for run in runs:
        noise_of(run, data, data.labelled(run.protocol) if run.ratio is None else None)
    return data


def noise_of(run: Any, data: ImageData, rows: Any) -> LabelFlips | HumanLabels:
    """The noise of a run: drawn by the trainer, or what came with human labels."""
    return noise_in_rows(rows) if run.ratio is None else drawn_noise(run, data.settings, len(data.classes))


def _counts(rows: DeviceImages, classes: int) -> list[int]:
    return torch.bincount(rows.columns["labels"], minlength=classes).tolist()


def describe_images(data: ImageData) -> list[str]:
    """What the data are, for a dry run."""
    images = data.train_images
    counts = "" if images is None else ", " + ", ".join(
        f"{name}: {n:,} + {of_test:,}" for name, n, of_test in zip(
            data.classes, _counts(images, len(data.classes)), _counts(data.test, len(data.classes))
        )
    )
    shape = f"{data.image_size} x {data.image_size} pixels, {data.num_channels} channel{'s'[: data.num_channels > 1]}"
    rows = data.test if images is None else images
    label = int(rows[0]["labels"])
    return [
        f"{data.train_rows:,} images to train on, {len(data.test):,} to test on, of {data.source}: {shape}",
        f"{len(data.classes)} classes{counts if len(data.classes) <= 20 else ''}",
        f"first image: {tuple(rows[0]['pixel_values'].shape)}, class {label} ({data.classes[label]})",
    ]
