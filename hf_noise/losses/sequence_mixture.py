"""Whole rows as a mixture of two sources: those of the model that is trained, and those of another writer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hf_noise.losses.checks import check_floats, check_real, check_tensor, looked_at

__all__ = ["log_shares", "mixed_rows", "row_sums", "sequence_mixture_nll", "sequence_posterior"]


def sequence_mixture_nll(nll: Tensor, of_other: Tensor, is_target: Tensor, error_rate: float | Tensor) -> Tensor:
    """Equal parts, one for each target, of the NLL of its row as the model's or another writer's whole sequence.

    With L the sum of `nll` over the targets of a row, that row's parts sum to
    -log((1 - e) exp(-L) + e exp(-of_other)). The gradient of the sum with respect to every `nll` of a row is the
    posterior probability that the row is clean: a row that the other one wrote teaches nothing.

    Args:
        nll: float [B, L], -log p of each target under the model, in nats.
        of_other: float [B], -log q of each row's whole sequence under the other writer, in nats; +inf for what it never
            writes.
        is_target: bool [B, L]; what stands elsewhere does not count.
        error_rate: e, share of the rows that the other one wrote, in [0, 1), a float or a tensor of one number in
            (0, 1) that may require grad.

    Returns:
        Tensor of the shape and dtype of `nll`, 0 where there is no target.

    Raises:
        TypeError: nll, of_other or a tensor of e are not floating-point, or e is no number.
        ValueError: shapes do not agree, or e is out of its range.

    Source: a mixture of two models of a sequence with one responsibility for a row, as in Dempster, Laird and Rubin
        1977.

    >>> p, q = torch.tensor([[0.5, 0.25]]), torch.tensor([0.0625])
    >>> sequence_mixture_nll(-p.log(), -q.log(), torch.ones(1, 2, dtype=torch.bool), 0.25).sum().exp()  # 64 / 7
    tensor(9.1429)
    """
    _check(nll, of_other, is_target)
    return mixed_rows(nll, of_other, is_target, *log_shares("error_rate", error_rate, _SHARE))


def sequence_posterior(nll: Tensor, of_other: Tensor, is_target: Tensor, error_rate: float | Tensor) -> Tensor:
    """Posterior [B] that each row is the model's and not the other writer's; arguments as `sequence_mixture_nll`.

    Of float64 where the device has it. A row without a target is clean with 1 - e, which is all that is known.
    """
    _check(nll, of_other, is_target)
    log_clean, log_other = log_shares("error_rate", error_rate, _SHARE)
    log_odds = (log_clean - row_sums(nll, is_target)) - (log_other - _exact(of_other))
    return torch.sigmoid(log_odds)


_SHARE = "it is the share of rows that the other one wrote"


def _check(nll: Tensor, of_other: Tensor, is_target: Tensor) -> None:
    check_floats("nll", nll)
    check_floats("of_other", of_other)
    check_tensor("is_target", is_target)
    if is_target.dtype != torch.bool:
        raise TypeError(f"is_target must be a mask of booleans, got {is_target.dtype}")
    if nll.ndim != 2 or nll.shape != is_target.shape or of_other.shape != nll.shape[:1]:
        raise ValueError(f"nll and is_target must be [B, L] of one shape, and of_other [B], got {list(nll.shape)}, "
                         f"{list(is_target.shape)} and {list(of_other.shape)}")  # fmt: skip


def mixed_rows(
    nll: Tensor, of_other: Tensor, is_target: Tensor, log_clean: float | Tensor, log_other: float | Tensor
) -> Tensor:
    """`sequence_mixture_nll` for the logarithms of the two shares; it looks at nothing."""
    rows = -torch.logaddexp(log_clean - row_sums(nll, is_target), log_other - _exact(of_other))
    return spread_rows(rows, nll, is_target)


def spread_rows(rows: Tensor, nll: Tensor, is_target: Tensor) -> Tensor:
    """Values [B] of whole rows as equal parts, one for each target, of the shape and dtype of `nll`."""
    parts = rows / is_target.sum(-1).clamp(min=1)
    return parts.to(nll.dtype).unsqueeze(-1).where(is_target, 0)


def row_sums(nll: Tensor, is_target: Tensor) -> Tensor:
    """Sum over the targets of each row, [B]: of hundreds of nats, whose differences count, in float64 if there is."""
    return nll.where(is_target, 0).sum(-1, dtype=exact_dtype(nll))


def log_shares(name: str, share: float | Tensor, meaning: str) -> tuple[float | Tensor, float | Tensor]:
    """log(1 - share) and log(share) of a number in [0, 1), or of a tensor of one number.

    Raises:
        TypeError: it is no number, or a tensor that is not floating-point.
        ValueError: it is out of its range, or a tensor of several numbers.
    """
    if not isinstance(share, Tensor):
        share = check_real(name, share, "[0, 1)", meaning)
        return math.log1p(-share), math.log(share) if share else -math.inf
    check_floats(name, share)
    if share.numel() != 1:
        raise ValueError(f"{name} must be one number, got a tensor {list(share.shape)}")
    array = looked_at(share)
    if array is not None and (array.item() < 0 or array.item() > 1):  # NaN passes, as it does through the loss
        raise ValueError(f"{name} must lie in [0, 1], got {array.item()}; {meaning}")
    share = _exact(share.reshape(()))
    return torch.log1p(-share), torch.log(share)


def _exact(values: Tensor) -> Tensor:
    return values.to(exact_dtype(values))


def exact_dtype(values: Tensor) -> torch.dtype:
    return torch.float32 if values.device.type == "mps" else torch.float64
