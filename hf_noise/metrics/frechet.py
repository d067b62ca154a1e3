"""The Frechet distance of two sets of features, taken as Gaussian, overall and class by class.

With the pool features of Inception, and with these alone, it is called FID; `hf_noise.metrics.extractors.metric_name`
gives the right name.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh, svdvals

from hf_noise.metrics.features import FeatureStatistics, check_features, classes_of

__all__ = ["classwise_frechet", "frechet_distance"]


@dataclass(frozen=True)
class _Gaussian:
    """Mean [D], trace of the covariance, and a factor L [D, rank] of it: covariance = L L^T."""

    n: int
    mean: np.ndarray
    trace: float
    factor: np.ndarray


def frechet_distance(features_a: ArrayLike | FeatureStatistics, features_b: ArrayLike | FeatureStatistics) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) in float64 (Dowson and Landau 1982; Heusel et al. 2017).

    With S = L L^T the trace of the root is the sum of the singular values of L_a^T L_b: never complex, never NaN, also
    where a covariance is singular, and 0 for equal sets up to rounding. Covariances are divided by n - 1.

    Args:
        features_a: float [N, D], an array or a tensor; or `FeatureStatistics`.
        features_b: float [M, D], or `FeatureStatistics`; swapping the two changes nothing.

    Returns:
        The distance >= 0, in squared units of the features.

    Raises:
        TypeError: features are no real numbers.
        ValueError: NaN or inf in features, shapes other than [N, D], different D, fewer than 2 rows.

    Warns:
        UserWarning: a side has no more rows than features; its covariance is singular then, and the distance is
            biased upwards.

    Source: spec section 10; paper A compares 50,000 generated images with the training images.

    >>> round(frechet_distance([[0.0], [2.0]], [[3.0], [5.0], [4.0], [4.0]]), 5)  # (1 - 4)^2 + (2^0.5 - (2/3)^0.5)^2
    9.35727
    """
    a, b = _gaussian("features_a", features_a), _gaussian("features_b", features_b)
    _check_dims(a, b)
    fewest = min(a.n, b.n)
    if fewest <= len(a.mean):
        _warn(f"{fewest} rows of {len(a.mean)} features")
    return _distance(a, b)


def classwise_frechet(
    real: ArrayLike, real_labels: ArrayLike, fake: ArrayLike, fake_labels: ArrayLike
) -> dict[str, Any]:
    """The Frechet distance within each class, and its mean over classes: CW-FID where the features are Inception's.

    With few images in a class the distance is far too large: compare methods at the same number per class.

    Args:
        real: float [N, D].
        real_labels: integers [N], the CLEAN classes.
        fake: float [M, D], of generated images.
        fake_labels: integers [M], the classes that were asked for.

    Returns:
        {"classwise_frechet": mean over classes, "per_class": {class: distance}, "n_real": {class: N_c},
        "n_fake": {class: M_c}, "n": M}.

    Raises:
        TypeError, ValueError: as `frechet_distance`; labels that do not belong to the features; a class with fewer
            than two images on either side.

    Warns:
        UserWarning: as `frechet_distance`, once, with the smallest class.

    Source: spec section 10, CW-FID.
    """
    real, fake = check_features("real", real), check_features("fake", fake)
    per_class, n_real, n_fake = {}, {}, {}
    for c, of_real, of_fake in classes_of(real, real_labels, fake, fake_labels, at_least=2):
        a, b = _gaussian("real", of_real), _gaussian("fake", of_fake)
        _check_dims(a, b)
        per_class[c], n_real[c], n_fake[c] = _distance(a, b), a.n, b.n
    fewest = min([*n_real.values(), *n_fake.values()])
    if fewest <= real.shape[1]:
        _warn(f"{fewest} rows of {real.shape[1]} features in the smallest class")
    return {
        "classwise_frechet": float(np.mean(list(per_class.values()))), "per_class": per_class, "n_real": n_real,
        "n_fake": n_fake, "n": len(fake),
    }  # fmt: skip


def _distance(a: _Gaussian, b: _Gaussian) -> float:
    apart = a.mean - b.mean
    overlap = svdvals(a.factor.T @ b.factor, check_finite=False).sum() if a.factor.size and b.factor.size else 0.0
    return max(0.0, float(apart @ apart + a.trace + b.trace - 2 * overlap))


def _gaussian(name: str, features: Any) -> _Gaussian:
    if not isinstance(features, FeatureStatistics):
        features = check_features(name, features)
        n, dim = features.shape
        if n < 2:
            raise ValueError(f"{name} has {n} row; a covariance takes at least 2")
        if n <= dim:
            # Rank n - 1 at most: the centred rows are a factor themselves, exact and small.
            mean = features.mean(axis=0, dtype=np.float64)
            factor = (features - mean).T / np.sqrt(n - 1)
            return _Gaussian(n, mean, float(np.square(factor).sum()), factor)
        features = FeatureStatistics(features)
    covariance = features.covariance
    values, vectors = eigh(covariance, check_finite=False)
    # Smaller eigenvalues are rounding; their roots would not be small any more.
    kept = values > max(values[-1], 0.0) * np.finfo(np.float64).eps * len(values)
    return _Gaussian(features.n, features.mean, float(np.trace(covariance)), vectors[:, kept] * np.sqrt(values[kept]))


def _check_dims(a: _Gaussian, b: _Gaussian) -> None:
    if a.mean.size != b.mean.size:
        raise ValueError(
            f"one side has {a.mean.size} features, the other {b.mean.size}; take both from the same extractor"
        )


def _warn(what: str) -> None:
    warnings.warn(
        f"Frechet distance of {what}: with no more rows than features a covariance is singular and the distance is "
        "biased upwards; use more images, and compare only distances with the same number of them",
        stacklevel=3,
    )
