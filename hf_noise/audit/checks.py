"""What the audit asks of labels and of the probabilities that a classifier gives them."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_noise.noise.arrays import integers, real_numbers

__all__ = ["check_labels", "knows_nothing", "looks_in_sample", "shares"]

#: Of the sum of a row: float16 keeps three digits of each of its entries.
_ROW_SUM = 2e-3
#: Share of the given labels that only a model which has seen them finds again, and rows below which chance may.
_IN_SAMPLE, _IN_SAMPLE_ROWS = 0.99, 50


def check_labels(labels: Any, probabilities: Any) -> tuple[np.ndarray, np.ndarray]:
    """Given labels and out-of-fold probabilities, as the estimators need them.

    Args:
        labels: integers [N] in [0, C), each class at least once; N >= 2 C.
        probabilities: real numbers [N, C] with C >= 2, rows >= 0 that sum to 1 to within 2e-3.

    Returns:
        int64 [N], and float64 [N, C] whose rows sum to 1.

    Raises:
        TypeError: labels are no integers, or probabilities no real numbers.
        ValueError: other shapes, rows that are no distributions (the first is named), a label outside [0, C), or a
            class that no row has.
    """
    y, p = integers("labels", labels), real_numbers("probabilities", probabilities)
    if p.ndim != 2 or p.shape[1] < 2:
        raise ValueError(f"probabilities must be [N, C] with C >= 2 classes, got shape {list(p.shape)}")
    if y.shape != p.shape[:1]:
        there = f"there are {len(y)} labels" if y.ndim == 1 else f"labels have the shape {list(y.shape)}"
        raise ValueError(f"probabilities are {list(p.shape)} and {there}; give one row of probabilities per label")
    classes = p.shape[1]
    if len(y) < 2 * classes:
        raise ValueError(f"labels of {len(y)} rows are too few for {classes} classes; give at least {2 * classes} rows")
    if y.min() < 0 or y.max() >= classes:  # before the sums of rows, which a column that lacks spoils
        first = int(((y < 0) | (y >= classes)).argmax())
        raise ValueError(f"labels must lie in [0, {classes}) for {classes} columns of probabilities, got {y[first]} in "
                         f"row {first}; give one column for each class")  # fmt: skip
    total = p.sum(axis=1)
    # NaN fails every comparison, so that it counts as wrong.
    wrong = ~((p.min(axis=1) >= 0) & (np.abs(total - 1) <= _ROW_SUM))
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"{wrong.sum()} of {len(p)} rows of probabilities are no distributions, the first is row {first} with the "
            f"sum {total[first]:.6g} and the smallest entry {p[first].min():.6g}; give the softmax of the logits"
        )
    y = y.astype(np.int64)
    missing = np.flatnonzero(np.bincount(y, minlength=classes) == 0)
    if missing.size:
        raise ValueError(f"labels have no row of class {missing[0]} ({missing.size} of {classes} classes are empty); "
                         "drop its column of probabilities and number the classes that there are")  # fmt: skip
    return y, p / total[:, None]


def looks_in_sample(labels: np.ndarray, probabilities: np.ndarray) -> bool:
    """Whether the model finds nearly all given labels again, wrong ones too, as it would had it been trained on them.

    Very clean and easy data look the same, which is why this is said and not refused.
    """
    return len(labels) >= _IN_SAMPLE_ROWS and float((probabilities.argmax(axis=1) == labels).mean()) >= _IN_SAMPLE


def knows_nothing(labels: np.ndarray, probabilities: np.ndarray) -> bool:
    """Whether the model's first class meets the given label no more often than by chance, two standard errors allowed.

    Chance is that of labels and first classes dealt out anew, as in Cohen's kappa.
    """
    n, classes = probabilities.shape
    first = probabilities.argmax(axis=1)
    chance = (np.bincount(labels, minlength=classes) / n) @ (np.bincount(first, minlength=classes) / n)
    return bool((first == labels).mean() <= chance + 2 * np.sqrt(chance * (1 - chance) / n))


def shares(name: str, values: Any, least: int = 1) -> np.ndarray:
    """`values` as float64 [N] in [0, 1] with N >= `least`, or a TypeError or ValueError that names what it is not."""
    array = real_numbers(name, values)
    if array.ndim != 1 or len(array) < least:
        raise ValueError(f"{name} must be one probability per row, [N], got shape {list(array.shape)}")
    inside = (array >= 0) & (array <= 1)
    if not inside.all():
        first = int(np.argmin(inside))
        raise ValueError(f"{name} must lie in [0, 1], got {array[first]:g} at row {first}; it is a probability per row")
    return array
