"""A tiny teacher and pairs for it, shared by the tests of pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from datasets import Dataset

from hf_noise.data.pair_tokens import pair_tokenizer
from hf_noise.models.seq2seq import encoder_decoder

WORDS = ["noise", "data", "model", "token", "label", "clean", "wrong", "rate", "seed", "epoch", "row", "block"]
NETWORK = {"layers": 1, "d_model": 16, "heads": 2, "feed_forward": 32, "positions": 64}


def pairs(rows: int = 40, seed: int = 0) -> Dataset:
    """Sources of 1 to 9 words, and the same words in the other order as their targets."""
    draw = np.random.default_rng(seed)
    words = [[WORDS[i] for i in draw.integers(0, len(WORDS), n)] for n in draw.integers(1, 10, rows)]
    targets = [" ".join(one[::-1]) for one in words]
    return Dataset.from_dict({"source": [" ".join(one) for one in words], "target": targets})


def tokenizer():
    return pair_tokenizer(((row["source"], row["target"]) for row in pairs()), 280)


def save_teacher(folder: Path, seed: int = 0) -> str:
    """A teacher with random weights, which are large so that what it writes depends on its source."""
    torch.manual_seed(seed)
    tokens = tokenizer()
    model = encoder_decoder(280, pad_token=tokens.pad_token_id, eos_token=tokens.eos_token_id, **NETWORK).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(6 if weight.ndim > 1 and "shared" not in name else 1)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return str(folder)
