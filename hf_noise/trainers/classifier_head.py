"""The head of a classifier: the module that makes the logits, and what it is given in a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ModelHead", "find_head"]

#: What models of transformers, torchvision and timm call their head.
_NAMES = ("classifier", "score", "fc", "head", "heads", "logits_proj", "classification_head", "out_proj")


class ModelHead:
    """The head of a model, whose input is captured while the model is called.

    Features are what the head makes logits from, float [B, D], with their gradient:

    - A head that is given [B, D] is taken whole: the linear `classifier` of BERT, DistilBERT, ViT and wav2vec 2.0, the
      `fc` of a ResNet, an MLP of your own.
    - A head that is given more, as that of RoBERTa and ELECTRA, which picks the first token itself, or a convolution's
      [B, D, 1, 1], stands for its last linear layer: the head is that layer, features what that layer is given, which
      is behind the head's own hidden layer and dropout.
    - Where the head gives logits of every position and the model picks one, as GPT-2's `score`, features are what the
      head was given at that position.

    Args:
        model: of transformers, perhaps inside an adapter of peft, whose copy of the head (`modules_to_save`) is taken.
        num_classes: C.
        head: the module, where it is not to be looked for.

    Raises:
        ValueError: the model has no such module, or several.
        TypeError: `head` is no module.
    """

    def __init__(self, model: nn.Module, num_classes: int, head: nn.Module | None = None):
        if head is None:
            head = find_head(model)
            if head is None:
                raise ValueError(f"no head is found in {type(model).__name__} (looked for {', '.join(_NAMES)}); give "
                                 "the module that makes its logits: head=model.my_head")  # fmt: skip
        elif not isinstance(head, nn.Module):
            raise TypeError(f"head must be a torch.nn.Module of the model, got {head!r:.80}")
        elif all(head is not module for module in model.modules()):
            raise ValueError(f"head= is no module of the model ({type(head).__name__}); give one that is in it, such "
                             "as model.classifier")  # fmt: skip
        self.whole = _active(head)
        self.last = _last_linear(self.whole, num_classes)
        self.num_classes = num_classes
        self._seen: dict[int, Tensor] = {}
        self._is_checked = False

    @contextmanager
    def captured(self) -> Iterator[None]:
        """Keep what the head is given in the calls of the model inside."""
        self._seen.clear()
        modules = {id(module): module for module in (self.whole, self.last) if module is not None}
        handles = [module.register_forward_pre_hook(self._keep, with_kwargs=True) for module in modules.values()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        if given is not None:
            self._seen[id(module)] = given

    def taken(self, logits: Tensor, inputs: dict[str, Tensor], pad_token_id: int | None) -> tuple[nn.Module, Tensor]:
        """The head and its features [B, D] of the last call inside `captured`.

        Args:
            logits: [B, C], that the model gave.
            inputs: that the model was given.
            pad_token_id: of the model, by which it finds the last token of a text.

        Raises:
            ValueError: the logits were not made of what the head was given.
        """
        found = [(module, self._seen.get(id(module))) for module in (self.whole, self.last) if module is not None]
        self._seen.clear()
        if all(given is None for _, given in found):
            raise ValueError(f"the head {type(self.whole).__name__} was not called, so that it makes no logits of this "
                             "model; give the module that does: head=")  # fmt: skip
        for module, given in found:
            if given is not None and given.ndim == 2 and len(given) == len(logits):
                return self._checked(module, given, logits)
        module, given = found[-1]
        if given is None or given.ndim != 3 or len(given) != len(logits) or "input_ids" not in inputs:
            shape = None if given is None else list(given.shape)
            raise ValueError(f"the head {type(module).__name__} is given {shape} for logits {list(logits.shape)}, of "
                             "which no row is one's features [D]; give a head that takes [B, D]: head=")  # fmt: skip
        place = _last_token(inputs["input_ids"], pad_token_id)
        return self._checked(module, given[torch.arange(len(given), device=given.device), place], logits)

    def _checked(self, head: nn.Module, features: Tensor, logits: Tensor) -> tuple[nn.Module, Tensor]:
        """Once, that these logits are made of these features, as far as a head without dropout tells."""
        weight = next(head.parameters(), None)
        if weight is not None:  # mixed precision may have made them narrower than the head
            features = features.to(weight.dtype)
        if not self._is_checked:
            self._is_checked = True
            with torch.no_grad():
                again = head(features).to(logits)
            if again.shape != logits.shape:
                raise ValueError(f"the head {type(head).__name__} makes {list(again.shape)} of its features, the model "
                                 f"logits {list(logits.shape)}; give the module that makes them: head=")  # fmt: skip
            is_same = torch.allclose(again, logits, rtol=1e-2, atol=1e-3 + 1e-2 * float(logits.detach().abs().max()))
            if not is_same and not any(isinstance(part, nn.Dropout) and part.p for part in head.modules()):
                raise ValueError(f"the logits are not what the head {type(head).__name__} makes of its input: the "
                                 "model changes them, or reads another position; give the module that makes them: "
                                 "head=")  # fmt: skip
        return head, features


def find_head(model: nn.Module) -> nn.Module | None:
    """The module that makes a classifier's logits, by its name; None if there is none of a known name."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside an adapter of peft
    for inner in (base, *base.children()):  # a network of timm or of one's own may be wrapped
        found = inner.get_classifier() if hasattr(inner, "get_classifier") else None  # timm's, which may have any name
        for head in (found, *(getattr(inner, name, None) for name in _NAMES)):
            if isinstance(head, nn.Module) and not isinstance(head, nn.Identity):
                return head
    return None


def _active(module: nn.Module) -> nn.Module:
    """The copy that an adapter of peft trains of a module, `modules_to_save`; the module itself without one."""
    copies, names = getattr(module, "modules_to_save", None), getattr(module, "active_adapters", None)
    if isinstance(copies, nn.ModuleDict):
        for name in names or list(copies):
            if name in copies:
                return copies[name]
    return module


def _last_linear(head: nn.Module, num_classes: int) -> nn.Module | None:
    """The last linear layer inside a head that makes C numbers, with what an adapter puts around it."""
    found = None
    for module in head.modules():
        inside = found is not None and any(module is part for part in found.modules())
        if getattr(module, "out_features", None) == num_classes and not inside:
            found = module
    return None if found is None else _active(found)


def _last_token(tokens: Tensor, pad_token_id: int | None) -> Tensor:
    """Where models of transformers read a text's class: at its last token that is no padding, int64 [B]."""
    length = tokens.shape[1]
    if pad_token_id is None:
        return torch.full((len(tokens),), length - 1, device=tokens.device)
    places = torch.arange(length, device=tokens.device)
    return (places * (tokens != pad_token_id)).argmax(-1)
