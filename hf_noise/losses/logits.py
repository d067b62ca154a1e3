"""What losses on logits share: targets aligned with them, and a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hf_noise.losses.checks import check_floats, check_integers, looked_at
from hf_noise.losses.nll import IGNORE_INDEX

__all__ = ["aligned_targets", "in_parts", "log_normaliser", "wide"]

# What is made of so many logits stays in a processor's cache; a GPU has to be kept busy by more.
_AT_ONCE_ON_CPU, _AT_ONCE_ON_GPU = 1 << 19, 1 << 25


def aligned_targets(nll: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Targets as int64, once they, the logits and the NLL are known to fit together.

    Raises:
        TypeError: nll or logits are not floating-point, or targets no integers.
        ValueError: shapes do not agree, or, on a CPU, a target is neither in [0, V) nor -100.
    """
    check_floats("nll", nll)
    check_floats("logits", logits)
    targets = check_integers("targets", targets)
    if logits.ndim < 1 or not logits.shape[-1] or not logits.shape[:-1] == targets.shape == nll.shape:
        raise ValueError(f"logits [..., V] need nll and targets [...], got logits {list(logits.shape)}, nll "
                         f"{list(nll.shape)} and targets {list(targets.shape)}")  # fmt: skip
    array, classes = looked_at(targets), logits.shape[-1]
    if array is not None and (wrong := (array != IGNORE_INDEX) & ((array < 0) | (array >= classes))).any():
        raise ValueError(f"targets must lie in [0, {classes}), entries of logits, or be {IGNORE_INDEX}, got "
                         f"{array[wrong][0]}")  # fmt: skip
    return targets


def log_normaliser(nll: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """log sum exp of the logits, [...], from the NLL without a look at all of them; +inf where there is no target.

    So exp(logits - it) are the probabilities, and 0 where there is no target.
    """
    is_target = targets != IGNORE_INDEX
    own = logits.detach().gather(-1, targets.where(is_target, 0).unsqueeze(-1)).squeeze(-1)
    return (wide(nll.detach()) + own).where(is_target, math.inf)


def in_parts(logits: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Logits [n, V] and tensors [n] or [n, ...] beside them, a few rows at a time."""
    most = _AT_ONCE_ON_CPU if logits.device.type == "cpu" else _AT_ONCE_ON_GPU
    step = max(1, most // logits.shape[-1])
    return zip(*(values.split(step) for values in (logits, *others)), strict=True)


def wide(values: Tensor) -> Tensor:
    """The values with the precision of float32, unless they have more."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
