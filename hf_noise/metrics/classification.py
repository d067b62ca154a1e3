"""How often a classifier is right, class by class, and whether it follows the cyclic successor of structured noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hf_noise.metrics.checks import check_count
from hf_noise.metrics.intervals import wilson_interval, wilson_share
from hf_noise.metrics.labels import check_num_classes, class_pairs

__all__ = ["accuracy", "confusion", "per_class_accuracy", "successor_rate"]


def accuracy(
    predictions: ArrayLike, references: ArrayLike, *, num_classes: int | None = None, confidence: float = 0.95
) -> dict[str, float | int]:
    """Share of right predictions with its Wilson interval.

    Args:
        predictions: integers [n] in [0, num_classes).
        references: integers [n], the clean classes, or the noisy ones to see how far these are memorised.
        num_classes: C >= 2; None lets any class >= 0 pass.
        confidence: of the interval, in (0, 1).

    Returns:
        {"accuracy", "low", "high", "n"}: shares in [0, 1] and the number of predictions.

    Raises:
        TypeError: predictions or references are not integers.
        ValueError: they are empty, of different length or outside [0, C), or confidence is outside (0, 1).
    """
    predictions, references = class_pairs(predictions, references, num_classes)
    return wilson_share("accuracy", predictions == references, confidence)


def per_class_accuracy(
    predictions: ArrayLike, references: ArrayLike, *, num_classes: int, confidence: float = 0.95
) -> dict[str, Any]:
    """Share of right predictions among the references of each class, with Wilson intervals.

    Args:
        predictions: integers [n] in [0, num_classes).
        references: integers [n] in [0, num_classes).
        num_classes: C >= 2.
        confidence: of each interval on its own, in (0, 1).

    Returns:
        {"accuracy", "low", "high"}: float64 [C], nan for a class without references; {"n"}: int64 [C], references per
        class; {"missing"}: int, the number of classes without references.

    Raises:
        TypeError: predictions or references are not integers.
        ValueError: they are empty, of different length or outside [0, C), or confidence is outside (0, 1).
    """
    predictions, references = class_pairs(predictions, references, check_num_classes(num_classes))
    n = np.bincount(references, minlength=num_classes)
    right = np.bincount(references[predictions == references], minlength=num_classes)
    low, high = wilson_interval(right, n, confidence)
    share = np.divide(right, n, out=np.full(num_classes, np.nan), where=n > 0)
    return {"accuracy": share, "low": low, "high": high, "n": n, "missing": int((n == 0).sum())}


def successor_rate(
    predictions: ArrayLike, references: ArrayLike, *, num_classes: int, confidence: float = 0.95
) -> dict[str, float | int]:
    """Share of predictions equal to (y + 1) mod C, the class that structured noise puts in the place of y.

    A classifier that learned the cyclic noise of paper A's appendix L at e = 0.5 gives about one half; wrong answers
    without a direction give (1 - accuracy) / (C - 1).

    Args:
        predictions: integers [n] in [0, num_classes).
        references: integers [n] in [0, num_classes), the clean classes y.
        num_classes: C >= 2.
        confidence: of the Wilson interval, in (0, 1).

    Returns:
        {"successor_rate", "low", "high", "n"}: shares in [0, 1] and the number of predictions.

    Raises:
        TypeError: predictions or references are not integers.
        ValueError: they are empty, of different length or outside [0, C), or confidence is outside (0, 1).
    """
    predictions, references = class_pairs(predictions, references, check_num_classes(num_classes))
    return wilson_share("successor_rate", predictions == (references + 1) % num_classes, confidence)


def confusion(predictions: ArrayLike, references: ArrayLike, *, num_classes: int) -> np.ndarray:
    """Counts int64 [C, C] of (reference, prediction), rows the references, as `sklearn.metrics.confusion_matrix`.

    Divided by its row sums it compares with the transition matrix T of the noise: rows are the clean classes in both.

    Raises:
        TypeError: predictions or references are not integers.
        ValueError: they are empty, of different length or outside [0, C), or C > 2^14, for which the counts would take
            more than 2 GiB.
    """
    check_count("num_classes", check_num_classes(num_classes), 1 << 14, "their counts would take more than 2 GiB")
    from sklearn.metrics import confusion_matrix  # seconds to import, and the other metrics do without

    predictions, references = class_pairs(predictions, references, check_num_classes(num_classes))
    return confusion_matrix(references, predictions, labels=np.arange(num_classes))
