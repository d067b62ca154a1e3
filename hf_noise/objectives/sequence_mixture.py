"""Rows that another model wrote among the targets of a model of sequences, as a mixture of two writers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hf_noise.noise.checks import check_choice, check_count
from hf_noise.noise.rates import check_error_rate
from hf_noise.objectives.base import Bound, Forward, Objective, RunContext, real_in
from hf_noise.objectives.told_apart import NOT_OVERTAKEN, ToldApart, by_groups

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SequenceMixture"]

_SENTENCE = (
    "the likelihood of each row's whole target as clean or written by another model, {}, {}, after {:.3g}% of the "
    "steps."
)
_BY_SCORES = (
    "the NLL of each row times the posterior that it is clean and not written by another model, {}, {}, after {:.3g}% "
    "of the steps."
)
_OTHERS = {
    "teacher": "with q the teacher's", "unigram": "with q a unigram model's that is learned",
    "learned": "told by what the row gained over the model as it stood early",
}  # fmt: skip
_EVIDENCE = ("auto", "likelihood", "scores")


@dataclass(frozen=True)
class SequenceMixture(Objective):
    """The likelihood of each row's whole target as clean or written by another model, which then teaches nothing.

    A target that another model q wrote with probability e has the likelihood (1 - e) p + e q as a whole, see
    `hf_noise.losses.sequence_mixture_nll`. Its gradient is that of p, times the posterior that the row is clean. Before
    its start the plain likelihood is minimised.

    That holds where q is what the rows were drawn from, and once the model finds rows likelier than q does: it begins
    then, and not before its start. A model that wrote what it finds most likely (greedy, beams) did not draw from its
    q. Its rows are told by their score, -log q a token, which is far below that of other rows: two normals of one width
    are fitted to recent scores, and the loss is -w log p of each row, w its posterior.

    Without a teacher at hand, q is the model itself as it stood early, at half the start: a model that was trained for
    a short time writes like it. The score of a row is how much likelier it became per token since. What people wrote
    goes on to be learned; what a short training wrote is known by then, or was drawn at random and cannot be learned.
    So half the start should be about as long as the other was trained: a copy that does not know yet what it writes
    takes its rows for those that are learned, and of a writer nearly as good as the model nothing can be told.

    Args:
        error_rate: share e of the rows that the other one wrote: "known" takes it from the noise of the run, "learned"
            fits one number, a number in [0, 1) states it. Where rows are told apart by scores that number is a weight,
            drawn to 0.3, and no estimate of e: an audit after training has one, `SequenceScores.error_rate`.
        other: who wrote them: "teacher", whose likelihood of each row is in the column `teacher_nll` (-log q of the
            whole row, in nats); "unigram", a table of tokens that is learned beside the model, before the start from
            all rows; "learned", an early copy of the model. The copy takes as much memory as the model and one forward
            pass more, a third of a step, and stands in checkpoints.
        evidence: how the teacher's rows are told apart: "likelihood" for targets drawn at random, "scores" for those
            that it finds most likely, "auto" by the decoding that the noise states. With another `other`, "auto".
        start: share of the training steps in [0, 1) after which it begins.
        memory: steps of which the scores are remembered, in [1, 2^15]: a step's weigh 1 - 1 / memory times those of the
            next.

    Raises:
        ValueError: a value is out of its range; in a run, e is to be known and is not, or "auto" has no decoding to go
            by; in training, rows have no column `teacher_nll`, or one that is negative or not finite (looked at on a
            CPU).
        TypeError: a value is of another type.

    Source: Dempster, Laird and Rubin 1977; two groups of losses as in Arazo et al., ICML 2019, and Li et
        al., ICLR 2020. The early copy is ours.
    """

    error_rate: float | Literal["known", "learned"] = "known"
    other: Literal["teacher", "unigram", "learned"] = "teacher"
    evidence: Literal["auto", "likelihood", "scores"] = "auto"
    start: float = 0.2
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
        if self.other != "teacher" and self.evidence != "auto":
            raise ValueError(f'evidence must be "auto" with other="{self.other}", got "{self.evidence}"; it is about '
                             "the teacher's likelihood")  # fmt: skip
        object.__setattr__(self, "start", real_in("start", self.start, "[0, 1)"))
        object.__setattr__(self, "memory", check_count("memory", self.memory, 1, 15))

    @property
    def needs_columns(self) -> tuple[str, ...]:
        return ("teacher_nll",) if self.other == "teacher" else ()

    @property
    def learns(self) -> str | None:
        of_rate = self.error_rate == "learned" and self.other != "learned" and self.evidence != "scores"
        asked = ['error_rate="learned"'] * of_rate + [f'other="{self.other}"'] * (self.other != "teacher")
        return " and ".join(asked) or None

    @property
    def sentence(self) -> str:
        stated = {"known": "e of the noise (known)", "learned": "e learned with the model (learned)"}
        is_by_scores = self.other == "learned" or self.evidence == "scores"
        return self._told(stated.get(self.error_rate) or f"e = {self.error_rate:.4g} (assumed)",
                          _BY_SCORES if is_by_scores else _SENTENCE)  # fmt: skip

    def told(self, facts: Mapping[str, Any], task: str, error_rate: float | None = None) -> str:
        rate, is_by_scores = facts.get("error_rate"), facts.get("evidence") == "scores"
        shown = f"e = {rate:.4g} ({facts.get('source', 'known')})" if isinstance(rate, Real) else \
            "e not known" if is_by_scores else "e learned with the model (learned)"  # fmt: skip
        said = self._told(shown, _BY_SCORES if is_by_scores else _SENTENCE)
        if facts.get("has_begun") == 0:
            why = "no step came after that" if is_by_scores else NOT_OVERTAKEN
            said += f" It never began: {why}. What was minimised is the plain likelihood."
        return said

    def _told(self, rate: str, sentence: str) -> str:
        return sentence.format(_OTHERS[self.other], rate, 100 * self.start)

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
    """`SequenceMixture` in a run; it is on unless a trainer says that the start is still to come.

    Attributes:
        by_scores: rows are told apart by scores, not by the two likelihoods.
    """

    module_name = "hf_noise_sequences"
    keeps_frozen = True
    # What is learned has to travel far compared with a weight, and Adam moves both by the learning rate at most.
    learning_rate = 30.0

    def __init__(self, objective: SequenceMixture, run: RunContext):
        from hf_noise.losses import sequence_mixture as losses

        self._losses, self.objective, self.is_on = losses, objective, True
        rate = objective.error_rate
        self.source = "learned" if rate == "learned" else "known" if rate == "known" else "assumed"
        self._rate = run.noise.error_rate if rate == "known" else rate
        self._model = run.model
        self.by_scores = self._rate != 0 and _by_scores(objective, run)
        self.module = None if self._rate == 0 else _module(objective, self._rate, self.by_scores, run)

    @property
    def error_rate(self) -> float | None:
        """e as a number; reading a learned one makes the device wait. None of scores, whose share is no estimate."""
        if self.source != "learned":
            return self._rate
        return None if self.by_scores else float(self.module.share().item())

    @property
    def _copy(self) -> Any:
        return None if self.module is None else self.module.early

    def before_step(self, progress: float) -> None:
        start = self.objective.start
        self.is_on = progress >= start
        if self._copy is not None and progress >= start / 2 and not self._copy.is_there:
            self._copy.take(self._model)
        if self.module is not None:
            self.module.scores.begin()
            if self.is_on:
                self.is_on = self.module.scores.settled()

    def after_step(self, accelerator: Any) -> None:
        if self.module is not None:
            self.module.scores.settle(accelerator.reduce)

    def facts(self) -> dict[str, Any]:
        by = {} if self.module is None else {"evidence": "scores" if self.by_scores else "likelihood"}
        never = {"has_begun": 0.0} if self.by_scores and not self.module.scores.is_fitted else {}
        facts = {"source": self.source, "error_rate": self.error_rate, "other": self.objective.other}
        return facts | by | never | self._state()

    def logged(self) -> dict[str, float]:
        rate = self.error_rate if self.source == "learned" else None
        return ({} if rate is None else {"learned_error_rate": rate}) | self._state()

    def _state(self) -> dict[str, float]:
        """How far apart the two groups of scores are, or whether the likelihoods are used yet."""
        if self.module is None:
            return {}
        if not self.by_scores:
            return {"has_begun": float(self.module.scores.has_begun.item())}
        if not self.module.scores.is_fitted:
            return {}
        state = {"separation": float(self.module.scores.separation.item())}
        return state | ({"other_weight": float(self.module.share().item())} if self.source == "learned" else {})

    def of_other(self, targets: Tensor, forward: Forward) -> Tensor:
        """-log q of each row's whole target under the other writer, float [B]; NaN under a copy that is to be taken."""
        if self.objective.other == "teacher":
            return _checked(forward.inputs["teacher_nll"], forward.sample_ids)
        is_target = targets >= 0
        if self.module is None:  # e is 0: no one else wrote
            return targets.new_full(targets.shape[:1], float("nan"), dtype=self._losses.exact_dtype(targets))
        if self.objective.other == "unigram":
            return self._losses.row_sums(self.module.text(targets), is_target)
        if not self._copy.is_there:
            return targets.new_full(targets.shape[:1], float("nan"), dtype=self._losses.exact_dtype(targets))
        return self._losses.row_sums(forward.nll_under(self._copy.network), is_target)

    def check_can_tell(self) -> None:
        """Raise ValueError: rows cannot be told apart yet."""
        if self._copy is not None and not self._copy.is_there:
            raise ValueError(
                "rows are told apart by what they gained over an early copy of the model, and this trainer has none: "
                f"it is taken after {50 * self.objective.start:g}% of the steps, and stands in checkpoints "
                "(train(resume_from_checkpoint=...)), not in a saved model"
            )

    def told_apart(self, nll: np.ndarray, of_other: np.ndarray, targets: np.ndarray) -> ToldApart:
        """How likely rows are clean, by their `nll` and `of_other` [N] in nats and `targets` [N] each.

        Where rows are told apart by scores, two groups are fitted to those of these rows, which have to be all that
        the model is trained on, or drawn from them: recent scores of training are of a model that was another one a
        moment ago. Of a row without a target the odds are what is known of all, and +inf where nobody else wrote.
        """
        if self.module is None:
            return ToldApart(np.full(len(nll), math.inf), {}, None)
        if self.by_scores:
            share = None if self.source == "learned" else self._rate
            return by_groups(self._scores(nll, of_other, np.maximum(targets, 1)), targets, share)
        log_clean, log_other = (float(one) for one in self._log_shares())
        doubt = None if self.module.scores.has_begun else NOT_OVERTAKEN
        return ToldApart((log_clean - nll) - (log_other - of_other), {}, doubt)

    def _scores(self, own: Any, other: Any, n: Any) -> Any:
        """What tells rows apart, in nats a token, high of the other's rows."""
        gained = 0 if self.objective.other == "teacher" and self.by_scores else own
        return (gained - other) / n

    def _log_shares(self) -> Any:
        rate = self.module.share() if self.source == "learned" else self._rate
        return self._losses.log_shares("error_rate", rate, "it is the share of rows that another model wrote")

    def __call__(self, nll: Tensor, targets: Tensor, forward: Forward) -> Tensor:
        if self.module is None or (self._copy is not None and not self._copy.is_there):
            return nll
        is_target, losses = targets >= 0, self._losses
        own, other, n = losses.row_sums(nll, is_target), self.of_other(targets, forward), is_target.sum(-1)
        scores = self._scores(own.detach(), other.detach(), n.clamp(min=1))
        if self.module.training:
            self.module.scores.add(scores, n > 0)
        if self.by_scores:
            return nll * self.module.scores.clean_posterior(scores).to(nll.dtype).unsqueeze(-1) if self.is_on else nll
        plain = nll + losses.spread_rows(other, nll, is_target) if self.objective.other == "unigram" else nll
        if not self.is_on:
            return plain + self.module.nothing()
        mixed = losses.mixed_rows(nll, other, is_target, *self._log_shares())
        return mixed.where(self.module.scores.has_begun, plain) + self.module.nothing()


def _by_scores(objective: SequenceMixture, run: RunContext) -> bool:
    """Whether scores tell rows apart. Raises ValueError: that depends on a decoding, and none is known."""
    if objective.other != "teacher":
        return objective.other == "learned"
    if objective.evidence != "auto":
        return objective.evidence == "scores"
    decoding = getattr(getattr(run.noise, "teacher", None), "decoding", None)
    if decoding is None:
        raise ValueError('evidence="auto" goes by how the teacher wrote, and the noise of the run does not say; give '
                         'evidence="likelihood" if it drew at random, "scores" if it wrote what it finds most '
                         "likely (greedy, beams)")  # fmt: skip
    return decoding.method != "sample"


def _module(objective: SequenceMixture, rate: Any, by_scores: bool, run: RunContext) -> Any:
    """What is kept beside the model."""
    from hf_noise.losses.learned_rate import LearnedErrorRate
    from hf_noise.losses.other_writer import EarlyCopy, OtherWriter, Unigram
    from hf_noise.losses.row_evidence import EXPECTED_SHARE, Overtaken, RecentScores

    if objective.other == "learned" and run.model is None:
        raise ValueError('other="learned" keeps a copy of the model, and there is none; give another other=')
    is_learned = rate == "learned"
    return OtherWriter(
        rate=LearnedErrorRate(EXPECTED_SHARE) if is_learned and not by_scores else None,
        text=Unigram(run.num_classes) if objective.other == "unigram" else None,
        scores=RecentScores(objective.memory, None if is_learned else rate) if by_scores
        else Overtaken(objective.memory),
        early=EarlyCopy(run.model) if objective.other == "learned" else None,
    ).to(run.device)  # fmt: skip


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
