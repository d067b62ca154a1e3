"""`hf_noise/cifar10-noisy`: CIFAR-10 with noisy labels, drawn or given by people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hf_noise.data.builder import ratio_grid
from hf_noise.data.images import NoisyImagesBuilder, NoisyImagesConfig
from hf_noise.data.source_names import SourceLike
from hf_noise.noise.label_maps import CIFAR10


@dataclass
class Cifar10NoisyConfig(NoisyImagesConfig):
    """As `NoisyImagesConfig`. The labels of CIFAR-10N are protocols where the source, or `human_source`, has their
    columns: "human:worse" (40.2% wrong), "human:aggre" (9.0%), "human:random1" to "human:random3" (17 to 18%)."""

    NUM_CLASSES: ClassVar[int] = 10
    CLASS_NAMES: ClassVar[tuple[str, ...]] = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    PAIRS: ClassVar[Mapping[int, int]] = CIFAR10

    source: SourceLike | Mapping[str, SourceLike] | None = "uoft-cs/cifar10"


class Cifar10Noisy(NoisyImagesBuilder):
    """50,000 and 10,000 images of 32 x 32 pixels in ten classes."""

    DESCRIPTION = """
CIFAR-10. Labels (`label`) of the train split are noisy: replaced at rate e = r / (1 + r) by a protocol of papers A and
C, or those that people gave (CIFAR-10N). The true ones are in `clean_label`."""
    BUILDER_CONFIG_CLASS = Cifar10NoisyConfig
    BUILDER_CONFIGS = ratio_grid(Cifar10NoisyConfig)
