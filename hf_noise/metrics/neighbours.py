"""Density and coverage: how far generated features lie within the neighbourhoods of real ones, and the reverse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from hf_noise.metrics.checks import check_count, check_device
from hf_noise.metrics.features import check_features, classes_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["classwise_density_coverage", "density_coverage"]

# Distances in memory at a time, in float64: 128 MiB.
_DISTANCES_AT_ONCE = 1 << 24
# Candidates beyond k whose distances are taken exactly.
_SPARE = 4
# Squared distances that agree so far are equal: such a point lies on the rim.
_SLACK = 1e-12

#: Whether a point on the rim of a neighbourhood lies inside.
Ties: TypeAlias = Literal["count", "exclude"]


def density_coverage(
    real: ArrayLike, fake: ArrayLike, k: int = 5, *, ties: Ties = "count", chunk: int | None = None, device: Any = "cpu"
) -> dict[str, float | int]:
    """Density and coverage of generated features (Naeem et al. 2020).

    With d_k(x_i) the distance of x_i to its k-th nearest other real row,
    density = sum_j #{i: |y_j - x_i| <= d_k(x_i)} / (k M), coverage = #{i: some j has |y_j - x_i| <= d_k(x_i)} / N.
    Both are near 1 for equal distributions (coverage 1 - 2^-k for N = M and many rows); density has no upper limit.

    Points on the rim, at the distance d_k itself, count as inside by these formulas (the paper's). The authors' package
    prdc leaves them out (it compares by <). Features that differ all have hardly any, but copies of real rows do: every
    real row lies on the rim of others, so that copies of all of them have the density (k + 1) / k, 1.2 for k = 5, where
    prdc has 1.

    Distances are exact: most come from one matrix product in float64, those that it cannot tell from the radius are
    computed again as sums of squared differences. Memory is bounded, time is O(N (N + M) D).

    Args:
        real: float [N, D], N > k.
        fake: float [M, D].
        k: neighbours, >= 1.
        ties: "count" points on the rim as inside, or "exclude" them as prdc does; equal to within 1e-12 of the squared
            distance is on the rim.
        chunk: real rows that are compared at a time, by default as many as 128 MiB take; changes nothing else.
        device: where torch computes.

    Returns:
        {"density", "coverage", "k", "n_real": N, "n": M}.

    Raises:
        TypeError: features are no real numbers, or k or chunk is no integer.
        ValueError: NaN, inf or numbers beyond 1e100, shapes other than [N, D], different D, k outside [1, N - 1], chunk
            < 1, other ties, a device that cannot be used.

    Source: spec section 10.
    """
    real, fake = check_features("real", real), check_features("fake", fake)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"real has {real.shape[1]} features, fake {fake.shape[1]}; take both from the same extractor")
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"k must be an integer, got {k!r}")
    if not 1 <= k < len(real):
        raise ValueError(f"k must lie in [1, {len(real) - 1}], got {k}; {len(real)} real rows have no more neighbours")
    if chunk is not None:
        chunk = check_count("chunk", chunk)
    if not isinstance(ties, str) or ties not in ("count", "exclude"):
        raise ValueError(f'ties must be "count" or "exclude" (as prdc does), got {ties!r}')
    return _measure(real, fake, int(k), ties == "count", chunk, check_device(device))


def classwise_density_coverage(
    real: ArrayLike, real_labels: ArrayLike, fake: ArrayLike, fake_labels: ArrayLike, k: int = 5, *,
    ties: Ties = "count", device: Any = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """Density and coverage within each class, and their means over classes: CW-density and CW-coverage.

    Args:
        real: float [N, D].
        real_labels: integers [N], the CLEAN classes.
        fake: float [M, D], of generated images.
        fake_labels: integers [M], the classes that were asked for.
        k: neighbours, below the number of real rows of every class.
        ties: as for `density_coverage`.
        device: where torch computes.

    Returns:
        {"classwise_density", "classwise_coverage": means over classes, "per_class": {class: what `density_coverage`
        returns}, "k", "n": M}.

    Raises:
        TypeError, ValueError: as `density_coverage`; labels that do not belong to the features; a class with k real
            images or fewer, or without generated ones.

    Source: spec section 10.
    """
    real, fake = check_features("real", real), check_features("fake", fake)
    per_class = {
        c: density_coverage(of_real, of_fake, k, ties=ties, device=device)
        for c, of_real, of_fake in classes_of(real, real_labels, fake, fake_labels, at_least=1)
    }
    return {
        "classwise_density": float(np.mean([found["density"] for found in per_class.values()])),
        "classwise_coverage": float(np.mean([found["coverage"] for found in per_class.values()])),
        "per_class": per_class, "k": int(k), "n": len(fake),
    }  # fmt: skip


def _measure(
    real: np.ndarray, fake: np.ndarray, k: int, rim: bool, chunk: int | None, device: Any
) -> dict[str, float | int]:
    import torch  # seconds to import, and most metrics do without

    # What is common to all rows would cost the matrix product its digits.
    origin = real.mean(axis=0, dtype=np.float64)
    x, y = (torch.from_numpy(side - origin).to(device) for side in (real, fake))
    chunk = chunk or max(1, _DISTANCES_AT_ONCE // max(len(x), len(y), (k + _SPARE) * x.shape[1]))
    x_length, y_length = x.square().sum(1), y.square().sum(1)
    # Bound of what rounding does to a squared distance from the product.
    blur = 4 * torch.finfo(x.dtype).eps * x.shape[1] * (x_length.max() + torch.maximum(x_length.max(), y_length.max()))
    within = torch.le if rim else torch.lt
    found = covered = 0
    for start in range(0, len(x), chunk):
        rows = torch.arange(start, min(start + chunk, len(x)), device=x.device)
        own, own_length = x[rows], x_length[rows, None]
        radius = _radius(x, rows, own_length + x_length - 2 * own @ x.T, k)
        squared = own_length + y_length - 2 * own @ y.T
        limit = radius[:, None] * (1 + _SLACK if rim else 1 - _SLACK)
        inside = within(squared, limit)
        row, column = ((squared - limit).abs_() <= blur).nonzero(as_tuple=True)
        for part in torch.arange(len(row), device=x.device).split(max(1, _DISTANCES_AT_ONCE // x.shape[1])):
            i, j = row[part], column[part]
            inside[i, j] = within((own[i] - y[j]).square().sum(1), limit[i, 0])
        found += int(inside.sum())
        covered += int(inside.any(1).sum())
    return {
        "density": found / (k * len(y)), "coverage": covered / len(x), "k": k, "n_real": len(x), "n": len(y),
    }  # fmt: skip


def _radius(x: Tensor, rows: Tensor, squared: Tensor, k: int) -> Tensor:
    """Squared distance of some rows of x [N, D] to their k-th nearest other row, exact, from blurred ones [n, N]."""
    squared[range(len(rows)), rows] = float("inf")
    nearest = squared.topk(min(k + _SPARE, len(x) - 1), largest=False).indices
    exact = (x[rows, None] - x[nearest]).square().sum(2)
    return exact.kthvalue(k, dim=1).values
