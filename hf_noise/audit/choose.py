"""Which estimator speaks, what it says of each row, and how sure the rate is: a rule that never looks at the truth.

1. Labels under class-conditional noise are fitted (`em_sharpness`). If that explains them no better, to 0.01 nats per
   row, than the classifier itself does with no noise at all, the classifier is calibrated for the given labels: then
   labels alone do not tell the rate, and the sharpest of the equally likely explanations (`unmixed_anchors`) stands in.
2. It is asked whether hard rows are mislabelled more often than that explains (`difficulty_score`). If they are, by
   three standard errors, `agreement` speaks, which lets noise grow with difficulty. If not, the fit does, unless the
   harder rows are the cleaner ones by as much: then the form of `em_sharpness` is wrong too, in the other direction,
   and `agreement` speaks as well.
3. A fit has a rate for each pair of classes, and explains labels the better the more of these there are. Unless it
   explains rows that it has not seen better by 0.01 nats, or, where all are needed to fit, those that it has seen by as
   much beyond what the number of pairs explains of itself, no noise at all is as likely: the interval goes down to 0.
4. The interval covers what the data cannot decide, and sampling comes on top. It spans the ranges of the estimators.
   Once class-conditional noise is refuted, the fit reads too little, so that its rate is but a lower bound, and the
   range of `agreement` is widened by half its length each way: its readings are few and share their assumptions.
   Where another naming of the true classes would leave fewer labels wrong, it reaches down to that naming's rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import norm

from hf_noise.audit.checks import check_labels, knows_nothing, looks_in_sample
from hf_noise.audit.class_names import check_class_names
from hf_noise.audit.difficulty import difficulty_score
from hf_noise.audit.estimators.class_conditional import Fit
from hf_noise.audit.estimators.em import fit_em
from hf_noise.audit.estimators.joint import count_confident
from hf_noise.audit.estimators.noise_estimate import NoiseEstimate
from hf_noise.audit.estimators.rows import Rows
from hf_noise.audit.estimators.sure_rows import fit_agreement
from hf_noise.audit.estimators.unmixed import Calibrated, unmixed_anchors
from hf_noise.audit.lists import default_list, list_at_fdr
from hf_noise.audit.measured import Measured, told_parts
from hf_noise.metrics.intervals import check_confidence

__all__ = ["ChosenEstimate", "choose_estimate", "warnings_of_rows"]

#: Standard errors that refute class-conditional noise, and the rows that are asked: more would refute a trifle.
_REFUTED, _TEST_ROWS = 3.0, 50_000
#: Nats per row by which noise has to explain the labels better than the classifier alone. On features of text and
#: images with drawn noise it is 0.02 and more, for calibrated classifiers 0.007 at most.
_EXPLAINED = 0.01
#: Rates that differ by this factor, and by this share of the rows, are not of one mind.
_APART, _APART_ROWS = 2.0, 0.02
_MOST_CLASSES = 200
#: Shares of the wrong labels that are spread evenly where unseen rows are explained: rare confusions are badly known.
_SPREAD = (0.0, 0.5, 0.9)
#: A class is hardly told from one that it is labelled as nearly as often as itself.
_CLEARLY = 0.1
_IN_SAMPLE = (
    "the classifier finds nearly every given label again: either the labels are almost all right, or it was trained on "
    "the very rows that it judges, where its probabilities say nothing; cross-validate it"
)
_NOTHING = (
    "the classifier's first class meets the given label no more often than by chance, so that it says nothing of the "
    "noise; use features or a model that tell the classes apart"
)
_CALIBRATED = (
    "the classifier foretells the given labels as well as any noise explains them (so does one that was trained on the "
    "very rows that it judges: cross-validate it), so that labels alone do not tell "
    "the rate: the rate, p_wrong and the share of false alarms are those of the sharpest explanation, and they hold "
    "only if every class has unmistakable rows; verify some rows"
)
_CALIBRATED_ROWS = (
    "the classifier foretells the given labels as well as any noise explains them, so that which of the rows that "
    "nobody looked at are wrong, and what they are instead, is the sharpest explanation's word"
)
_TOO_FEW = (
    "noise explains the labels no better than so many rates of confusions would explain any of so few rows, so that "
    "labels alone do not show that any are wrong; verify some rows, or audit more"
)
_REPEATED = "mistakes in the labels that the classifier repeats are invisible to it"


@dataclass(frozen=True)
class ChosenEstimate:
    """What labels and probabilities say of the noise.

    Attributes:
        error_rate: share of wrong labels, with an interval that includes what cannot be identified, and how it is
            known.
        joint: float64 [C, C], p(clean = i, noisy = j).
        transition, transition_low, transition_high: T [C, C] and an interval for each cell.
        prior: p(clean = i), float64 [C].
        p_wrong: float64 [N], calibrated probability that the given label is wrong.
        suggested: int64 [N], the most probable true class; the given label where that is none other.
        chosen: the estimate that speaks.
        others: the further ones that were asked, without their posteriors.
        difficulty: the score of `difficulty_score`.
        warnings: what a user should know, in words; empty if nothing.
        is_refuted: whether labels are wrong by more than their true class, as the score says.
    """

    error_rate: Measured
    joint: np.ndarray
    transition: np.ndarray
    transition_low: np.ndarray
    transition_high: np.ndarray
    prior: np.ndarray
    p_wrong: np.ndarray
    suggested: np.ndarray
    chosen: NoiseEstimate
    others: tuple[NoiseEstimate, ...]
    difficulty: float
    warnings: tuple[str, ...]
    is_refuted: bool

    def flagged(self, fdr: float | None = None) -> np.ndarray:
        """Rows to look at, bool [N]: the list of the largest expected F1, or the longest one at this share of false
        alarms in [0, 1]."""
        return default_list(self.p_wrong) if fdr is None else list_at_fdr(self.p_wrong, fdr)


def choose_estimate(
    labels: Any, probabilities: Any, *, confidence: float = 0.95, class_names: Sequence[str] | None = None
) -> ChosenEstimate:
    """Estimate label noise by the rule above.

    Args:
        labels: given labels, integers [N] in [0, C), every class at least once, N >= 2 C.
        probabilities: out-of-fold, real numbers [N, C], rows sum to 1 (to within 2e-3).
        confidence: of the intervals, in (0, 1); it concerns sampling, what cannot be identified is in them whole.
        class_names: C texts, what warnings call classes; by default their numbers.

    Raises:
        TypeError: labels are no integers, probabilities or confidence no real numbers, or names no texts.
        ValueError: as `hf_noise.audit.checks.check_labels`, more than 200 classes, another confidence, or names that
            are not C or cannot be told apart.
    """
    confidence = check_confidence(confidence)
    y, p = check_labels(labels, probabilities)
    names = [f"class {i}" for i in range(p.shape[1])]
    if class_names is not None:
        names = [repr(name) for name in check_class_names(class_names)]
        if len(names) != p.shape[1]:
            raise ValueError(f"class_names are {len(names)}, and there are {p.shape[1]} columns of probabilities")
    if p.shape[1] > _MOST_CLASSES:
        raise ValueError(f"probabilities are of {p.shape[1]} classes, and the estimates take at most {_MOST_CLASSES}: "
                         "a step costs rows times the square of the classes; audit groups of classes")  # fmt: skip
    rows, asked = Rows.sample(y, p), Rows.sample(y, p, _TEST_ROWS)
    fits, (fitted, fit), calibrated = [], fit_em(y, p, rows), Calibrated(rows)
    is_calibrated = calibrated.value - fit.value < _EXPLAINED
    is_possibly_clean = is_calibrated or _gain(fit, calibrated, rows, Rows.unseen(y, p)) < _EXPLAINED
    # The posterior of half a million rows takes as much memory as all else: none is kept but of the one that speaks.
    if is_calibrated:
        fitted = replace(fitted, posterior=None)
        fits = [fitted]
        fitted, unmixed = unmixed_anchors(y, p, rows, calibrated)
        fit, asked = unmixed.fit, unmixed.rows(asked)
    score = difficulty_score(fit, asked)
    is_refuted = score <= -_REFUTED or (score >= _REFUTED and not is_calibrated)
    fits.insert(0, replace(fitted, posterior=None) if is_refuted else fitted)
    del fitted
    by_row = fit_agreement(y, p, rows, is_kept=is_refuted)
    ranked = [by_row, *fits] if is_refuted else [*fits, by_row]
    chosen, others = ranked[0], (*ranked[1:], count_confident(y, p))
    normal = float(norm.ppf((1 + confidence) / 2))
    low, high = _range(fits, by_row, score <= -_REFUTED)
    low = 0.0 if is_possibly_clean else low
    low, high = _with_sampling(low, -normal, len(rows)), _with_sampling(high, normal, len(rows))
    rate, warnings = chosen.error_rate, _mistakable(chosen.transition, names)
    warnings = (
        *[_CALIBRATED] * (is_calibrated and not is_refuted), *[_TOO_FEW] * (is_possibly_clean and not is_calibrated),
        *_of_two_minds(chosen, ranked[1:]), *warnings,
    )  # fmt: skip
    told = (*[_IN_SAMPLE] * looks_in_sample(y, p), *[_NOTHING] * knows_nothing(y, p))
    if told:
        low, high, warnings = 0.0, 1.0, (*told, *_mistakable(chosen.transition, names))
    how = _how(chosen, score, is_calibrated and not is_refuted, warnings)
    posterior = chosen.posterior
    assert posterior is not None  # what is chosen among has one
    possible = [np.eye(p.shape[1])] * is_possibly_clean
    transition = np.stack([chosen.transition, *(other.transition for other in others), *possible])
    error = normal * np.sqrt(transition * (1 - transition) / np.maximum(len(rows) * chosen.prior, 1)[:, None])
    cells_low = np.clip(transition - error, 0, 1).min(axis=0)
    cells_high = np.clip(transition + error, 0, 1).max(axis=0)
    if told:
        cells_low, cells_high = np.zeros_like(cells_low), np.ones_like(cells_high)
    return ChosenEstimate(
        error_rate=Measured(rate, min(low, rate), max(high, rate), how, confidence),
        joint=chosen.joint, transition=transition[0], transition_low=cells_low, transition_high=cells_high,
        prior=chosen.prior,
        p_wrong=np.clip(1 - posterior[np.arange(len(y)), y], 0, 1), suggested=posterior.argmax(axis=1),
        chosen=chosen, others=others, difficulty=score, warnings=warnings,
        is_refuted=is_refuted,
    )  # fmt: skip


def warnings_of_rows(warnings: tuple[str, ...], transition: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """What is left of an estimate's warnings once verified rows tell the rate and T: those of single rows and of T.

    `names` are what classes are called in it.
    """
    kept = {_IN_SAMPLE: _IN_SAMPLE, _NOTHING: _NOTHING, _CALIBRATED: _CALIBRATED_ROWS}
    return (*(kept[one] for one in warnings if one in kept), *_mistakable(transition, [repr(name) for name in names]))


def _range(fits: list[NoiseEstimate], by_row: NoiseEstimate, is_refuted: bool) -> tuple[float, float]:
    """Rates that the data leave possible, were there any number of rows."""
    low, high = by_row.range
    if is_refuted:
        widen = (high - low) / 2
        low, high = min(low - widen, *(fit.error_rate for fit in fits)), high + widen
    else:
        low, high = min(low, *(fit.range[0] for fit in fits)), max(high, *(fit.range[1] for fit in fits))
    for joint in (*(fit.joint for fit in fits), by_row.joint):
        low = min(low, 1 - joint[linear_sum_assignment(joint, maximize=True)].sum())
    return float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))


def _gain(fit: Fit, calibrated: Calibrated, rows: Rows, unseen: Rows | None) -> float:
    """Nats per row by which the fit explains labels better than the classifier alone, not by its parameters' number.

    Source of what is taken off where no rows are left over: Akaike's criterion for few rows, Hurvich and Tsai,
    "Regression and time series model selection in small samples", Biometrika 1989.
    """
    if unseen is not None:
        told = [fit.spread(share).label_probabilities(unseen.log_p)[unseen.given] for share in _SPREAD]
        plain = calibrated.probabilities(unseen)[unseen.given]
        return float(max(np.log(one).mean() for one in told) - np.log(plain).mean())
    n, pairs = len(rows), rows.classes * (rows.classes - 1)
    return calibrated.value - fit.value - (pairs / (n - pairs - 1) if n > pairs + 1 else np.inf)


def _of_two_minds(chosen: NoiseEstimate, others: list[NoiseEstimate]) -> tuple[str, ...]:
    """A warning if the rates of estimators are far from each other."""
    rates = [chosen.error_rate, *(other.error_rate for other in others)]
    least, most = min(rates), max(rates)
    if most < _APART * least or most - least < _APART_ROWS:
        return ()
    return (
        f"the estimators read {least:.1%} to {most:.1%}, more than a factor of {_APART:g} apart, so that p_wrong and "
        "the share of false alarms of its lists are not known; verify some rows",
    )


def _mistakable(transition: np.ndarray, names: list[str]) -> tuple[str, ...]:
    """A warning if a class is labelled as another nearly as often as itself."""
    right = np.diagonal(transition)
    other = transition - np.diag(right)
    unclear = np.flatnonzero(right - other.max(axis=1) < _CLEARLY)
    if not unclear.size:
        return ()
    first = int(unclear[0])
    return (
        f"{names[first]} is labelled as itself in {right[first]:.0%} of its rows and as {names[other[first].argmax()]} "
        f"in {other[first].max():.0%} ({unclear.size} of {len(right)} classes are like this), so that labels alone do "
        "not tell which of the two it is; verify some of its rows",
    )


def _with_sampling(rate: float, normal: float, rows: int) -> float:
    """The rate and so many standard errors of a share of the rows, of one row at least, in [0, 1]."""
    return float(np.clip(rate + normal * np.sqrt(max(rate * (1 - rate), 1 / rows) / rows), 0, 1))


def _how(chosen: NoiseEstimate, score: float, is_calibrated: bool, warnings: tuple[str, ...]) -> str:
    if score <= -_REFUTED:
        asked = f"hard rows are mislabelled more often than their class explains ({score:.1f} standard errors)"
    elif score >= _REFUTED:
        asked = f"hard rows are mislabelled less often than their class explains ({score:+.1f} standard errors)"
    else:
        asked = (f"nothing says that hard rows are mislabelled more often than their class explains ({score:+.1f} "
                 f"standard errors, where -{_REFUTED:g} would)")  # fmt: skip
    if is_calibrated:
        asked = f"noise explains the labels no better than the classifier alone, and {asked}"
    said = (f"{chosen.method}, because {asked}", f"it assumes that {chosen.assumption}", _REPEATED)
    return told_parts([*said, *warnings])
