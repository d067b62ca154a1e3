"""Rows that another model wrote among the targets of a model of sequences, as a mixture of two writers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hf_noise.noise.checks import check_choice, check_count
from hf_noise.noise.rates import check_error_rate
from hf_noise.objectives.base import Bound, Forward, Objective, RunContext, real_in

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SequenceMixture"]

_SENTENCE = (
    "the likelihood of each row's whole target as clean or written by another model, `-log((1 - e) p + e q)`, with q "
    "{}, {}, rows told apart by {}, after {:.3g}% of the steps."
)
_OTHERS = {
    "teacher": "the teacher's", "unigram": "a unigram model's that is learned",
    "learned": "a small model's that is learned",
}  # fmt: skip
_EVIDENCE = {"likelihood": "the two likelihoods", "scores": "two normals of their log-ratio per token"}


@dataclass(frozen=True)
class SequenceMixture(Objective):
    """The likelihood of each row's whole target as clean or written by another model, which then teaches nothing.

    A target that another model q wrote with probability e has the likelihood (1 - e) p + e q as a whole, see
    `hf_noise.losses.sequence_mixture_nll`. Its gradient is that of p, times the posterior that the row is clean. Before
    its start the plain likelihood is minimised.

    That likelihood finds p if q is what the rows were drawn from. A model that wrote what it finds most likely (greedy,
    beams) did not draw from its q: it gives its own writing a likelihood far below 1, and p, which may give it more,
    is best off by learning it too. Then the two likelihoods may order rows, and may not be taken at their word. So by
    default rows are told apart by scores: -log q a token, or its difference from -log p, whichever falls into two
    clearer groups, with two normals fitted to each as training goes; e is the share of the upper group. The loss is
    -w log p - (1 - w) log q of each row, w its posterior: EM, in which q learns what w leaves it.

    Which group is the other's is what q tells: it is small and learns first what is generic and repeats itself, as
    half-trained models write by greedy decoding. Such rows have LOWER losses than those of people, under p as well.

    Args:
        error_rate: share e of the rows that the other one wrote: "known" takes it from the noise of the run, "learned"
            fits one number, a number in [0, 1) states it.
        other: who wrote them: "teacher", whose likelihood of each row is in the column `teacher_nll` (-log q of the
            whole row, in nats); "unigram", a table of tokens, or "learned", a small model of the last tokens and the
            words of the source (of an encoder-decoder), which are learned beside the model, before the start from all
            rows.
        evidence: how rows are told apart: "scores", or "likelihood" for the formula as it stands, which is right for
            targets drawn at random (temperature 1).
        start: share of the training steps in [0, 1) after which it begins.
        memory: steps of which the scores are remembered, in [1, 2^15]: a step's weigh 1 - 1 / memory times those of the
            next.

    Raises:
        ValueError: a value is out of its range; in a run, e is to be known and is not; in training, rows have no column
            `teacher_nll`, or one that is negative or not finite (looked at on a CPU).
        TypeError: a value is of another type.

    Source: Dempster, Laird and Rubin 1977; two groups of losses as in Arazo et al., ICML 2019, and Li et
        al., ICLR 2020.
    """

    error_rate: float | Literal["known", "learned"] = "known"
    other: Literal["teacher", "unigram", "learned"] = "teacher"
    evidence: Literal["scores", "likelihood"] = "scores"
    start: float = 0.1
    memory: int = 100

    name = "sequence-mixture"
    unit = "tokens"
    needs_targets = True
    needs_forward, needs_features = True, False

    def __post_init__(self) -> None:
        rate = self.error_rate
        if isinstance(rate, str) and rate not in ("known", "learned"):
            raise ValueError(f'error_rate must be "known", "learned" or a number in [0, 1), got {rate!r:.80}')
        object.__setattr__(self, "error_rate", str(rate) if isinstance(rate, str) else check_error_rate(rate))
        for name, allowed in (("other", _OTHERS), ("evidence", _EVIDENCE)):
            said = " or ".join(f'"{word}"' for word in allowed)
            object.__setattr__(self, name, check_choice(name, getattr(self, name), tuple(allowed), said))
        object.__setattr__(self, "start", real_in("start", self.start, "[0, 1)"))
        object.__setattr__(self, "memory", check_count("memory", self.memory, 1, 15))

    @property
    def needs_columns(self) -> tuple[str, ...]:
        return ("teacher_nll",) if self.other == "teacher" else ()

    @property
    def learns(self) -> str | None:
        of_rate = self.error_rate == "learned" and self.evidence == "likelihood"
        asked = ['error_rate="learned"'] * of_rate + [f'other="{self.other}"'] * (self.other != "teacher")
        return " and ".join(asked) or None

    @property
    def sentence(self) -> str:
        stated = {"known": "e of the noise (known)", "learned": "e learned with the model (learned)"}
        return self._told(stated.get(self.error_rate) or f"e = {self.error_rate:.4g} (assumed)")

    def told(self, facts: Mapping[str, Any], task: str, error_rate: float | None = None) -> str:
        rate = facts.get("error_rate")
        shown = f"e = {rate:.4g}" if isinstance(rate, Real) else "e learned with the model"
        return self._told(f"{shown} ({facts.get('source', 'known')})")

    def _told(self, rate: str) -> str:
        return _SENTENCE.format(_OTHERS[self.other], rate, _EVIDENCE[self.evidence], 100 * self.start)

    def bound(self, run: RunContext) -> SequenceMixtureNLL:
        if self.error_rate == "known":
            is_fit = run.noise is not None and run.noise.unit == "sequences"
            named = "the trainer was given none" if run.noise is None else f"{type(run.noise).__name__} is noise on " \
                f"{run.noise.unit}"  # fmt: skip
            if not is_fit:
                raise ValueError(f'error_rate="known" takes e from a noise of sequences, and {named}; give error_rate= '
                                 'a number or "learned"')  # fmt: skip
            if run.noise.error_rate == 0 and not run.was_given:
                raise ValueError(
                    'error_rate="known" would look for no noise at all: the rows say that none was added to them '
                    '(e = 0), not that all are right; give error_rate= a number (0 if meant) or "learned"'
                )
        return SequenceMixtureNLL(self, run)


class SequenceMixtureNLL(Bound):
    """`SequenceMixture` in a run; it is on unless a trainer says that the start is still to come."""

    module_name = "hf_noise_sequences"

    def __init__(self, objective: SequenceMixture, run: RunContext):
        from hf_noise.losses import sequence_mixture as losses

        self._losses, self.objective, self.is_on = losses, objective, True
        rate = objective.error_rate
        self.source = "learned" if rate == "learned" else "known" if rate == "known" else "assumed"
        self._rate = run.noise.error_rate if rate == "known" else rate
        # What is learned has to travel far compared with a weight, and Adam moves both by the learning rate at most.
        self.learning_rate = 3.0 if objective.other == "learned" else 30.0
        self.module = _module(objective, self._rate, run)

    @property
    def error_rate(self) -> float | None:
        """e as a number; reading a learned one makes the device wait. None before rows were told apart by scores."""
        if self.source != "learned":
            return self._rate
        return None if self._scores is not None and not self._scores.is_fitted else float(self.module.share().item())

    @property
    def _scores(self) -> Any:
        return None if self.module is None else self.module.scores

    def before_step(self, progress: float) -> None:
        self.is_on = progress >= self.objective.start
        if self._scores is not None:
            self._scores.begin()
            self.is_on = self.is_on and self._scores.has_seen
            if self.is_on:
                self._scores.fit()

    def after_step(self, accelerator: Any) -> None:
        if self._scores is not None:
            self._scores.settle(accelerator.reduce)

    def facts(self) -> dict[str, Any]:
        facts = {"source": self.source, "error_rate": self.error_rate, "other": self.objective.other}
        return facts | self._separation()

    def logged(self) -> dict[str, float]:
        rate = self.error_rate if self.source == "learned" else None
        return ({} if rate is None else {"learned_error_rate": rate}) | self._separation()

    def _separation(self) -> dict[str, float]:
        known = self._scores is not None and self._scores.is_fitted
        return {"separation": float(self._scores.separation.item())} if known else {}

    def of_other(self, targets: Tensor, forward: Forward) -> Tensor:
        """-log q of each row's whole target under the other writer, float [B]."""
        if self.objective.other == "teacher":
            return _checked(forward.inputs["teacher_nll"], forward.sample_ids)
        is_target = targets >= 0
        nll = self.module.text(targets, forward.inputs.get("input_ids"), forward.inputs.get("attention_mask"))
        return self._losses.row_sums(nll, is_target)

    def clean_posterior(self, nll: Tensor, targets: Tensor, forward: Forward) -> Tensor:
        """p(row is clean) [B], of the arguments of a call, without gradient."""
        own, other = self._losses.row_sums(nll, targets >= 0).detach(), self.of_other(targets, forward).detach()
        return self._posterior(own, other, (targets >= 0).sum(-1))

    def _posterior(self, own: Tensor, other: Tensor, n: Tensor) -> Tensor:
        if self._scores is not None:
            return self._scores.clean_posterior(own, other, n)
        log_clean, log_other = self._log_shares()
        return ((log_clean - own) - (log_other - other)).sigmoid()

    def _log_shares(self) -> Any:
        rate = self.module.share() if self.source == "learned" else self._rate
        return self._losses.log_shares("error_rate", rate, "it is the share of rows that another model wrote")

    def __call__(self, nll: Tensor, targets: Tensor, forward: Forward) -> Tensor:
        is_target, losses, is_learned = targets >= 0, self._losses, self.objective.other != "teacher"
        other, own, n = self.of_other(targets, forward), losses.row_sums(nll, is_target), is_target.sum(-1)
        if self._scores is not None and self.module.training:
            self._scores.add(own, other, n)
        if not self.is_on:  # both learn from all rows
            rows = other if is_learned else 0 * own
            beside = losses.spread_rows(rows, nll, is_target)
            return nll + beside + (0 if self.module is None else self.module.nothing())
        if self._scores is None:
            return losses.mixed_rows(nll, other, is_target, *self._log_shares())
        clean = self._posterior(own.detach(), other.detach(), n)
        weighed = nll * clean.to(nll.dtype).unsqueeze(-1)
        return weighed + losses.spread_rows((1 - clean) * other, nll, is_target) if is_learned else weighed


def _module(objective: SequenceMixture, rate: Any, run: RunContext) -> Any:
    """What is kept beside the model, None for nothing."""
    from hf_noise.losses.learned_rate import LearnedErrorRate
    from hf_noise.losses.other_writer import INITIAL_SHARE, OtherWriter, SmallWriter, Unigram
    from hf_noise.losses.row_evidence import RowEvidence

    is_learned, by_scores = rate == "learned", objective.evidence == "scores" and rate != 0
    text = None
    if objective.other == "unigram":
        text = Unigram(run.num_classes)
    elif objective.other == "learned":
        has_source = bool(getattr(getattr(run.model, "config", None), "is_encoder_decoder", False))
        text = SmallWriter(run.num_classes, run.model.get_input_embeddings().num_embeddings if has_source else None)
    scores = RowEvidence(objective.memory, None if is_learned else rate) if by_scores else None
    share = LearnedErrorRate(INITIAL_SHARE) if is_learned and not by_scores else None
    if text is None and scores is None and share is None:
        return None
    return OtherWriter(rate=share, text=text, scores=scores).to(run.device)


def _checked(teacher_nll: Tensor, sample_ids: Tensor | None) -> Tensor:
    """The column, or a ValueError that names the row; on a GPU, where looking would make it wait, as it is."""
    from hf_noise.losses.checks import looked_at

    array = looked_at(teacher_nll)
    if array is not None and not (is_fit := np.isfinite(array) & (array >= 0)).all():
        row = int(np.flatnonzero(~is_fit)[0])
        named = f"row {row} of the batch" if sample_ids is None else f"sample_id {int(sample_ids[row])}"
        raise ValueError(f"teacher_nll must be finite and >= 0, got {array[row]} ({named}); it is the NLL in nats of "
                         "the whole row under the teacher")  # fmt: skip
    return teacher_nll
