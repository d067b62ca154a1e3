"""Co-teaching: two networks that choose each other's training rows."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hf_noise.noise.checks import check_choice, check_seed
from hf_noise.objectives.base import Bound, Forward, Objective, RunContext, real_in

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["CoTeaching", "begin_anew"]


@dataclass(frozen=True)
class CoTeaching(Objective):
    """Co-teaching: of two networks each learns from the rows on which the other has the smallest losses.

    The second network is trained beside the model and saved in checkpoints alone; what is evaluated and saved as the
    model is the first. A step takes twice the time and the memory of weights, gradients and optimiser. The second runs
    in the precision of its weights. Gradients of both are clipped by one norm (`max_grad_norm`), and the loss that is
    logged is the sum of both networks', each a mean over the rows that it learns from.

    Rows are chosen among those of one forward pass, over all processes: passes that are accumulated choose apart.

    Args:
        forget_rate: share in [0, 1) of the rows that are left out; "known" takes the error rate of the noise, as the
            authors do.
        warmup: share in [0, 1) of the training steps over which the rate rises from 0. The authors' is 10 of 200
            epochs; a share, and 0.1, are ours.
        peer: what the second network begins with. "head": the weights of the model, with a head of other random
            numbers, and adapters of LoRA too that have learned nothing yet, for pre-trained models; "network": other
            random numbers throughout, as the authors do.
        seed: of those numbers, which are of a stream of their own: `torch.manual_seed(seed)` draws others.

    Raises:
        ValueError: a value is out of its range; in a run, the rate is to be known and there is no noise to know it
            from, the model has no head that is known, or one that cannot be drawn anew.
        TypeError: a value is of another type.

    Source: Han et al., "Co-teaching", NeurIPS 2018, see `hf_noise.losses.small_losses`.
    """

    forget_rate: float | Literal["known"] = "known"
    warmup: float = 0.1
    peer: Literal["head", "network"] = "head"
    seed: int = 1

    name = "co-teaching"
    unit = "labels"
    needs_forward, needs_features = True, False
    tuned = ("forget_rate", (0.1, 0.3, 0.5))

    def __post_init__(self) -> None:
        if isinstance(self.forget_rate, str):
            if self.forget_rate != "known":
                raise ValueError(f'forget_rate must be "known" or a share in [0, 1), got {self.forget_rate!r:.80}')
        else:
            object.__setattr__(self, "forget_rate", real_in("forget_rate", self.forget_rate, "[0, 1)"))
        object.__setattr__(self, "warmup", real_in("warmup", self.warmup, "[0, 1)"))
        object.__setattr__(self, "peer", check_choice("peer", self.peer, ("head", "network"), '"head" or "network"'))
        object.__setattr__(self, "seed", check_seed(self.seed))

    @property
    def sentence(self) -> str:
        share = "the error rate of the noise" if self.forget_rate == "known" else f"{100 * self.forget_rate:.3g}%"
        return ("co-teaching: of two networks, each learned from the rows on which the other had the smallest losses; "
                f"{share} of the rows of a batch were left out. This is the first network.")  # fmt: skip

    @property
    def learns(self) -> str:
        return "CoTeaching"

    def bound(self, run: RunContext) -> CoTaught:
        rate = self.forget_rate
        if rate == "known":
            if run.noise is None or (run.noise.error_rate == 0 and not run.was_given):
                raise ValueError('forget_rate="known" takes the error rate of the noise, and none is known; pass '
                                 "noise=, or a share in [0, 1)")  # fmt: skip
            rate = run.noise.error_rate
        if rate >= 1:
            raise ValueError(f"the noise makes {rate:.3g} of the labels wrong, so that no row would be kept; give "
                             "forget_rate= a share in [0, 1)")  # fmt: skip
        return CoTaught(self, rate, run)


class CoTaught(Bound):
    """`CoTeaching` in a run.

    Attributes:
        rate: share of rows that is left out once it has risen.
        share: what is left out now.
    """

    module_name = "hf_noise_peer"
    learning_rate = None

    def __init__(self, objective: CoTeaching, rate: float, run: RunContext):
        from hf_noise.losses import label_nll, small_losses
        from hf_noise.losses.coteaching import forgotten_share

        self._nll, self._small, self._share = label_nll, small_losses, forgotten_share
        self.objective, self.rate, self.share = objective, rate, rate
        self.source = "known" if objective.forget_rate == "known" else "assumed"
        self.module = _peer(objective, run).train(run.model.training)

    def before_step(self, progress: float) -> None:
        self.share = self._share(self.rate, self.objective.warmup, progress)

    def facts(self) -> dict[str, Any]:
        return {"source": self.source, "forget_rate": self.rate}

    def logged(self) -> dict[str, float]:
        return {"forgotten": self.share}

    def __call__(self, logits: Tensor, labels: Tensor, forward: Forward) -> Tensor:
        own = self._nll(logits, labels)
        other = self._nll(self.module(**forward.inputs).logits.float(), labels)
        # Each learns from what the other finds easy. Their mean over all rows is that over the rows that are kept.
        of_own, of_other = self._chosen(other), self._chosen(own)
        return own * of_own + other * of_other

    def _chosen(self, losses: Tensor) -> Tensor:
        """Weight of each row: n / kept where its loss is small among the n rows of all processes, 0 elsewhere."""
        import torch
        from accelerate import PartialState
        from accelerate.utils import gather, pad_across_processes

        losses = losses.detach()
        state = PartialState()
        if state.num_processes == 1:
            kept = self._small(losses, self.share)
            return kept * (len(losses) / kept.sum())
        with_ones = torch.stack([losses, torch.ones_like(losses)], -1)
        everyone = gather(pad_across_processes(with_ones))  # processes may have rows of other numbers at the end
        parts = everyone.chunk(state.num_processes)
        rows = [int(part[:, 1].sum()) for part in parts]
        kept = self._small(torch.cat([part[:n, 0] for part, n in zip(parts, rows)]), self.share)
        before = sum(rows[: state.process_index])
        return kept[before : before + len(losses)] * (len(kept) / kept.sum())


def _peer(objective: CoTeaching, run: RunContext) -> nn.Module:
    """The second network: a copy whose head, or all of it, has other random numbers."""
    if run.model is None:
        raise ValueError("CoTeaching trains a second network, and there is no model to make one like")
    anew = set() if run.head is None else set(map(id, run.head.parameters()))
    # What no one trains, such as the weights behind an adapter, both have together.
    frozen = {id(p): p for p in run.model.parameters() if not p.requires_grad and id(p) not in anew}
    peer = copy.deepcopy(run.model, frozen if objective.peer == "head" else None)
    if objective.peer == "network":
        if hasattr(peer, "get_base_model"):
            raise ValueError('peer="network" would begin the frozen weights behind an adapter anew; use peer="head"')
        start = peer
    else:
        name = next((name for name, module in run.model.named_modules() if module is run.head), None)
        if run.head is None or name is None:
            raise ValueError('no head is found in the model, which peer="head" begins anew; give the module that makes '
                             'the logits: head=, or use peer="network"')  # fmt: skip
        start = peer.get_submodule(name)
    before = [one.detach().clone() for one in start.parameters()]
    with _seeded(objective.seed):
        begin_anew(start, peer.get_base_model() if hasattr(peer, "get_base_model") else peer)
        if objective.peer == "head":
            _begin_adapters_anew(peer)
    if all(bool((one == then).all()) for one, then in zip(start.parameters(), before)):
        raise ValueError(f"the second network would be the first again: {type(start).__name__} has no weights that are "
                         "drawn by the model's _init_weights or by reset_parameters() of its parts")  # fmt: skip
    return peer


def begin_anew(start: nn.Module, model: nn.Module) -> None:
    """Draw the weights of a part of a model as the model does when it is made."""
    made_by_model = getattr(model, "_init_weights", None)
    for part in start.modules():
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
            tensor._is_hf_initialized = False  # transformers leaves alone what was loaded
        if made_by_model is not None:
            made_by_model(part)
        elif hasattr(part, "reset_parameters"):
            part.reset_parameters()


def _begin_adapters_anew(peer: nn.Module) -> None:
    """Draw adapters of LoRA that add nothing yet, as peft does; those that have learned stay, with what they learned.

    Ways to begin that change the weights behind the adapter, such as PiSSA, stay too: both networks have those weights.
    """
    configs = getattr(peer, "peft_config", {})
    for part in peer.modules():
        if not hasattr(part, "reset_lora_parameters"):
            continue
        for name, config in configs.items():
            factors = [getattr(one[name], "weight", one[name])
                       for kind in ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")
                       if name in (one := getattr(part, kind, None) or {})]  # fmt: skip
            how = getattr(config, "init_lora_weights", None)
            is_fresh = any(not one.detach().any() for one in factors) and all(one.requires_grad for one in factors)
            if is_fresh and (how is True or how == "gaussian"):
                part.reset_lora_parameters(name, how)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """A stream of its own: of the seed itself, the numbers would be those that `set_seed(seed)` drew the model from."""
    import torch

    digest = hashlib.sha256(f"hf_noise co-teaching/{seed}".encode()).digest()
    with torch.random.fork_rng():
        torch.manual_seed(int.from_bytes(digest[:8], "big"))
        yield
