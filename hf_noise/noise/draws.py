"""What random words become: which units are noisy and what replaces them, on NumPy arrays that are changed in place.

The upper half of a word decides whether its unit is noisy, the lower half what it becomes, so the two are independent.
`draws_torch` does the same on tensors.
"""

from __future__ import annotations

import numpy as np

from hf_noise.noise import counter

__all__ = [
    "BLOCK",
    "ONE_WORD_CHOICES",
    "mask",
    "put",
    "replace_uniformly",
    "scale",
    "scale_one_word",
    "threshold",
]

#: One block of units passes through all operations while it is in the processor's cache.
BLOCK = 8192

#: Up to this many choices one half of a random word is enough; more of them take a second word.
ONE_WORD_CHOICES = 1 << 20

_HALF, _LOWER_HALF, _MAX_WORD = np.uint64(32), np.uint64(2**32 - 1), np.uint64(2**64 - 1)


def threshold(error_rate: float) -> int:
    """Units whose word has an upper half below this are noisy: e in multiples of 2^-32, an integer in [0, 2^32].

    Raises:
        ValueError: the rate is above 0 and too small to be drawn at all.
    """
    rounded = round(error_rate * 2**32)
    if error_rate > 0 and rounded == 0:
        raise ValueError(
            f"error_rate {error_rate!r} is below the finest rate that can be drawn, 2^-33; use 0 for no noise"
        )
    return rounded


def mask(words: np.ndarray, threshold: int, ignored: np.ndarray | None, out: np.ndarray) -> np.ndarray:
    """Write into `out` which units are noisy: those below the threshold, except for the ignored ones."""
    np.less(words, np.uint64(threshold << 32) if threshold < 2**32 else _MAX_WORD, out=out)
    if ignored is not None:
        out &= ~ignored
    return out


def put(values: np.ndarray, replacement: np.ndarray, is_noisy: np.ndarray) -> None:
    """Overwrite the noisy values; `replacement` is int64 and may be used up.

    Arithmetic instead of a masked copy: a processor cannot foresee the branches of a random mask.
    """
    changes = replacement.astype(values.dtype, copy=False)
    changes ^= values
    changes *= is_noisy
    values ^= changes


def replace_uniformly(
    values: np.ndarray,
    is_noisy: np.ndarray,
    words: np.ndarray,
    scratch: np.ndarray,
    ignored: np.ndarray | None,
    threshold: int,
    choices: int,
    exclude: bool,
) -> None:
    """Replace the noisy values by uniform draws from 0 .. choices - 1, or by all but their own of 0 .. choices.

    Args:
        values: integers, overwritten.
        is_noisy: booleans of the same shape, overwritten with the replaced positions.
        words, scratch: uint64 of the same shape, one random word for each value and work space; both are used up.
        ignored: booleans of the same shape, True where a value stays as it is; None for nowhere.
        threshold: see `threshold`.
        choices: number of equally likely replacements, in [1, 2^31].
        exclude: never draw the value that is replaced.
    """
    mask(words, threshold, ignored, is_noisy)
    replacement = scale(words, scratch, choices).view(np.int64)
    if exclude:
        replacement += replacement >= values
    put(values, replacement, is_noisy)


def scale_one_word(words: np.ndarray, choices: int, out: np.ndarray) -> np.ndarray:
    """Random integers in [0, choices), for choices <= 2^20, from the lower halves of the words; `out` may be `words`.

    Their probabilities differ by a factor 1 + choices / 2^32.
    """
    np.bitwise_and(words, _LOWER_HALF, out=out)
    out *= np.uint64(choices)
    out >>= _HALF
    return out


def scale(words: np.ndarray, scratch: np.ndarray, choices: int) -> np.ndarray:
    """Random integers in [0, choices) from the words, both work spaces are overwritten; returns one of them.

    Where the bias of `scale_one_word` would show, a second word gives 64 bits, and it is 1 + choices / 2^64.
    """
    if choices <= ONE_WORD_CHOICES:
        return scale_one_word(words, choices, out=words)
    v = np.uint64(choices)
    words += np.uint64(counter.GOLDEN)
    counter.mix_in_place(words, scratch)
    np.bitwise_and(words, _LOWER_HALF, out=scratch)
    scratch *= v
    scratch >>= _HALF
    words >>= _HALF
    words *= v
    words += scratch
    words >>= _HALF
    return words
