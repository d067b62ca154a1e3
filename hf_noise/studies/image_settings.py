"""Settings that all recipes on images with labels share, and what is refused in them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

from hf_noise.noise.label_maps import LABEL_MAPS
from hf_noise.noise.labels import LABEL_PROTOCOLS
from hf_noise.studies.classifier.run import check_noise
from hf_noise.studies.ranges import Count, DataName, Name, NotNegative, Output, Positive, Repo, Seed, check_classes

# Classes of data sets, which need not be read to know them.
KNOWN_CLASSES = {
    "hf_noise/cifar10-noisy": 10, "hf_noise/cifar100-noisy": 100, "hf_noise/mnist-noisy": 10,
    "hf_noise/digits-noisy": 10, "hf_noise/imagenet-noisy": 1000,
}  # fmt: skip


@dataclass
class ImageSettings:
    """Data, noise, duration and what a machine can do; what is None here comes from the scale."""

    # Where images become noisy or wrong, they are kept; a recipe that can do without makes a field of it.
    on_device: ClassVar[bool] = True

    output: Output = field(default=None, metadata={"help": "folder of the study"})
    data: DataName = field(default=None, metadata={"help": "hf_noise/cifar10-noisy, cifar100-noisy, mnist-noisy, ..."})
    source: Name | None = field(default=None, metadata={"help": "Parquet, image folder or Hub data set instead"})
    test_source: Name | None = field(default=None, metadata={"help": "test images, if the source has none"})
    human_source: Name | None = field(default=None, metadata={"help": "human labels, if the source has none"})
    classes: Count | None = field(default=None, metadata={"help": "10, 100 or 1000 classes of ImageNet"})
    train_rows: Count | None = field(default=None, metadata={"help": "how many of the images; all if not set"})
    test_rows: Count | None = field(default=None, metadata={"help": "how many of the test images; all if not set"})
    image_size: Count | None = field(default=None, metadata={"help": "pixels; smaller images are padded with zeros"})
    ratio: list[NotNegative] = field(default=None, metadata={"help": "noise ratios r; human labels have their own"})
    redraw: str = field(default="epoch", metadata={"help": "draw wrong labels anew", "choices": ["epoch", "never"]})
    allow_adversarial: bool = field(default=False, metadata={"help": "accept e above (C - 1)/C"})
    seed: list[Seed] = field(default_factory=lambda: [0], metadata={"help": "of weights, order and all that is drawn"})
    epochs: Positive = field(default=None, metadata={"help": "passes over the training images without noise"})
    batch_size: Count = field(default=None, metadata={"help": "images per step without noise, all processes together"})
    micro_batch: Count = field(default=None, metadata={"help": "images per process and forward pass, at most"})
    flip: bool | None = field(default=None, metadata={"help": "mirror half of the images; if not set, all but digits"})
    save_steps: Count = field(default=None, metadata={"help": "optimiser steps between checkpoints"})
    logging_steps: Count = field(default=None, metadata={"help": "optimiser steps between log entries"})
    bf16: bool = field(default=False, metadata={"help": "bfloat16 autocast, float32 weights"})
    torch_compile: bool = field(default=False, metadata={"help": "compile the model"})
    num_processes: Count | None = field(default=None, metadata={"help": "stop unless so many processes train together"})
    push_to_hub: Repo | None = field(default=None, metadata={"help": "owner/name; of several runs each adds its name"})
    private: bool = field(default=False, metadata={"help": "make Hub repositories private"})
    dry_run: bool = field(default=False, metadata={"help": "print settings and derived figures, then stop"})

    @property
    def is_tiny(self) -> bool:
        """Whether images have 8 x 8 pixels, as the embedded digits."""
        return self.data == "hf_noise/digits-noisy"

    @property
    def can_be_mirrored(self) -> bool:
        """Whether an image still shows its class in a mirror, as digits do not."""
        return not self.data.endswith(("digits-noisy", "mnist-noisy"))

    def complete(self, parser: argparse.ArgumentParser, protocols: Sequence[str]) -> None:
        """Fill in what the data decide, and stop with the parser's message at what makes no sense together."""
        check_classes(parser, self.data, self.classes)
        if self.flip and not self.can_be_mirrored:
            parser.error("--flip True would mirror digits, which then show something else; leave it out")
        self.flip = self.can_be_mirrored if self.flip is None else self.flip
        for protocol in protocols:
            if protocol not in LABEL_PROTOCOLS and not protocol.startswith("human:"):
                parser.error(f"unknown --protocol {protocol}; known: {', '.join(LABEL_PROTOCOLS)}, human:<name>")
        if "pairs" in protocols and self.similar_classes() is None:
            parser.error(f"--protocol pairs: no map of similar classes is known for {self.data}")
        if self.bf16 and getattr(self, "fp16", False):
            parser.error("--fp16 and --bf16 exclude each other; give --bf16 False with --fp16")

    def similar_classes(self) -> Mapping[int, int] | None:
        """Paper C's map of the data set; digits of either kind share theirs."""
        name = self.data.removeprefix("hf_noise/").removesuffix("-noisy")
        return LABEL_MAPS.get("mnist" if name == "digits" else name)


def check_rates(runs: Sequence[Any], settings: ImageSettings) -> None:
    """Refuse noise that is drawn at a rate that its data cannot have, before they are read and in a dry run too."""
    if (classes := settings.classes or KNOWN_CLASSES.get(settings.data)) is not None:
        known = SimpleNamespace(settings=settings, classes=range(classes))
        check_noise([run for run in runs if run.ratio is not None], known)
