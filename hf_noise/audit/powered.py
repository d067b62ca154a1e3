"""What verified rows make of an audit: a rate and a prior that rest on the draw alone, T, and calibrated rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_noise.audit.cells import expected_cells, transition_cells
from hf_noise.audit.checks import shares
from hf_noise.audit.measured import Measured
from hf_noise.audit.recalibrate import recalibrated
from hf_noise.audit.sampling import Sample
from hf_noise.audit.stratified import powered_share
from hf_noise.metrics.checks import as_array, real_numbers
from hf_noise.metrics.intervals import check_confidence
from hf_noise.metrics.labels import class_indices

__all__ = ["UNANSWERED", "Verified", "combine_verified"]

UNANSWERED = -1  # the label of a row of the sample that nobody could or did answer


@dataclass(frozen=True, eq=False)
class Verified:
    """An audit after a person has looked at a sample of its rows.

    Attributes:
        error_rate: share of wrong labels among all rows of the data.
        prior, prior_low, prior_high: float64 [C], share of rows that are truly of each class, with intervals.
        transition, transition_low, transition_high: float64 [C, C], p(given = j | true = i), with intervals for
            the stated share of cells on average.
        p_wrong: float64 [N], recalibrated; verified rows are 0 or 1.
        suggested: int64 [N], likeliest class of every row; the verified one where there is one.
        power: what part of the prediction the rate makes use of, 0 where it is of none.
        answered, unanswered: rows of the sample with and without a label.
        sample: as drawn.
        rows, labels: int64 [answered], row numbers and true classes of those with a label.
    """

    error_rate: Measured
    prior: np.ndarray
    prior_low: np.ndarray
    prior_high: np.ndarray
    transition: np.ndarray
    transition_low: np.ndarray
    transition_high: np.ndarray
    p_wrong: np.ndarray
    suggested: np.ndarray
    power: float
    answered: int
    unanswered: int
    sample: Sample = field(repr=False)
    rows: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)


def combine_verified(
    sample: Sample, labels: Any, *, given: Any, p_wrong: Any, posterior: Any, confidence: float = 0.95
) -> Verified:
    """Combine the true labels of a sample with what a classifier says of all rows.

    Every interval is for the N rows at hand, not for a population that they came from. That of the rate and those of
    the prior assume only that the sample was drawn as `draw_sample` draws it, that the labels filled in are true, and
    that rows left open are like the answered ones of their stratum. They hold about as often as stated, not exactly: at
    95% and 200 rows or more, 93 to 99% of the time in draws from populations with classifiers good and bad; more often
    where mistakes that the classifier misses are few (`benchmarks/verified_rows.py`). Those of T assume besides that
    mistakes scatter around what the posterior expects of each cell by as much as the verified ones do; each holds for
    the stated share of the cells on average, and does not say that all cells hold together.

    Args:
        sample: as drawn.
        labels: integers [n], true classes of `sample.rows` in that order, -1 where a row was left open.
        given: integers [N] in [0, C), the labels that are audited.
        p_wrong: float [N] in [0, 1].
        posterior: float [N, C], p(true = c) of each row; rows sum to 1. Where it comes from is for the width alone.
        confidence: of all intervals, in (0, 1).

    Raises:
        TypeError: an argument is of another kind.
        ValueError: lengths, ranges or sums are wrong, or not one row was answered.

    >>> from hf_noise.audit import draw_sample
    >>> sample = draw_sample([0.1, 0.1, 0.8, 0.9], 4)
    >>> true, given, posterior = np.array([0, 1, 1, 0]), [0, 1, 0, 1], [[0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1]]
    >>> p_wrong = [0.1, 0.1, 0.8, 0.9]
    >>> made = combine_verified(sample, true[sample.rows], given=given, p_wrong=p_wrong, posterior=posterior)
    >>> str(made.error_rate)
    '50.0% [50.0, 50.0]'
    """
    if not isinstance(sample, Sample):
        raise TypeError(f"sample must be a Sample, as draw_sample draws it, got {type(sample).__name__}")
    confidence = check_confidence(confidence)
    posterior = _posterior(posterior, len(sample.stratum))
    p_wrong, given = shares("p_wrong", p_wrong), class_indices("given", given, posterior.shape[1])
    if not len(p_wrong) == len(given) == len(sample.stratum):
        raise ValueError(
            f"p_wrong ({len(p_wrong)}), given ({len(given)}) and posterior must have the {len(sample.stratum)} rows "
            "that the sample was drawn from"
        )
    labels = _labels(labels, len(sample), posterior.shape[1])
    rows, true = sample.rows[labels >= 0], labels[labels >= 0]
    stratum, sizes = sample.stratum[rows], sample.sizes
    is_wrong = true != given[rows]
    means = np.bincount(sample.stratum, p_wrong) / sizes
    rate = powered_share(is_wrong, p_wrong[rows], means, stratum, sizes, confidence)
    by_class = np.stack([np.bincount(sample.stratum, column) for column in posterior.T]) / sizes
    is_class = true == np.arange(posterior.shape[1])[:, None]
    prior = powered_share(is_class, posterior[rows].T, by_class, stratum, sizes, confidence)
    of_cells = transition_cells(
        true, given[rows], stratum, sizes, expected_cells(posterior, given, sample.stratum),
        np.bincount(given, minlength=posterior.shape[1]), (float(rate.value), float(rate.low), float(rate.high)),
        confidence,
    )  # fmt: skip
    # Of a class that no verified row is of, the draw alone would say that there is none.
    by_draw = np.where(is_class.any(1), prior.value, np.clip(of_cells.prior, prior.low, prior.high))
    suggested = posterior.argmax(1)
    suggested[rows] = true
    open_ = len(sample) - len(rows)
    how = (
        f"{len(rows)} verified rows of a stratified sample, with the classifier's help (power {rate.power:.2g}); "
        "it assumes that the filled labels are true"
    ) + f", and that the {open_} rows left open are like the others" * (open_ > 0)
    return Verified(
        Measured(float(rate.value), float(rate.low), float(rate.high), how, confidence), by_draw, *prior[1:3],
        *of_cells[:3], recalibrated(p_wrong, rows, is_wrong, sample.probability[rows], given=given), suggested,
        float(rate.power), len(rows), open_, sample, rows, true,
    )  # fmt: skip


def _posterior(values: Any, rows: int) -> np.ndarray:
    posterior = real_numbers("posterior", values)
    if posterior.ndim != 2 or len(posterior) != rows or posterior.shape[1] < 2:
        raise ValueError(f"posterior must be [{rows}, C] with C >= 2 classes, got shape {list(posterior.shape)}")
    is_whole = (posterior >= 0).all(1) & (np.abs(posterior.sum(1) - 1) < 1e-2)
    if not is_whole.all():
        first = int(np.argmin(is_whole))
        total = posterior[first].sum()
        raise ValueError(f"posterior must be >= 0 and sum to 1 in each row; row {first} sums to {total:g}")
    return posterior / posterior.sum(1, keepdims=True)


def _labels(values: Any, n: int, classes: int) -> np.ndarray:
    labels = as_array("labels", values)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got {labels.dtype}; {UNANSWERED} stands for a row left open")
    if labels.shape != (n,):
        raise ValueError(f"labels must have one entry for each of the {n} rows of the sample, got {list(labels.shape)}")
    outside = (labels < UNANSWERED) | (labels >= classes)
    if outside.any():
        first = int(outside.argmax())
        raise ValueError(f"labels must lie in [0, {classes}), or be {UNANSWERED}, got {labels[first]} at index {first}")
    if not (labels >= 0).any():
        raise ValueError("labels are all open: verify at least one row of the sample, better 100 or more")
    return labels.astype(np.int64)
