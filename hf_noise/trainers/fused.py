"""The loss of a language model's head without its logits, inside the model's own forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from hf_noise.losses.nll import token_nll

__all__ = ["FusedHead"]


class FusedHead:
    """Hooks on the head of a model: while `scoring`, its forward pass gives the NLL of targets in place of logits.

    The head is given no row of hidden states, and what it returns is replaced. So it is called where it always is,
    inside whatever wraps the model: its weight is whole there under FSDP, its gradient is seen by DDP, and autocast
    holds. Outside of `scoring`, and for all other users of the model, nothing changes.

    Args:
        model: of transformers, perhaps inside an adapter of peft, whose logits are hidden states times its head.

    Raises:
        ValueError: the model names no head with a weight.
    """

    def __init__(self, model: Any):
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Module) or getattr(head, "weight", None) is None:
            raise ValueError(f"{type(model).__name__} names no head (get_output_embeddings): use fused_loss=False")
        self._targets: Tensor | None = None
        self._hidden: Tensor | None = None
        head.register_forward_pre_hook(self._keep_hidden)
        head.register_forward_hook(self._score)

    @contextmanager
    def scoring(self, targets: Tensor) -> Iterator[None]:
        """Forward passes within score these targets, int64 [B, L], -100 for none."""
        self._targets = targets
        try:
            yield
        finally:
            self._targets = self._hidden = None

    def nll_of(self, output: Any) -> Tensor:
        """The NLL float32 [B, L] in the output of a pass that was scored, 0 where there is no target."""
        if output.logits.shape[-1] != 1:
            raise RuntimeError("the model made its logits without calling its head: use fused_loss=False")
        return output.logits.squeeze(-1)

    def _keep_hidden(self, head: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self._targets is None:
            return None
        self._hidden, *others = given
        return self._hidden[:, :0], *others

    def _score(self, head: nn.Module, given: Any, logits: Tensor) -> Tensor | None:
        if self._targets is None:
            return None
        nll = token_nll(self._hidden, head.weight, self._targets, getattr(head, "bias", None))
        return nll.unsqueeze(-1)
