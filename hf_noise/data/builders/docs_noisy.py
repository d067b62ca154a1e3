"""`hf_noise/docs-noisy`: the prose of the standard library, offline, with noisy targets."""

from __future__ import annotations

from dataclasses import dataclass

from hf_noise.data.builder import ratio_grid
from hf_noise.data.text import PackedTextBuilder, PackedTextConfig


@dataclass
class DocsNoisyConfig(PackedTextConfig):
    """As `PackedTextConfig`; the source is the embedded text and the rows are short."""

    block_size: int = 128


class DocsNoisy(PackedTextBuilder):
    """English prose of the running Python's standard library, in rows of 128 tokens."""

    TEXT = """
English prose of the running Python's standard library (docstrings and the reference behind help()), tokenised with a
byte-level BPE trained on its train split."""
    BUILDER_CONFIG_CLASS = DocsNoisyConfig
    BUILDER_CONFIGS = ratio_grid(DocsNoisyConfig)
