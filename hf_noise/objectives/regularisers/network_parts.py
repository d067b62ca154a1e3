"""What regularisers ask of a network: itself without wrappers, its input embeddings, its stack of layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hf_noise.objectives.base import Forward

__all__ = [
    "Embedded", "bare", "check_embeddings", "check_not_compiled", "check_not_reentrant", "layers_of", "unwrapped",
]  # fmt: skip

_SHARDING = ("FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")


def unwrapped(model: Any, who: str) -> nn.Module:
    """A model out of DDP and `torch.compile`, whose further passes need no wrapper: their gradients meet those of the
    first pass in the parameters, before DDP reduces them.

    Raises ValueError: its weights are sharded, and who needs it whole.
    """
    while True:
        if sharded := [kind.__name__ for kind in type(model).__mro__ if kind.__name__ in _SHARDING]:
            raise ValueError(f"{who} reads the whole network and is for DDP or one device, not for {sharded[0]}")
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def bare(model: nn.Module) -> nn.Module:
    """The model of transformers in an adapter of peft; itself if there is none around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def check_not_compiled(model: Any) -> None:
    """Raise ValueError for a compiled model, of which LNSR does not see the layers."""
    parts = (model, getattr(model, "module", None))
    if any(hasattr(part, "_orig_mod") for part in parts):
        raise ValueError("LNSR looks at each layer as it runs, which a compiled model does not show; leave "
                         "torch_compile off")  # fmt: skip


def check_not_reentrant(model: nn.Module) -> None:
    """Raise ValueError for gradient checkpointing that gives `torch.autograd.grad` nothing, which SMART calls."""
    for part in bare(unwrapped(model, "SMART")).modules():
        options = getattr(getattr(part, "_gradient_checkpointing_func", None), "keywords", {})
        if getattr(part, "gradient_checkpointing", False) and options.get("use_reentrant", True):
            raise ValueError("SMART takes gradients of its own, which reentrant gradient checkpointing does not give; "
                             'train with gradient_checkpointing_kwargs={"use_reentrant": False}')  # fmt: skip


def check_embeddings(model: nn.Module) -> None:
    """Raise ValueError unless SMART can reach the embeddings of a model's input."""
    model = bare(unwrapped(model, "SMART"))
    if _has_two_stacks(model):
        raise ValueError(f"SMART perturbs the embeddings of one input, and {type(model).__name__} embeds two, those of "
                         "its decoder too; leave smart out, or use an encoder or a decoder alone")  # fmt: skip
    _embeddings_of(model)


def _has_two_stacks(model: nn.Module) -> bool:
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def _embeddings_of(model: nn.Module) -> nn.Module:
    name = type(model).__name__
    try:
        found = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # as models of transformers say that they have none
        found = None
    if not isinstance(found, nn.Embedding | nn.Module) or getattr(model, "main_input_name", "") != "input_ids":
        raise ValueError(f"SMART perturbs the embeddings of tokens, and {name} has none; use it with a model of text, "
                         "or leave smart out")  # fmt: skip
    return found


class Embedded:
    """A network as a function of the embeddings of its tokens, for the batch of a forward pass.

    The output of the embedding is replaced while the network is called as before, so that all else that it does with
    `input_ids` (positions after padding, which token is the last) stays as it was.
    """

    def __init__(self, forward: Forward):
        self.model = unwrapped(forward.model, "SMART")
        self.module = _embeddings_of(bare(self.model))
        self.inputs = {name: value for name, value in forward.inputs.items() if name != "labels"}
        if not isinstance(self.inputs.get("input_ids"), Tensor):
            raise ValueError("SMART perturbs the embeddings of `input_ids`, and the model was given "
                             f"{', '.join(self.inputs) or 'nothing'}")  # fmt: skip

    def embeddings(self) -> Tensor:
        """float [B, L, D], with the gradient of the embedding's weights."""
        return self.module(self.inputs["input_ids"])

    def mask(self, embeddings: Tensor) -> Tensor:
        """1 for tokens, 0 for padding, [B, L, 1], or 1."""
        mask = self.inputs.get("attention_mask")
        fits = mask is not None and mask.shape == embeddings.shape[:2]
        return (mask != 0).to(embeddings.dtype)[..., None] if fits else torch.ones((), device=embeddings.device)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Logits [B, C] of embeddings [B, L, D]."""
        calls = []

        def replaced(module: nn.Module, given: Any, output: Tensor) -> Tensor:
            calls.append(output.shape)
            return embeddings.to(output.dtype)

        handle = self.module.register_forward_hook(replaced)
        try:
            logits = self.model(**self.inputs).logits
        finally:
            handle.remove()
        if set(calls) != {embeddings.shape}:
            told = "does not call them" if not calls else f"makes {list(calls[-1])} of them"
            raise ValueError(f"SMART replaces what the input embeddings of {type(bare(self.model)).__name__} make of "
                             f"input_ids, {list(embeddings.shape)}, and its forward {told}; leave it out")  # fmt: skip
        return logits


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The stack of layers of a model of transformers, such as `encoder.layer`.

    Raises ValueError: there is none, or several, so that it is not clear which layers are above another.
    """
    model = bare(unwrapped(model, "LNSR"))
    if _has_two_stacks(model):
        raise ValueError(f"LNSR follows noise up one stack of layers, and {type(model).__name__} has an encoder's and "
                         "a decoder's; leave lnsr out")  # fmt: skip
    number = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    found = [part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == number]
    if len(found) != 1:
        stacks = "no stack" if not found else f"{len(found)} stacks"
        raise ValueError(f"LNSR follows noise up a stack of layers, and {type(model).__name__} has {stacks} of "
                         f"{number} layers; leave lnsr out")  # fmt: skip
    return found[0]
