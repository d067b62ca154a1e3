"""Where a model's weights stood when its fine-tuning began, and how far they have gone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hf_noise.losses.l2_sp import l2_sp, low_rank_square
from hf_noise.objectives.regulariser_plans import L2SP
from hf_noise.objectives.regularisers.network_parts import bare, unwrapped

__all__ = ["StartingPoint"]

#: Sums in float64 of the same weights on another device differ by less.
_SAME = 1e-9
#: Ways to begin an adapter that take something out of the weights it is added to.
_TAKES_OUT = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")


class StartingPoint:
    """The trained weights of a model as they are now: those that were pre-trained, of its head, and of adapters.

    What is outside the base model of a model of transformers is new; of other models, what is in the head that the
    trainer knows. What is not trained does not count.

    Raises:
        ValueError: nothing is trained, or an adapter changes the weights that it is added to.
    """

    def __init__(self, model: nn.Module):
        self.model = unwrapped(model, "L2-SP")
        self.factors = _lora_factors(self.model)
        factors = {id(part) for left, right, _ in self.factors for part in (left, right)}
        self.weights = [one for one in self.model.parameters() if one.requires_grad and id(one) not in factors]
        if not self.weights and not self.factors:
            raise ValueError("L2-SP has nothing to hold: no weight of the model is trained")
        inner = bare(self.model)
        base = getattr(inner, getattr(inner, "base_model_prefix", "") or " ", None)
        self.known = None if base is None else {id(one) for one in base.parameters()}
        self.then: list[Tensor] | None = [one.detach().clone() for one in self.weights]
        self.kept: list[tuple[Tensor, Tensor]] | None = None
        self.head: list[Tensor] = []

    def beside(self, learned: nn.Module | None) -> nn.Module:
        """What a resumed run needs, beside what another objective learns: a sum over where this one began."""
        parts = {} if learned is None else {"base": learned}
        values = self.then if self.known is None else [
            then for one, then in zip(self.weights, self.then) if id(one) in self.known
        ]  # fmt: skip
        return nn.ModuleDict(parts | {"start": _Mark(values)})

    def distance(self, plan: L2SP, head: nn.Module | None) -> Tensor:
        """L2-SP now, a scalar with the gradient of the weights."""
        if self.kept is None:
            self._divide(head)
        moved = l2_sp([one for one, _ in self.kept], [then for _, then in self.kept], self.head, alpha=plan.alpha,
                      beta=plan.beta) if self.kept or self.head else 0.0  # fmt: skip
        for left, right, scale in self.factors:
            moved = moved + plan.alpha / 2 * low_rank_square(left.flatten(1), right.flatten(1), scale)
        return moved

    def _divide(self, head: nn.Module | None) -> None:
        """Once, when the head is known, and the weights are where they stay."""
        if self.known is None and head is None:
            raise ValueError(f"L2-SP cannot tell which weights of {type(self.model).__name__} were pre-trained: it has "
                             "no base model, and the trainer knows no head; give it one (head=)")  # fmt: skip
        new = set() if self.known is not None else {id(one) for one in head.parameters()}
        kept = []
        for one, then in zip(self.weights, self.then):
            if one.shape != then.shape:
                raise ValueError("L2-SP is for whole weights, and these are sharded; use DDP or one device")
            if id(one) in new or self.known is not None and id(one) not in self.known:
                self.head.append(one)
            else:
                kept.append((one, then.to(one.device)))
        self.kept, self.then = kept, None


class _Mark(nn.Module):
    """Says where a run began, and refuses the checkpoint of a run that began elsewhere."""

    def __init__(self, values: list[Tensor]):
        super().__init__()
        sums = [torch.stack([one.double().sum(), one.double().square().sum()]).cpu() for one in values]
        self.register_buffer("sums", torch.stack(sums).sum(0) if sums else torch.zeros(2, dtype=torch.float64))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        stored = state.get(f"{prefix}sums")
        if stored is not None:
            apart = (stored.to(self.sums) - self.sums).abs() > _SAME * (1 + self.sums.abs())
            if bool(apart.any()):
                raise ValueError("L2-SP pulls to the weights that the model has when the trainer is made, and those of "
                                 "this checkpoint's run were others; make the model as that run did, from its "
                                 "pre-trained weights, and resume with resume_from_checkpoint=")  # fmt: skip
        super()._load_from_state_dict(state, prefix, *args)


def _lora_factors(model: nn.Module) -> list[tuple[Tensor, Tensor, float]]:
    """B [D, r], A [r, K] and the scale of each adapter of LoRA that is trained."""
    for config in getattr(model, "peft_config", {}).values():
        begun = str(getattr(config, "init_lora_weights", "")).lower()
        if getattr(config, "use_dora", False) or begun.startswith(_TAKES_OUT):
            how = "DoRA" if getattr(config, "use_dora", False) else f"init_lora_weights={begun!r}"
            raise ValueError(f"L2-SP knows how far a plain adapter of LoRA goes from the pre-trained weights, not with "
                             f"{how}; leave l2_sp out, or that")  # fmt: skip
    found = []
    for module in model.modules():
        for right, left in (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")):
            for name in getattr(module, right, None) or {}:
                factors = [getattr(part, "weight", part) for part in (getattr(module, left)[name],
                                                                      getattr(module, right)[name])]  # fmt: skip
                if all(factor.requires_grad for factor in factors):
                    found.append((*factors, float(module.scaling[name])))
    return found
