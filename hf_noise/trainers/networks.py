"""What a causal language model of transformers says of itself beyond its logits."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hf_noise.positions import learned_positions
from hf_noise.trainers.collate import text_config

__all__ = ["has_router_loss", "longest_input", "router_loss"]


def has_router_loss(model: Any) -> bool:
    """Whether a mixture-of-experts model is told to balance its experts by a loss of its own."""
    return bool(getattr(text_config(model), "output_router_logits", False))


def router_loss(output: Any, model: Any) -> Tensor:
    """The load-balancing loss of a forward pass, times the coefficient of the configuration, as the model adds it.

    Raises:
        ValueError: the model gives none, or names no coefficient.
    """
    config, loss = text_config(model), getattr(output, "aux_loss", None)
    coefficient = getattr(config, "router_aux_loss_coef", None)
    if loss is None or coefficient is None:
        raise ValueError(
            f"{type(model).__name__} has output_router_logits=True and gives no aux_loss with a router_aux_loss_coef, "
            "so that its router's loss would be left out; set config.output_router_logits = False to train without it"
        )
    return coefficient * loss


def longest_input(model: nn.Module) -> int | None:
    """Number of positions that a model has learned embeddings of; None if it knows positions in another way."""
    return learned_positions(model, getattr(text_config(model), "max_position_embeddings", None))
