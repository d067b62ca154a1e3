"""Which parameters of a model gradients are taken of, and the model while they are."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from hf_noise.analysis.gram_head import embeddings
from hf_noise.evaluation_mode import evaluation_mode

__all__ = ["chosen_parameters", "measured"]


def chosen_parameters(model: nn.Module, parameters: Any) -> dict[str, nn.Parameter]:
    """Parameters by the name that `named_parameters` gives them, a tied one once.

    Args:
        parameters: a name or several; None for the weight of the output layer, or else all that are trained.

    Raises TypeError or ValueError: no names, or none of a parameter; weights in less than float32.
    """
    every = dict(model.named_parameters(remove_duplicate=False))
    first = {id(value): name for name, value in reversed(list(model.named_parameters()))}
    if not every:
        raise ValueError(f"{type(model).__name__} has no parameter, so no gradient")
    if other := next((name for name, one in every.items() if one.dtype not in (torch.float32, torch.float64)), None):
        raise ValueError(f"weights must be float32 or float64, {other} is {every[other].dtype}: products of its "
                         "gradients would be rounding; model.float() first")  # fmt: skip
    if parameters is None:
        head = embeddings(model, "output")
        wanted = [value for value in every.values() if value is getattr(head, "weight", None)][:1]
        wanted = wanted or [value for value in every.values() if value.requires_grad] or list(every.values())
        return {first[id(value)]: value for value in wanted}
    names = [parameters] if isinstance(parameters, str) else parameters
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"parameters must be names, as in model.named_parameters(), got {parameters!r:.80}")
    if not names:
        raise ValueError("parameters is empty; name one at least, or leave it out")
    for name in names:
        if name not in every:
            near = difflib.get_close_matches(name, every, n=3, cutoff=0.3) or list(every)[:3]
            raise ValueError(f"parameters: there is none called {name!r:.80} in {type(model).__name__}; near it "
                             f"{'are' if len(near) > 1 else 'is'} {', '.join(near)}")  # fmt: skip
    return {first[id(every[name])]: every[name] for name in names}


@contextmanager
def measured(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, its weights out of every graph and without a cache; as before at the end."""
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    config = getattr(model, "config", None)
    cache = getattr(config, "use_cache", None)
    try:
        for parameter, _ in trained:
            parameter.requires_grad_(False)
        if cache is not None:
            config.use_cache = False
        with evaluation_mode(model), torch.enable_grad():
            yield
    finally:
        for parameter, was in trained:
            parameter.requires_grad_(was)
        if cache is not None:
            config.use_cache = cache
