"""SMART: predictions that hardly change where the embeddings of the input do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from hf_noise.losses.checks import check_count, check_floats, check_real
from hf_noise.losses.logits import wide

__all__ = ["smart"]

_DIVERGENCES = ("symmetric_kl", "squared")
_MOST_STEPS = 1000
#: Below it a gradient is none: its row stays where its noise put it.
_TINY = 1e-30


def smart(
    predict: Callable[[Tensor], Tensor],
    embeddings: Tensor,
    logits: Tensor,
    noise: Tensor,
    *,
    epsilon: float = 1e-5,
    step_size: float = 1e-3,
    sigma: float = 1e-5,
    steps: int = 1,
    divergence: Literal["symmetric_kl", "squared"] = "symmetric_kl",
) -> Tensor:
    """Smoothness-inducing adversarial regularisation: `max_d l_s(f(x), f(x + d))` over `|d|_inf <= epsilon`, per row.

    d begins at `sigma * noise`. Each step of ascent adds `step_size` times the gradient of l_s, divided by its own
    largest entry in the row, and cuts every entry back to [-epsilon, epsilon]. The d that is found counts as a
    constant; the gradient goes through f at both places. l_s is `KL(p || q) + KL(q || p)` of the two predictions, or
    `(p - q)^2` for regression.

    f is called `steps + 1` times. What is random in it, such as dropout, is drawn anew each time, as in the authors'
    own code; with their epsilon of 1e-5 that is the larger part of l_s. Under bfloat16 autocast entries of d below
    about 0.4% of an embedding are rounded away.

    Args:
        predict: f from embeddings on, float [B, ...] -> logits float [B, C] with a gradient.
        embeddings: of the input, x, float [B, ...], most often [B, L, D].
        logits: f(x), float [B, C]; C = 1 is a regression.
        noise: standard normal, of the shape of `embeddings`; 0 at positions that are to stay as they are, such as
            padding, keeps them there.
        epsilon: finite and > 0, in units of the embeddings.
        step_size: finite and > 0.
        sigma: standard deviation of the start, finite and > 0; at d = 0 there is no gradient to climb.
        steps: of ascent, in [1, 1000].
        divergence: "symmetric_kl" or "squared".

    Returns:
        float [B], >= 0, in float32 unless the logits have more.

    Raises:
        TypeError: `predict` cannot be called, or a tensor is not floating-point, or a number none.
        ValueError: shapes do not agree, or a number is outside its range.

    Source: Jiang et al., "SMART: robust and efficient fine-tuning for pre-trained natural language models through
        principled regularized optimization", ACL 2020, equations 2 and 3 and algorithm 1, whose settings are the
        defaults.

    >>> x, W = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0], [-1.0]])
    >>> smart(lambda x: x @ W, x, x @ W, torch.tensor([[0.5, -0.2]]), epsilon=0.1, step_size=1.0, divergence="squared")
    tensor([0.0400])
    """
    if not callable(predict):
        raise TypeError(f"predict must be a function of embeddings, got {type(predict).__name__}")
    for name, values in (("embeddings", embeddings), ("logits", logits), ("noise", noise)):
        check_floats(name, values)
    if logits.ndim != 2 or embeddings.ndim < 2 or len(embeddings) != len(logits):
        raise ValueError(f"embeddings [B, ...] need logits [B, C], got {list(embeddings.shape)} and "
                         f"{list(logits.shape)}")  # fmt: skip
    if noise.shape != embeddings.shape:
        raise ValueError(f"noise must have the shape of embeddings, {list(embeddings.shape)}, got {list(noise.shape)}")
    epsilon = check_real("epsilon", epsilon, "(0, inf)", "it bounds each entry of the perturbation")
    step_size = check_real("step_size", step_size, "(0, inf)")
    sigma = check_real("sigma", sigma, "(0, inf)", "at no perturbation there is no gradient to climb")
    most = torch.finfo(noise.dtype).max
    for name, value in (("epsilon", epsilon), ("step_size", step_size), ("sigma", sigma)):
        if value > most:
            raise ValueError(f"{name} must be at most {most:.4g}, the largest number of {noise.dtype}, got {value!r}")
    steps = check_count("steps", steps, 1, _MOST_STEPS)
    if not isinstance(divergence, str) or divergence not in _DIVERGENCES:
        raise ValueError(f"divergence must be one of {', '.join(_DIVERGENCES)}, got {divergence!r:.80}")
    if divergence == "symmetric_kl" and logits.shape[1] < 2:
        raise ValueError("logits [B, 1] are of a regression: divergence must be \"squared\"")
    apart = _symmetric_kl if divergence == "symmetric_kl" else _squared
    fixed, towards = embeddings.detach(), logits.detach()
    moved = sigma * noise.detach()
    reach = (noise != 0).to(noise.dtype)  # 1 where the ascent may go
    for _ in range(steps):
        with torch.enable_grad():
            moved = moved.requires_grad_()
            found = apart(towards, _predicted(predict, fixed + moved, logits)).sum()
            (slope,) = torch.autograd.grad(found, moved)
        largest = slope.abs().flatten(1).amax(1).clamp_min(_TINY).view(-1, *[1] * (slope.ndim - 1))
        moved = ((moved.detach() + step_size * slope / largest) * reach).clamp(-epsilon, epsilon)
    return apart(logits, _predicted(predict, embeddings + moved, logits))


def _predicted(predict: Callable[[Tensor], Tensor], embeddings: Tensor, logits: Tensor) -> Tensor:
    found = predict(embeddings)
    check_floats("predict(embeddings)", found)
    if found.shape != logits.shape:
        raise ValueError(f"predict must give logits {list(logits.shape)}, gave {list(found.shape)}")
    return found


def _symmetric_kl(logits: Tensor, others: Tensor) -> Tensor:
    log_p, log_q = wide(logits).log_softmax(-1), wide(others).log_softmax(-1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


def _squared(logits: Tensor, others: Tensor) -> Tensor:
    return (wide(logits) - wide(others)).square().sum(-1)
