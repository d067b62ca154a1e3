"""Objectives of language models: the plain likelihood, or a forward-corrected one with e known, stated or learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from hf_noise.noise.rates import check_error_rate
from hf_noise.objectives.base import Bound, Objective, RunContext

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["NLL", "NO_NOISE", "Corrected"]

#: Of the plain likelihood where no noise was.
NO_NOISE = "the plain negative log-likelihood; there was no noise to be told of."
_SENTENCE = "the forward-corrected likelihood of the noisy target, `-log((1 - e) p + e / V)`, with {}."


@dataclass(frozen=True)
class NLL(Objective):
    """The plain negative log-likelihood of the noisy target; the model was not told of the noise."""

    name = "nll"
    unit = "tokens"
    is_nll = True
    error_rate = 0.0

    def __call__(self, nll: Tensor) -> Tensor:
        return nll

    def clean_posterior(self, nll: Tensor) -> Tensor:
        """p(target is clean) of each, which is 1."""
        return nll.new_ones(nll.shape)

    def claims(self) -> dict[str, Any]:
        return {"loss": self.name, "error_rate": None}

    def facts(self) -> dict[str, Any]:
        return {"error_rate": self.error_rate, "source": self.source}

    def told(self, facts: Mapping[str, Any], task: str, error_rate: float | None = None) -> str:
        return NO_NOISE if error_rate == 0 else self.sentence


@dataclass(frozen=True)
class Corrected(Objective):
    """The forward-corrected likelihood of the noisy target, see `hf_noise.losses.corrected_nll`.

    Args:
        error_rate: "known" takes e from the noise of the run, "learned" fits one scalar with the model, a number in
            [0, 1) states it.

    Raises:
        ValueError: an error rate outside its range; in a run, e is to be known and there is no noise to know it from.
    """

    error_rate: float | Literal["known", "learned"] = "known"

    name = "corrected"
    unit = "tokens"
    is_nll = True

    def __post_init__(self) -> None:
        rate = self.error_rate
        if isinstance(rate, str) and rate not in ("known", "learned"):
            raise ValueError(f'error_rate must be "known", "learned" or a number in [0, 1), got {rate!r:.80}')
        object.__setattr__(self, "error_rate", str(rate) if isinstance(rate, str) else check_error_rate(rate))

    @property
    def sentence(self) -> str:
        stated = {"known": "e of the noise (known)", "learned": "e learned with the model (learned)"}
        return _SENTENCE.format(stated.get(self.error_rate) or f"e = {self.error_rate:.4g} (assumed)")

    @property
    def learns(self) -> str | None:
        return 'error_rate="learned"' if self.error_rate == "learned" else None

    def bound(self, run: RunContext) -> CorrectedNLL:
        vocab_size = run.num_classes if run.noise is None else run.noise.vocab_size
        if self.error_rate == "learned":
            from hf_noise.losses.learned_rate import LearnedErrorRate

            return CorrectedNLL(LearnedErrorRate().to(run.device), vocab_size, "learned")
        if self.error_rate != "known":
            return CorrectedNLL(self.error_rate, vocab_size, "assumed")
        if run.noise is None:
            raise ValueError(
                'error_rate="known" takes e from the noise, and the trainer was given none; pass noise=, '
                'a number as error_rate=, or error_rate="learned"'
            )
        if run.noise.error_rate == 0 and not run.was_given:
            raise ValueError(
                'loss="corrected" would correct for e = 0, which is nothing: the rows say that no noise was added to '
                'them (r = 0), not how much of them is wrong; give error_rate= a number (0 if meant) or "learned"'
            )
        if run.noise.mixture_rate is None:
            raise ValueError(
                f'error_rate="known" takes the weight of uniform noise in the targets, and {type(run.noise).__name__} '
                'mixes no uniform distribution in; give error_rate= a number, "learned", or loss="nll"'
            )
        return CorrectedNLL(check_error_rate(run.noise.mixture_rate), vocab_size, "known")

    def claims(self) -> dict[str, Any]:
        return {"loss": self.name, "error_rate": self.error_rate}

    def told(self, facts: Mapping[str, Any], task: str, error_rate: float | None = None) -> str:
        rate = facts.get("error_rate")
        shown = f"e = {rate:.4g}" if isinstance(rate, Real) else "e learned with the model" if rate is None else rate
        return _SENTENCE.format(f"{shown} ({facts.get('source', 'known')})")


class CorrectedNLL(Bound):
    """`Corrected` in a run. `rate` is e (a float), or a module that learns it; `source` says where e comes from."""

    name = "corrected"
    module_name = "hf_noise_error_rate"
    # A learned error rate has to travel far compared with a weight, and Adam moves both by the learning rate at most.
    learning_rate = 10.0

    def __init__(self, rate: Any, vocab_size: int, source: str):
        from hf_noise.losses import clean_posterior, corrected_nll

        self._loss, self._posterior = corrected_nll, clean_posterior
        self.rate, self.vocab_size, self.source = rate, vocab_size, source
        self.module = rate if callable(rate) else None

    @property
    def error_rate(self) -> float:
        """e as a number; reading a learned one makes the device wait."""
        return self.rate if self.module is None else float(self.rate().item())

    def facts(self) -> dict[str, Any]:
        return {"error_rate": self.error_rate, "source": self.source}

    def logged(self) -> dict[str, float]:
        return {} if self.module is None else {"learned_error_rate": self.error_rate}

    def _rate(self) -> Any:
        return self.rate if self.module is None else self.rate()

    def __call__(self, nll: Tensor) -> Tensor:
        return self._loss(nll, error_rate=self._rate(), vocab_size=self.vocab_size)

    def clean_posterior(self, nll: Tensor) -> Tensor:
        """p(target is clean) of each."""
        return self._posterior(nll, error_rate=self._rate(), vocab_size=self.vocab_size)
