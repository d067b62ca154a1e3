"""An error rate that is learned beside a language model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hf_noise.losses.checks import check_real

__all__ = ["INITIAL_ERROR_RATE", "LearnedErrorRate"]

#: Where a learned error rate starts when nothing is known about the data.
INITIAL_ERROR_RATE = 0.1


class LearnedErrorRate(nn.Module):
    """One scalar e in (0, 1), learned through its logit; a tensor [1], so that sharding has a dimension to cut.

    Raises:
        TypeError: the start is no real number.
        ValueError: it is not inside (0, 1), also as float32, in which it is learned.
    """

    def __init__(self, initial: float = INITIAL_ERROR_RATE):
        super().__init__()
        start = check_real("a learned error rate", initial, "(0, 1)", "it is where the rate starts")
        logit = torch.tensor([math.log(start / (1 - start))])
        if not 0 < torch.sigmoid(logit).item() < 1:
            raise ValueError(f"a learned error rate must start inside (0, 1) in float32 too, got {initial!r}")
        self.logit = nn.Parameter(logit)

    def forward(self) -> Tensor:
        return torch.sigmoid(self.logit)
