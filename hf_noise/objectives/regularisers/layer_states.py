"""What the layers of a network were given and gave in its last pass, and their passes again on other states."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hf_noise.objectives.regularisers.network_parts import bare, layers_of

__all__ = ["LayerStates", "Seen"]


@dataclass
class Seen:
    """A pass from one layer up.

    Attributes:
        hidden: that the first of them was given, float [B, L, D].
        states: that they gave, each [B, L, D].
        layers: the same layers as functions of a hidden state alone, with all else that they were given.
    """

    hidden: Tensor | None = None
    states: list[Tensor] = field(default_factory=list)
    layers: list[Callable[[Tensor], Tensor]] = field(default_factory=list)
    random: tuple[Tensor, Tensor | None] | None = None
    autocast: tuple[str, torch.dtype, bool] | None = None

    @contextlib.contextmanager
    def as_before(self) -> Iterator[None]:
        """In the precision of the pass that was seen, and with its random numbers: dropout drops the same again."""
        devices = [self.hidden.device] if self.hidden.device.type == "cuda" else []
        of_cpu, of_device = self.random
        with torch.random.fork_rng(devices), torch.autocast(self.autocast[0], self.autocast[1], self.autocast[2]):
            torch.set_rng_state(of_cpu)
            if of_device is not None:
                torch.cuda.set_rng_state(of_device, self.hidden.device)
            yield


class LayerStates:
    """Sees what the layers of a model from one up are given and give, while it is trained.

    Args:
        model: of transformers, perhaps inside an adapter of peft.
        first: the layer, counted from 0.

    Raises:
        ValueError: the model has no such layer; or gradient checkpointing is on, which makes states anew.
    """

    def __init__(self, model: nn.Module, first: int):
        self.model, every = bare(model), layers_of(model)
        if first >= len(every):
            raise ValueError(f"layer must lie in [0, {len(every) - 1}], got {first}: {type(self.model).__name__} has "
                             f"{len(every)} layers")  # fmt: skip
        self.layers = list(every[first:])
        self._seen, self._handles, self._is_blind = Seen(), [], False

    def watch(self) -> None:
        """From now on, until `leave`."""
        self.leave()
        if _checkpoints(self.model):
            raise ValueError("LNSR reads the hidden states of the layers, which gradient checkpointing throws away; "
                             "leave gradient_checkpointing off")  # fmt: skip
        for layer in self.layers:
            self._handles.append(layer.register_forward_pre_hook(self._before, with_kwargs=True))
            self._handles.append(layer.register_forward_hook(self._after))

    def leave(self) -> None:
        """Forget what was seen, and see no more."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._seen = [], Seen()

    @contextlib.contextmanager
    def unseen(self) -> Iterator[None]:
        """Passes inside are not looked at."""
        self._is_blind = True
        try:
            yield
        finally:
            self._is_blind = False

    def taken(self, rows: int) -> Seen:
        """The last pass of so many rows, once.

        Raises RuntimeError: there was none, or not of all layers in their order.
        """
        seen, self._seen = self._seen, Seen()
        if len(seen.states) != len(self.layers) or seen.hidden is None or len(seen.hidden) != rows:
            raise RuntimeError(f"LNSR saw {len(seen.states)} of {len(self.layers)} layers in the last pass; call "
                               "before_step() before it, as trainers do")  # fmt: skip
        return seen

    def _before(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._is_blind or not torch.is_grad_enabled() or not layer.training:
            return
        hidden = args[0] if args else kwargs.get("hidden_states")
        if not isinstance(hidden, Tensor) or hidden.ndim != 3:
            raise ValueError(f"LNSR needs layers that are given hidden states [B, L, D], {type(layer).__name__} is not")
        if layer is self.layers[0]:
            self._seen = _begun(hidden)

        def again(state: Tensor) -> Tensor:
            with self.unseen():
                if args:
                    return _state(layer(state, *args[1:], **kwargs))
                return _state(layer(**kwargs | {"hidden_states": state}))

        self._seen.layers.append(again)

    def _after(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not self._is_blind and torch.is_grad_enabled() and layer.training:
            self._seen.states.append(_state(output))


def _begun(hidden: Tensor) -> Seen:
    kind = hidden.device.type
    of_device = torch.cuda.get_rng_state(hidden.device) if kind == "cuda" else None
    is_on = torch.is_autocast_enabled(kind)
    return Seen(hidden, random=(torch.get_rng_state(), of_device),
                autocast=(kind, torch.get_autocast_dtype(kind), is_on))  # fmt: skip


def _state(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _checkpoints(model: nn.Module) -> bool:
    """Whether a model throws states away, as its newer or its older name for it says."""
    newer = getattr(model, "is_activation_checkpointing", None)
    return bool(getattr(model, "is_gradient_checkpointing", False) if newer is None else newer)
