"""What the probe runs of a plan are made of: features, ways to train, and who judges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_noise.audit.clean_accuracy import ByGiven, ByTest, ByVerified, Predicted
from hf_noise.audit.doubts import Doubts
from hf_noise.audit.out_of_fold import finite_features, split_rows
from hf_noise.audit.probe_runs import FOLDS, Recipe
from hf_noise.metrics.labels import class_indices

if TYPE_CHECKING:
    from hf_noise.audit.label_audit import LabelAudit

__all__ = ["Standardised", "judged_by", "read_features", "read_test", "recipes_of", "what_is_done"]

_PROBES = "probe runs (linear heads on the features)"


@dataclass(frozen=True, eq=False)
class Standardised:
    """Features [N, D] of mean 0 and spread 1, and how others are brought there."""

    values: np.ndarray
    mean: np.ndarray
    spread: np.ndarray


def read_features(
    features: Any, labels: np.ndarray, seed: int
) -> tuple[Standardised, list[tuple[np.ndarray, np.ndarray]]]:
    """Features of the audited rows, standardised, and five folds in which copies of a row are together."""
    x = finite_features("features", features)
    if len(x) != len(labels):
        raise ValueError(f"features are of {len(x)} rows, and the audit of {len(labels)}; give those of the same rows")
    split = split_rows(x, labels, FOLDS, seed)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 0, spread, 1)
    return Standardised((x - mean) / spread, mean, spread), split


def read_test(test: Any, x: Standardised, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardised features [M, D] and clean labels [M]."""
    if not isinstance(test, list | tuple) or len(test) != 2:
        raise TypeError(f"test must be (features, clean labels), got {type(test).__name__}; without labels there is "
                        "nothing to measure on them")  # fmt: skip
    if test[1] is None:
        raise TypeError("test has no labels, so that there is nothing to measure on it; leave it out")
    values = finite_features("features of test", test[0])
    labels = class_indices("labels of test", test[1], classes)
    if values.shape[1] != len(x.mean):
        raise ValueError(f"features of test are {values.shape[1]} wide, and those of the audit {len(x.mean)}")
    if len(values) != len(labels) or not len(labels):
        raise ValueError(f"test must have a label for each row and one row at least, got {len(values)} rows and "
                         f"{len(labels)} labels")  # fmt: skip
    return (values - x.mean) / x.spread, labels


def recipes_of(doubts: Doubts, given: np.ndarray, share: float, seed: int) -> dict[str, Recipe]:
    """Ways to train on the rows that an audit speaks of, by name, "given" first.

    Args:
        doubts: of these rows.
        given: int64 [N].
        share: of the rows that a person looks at.
        seed: of what that person finds, which is drawn from the posterior.
    """
    classes, every, flagged = np.eye(doubts.posterior.shape[1]), np.ones(len(given), bool), doubts.flagged()
    labels, suggested = classes[given], classes[np.where(flagged, doubts.posterior.argmax(axis=1), given)]
    looked_at, found = doubts.likeliest_wrong(share), labels.copy()
    draws = np.random.default_rng(seed).random(len(given))[looked_at]
    drawn = (doubts.posterior[looked_at].cumsum(axis=1) < draws[:, None]).sum(axis=1)
    found[looked_at] = classes[np.minimum(drawn, len(classes) - 1)]
    return {
        "given": Recipe(every, labels, learns_given=True),
        "drop": Recipe(~flagged, labels),
        "relabel": Recipe(every, suggested),
        "soft": Recipe(every, doubts.posterior),
        "corrected": Recipe(every, labels, doubts.transition),
        "verify": Recipe(every, found, learns_given=True, to_verify=looked_at),
    }


def what_is_done(recipes: dict[str, Recipe], given: np.ndarray) -> dict[str, str]:
    """In words, by name; those that change nothing, or leave nothing to learn, are left out."""
    plain, changed = recipes["given"], int((recipes["relabel"].targets.argmax(axis=1) != given).sum())
    dropped, kept = ~recipes["drop"].keep, given[recipes["drop"].keep]
    found = {"given": "train on the labels as they are"}
    if dropped.any() and np.array_equal(np.unique(kept), np.unique(given)):
        found["drop"] = f"leave out the {int(dropped.sum()):,} flagged rows"
    if changed:
        found["relabel"] = f"give flagged rows their suggested labels, {changed:,} other ones"
    if not np.array_equal(recipes["soft"].targets, plain.targets):
        found["soft"] = "train on the audit's p(true class) of each row"
    if not np.array_equal(recipes["corrected"].transition, np.eye(plain.targets.shape[1])):
        found["corrected"] = "the labels as they are, and the loss corrected by the audited T"
    if n := len(recipes["verify"].to_verify):
        found["verify"] = f"look at the {n:,} rows likeliest wrong, then train on what is found"
    return found


def judged_by(
    audit: LabelAudit, clean: tuple[np.ndarray, np.ndarray] | None, everything: list[Predicted], confidence: float
) -> tuple[ByTest | ByVerified | ByGiven, str]:
    """The best judge that there is, and how it judges."""
    if clean is not None:
        return ByTest(clean[1]), f"{_PROBES}, judged by {len(clean[1]):,} clean test rows"
    before = audit.estimate
    if (verified := audit.verified_by) is not None:
        return ByVerified(verified, before.chosen.posterior), (
            f"{_PROBES}, judged by {verified.answered:,} verified rows with the audit's help; it assumes that the "
            "filled labels are true"
        )
    rate = audit.error_rate
    rates = (rate.low, rate.high)
    if before.is_refuted:
        return ByGiven(audit.labels, (), audit.posterior, rate.high), (
            f"{_PROBES}, judged by the given labels; these are not wrong by their class alone, so that the interval is "
            "what holds for any labels of which no more are wrong than the audit's rate says"
        )
    judge = ByGiven.along(audit.labels, audit.transition, audit.prior, rates, audit.posterior, everything, confidence)
    if judge.inverses:
        return judge, (
            f"{_PROBES}, judged by the given labels through T; it assumes that labels are wrong by their true class "
            f"alone, as T says, and the interval spans error rates of {rate}"
        )
    return judge, (
        f"{_PROBES}, judged by the given labels; T is too uncertain to take back, so that the interval is what holds "
        f"for any labels of which at most {rate.high:.1%} are wrong"
    )
