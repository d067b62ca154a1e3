"""What an audit says of each row, and what it would say had it never seen a fold of them.

An audit's posterior knows the label of every row that its classifiers were fitted on. Heads that are trained by it and
judged by the label of a row left out have then been told that label, if faintly: of digits with a fifth of wrong labels
this made soft targets look four points better than they were. So each fold's heads are trained by an audit of their own
rows alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hf_noise.audit.choose import choose_estimate
from hf_noise.audit.lists import default_list
from hf_noise.audit.probe_fit import fit_head
from hf_noise.audit.recalibrate import recalibrated, tilted

if TYPE_CHECKING:
    from hf_noise.audit.label_audit import LabelAudit

__all__ = ["Doubts", "doubts_within"]


@dataclass(frozen=True, eq=False)
class Doubts:
    """What is said of some rows; that of all others has no meaning.

    Attributes:
        rows: int64 [n], those spoken of.
        posterior: float64 [N, C].
        p_wrong: float64 [N].
        transition: T [C, C].
        known: int64 [m], those of the rows that were verified; their posterior is 1 at the class that was found.
    """

    rows: np.ndarray
    posterior: np.ndarray
    p_wrong: np.ndarray
    transition: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, audit: LabelAudit) -> Doubts:
        """Of all rows, by the audit itself."""
        known = np.zeros(0, np.int64) if audit.verified_by is None else audit.verified_by.rows
        return cls(np.arange(len(audit)), audit.posterior, audit.p_wrong, audit.transition, known)

    def flagged(self) -> np.ndarray:
        """The list of the largest expected F1, bool [N]."""
        found = np.zeros(len(self.p_wrong), bool)
        found[self.rows] = default_list(self.p_wrong[self.rows])
        return found

    def likeliest_wrong(self, share: float) -> np.ndarray:
        """This share of the rows, likeliest wrong first, int64; verified ones last."""
        p = self.p_wrong.copy()
        p[self.known] = -1
        return self.rows[np.argsort(-p[self.rows], kind="stable")[: round(share * len(self.rows))]]


class _Known(NamedTuple):
    """Verified rows, their true classes and the chance of each to be drawn."""

    rows: np.ndarray
    labels: np.ndarray
    probability: np.ndarray


def doubts_within(
    audit: LabelAudit, features: np.ndarray, split: list[tuple[np.ndarray, np.ndarray]], ridge: float,
    rows: np.ndarray | None = None, done: Callable[[], object] = lambda: None,
) -> list[Doubts]:  # fmt: skip
    """For each fold an audit of the other rows, by linear heads of these alone.

    A head of all rows but two folds judges one of them for the audit without the other: ten heads for five folds.

    Args:
        audit: of all rows.
        features: float64 [n, D], standardised, of `rows`.
        split: (rows to fit, rows to judge) of each fold, as places in `rows`, as are those of what is returned.
        ridge: of heads that learn p(given label | row).
        rows: int64 [n] in ascending order, those that are spoken of, with all verified ones; None for all.
        done: is called after each head.
    """
    rows = np.arange(len(audit)) if rows is None else rows
    given, classes, judged = audit.labels[rows], np.eye(len(audit.class_names)), [of for _, of in split]
    p = np.full((len(split), len(rows), len(classes)), np.nan)
    for first in range(len(split)):
        for second in range(first):
            kept = np.concatenate([of for fold, of in enumerate(judged) if fold not in (first, second)])
            head = fit_head(features[kept], classes[given[kept]], ridge=ridge)
            for away, of in ((first, second), (second, first)):
                p[away, judged[of]] = head.probabilities(features[judged[of]])
            done()
    known, transition = None, None
    if (verified := audit.verified_by) is not None:
        known = _Known(np.searchsorted(rows, verified.rows), verified.labels,
                       verified.sample.probability[verified.rows])  # fmt: skip
        transition = audit.transition
    return [_audited(given, fitted, p[fold], known, transition) for fold, (fitted, _) in enumerate(split)]


def _audited(
    labels: np.ndarray, rows: np.ndarray, p: np.ndarray, verified: _Known | None, transition: np.ndarray | None
) -> Doubts:
    given, classes = labels[rows], np.eye(p.shape[1])
    found = choose_estimate(given, p[rows])
    posterior, p_wrong = classes[labels], np.zeros(len(labels))
    posterior[rows], p_wrong[rows] = found.chosen.posterior, found.p_wrong
    known = np.zeros(0, np.int64)
    if verified is not None:
        is_here = np.isin(verified.rows, rows)
        known, true = verified.rows[is_here], verified.labels[is_here]
        if known.size:
            places = np.searchsorted(rows, known)
            p_wrong[rows] = recalibrated(found.p_wrong, places, true != labels[known], verified.probability[is_here],
                                         given=given)  # fmt: skip
            posterior[rows] = tilted(found.chosen.posterior, given, p_wrong[rows])
            posterior[known] = classes[true]
    return Doubts(rows, posterior, p_wrong, found.transition if transition is None else transition, known)
