"""`hf_noise/digits-noisy`: handwritten digits that need no download, with noisy labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hf_noise.data.builder import ratio_grid
from hf_noise.data.builders.mnist_noisy import MnistNoisyConfig
from hf_noise.data.digits import DIGITS
from hf_noise.data.images import NoisyImagesBuilder
from hf_noise.data.source_names import SourceLike


@dataclass
class DigitsNoisyConfig(MnistNoisyConfig):
    """As `MnistNoisyConfig`; the source is embedded."""

    source: SourceLike | Mapping[str, SourceLike] | None = DIGITS


class DigitsNoisy(NoisyImagesBuilder):
    """1,442 and 355 handwritten digits of 8 x 8 grey pixels."""

    DESCRIPTION = """
The 1,797 handwritten digits of scikit-learn (UCI, 8 x 8 pixels); every fifth of each class is in the test split. Labels
(`label`) of the train split are noisy: replaced at rate e = r / (1 + r) by a protocol of papers A and C. The true ones
are in `clean_label`."""
    BUILDER_CONFIG_CLASS = DigitsNoisyConfig
    BUILDER_CONFIGS = ratio_grid(DigitsNoisyConfig)
