"""`LabelFlips` on NumPy arrays, block by block; `labels_torch` draws the same on tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hf_noise.noise import alias, counter, draws
from hf_noise.noise.arrays import check_dtype, check_one_each, ignored_labels, integers

if TYPE_CHECKING:
    from hf_noise.noise.labels import LabelFlips

__all__ = ["flip"]


def flip(noise: LabelFlips, labels: Any, sample: Any, epoch: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`noise(labels, sample, epoch)` for arrays or nested sequences."""
    labels, sample = integers("labels", labels), integers("sample", sample)
    check_one_each(labels, sample)
    check_dtype(labels.dtype, np.iinfo(labels.dtype).max, noise.num_classes, "labels")
    ignored = ignored_labels(labels, noise.num_classes)
    flat, sample = labels.reshape(-1), sample.reshape(-1)
    noisy, is_noisy = np.empty_like(flat), np.empty(flat.shape, dtype=bool)
    work = np.empty((2, min(flat.size, draws.BLOCK)), dtype=np.uint64)
    key = counter.stream_key(noise.seed, noise.stream, noise.epoch_drawn(epoch))
    for start in range(0, flat.size, draws.BLOCK):
        block = slice(start, start + draws.BLOCK)
        words, scratch = work[:, : sample[block].size]
        counter.words_at(key, sample[block], out=words, scratch=scratch)
        noisy[block] = flat[block]
        stay = None if ignored is None else ignored.reshape(-1)[block]
        _flip_block(noise, noisy[block], is_noisy[block], words, scratch, stay)
        if noise.kind != "symmetric":  # whose flips are all wrong
            np.not_equal(noisy[block], flat[block], out=is_noisy[block])
    return noisy.reshape(labels.shape), is_noisy.reshape(labels.shape)


def _flip_block(noise, labels, is_noisy, words, scratch, ignored) -> None:
    """Corrupt labels [N] in place; all other arrays but `ignored` are used up."""
    if noise.kind in ("symmetric", "uniform_resample"):
        draws.replace_uniformly(labels, is_noisy, words, scratch, ignored, *noise.draw_arguments)
        return
    # A label of -100 names no row; what is read for it instead is thrown away.
    known = labels if ignored is None else np.where(ignored, 0, labels)
    if noise.kind != "transition":
        draws.mask(words, noise.threshold, ignored, out=is_noisy)
        draws.put(labels, noise.partners[known], is_noisy)
        return
    column = draws.scale_one_word(words, noise.num_classes, out=scratch).view(np.int64)
    drawn = alias.draw(noise.cells, known, column, words)
    if ignored is None:
        labels[...] = drawn
    else:
        draws.put(labels, drawn, ~ignored)
