"""Loss truncation: the highest losses are left out, by a quantile of the losses of the recent past."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from hf_noise.losses.checks import check_count, check_floats, check_real

__all__ = ["Dropped", "RecentLosses", "row_means", "truncated_nll"]

#: Losses are told apart to 1/64 nat, up to 64 nats: a table of 32 KiB.
PER_NAT, _BINS = 64, 4096
ONE = 1 << 16  # units of a loss in the table, so that few of them fade as many do


def truncated_nll(nll: Tensor, threshold: Tensor, by: Tensor | None = None) -> Tensor:
    """The NLL of targets whose loss is at most the threshold, 0 for all others, which so teach nothing.

    Args:
        nll: float [...] in nats.
        threshold: a number, float tensor [] in nats; +inf leaves nothing out.
        by: what is held against it, that spreads over `nll`, such as the mean of each row [B, 1]; by default `nll`.

    Returns:
        Tensor of the shape and dtype of `nll`. A NaN stays one.

    Raises:
        TypeError: a tensor is not floating-point.
        ValueError: the threshold is no single number, or `by` does not spread over `nll`.

    Source: Kang and Hashimoto, "Improved natural language generation via loss truncation", ACL 2020, section 4.

    >>> truncated_nll(torch.tensor([0.5, 3.0]), torch.tensor(2.0))
    tensor([0.5000, 0.0000])
    """
    by = nll if by is None else by
    for name, values in (("nll", nll), ("threshold", threshold), ("by", by)):
        check_floats(name, values)
    if threshold.ndim:
        raise ValueError(f"threshold must be a single number [], got {list(threshold.shape)}")
    spreads = by.ndim == nll.ndim and all(small in (1, large) for small, large in zip(by.shape, nll.shape))
    if not spreads:
        raise ValueError(f"by must spread over nll {list(nll.shape)}, as [B, 1] does over [B, L], got {list(by.shape)}")
    return nll.masked_fill(by.detach() > threshold, 0)


def row_means(nll: Tensor, is_target: Tensor) -> Tensor:
    """Mean NLL of each row's targets, [B, 1] without gradient; 0 for a row that has none."""
    nll = nll.detach()
    return nll.where(is_target, 0).sum(-1, keepdim=True) / is_target.sum(-1, keepdim=True).clamp(min=1)


class Dropped(nn.Module):
    """How many targets were left out in all training steps, of how many; saved with a checkpoint.

    Counts are kept on the device and join those of the other processes once in a step, so that nothing waits.
    """

    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(2, dtype=torch.int64))
        self._recent: Tensor | None = None

    def begin(self) -> None:
        """Forget what was counted in a step that was not finished."""
        self._recent = None

    @torch.no_grad()
    def book(self, is_dropped: Tensor, is_target: Tensor) -> None:
        """Count a batch; masks of one shape."""
        self._add(torch.stack([(is_dropped & is_target).sum(), is_target.sum()]))

    def _add(self, counts: Tensor) -> None:
        self._recent = counts if self._recent is None else self._recent + counts

    @torch.no_grad()
    def settle(self, reduce: Any) -> None:
        """Take in what was counted in a step; `reduce` sums a tensor over all processes (a collective call)."""
        if self._recent is not None:
            recent, self._recent = reduce(self._recent), None
            self._take(recent)

    def _take(self, recent: Tensor) -> None:
        self.counts += recent

    @property
    def share(self) -> float:
        """Share of targets that was left out; reading it makes the device wait. 0 before the first step."""
        dropped, seen = self.counts.tolist()
        return dropped / seen if seen else 0.0


class RecentLosses(Dropped):
    """The distribution of recent losses, as a table that forgets, and a quantile of it.

    It takes in a step's losses when the step is over, of all processes at once. So within a step a quantile is one
    number, whatever the size of micro-batches, their number and that of processes. All sums are of integers: they are
    the same in any order, and stay when a model is turned into half precision.

    Args:
        memory: steps in [1, 2^15]; a step's losses weigh 1 - 1 / memory times those of the next.

    Raises:
        TypeError: memory is no integer.
        ValueError: it is out of its range.
    """

    histogram: Tensor

    def __init__(self, memory: int):
        super().__init__()
        self.memory = check_count("memory", memory, 1, 1 << 15)
        self.register_buffer("histogram", torch.zeros(_BINS, dtype=torch.int64))  # in units of 1 / ONE losses

    @torch.no_grad()
    def observe(self, losses: Tensor, is_seen: Tensor, is_dropped: Tensor, is_target: Tensor) -> None:
        """Count losses in nats where `is_seen` says so, and the targets that were left out."""
        place = torch.nan_to_num(losses.float() * PER_NAT, nan=0.0).clamp(0, _BINS - 1).long().flatten()
        table = torch.zeros(_BINS + 2, dtype=torch.int64, device=losses.device)
        table.scatter_add_(0, place, is_seen.flatten().long())
        table[-2:] = torch.stack([(is_dropped & is_target).sum(), is_target.sum()])
        self._add(table)

    def _take(self, recent: Tensor) -> None:
        super()._take(recent[-2:])
        self.histogram += recent[:-2] * ONE - torch.div(self.histogram, self.memory, rounding_mode="floor")

    @torch.no_grad()
    def quantile(self, share: float) -> Tensor:
        """What `share` of the recent losses are at most, float32 [] in nats, to 1/64; +inf before anything was seen.

        Raises ValueError unless the share is in (0, 1].
        """
        share = check_real("share", share, "(0, 1]")
        below = self.histogram.cumsum(0)
        total = below[-1]
        rank = (total * share).long().minimum(total)
        place = torch.searchsorted(below, rank)
        # `take`, as an index that is a tensor of one number makes the host wait for it.
        part = 1 - (below.take(place) - rank) / self.histogram.take(place).clamp(min=1)
        return torch.where(total > 0, (place + part) / PER_NAT, math.inf)
