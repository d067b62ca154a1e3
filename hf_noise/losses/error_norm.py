"""Error norm truncation: targets are left out where the model is certain of another, not where it is undecided."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_noise.losses.checks import check_real
from hf_noise.losses.logits import aligned_targets, in_parts, log_normaliser, wide
from hf_noise.losses.nll import IGNORE_INDEX

__all__ = ["LARGEST_ERROR_NORM", "error_norm_nll", "error_norms"]

#: Of a model that is certain of another token.
LARGEST_ERROR_NORM = math.sqrt(2)


@torch.no_grad()
def error_norms(nll: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """The norm ||p - onehot(y)||_2 of each prediction's error, without gradient.

    It is near 1 where the model spreads its prediction, however unlikely the target, and grows to sqrt(2) only where
    the model is certain of another token. Its square is (1 - p_y)^2 and the sum of p^2 over the other tokens; the
    probabilities are made of the logits and the NLL that are there, a few rows at a time.

    Args:
        nll: float [...], -log p(target) of these logits in nats.
        logits: float [..., V].
        targets: int64 [...], in [0, V), -100 for none.

    Returns:
        [...] of at least float32, in [0, sqrt(2)]; 0 where there is no target.

    Raises:
        TypeError: nll or logits are not floating-point, or targets no integers.
        ValueError: shapes do not agree, or, on a CPU, a target is outside [0, V).

    Source: Li et al., "Error norm truncation: robust training in the presence of data noise for text generation
        models", ICLR 2024 (arXiv 2310.00840), section 3.
    """
    return _norms(nll, logits, aligned_targets(nll, logits, targets))


def error_norm_nll(nll: Tensor, logits: Tensor, targets: Tensor, threshold: float) -> Tensor:
    """The NLL of targets whose `error_norms` are at most the threshold, 0 for all others, which so teach nothing.

    The gradient goes to the logits alone, whole, and none through `nll`: made of the probabilities that the norms need
    anyway, it costs what they do. It cannot be differentiated twice.

    Args:
        nll, logits, targets: as for `error_norms`.
        threshold: in (0, sqrt(2)]; at the largest nothing is left out.

    Returns:
        Tensor of the shape and dtype of `nll`, 0 where there is no target. A NaN stays one.

    Raises:
        TypeError, ValueError: as `error_norms`, or the threshold is no number or out of its range.
    """
    targets = aligned_targets(nll, logits, targets)
    threshold = check_real("threshold", threshold, f"(0, {LARGEST_ERROR_NORM!r}]", "a norm is at most sqrt(2)")
    return _Kept.apply(nll.detach(), logits, targets, threshold)


def _norms(nll: Tensor, logits: Tensor, targets: Tensor, into: Tensor | None = None) -> Tensor:
    """`error_norms`; the probabilities [..., V] are put into a tensor of the logits' shape, if one is given."""
    total, vocab_size = log_normaliser(nll, logits, targets), logits.shape[-1]
    beside = [] if into is None else [into.view(-1, vocab_size)]
    squares = []
    for z, lse, *kept in in_parts(logits.reshape(-1, vocab_size), total.flatten().unsqueeze(-1), *beside):
        p = (z - lse).exp_()
        squares.append(torch.linalg.vecdot(p, p))
        for place in kept:
            place.copy_(p)
    nll = wide(nll)
    others = torch.cat(squares).view(targets.shape) - torch.exp(-2 * nll)
    return (torch.expm1(-nll).square() + others.clamp(min=0)).sqrt().where(total != math.inf, 0)


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, nll: Tensor, logits: Tensor, targets: Tensor, threshold: float) -> Tensor:
        p = torch.empty_like(logits, memory_format=torch.contiguous_format) if ctx.needs_input_grad[1] else None
        is_dropped = (_norms(nll, logits, targets, p) > threshold) | (targets == IGNORE_INDEX)
        ctx.save_for_backward(p, nll, targets, is_dropped)
        return nll.masked_fill(is_dropped, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[None, Tensor, None, None]:
        p, nll, targets, is_dropped = ctx.saved_tensors
        above = above.masked_fill(is_dropped, 0)
        own = targets.masked_fill(is_dropped, 0).unsqueeze(-1)
        # p - 1 of the target from its NLL: half precision has no numbers between a p near 1 and 1.
        of_target = (torch.expm1(-nll) * above).masked_fill(is_dropped, 0).to(p.dtype).unsqueeze(-1)
        return None, (p * above.to(p.dtype).unsqueeze(-1)).scatter_(-1, own, of_target), None, None
