"""`Masking` on tensors: the same bits as on NumPy arrays, as one function that compiles into one loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from hf_noise.noise import counter_torch, draws_torch
from hf_noise.noise.arrays import IGNORE_INDEX, check_dtype, check_rows
from hf_noise.noise.masking import Masking, check_targets, check_values

__all__ = ["mask", "replace"]


def replace(
    tokens: torch.Tensor,
    targets: torch.Tensor,
    sample: torch.Tensor,
    key: torch.Tensor,
    offsets: torch.Tensor,
    never: torch.Tensor,
    limits: tuple[int, int, int],
    mask_token: int,
    vocab_size: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask tokens [..., L] int64 of the samples [...], given `counter_torch.stream_key` and `.weyl(L)`.

    Returns `(inputs, targets)`, both int64.
    """
    words = counter_torch.words(counter_torch.row_keys(key, sample).unsqueeze(-1), offsets)
    upper = counter_torch.upper_half(words)
    of_mask, of_random, of_any = limits
    chosen = (upper < of_any) & (targets != IGNORE_INDEX) & ~torch.isin(tokens, never)
    read = torch.where(upper < of_random, draws_torch.scale_one_word(words, vocab_size), tokens)
    read = read.masked_fill(upper < of_mask, mask_token)
    return torch.where(chosen, read, tokens), targets.masked_fill(~chosen, IGNORE_INDEX)


@lru_cache(maxsize=8)
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function)


@lru_cache(maxsize=8)
def _offsets(length: int, device: torch.device) -> torch.Tensor:
    return counter_torch.weyl(length, device)


@lru_cache(maxsize=8)  # kept, since a copy to a GPU makes the host wait
def _never(masking: Masking, device: torch.device) -> torch.Tensor:
    return torch.tensor(masking.never).to(device)


def mask(
    masking: Masking,
    tokens: torch.Tensor,
    sample: Any,
    epoch: int = 0,
    *,
    targets: torch.Tensor | None = None,
    evaluation: bool = False,
    compiled: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`masking(tokens, sample, epoch, ...)` for a tensor; `compiled=True` fuses it into one pass over the tokens."""
    draws_torch.check_integers("tokens", tokens)
    sample = draws_torch.sample_ids(sample, tokens.device)
    check_rows(tokens, sample)
    read = tokens if targets is None else targets
    draws_torch.check_integers("targets", read)
    check_targets(tokens, read)
    if read.device != tokens.device:
        raise ValueError(f"targets must lie on the device of the tokens, {tokens.device}, got {read.device}")
    for name, values in (("tokens", tokens), ("targets", read)):
        check_dtype(values.dtype, torch.iinfo(values.dtype).max, masking.num_tokens, name)
    if tokens.device.type == "cpu":
        known = tokens.numpy()
        check_values(known, known if targets is None else read.numpy(), masking.num_tokens)
    function = _compiled(replace) if compiled else replace
    key = counter_torch.stream_key_on(*masking.drawn_from(epoch, evaluation), tokens.device)
    inputs, masked = function(
        tokens.long(), read.long(), sample, key, _offsets(tokens.shape[-1], tokens.device),
        _never(masking, tokens.device), masking.limits, masking.mask_token, masking.vocab_size,
    )  # fmt: skip
    return inputs.to(tokens.dtype), masked
