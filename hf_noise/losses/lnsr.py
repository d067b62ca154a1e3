"""LNSR: what Gaussian noise on one layer does to the layers above it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hf_noise.losses.checks import check_floats, check_real
from hf_noise.losses.logits import wide

__all__ = ["lnsr"]


def lnsr(
    layers: Sequence[Callable[[Tensor], Tensor]],
    hidden: Tensor,
    noise: Tensor,
    *,
    sigma: float = 0.05,
    states: Sequence[Tensor] | None = None,
    weights: Sequence[float] | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Layer-wise noise stability, `sum_l lambda_l |f_l(x + e) - f_l(x)|^2` with Gaussian e, per row.

    x is what the layer b is given, and f_l(x) what comes out of the layer l >= b above. The distance is a mean of
    squares over positions and features, so that neither length nor width scales it. e is `sigma` times the root mean
    square of x in the row times `noise`: 0.05 is the scaled noise of the paper's figure 1, 5% of the norm.

    Args:
        layers: from the layer b up, each float [B, L, D] -> [B, L, D].
        hidden: x, float [B, L, D].
        noise: standard normal [B, L, D].
        sigma: relative size of e, finite and >= 0.
        states: f_l(x) of each layer, [B, L, D], where they are known already, with their gradient; else they are made.
        weights: lambda of each layer, finite and >= 0; by default 1 / (number of layers), so that they add up to 1.
        mask: bool or number [B, L], true for positions that count; by default all do.

    Returns:
        float [B], >= 0, in float32 unless the states have more.

    Raises:
        TypeError: a layer cannot be called, a tensor is not floating-point, or a number none.
        ValueError: there is no layer, or shapes, numbers of layers or ranges do not fit.

    Source: Hua et al., "Noise stability regularization for improving BERT fine-tuning", NAACL 2021, section 4 and
        algorithm 1 (standard LNSR); the means, and equal weights of the layers, are ours.

    >>> double, x = (lambda x: 2 * x), torch.ones(1, 1, 2)
    >>> lnsr([double, double], x, torch.tensor([[[1.0, 0.0]]]), sigma=0.1)  # (0.2^2 / 2 + 0.4^2 / 2) / 2
    tensor([0.0500])
    """
    if not isinstance(layers, list | tuple) or not all(map(callable, layers)):
        raise TypeError(f"layers must be a list of functions of hidden states, got {type(layers).__name__}")
    if not layers:
        raise ValueError("layers is empty: no layer is above the noise")
    check_floats("hidden", hidden)
    check_floats("noise", noise)
    if hidden.ndim != 3 or noise.shape != hidden.shape:
        raise ValueError(f"hidden [B, L, D] needs noise of its shape, got {list(hidden.shape)} and {list(noise.shape)}")
    sigma = check_real("sigma", sigma, "[0, inf)", "it is relative to the root mean square of the hidden states")
    shares = _weights(weights, len(layers))
    if states is not None and (not isinstance(states, list | tuple) or len(states) != len(layers)):
        got = len(states) if isinstance(states, list | tuple) else type(states).__name__
        raise ValueError(f"states must be those of {len(layers)} layers, got {got}")
    counted = _counted(mask, hidden)
    size = (wide(hidden.detach()).square().mean(-1) * counted).sum(-1).sqrt()  # [B]
    clean, moved, total = hidden, hidden + (sigma * size[:, None, None] * noise).to(hidden.dtype), 0.0
    for number, (layer, share) in enumerate(zip(layers, shares)):
        clean = _state(layer, clean, number, hidden) if states is None else _same(states[number], number, hidden)
        moved = _state(layer, moved, number, hidden)
        apart = (wide(moved) - wide(clean)).square().mean(-1)  # [B, L]
        total = total + share * (apart * counted).sum(-1)
    return total


def _counted(mask: Tensor | None, hidden: Tensor) -> Tensor:
    """The share of each position in its row's mean, float32 [B, L]."""
    if mask is None:
        return torch.full(hidden.shape[:2], 1 / hidden.shape[1], device=hidden.device)
    if not isinstance(mask, Tensor) or mask.shape != hidden.shape[:2]:
        shape = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"mask must be a tensor {list(hidden.shape[:2])}, got {shape}")
    counted = (mask != 0).float()
    return counted / counted.sum(-1, keepdim=True).clamp_min(1)


def _weights(weights: Sequence[float] | None, layers: int) -> list[float]:
    if weights is None:
        return [1 / layers] * layers
    if not isinstance(weights, list | tuple) or len(weights) != layers:
        raise ValueError(f"weights must be a list of {layers} numbers, one for each layer, got {weights!r:.80}")
    return [check_real(f"weights[{number}]", weight, "[0, inf)") for number, weight in enumerate(weights)]


def _state(layer: Callable[[Tensor], Tensor], given: Tensor, number: int, hidden: Tensor) -> Tensor:
    return _same(layer(given), number, hidden)


def _same(state: Tensor, number: int, hidden: Tensor) -> Tensor:
    check_floats(f"the state of layers[{number}]", state)
    if state.shape != hidden.shape:
        raise ValueError(f"layers[{number}] must give states {list(hidden.shape)}, gave {list(state.shape)}")
    return state
