"""Error norm truncation: targets are left out where the model is certain of another, not where it is undecided."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hf_noise.losses.checks import check_real
from hf_noise.losses.logits import aligned_targets, in_parts, log_normaliser, wide

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
    targets = aligned_targets(nll, logits, targets)
    total = log_normaliser(nll, logits, targets)
    rows = logits.detach().reshape(-1, logits.shape[-1])
    squares = []
    for z, lse in in_parts(rows, total.flatten().unsqueeze(-1)):
        p = (z - lse).exp_()
        squares.append(torch.linalg.vecdot(p, p))
    nll = wide(nll)
    others = torch.cat(squares).view(targets.shape) - torch.exp(-2 * nll)
    return (torch.expm1(-nll).square() + others.clamp(min=0)).sqrt().where(total != math.inf, 0)


def error_norm_nll(nll: Tensor, logits: Tensor, targets: Tensor, threshold: float) -> Tensor:
    """The NLL of targets whose `error_norms` is at most the threshold, 0 for all others, which so teach nothing.

    Args:
        nll, logits, targets: as for `error_norms`; the gradient goes through `nll`.
        threshold: in (0, sqrt(2)]; at the largest nothing is left out.

    Returns:
        Tensor of the shape and dtype of `nll`. A NaN stays one.

    Raises:
        TypeError, ValueError: as `error_norms`, or the threshold is no number or out of its range.
    """
    threshold = check_threshold(threshold)
    norms = error_norms(nll, logits, targets)
    return nll.masked_fill(norms > threshold, 0)


def check_threshold(threshold: float) -> float:
    """`threshold` as a float, or a TypeError or ValueError."""
    return check_real("threshold", threshold, f"(0, {LARGEST_ERROR_NORM!r}]", "an error's norm is at most sqrt(2)")
