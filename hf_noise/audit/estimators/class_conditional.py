"""The likelihood of given labels under noise that depends on the true class alone, and its gradient.

p(given = j | row) = sum over i of c_i(row) T[i, j], where the clean posterior is the classifier's, sharpened:

    c = softmax(E / s + b),   E_i = sum over j of T[i, j] log p_j  (own rows)   or   E_i = log p_i

A classifier that learned from noisy labels gives a row of class i about T[i], so the class whose row of T fits the
probabilities best is the likeliest: that is E in its first form, which tells classes apart that are mistaken for each
other in half of the cases. s says how much too even the probabilities are, b how frequent the classes are.
"""

from __future__ import annotations

from copy import copy

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from hf_noise.audit.estimators.rows import Rows, softmax

__all__ = ["ClassConditional", "Fit", "confusion_start", "where_wrong"]

#: Range of the softness s, and where a fit may begin; the best of the starts counts.
SOFTNESS = (0.02, 3.0)
_STARTS = (0.2, 0.5)
#: Log odds of a wrong label, of each class alike, where a fit may begin too.
_EVEN = -2.0
#: Rows of prior belief: one per class spread over its wrong labels, and normal priors of this width for the rest.
_PRIOR_WIDTH = 2.0


class Fit:
    """Parameters of a fit: softness s, bias [C], T [C, C], and the objective in nats per row."""

    def __init__(self, x: np.ndarray, value: float, own_rows: bool):
        classes = round(len(x) ** 0.5) - 1  # 1 + C + C + C^2 parameters
        self.x, self.value, self.own_rows = x, value, own_rows
        self.softness = float(np.exp(-x[0]))
        self.bias = x[1 : 1 + classes]
        self.transition = _transition(x[1 + classes : 1 + 2 * classes], x[1 + 2 * classes :])[0]

    def spread(self, share: float) -> Fit:
        """The same, with this share of the wrong labels of each class spread evenly over the others."""
        classes, made = len(self.bias), copy(self)
        wrong = (1 - np.diagonal(self.transition))[:, None] * (1 - np.eye(classes)) / (classes - 1)
        right = np.diag(np.diagonal(self.transition))
        made.transition = (1 - share) * self.transition + share * (right + wrong)
        return made

    def evidence(self, log_p: np.ndarray) -> np.ndarray:
        """Log odds of the classes, [n, C]."""
        scores = log_p @ self.transition.T if self.own_rows else log_p
        return scores / self.softness + self.bias

    def posterior(self, rows: Rows) -> np.ndarray:
        """p(clean | row, given label), [n, C]."""
        weighted = softmax(self.evidence(rows.log_p)) * self.transition.T[rows.labels] + 1e-300
        return weighted / weighted.sum(axis=1, keepdims=True)

    def label_probabilities(self, log_p: np.ndarray) -> np.ndarray:
        """p(given = j | row), [n, C]."""
        return softmax(self.evidence(log_p)) @ self.transition


class ClassConditional:
    """The fit, to rows.

    Args:
        own_rows: form of the evidence, see above.
        volume: weight of log |det T|, which is minimised with the likelihood (nats per row).
    """

    def __init__(self, rows: Rows, *, own_rows: bool, volume: float = 0.0):
        self.rows, self.own_rows, self.volume = rows, own_rows, volume

    def fit(self, steps: int = 150) -> Fit:
        """Maximum likelihood over everything."""
        return self.optima(steps)[0]

    def optima(self, steps: int = 150) -> list[Fit]:
        """What three starts lead to: first the likeliest from the classifier's confusions, last from an even T.

        An even T may lead to the classifier itself without any noise, which explains labels as well where it is
        calibrated for them; so it does not speak.
        """
        classes, begin = self.rows.classes, confusion_start(self.rows)
        even = np.concatenate([np.full(classes, _EVEN), np.zeros(classes**2)])
        *fits, other = [
            self.fit_from(np.concatenate([[-np.log(softness)], np.zeros(classes), x]), sharpest=SOFTNESS[0],
                          softest=SOFTNESS[1], steps=steps)
            for softness, x in [*((softness, begin) for softness in _STARTS), (_STARTS[0], even)]
        ]  # fmt: skip
        return [*sorted(fits, key=lambda fit: fit.value), other]

    def fit_from(self, x: np.ndarray, *, sharpest: float, softest: float, steps: int) -> Fit:
        """Maximum likelihood over everything from this start, with the softness in a range."""
        bounds = [(-np.log(softest), -np.log(sharpest))] + [(None, None)] * (len(x) - 1)
        best = minimize(self.value, x, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps})
        return Fit(best.x, float(best.fun), self.own_rows)

    def refit(self, fit: Fit, softness: float, steps: int = 40) -> Fit:
        """Everything but the softness, which is given."""
        fixed = -np.log(np.clip(softness, *SOFTNESS))

        def value(rest: np.ndarray) -> tuple[float, np.ndarray]:
            found, gradient = self.value(np.concatenate([[fixed], rest]))
            return found, gradient[1:]

        best = minimize(value, fit.x[1:], jac=True, method="L-BFGS-B", options={"maxiter": steps})
        return Fit(np.concatenate([[fixed], best.x]), float(best.fun), self.own_rows)

    def value(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Negative log posterior in nats per row, and its gradient by x = log 1/s, b, logit p(wrong), log N."""
        rows, classes, n = self.rows, self.rows.classes, len(self.rows)
        sharpness, bias, wrong = np.exp(x[0]), x[1 : 1 + classes], x[1 + classes : 1 + 2 * classes]
        transition, rate, where = _transition(wrong, x[1 + 2 * classes :])
        evidence = rows.log_p @ transition.T if self.own_rows else rows.log_p
        clean = softmax(sharpness * evidence + bias)
        weighted = clean * transition.T[rows.labels]  # [n, C]
        likelihood = weighted.sum(axis=1) + 1e-300
        value = -np.log(likelihood).mean()
        weighted /= likelihood[:, None]
        by_score = (clean - weighted) / n
        by_transition = -(weighted.T @ rows.given) / n / np.maximum(transition, 1e-300)
        if self.own_rows:
            by_transition += sharpness * by_score.T @ rows.log_p
        if self.volume:
            value += self.volume * np.linalg.slogdet(transition)[1]
            by_transition += self.volume * np.linalg.pinv(transition).T
        by_rate = (by_transition * (where - np.eye(classes))).sum(axis=1)
        by_where = by_transition * rate[:, None]
        by_where = where * (by_where - (by_where * where).sum(axis=1, keepdims=True))
        prior, by_prior = _prior(bias, wrong, where)
        gradient = np.concatenate([
            [sharpness * (by_score * evidence).sum()], by_score.sum(axis=0), by_rate * rate * (1 - rate),
            by_where.ravel(),
        ])  # fmt: skip
        gradient[1:] += by_prior / n
        return value + prior / n, gradient


def confusion_start(rows: Rows) -> np.ndarray:
    """logit p(wrong) [C] and log N [C * C] as if the classifier's first class were the true one."""
    classes = rows.classes
    counts = np.zeros((classes, classes))
    np.add.at(counts, (rows.log_p.argmax(axis=1), rows.labels), 1.0)
    right, total = np.diagonal(counts), counts.sum(axis=1)
    rate = (total - right + 1) / (total + 4)
    return np.concatenate([np.log(rate / (1 - rate)), np.log(counts + 1).ravel()])


def where_wrong(logits: np.ndarray) -> np.ndarray:
    """N [C, C]: where the wrong labels of each class go, rows sum to 1, nothing on the diagonal."""
    classes = round(len(logits) ** 0.5)
    return softmax(np.where(np.eye(classes, dtype=bool), -np.inf, logits.reshape(classes, classes)))


def _transition(wrong: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rate, where = expit(wrong), where_wrong(logits)
    return np.diag(1 - rate) + rate[:, None] * where, rate, where


def _prior(bias: np.ndarray, wrong: np.ndarray, where: np.ndarray) -> tuple[float, np.ndarray]:
    """Minus the log of the prior and its gradient by b, logit p(wrong), log N."""
    classes, width = len(bias), _PRIOR_WIDTH**2
    off, centred = ~np.eye(classes, dtype=bool), wrong - wrong.mean()
    share = 1 / (classes - 1)
    value = (bias @ bias + centred @ centred) / 2 / width - share * np.log(where[off] + 1e-300).sum()
    by_where = -share * (off - (classes - 1) * where)
    return value, np.concatenate([bias / width, centred / width, by_where.ravel()])
