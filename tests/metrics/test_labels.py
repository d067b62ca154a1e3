"""What is no class index is named with its count, first index and value."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hf_noise.metrics import accuracy, confusion, marginal_kl, per_class_accuracy, successor_rate
from hf_noise.metrics.labels import class_indices

OF_PAIRS = [accuracy, per_class_accuracy, successor_rate, confusion, marginal_kl]


@pytest.mark.parametrize("metric", OF_PAIRS, ids=lambda metric: metric.__name__)
@pytest.mark.parametrize(
    ("predictions", "references", "error", "message"),
    [
        ([0, 1, 2], [0, 12, 10], ValueError,
         "2 of 3 references lie outside [0, 10), the first is 12 at index 1; drop what carries no label (-100)"),
        ([0, 1, -100], [0, 1, 2], ValueError, "1 of 3 predictions lie outside [0, 10), the first is -100 at index 2"),
        ([0, 1], [0], ValueError, "2 predictions do not belong to 1 references"),
        ([], [], ValueError, "predictions must be class indices [n] with n >= 1, got shape [0]"),
        ([0], [[0]], ValueError, "references must be class indices [n] with n >= 1, got shape [1, 1]"),
        ([0.5, 0.5], [0, 1], TypeError, "predictions must be integers, got float64; take argmax(axis=-1) of logits"),
        ([0, 1], [True, False], TypeError, "references must be integers, got bool"),
        (np.array([2**64 - 1], np.uint64), [0], ValueError, "the first is 18446744073709551615 at index 0"),
    ],
)  # fmt: skip
def test_every_metric_of_pairs_refuses(metric, predictions, references, error, message):
    with pytest.raises(error, match=re.escape(message)):
        metric(predictions, references, num_classes=10)


@pytest.mark.parametrize("metric", OF_PAIRS, ids=lambda metric: metric.__name__)
@pytest.mark.parametrize(
    ("num_classes", "error", "message"),
    [(1, ValueError, ">= 2, got 1"), (2.0, TypeError, "got 2.0 of type float"), (True, TypeError, "of type bool")],
)
def test_the_number_of_classes_is_checked(metric, num_classes, error, message):
    with pytest.raises(error, match=f"num_classes must be .*{message}"):
        metric([0], [0], num_classes=num_classes)


def test_accuracy_alone_needs_no_number_of_classes():
    assert accuracy([7, 3], [7, 4])["accuracy"] == 0.5
    with pytest.raises(ValueError, match=r"1 of 2 references lie outside \[0, inf\), the first is -100 at index 1"):
        accuracy([7, 3], [7, -100])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_any_integers_become_int64(dtype):
    found = class_indices("labels", np.array([0, 99], dtype), 100)
    assert found.dtype == np.int64 and found.tolist() == [0, 99]
