"""Anchor points of a classifier that is calibrated for the given labels, and its probabilities freed of the noise.

Where q(row) = c(row) T is exactly what the classifier says, labels alone do not tell noise from unsure classes: no
noise at all explains them as well as T does, by q itself. Of the explanations that are equally likely this takes the
one of the sharpest clean posterior, which is that of the smallest volume of T (Li et al., ICML 2021): the rows of T are
the corners of the q that occur, and c = q T^-1. From there T, a softness of at most 1 (what is unmixed is sharpened if
anything) and the frequencies of the classes are fitted to the labels.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from hf_noise.audit.estimators.class_conditional import SOFTNESS, ClassConditional
from hf_noise.audit.estimators.noise_estimate import NoiseEstimate
from hf_noise.audit.estimators.rows import Rows, in_chunks, log_probabilities, softmax

__all__ = ["Calibrated", "Unmixed", "unmixed_anchors"]

#: Shares of the rows, of 1 / C, whose mean is an anchor: fewer are noisy, more are not sure. The first one speaks.
_SHARES, _LEAST_ROWS = (0.1, 0.03, 0.3), 10
_PRIOR_WIDTH, _STEPS = 2.0, 60
_ASSUMPTION = (
    "labels are wrong by class alone and some rows of every class are unmistakable: the classifier foretells the given "
    "labels as well as any noise explains them, so that its most extreme rows alone tell the rate, and fewer wrong "
    "labels, down to none, are as likely by the labels"
)


class Calibrated:
    """The classifier's own account of the given labels, softmax(log p / s + b), and its objective in nats per row."""

    def __init__(self, rows: Rows):
        def value(x: np.ndarray) -> tuple[float, np.ndarray]:
            sharpness, bias = np.exp(x[0]), x[1:]
            q = softmax(sharpness * rows.log_p + bias)
            by_score = (q - rows.given) / len(rows)
            weight = 1 / _PRIOR_WIDTH**2 / len(rows)
            gradient = by_score.sum(axis=0) + weight * bias
            loss = -np.log(q[rows.given] + 1e-300).mean() + weight * (bias @ bias) / 2
            return loss, np.concatenate([[sharpness * (by_score * rows.log_p).sum()], gradient])

        found = minimize(value, np.zeros(1 + rows.classes), jac=True, method="L-BFGS-B",
                         bounds=[(-5.0, 5.0)] + [(None, None)] * rows.classes)  # fmt: skip
        self.value, self._sharpness, self._bias = float(found.fun), float(np.exp(found.x[0])), found.x[1:]

    def probabilities(self, rows: Rows) -> np.ndarray:
        """p(given label = j | row), [n, C]."""
        return softmax(self._sharpness * rows.log_p + self._bias)


class Unmixed:
    """The fit, to rows: `fit` speaks of `self.rows(others)`, whose probabilities are unmixed."""

    def __init__(self, rows: Rows, calibrated: Calibrated, share: float):
        self._calibrated, classes = calibrated, rows.classes
        anchors = _anchors(calibrated.probabilities(rows), share)
        self._inverse = np.linalg.pinv(anchors)
        model = ClassConditional(self.rows(rows), own_rows=False)
        wrong = np.clip(1 - np.diagonal(anchors), 1e-3, 1 - 1e-3)
        x = np.concatenate([np.zeros(1 + classes), np.log(wrong / (1 - wrong)), np.log(anchors + 1e-4).ravel()])
        self.fit = model.fit_from(x, softest=1.0, sharpest=SOFTNESS[0], steps=_STEPS)

    def rows(self, rows: Rows) -> Rows:
        """The same rows, unmixed."""
        clean = np.maximum(self._calibrated.probabilities(rows) @ self._inverse, 0) + 1e-12
        return Rows(rows.labels, log_probabilities(clean / clean.sum(axis=1, keepdims=True)))

    def posterior(self, rows: Rows) -> np.ndarray:
        """p(clean | row, given label), [n, C]."""
        return self.fit.posterior(self.rows(rows))


def unmixed_anchors(y: np.ndarray, p: np.ndarray, rows: Rows, calibrated: Calibrated) -> tuple[NoiseEstimate, Unmixed]:
    """The estimate, and the fit that it stands on, of what `check_labels` returned, fitted to these rows of it.

    The range is that of the rates by which share of the rows stands for an anchor.
    """
    fits = [Unmixed(rows, calibrated, share) for share in _SHARES]
    posterior, (joint,) = in_chunks(y, p, fits[0].posterior)
    rates = [float(1 - joint.trace()), *(float(1 - fit.posterior(rows)[rows.given].mean()) for fit in fits[1:])]
    found = NoiseEstimate(joint, posterior, "anchor points, unmixed", _ASSUMPTION, (min(rates), max(rates)))
    return found, fits[0]


def _anchors(q: np.ndarray, share: float) -> np.ndarray:
    """The mean of the rows that are the most probable of each class, [C, C]."""
    n, classes = q.shape
    most = min(max(int(share * n / classes), _LEAST_ROWS), n)
    return np.stack([q[np.argpartition(q[:, k], n - most)[n - most :]].mean(axis=0) for k in range(classes)])
