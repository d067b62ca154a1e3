"""From an audit to what to expect of each way to train on these labels, and to the one that is worth it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from hf_noise.audit.clean_accuracy import Predicted, Span
from hf_noise.audit.doubts import Doubts, doubts_within
from hf_noise.audit.measured import Measured
from hf_noise.audit.plan_probes import judged_by, read_test, recipes_of, what_is_done
from hf_noise.audit.probe_rows import fitted_rows, read_features, within
from hf_noise.audit.probe_runs import Probes, Recipe
from hf_noise.metrics.intervals import check_confidence
from hf_noise.noise.checks import check_count, check_flag, check_integer, check_seed

if TYPE_CHECKING:
    from hf_noise.analysis.advice import BatchAdvice
    from hf_noise.audit.label_audit import LabelAudit
    from hf_noise.objectives import Objective

__all__ = ["Plan", "PlanOption", "make_plan"]

_PERCENT = 100
#: Half-width of an accuracy from which on a summary calls its interval wide.
_WIDE = 0.05
_DRAWN = "; what a person finds is drawn from the audit's posterior, and stands or falls with it"
_REMEDY = "verify rows (to_verify), or give clean test rows"
_PART = (
    "heads are fitted on {:,} of {:,} rows, and accuracies and differences are of training on so many; all rows should "
    "lead further, and options may then differ by less: a larger probe_rows tells"
)
#: Heads of an option by folds and of all rows, and of the audits within the folds.
_FITS, _FITS_OF_ALL, _FITS_WITHIN = 13, 5, 14
_NEEDS = (
    "to be told, measure the signal-to-noise ratio of gradients (hf_noise.analysis.coherence) and the gradient noise "
    "scale (hf_noise.trainers.NoiseScaleCallback), and pass batch=hf_noise.analysis.advise_batch(...)"
)


@dataclass(frozen=True, eq=False)
class PlanOption:
    """One thing to do about wrong labels.

    Attributes:
        name: "given", "drop", "relabel", "soft", "corrected", "verify" or "more".
        does: in words.
        accuracy: on clean labels of new rows; None where nothing predicts it.
        difference: of this accuracy and that of "given", with an interval that holds together with those of the other
            options; None for "given" itself, and where there is no accuracy.
        rows: that are trained on.
        how: the accuracy is known, with its assumption.
        keep: bool [N], these rows.
        labels: int64 [N] to train on, of verified rows those that were found, but for "given"; None where they are soft
            or yet to be verified.
        targets: float64 [N, C], the soft ones; None otherwise.
        to_verify: int64 [n], rows to look at first; empty otherwise.
        transition: T [C, C] that the loss is corrected by; None for none.
        ridge: of the probe runs' heads, in nats per row; None without probe runs.
    """

    name: str
    does: str
    accuracy: Measured | None
    difference: Span | None
    rows: int
    how: str
    keep: np.ndarray = field(repr=False)
    labels: np.ndarray | None = field(default=None, repr=False)
    targets: np.ndarray | None = field(default=None, repr=False)
    to_verify: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)
    transition: np.ndarray | None = field(default=None, repr=False)
    ridge: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether it is clearly better than training on the labels as they are."""
        return self.difference is not None and self.difference.low > 0

    @property
    def is_ready(self) -> bool:
        """Whether a trainer of ours can follow it as it is: with a label for each row, and no person to ask first."""
        return self.labels is not None

    def objective(self) -> Objective:
        """What a trainer of ours takes as `loss` to follow it, on `keep` rows with `labels`.

        Where these are None a loss alone does not follow it: of "soft" `targets` are what cross-entropy takes in their
        place (`torch.nn.functional.cross_entropy`), for "verify" a person first looks at `to_verify`.
        """
        from hf_noise.objectives import CorrectedLabels, CrossEntropy

        return CrossEntropy() if self.transition is None else CorrectedLabels(transition=self.transition.tolist())

    def to_dict(self) -> dict[str, Any]:
        """All but what is said of single rows, as JSON holds it."""
        of = self.accuracy
        return {
            "name": self.name, "does": self.does, "rows": self.rows, "how": self.how, "ridge": self.ridge,
            "accuracy": None if of is None else {"value": of.value, "low": of.low, "high": of.high,
                                                 "confidence": of.confidence},
            "difference": None if self.difference is None else self.difference._asdict(), "is_clear": self.is_clear,
            "to_verify": len(self.to_verify), "objective": self.objective().to_dict(),
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Plan:
    """What to expect of each option.

    Attributes:
        options: "given" first.
        best: name of the option with the highest predicted accuracy of those that a trainer can follow as they are:
            neither "soft", whose targets are no labels, nor "verify" and "more".
        is_clear: whether it is clearly better than "given".
        confidence: of each accuracy, and of all differences together.
        warnings: what a user should know, in words.
    """

    options: tuple[PlanOption, ...]
    best: str
    is_clear: bool
    confidence: float
    warnings: tuple[str, ...]

    def __getitem__(self, name: str) -> PlanOption:
        """The option of this name; KeyError for another."""
        for option in self.options:
            if option.name == name:
                return option
        raise KeyError(f"there is no option {name!r}, only {', '.join(option.name for option in self.options)}")

    def objective(self, name: str | None = None) -> Objective:
        """Of this option, by default the best one's, see `PlanOption.objective`; KeyError for another name."""
        return self[self.best if name is None else name].objective()

    def summary(self) -> str:
        """All options as a table, and which is best, as text."""
        lines = [f"{'option':<10} {'clean accuracy':<22} {'beside given, points':<24} {'rows':>9}  what it does"]
        for one in self.options:
            apart = "" if one.difference is None else "{:+.1f} [{:+.1f}, {:+.1f}]".format(
                *(_PERCENT * part for part in one.difference))  # fmt: skip
            accuracy = "not predicted" if one.accuracy is None else str(one.accuracy)
            lines.append(f"{one.name:<10} {accuracy:<22} {apart:<24} {one.rows:>9,}  {one.does}")
        lines.append(self.advice)
        lines += [f"{one.name}: {one.how}" for one in (self.options[0], self.options[-1])]
        return "\n".join([*lines, *(f"note: {one}" for one in self.warnings)])

    @property
    def advice(self) -> str:
        """Which option is best, whether clearly, and which promise more that no trainer can follow as they are."""
        best = self[self.best]
        more = [
            f"; {one.name} promises more, but needs "
            + ("a person first" if one.targets is None else "a loss of soft targets, which no trainer here takes")
            for one in self.options if not one.is_ready and _promise(one) > _promise(best)
        ]  # fmt: skip
        return self._said(best.difference) + "".join(more)

    def _said(self, gain: Span | None) -> str:
        if gain is None:
            return "best: given; no option that can be trained at once promises more than the labels as they are"
        if self.is_clear:
            return f"best: {self.best}, clearly better than the labels as they are"
        if clear := [one.name for one in self.options if one.is_clear]:
            return (
                f"best: {self.best}, though it is not clear; clearly better than the labels as they are: "
                f"{', '.join(clear)}"
            )
        return (
            f"best: {self.best}, but no option is clearly better than the labels as they are: its difference may be "
            f"{_PERCENT * gain.low:+.1f} to {_PERCENT * gain.high:+.1f} points"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, without what is said of single rows."""
        return {
            "best": self.best, "is_clear": self.is_clear, "confidence": self.confidence,
            "options": [option.to_dict() for option in self.options], "warnings": list(self.warnings),
        }  # fmt: skip


def make_plan(
    audit: LabelAudit, features: Any, *, budget: int = 0, test: tuple[Any, Any] | None = None,
    batch: BatchAdvice | None = None, seed: int = 0, confidence: float | None = None, probe_rows: int = 10_000,
    progress: bool = True,
) -> Plan:  # fmt: skip
    """What to expect on clean labels of each way to train on audited ones.

    Each is tried by probe runs, linear heads on the features: fitted on four of five folds, they predict the fifth, and
    the predictions are judged as `hf_noise.audit.clean_accuracy` says: by clean test rows, verified rows, or the given
    labels through T. What an option does to the rows of a fold (which it flags, what it suggests) is from an audit of
    these four folds alone by heads of their own, so that no label is judged by what it told; of an audit by better
    probabilities than such heads have, gains are therefore understated. What all rows gain over four fifths of them is
    added by the law error ~ 1 / N, from heads of two folds. With test rows heads are of all rows, by the audit itself.

    Differences are paired by rows, and hold together (Bonferroni); intervals are of new rows like these, and of such
    heads: a network that learns features of its own may gain more or less.

    Of more than `probe_rows` rows heads are fitted on about so many: the same share of each class and fold, a row at
    least, and the verified ones. A plan is then of training on these, as its warnings say; but all rows judge, and what
    an option says of rows it says of all. Test rows are judged by heads of these rows too. What more rows add to each
    option no law here tells.

    10,000 rows of 256 features and four classes take about 15 s on one core.

    Args:
        audit: of N rows.
        features: real numbers [N, D], of the same rows in the same order.
        budget: rows in [0, N] that a person can look at; the option "verify" spends it.
        test: (features [M, D], clean labels [M]) of other rows.
        batch: what `hf_noise.analysis.advise_batch` says, for the option "more".
        seed: of folds, and of what a person is taken to find, in [0, 2^63).
        confidence: of the intervals, in (0, 1); by default the audit's. What given labels judge spans the audit's own
            interval of the rate besides, which another confidence leaves as it is.
        probe_rows: that heads are fitted on at most, but for rounding and verified rows, in [1, 2^31].
        progress: whether to show a bar of fits.

    Raises:
        TypeError: an argument is of another kind; test has no labels.
        ValueError: lengths, widths or ranges are wrong, a feature is not finite, a class is in fewer rows than there
            are folds, or copies of rows leave too few distinct ones.
    """
    confidence = check_confidence(audit.error_rate.confidence if confidence is None else confidence)
    seed, progress = check_seed(seed), check_flag("progress", progress)
    most = check_count("probe_rows", probe_rows, 1, 31, "it is how many rows heads are fitted on")
    x, split = read_features(features, audit.labels, seed)
    budget = _budget(budget, len(audit))
    clean = None if test is None else read_test(test, x, len(audit.class_names))
    share, own = budget / len(audit), Doubts.of(audit)
    recipes = recipes_of(own, audit.labels, share, seed)
    does = what_is_done(recipes, audit.labels, own.known)
    rows = fitted_rows(audit.labels, split, own.known, most, seed)
    fits = len(does) * (_FITS if clean is None else _FITS_OF_ALL) + (clean is None) * _FITS_WITHIN
    with tqdm(total=fits, desc="plan", unit="fit", leave=False, disable=not progress) as bar:
        probes = Probes(x, rows, audit.labels[rows], audit.transition, within(rows, split, len(audit)),
                        [judged for _, judged in split], bar.update)  # fmt: skip
        predicted, ridges = _predicted(audit, probes, {name: recipes[name] for name in does}, share, clean, seed)
    judge, how = judged_by(audit, clean, list(predicted.values()), confidence, len(rows))
    # As many differences hold together as there are options beside "given" (Bonferroni).
    each = 1 - (1 - confidence) / max(len(does) - 1, 1)
    options = []
    for name, words in does.items():
        recipe, (value, low, high) = recipes[name], judge.accuracy(predicted[name], confidence)
        apart = None if name == "given" else judge.difference(predicted[name], predicted["given"], each)
        options.append(PlanOption(
            name, words, Measured(value, low, high, how, confidence), apart, int(recipe.keep.sum()),
            how + _DRAWN * (name == "verify"), recipe.keep,
            None if name in ("soft", "verify") else recipe.targets,
            recipe.targets if name == "soft" else None, recipe.to_verify, recipe.transition, ridges[name],
        ))  # fmt: skip
    best = max((one for one in options if one.is_ready), key=_promise)
    part = [_PART.format(len(rows), len(audit))] * (len(rows) < len(audit))
    wide = [f"the interval of the accuracy is wide, {options[0].accuracy}: {_REMEDY}"] * (
        options[0].accuracy.half_width > _WIDE)  # fmt: skip
    options.append(_more(batch, len(audit)))
    return Plan(tuple(options), best.name, best.is_clear, confidence, (*part, *wide, *audit.warnings))


def _promise(option: PlanOption) -> float:
    """Accuracy beyond that of "given"; 0 where nothing predicts it."""
    return option.difference.value if option.difference else 0.0


def _predicted(
    audit: LabelAudit, probes: Probes, recipes: dict[str, Recipe], share: float, clean: Any, seed: int
) -> tuple[dict[str, Predicted], dict[str, float]]:
    """What heads of each recipe say of test rows, or of each fold without its rows, and their ridges."""
    predicted, ridges = {}, {}
    if clean is not None:
        for name, recipe in recipes.items():
            recipe = recipe.of(probes.rows)
            ridges[name], _ = probes.ridge(recipe)
            of_all = probes.by_all(recipe, clean[0], ridges[name])
            predicted[name] = Predicted(of_all, of_all, 0.0)
        return predicted, ridges
    ridge, _ = probes.ridge(recipes["given"].of(probes.rows))
    doubts = doubts_within(audit, probes.fitted, probes.split, ridge, probes.rows, probes.done)
    of_folds = [recipes_of(of, probes.given, share, seed) for of in doubts]
    for name in recipes:
        large, small, ridges[name] = probes.by_folds([fold[name] for fold in of_folds])
        predicted[name] = Predicted(large, small)
    return predicted, ridges


def _more(batch: Any, rows: int) -> PlanOption:
    """More steps or a larger batch, by the law of paper A."""
    from hf_noise.analysis.advice import BatchAdvice

    keep = np.ones(rows, bool)
    if batch is None:
        return PlanOption("more", "more steps or a larger batch", None, None, rows, _NEEDS, keep)
    if not isinstance(batch, BatchAdvice):
        raise TypeError(f"batch must be what hf_noise.analysis.advise_batch returns, got {type(batch).__name__}")
    does = (
        f"a batch {batch.multiplier:.2g} [{batch.low:.2g}, {batch.high:.2g}] times as large and "
        f"{batch.steps_factor:.2g} times the steps of a run without noise"
    )
    how = "law of the gradient noise scale (hf_noise.analysis.advise_batch); it speaks of steps, not of accuracy"
    return PlanOption("more", does, None, None, rows, how, keep)


def _budget(budget: Any, rows: int) -> int:
    budget = check_integer("budget", budget)
    if not 0 <= budget <= rows:
        raise ValueError(f"budget must lie in [0, {rows}], got {budget}; it counts rows that a person can look at")
    return budget
