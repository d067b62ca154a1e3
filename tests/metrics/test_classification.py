"""Accuracy, per class and against the cyclic successor, worked by hand and as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest

from hf_noise.metrics import accuracy, confusion, per_class_accuracy, successor_rate

C = 5
PAIRS = st.integers(1, 60).flatmap(lambda n: st.tuples(*[arrays(np.int64, n, elements=st.integers(0, C - 1))] * 2))

# Reference 0 twice (right, successor), 1 once (successor), 2 not at all, 3 three times (right, right, successor 0).
REFERENCES = [0, 0, 1, 3, 3, 3]
PREDICTIONS = [0, 1, 2, 3, 3, 0]


def test_accuracy_by_hand():
    found = accuracy(PREDICTIONS, REFERENCES, num_classes=4)
    wilson = binomtest(3, 6).proportion_ci(method="wilson")
    assert found == {"accuracy": 0.5, "low": pytest.approx(wilson.low), "high": pytest.approx(wilson.high), "n": 6}
    assert accuracy(PREDICTIONS, REFERENCES, confidence=0.5)["low"] > found["low"]


def test_per_class_by_hand():
    found = per_class_accuracy(PREDICTIONS, REFERENCES, num_classes=4)
    np.testing.assert_array_equal(found["accuracy"], [1 / 2, 0, np.nan, 2 / 3])
    np.testing.assert_array_equal(found["n"], [2, 1, 0, 3])
    assert found["missing"] == 1
    third = binomtest(2, 3).proportion_ci(method="wilson")
    assert (found["low"][3], found["high"][3]) == (pytest.approx(third.low), pytest.approx(third.high))
    assert found["low"][1] == 0 and 0 < found["high"][1] < 1
    assert np.isnan(found["low"][2]) and np.isnan(found["high"][2])
    assert {name: value.dtype for name, value in found.items() if name != "missing"} == {
        "accuracy": np.float64, "low": np.float64, "high": np.float64, "n": np.int64,
    }  # fmt: skip


def test_successor_by_hand():
    """0 -> 1, 1 -> 2 and, round the end, 3 -> 0: three of six."""
    found = successor_rate(PREDICTIONS, REFERENCES, num_classes=4)
    wilson = binomtest(3, 6).proportion_ci(method="wilson")
    assert found == {
        "successor_rate": 0.5, "low": pytest.approx(wilson.low), "high": pytest.approx(wilson.high), "n": 6,
    }  # fmt: skip
    # Without its true number of classes the last class has another successor.
    assert successor_rate(PREDICTIONS, REFERENCES, num_classes=5)["successor_rate"] == pytest.approx(2 / 6)


def test_the_successor_of_the_largest_small_integer():
    assert successor_rate(np.array([0], np.uint8), np.array([255], np.uint8), num_classes=256)["successor_rate"] == 1
    assert successor_rate(np.array([0], np.int8), np.array([127], np.int8), num_classes=128)["successor_rate"] == 1


@pytest.mark.parametrize("num_classes", [10, 100, 1000])
def test_a_classifier_of_cyclic_noise_at_one_half(num_classes):
    """n = 10,000: the share of successors has standard error 0.005, five of them a false alarm below 1e-6."""
    draw = np.random.default_rng(num_classes)
    references = draw.integers(num_classes, size=10_000)
    predictions = (references + draw.integers(2, size=10_000)) % num_classes
    found = successor_rate(predictions, references, num_classes=num_classes)
    assert found["successor_rate"] == pytest.approx(0.5, abs=0.025)


def test_wrong_answers_without_direction():
    """Symmetric noise at e = 0.5, C = 10: a ninth of the wrong half are successors; 5 standard errors are 0.0115."""
    draw = np.random.default_rng(0)
    references = draw.integers(10, size=10_000)
    predictions = np.where(draw.random(10_000) < 0.5, references, (references + draw.integers(1, 10, 10_000)) % 10)
    found = successor_rate(predictions, references, num_classes=10)
    assert found["successor_rate"] == pytest.approx(1 / 18, abs=0.0115)


def test_confusion_has_references_in_rows():
    expected = [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 2]]
    assert confusion(PREDICTIONS, REFERENCES, num_classes=4).tolist() == expected


@settings(deadline=None)
@given(PAIRS)
def test_all_are_readings_of_the_confusion(pair):
    predictions, references = pair
    counts = confusion(predictions, references, num_classes=C)
    n = references.size
    assert counts.sum() == n
    assert accuracy(predictions, references, num_classes=C)["accuracy"] == pytest.approx(np.trace(counts) / n)
    successors = counts[np.arange(C), (np.arange(C) + 1) % C].sum()
    assert successor_rate(predictions, references, num_classes=C)["successor_rate"] == pytest.approx(successors / n)
    each = per_class_accuracy(predictions, references, num_classes=C)
    np.testing.assert_array_equal(each["n"], counts.sum(axis=1))
    assert each["missing"] == (counts.sum(axis=1) == 0).sum()
    assert np.nansum(each["accuracy"] * each["n"]) == pytest.approx(np.trace(counts))


@settings(deadline=None)
@given(PAIRS, st.permutations(range(C)))
def test_renaming_the_classes_moves_the_figures_along(pair, names):
    predictions, references = pair
    renamed = np.array(names)
    assert accuracy(renamed[predictions], renamed[references]) == accuracy(predictions, references)
    before = per_class_accuracy(predictions, references, num_classes=C)
    after = per_class_accuracy(renamed[predictions], renamed[references], num_classes=C)
    for name in ("accuracy", "low", "high", "n"):
        np.testing.assert_array_equal(after[name][renamed], before[name])


@settings(deadline=None)
@given(PAIRS, st.integers(0, C - 1))
def test_the_successor_is_cyclic(pair, shift):
    predictions, references = pair
    turned = successor_rate((predictions + shift) % C, (references + shift) % C, num_classes=C)
    assert turned == successor_rate(predictions, references, num_classes=C)
    # What was right becomes a successor when every prediction moves on by one class.
    moved = successor_rate((predictions + 1) % C, references, num_classes=C)
    assert moved["successor_rate"] == accuracy(predictions, references)["accuracy"]
