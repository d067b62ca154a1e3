"""Disagreement of labels and classifier, less the mistakes of the classifier itself.

Where the classifier is sure of a row, a label that contradicts it is wrong; so the surer rows show how often labels of
a class are wrong, how that grows as rows get harder, and where wrong labels go:

    p(wrong | class i, margin m) = sigmoid(u_i + v m),      p(label j | wrong, i, p) ~ N[i, j] p_j^gamma, gamma <= 1

On the other rows this is held fixed, and what labels and classifier disagree on beyond it are the classifier's own
mistakes: their clean posterior is softmax(log p / s + b), with s and b fitted to their labels. Half of the readings fix
b = 0, since labels of hard rows hardly tell a class that is frequent among them from one that they are mistaken for.

Fitted at once, s is hardly determined: soft posteriors with few wrong labels explain the labels of hard rows as well as
sharp ones with many. Cutting the fit in two keeps the hard rows from explaining away what the sure ones show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, xlogy

from hf_noise.audit.checks import check_labels
from hf_noise.audit.estimators.class_conditional import SOFTNESS, confusion_start, where_wrong
from hf_noise.audit.estimators.noise_estimate import NoiseEstimate
from hf_noise.audit.estimators.rows import Rows, in_chunks, softmax, surest

__all__ = ["agreement", "fit_agreement"]

#: Shares of the rows of each predicted class that count as sure. No share is the right one, so that all speak.
SHARES = (0.5, 0.65, 0.8)
_STARTS = (0.1, 0.3, 0.6)
_PRIOR_WIDTH = 2.0
_ASSUMPTION = (
    "the classifier is right about the rows it is surest of, the log odds of a wrong label grow evenly from there to "
    "the hard rows, and given its true class and how hard it is, a row's label errs apart from the classifier; where "
    "the classifier repeats people's mistakes on rows it is sure of, the rate comes out too low"
)


@dataclass(frozen=True)
class _Noise:
    """How labels are wrong: u [C], v per unit of standardised margin, N [C, C], gamma."""

    wrong: np.ndarray
    slope: float
    where: np.ndarray
    gamma: float
    centre: float
    scale: float

    def likelihood(self, rows: Rows) -> np.ndarray:
        """p(given label | clean = i, row), [n, C]."""
        rate = expit(self.wrong + self.slope * ((rows.margin - self.centre) / self.scale)[:, None])
        weights = np.exp(self.gamma * rows.log_p)
        total = weights @ self.where.T + 1e-300
        of_label = np.take_along_axis(weights, rows.labels[:, None], axis=1)
        return np.where(rows.given, 1 - rate, rate * self.where.T[rows.labels] * of_label / total)


@dataclass(frozen=True)
class _Reading:
    """Noise, and the clean posterior's softness and bias."""

    noise: _Noise
    softness: float
    bias: np.ndarray

    def posterior(self, rows: Rows) -> np.ndarray:
        """p(clean | row, given label), [n, C]."""
        weighted = softmax(rows.log_p / self.softness + self.bias) * self.noise.likelihood(rows) + 1e-300
        return weighted / weighted.sum(axis=1, keepdims=True)


def agreement(labels: Any, probabilities: Any) -> NoiseEstimate:
    """Read the noise off the rows that the classifier is sure of, and the classifier's mistakes off the others.

    Six readings count as sure the 50, 65 and 80 percent of each predicted class with the largest margin, each with and
    without a bias; posterior and joint are their mean. The range goes from the smallest of their rates to the largest,
    or to the share of labels that contradict the classifier if that is larger: it holds if the classifier's first class
    is always right.

    Args, Raises: as `confident_joint`.

    Source: our own; the correction is that of two raters' agreement by their reliability (Hui and Walter, Biometrics
    1980), and noise that grows from clear rows to hard ones is bounded instance-dependent noise (Cheng et al., ICML
    2020) with the bound fitted.
    """
    y, p = check_labels(labels, probabilities)
    return fit_agreement(y, p, Rows.sample(y, p))


def fit_agreement(y: np.ndarray, p: np.ndarray, rows: Rows, *, is_kept: bool = True) -> NoiseEstimate:
    """The estimate, of what `check_labels` returned, fitted to these rows of it; with its posterior if it is kept."""
    readings = [reading.posterior for share in SHARES for reading in _read(rows, share)]
    posterior, joints = in_chunks(y, p, *readings, is_kept=is_kept)
    joint, rates = joints.mean(axis=0), [float(1 - one.trace()) for one in joints]
    apart = float((p.argmax(axis=1) != y).mean())
    return NoiseEstimate(joint, posterior, "agreement", _ASSUMPTION, (min(rates), max(*rates, apart)))


def _read(rows: Rows, share: float) -> list[_Reading]:
    first = rows.log_p.argmax(axis=1)
    sure = surest(first, rows.margin, share)
    noise = _noise_of_the_sure(rows, sure, first[sure])
    others = rows.part(~sure) if not sure.all() else rows
    return [_mistakes(others, noise, bias) for bias in (5.0, 0.0)]


def _noise_of_the_sure(rows: Rows, sure: np.ndarray, clean: np.ndarray) -> _Noise:
    """Maximum likelihood of the sure rows' labels, where the classifier's first class is taken for the true one."""
    centre, scale = float(rows.margin.mean()), float(rows.margin.std()) + 1e-9
    part, n, classes = rows.part(sure), int(sure.sum()), rows.classes
    margin, is_wrong = (part.margin - centre) / scale, part.labels != clean
    of, at, log_p = clean[is_wrong], part.labels[is_wrong], part.log_p[is_wrong]
    log_label = np.take_along_axis(log_p, at[:, None], axis=1)[:, 0]
    off, width = ~np.eye(classes, dtype=bool), _PRIOR_WIDTH**2
    begin = confusion_start(rows)
    counted = np.zeros((classes, classes))
    np.add.at(counted, (of, at), 1.0)

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        gamma, slope, wrong, where = x[0], x[1], x[2 : 2 + classes], where_wrong(x[2 + classes :])
        rate = expit(wrong[clean] + slope * margin)
        share = where[of] * np.exp(gamma * log_p)
        total = share.sum(axis=1, keepdims=True) + 1e-300
        share /= total
        centred = wrong - wrong.mean()
        loss = -(xlogy(is_wrong, rate) + xlogy(~is_wrong, 1 - rate)).sum()
        loss -= (np.log(where[of, at] + 1e-300) + gamma * log_label - np.log(total[:, 0])).sum()
        loss += (centred @ centred + slope**2 + gamma**2) / 2 / width
        loss -= np.log(where[off] + 1e-300).sum() / (classes - 1)
        by_rate = rate - is_wrong
        expected = np.zeros((classes, classes))
        np.add.at(expected, of, share)
        by_where = expected - counted - (off - (classes - 1) * where) / (classes - 1)
        gradient = np.concatenate([
            [(share * log_p).sum() - log_label.sum() + gamma / width, by_rate @ margin + slope / width],
            np.bincount(clean, by_rate, classes) + centred / width, by_where.ravel(),
        ])  # fmt: skip
        return loss / n, gradient / n

    bounds = [(None, 1.0)] + [(None, None)] * (1 + len(begin))
    x = minimize(value, np.concatenate([[0.0, 0.0], begin]), jac=True, method="L-BFGS-B", bounds=bounds,
                 options={"maxiter": 100}).x  # fmt: skip
    return _Noise(x[2 : 2 + classes], float(x[1]), where_wrong(x[2 + classes :]), float(x[0]), centre, scale)


def _mistakes(rows: Rows, noise: _Noise, largest_bias: float) -> _Reading:
    """Maximum likelihood of the labels of the rows left over by softness and bias."""
    likelihood, n = noise.likelihood(rows), len(rows)

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        sharpness, bias = np.exp(x[0]), x[1:]
        clean = softmax(sharpness * rows.log_p + bias)
        weighted = clean * likelihood
        total = weighted.sum(axis=1) + 1e-300
        by_score = clean - weighted / total[:, None]
        loss = -np.log(total).sum() + bias @ bias / 2
        return loss / n, np.concatenate([[sharpness * (by_score * rows.log_p).sum()], by_score.sum(axis=0) + bias]) / n

    bounds = [(-np.log(SOFTNESS[1]), -np.log(SOFTNESS[0]))] + [(-largest_bias, largest_bias)] * rows.classes
    starts = [np.concatenate([[-np.log(softness)], np.zeros(rows.classes)]) for softness in _STARTS]
    best = min((minimize(value, x, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40})
                for x in starts), key=lambda found: found.fun)  # fmt: skip
    return _Reading(noise, float(np.exp(-best.x[0])), best.x[1:])
