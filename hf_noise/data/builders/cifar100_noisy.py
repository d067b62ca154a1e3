"""`hf_noise/cifar100-noisy`: CIFAR-100 with noisy fine labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hf_noise.data.builder import ratio_grid
from hf_noise.data.images import NoisyImagesBuilder, NoisyImagesConfig
from hf_noise.data.source_names import SourceLike
from hf_noise.noise.label_maps import CIFAR100


@dataclass
class Cifar100NoisyConfig(NoisyImagesConfig):
    """As `NoisyImagesConfig`, for the 100 fine classes."""

    NUM_CLASSES: ClassVar[int] = 100
    LABEL_COLUMNS: ClassVar[tuple[str, ...]] = ("label", "fine_label")
    PAIRS: ClassVar[Mapping[int, int]] = CIFAR100

    source: SourceLike | Mapping[str, SourceLike] | None = "uoft-cs/cifar100"


class Cifar100Noisy(NoisyImagesBuilder):
    """50,000 and 10,000 images of 32 x 32 pixels in 100 classes."""

    DESCRIPTION = """
CIFAR-100, fine classes. Labels (`label`) of the train split are noisy: replaced at rate e = r / (1 + r) by a protocol
of papers A and C. The true ones are in `clean_label`."""
    BUILDER_CONFIG_CLASS = Cifar100NoisyConfig
    BUILDER_CONFIGS = ratio_grid(Cifar100NoisyConfig)
