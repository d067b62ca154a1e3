"""Noise documents among the rows of a language model, as a mixture of two sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from hf_noise.noise.checks import check_choice
from hf_noise.objectives.base import Bound, Objective, RunContext, real_in

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DocumentMixture"]

_SENTENCE = (
    "the likelihood of each row as clean text or a document of noise, `-log((1 - alpha) exp(-L_c) + alpha exp(-L_n))` "
    "with L the row's NLL under the model and under the noise ({}), {}, after {:.3g}% of the steps."
)


@dataclass(frozen=True)
class DocumentMixture(Objective):
    """The likelihood of each row as clean text or a document of noise, see `hf_noise.losses.document_mixture_nll`.

    Rows teach as much as they are probably clean, by the model's own NLL against that of the noise. Before its start
    the plain likelihood is minimised: a model that knows nothing yet is worse on text than the noise is, would take
    every row for noise, and would never learn. A row that is part noise is taken as one or the other as a whole.

    Args:
        alpha: share of the rows that are noise: "known" takes it from the noise of the run, "learned" fits one number
            with the model, a number in [0, 1) states it.
        noise: distribution of the noise's tokens: "known" takes it from the noise of the run; "unigram" learns one,
            which begins as the uniform distribution at the start. It finds noise that the model predicts worse than the
            unigram does by then, such as uniform draws. What the model has learned to predict as well, such as a sharp
            peak of few tokens, is text to it, and a learned alpha is then far too small.
        start: share of the training steps in [0, 1) after which it begins.

    Raises:
        ValueError: a value is out of its range; in a run, alpha or the noise are to be known and are not.
        TypeError: a value is of another type.
    """

    alpha: float | Literal["known", "learned"] = "known"
    noise: Literal["known", "unigram"] = "known"
    start: float = 0.1

    name = "document-mixture"
    unit = "tokens"
    needs_targets = True

    def __post_init__(self) -> None:
        alpha = self.alpha
        if isinstance(alpha, str) and alpha not in ("known", "learned"):
            raise ValueError(f'alpha must be "known", "learned" or a number in [0, 1), got {alpha!r:.80}')
        object.__setattr__(self, "alpha", str(alpha) if isinstance(alpha, str) else real_in("alpha", alpha, "[0, 1)"))
        known = ("known", "unigram")
        object.__setattr__(self, "noise", check_choice("noise", self.noise, known, '"known" or "unigram"'))
        object.__setattr__(self, "start", real_in("start", self.start, "[0, 1)"))

    @property
    def learns(self) -> str | None:
        asked = ['alpha="learned"'] * (self.alpha == "learned") + ['noise="unigram"'] * (self.noise == "unigram")
        return " and ".join(asked) or None

    @property
    def sentence(self) -> str:
        stated = {"known": "alpha of the noise (known)", "learned": "alpha learned with the model (learned)"}
        return self._told(stated.get(self.alpha) or f"alpha = {self.alpha:.4g} (assumed)")

    def told(self, facts: Mapping[str, Any], task: str, error_rate: float | None = None) -> str:
        alpha = facts.get("alpha")
        shown = f"alpha = {alpha:.4g}" if isinstance(alpha, Real) else "alpha learned with the model"
        return self._told(f"{shown} ({facts.get('source', 'known')})")

    def _told(self, alpha: str) -> str:
        of_noise = {"known": "known", "unigram": "a unigram model that is learned"}[self.noise]
        return _SENTENCE.format(of_noise, alpha, 100 * self.start)

    def bound(self, run: RunContext) -> DocumentMixtureNLL:
        is_document = run.noise is not None and run.noise.unit == "documents"
        named = "the trainer was given none" if run.noise is None else f"{type(run.noise).__name__} is noise on " \
            f"{run.noise.unit}"  # fmt: skip
        if self.alpha == "known" and not is_document:
            raise ValueError(f'alpha="known" takes the share from a noise of documents, and {named}; give alpha= a '
                             'number or "learned"')  # fmt: skip
        if self.noise == "known" and not is_document:
            raise ValueError(f'noise="known" takes the distribution of a noise of documents, and {named}; give '
                             'noise="unigram"')  # fmt: skip
        if self.alpha == "known" and run.noise.alpha == 0 and not run.was_given:
            raise ValueError(
                'alpha="known" would look for no noise at all: the rows say that none was added to them (alpha = 0), '
                'not that all of them are text; give alpha= a number (0 if meant) or "learned"'
            )
        return DocumentMixtureNLL(self, run)


class DocumentMixtureNLL(Bound):
    """`DocumentMixture` in a run; it is on unless a trainer says that the start is still to come."""

    module_name = "hf_noise_documents"
    # A learned share has to travel far compared with a weight, and Adam moves both by the learning rate at most; it
    # sees rows, of which a batch has few.
    learning_rate = 30.0

    def __init__(self, objective: DocumentMixture, run: RunContext):
        from hf_noise.losses.document_mixture import LearnedDocuments, document_mixture_nll, noise_nll, noise_table

        self._loss, self._noise_nll, self.objective, self.is_on = document_mixture_nll, noise_nll, objective, True
        is_learned, is_unigram = objective.alpha == "learned", objective.noise == "unigram"
        self.source = "learned" if is_learned else "known" if objective.alpha == "known" else "assumed"
        self._alpha = run.noise.alpha if objective.alpha == "known" else objective.alpha
        if not is_unigram:
            self._table = noise_table(run.noise.probabilities(), run.num_classes).to(run.device)
        if is_learned or is_unigram:
            vocab_size = run.num_classes if is_unigram else None
            self.module = LearnedDocuments(alpha=is_learned, vocab_size=vocab_size).to(run.device)

    @property
    def alpha(self) -> float:
        """The share as a number; reading a learned one makes the device wait."""
        return float(self.module.share().item()) if self.source == "learned" else self._alpha

    def before_step(self, progress: float) -> None:
        self.is_on = progress >= self.objective.start

    def facts(self) -> dict[str, Any]:
        return {"source": self.source, "alpha": self.alpha, "noise": self.objective.noise}

    def logged(self) -> dict[str, float]:
        return {"learned_alpha": self.alpha} if self.source == "learned" else {}

    def noise_nll(self, targets: Tensor) -> Tensor:
        """-log p of each target under the noise, float32 [B, L]; 0 where there is none, +inf for what it never is."""
        table = self.module.table() if self.objective.noise == "unigram" else self._table
        return self._noise_nll(table, targets)

    def __call__(self, nll: Tensor, targets: Tensor) -> Tensor:
        if not self.is_on:
            return nll if self.module is None else nll + self.module.nothing()
        alpha = self.module.share() if self.source == "learned" else self._alpha
        return self._loss(nll, self.noise_nll(targets), targets >= 0, alpha)
