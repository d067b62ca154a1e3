"""Loss truncation on tokens or rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hf_noise.noise.checks import check_choice, check_count
from hf_noise.objectives.base import Bound, Objective, RunContext, real_in

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Truncated"]


@dataclass(frozen=True)
class Truncated(Objective):
    """The likelihood without a share of the highest losses, by a quantile of recent ones; not told of the noise.

    What is left out counts as a loss of 0: the loss stays a sum over all targets divided by their number, as in the
    authors' code. The threshold is one number for a whole optimiser step, of the losses of all processes in the steps
    before, so it depends on neither micro-batches nor processes; checkpoints hold it.

    Args:
        fraction: share of the losses to leave out, in [0, 1); 0.4 is the authors' code's.
        drops: "tokens" (ours, as noise on tokens sits in single targets), or "rows", by their mean loss: the paper's.
        start: share of the training steps in [0, 1) after which losses are left out. The paper starts from a model
            trained on everything, its code after 10,000 rows; a share, and 0.1, are ours.
        memory: steps that are remembered, in [1, 2^15]: a step's losses weigh 1 - 1 / memory times those of the next.
            The authors take the last 10,000 rows.

    Raises:
        ValueError: a value is out of its range.
        TypeError: a value is of another type.

    Source: Kang and Hashimoto, ACL 2020, see `hf_noise.losses.truncated_nll`.
    """

    fraction: float = 0.4
    drops: Literal["tokens", "rows"] = "tokens"
    start: float = 0.1
    memory: int = 100

    name = "truncated"
    unit = "tokens"
    needs_targets = True
    tuned = ("fraction", (0.1, 0.3, 0.5))

    def __post_init__(self) -> None:
        object.__setattr__(self, "fraction", real_in("fraction", self.fraction, "[0, 1)"))
        object.__setattr__(self, "drops", check_choice("drops", self.drops, ("tokens", "rows"), '"tokens" or "rows"'))
        object.__setattr__(self, "start", real_in("start", self.start, "[0, 1)"))
        object.__setattr__(self, "memory", check_count("memory", self.memory, 1, 15))

    @property
    def sentence(self) -> str:
        return (f"the likelihood of all but the {self.drops} with the highest losses, the top {self.fraction:.4g} of "
                f"recent ones, after {100 * self.start:.3g}% of the steps.")  # fmt: skip

    def bound(self, run: RunContext) -> TruncatedNLL:
        return TruncatedNLL(self, run.device)


class TruncatedNLL(Bound):
    """`Truncated` in a run.

    Attributes:
        threshold: in nats, float32 []; None before the start, where nothing is left out.
    """

    module_name = "hf_noise_losses"

    def __init__(self, objective: Truncated, device: Any):
        from hf_noise.losses.truncated import RecentLosses, row_means, truncated_nll

        self._loss, self._row_means, self.objective = truncated_nll, row_means, objective
        self.module = RecentLosses(objective.memory).to(device)
        self.threshold: Tensor | None = None

    def before_step(self, progress: float) -> None:
        self.module.begin()
        wanted = self.objective
        is_on = progress >= wanted.start and wanted.fraction > 0
        self.threshold = self.module.quantile(1 - wanted.fraction) if is_on else None

    def after_step(self, accelerator: Any) -> None:
        self.module.settle(accelerator.reduce)

    def facts(self) -> dict[str, Any]:
        return {"source": self.source, "dropped": self.module.share}

    def logged(self) -> dict[str, float]:
        threshold = {} if self.threshold is None else {"loss_threshold": self.threshold.item()}
        return {"dropped": self.module.share} | threshold

    def __call__(self, nll: Tensor, targets: Tensor) -> Tensor:
        is_target = targets >= 0
        by_rows = self.objective.drops == "rows"
        by = self._row_means(nll, is_target) if by_rows else nll.detach()
        kept = nll if self.threshold is None else self._loss(nll, self.threshold, by)
        if self.module.training:
            is_seen = is_target.any(-1, keepdim=True) if by_rows else is_target
            self.module.observe(by, is_seen, kept.detach() != nll.detach(), is_target)
        return kept
