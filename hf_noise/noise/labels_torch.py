"""`LabelFlips` on tensors: the same draws as on NumPy arrays, as functions that compile into one loop each."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from hf_noise.noise import counter_torch, draws_torch
from hf_noise.noise.alias import ALIAS_BITS
from hf_noise.noise.arrays import IGNORE_INDEX, check_dtype, check_one_each, ignored_labels

if TYPE_CHECKING:
    from hf_noise.noise.labels import LabelFlips

__all__ = ["draw", "flip", "resample", "swap"]

_ALIAS = (1 << ALIAS_BITS) - 1


def resample(
    labels: torch.Tensor, sample: torch.Tensor, key: torch.Tensor, threshold: int, choices: int, exclude: bool
) -> torch.Tensor:
    """Noisy labels int64 [...] of the kinds "symmetric" and "uniform_resample", given `counter_torch.stream_key`."""
    return draws_torch.replace_uniformly(labels, counter_torch.words_at(key, sample), threshold, choices, exclude)[0]


def swap(
    labels: torch.Tensor, sample: torch.Tensor, key: torch.Tensor, threshold: int, partners: torch.Tensor
) -> torch.Tensor:
    """Noisy labels int64 [...] of the kinds "cyclic" and "pairs": a label of class i goes to partners[i]."""
    is_noisy = draws_torch.mask(counter_torch.words_at(key, sample), threshold, labels)
    return draws_torch.put(labels, partners[_known(labels)], is_noisy)


def draw(labels: torch.Tensor, sample: torch.Tensor, key: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Noisy labels int64 [...] of the kind "transition", drawn from `alias.alias_table` int64 [C, C]."""
    words = counter_torch.words_at(key, sample)
    column = draws_torch.scale_one_word(words, table.shape[1])
    cell = table[_known(labels), column]
    drawn = torch.where(counter_torch.upper_half(words) < cell >> ALIAS_BITS, column, cell & _ALIAS)
    return torch.where(labels == IGNORE_INDEX, labels, drawn)


def _known(labels: torch.Tensor) -> torch.Tensor:
    # A label of -100 names no row; what is read for it instead is thrown away.
    return torch.where(labels == IGNORE_INDEX, 0, labels)


@lru_cache(maxsize=3)
def _compiled(function: Any) -> Any:
    return torch.compile(function)


def flip(
    noise: LabelFlips, labels: torch.Tensor, sample: Any, epoch: int = 0, compiled: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """`noise(labels, sample, epoch)` for a tensor; `compiled=True` fuses it into one pass over the labels.

    Compiling takes seconds once and needs a C++ compiler on a CPU, so it is worth it for long runs only. A whole data
    set's labels of one epoch can as well be drawn in one call.
    """
    draws_torch.check_integers("labels", labels)
    sample = draws_torch.sample_ids(sample, labels.device)
    check_one_each(labels, sample)
    check_dtype(labels.dtype, torch.iinfo(labels.dtype).max, noise.num_classes, "labels")
    if labels.device.type == "cpu":
        ignored_labels(labels.numpy(), noise.num_classes)
    function, arguments = _plan(noise, labels.device)
    if compiled:
        function = _compiled(function)
    key = counter_torch.stream_key_on(noise.seed, noise.stream, noise.epoch_drawn(epoch), labels.device)
    clean = labels.long()
    noisy = function(clean, sample, key, *arguments)
    return noisy.to(labels.dtype), noisy != clean


def _plan(noise: LabelFlips, device: torch.device) -> tuple[Any, tuple]:
    """The function that draws this kind of noise, and its last arguments."""
    if noise.kind in ("symmetric", "uniform_resample"):
        return resample, noise.draw_arguments
    if device not in noise.tables:
        table = noise.cells if noise.kind == "transition" else noise.partners
        noise.tables[device] = torch.from_numpy(table).to(device)
    table = noise.tables[device]
    return (draw, (table,)) if noise.kind == "transition" else (swap, (noise.threshold, table))
