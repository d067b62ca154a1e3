"""What an estimator of label noise returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["NoiseEstimate", "joint_of"]


@dataclass(frozen=True)
class NoiseEstimate:
    """Who is labelled as whom.

    Attributes:
        joint: float64 [C, C], joint[i, j] = p(clean = i, noisy = j), sums to 1.
        posterior: float64 [N, C], p(clean = i | row, its given label), rows sum to 1; None where the method has none
            or another one speaks.
        method: the estimator's name.
        assumption: what has to hold, in words for a user.
        range: rates that the method holds for possible beside its own, by what it cannot know of the classifier;
            sampling comes on top.
    """

    joint: np.ndarray
    posterior: np.ndarray | None
    method: str
    assumption: str
    range: tuple[float, float]

    @property
    def transition(self) -> np.ndarray:
        """T[i, j] = p(noisy = j | clean = i), float64 [C, C]; the row of a class that nothing belongs to is its own."""
        rows = self.joint.sum(axis=1, keepdims=True)
        return np.where(rows > 0, self.joint / np.where(rows > 0, rows, 1), np.eye(len(self.joint)))

    @property
    def prior(self) -> np.ndarray:
        """p(clean = i), float64 [C]."""
        return self.joint.sum(axis=1)

    @property
    def error_rate(self) -> float:
        """Share of labels that are wrong, in [0, 1]."""
        return float(np.clip(1 - np.trace(self.joint), 0, 1))


def joint_of(transition: np.ndarray, noisy_prior: np.ndarray) -> np.ndarray:
    """p(clean = i, noisy = j) whose T is given and whose noisy classes are as frequent as seen, as nearly as can be.

    The frequencies of the clean classes solve T^T prior = noisy prior under prior >= 0 in least squares.
    """
    from scipy.optimize import nnls

    prior = nnls(transition.T, noisy_prior)[0]
    prior = prior / prior.sum() if prior.sum() > 0 else noisy_prior
    return prior[:, None] * transition
