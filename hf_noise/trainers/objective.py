"""What a trainer minimises: the plain likelihood, or the forward-corrected one with e known, assumed or learned."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from hf_noise.losses import clean_posterior, corrected_nll
from hf_noise.noise import Noise
from hf_noise.noise.rates import check_error_rate

__all__ = ["LearnedErrorRate", "NLL", "CorrectedNLL", "make_objective"]

#: Where a learned error rate starts when nothing is known about the data.
INITIAL_ERROR_RATE = 0.1


class LearnedErrorRate(nn.Module):
    """One scalar e in (0, 1), learned through its logit; a tensor [1], so that sharding has a dimension to cut."""

    def __init__(self, initial: float = INITIAL_ERROR_RATE):
        super().__init__()
        start = check_error_rate(initial)
        logit = torch.tensor([math.log(start / (1 - start))]) if start else torch.tensor([-math.inf])
        if not 0 < torch.sigmoid(logit).item() < 1:  # in float32, where it is learned
            raise ValueError(f"a learned error rate must start inside (0, 1), got {initial!r}")
        self.logit = nn.Parameter(logit)

    def forward(self) -> Tensor:
        return torch.sigmoid(self.logit)


class NLL:
    """The plain negative log-likelihood of the targets as they are."""

    name = "nll"
    error_rate: float = 0.0
    source = "none"

    def __call__(self, nll: Tensor) -> Tensor:
        return nll

    def clean_posterior(self, nll: Tensor) -> Tensor:
        return torch.ones_like(nll)


class CorrectedNLL:
    """The forward-corrected likelihood of noisy targets, see `hf_noise.losses.corrected_nll`.

    `rate` is e (a float), or a `LearnedErrorRate`; `source` says where e comes from.
    """

    name = "corrected"

    def __init__(self, rate: float | LearnedErrorRate, vocab_size: int, source: str):
        self.rate, self.vocab_size, self.source = rate, vocab_size, source

    @property
    def error_rate(self) -> float:
        """e as a number; reading a learned one makes the device wait."""
        return float(self.rate().item()) if isinstance(self.rate, nn.Module) else self.rate

    def _rate(self) -> float | Tensor:
        return self.rate() if isinstance(self.rate, nn.Module) else self.rate

    def __call__(self, nll: Tensor) -> Tensor:
        return corrected_nll(nll, error_rate=self._rate(), vocab_size=self.vocab_size)

    def clean_posterior(self, nll: Tensor) -> Tensor:
        return clean_posterior(nll, error_rate=self._rate(), vocab_size=self.vocab_size)


def make_objective(
    loss: Literal["nll", "corrected"],
    error_rate: float | Literal["known", "learned"],
    noise: Noise | None,
    vocab_size: int,
    was_given: bool = True,
) -> NLL | CorrectedNLL:
    """The objective that a trainer's arguments name.

    Args:
        was_given: whether the noise was asked for by name, or only found in the description of the rows.

    Raises:
        ValueError: an unknown name, an error rate out of range, one beside the plain loss, or e is to be known and
            there is no noise to know it from, or only the rows' word that none was added to them.
    """
    if loss == "nll":
        if not isinstance(error_rate, str) or error_rate != "known":
            raise ValueError(f'error_rate={error_rate!r} is for loss="corrected", and loss is "nll"; leave one out')
        return NLL()
    if loss != "corrected":
        raise ValueError(f'loss must be "nll" or "corrected", got {loss!r}')
    vocab_size = noise.vocab_size if noise is not None else vocab_size
    if isinstance(error_rate, str) and error_rate == "learned":
        return CorrectedNLL(LearnedErrorRate(), vocab_size, "learned")
    if isinstance(error_rate, str) and error_rate == "known":
        if noise is None:
            raise ValueError(
                'error_rate="known" takes e from the noise, and the trainer was given none; pass noise=, '
                'a number as error_rate=, or error_rate="learned"'
            )
        if noise.error_rate == 0 and not was_given:
            raise ValueError(
                'loss="corrected" would correct for e = 0, which is nothing: the rows say that no noise was added to '
                'them (r = 0), not how much of them is wrong; give error_rate= a number (0 if meant) or "learned"'
            )
        if noise.mixture_rate is None:
            raise ValueError(
                f'error_rate="known" takes the weight of uniform noise in the targets, and {type(noise).__name__} '
                'mixes no uniform distribution in; give error_rate= a number, "learned", or loss="nll"'
            )
        return CorrectedNLL(check_error_rate(noise.mixture_rate), vocab_size, "known")
    if isinstance(error_rate, str):
        raise ValueError(f'error_rate must be "known", "learned" or a number in [0, 1), got {error_rate!r}')
    return CorrectedNLL(check_error_rate(error_rate), vocab_size, "assumed")
