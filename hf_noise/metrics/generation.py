"""What a classifier says of generated images: inception score, label consistency and the line it is held against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import xlogy

from hf_noise.metrics.checks import check_real
from hf_noise.metrics.classification import accuracy, per_class_accuracy
from hf_noise.metrics.features import check_features
from hf_noise.metrics.labels import check_num_classes

__all__ = ["inception_score", "label_consistency", "mixture_reference"]

_SUM_TOLERANCE = 1e-3


def inception_score(probabilities: ArrayLike, splits: int = 10) -> dict[str, float | int]:
    """exp(mean_x KL(p(y|x) || p(y))), mean and standard deviation over splits (Salimans et al. 2016).

    It lies in [1, C]. It is called IS only of Inception's probabilities. Splits are of rows one after the other: rows
    that are sorted by class have to be shuffled first, or every split has a marginal of its own.

    Args:
        probabilities: float [N, C], rows summing to 1.
        splits: >= 1 and at most N.

    Returns:
        {"inception_score": mean, "std": over splits (0 for one), "splits", "n": N}.

    Raises:
        TypeError: probabilities are no real numbers, or splits is no integer.
        ValueError: shapes other than [N, C], NaN, negative values, rows that do not sum to 1, splits outside [1, N].

    Source: spec section 10.
    """
    p = check_features("probabilities", probabilities).astype(np.float64)
    total = p.sum(axis=1)
    wrong = (p.min(axis=1) < 0) | (abs(total - 1) > _SUM_TOLERANCE)
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"{wrong.sum()} of {len(p)} rows are no probabilities, row {first} sums to {total[first]:g} and has the "
            f"minimum {p[first].min():g}; take softmax(axis=-1) of logits first"
        )
    if isinstance(splits, bool) or not isinstance(splits, int | np.integer):
        raise TypeError(f"splits must be an integer, got {splits!r} of type {type(splits).__name__}")
    if not 1 <= splits <= len(p):
        raise ValueError(f"splits must lie in [1, {len(p)}], the number of rows, got {splits!r}; 10 is usual")
    p /= total[:, None]
    scores = []
    for part in np.array_split(p, splits):
        # KL summed as entropies: E_x sum_y p log p - sum_y m log m.
        marginal = part.mean(axis=0)
        scores.append(np.exp(max(0.0, xlogy(part, part).sum(axis=1).mean() - xlogy(marginal, marginal).sum())))
    return {
        "inception_score": float(np.mean(scores)), "std": float(np.std(scores)), "splits": int(splits), "n": len(p),
    }  # fmt: skip


def label_consistency(
    predictions: ArrayLike, labels: ArrayLike, *, num_classes: int, confidence: float = 0.95
) -> dict[str, Any]:
    """Share of generated images that a judge gives the label they were asked for, with Wilson intervals.

    The judge is trained on clean real images; its own accuracy on real test images belongs beside this figure.

    Args:
        predictions: integers [n] in [0, num_classes), of the judge.
        labels: integers [n] in [0, num_classes), the classes that were asked for.
        num_classes: C >= 2.
        confidence: of the intervals, in (0, 1).

    Returns:
        {"label_consistency", "low", "high", "n", "per_class": {"label_consistency", "low", "high": float64 [C], nan
        for a class that was not asked for, "n": int64 [C]}}.

    Raises:
        TypeError: predictions or labels are not integers.
        ValueError: they are empty, of different length or outside [0, C), or confidence is outside (0, 1).

    Source: paper A, section 4.3 of the spec; A.table1.
    """
    overall = accuracy(predictions, labels, num_classes=num_classes, confidence=confidence)
    by_class = per_class_accuracy(predictions, labels, num_classes=num_classes, confidence=confidence)
    return {
        "label_consistency": overall["accuracy"], **{name: overall[name] for name in ("low", "high", "n")},
        "per_class": {
            "label_consistency": by_class["accuracy"], **{name: by_class[name] for name in ("low", "high", "n")},
        },
    }  # fmt: skip


def mixture_reference(clean_consistency: float, error_rate: float, num_classes: int) -> float:
    """Label consistency of a generator that fits the noisy conditional exactly: (1 - e) a0 + e (1 - a0) / (C - 1).

    Such a generator draws an image of another class, each alike, with probability e (symmetric noise, balanced
    classes). What lies below this line is lost to more than the labels.

    Args:
        clean_consistency: a0 in [0, 1], that of the generator trained without noise.
        error_rate: e in [0, 1].
        num_classes: C >= 2.

    Raises:
        TypeError: num_classes is no integer, or another value no number.
        ValueError: a value lies outside.

    Source: spec section 4.3, reference value.

    >>> round(100 * mixture_reference(0.94082, 0.5, 10), 2)  # CIFAR-10 at r = 1
    47.37
    """
    num_classes = check_num_classes(num_classes)
    clean_consistency, error_rate = _share("clean_consistency", clean_consistency), _share("error_rate", error_rate)
    return (1 - error_rate) * clean_consistency + error_rate * (1 - clean_consistency) / (num_classes - 1)


def _share(name: str, value: float) -> float:
    share = check_real(name, value)
    if not 0 <= share <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value!r}; it is a share, not a percentage")
    return share
