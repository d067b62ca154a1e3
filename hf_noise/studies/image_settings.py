"""Settings that all studies of images with labels share, and what is refused in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from hf_noise.noise import LabelFlips
from hf_noise.noise.label_maps import LABEL_MAPS
from hf_noise.noise.labels import LABEL_PROTOCOLS
from hf_noise.studies.ranges import Count, DataName, Name, NotNegative, Positive, ShareInside
from hf_noise.studies.reading import is_elsewhere, source_of
from hf_noise.studies.settings import SettingError, TrainingSettings, setting

__all__ = [
    "DataSettings", "ImageSettings", "check_rates", "drawn_noise", "elsewhere", "knows_rows", "shared", "train_rows_of",
]  # fmt: skip

# Classes and training images of data sets, which need not be read to know them.
KNOWN_CLASSES = {
    "hf_noise/cifar10-noisy": 10, "hf_noise/cifar100-noisy": 100, "hf_noise/mnist-noisy": 10,
    "hf_noise/digits-noisy": 10, "hf_noise/imagenet-noisy": 1000,
}  # fmt: skip
KNOWN_ROWS = {
    "hf_noise/cifar10-noisy": 50_000, "hf_noise/cifar100-noisy": 50_000, "hf_noise/mnist-noisy": 60_000,
    "hf_noise/imagenet-noisy": 1_281_167,
}  # fmt: skip
CHOSEN_CLASSES = "hf_noise/imagenet-noisy"
OWN_DATA = "hf_noise/noisy"
EMBEDDED = ("hf_noise/digits-noisy",)


@dataclass
class DataSettings:
    """Which images with labels, and how many of them."""

    data: DataName = setting(None, "hf_noise/cifar10-noisy, ..., hf_noise/noisy for any --source", group="data")
    source: Name | None = setting(None, "file, glob, image folder or Hub data set instead", group="data")
    column: Name | None = setting(None, "the source's column of labels (default: label)", group="data")
    image_column: Name | None = setting(None, "the source's column of images (default: image)", group="data")
    test_source: Name | None = setting(None, "test images, if the source has none", group="data")
    test_fraction: ShareInside | None = setting(
        None, "share held out for a test, if the source has no test images", group="data"
    )
    classes: Count | None = setting(None, "10, 100 or 1000 classes of ImageNet", group="data")
    train_rows: Count | None = setting(None, "how many of the images; all if not set", group="data")
    test_rows: Count | None = setting(None, "how many of the test images; all if not set", group="data")
    image_size: Count | None = setting(
        None, "pixels; smaller images are padded with zeros, or resized with --resize", group="data"
    )
    resize: bool = setting(
        False, "resize images to --image_size, the middle of longer ones", group="data", is_later=True
    )

    def check_data(self) -> None:
        """Raises SettingError: there is nothing to read, or a setting is of other data."""
        if self.data == OWN_DATA and self.source is None:
            raise SettingError(f"--data {OWN_DATA} needs --source: a folder of images in a folder for each class, a "
                               "Parquet, CSV or JSON Lines file, or a data set on the Hub")  # fmt: skip
        if self.classes is not None and self.data != CHOSEN_CLASSES:
            raise SettingError(
                f"--classes {self.classes}: only {CHOSEN_CLASSES} has classes to choose from, {self.data} has its own"
            )
        if self.resize and self.image_size is None:
            raise SettingError("--resize needs --image_size, the pixels to resize to")

    def source_options(self) -> dict[str, Any]:
        """Arguments of `load_dataset` that say which data, those that are set."""
        of_labels = "column" if self.data == OWN_DATA else "label_column"
        usual = {of_labels: "label", "image_column": "image"} if self.data == OWN_DATA else {}
        told = {
            "source": source_of(self.source), "test_source": source_of(self.test_source), of_labels: self.column,
            "image_column": self.image_column, "test_fraction": self.test_fraction, "classes": self.classes,
        }  # fmt: skip
        return usual | {name: value for name, value in told.items() if value is not None}

    @property
    def known_classes(self) -> int | None:
        """C, where the data need not be read to know it."""
        return self.classes or (KNOWN_CLASSES.get(self.data) if self.source is None else None)

    @property
    def is_tiny(self) -> bool:
        """Whether images have 8 x 8 pixels, as the embedded digits."""
        return self.data == "hf_noise/digits-noisy"


#: Names of the settings of data, which a judge or classifier shares with the study that it serves.
DATA = tuple(one.name for one in fields(DataSettings))


@dataclass
class ImageSettings(DataSettings, TrainingSettings):
    """Data, noise, duration and what a machine can do; what is None here comes from the scale."""

    # Where images become noisy or wrong, they are kept; a study that can do without makes a field of it.
    on_device: ClassVar[bool] = True

    human_source: Name | None = setting(None, "human labels, if the source has none", group="data")
    human_column: Name | None = setting(None, "the column of human labels of --protocol human:<name>", group="data")
    ratio: list[NotNegative] = setting(
        None, "noise ratios r; human labels have their own", group="noise and loss", in_result=False
    )
    redraw: str = setting("epoch", "draw wrong labels anew", group="noise and loss", choices=["epoch", "never"])
    allow_adversarial: bool = setting(False, "accept e above (C - 1)/C", group="noise and loss")
    epochs: Positive = setting(None, "passes over the training images without noise, of whole batches each")
    flip: bool | None = setting(None, "mirror half of the images; if not set, those of CIFAR and ImageNet")

    def human_options(self) -> dict[str, Any]:
        """Arguments of `load_dataset` that say where the labels of people are, those that are set."""
        told = {"human_source": source_of(self.human_source), "human_column": self.human_column}
        return {name: value for name, value in told.items() if value is not None}

    @property
    def can_be_mirrored(self) -> bool:
        """Whether an image still shows its class in a mirror, as digits do not."""
        return not self.data.endswith(("digits-noisy", "mnist-noisy"))

    def check_images(self, protocols: Sequence[str]) -> None:
        """Fill in what the data decide. Raises SettingError: some settings make no sense together."""
        self.check_data()
        if self.flip and not self.can_be_mirrored:
            raise SettingError("--flip True would mirror digits, which then show something else; leave it out")
        # Of a user's own images nobody knows whether a mirror changes their class.
        self.flip = self.can_be_mirrored and self.data != OWN_DATA if self.flip is None else self.flip
        for protocol in protocols:
            if protocol not in LABEL_PROTOCOLS and not protocol.startswith("human:"):
                raise SettingError(f"unknown --protocol {protocol}; known: {', '.join(LABEL_PROTOCOLS)}, human:<name>")
        if "pairs" in protocols and self.similar_classes() is None:
            raise SettingError(f"--protocol pairs: no map of similar classes is known for {self.data}")
        if self.human_column is not None and not any(protocol.startswith("human:") for protocol in protocols):
            raise SettingError(f"--human_column {self.human_column}: it is read with --protocol human:<name> only")
        if self.bf16 and getattr(self, "fp16", False):
            raise SettingError("--fp16 and --bf16 exclude each other; give --bf16 False with --fp16")

    def similar_classes(self) -> Mapping[int, int] | None:
        """Paper C's map of the data set; digits of either kind share theirs."""
        name = self.data.removeprefix("hf_noise/").removesuffix("-noisy")
        return LABEL_MAPS.get("mnist" if name == "digits" else name)


def shared(settings: Any, *names: str) -> dict[str, Any]:
    """The values of these settings by name, for the settings of another study."""
    return {name: getattr(settings, name) for name in names}


def elsewhere(settings: DataSettings) -> str | None:
    """Name of the images on the Hub, None where they are on this machine."""
    if settings.source is None:
        return None if settings.data in EMBEDDED else settings.data
    return settings.source if is_elsewhere(settings.source) else None


def known_rows(settings: DataSettings) -> int | None:
    """Number of training images, None where they have to be read to know it."""
    known = KNOWN_ROWS.get(settings.data) if settings.source is None else None
    if settings.data == CHOSEN_CLASSES and settings.classes != KNOWN_CLASSES[CHOSEN_CLASSES]:
        known = None
    return settings.train_rows or known


def knows_rows(settings: DataSettings) -> bool:
    """Whether no image has to be read to know how many there are."""
    return known_rows(settings) is not None


def train_rows_of(settings: DataSettings) -> int:
    """Number of training images, without reading any where it is known."""
    if (known := known_rows(settings)) is not None:
        return known
    from hf_noise.studies.images import ImageData  # which loads torch

    return len(ImageData.read(settings)[0])


def check_rates(runs: Iterable[Any], settings: ImageSettings) -> None:
    """Refuse noise that is drawn at a rate that its data cannot have, before they are read."""
    if (classes := settings.known_classes) is not None:
        for run in runs:
            if run.ratio is not None:
                drawn_noise(run, settings, classes)


def drawn_noise(run: Any, settings: ImageSettings, classes: int) -> LabelFlips:
    """The noise of a run that the trainer draws. Raises ValueError: the data cannot have it."""
    return LabelFlips.named(
        run.protocol if run.ratio or run.protocol == "pairs" else "symmetric",
        known={"mapping": settings.similar_classes()}, ratio=run.ratio, num_classes=classes, seed=run.seed,
        redraw=settings.redraw, allow_adversarial=settings.allow_adversarial,
    )  # fmt: skip
