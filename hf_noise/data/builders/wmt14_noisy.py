"""`hf_noise/wmt14-noisy`: English-German translation, a sparse source, with targets that a teacher wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from hf_noise.data.builder import ratio_grid
from hf_noise.data.pairs import NoisyPairsBuilder
from hf_noise.data.pairs_settings import NoisyPairsConfig
from hf_noise.data.source_names import SourceLike

WMT14 = "wmt/wmt14"


@dataclass
class Wmt14NoisyConfig(NoisyPairsConfig):
    """As `NoisyPairsConfig`, with the numbers of paper A (spec 4.2): of the 4.5 million pairs as many as CNN/DailyMail
    has, and 256 tokens on either side. `truncate=True` cuts longer ones."""

    OWN_CONFIG: ClassVar[str | None] = "de-en"

    source: SourceLike | Mapping[str, SourceLike] | None = WMT14
    columns: Sequence[str] = ("translation.en", "translation.de")
    max_source_tokens: int | None = 256
    max_target_tokens: int | None = 256
    max_pairs: int | None = 287_113

    @property
    def task(self) -> str:
        return "translation, en -> de"


class Wmt14Noisy(NoisyPairsBuilder):
    """287,113 pairs of WMT 2014 English-German, with its validation and test splits."""

    DESCRIPTION = """
WMT 2014 English -> German, a part of it as large as CNN/DailyMail (or the pairs of another source). Whole targets of
the train split are those that a teacher wrote, at rate e = r / (1 + r) (paper A, K.3); the true ones are in
`clean_target`."""
    BUILDER_CONFIG_CLASS = Wmt14NoisyConfig
    BUILDER_CONFIGS = ratio_grid(Wmt14NoisyConfig)
