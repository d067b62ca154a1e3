"""Linear heads on features, for the probe runs of a plan: convex, without a seed, and quick enough for hundreds."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from hf_noise.audit.estimators.rows import softmax

__all__ = ["LinearHead", "fit_head"]

_STEPS = 100
#: Of the largest entry of the gradient, in nats per row.
_TOLERANCE = 1e-5


class LinearHead:
    """Weights [D + 1, C] of a linear head, the last row its bias; features are standardised by its caller."""

    def __init__(self, weights: np.ndarray):
        self.weights = weights

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """p(class | features), float64 [N, C]."""
        return softmax(self.scores(features))

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Logits, [N, C]."""
        return features @ self.weights[:-1] + self.weights[-1]


def fit_head(
    features: np.ndarray, targets: np.ndarray, *, ridge: float, transition: np.ndarray | None = None,
    start: LinearHead | None = None,
) -> LinearHead:  # fmt: skip
    """The head that minimises cross-entropy with soft targets, through T where there is one.

    mean over rows of - sum_j targets[j] log sum_i p(i) T[i, j], plus ridge / 2 times the sum of squared weights (not of
    biases). With T this is the forward-corrected loss, as `hf_noise.objectives.CorrectedLabels` trains by.

    Args:
        features: float [N, D], standardised.
        targets: float [N, C], rows sum to 1.
        ridge: > 0.
        transition: float [C, C], T[i, j] = p(given = j | true = i).
        start: where to begin; by default at 0.

    Source: Patrini et al., CVPR 2017, the forward correction.
    """
    shape = features.shape[1] + 1, targets.shape[1]
    x = np.column_stack([features, np.ones(len(features))])
    strength = np.full((shape[0], 1), ridge)
    strength[-1] = 0

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        clean = softmax(x @ weights)
        given = np.maximum(clean if transition is None else clean @ transition, 1e-12)
        ratio = targets / given
        by_clean = ratio if transition is None else ratio @ transition.T
        by_score = clean * ((by_clean * clean).sum(axis=1, keepdims=True) - by_clean) / len(x)
        gradient = x.T @ by_score + strength * weights
        return -(targets * np.log(given)).sum() / len(x) + (strength * weights**2).sum() / 2, gradient.ravel()

    first = np.zeros(shape) if start is None else start.weights
    found = minimize(value, first.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _STEPS, "gtol": _TOLERANCE})
    return LinearHead(found.x.reshape(shape))
