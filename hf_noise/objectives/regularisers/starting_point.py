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

    What is outside the base model of a model of transformers is new; of other models, what is in the head. What is not
    trained does not count.

    Args:
        model: as its training begins.
        head: the module that makes the logits, None if it is not known.

    Raises:
        ValueError: nothing is trained, an adapter changes the weights that it is added to, or it is not known which
            weights are new.
    """

    def __init__(self, model: nn.Module, head: nn.Module | None = None):
        model = unwrapped(model, "L2-SP")
        self.factors = _lora_factors(model)
        factors = {id(part) for left, right, _ in self.factors for part in (left, right)}
        weights = [one for one in model.parameters() if one.requires_grad and id(one) not in factors]
        if not weights and not self.factors:
            raise ValueError("L2-SP has nothing to hold: no weight of the model is trained")
        inner = bare(model)
        base = getattr(inner, getattr(inner, "base_model_prefix", "") or " ", None)
        if base is None and head is None:
            raise ValueError(f"L2-SP cannot tell which weights of {type(model).__name__} were pre-trained: it has no "
                             "base model, and the trainer knows no head; give it one (head=)")  # fmt: skip
        old = None if base is None else {id(one) for one in base.parameters()}
        new = set() if head is None else {id(one) for one in head.parameters()}
        self.head = [one for one in weights if (id(one) in new if old is None else id(one) not in old)]
        of_head = {id(one) for one in self.head}
        self.kept = [one for one in weights if id(one) not in of_head]
        self.then = [one.detach().clone() for one in self.kept]

    def beside(self, learned: nn.Module | None) -> nn.Module:
        """What a resumed run needs, beside what another objective learns: a sum over where this one began."""
        parts = {} if learned is None else {"base": learned}
        return nn.ModuleDict(parts | {"start": _Mark(self.then)})

    def distance(self, plan: L2SP) -> Tensor | float:
        """L2-SP now, a scalar with the gradient of the weights.

        Raises ValueError: weights are sharded.
        """
        for number, (one, then) in enumerate(zip(self.kept, self.then)):
            if one.shape != then.shape:
                raise ValueError("L2-SP is for whole weights, and these are sharded; use DDP or one device")
            self.then[number] = then.to(one.device)  # no copy once the model is where it stays
        moved: Tensor | float = 0.0
        if self.kept or self.head:
            moved = l2_sp(self.kept, self.then, self.head, alpha=plan.alpha, beta=plan.beta)
        for left, right, scale in self.factors:
            moved = moved + plan.alpha / 2 * low_rank_square(left.flatten(1), right.flatten(1), scale)
        return moved


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
