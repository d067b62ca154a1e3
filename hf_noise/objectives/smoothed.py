"""Label smoothing on tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_noise.objectives.base import Objective, real_in

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Smoothed"]


@dataclass(frozen=True)
class Smoothed(Objective):
    """Cross-entropy with smoothed targets, a share of each spread over the vocabulary; not told of the noise.

    It needs all logits, so it does not go with the fused head.

    Args:
        smoothing: s in [0, 1), the share that is spread; 0.1 is the papers'.

    Raises:
        ValueError: smoothing is outside [0, 1).
        TypeError: smoothing is no number.

    Source: Szegedy et al., CVPR 2016; against noise Lukasik et al., ICML 2020, see `hf_noise.losses.smoothed_nll`.
    """

    smoothing: float = 0.1

    name = "smoothed"
    unit = "tokens"
    needs_logits = True
    tuned = ("smoothing", (0.05, 0.1, 0.3))

    def __post_init__(self) -> None:
        object.__setattr__(self, "smoothing", real_in("smoothing", self.smoothing, "[0, 1)"))

    @property
    def sentence(self) -> str:
        return (f"cross-entropy with targets smoothed over the vocabulary, `(1 - s) nll + s mean(-log p)` with "
                f"s = {self.smoothing:.4g}.")  # fmt: skip

    def __call__(self, nll: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        from hf_noise.losses import smoothed_nll

        return smoothed_nll(nll, logits, targets, self.smoothing)
