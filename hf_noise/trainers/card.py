"""The noise in the card that `transformers.Trainer` writes, so that a plain `push_to_hub=True` tells of it too."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard

from hf_noise.noise import Noise
from hf_noise.noise.block import noise_block, noise_sentence

__all__ = ["state_noise"]

_TITLE = "## Noise in the training data"


def state_noise(path: Path, noise: Noise) -> None:
    """Add tags, the machine-readable `noise` block and a paragraph to the card at `path`; harmless twice."""
    card = ModelCard.load(path)
    block = noise_block(noise)
    card.data.tags = list(dict.fromkeys([*(card.data.tags or []), "hf_noise", "noisy-data", block["protocol"]]))
    card.data.noise = block
    if _TITLE not in card.text:
        card.text = f"{card.text.rstrip()}\n\n{_TITLE}\n\n{noise_sentence(block)}\n"
    card.save(path)
