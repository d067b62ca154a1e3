"""The torch twin of `draws`: the same masks and replacements from int64 tensors, as functions that compile.

Conditions are sign bits spread over the word (-1 where true) because a compiler turns these, unlike comparisons, into
vector instructions on a CPU.
"""

from __future__ import annotations

import torch

from hf_noise.noise import counter_torch
from hf_noise.noise.arrays import IGNORE_INDEX
from hf_noise.noise.draws import ONE_WORD_CHOICES

__all__ = ["check_integers", "mask", "put", "replace_uniformly", "scale_one_word"]


def check_integers(name: str, values: torch.Tensor) -> None:
    """Raise TypeError unless the tensor holds integers."""
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"{name} must be integers, got {values.dtype}")


def mask(words: torch.Tensor, threshold: int, values: torch.Tensor) -> torch.Tensor:
    """-1 where the upper half of the word is below the threshold and the value is not -100, else 0."""
    differs = values - IGNORE_INDEX
    return ((counter_torch.upper_half(words) - threshold) & (differs | -differs)) >> 63


def put(values: torch.Tensor, replacement: torch.Tensor, is_noisy: torch.Tensor) -> torch.Tensor:
    """The values, replaced where `is_noisy` is -1."""
    return values ^ ((values ^ replacement) & is_noisy)


def scale_one_word(words: torch.Tensor, choices: int) -> torch.Tensor:
    """Random integers in [0, choices), for choices <= 2^20, from the lower halves of the words."""
    return ((words & counter_torch.LOWER_HALF) * choices) >> 32


def replace_uniformly(
    values: torch.Tensor, words: torch.Tensor, threshold: int, choices: int, exclude: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """`draws.replace_uniformly` for int64 values and words of one shape: (noisy values, -1 where replaced)."""
    is_noisy = mask(words, threshold, values)
    if choices <= ONE_WORD_CHOICES:
        replacement = scale_one_word(words, choices)
    else:
        words = counter_torch.mix(words + counter_torch.GOLDEN)
        carry = ((words & counter_torch.LOWER_HALF) * choices) >> 32
        replacement = (counter_torch.upper_half(words) * choices + carry) >> 32
    if exclude:
        replacement = replacement - ((values - replacement - 1) >> 63)
    return put(values, replacement, is_noisy), is_noisy
