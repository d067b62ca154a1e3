"""From the error rate of tokens to what to expect of a language model on clean text, by the laws of paper A."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_noise.analysis.nll_floor import binary_entropy, calibration_floor, noisy_nll
from hf_noise.audit.clean_accuracy import Span
from hf_noise.audit.measured import Measured
from hf_noise.noise.checks import check_count, check_real
from hf_noise.noise.rates import check_error_rate, ratio

if TYPE_CHECKING:
    from hf_noise.objectives import Objective

__all__ = ["TokenOption", "TokenPlan", "plan_tokens"]

#: Nats by which the laws miss the four runs of paper A's table 8 at most, when its noisy NLL is all that is told: the
#: two at r = 0.1 and 1 by 0.04, those at 0.5 by 0.06 and at 0.3 by 0.12.
LAW_MISS = 0.12
_PLACES, _HIGHEST = 33, 1 - 1e-9
_LAWS = (
    "laws of paper A: on uniform noise NLL = (1 - e) H + e ln V + H_b(e), and a model of the noisy targets loses up to "
    "-ln(1 - e) on clean ones"
)
_SPANS = f"the interval spans the interval of e, and {LAW_MISS:g} nats by which these laws missed the paper's own runs"


@dataclass(frozen=True)
class TokenOption:
    """One thing to do about wrong tokens.

    Attributes:
        name: "given", "corrected" or "more".
        does: in words.
        nll: on clean text, in nats per token; None where nothing predicts it.
        difference: of this NLL and that of "given", below 0 where it is better; None for "given" and "more".
        tokens: to train on, as a multiple of those of the run whose NLL was told.
        how: it is known.
    """

    name: str
    does: str
    nll: Span | None
    difference: Span | None
    tokens: float
    how: str


@dataclass(frozen=True)
class TokenPlan:
    """What to expect of each option.

    Attributes:
        options: "given" first.
        best: name of the option with the lowest predicted NLL.
        is_clear: whether it is clearly below that of "given": by more than the laws were ever found wrong.
        error_rate: that is corrected for.
    """

    options: tuple[TokenOption, ...]
    best: str
    is_clear: bool
    error_rate: float

    def objective(self) -> Objective:
        """What a trainer of ours takes as `loss` to follow the best option."""
        from hf_noise.objectives import NLL, Corrected

        return Corrected(error_rate=self.error_rate) if self.best == "corrected" else NLL()

    def summary(self) -> str:
        """All options as a table, and which is best, as text."""
        lines = [f"{'option':<10} {'clean NLL, nats':<24} {'beside given':<26} {'tokens':>7}  what it does"]
        for one in self.options:
            nll = "not predicted" if one.nll is None else "{:.3f} [{:.3f}, {:.3f}]".format(*one.nll)
            apart = "" if one.difference is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*one.difference)
            lines.append(f"{one.name:<10} {nll:<24} {apart:<26} {one.tokens:>6.2f}x  {one.does}")
        clear = f"best: {self.best}" + ", clearly" * self.is_clear
        unclear = "no option is clearly better than training on the tokens as they are"
        return "\n".join([*lines, clear if self.is_clear else unclear, *(f"{one.name}: {one.how}" for one in
                                                                          self.options)])  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "best": self.best, "is_clear": self.is_clear, "error_rate": self.error_rate,
            "objective": self.objective().to_dict(),
            "options": [
                {"name": one.name, "does": one.does, "tokens": one.tokens, "how": one.how,
                 "nll": None if one.nll is None else one.nll._asdict(),
                 "difference": None if one.difference is None else one.difference._asdict()} for one in self.options
            ],
        }  # fmt: skip


def plan_tokens(error_rate: Measured | float, *, nll: float, vocab_size: int) -> TokenPlan:
    """What to expect on clean text of a language model whose tokens are partly wrong, from its NLL on such tokens.

    Of a plainly trained model NLL(noisy) = (1 - e) H + e ln V + H_b(e), where H is what it would lose on clean text if
    it were told of the noise. So H follows from what can be measured without one clean token; training plainly costs up
    to -ln(1 - e) beyond it, the corrected objective does not. Noise takes a share e of the tokens: as many right ones
    as without noise take 1 / (1 - e) times the tokens.

    Args:
        error_rate: e in [0, 1), share of tokens drawn uniformly from the vocabulary; as a `Measured` with its interval.
        nll: nats per token of a plainly trained model on tokens as wrong as those of training, which it was not
            trained on.
        vocab_size: V >= 2.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: it is out of range, or the NLL is below what e leaves for a perfect model.

    Source: paper A, section 4.1 and table 8.

    >>> plan = plan_tokens(0.5, nll=7.6048, vocab_size=50257)    # paper A, table 8, r = 1
    >>> [round(one.nll.value, 3) for one in plan.options[:2]], plan.best     # 3.6525 was measured, plainly trained
    ([3.692, 2.998], 'corrected')
    """
    is_measured = isinstance(error_rate, Measured)
    e = check_error_rate(error_rate.value if is_measured else error_rate)
    ends = (error_rate.low, min(error_rate.high, _HIGHEST)) if is_measured else (e, e)
    size, nll = check_count("vocab_size", vocab_size, 2, 31), check_real("nll", nll)
    if not 0 <= nll < math.inf:
        raise ValueError(f"nll must be finite and >= 0, got {nll!r}; it is in nats per token")
    if nll < noisy_nll(0.0, e, size):
        raise ValueError(
            f"nll {nll:.4g} is below {noisy_nll(0.0, e, size):.4g}, what {e:.1%} of wrong tokens among "
            f"{size} cost a perfect model; measure it on tokens as wrong as the training's, or e anew"
        )
    # A rate under which the model would know more than there is to know is none.
    rates = [one for one in (e, *np.linspace(*ends, _PLACES)) if nll >= noisy_nll(0.0, one, size)]
    clean = [_clean(nll, one, size) for one in rates]
    floors = [calibration_floor(one) for one in rates]
    plain = [one + floor for one, floor in zip(clean, floors, strict=True)]
    floor = calibration_floor(e)
    given = Span(_clean(nll, e, size) + floor, max(min(plain) - LAW_MISS, 0.0), max(plain) + LAW_MISS)
    told = Span(_clean(nll, e, size), max(min(clean) - LAW_MISS, 0.0), max(clean) + LAW_MISS)
    # It is all that plain training can cost, and rare tokens are cheaper: less may be gained, more not.
    apart = Span(-floor, -max(floors), LAW_MISS - min(floors))
    how, tokens = f"{_LAWS}; {_SPANS}", 1 + ratio(e)
    options = (
        TokenOption("given", "train on the tokens as they are", given, None, 1.0, how),
        TokenOption("corrected", f"the corrected likelihood, with e = {e:.4g}", told, apart, 1.0, how),
        TokenOption("more", "as many right tokens as without noise", None, None, tokens,
                    "law of equal clean exposure, r + 1 = 1 / (1 - e) times the tokens; what they are worth depends on "
                    "how the NLL falls with the data, which one run does not tell"),
    )  # fmt: skip
    return TokenPlan(options, "corrected" if e > 0 else "given", apart.high < 0, e)


def _clean(nll: float, e: float, size: int) -> float:
    """H of `noisy_nll`."""
    return (nll - e * math.log(size) - binary_entropy(e)) / (1 - e)
