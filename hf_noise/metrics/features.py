"""Features of images: what the metrics of generated images ask of them, and their statistics in constant memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from hf_noise.atomic import replaced_whole
from hf_noise.metrics.checks import as_array, check_count, check_path, real_numbers
from hf_noise.metrics.labels import class_indices

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["FeatureStatistics", "check_features", "classes_of"]

# Features whose squares can still be added up.
_LARGEST = 1e100
# Rows that are turned into float64 at a time.
_ROWS_AT_ONCE = 4096
_STATE = ("n", "mean", "scatter")


def check_features(name: str, values: Any) -> np.ndarray:
    """`values`, an array or a tensor on any device, as a floating-point array [N, D].

    Raises:
        TypeError: they are no real numbers.
        ValueError: their shape is not [N, D] with N, D >= 1, or a row holds NaN, inf or a number beyond 1e100, whose
            square would soon be infinite; or this is a masked array, whose mask would be lost.
    """
    array = as_array(name, values)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be features [N, D] with N, D >= 1, got shape {list(array.shape)}")
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real numbers, got {array.dtype}")
    if array.dtype.kind != "f" or array.itemsize > 8:
        array = array.astype(np.float64)
    broken = ~np.isfinite(array).all(axis=1)
    if broken.any():
        raise ValueError(
            f"{broken.sum()} of {len(array)} rows of {name} hold NaN or inf, the first is row {broken.argmax()}; "
            "look at the images and at the network that made the features before measuring them"
        )
    if array.itemsize == 8 and max(array.max(), -array.min()) > _LARGEST:
        raise ValueError(f"{name} must lie in [-1e100, 1e100], got {array.flat[np.abs(array).argmax()]:g}; scale them")
    return array


class FeatureStatistics:
    """Number, mean and covariance of features, added up batch by batch in float64 and constant memory.

    Batches and parts are joined by the update of Chan, Golub and LeVeque (1979), which takes differences of means and
    never one of large sums: features far from 0 lose nothing. Order and size of the batches change rounding alone.

        statistics = FeatureStatistics()
        for batch in batches:
            statistics.update(batch)
        statistics = statistics.reduced(accelerator)    # that of all processes, in each

    Attributes:
        n: rows seen.
        mean: float64 [D], None before the first row.
        scatter: float64 [D, D], the sum of outer products of deviations from the mean; None before the first row.
    """

    def __init__(self, features: ArrayLike | None = None):
        self.n = 0
        self.mean: np.ndarray | None = None
        self.scatter: np.ndarray | None = None
        if features is not None:
            self.update(features)

    def __repr__(self) -> str:
        return f"FeatureStatistics(n={self.n}, dim={self.dim})"

    @property
    def dim(self) -> int | None:
        """Number of features D, None before the first row."""
        return None if self.mean is None else len(self.mean)

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased covariance (divided by n - 1), float64 [D, D]. Raises ValueError: fewer than two rows."""
        if self.n < 2:
            raise ValueError(f"a covariance takes at least 2 rows, there are {self.n}")
        return self.scatter / (self.n - 1)

    def update(self, features: ArrayLike) -> FeatureStatistics:
        """Add features float [N, D] of any kind that `check_features` takes; returns itself.

        Raises ValueError: NaN, inf, another shape, or another D than before.
        """
        features = check_features("features", features)
        self._check_dim(features.shape[1])
        for start in range(0, len(features), _ROWS_AT_ONCE):
            rows = features[start : start + _ROWS_AT_ONCE].astype(np.float64)
            mean = rows.mean(axis=0)
            rows -= mean
            self._add(len(rows), mean, rows.T @ rows)
        return self

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Add what another one has seen, which stays as it is; returns itself. Raises ValueError: another D."""
        if not isinstance(other, FeatureStatistics):
            raise TypeError(f"other must be FeatureStatistics, got {type(other).__name__}; update() takes features")
        if other.n:
            self._check_dim(other.dim)
            self._add(other.n, other.mean, other.scatter)
        return self

    def reduced(self, accelerator: Accelerator) -> FeatureStatistics:
        """The statistics of all processes together, in each of them; every process has to call it.

        Sums of [D] and [D, D] go over the wire, so memory does not grow with the number of processes. A process that
        saw no row takes part.

        Raises:
            ValueError: two processes have features of different D.
        """
        import torch

        def summed(array: np.ndarray) -> np.ndarray:
            total = accelerator.reduce(torch.from_numpy(array).to(accelerator.device), reduction="sum")
            return total.cpu().numpy()

        sizes = accelerator.gather(torch.tensor([self.dim or 0], device=accelerator.device)).tolist()
        dims = sorted({size for size in sizes if size})
        if len(dims) > 1:
            raise ValueError(f"processes have features of {dims[0]} and of {dims[-1]} numbers; use one extractor")
        found = FeatureStatistics()
        if not dims:
            return found
        mean = np.zeros(dims[0]) if self.mean is None else self.mean
        scatter = np.zeros((dims[0], dims[0])) if self.scatter is None else self.scatter
        # A count fits a float64 up to 2^53.
        found.n = round(float(summed(np.array([self.n], dtype=np.float64))[0]))
        # The mean of the first process that has one is near all others: what is summed are small differences.
        origin = accelerator.gather(torch.from_numpy(mean[None]).to(accelerator.device))[sizes.index(dims[0])]
        origin = origin.cpu().numpy()
        found.mean = origin + summed(self.n * (mean - origin)) / found.n
        apart = mean - found.mean
        found.scatter = summed(scatter + self.n * np.outer(apart, apart))
        return found

    def state(self) -> dict[str, np.ndarray]:
        """Arrays that `from_state` makes the same statistics of: n int64 [], mean [D], scatter [D, D].

        Raises ValueError: nothing was seen yet.
        """
        if not self.n:
            raise ValueError("there are no statistics to keep: no features were added")
        return {"n": np.array(self.n, dtype=np.int64), "mean": self.mean, "scatter": self.scatter}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> FeatureStatistics:
        """Statistics of arrays that `state` gave.

        Raises ValueError: arrays are missing or do not fit together; TypeError: they hold no numbers.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state must be the dictionary that state() gives, got {type(state).__name__}")
        missing = [name for name in _STATE if name not in state]
        if missing:
            raise ValueError(f"these are no feature statistics: {', '.join(missing)} missing")
        n = as_array("n", state["n"])
        if n.ndim or n.dtype.kind not in "iu":
            raise TypeError(f"n of the state must be an integer, got {n.dtype} of shape {list(n.shape)}")
        n = check_count("n", n.item())
        mean, scatter = (real_numbers(name, state[name]).copy() for name in _STATE[1:])
        if mean.ndim != 1 or not mean.size or scatter.shape != (mean.size, mean.size):
            raise ValueError(
                f"n = {n}, mean {list(mean.shape)} and scatter {list(scatter.shape)} are no feature statistics: "
                "n >= 1, [D] and [D, D]"
            )
        if not (np.isfinite(mean).all() and np.isfinite(scatter).all()):
            raise ValueError("mean and scatter of the state hold NaN or inf; compute them again")
        if scatter.diagonal().min() < 0 or np.abs(scatter - scatter.T).max() > 1e-6 * np.abs(scatter).max():
            raise ValueError("scatter of the state is no sum of outer products: symmetric, with a diagonal >= 0")
        found = cls()
        found.n, found.mean, found.scatter = n, mean, scatter
        return found

    def save(self, path: str | os.PathLike) -> Path:
        """Write a safetensors file, whole or not at all."""
        from safetensors.numpy import save_file

        path = check_path("path", path)
        with replaced_whole(path) as unfinished:
            save_file(self.state(), unfinished)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> FeatureStatistics:
        """Read a file that `save` wrote.

        Raises ValueError: it holds something else; FileNotFoundError: it is not there.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = check_path("path", path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path} with feature statistics")
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read as feature statistics: {error}") from error
        return cls.from_state(state)

    def _check_dim(self, dim: int) -> None:
        if self.dim not in (None, dim):
            raise ValueError(f"features have {dim} numbers, those seen before {self.dim}; use one extractor for all")

    def _add(self, n: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        if not self.n:
            self.n, self.mean, self.scatter = n, mean.copy(), scatter.copy()
            return
        total = self.n + n
        apart = mean - self.mean
        self.scatter += scatter
        self.scatter += np.outer(apart, apart) * (self.n * n / total)
        self.mean = self.mean + apart * (n / total)
        self.n = total


def classes_of(
    real: np.ndarray, real_labels: ArrayLike, fake: np.ndarray, fake_labels: ArrayLike, at_least: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(class, its real features, its generated features) for every class that either side has, by rising class.

    Raises:
        TypeError: labels are not integers.
        ValueError: labels do not belong to the features, or a class has fewer than `at_least` of either.
    """
    sides = []
    for name, features, labels in (("real", real, real_labels), ("fake", fake, fake_labels)):
        labels = class_indices(f"{name}_labels", labels, None)
        if len(labels) != len(features):
            raise ValueError(f"{len(labels)} {name}_labels do not belong to {len(features)} rows of {name}")
        sides.append((features, labels))
    (real, real_labels), (fake, fake_labels) = sides
    for c in np.union1d(real_labels, fake_labels):
        of_real, of_fake = real[real_labels == c], fake[fake_labels == c]
        if min(len(of_real), len(of_fake)) < at_least:
            raise ValueError(
                f"class {c} has {len(of_real)} real and {len(of_fake)} generated images, at least {at_least} of each "
                "are needed; generate as many images of every class"
            )
        yield int(c), of_real, of_fake
