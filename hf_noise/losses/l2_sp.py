"""L2-SP: fine-tuned weights stay near where their pre-training ended."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_noise.losses.checks import check_floats, check_real

__all__ = ["l2_sp", "low_rank_square"]


def l2_sp(
    weights: Sequence[Tensor],
    pretrained: Sequence[Tensor],
    head: Sequence[Tensor] = (),
    *,
    alpha: float = 0.01,
    beta: float = 0.01,
) -> Tensor:
    """L2-SP ("starting point"): `alpha/2 |w - w0|^2 + beta/2 |v|^2`.

    w are the weights that were pre-trained and w0 what they were then; v are those of the new head, which have nowhere
    to go back to.

    Args:
        weights: float tensors of any shapes, as they stand now; none for no such part.
        pretrained: tensors of the same shapes, in the same order, as they were; no gradient goes into them.
        head: float tensors of any shapes.
        alpha: strength towards the starting point, finite and >= 0.
        beta: strength towards 0, finite and >= 0.

    Returns:
        float32 scalar (float64 of float64 weights), >= 0; it is one number for a whole batch.

    Raises:
        TypeError: a sequence holds something else than tensors of floating-point numbers, or alpha or beta no number.
        ValueError: shapes or numbers of tensors do not agree, there is no tensor at all, or alpha or beta is negative.

    Source: Li, Grandvalet and Davoine, "Explicit inductive bias for transfer learning with convolutional networks",
        ICML 2018, equation 3.

    >>> l2_sp([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 0.0])], [torch.tensor([3.0])], alpha=1.0, beta=2.0)
    tensor(11.)
    """
    alpha = check_real("alpha", alpha, "[0, inf)", "it pulls weights to where they were pre-trained")
    beta = check_real("beta", beta, "[0, inf)", "it pulls the new head to 0")
    weights, pretrained, head = _tensors("weights", weights), _tensors("pretrained", pretrained), _tensors("head", head)
    shapes, before = [list(w.shape) for w in weights], [list(w.shape) for w in pretrained]
    if len(weights) != len(pretrained):
        raise ValueError(f"weights and pretrained must go together, got {len(weights)} and {len(pretrained)} tensors")
    for number, (now, then) in enumerate(zip(shapes, before)):
        if now != then:
            raise ValueError(f"pretrained[{number}] must have the shape of weights[{number}], {now}, got {then}")
    if not weights and not head:
        raise ValueError("weights and head hold no tensor; give those that are trained")
    moved = _square_sum([now - then.detach() for now, then in zip(weights, pretrained)])
    return alpha / 2 * moved + beta / 2 * _square_sum(head)


def low_rank_square(left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
    """`|scale * left @ right|^2`, the squared norm of a product of low rank, without making it.

    So far an adapter of LoRA has gone from the weights that it is added to: what `l2_sp` penalises of it.

    Args:
        left: float [D, r], LoRA's B.
        right: float [r, K], LoRA's A.
        scale: of the product, finite; LoRA's alpha / r.

    Returns:
        Scalar of their dtype; it costs r^2 (D + K) products instead of r D K.

    Raises:
        TypeError: one is no tensor of floating-point numbers, or scale no number.
        ValueError: their shapes do not fit, or scale is not finite.

    >>> low_rank_square(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 0.0]]), scale=0.5)  # [[1.5, 0], [3, 0]]
    tensor(11.2500)
    """
    check_floats("left", left)
    check_floats("right", right)
    scale = check_real("scale", scale, "(-inf, inf)")
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise ValueError(f"left [D, r] needs right [r, K], got {list(left.shape)} and {list(right.shape)}")
    return scale * scale * ((left.T @ left) * (right @ right.T)).sum()


def _tensors(name: str, values: Sequence[Tensor]) -> list[Tensor]:
    if not isinstance(values, list | tuple):
        raise TypeError(f"{name} must be a list of tensors, got {type(values).__name__}")
    for number, value in enumerate(values):
        check_floats(f"{name}[{number}]", value)
    return list(values)


def _square_sum(values: Sequence[Tensor]) -> Tensor:
    if not values:
        return torch.tensor(0.0)
    widest = torch.float64 if any(value.dtype == torch.float64 for value in values) else torch.float32
    device = values[0].device
    return torch.stack([value.to(widest).square().sum().to(device) for value in values]).sum()
