"""How far an estimated transition matrix is from the true one, and the estimate that needs nothing but anchor points.

T[i, j] = p(noisy = j | clean = i): rows are clean classes and sum to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_noise.noise.arrays import real_numbers
from hf_noise.noise.checks import check_real
from hf_noise.noise.transition import check_transition

__all__ = ["TransitionError", "anchor_transition", "transition_error"]

# Of a posterior, which may be the softmax of a network in float16; a matrix has to be exact to 1e-6.
_ROW_SUM = 1e-4


@dataclass(frozen=True)
class TransitionError:
    """Distances of an estimated T from the true one.

    Attributes:
        mean_absolute: mean of |T_hat - T| over all C^2 entries, in [0, 2 / C].
        largest: the largest of them, in [0, 1].
        total_variation: half the sum of |T_hat - T| of each row, float64 [C] in [0, 1].
    """

    mean_absolute: float
    largest: float
    total_variation: np.ndarray

    @property
    def worst_row(self) -> float:
        """Total variation of the row that is furthest off, in [0, 1]."""
        return float(self.total_variation.max())


def transition_error(estimated: Any, true: Any) -> TransitionError:
    """Compare two transition matrices [C, C].

    Raises:
        ValueError: an entry is negative, a row misses the sum 1 by more than 1e-6, or their sizes differ.

    Example:
        >>> transition_error([[0.8, 0.2], [0.5, 0.5]], [[0.8, 0.2], [0.3, 0.7]]).total_variation
        array([0. , 0.2])
    """
    estimated, true = check_transition(estimated), check_transition(true)
    if estimated.shape != true.shape:
        raise ValueError(f"the estimate has {len(estimated)} classes, the true matrix {len(true)}; use the same number")
    apart = np.abs(estimated - true)
    return TransitionError(float(apart.mean()), float(apart.max()), apart.sum(axis=1) / 2)


def anchor_transition(noisy_posterior: Any, quantile: float = 0.97) -> np.ndarray:
    """Estimate T from a plain classifier's p(noisy | x): row i is that of a sample that is surely of class i.

    Such an anchor point has p(noisy = j | x) = T[i, j]. Taken is the sample whose p(noisy = i | x) is at a high
    quantile, because the largest value of all is often an outlier (Patrini et al., CVPR 2017, section 4.3).

    Args:
        noisy_posterior: real numbers [N, C], each row >= 0 with the sum 1 to within 1e-4; N >= 1, and many samples of
            each class.
        quantile: in (0, 1], over all samples, so it has to lie above 1 - the share of the rarest class: 0.97 is for
            about 10 classes, 0.997 for 100. 1 takes the largest value.

    Returns:
        float64 [C, C], rows sum to 1.

    Raises:
        TypeError: the posterior holds no real numbers, or the quantile is none.
        ValueError: another shape, rows that are no distributions, or a quantile outside (0, 1].
    """
    p = real_numbers("noisy_posterior", noisy_posterior)
    if p.ndim != 2 or p.shape[0] < 1 or p.shape[1] < 2:
        raise ValueError(f"noisy_posterior must be [N, C] with N >= 1 and C >= 2, got shape {list(p.shape)}")
    off = ~((p >= 0).all(axis=1) & (np.abs(p.sum(axis=1) - 1) <= _ROW_SUM))
    if off.any():
        first = int(off.argmax())
        raise ValueError(
            f"{off.sum()} of {len(p)} rows of noisy_posterior are no distributions, the first is row {first} with the "
            f"sum {p[first].sum():.6g}; give the softmax of the logits"
        )
    if not 0 < check_real("quantile", quantile) <= 1:
        raise ValueError(f"quantile must lie in (0, 1], got {quantile}")
    place = round(quantile * (len(p) - 1))
    anchors = np.argpartition(p, place, axis=0)[place]
    rows = p[anchors]
    return rows / rows.sum(axis=1, keepdims=True)
