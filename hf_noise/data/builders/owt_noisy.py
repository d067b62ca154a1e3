"""`hf_noise/owt-noisy`: OpenWebText, or any text of your own, with noisy targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_noise.data.builder import ratio_grid
from hf_noise.data.source_names import SourceLike
from hf_noise.data.text import PackedTextBuilder, PackedTextConfig

OPENWEBTEXT = "Skylion007/openwebtext"
_GPT2 = "openai-community/gpt2"
# Share of documents that nanoGPT's preparation of OpenWebText holds out: about 4 million tokens.
_OPENWEBTEXT_VALIDATION = 0.0005


@dataclass
class OwtNoisyConfig(PackedTextConfig):
    """As `PackedTextConfig`, with defaults that follow the source.

    OpenWebText: GPT-2's tokenizer and 0.05% of the documents for validation, as in the usual recipe. Local or
    embedded text: the embedded tokenizer, which needs no network, and 1% (of sources without a validation split).
    """

    source: SourceLike | Mapping[str, SourceLike] | None = OPENWEBTEXT

    def tokenizer_choice(self) -> Any:
        if self.tokenizer is None and not self.is_local:
            return _GPT2
        return super().tokenizer_choice()

    def held_out(self) -> float:
        if self.validation_source is None and self.validation_fraction is None and self.source_choice() == OPENWEBTEXT:
            return _OPENWEBTEXT_VALIDATION
        return super().held_out()


class OwtNoisy(PackedTextBuilder):
    """OpenWebText, or the text that `source=` names, in rows of 1024 tokens."""

    TEXT = """
Text (OpenWebText unless another source is named), tokenised and packed."""
    BUILDER_CONFIG_CLASS = OwtNoisyConfig
    BUILDER_CONFIGS = ratio_grid(OwtNoisyConfig)
