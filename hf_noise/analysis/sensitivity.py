"""How far a head's decision holds around a sample (paper B, figure 6), over many samples and random directions.

Around each feature t lies a plane t + a u + b v with two random orthonormal directions u, v. The share of a square of
it, |a|, |b| <= reach, in which the head still predicts the label is its correct area. Directions are drawn by the
counter from (seed, sample id): two heads are looked at in the same planes, and a sample in the same one in any subset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_noise.noise import counter
from hf_noise.noise.arrays import integers, real_numbers
from hf_noise.noise.checks import check_count, check_real, check_seed

__all__ = ["CorrectArea", "correct_area", "slice_directions"]

_STREAM = 120  # of its own, beside those of noises and trainers
_LARGEST = 1e100
_AT_ONCE = 1 << 22  # numbers of perturbed features that are held at a time


@dataclass(frozen=True, eq=False)
class CorrectArea:
    """What was found around n samples.

    Attributes:
        area: share of the square that is predicted as the label says, float64 [n] in [0, 1].
        is_correct: whether the sample itself is, bool [n].
        predicted: classes over the first `keep` squares, int64 [keep, steps, steps]; the first axis is along u.
        offsets: a and b of the grid, float64 [steps], from -reach to reach; its middle is the sample.
    """

    area: np.ndarray
    is_correct: np.ndarray
    predicted: np.ndarray
    offsets: np.ndarray

    @property
    def mean(self) -> float:
        """Mean area over samples."""
        return float(self.area.mean())


def slice_directions(sample: Any, size: int, seed: int = 0) -> np.ndarray:
    """Two random orthonormal directions for each sample, float64 [n, 2, size]: uniform over all planes.

    Args:
        sample: integers [n], ids of the samples.
        size: d >= 2, length of a feature.
        seed: in [0, 2^63).

    Raises TypeError or ValueError: of another kind, shape or range.
    """
    ids, size, seed = integers("sample", sample), check_count("size", size, 2, 24), check_seed(seed)
    if ids.ndim != 1:
        raise ValueError(f"sample must be ids [n], got shape {list(ids.shape)}")
    drawn = counter.units(counter.row_keys(seed, _STREAM, 0, ids)[:, None], counter.weyl(4 * size))
    # Box and Muller (1958); 1 - x lies in (0, 1].
    radius, angle = np.sqrt(-2 * np.log(1 - drawn[:, ::2])), 2 * np.pi * drawn[:, 1::2]
    normal = (radius * np.cos(angle)).reshape(len(ids), 2, size)
    u = normal[:, 0] / np.linalg.norm(normal[:, 0], axis=1, keepdims=True)
    v = normal[:, 1]
    for _ in range(2):  # once more for what rounding leaves, which counts where the two are nearly parallel
        v = v - (u * v).sum(axis=1, keepdims=True) * u
        v = v / np.linalg.norm(v, axis=1, keepdims=True)
    return np.stack([u, v], axis=1)


def correct_area(
    predict: Callable[[np.ndarray], Any], features: Any, labels: Any, *, reach: float, steps: int = 41,
    sample: Any = None, seed: int = 0, keep: int = 0,
) -> CorrectArea:  # fmt: skip
    """The correct area around each sample.

    Args:
        predict: features float64 [m, d] -> classes, integers [m].
        features: real numbers [n, d], n >= 1, d >= 2.
        labels: integers [n].
        reach: half a side of the square, > 0, in the units of the features: perturbations gamma N(0, I) reach gamma in
            each direction, and gamma sqrt(d) in all.
        steps: points along a side, odd, so that the sample itself is one of them; 3 to 1023.
        sample: ids [n] that directions are drawn by; by default 0 .. n - 1.
        seed: of the directions.
        keep: for how many samples, the first ones, to keep what is predicted; in [0, n].

    Raises:
        TypeError: of another kind; `predict` is no function.
        ValueError: shapes that do not fit together, NaN, or outside its range.
    """
    features, labels = real_numbers("features", features), integers("labels", labels)
    if features.ndim != 2 or not len(features) or features.shape[1] < 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"features must be [n, d] with n >= 1 and d >= 2 and labels [n], got {list(features.shape)} and "
            f"{list(labels.shape)}"
        )
    if not np.isfinite(features).all() or np.abs(features).max() > _LARGEST:
        raise ValueError("features must be finite and lie in [-1e100, 1e100]; look at what made them")
    reach, steps = _reach(reach), check_count("steps", steps, 3, 10)
    if steps % 2 == 0:
        raise ValueError(f"steps must be odd, so that the sample is in the middle of the grid, got {steps}")
    if not callable(predict):
        raise TypeError(f"predict must be a function of features [m, d], got {type(predict).__name__}")
    n, size = features.shape
    keep = check_count("keep", keep, 0, 40)
    ids = np.arange(n) if sample is None else integers("sample", sample)
    if ids.shape != (n,) or keep > n:
        raise ValueError(f"there are {n} samples: sample must be ids [{n}], got {list(ids.shape)}, and keep at most "
                         f"{n}, got {keep}")  # fmt: skip
    offsets = np.linspace(-reach, reach, steps)
    area, is_correct, kept = np.empty(n), np.empty(n, dtype=bool), np.empty((keep, steps, steps), dtype=np.int64)
    at_once = max(1, _AT_ONCE // (steps * steps * size))
    for start in range(0, n, at_once):
        rows = slice(start, min(start + at_once, n))
        u, v = slice_directions(ids[rows], size, seed).transpose(1, 0, 2)
        # [m, steps, steps, d]
        moved = features[rows, None, None] + offsets[:, None, None] * u[:, None, None]
        moved = moved + offsets[:, None] * v[:, None, None]
        found = integers("what predict returns", predict(moved.reshape(-1, size)))
        if found.shape != (moved.shape[0] * steps * steps,):
            raise ValueError(f"predict must return one class for each of {moved.shape[0] * steps * steps} features, "
                             f"got shape {list(found.shape)}")  # fmt: skip
        found = found.reshape(-1, steps, steps)
        right = found == labels[rows, None, None]
        area[rows], is_correct[rows] = right.mean(axis=(1, 2)), right[:, steps // 2, steps // 2]
        wanted = max(0, min(keep, rows.stop) - start)
        kept[start : start + wanted] = found[:wanted]
    return CorrectArea(area, is_correct, kept, offsets)


def _reach(value: Any) -> float:
    reach = check_real("reach", value)
    if not 0 < reach <= _LARGEST:
        raise ValueError(f"reach must lie in (0, {_LARGEST:g}], got {value!r}; it is in the units of the features")
    return reach
