"""`hf_noise/mnist-noisy`: MNIST with noisy labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hf_noise.data.builder import ratio_grid
from hf_noise.data.images import NoisyImagesBuilder, NoisyImagesConfig
from hf_noise.data.source_names import SourceLike
from hf_noise.noise.label_maps import MNIST


@dataclass
class MnistNoisyConfig(NoisyImagesConfig):
    """As `NoisyImagesConfig`, for ten digits."""

    NUM_CLASSES: ClassVar[int] = 10
    CLASS_NAMES: ClassVar[tuple[str, ...]] = tuple("0123456789")
    PAIRS: ClassVar[Mapping[int, int]] = MNIST

    source: SourceLike | Mapping[str, SourceLike] | None = "ylecun/mnist"


class MnistNoisy(NoisyImagesBuilder):
    """60,000 and 10,000 handwritten digits of 28 x 28 grey pixels."""

    DESCRIPTION = """
MNIST. Labels (`label`) of the train split are noisy: replaced at rate e = r / (1 + r) by a protocol of papers A and C.
The true ones are in `clean_label`."""
    BUILDER_CONFIG_CLASS = MnistNoisyConfig
    BUILDER_CONFIGS = ratio_grid(MnistNoisyConfig)
