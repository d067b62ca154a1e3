"""`hf_noise/noisy` with `columns=`: pairs of texts from any source, whose targets a teacher wrote."""

from __future__ import annotations

from hf_noise.data.builder import ratio_grid
from hf_noise.data.pairs import NoisyPairsBuilder
from hf_noise.data.pairs_settings import NoisyPairsConfig

__all__ = ["NoisyPairs"]


class NoisyPairs(NoisyPairsBuilder):
    """What `hf_noise.data.builders.noisy` hands over to where pairs are asked for."""

    CALLED = "hf_noise/noisy"
    BUILDER_CONFIG_CLASS = NoisyPairsConfig
    BUILDER_CONFIGS = ratio_grid(NoisyPairsConfig)
