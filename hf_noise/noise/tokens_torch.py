"""`UniformTokens` on tensors: the same draws as on NumPy arrays, as one function that compiles into one loop."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from hf_noise.noise import counter_torch
from hf_noise.noise.arrays import IGNORE_INDEX, check_dtype, check_rows, ignored_positions
from hf_noise.noise.tokens import ONE_WORD_CHOICES, UniformTokens

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

    Returns `(noisy, is_noisy)` with a mask of uint8 zeros and ones. Conditions are sign bits spread over the word
    (-1 where true) because a compiler turns these, unlike comparisons, into vector instructions on a CPU.
    """
    words = counter_torch.words(counter_torch.row_keys(key, sample).unsqueeze(-1), offsets)
    differs = tokens - IGNORE_INDEX
    is_noisy = ((counter_torch.upper_half(words) - threshold) & (differs | -differs)) >> 63
    if choices <= ONE_WORD_CHOICES:
        replacement = ((words & counter_torch.LOWER_HALF) * choices) >> 32
    else:
        words = counter_torch.mix(words + counter_torch.GOLDEN)
        carry = ((words & counter_torch.LOWER_HALF) * choices) >> 32
        replacement = (counter_torch.upper_half(words) * choices + carry) >> 32
    if exclude:
        replacement = replacement - ((tokens - replacement - 1) >> 63)
    return tokens ^ ((tokens ^ replacement) & is_noisy), (-is_noisy).to(torch.uint8)


@lru_cache(maxsize=1)
def _compiled():
    return torch.compile(replace)


@lru_cache(maxsize=8)
def _offsets(length: int, device: torch.device) -> torch.Tensor:
    return counter_torch.weyl(length, device)


@lru_cache(maxsize=8)
def _key(seed: int, stream: int, epoch: int, device: torch.device) -> torch.Tensor:
    return counter_torch.stream_key(seed, stream, epoch).to(device)


def corrupt(
    noise: UniformTokens, tokens: torch.Tensor, sample: Any, epoch: int = 0, compiled: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """`noise(tokens, sample, epoch)` for a tensor; `compiled=True` fuses it into one pass over the tokens.

    Compiling takes seconds once and needs a C++ compiler on a CPU, so it is worth it for long runs only.
    """
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise TypeError(f"tokens must be integers, got {tokens.dtype}")
    sample = torch.as_tensor(sample, device=tokens.device)
    if sample.is_floating_point() or sample.dtype == torch.bool:
        raise TypeError(f"sample must be integers, got {sample.dtype}")
    check_rows(tokens, sample)
    check_dtype(tokens.dtype, torch.iinfo(tokens.dtype).max, noise.vocab_size)
    if tokens.device.type == "cpu":
        ignored_positions(tokens.numpy(), noise.vocab_size)
    function = _compiled() if compiled else replace
    key = _key(noise.seed, noise.stream, noise._epoch(epoch), tokens.device)
    noisy, is_noisy = function(
        tokens.long(), sample, key, _offsets(tokens.shape[-1], tokens.device), *noise._draw
    )
    return noisy.to(tokens.dtype), is_noisy.view(torch.bool)
