"""An objective with regularisers in a run: what they read of the network, and what they add to its losses."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hf_noise.losses import lnsr, smart
from hf_noise.noise.normals_torch import normals
from hf_noise.objectives.base import Bound, Forward, RunContext
from hf_noise.objectives.regulariser_plans import LNSR, SMART
from hf_noise.objectives.regularisers.layer_states import LayerStates
from hf_noise.objectives.regularisers.network_parts import (
    Embedded,
    check_embeddings,
    check_not_compiled,
    check_not_reentrant,
)
from hf_noise.objectives.regularisers.starting_point import StartingPoint

if TYPE_CHECKING:
    from hf_noise.objectives.regularised import Regularised

__all__ = ["RegularisedRun"]

#: Of the draws from a row's id, apart from those of noise and of diffusion.
_SMART_STREAM, _LNSR_STREAM = 90, 91


class RegularisedRun(Bound):
    """A base objective in a run, with regularisers beside it. What the base has besides, such as a T, is had here."""

    def __init__(self, asked: Regularised, run: RunContext):
        if run.model is None:
            raise ValueError(f"{' and '.join(asked.plans)} need the network that is trained, and this run has none")
        self.asked, self.base = asked, asked.base.bound(run)
        self.source, self.learning_rate = self.base.source, self.base.learning_rate
        self.module, self.module_name = self.base.module, self.base.module_name
        self.start = self.layers = None
        if asked.smart is not None:
            check_embeddings(run.model)
        if asked.lnsr is not None:
            self.layers = LayerStates(run.model, asked.lnsr.layer)
        if asked.l2_sp is not None:
            self.start = StartingPoint(run.model, run.head)
            self.module = self.start.beside(self.base.module).to(run.device)
            self.module_name = self.base.module_name or "hf_noise_regularised"
        self._sums: dict[str, Tensor] = {}
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        if name == "base":  # not there yet
            raise AttributeError(name)
        return getattr(self.base, name)

    def __call__(self, logits: Tensor, labels: Tensor, forward: Forward) -> Tensor:
        losses = self.base(logits, labels, forward) if self.asked.base.needs_forward else self.base(logits, labels)
        if not forward.model.training:
            return losses
        added = {}
        if self.asked.lnsr is not None:  # first: another pass would change what the layers were seen to do
            added["lnsr"] = self._lnsr(self.asked.lnsr, logits, forward)
        if self.asked.smart is not None:
            added["smart"] = self._smart(self.asked.smart, logits, forward)
        if self.start is not None:
            added["l2_sp"] = self.start.distance(self.asked.l2_sp)
        for name, values in added.items():
            losses = losses + values
            self._sums[name] = self._sums.get(name, 0.0) + values.detach().mean()
        self._calls += 1
        return losses

    def _smart(self, plan: SMART, logits: Tensor, forward: Forward) -> Tensor:
        if not self._calls:  # after the trainer has set the network up
            check_not_reentrant(forward.model)
        network = Embedded(forward)
        given = {name: getattr(plan, name) for name in ("epsilon", "step_size", "sigma", "steps")}
        with nullcontext() if self.layers is None else self.layers.unseen():
            embeddings = network.embeddings()
            noise = self._noise(embeddings, forward, _SMART_STREAM, "SMART") * network.mask(embeddings)
            return plan.weight * smart(network.logits, embeddings, logits, noise, **given)

    def _lnsr(self, plan: LNSR, logits: Tensor, forward: Forward) -> Tensor:
        check_not_compiled(forward.model)
        seen = self.layers.taken(len(logits))
        noise = self._noise(seen.hidden, forward, _LNSR_STREAM, "LNSR")
        mask = forward.inputs.get("attention_mask")
        mask = mask if mask is not None and mask.shape == seen.hidden.shape[:2] else None
        with seen.as_before():
            return plan.weight * lnsr(seen.layers, seen.hidden, noise, sigma=plan.sigma, states=seen.states, mask=mask)

    def _noise(self, like: Tensor, forward: Forward, stream: int, who: str) -> Tensor:
        if forward.sample_ids is None:
            raise ValueError(f"{who} draws from the column `sample_id`, the stable index of each row, which is not "
                             'there; add it, of integers: dataset.add_column("sample_id", range(len(dataset))), where '
                             "one of text is renamed before")  # fmt: skip
        drawn = normals(self.asked.seed, stream, forward.epoch, forward.sample_ids.to(like.device), like[0].numel())
        return drawn.view(like.shape)

    def before_step(self, progress: float) -> None:
        self.base.before_step(progress)
        if self.layers is not None:
            self.layers.watch()

    def after_step(self, accelerator: Any) -> None:
        if self.layers is not None:
            self.layers.leave()
        self.base.after_step(accelerator)

    def facts(self) -> dict[str, Any]:
        return self.base.facts()

    def logged(self) -> dict[str, float]:
        """The means over the batches since the last call, times their weights, on this process."""
        found = {name: float(total) / self._calls for name, total in self._sums.items()} if self._calls else {}
        self._sums, self._calls = {}, 0
        return self.base.logged() | found
