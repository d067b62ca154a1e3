"""`hf_noise/cnn-dailymail-noisy`: summaries of news, a rich source, with targets that a teacher wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from hf_noise.data.builder import ratio_grid
from hf_noise.data.pairs import NoisyPairsBuilder
from hf_noise.data.pairs_settings import NoisyPairsConfig
from hf_noise.data.source_names import SourceLike

CNN_DAILYMAIL = "abisee/cnn_dailymail"


@dataclass
class CnnDailymailNoisyConfig(NoisyPairsConfig):
    """As `NoisyPairsConfig`, with the lengths of paper A (spec 4.2): 2048 tokens of an article, 256 of a summary. Some
    articles are longer (the 99.9th percentile is 2,343); `truncate=True` cuts them, as the paper does."""

    OWN_CONFIG: ClassVar[str | None] = "3.0.0"

    source: SourceLike | Mapping[str, SourceLike] | None = CNN_DAILYMAIL
    columns: Sequence[str] = ("article", "highlights")
    max_source_tokens: int | None = 2048
    max_target_tokens: int | None = 256

    @property
    def task(self) -> str:
        return "summary, article -> highlights"


class CnnDailymailNoisy(NoisyPairsBuilder):
    """287,113 articles of CNN and the Daily Mail with their highlights, and the validation and test splits."""

    DESCRIPTION = """
CNN/DailyMail, article -> highlights (or the pairs of another source). Whole targets of the train split are those that a
teacher wrote, at rate e = r / (1 + r) (paper A, K.3); the true ones are in `clean_target`."""
    BUILDER_CONFIG_CLASS = CnnDailymailNoisyConfig
    BUILDER_CONFIGS = ratio_grid(CnnDailymailNoisyConfig)
