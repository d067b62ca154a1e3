"""The head of a masked language model at the positions that are predicted, inside the model's own forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hf_noise.evaluation_mode import evaluation_mode
from hf_noise.trainers.collate import known_tokens
from hf_noise.trainers.networks import longest_input

__all__ = ["SparseHead"]


class SparseHead:
    """A hook on the head of a model: while `at`, it is given the hidden states of some positions alone.

    With BERT's 15% the head, 21% of the work of BERT-base, costs a seventh, and the logits take as much less memory.
    What a model does with its logits after the head has to be done for each position on its own. `fault` tries that.

    Args:
        model: of transformers, perhaps inside an adapter of peft.

    Raises:
        ValueError: the model names no head.
    """

    def __init__(self, model: Any):
        find = getattr(model, "get_output_embeddings", None)
        head = None if find is None else find()
        if not isinstance(head, nn.Module):
            raise ValueError(f"{type(model).__name__} names no head (get_output_embeddings)")
        self._shape: tuple[int, ...] | None = None
        self._index: Tensor | None = None
        self._handle = head.register_forward_pre_hook(self._select)

    def remove(self) -> None:
        """Take the hook off."""
        self._handle.remove()

    @contextmanager
    def at(self, positions: Tensor) -> Iterator[Tensor]:
        """Forward passes within give logits [1, n, V], of the n positions that are True in bool [B, L].

        Yields their indices in B * L, int64 [n]; a GPU is waited for.
        """
        self._shape, self._index = tuple(positions.shape), positions.flatten().nonzero()[:, 0]
        try:
            yield self._index
        finally:
            self._shape = self._index = None

    def _select(self, head: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._index is None:
            return None
        hidden, *others = given
        if hidden.shape[:-1] != self._shape:
            raise RuntimeError(f"the head is given hidden states {list(hidden.shape)}, not [B, L, d]")
        return hidden.flatten(0, 1)[self._index].unsqueeze(0), *others

    @torch.no_grad()
    def fault(self, model: Any) -> str | None:
        """Why the logits of some positions are not those of a whole pass, found by trying it; None if they are."""
        device, shape = next(model.parameters()).device, (2, min(8, longest_input(model) or 8))
        tokens = (torch.arange(shape[0] * shape[1], device=device) % known_tokens(model)).view(shape)
        positions = torch.zeros(shape, dtype=torch.bool, device=device)
        positions[0, -1] = positions[1, 0] = positions[1, shape[1] // 2] = True
        try:
            with evaluation_mode(model):
                whole = model(input_ids=tokens).logits
                with self.at(positions):
                    some = model(input_ids=tokens).logits
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        if some.shape != (1, int(positions.sum()), whole.shape[-1]):
            return f"it gives logits {list(some.shape)} for {int(positions.sum())} positions"
        near = 1e-4 if whole.dtype == torch.float32 else 2e-2
        is_same = torch.allclose(some[0].float(), whole[positions].float(), rtol=near, atol=near)
        return None if is_same else "its logits depend on the other positions' logits"
