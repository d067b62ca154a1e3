"""The torch twin of `draws`: the same masks and replacements from int64 tensors, as functions that compile.

Conditions are sign bits spread over the word (-1 where true) because a compiler turns these, unlike comparisons, into
vector instructions on a CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hf_noise.noise import counter_torch
from hf_noise.noise.arrays import IGNORE_INDEX, integers
from hf_noise.noise.draws import ONE_WORD_CHOICES

__all__ = ["check_integers", "mask", "put", "replace_uniformly", "sample_ids", "scale_one_word"]


_INTEGERS = frozenset(
    [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64]
)


def check_integers(name: str, values: torch.Tensor) -> None:
    """Raise TypeError unless this is a dense tensor of integers, of any width and sign."""
    if not isinstance(values, torch.Tensor):
        raise TypeError(f"{name} must be a tensor of integers, got {type(values).__name__}")
    if values.dtype not in _INTEGERS or values.layout is not torch.strided:
        what = values.dtype if values.layout is torch.strided else f"{values.dtype} in the layout {values.layout}"
        raise TypeError(f"{name} must be integers, got {what}")


def sample_ids(sample: Any, device: torch.device) -> torch.Tensor:
    """Sample ids as an integer tensor on the device: a tensor, an array, a number or nested sequences of integers."""
    if isinstance(sample, torch.Tensor):
        check_integers("sample", sample)
        return sample.to(device)
    # As int64, in which ids from 2^63 on count mod 2^64, as they do everywhere.
    return torch.from_numpy(np.array(integers("sample", sample), dtype=np.int64)).to(device)


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
