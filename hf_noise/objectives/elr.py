"""Early-learning regularisation of classifiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_noise.objectives.base import Bound, Forward, Objective, RunContext, real_in

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ELR"]


@dataclass(frozen=True)
class ELR(Objective):
    """Cross-entropy held back by the model's own early predictions of each row; the model was not told of the noise.

    `-log p(y) + lam log(1 - <p, t>)`, where t averages what the model predicted of the row at its visits:
    t <- beta t + (1 - beta) p, this prediction included. Where the model saw through a wrong label before it memorised
    it, the second term's gradient outweighs the first one's.

    It remembers N x C numbers of N training rows by `sample_id`, on the device, and in checkpoints.

    Args:
        beta: in [0, 1), how long it remembers. 0.7 is the authors' for CIFAR-10, 0.9 for CIFAR-100.
        lam: weight of the second term, finite and >= 0; 0 is plain cross-entropy. 3 is the authors' for CIFAR-10, 7 for
            CIFAR-100, where a row is visited 120 to 250 times. A row that is visited n times has targets of weight
            1 - beta^n: for the few epochs of fine-tuning a smaller beta remembers sooner.

    Raises:
        ValueError: a value is out of its range; in a run, training rows whose ids are not known before training, or of
            which different ones share an id.
        TypeError: a value is no number.

    Source: Liu et al., NeurIPS 2020, see `hf_noise.losses.early_learning_penalty`.
    """

    beta: float = 0.7
    lam: float = 3.0

    name = "elr"
    unit = "labels"
    needs_forward, needs_features = True, False
    remembers = "targets that are remembered"
    tuned = ("lam", (1.0, 3.0, 7.0))

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", real_in("beta", self.beta, "[0, 1)"))
        object.__setattr__(self, "lam", real_in("lam", self.lam, "[0, inf)"))

    @property
    def sentence(self) -> str:
        return (f"cross-entropy with early-learning regularisation, `-log p(y) + {self.lam:.4g} log(1 - <p, t>)`, "
                f"where t averages the model's predictions of a row with beta = {self.beta:.4g}.")  # fmt: skip

    def bound(self, run: RunContext) -> HeldByEarlyTargets:
        if run.sample_ids is None:
            raise ValueError("ELR remembers targets of each training row by its sample_id, and the rows have none that "
                             "is known before training; add a column of integers: rows.add_column('sample_id', "
                             "range(len(rows))), of rows that are stored")  # fmt: skip
        return HeldByEarlyTargets(self, run)


class HeldByEarlyTargets(Bound):
    """`ELR` in a run."""

    module_name = "hf_noise_targets"

    def __init__(self, objective: ELR, run: RunContext):
        import torch

        from hf_noise.losses import label_nll
        from hf_noise.losses.elr import EarlyTargets, early_learning_penalty

        self.lam, self._nll, self._penalty = objective.lam, label_nll, early_learning_penalty
        ids = torch.from_numpy(run.sample_ids)
        self.module = EarlyTargets(ids, run.num_classes, objective.beta, run.device)

    def before_step(self, progress: float) -> None:
        self.module.begin()

    def after_step(self, accelerator: object) -> None:
        self.module.settle(accelerator)

    def __call__(self, logits: Tensor, labels: Tensor, forward: Forward) -> Tensor:
        if forward.sample_ids is None:
            raise ValueError("ELR needs the sample_id of each row, and the batch has none: the data collator drops it")
        targets = self.module(logits, forward.sample_ids)
        return self._nll(logits, labels) + self.lam * self._penalty(logits, targets)
