"""Co-teaching: which rows of a batch two networks keep for each other."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hf_noise.losses.checks import check_floats, check_real

__all__ = ["forgotten_share", "small_losses"]


def small_losses(losses: Tensor, forget_rate: float) -> Tensor:
    """Where a batch's losses are among the smallest: all but a share of them, and at least one.

    Args:
        losses: float [B].
        forget_rate: share in [0, 1) of the rows with the largest losses, which are left out; of B rows
            max(1, floor((1 - forget_rate) B)) are kept.

    Returns:
        bool [B]. Of equal losses the first ones are kept; a NaN is the largest.

    Raises:
        TypeError: losses are not floating-point.
        ValueError: they are not [B], or the rate is outside [0, 1).

    Source: Han et al., "Co-teaching: robust training of deep neural networks with extremely noisy labels", NeurIPS
        2018, algorithm 1.

    >>> small_losses(torch.tensor([0.1, 3.0, 0.2, 0.4]), 0.5)
    tensor([ True, False,  True, False])
    """
    check_floats("losses", losses)
    forget_rate = check_real("forget_rate", forget_rate, "[0, 1)", "it is the share of rows that is left out")
    if losses.ndim != 1:
        raise ValueError(f"losses must be [B], one of each row, got {list(losses.shape)}")
    kept = max(1, math.floor((1 - forget_rate) * len(losses) + 1e-9))
    rank = torch.argsort(torch.argsort(losses.detach(), stable=True))
    return rank < kept


def forgotten_share(forget_rate: float, warmup: float, progress: float) -> float:
    """The share of rows that is left out when a share `progress` of the steps is done: it rises linearly.

    R(T) = 1 - min(T / T_k tau, tau) rows are kept, where tau is `forget_rate` and T_k the share `warmup` of the steps.
    """
    return forget_rate if progress >= warmup else forget_rate * progress / warmup
