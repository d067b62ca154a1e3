"""What the probe runs of a plan are made of: features, ways to train, and who judges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hf_noise.audit.clean_accuracy import ByGiven, ByTest, ByVerified, Predicted
from hf_noise.audit.doubts import Doubts
from hf_noise.audit.out_of_fold import finite_features
from hf_noise.audit.probe_rows import Standardised
from hf_noise.audit.probe_runs import Recipe
from hf_noise.metrics.labels import class_indices

if TYPE_CHECKING:
    from hf_noise.audit.label_audit import LabelAudit

__all__ = ["judged_by", "read_test", "recipes_of", "what_is_done"]


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

    Rows that were verified have the label that was found in all but "given", and none of these is left out.

    Args:
        doubts: of these rows.
        given: int64 [N].
        share: of the rows that a person looks at.
        seed: of what that person finds, which is drawn from the posterior.
    """
    classes, every, flagged = doubts.posterior.shape[1], np.ones(len(given), bool), doubts.flagged()
    likeliest, labels = doubts.posterior.argmax(axis=1), given.copy()
    labels[doubts.known], flagged[doubts.known] = likeliest[doubts.known], False
    looked_at, found = doubts.likeliest_wrong(share), labels.copy()
    draws = np.random.default_rng(seed).random(len(given))[looked_at]
    drawn = (doubts.posterior[looked_at].cumsum(axis=1) < draws[:, None]).sum(axis=1)
    found[looked_at] = np.minimum(drawn, classes - 1)
    return {
        "given": Recipe(every, given, classes, learns_given=True),
        "drop": Recipe(~flagged, labels, classes),
        "relabel": Recipe(every, np.where(flagged, likeliest, labels), classes),
        "soft": Recipe(every, doubts.posterior, classes),
        "corrected": Recipe(every, labels, classes, doubts.transition),
        "verify": Recipe(every, found, classes, learns_given=True, to_verify=looked_at),
    }


def what_is_done(recipes: dict[str, Recipe], given: np.ndarray, known: np.ndarray) -> dict[str, str]:
    """In words, by name; those that change nothing, or leave nothing to learn, are left out."""
    drop, relabel, soft = recipes["drop"], recipes["relabel"], recipes["soft"].targets
    dropped, is_mended = int((~drop.keep).sum()), bool((drop.targets != given).any())
    changed = int((relabel.targets != drop.targets).sum())
    found = {"given": "train on the labels as they are"}
    if dropped and np.array_equal(np.unique(drop.targets[drop.keep]), np.unique(given)):
        found["drop"] = f"leave out the {dropped:,} flagged rows"
    if changed or is_mended:
        found["relabel"] = f"give flagged rows their suggested labels, {changed:,} other ones"
    if not (soft[np.arange(len(given)), given] == 1).all():
        found["soft"] = "train on the audit's p(true class) of each row"
    if is_mended or not np.array_equal(recipes["corrected"].transition, np.eye(soft.shape[1])):
        found["corrected"] = "the labels as they are, and the loss corrected by the audited T"
    if n := len(recipes["verify"].to_verify):
        found["verify"] = f"look at the {n:,} rows likeliest wrong, then train on what is found"
    if known.size:
        words = f"; the {known.size:,} verified rows have their true labels"
        found |= {name: does + words for name, does in found.items() if name != "given"}
    return found


def judged_by(
    audit: LabelAudit, clean: tuple[np.ndarray, np.ndarray] | None, everything: list[Predicted], confidence: float,
    fitted: int,
) -> tuple[ByTest | ByVerified | ByGiven, str]:  # fmt: skip
    """The best judge that there is, and how it judges heads of so many rows."""
    probes = "probe runs (linear heads on the features)"
    if fitted < len(audit):
        probes = f"probe runs (linear heads on the features of {fitted:,} of {len(audit):,} rows)"
    if clean is not None:
        return ByTest(clean[1]), f"{probes}, judged by {len(clean[1]):,} clean test rows"
    before = audit.estimate
    if (verified := audit.verified_by) is not None:
        return ByVerified(verified, before.chosen.posterior), (
            f"{probes}, judged by {verified.answered:,} verified rows with the audit's help; it assumes that the "
            "filled labels are true"
        )
    rate = audit.error_rate
    rates = (rate.low, rate.high)
    if before.is_refuted:
        return ByGiven(audit.labels, (), audit.posterior, rate.high), (
            f"{probes}, judged by the given labels; these are not wrong by their class alone, so that the interval is "
            "what holds for any labels of which no more are wrong than the audit's rate says"
        )
    judge = ByGiven.along(audit.labels, audit.transition, audit.prior, rates, audit.posterior, everything, confidence)
    if judge.inverses:
        return judge, (
            f"{probes}, judged by the given labels through T; it assumes that labels are wrong by their true class "
            f"alone, as T says, and the interval spans error rates of {rate}"
        )
    return judge, (
        f"{probes}, judged by the given labels; T is too uncertain to take back, so that the interval is what holds "
        f"for any labels of which at most {rate.high:.1%} are wrong"
    )
