"""Slow twins of the draws: word after word, in Python's integers, by the definitions of `hf_noise.noise.counter`.

They say which arguments are valid, too: what they cannot read raises `Unconfirmed`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from bisect import bisect_right
from typing import Any

import numpy as np
import torch
from bad_readers import confirm, number, reals, same, whole

from hf_noise.noise import Noise, noise_from_dict

WORD, HALF = (1 << 64) - 1, (1 << 32) - 1
GOLDEN = 0x9E3779B97F4A7C15
SEED = (0, 2**63 - 1)


def mix(z: int) -> int:
    z &= WORD
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> shift)) * factor & WORD
    return z ^ (z >> 31)


def key_of(seed: int, stream: int, epoch: int) -> int:
    key = 0
    for part in (seed, stream, epoch):
        key = mix((key ^ (part & WORD)) + GOLDEN)
    return key


def word_of(key: int, sample: int, position: int) -> int:
    """The word of a position in the row of a sample."""
    return mix(mix(((sample & WORD) ^ key) + GOLDEN) + (position + 1) * GOLDEN)


def word_at(key: int, sample: int) -> int:
    """The one word of a sample."""
    return mix(sample * GOLDEN + key + GOLDEN)


def uniform(word: int, choices: int) -> int:
    """A number in [0, choices) from the lower half of a word, from a second word where there are many."""
    if choices <= 1 << 20:
        return (word & HALF) * choices >> 32
    return mix(word + GOLDEN) * choices >> 64


def replaced(word: int, value: int, e: float, choices: int, exclude: bool) -> tuple[int, bool]:
    if value == -100 or word >> 32 >= round(e * 2**32):
        return value, False
    drawn = uniform(word, choices)
    return drawn + (exclude and drawn >= value), True


# ---- what is valid


def rates_of(ratio: Any, error_rate: Any) -> tuple[float, float]:
    """(r, e) of what was given of them."""
    confirm(ratio is not None or error_rate is not None, "no rate")
    r, e = (None if given is None else number(given) for given in (ratio, error_rate))
    confirm(r is None or 0 <= r < math.inf, "ratio")
    confirm(e is None or 0 <= e < 1, "error_rate")
    if r is not None:
        confirm(r / (1 + r) < 1 and (e is None or abs(r / (1 + r) - e) <= 1e-9), "rates disagree")
        e = r / (1 + r)
    confirm(e == 0 or round(e * 2**32) > 0, "too small to draw")
    return (e / (1 - e) if r is None else r), e


def epoch_of(epoch: Any, redraw: str = "epoch") -> int:
    return whole(epoch, 0, 2**63 - 1) if redraw == "epoch" else 0 * whole(epoch, 0, 2**63 - 1)


def stored(noise: Noise, **expected: Any) -> None:
    """Confirm a noise to hold these values, of Python's own types, and to come back from JSON."""
    confirm(isinstance(noise, Noise), f"got {type(noise)}")
    for name, value in expected.items():
        found = getattr(noise, name)
        if isinstance(value, float) and math.isfinite(value):
            confirm(type(found) is float and abs(found - value) <= 1e-9 * max(1, abs(value)), f"{name} is {found!r}")
        else:
            confirm(type(found) is type(value) and found == value, f"{name} is {found!r}, not {value!r}")
    for entry in dataclasses.fields(noise):
        found = getattr(noise, entry.name)
        confirm(type(found) in (int, float, str, bool, tuple, type(None)), f"{entry.name} is {found!r}")
    again = noise_from_dict(json.loads(json.dumps(noise.to_dict())))
    confirm(again == noise and again.to_dict() == noise.to_dict(), "another one comes back from JSON")


def dtype_of(values: Any) -> Any:
    """The dtype in which the result of an array, tensor or sequence comes."""
    return values.dtype if isinstance(values, torch.Tensor) else np.asarray(values).dtype


def fits(values: Any, size: int) -> None:
    """Confirm all of 0 .. size - 1 to fit into the dtype of these values."""
    dtype = dtype_of(values)
    if isinstance(dtype, torch.dtype):
        confirm(size - 1 <= torch.iinfo(dtype).max, "dtype")
    elif dtype.kind in "iu":
        confirm(size - 1 <= np.iinfo(dtype).max, "dtype")


def same_kind(found: Any, given: Any) -> None:
    """Confirm noisy values to come as the given ones did: tensor or array, and dtype."""
    confirm(isinstance(found, torch.Tensor) == isinstance(given, torch.Tensor), "tensor for array, or the reverse")
    if np.asarray(found).size:
        confirm(found.dtype == dtype_of(given), f"dtype {found.dtype} for {dtype_of(given)}")


def pair(noise: Any, result: Any, given: Any, expected: list[tuple[int, bool]], shape: tuple[int, ...]) -> None:
    """Confirm `(noisy, is_noisy)`."""
    confirm(isinstance(result, tuple) and len(result) == 2, "no pair")
    noisy, mask = result
    same_kind(noisy, given)
    confirm(tuple(noisy.shape) == tuple(mask.shape) == shape, f"shape {tuple(noisy.shape)}, not {shape}")
    confirm(mask.dtype in (torch.bool, np.dtype(bool)), f"mask of {mask.dtype}")
    same(noisy, np.array([value for value, _ in expected], dtype=np.int64).reshape(shape), "noisy")
    marks = [bool(mark) for mark in np.asarray(mask).reshape(-1)]
    confirm(marks == [mark for _, mark in expected], "is_noisy")


# ---- tokens


def check_tokens(values: np.ndarray, size: int) -> None:
    confirm(all(value == -100 or 0 <= value < size for value in values.reshape(-1)), "a token outside")


def tokens(noise: Any, rows: list[list[int]], sample: list[int], epoch: Any) -> list[tuple[int, bool]]:
    """What `UniformTokens` makes of rows, one after the other."""
    key = key_of(noise.seed, 1, epoch_of(epoch, noise.redraw))
    choices = noise.vocab_size - noise.exclude_original
    return [
        replaced(word_of(key, number, position), value, noise.error_rate, choices, noise.exclude_original)
        for row, number in zip(rows, sample, strict=True)
        for position, value in enumerate(row)
    ]


def rows_of(values: np.ndarray, sample: np.ndarray) -> tuple[list[list[int]], list[int]]:
    confirm(values.ndim >= 1 and values.shape[:-1] == sample.shape, "tokens and samples do not fit")
    length = values.shape[-1]
    return values.reshape(-1, length).tolist() if values.size else [[]] * sample.size, sample.reshape(-1).tolist()


# ---- documents


def document(noise: Any, number: int, length: int) -> list[int]:
    """Tokens of one document of noise."""
    table = [round(share * 2**53) for share in np.cumsum(noise.probabilities())]
    key = key_of(noise.seed, noise.stream, 0)
    return [bisect_right(table, word_of(key, number, position) >> 11) for position in range(length)]


def is_replaced(noise: Any, number: int) -> bool:
    return word_of(key_of(noise.seed, noise.stream, -1), number, 0) >> 11 < round(noise.alpha * 2**53)


def order(noise: Any, n_clean: int) -> list[int]:
    """Where the rows of a mixture come from."""
    if noise.placement == "replace":
        return [n_clean + row if is_replaced(noise, row) else row for row in range(n_clean)]
    n_noise = round(noise.alpha / (1 - noise.alpha) * n_clean)
    total = n_clean + n_noise
    if noise.placement == "append":
        return list(range(total))
    key = key_of(noise.seed, noise.stream, -2)
    edges = [i * total // n_noise for i in range(n_noise + 1)] if n_noise else []
    at = {
        low + ((word_of(key, 0, i) >> 32) * (high - low) >> 32) for i, (low, high) in enumerate(zip(edges, edges[1:]))
    }
    clean, noisy = iter(range(n_clean)), iter(range(n_clean, total))
    return [next(noisy) if row in at else next(clean) for row in range(total)]


# ---- labels


def labels(noise: Any, values: list[int], sample: list[int], epoch: Any) -> list[tuple[int, bool]]:
    """What `LabelFlips` makes of labels."""
    key, classes = key_of(noise.seed, 4, epoch_of(epoch, noise.redraw)), noise.num_classes
    partner = (
        {value: (value + 1) % classes for value in values} if noise.kind == "cyclic" else dict(noise.mapping or ())
    )
    found = []
    for value, index in zip(values, sample, strict=True):
        word, drawn = word_at(key, index), value
        if value == -100:
            pass
        elif noise.kind in ("symmetric", "uniform_resample"):
            exclude = noise.kind == "symmetric"
            drawn, _ = replaced(word, value, noise.error_rate, classes - exclude, exclude)
        elif noise.kind != "transition":
            drawn = partner.get(value, value) if word >> 32 < round(noise.error_rate * 2**32) else value
        else:  # the cells themselves have a test of their own
            column = uniform(word, classes)
            cell = int(noise.cells[value, column])
            drawn = column if word >> 32 < cell >> 20 else cell & (2**20 - 1)
        found.append((drawn, drawn != value))
    return found


def matrix_of(values: Any) -> np.ndarray:
    """A transition matrix, float64 [C, C]."""
    matrix = reals(values, 2)
    confirm(matrix.shape[0] == matrix.shape[1] >= 2, "not square")
    confirm(np.isfinite(matrix).all() and (matrix >= 0).all(), "no probabilities")
    confirm((np.abs(matrix.sum(1) - 1) <= 1e-6).all(), "rows do not sum to 1")
    return matrix / matrix.sum(1, keepdims=True)


def prior_of(prior: Any, classes: int) -> np.ndarray:
    if prior is None:
        return np.full(classes, 1 / classes)
    p = reals(prior, 1)
    confirm(p.shape == (classes,) and (p >= 0).all() and abs(p.sum() - 1) <= 1e-6, "no distribution")
    return p
