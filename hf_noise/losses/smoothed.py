"""Label smoothing, at the cost of one more look at the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_noise.losses.checks import check_real
from hf_noise.losses.logits import aligned_targets, in_parts, log_normaliser, wide
from hf_noise.losses.nll import IGNORE_INDEX

__all__ = ["smoothed_nll"]


def smoothed_nll(nll: Tensor, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """(1 - s) NLL + s times the mean of -log p over the vocabulary: cross-entropy with a share s for all tokens.

    The value is made of the NLL that is there already, and of the mean of the logits. The gradient goes to the logits
    alone, whole, and none through `nll`: so the two passes through all logits that the plain loss takes backwards
    become one, and nothing of their size is held. It cannot be differentiated twice.

    Args:
        nll: float [...], -log p(target) of these logits in nats.
        logits: float [..., V].
        targets: int64 [...], in [0, V), -100 for none.
        smoothing: s in [0, 1).

    Returns:
        [...] of at least float32, 0 where there is no target; equal to `nll` at s = 0.

    Raises:
        TypeError: nll or logits are not floating-point, targets no integers, or s no number.
        ValueError: shapes do not agree, s is out of its range, or, on a CPU, a target is outside [0, V).

    Source: Szegedy et al., "Rethinking the inception architecture for computer vision", CVPR 2016, section 7; against
        noise: Lukasik et al., "Does label smoothing mitigate label noise?", ICML 2020.
    """
    targets = aligned_targets(nll, logits, targets)
    smoothing = check_real("smoothing", smoothing, "[0, 1)", "it is the share of a target that all tokens get")
    if smoothing == 0:
        return wide(nll).where(targets != IGNORE_INDEX, 0)
    return _Smoothed.apply(nll.detach(), logits, targets, smoothing)


class _Smoothed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, nll: Tensor, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        is_target = targets != IGNORE_INDEX
        total = log_normaliser(nll, logits, targets)
        ctx.save_for_backward(logits, targets, total)
        ctx.smoothing = smoothing
        # -log p is the normaliser less a logit, and its mean over the vocabulary that less the mean of the logits.
        uniform = total - logits.mean(-1, dtype=total.dtype)
        return ((1 - smoothing) * nll + smoothing * uniform).where(is_target, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[None, Tensor, None, None]:
        logits, targets, total = ctx.saved_tensors
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        vocab_size, is_target = logits.shape[-1], targets != IGNORE_INDEX
        above = above.where(is_target, 0).flatten().unsqueeze(-1)
        own = targets.where(is_target, 0).flatten().unsqueeze(-1)
        parts = in_parts(
            logits.detach().reshape(-1, vocab_size), gradient.view(-1, vocab_size), total.flatten().unsqueeze(-1),
            above, own,
        )  # fmt: skip
        for z, into, lse, weight, y in parts:
            p = (z - lse).exp_().sub_(ctx.smoothing / vocab_size).mul_(weight)
            into.copy_(p.scatter_add_(-1, y, (ctx.smoothing - 1) * weight))
        return None, gradient, None, None
