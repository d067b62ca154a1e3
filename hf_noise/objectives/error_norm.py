"""Error norm truncation on tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_noise.objectives.base import Bound, Objective, RunContext, real_in

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ErrorNorm"]


@dataclass(frozen=True)
class ErrorNorm(Objective):
    """The likelihood of targets whose error norm `||p - onehot(y)||_2` is at most a threshold; others are left out.

    What is left out counts as a loss of 0: the loss stays a sum over all targets divided by their number, as in the
    authors' code. It needs all logits, so it does not go with the fused head.

    Args:
        threshold: in (0, sqrt(2)]. The norm is near 1 where the model is undecided, and sqrt(2) where it is certain of
            another token. The authors' code has no default. Ours suits noise on tokens: a model of text with a share e
            of them wrong predicts no token with more than 1 - e, so that its norms stay below sqrt(1 + (1 - e)^2),
            1.12 at e = 0.5 and 1.28 at e = 0.2, before anything is left out.
        start: share of the training steps in [0, 1) after which targets are left out. The authors start after a number
            of updates, by default 0 for language models; a share, and 0.1, are ours.

    Raises:
        ValueError: a value is out of its range.
        TypeError: a value is no number.

    Source: Li et al., ICLR 2024 (arXiv 2310.00840), its form with a threshold; see `hf_noise.losses.error_norm_nll`.
    """

    threshold: float = 1.15
    start: float = 0.1

    name = "error-norm"
    unit = "tokens"
    needs_logits = True
    tuned = ("threshold", (1.05, 1.15, 1.3))

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", real_in("threshold", self.threshold, f"(0, {math.sqrt(2)!r}]"))
        object.__setattr__(self, "start", real_in("start", self.start, "[0, 1)"))

    @property
    def sentence(self) -> str:
        return (f"the likelihood of targets whose error norm `||p - onehot(y)||_2` is at most {self.threshold:.4g}, "
                f"after {100 * self.start:.3g}% of the steps; others are left out.")  # fmt: skip

    def bound(self, run: RunContext) -> TruncatedByNorm:
        return TruncatedByNorm(self, run.device)


class TruncatedByNorm(Bound):
    """`ErrorNorm` in a run; it is on unless a trainer says that the start is still to come."""

    module_name = "hf_noise_dropped"

    def __init__(self, objective: ErrorNorm, device: Any):
        from hf_noise.losses.error_norm import error_norm_nll
        from hf_noise.losses.truncated import Dropped

        self._loss, self.objective, self.is_on = error_norm_nll, objective, True
        self.module = Dropped().to(device)

    def before_step(self, progress: float) -> None:
        self.module.begin()
        self.is_on = progress >= self.objective.start

    def after_step(self, accelerator: Any) -> None:
        self.module.settle(accelerator.reduce)

    def facts(self) -> dict[str, Any]:
        return {"source": self.source, "dropped": self.module.share}

    def logged(self) -> dict[str, float]:
        return {"dropped": self.module.share}

    def __call__(self, nll: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        kept = self._loss(nll, logits, targets, self.objective.threshold) if self.is_on else nll
        if self.module.training:
            self.module.book(kept.detach() != nll.detach(), targets >= 0)
        return kept
