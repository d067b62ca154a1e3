"""Counter-based randomness: every random word is a hash of (seed, stream, epoch, sample, position).

A row of data (one sample in one epoch) owns a SplitMix64 stream whose start is `row_keys(...)`; position `k` of
the row reads the stream's k-th output directly. What needs one word per sample (a label) takes a shorter way: all
samples of an epoch share the stream that starts at `stream_key(...)`, and each reads the output whose number is its id
(`words_at`). So no generator is carried around, and a word does not depend on
batch size, order, workers, processes or resume. `counter_torch` computes the same bits on tensors.

SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = [
    "GOLDEN",
    "MIX_1",
    "MIX_2",
    "UNIT_BITS",
    "mix",
    "mix_in_place",
    "row_keys",
    "stream_key",
    "units",
    "weyl",
    "words",
    "words_at",
]

GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
_WORD = (1 << 64) - 1
# As NumPy's numbers: made anew for every small batch, they would take longer than the arithmetic.
_GOLDEN = np.uint64(GOLDEN)
_STEPS = ((np.uint64(30), np.uint64(MIX_1)), (np.uint64(27), np.uint64(MIX_2)))
_LAST = np.uint64(31)

#: A unit is the upper 53 bits of a word: the integers that float64 holds exactly.
UNIT_BITS = 53


def mix(z: int) -> int:
    """SplitMix64's finaliser on one Python integer: a bijection of 64-bit words."""
    z &= _WORD
    z = ((z ^ (z >> 30)) * MIX_1) & _WORD
    z = ((z ^ (z >> 27)) * MIX_2) & _WORD
    return z ^ (z >> 31)


def mix_in_place(z: np.ndarray, scratch: np.ndarray) -> np.ndarray:
    """`mix` on a uint64 array, which is overwritten; `scratch` is work space of the same shape."""
    for shift, factor in _STEPS:
        np.right_shift(z, shift, out=scratch)
        np.bitwise_xor(z, scratch, out=z)
        np.multiply(z, factor, out=z)
    np.right_shift(z, _LAST, out=scratch)
    return np.bitwise_xor(z, scratch, out=z)


@lru_cache(maxsize=64)  # a training step asks for the same few again and again
def stream_key(seed: int, stream: int, epoch: int) -> int:
    """Key in [0, 2^64) of all samples that share (seed, stream, epoch), each an integer.

    `stream` keeps the draws of different protocols apart that share a seed.
    """
    key = 0
    for part in (seed, stream, epoch):
        key = mix((key ^ (part & _WORD)) + GOLDEN)
    return key


def row_keys(seed: int, stream: int, epoch: int, sample: np.ndarray) -> np.ndarray:
    """Start of each sample's stream.

    Args:
        sample: integer array of any shape, the stable index of each sample.

    Returns:
        uint64 array of the same shape.
    """
    keys = np.array(sample, dtype=np.int64).view(np.uint64)
    keys ^= np.uint64(stream_key(seed, stream, epoch))  # in place: a new array would be a scalar if it had no axis
    keys += _GOLDEN
    return mix_in_place(keys, np.empty_like(keys))


def weyl(length: int, start: int = 0) -> np.ndarray:
    """What positions `start .. start + length - 1` add to a row's key: (position + 1) * GOLDEN mod 2^64, uint64."""
    return np.arange(start + 1, start + length + 1, dtype=np.uint64) * _GOLDEN


def words(
    keys: np.ndarray, offsets: np.ndarray, out: np.ndarray | None = None, scratch: np.ndarray | None = None
) -> np.ndarray:
    """Random 64-bit words, one for every row and position.

    Args:
        keys: uint64 [..., 1] or broadcastable, from `row_keys`.
        offsets: uint64 [L], from `weyl`.
        out, scratch: optional uint64 work space of the broadcast shape.

    Returns:
        uint64 array [..., L] (`out` if given).
    """
    z = np.add(keys, offsets, out=out)
    return mix_in_place(z, np.empty_like(z) if scratch is None else scratch)


def words_at(
    key: int, position: np.ndarray, out: np.ndarray | None = None, scratch: np.ndarray | None = None
) -> np.ndarray:
    """Random 64-bit words at any positions of one stream: those that `words` reads at positions 0, 1, ...

    Args:
        key: start of the stream in [0, 2^64), from `stream_key`.
        position: integers of any shape; negative ones count mod 2^64.
        out, scratch: optional uint64 work space of that shape.

    Returns:
        uint64 array of the same shape (`out` if given).
    """
    z = np.empty(position.shape, dtype=np.uint64) if out is None else out
    z.view(np.int64)[...] = position
    z *= np.uint64(GOLDEN)
    z += np.uint64((key + GOLDEN) & _WORD)
    return mix_in_place(z, np.empty_like(z) if scratch is None else scratch)


def units(keys: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Uniform float64 in [0, 1), multiples of 2^-53, one for every row and position; arguments as for `words`."""
    return (words(keys, offsets) >> np.uint64(64 - UNIT_BITS)) * 2.0**-UNIT_BITS
