"""`UniformTokens` on tensors: the same draws as on NumPy arrays, as one function that compiles into one loop."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from hf_noise.noise import counter_torch, draws_torch
from hf_noise.noise.arrays import check_dtype, check_rows, ignored_positions
from hf_noise.noise.tokens import UniformTokens

__all__ = ["corrupt", "replace"]


def replace(
    tokens: torch.Tensor,
    sample: torch.Tensor,
    key: torch.Tensor,
    offsets: torch.Tensor,
    threshold: int,
    choices: int,
    exclude: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Corrupt tokens [..., L] int64 of the samples [...], given `counter_torch.stream_key` and `.weyl(L)`.

    Returns `(noisy, is_noisy)` with a mask of uint8 zeros and ones.
    """
    words = counter_torch.words(counter_torch.row_keys(key, sample).unsqueeze(-1), offsets)
    noisy, is_noisy = draws_torch.replace_uniformly(tokens, words, threshold, choices, exclude)
    return noisy, (-is_noisy).to(torch.uint8)


@lru_cache(maxsize=1)
def _compiled():
    return torch.compile(replace)


@lru_cache(maxsize=8)
def _offsets(length: int, device: torch.device) -> torch.Tensor:
    return counter_torch.weyl(length, device)


def corrupt(
    noise: UniformTokens, tokens: torch.Tensor, sample: Any, epoch: int = 0, compiled: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """`noise(tokens, sample, epoch)` for a tensor; `compiled=True` fuses it into one pass over the tokens.

    Compiling takes seconds once and needs a C++ compiler on a CPU, so it is worth it for long runs only.
    """
    draws_torch.check_integers("tokens", tokens)
    sample = draws_torch.sample_ids(sample, tokens.device)
    check_rows(tokens, sample)
    check_dtype(tokens.dtype, torch.iinfo(tokens.dtype).max, noise.vocab_size)
    if tokens.device.type == "cpu":
        ignored_positions(tokens.numpy(), noise.vocab_size)
    function = _compiled() if compiled else replace
    key = counter_torch.stream_key_on(noise.seed, noise.stream, noise._epoch(epoch), tokens.device)
    noisy, is_noisy = function(
        tokens.long(), sample, key, _offsets(tokens.shape[-1], tokens.device), *noise._draw
    )
    return noisy.to(tokens.dtype), is_noisy.view(torch.bool)
