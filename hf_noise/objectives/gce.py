"""Generalised cross-entropy on tokens and on labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_noise.objectives.base import Bound, Objective, RunContext, real_in

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GCE"]


@dataclass(frozen=True)
class GCE(Objective):
    """Generalised cross-entropy of the noisy target, `(1 - p^q) / q`; the model was not told of the noise.

    It serves language models and classifiers.

    Args:
        q: in [0, 1]; 0 is the plain likelihood, 1 the probability of a wrong target. 0.7 is the paper's, for 10 to 100
            classes. Over a vocabulary p^q is tiny where training starts, so that smaller ones learn sooner: 0.1 and 0.3
            are ours. The paper's truncated form is not offered; see `Truncated`.

    Raises:
        ValueError: q is outside [0, 1].
        TypeError: q is no number.

    Source: Zhang and Sabuncu, NeurIPS 2018, see `hf_noise.losses.generalised_cross_entropy`.
    """

    q: float = 0.7

    name = "gce"
    unit, units = "tokens", ("tokens", "labels")
    tuned = ("q", (0.1, 0.3, 0.7))

    def __post_init__(self) -> None:
        object.__setattr__(self, "q", real_in("q", self.q, "[0, 1]"))

    @property
    def sentence(self) -> str:
        return f"generalised cross-entropy of the noisy target, `(1 - p^q) / q` with q = {self.q:.4g}."

    def bound(self, run: RunContext) -> GCE | GCEOfLabels:
        return GCEOfLabels(self.q) if run.unit == "labels" else self

    def __call__(self, nll: Tensor) -> Tensor:
        from hf_noise.losses import generalised_cross_entropy

        return generalised_cross_entropy(nll, self.q)


class GCEOfLabels(Bound):
    """`GCE` in a run of a classifier."""

    def __init__(self, q: float):
        from hf_noise.losses import generalised_cross_entropy, label_nll

        self.q, self._of_nll, self._nll = q, generalised_cross_entropy, label_nll

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self._of_nll(self._nll(logits, labels), self.q)
