"""Inner products of gradients that never lie in memory together: piece after piece, summed in float64."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["add_products"]

#: Numbers of a row that are multiplied and added in the gradients' own precision. A float32 product over all of GPT-2's
#: embedding is off by 2e-3; so short ones, added up in float64, by 1e-5.
PIECE = 1 << 14


def add_products(total: Tensor, ours: Tensor, theirs: Tensor | None = None) -> None:
    """Add ours theirs^T to `total`, float64 [m, n], in place; `ours` [m, P], `theirs` [n, P] or the same."""
    theirs = ours if theirs is None else theirs
    whole = ours.shape[1] // PIECE * PIECE
    if whole:
        # [P / PIECE, rows, PIECE]
        one, other = (part[:, :whole].unflatten(1, (-1, PIECE)).transpose(0, 1) for part in (ours, theirs))
        total += torch.bmm(one, other.transpose(1, 2)).sum(0, dtype=torch.float64)
    if whole < ours.shape[1]:
        total += (ours[:, whole:] @ theirs[:, whole:].T).double()
