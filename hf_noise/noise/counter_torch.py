"""The torch twin of `counter`: the same bits from int64 tensors, on a CPU or a GPU, eager or compiled.

torch has no full set of uint64 operators, so words live in int64 with wrap-around, and a logical right shift is an
arithmetic one with the copied sign bits masked off.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from hf_noise.noise import counter

__all__ = [
    "GOLDEN",
    "LOWER_HALF",
    "mix",
    "row_keys",
    "stream_key",
    "stream_key_on",
    "upper_half",
    "weyl",
    "words",
    "words_at",
]

_SIGN = 1 << 63


def _signed(word: int) -> int:
    return word - (1 << 64) if word & _SIGN else word


GOLDEN, _MIX_1, _MIX_2 = (_signed(word) for word in (counter.GOLDEN, counter.MIX_1, counter.MIX_2))


def _shift_right(z: torch.Tensor, bits: int) -> torch.Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def mix(z: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finaliser."""
    z = (z ^ _shift_right(z, 30)) * _MIX_1
    z = (z ^ _shift_right(z, 27)) * _MIX_2
    return z ^ _shift_right(z, 31)


#: Mask of the lower 32 bits of a word.
LOWER_HALF = (1 << 32) - 1


def upper_half(z: torch.Tensor) -> torch.Tensor:
    """The upper 32 bits of each word, in [0, 2^32)."""
    return _shift_right(z, 32)


def stream_key(seed: int, stream: int, epoch: int) -> torch.Tensor:
    """`counter.stream_key` as an int64 scalar tensor, so that compiled code does not depend on its value."""
    return torch.tensor(_signed(counter.stream_key(seed, stream, epoch)))


@lru_cache(maxsize=64)  # a training step and an evaluation have about ten of them, each in its turn
def stream_key_on(seed: int, stream: int, epoch: int, device: torch.device) -> torch.Tensor:
    """`stream_key` on a device; kept, since a copy to a GPU makes the host wait."""
    return stream_key(seed, stream, epoch).to(device)


def row_keys(key: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
    """Start of each sample's stream: `stream_key(...)` and integers of any shape -> int64 of that shape and device."""
    return mix((sample.long() ^ key) + GOLDEN)


def weyl(length: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """What positions 0 .. length - 1 add to a row's key, int64 [L].

    Pass the result into compiled code as an argument: a compiler may fold `arange * constant` into its loop index,
    which overflows on a CPU.
    """
    return torch.arange(1, length + 1, device=device) * GOLDEN


def words(keys: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Random 64-bit words as int64: keys [..., 1] and offsets [L] -> [..., L]."""
    return mix(keys + offsets)


def words_at(key: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """`counter.words_at`: `stream_key(...)` and integers of any shape -> int64 of that shape and device."""
    return mix(position.long() * GOLDEN + (key + GOLDEN))
