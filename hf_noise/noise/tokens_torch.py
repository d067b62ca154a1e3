"""Token noise on tensors: the same draws as on NumPy arrays, as one function that compiles into one loop.

`replace` is the twin of `UniformTokens`; `corrupt` serves every token noise, by the twin that it names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import torch

from hf_noise.noise import counter_torch, draws_torch
from hf_noise.noise.arrays import check_dtype, check_rows, ignored_positions
from hf_noise.noise.token_noise import TokenNoise

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


@lru_cache(maxsize=8)
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function)


@lru_cache(maxsize=8)
def _offsets(length: int, device: torch.device) -> torch.Tensor:
    return counter_torch.weyl(length, device)


@lru_cache(maxsize=8)
def _arguments(noise: TokenNoise, device: torch.device) -> tuple[Any, ...]:
    """What the twin is given besides tokens and words: kept, since a copy to a GPU makes the host wait."""
    given = noise.draw_arguments
    return tuple(torch.from_numpy(one).to(device) if isinstance(one, np.ndarray) else one for one in given)


def corrupt(
    noise: TokenNoise, tokens: torch.Tensor, sample: Any, epoch: int = 0, compiled: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """`noise(tokens, sample, epoch)` for a tensor; `compiled=True` fuses it into one pass over the tokens.

    Compiling takes seconds once and needs a C++ compiler on a CPU, so it is worth it for long runs only. A noise
    without a twin is drawn by NumPy, compiled or not.
    """
    draws_torch.check_integers("tokens", tokens)
    sample = draws_torch.sample_ids(sample, tokens.device)
    check_rows(tokens, sample)
    if noise.twin is None:
        drawn = noise(tokens.detach().cpu().numpy(), sample.cpu().numpy(), epoch)
        noisy, is_noisy = (torch.from_numpy(one).to(tokens.device) for one in drawn)
        return noisy, is_noisy
    check_dtype(tokens.dtype, torch.iinfo(tokens.dtype).max, noise.vocab_size)
    if tokens.device.type == "cpu":
        ignored_positions(tokens.numpy(), noise.vocab_size)
    function = import_module(noise.twin).replace
    function = _compiled(function) if compiled else function
    key = counter_torch.stream_key_on(noise.seed, noise.stream, noise.epoch_drawn(epoch), tokens.device)
    offsets = _offsets(tokens.shape[-1], tokens.device)
    noisy, is_noisy = function(tokens.long(), sample, key, offsets, *_arguments(noise, tokens.device))
    return noisy.to(tokens.dtype), is_noisy.view(torch.bool)
