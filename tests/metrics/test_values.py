"""What the metrics refuse by name: numbers out of range, other types, masks that would be lost, numbers too large."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from hf_noise import metrics
from hf_noise.metrics.audit import reliability
from hf_noise.metrics.features import FeatureStatistics

CLASSES = [0, 1, 2, 1]
P = np.full((4, 3), 1 / 3)
MASKED = np.ma.array(CLASSES, mask=[False, True, False, False])
DRAW = np.random.default_rng(0)
FEATURES = DRAW.normal(size=(9, 2))
INTERVALS = [
    lambda c: metrics.accuracy(CLASSES, CLASSES, confidence=c),
    lambda c: metrics.per_class_accuracy(CLASSES, CLASSES, num_classes=3, confidence=c),
    lambda c: metrics.successor_rate(CLASSES, CLASSES, num_classes=3, confidence=c),
    lambda c: metrics.label_consistency(CLASSES, CLASSES, num_classes=3, confidence=c),
    lambda c: metrics.wilson_interval(1, 2, c),
]


@pytest.mark.parametrize("confidence", [-1, 2, 0, 1, math.nan, "0.95", None, True, 1j, np.array(0.9), 10**400])
@pytest.mark.parametrize("interval", INTERVALS)
def test_a_confidence_is_a_number_inside_0_and_1(interval, confidence):
    with pytest.raises((TypeError, ValueError), match="confidence must"):
        interval(confidence)
    assert interval(Fraction(1, 2)) is not None


@pytest.mark.parametrize(
    "values", [MASKED, [MASKED, CLASSES], np.array(CLASSES) + 0j, ["0", "1", "2", "1"], [0, None, 1, 2]]
)
def test_classes_are_integers_that_are_there(values):
    for call in (
        lambda: metrics.accuracy(values, CLASSES), lambda: metrics.confusion(CLASSES, values, num_classes=3),
        lambda: metrics.predicted_marginal(values, num_classes=3), lambda: metrics.classifier_calibration(P, values),
        lambda: metrics.classwise_frechet(FEATURES[:4], values, FEATURES[:4], CLASSES),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match="(predictions|references|real_labels) (must be|is a masked)"):
            call()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16", "uint32", "uint64", ">i4"])
def test_classes_of_every_kind_of_integer(dtype):
    narrow = np.array(CLASSES, dtype=dtype)
    assert metrics.successor_rate(narrow, narrow, num_classes=128) == metrics.successor_rate(
        CLASSES, CLASSES, num_classes=128
    )
    with pytest.raises(ValueError, match=r"1 of 1 predictions lie outside \[0, inf\), the first is 1844674407370955"):
        metrics.accuracy(np.array([2**64 - 1], dtype=np.uint64), [0])


@pytest.mark.parametrize(
    "values",
    [
        np.ma.array(FEATURES, mask=FEATURES > 9), FEATURES + 0j, FEATURES.astype("U9"), FEATURES > 0, FEATURES * 1e120,
        [[1.0], [1.0, 2.0]], torch.eye(9).to_sparse(), {},
    ],
)  # fmt: skip
def test_features_are_real_numbers_of_a_size_that_can_be_squared(values):
    labels = np.repeat([0, 1, 2], 3)
    for call in (
        lambda: metrics.frechet_distance(FEATURES, values), lambda: metrics.density_coverage(values, FEATURES, 1),
        lambda: metrics.inception_score(values, 1), lambda: FeatureStatistics(values),
        lambda: metrics.classwise_density_coverage(FEATURES, labels, values, labels, 1),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match="(features(_b)?|real|fake|probabilities) (must|is|can)"):
            call()


def test_features_of_every_kind_of_number_give_one_distance():
    whole = np.round(FEATURES * 10)
    expected = metrics.frechet_distance(FEATURES, whole)
    for kind in (np.longdouble, ">f8", np.float16, np.int8):
        assert metrics.frechet_distance(FEATURES, whole.astype(kind)) == pytest.approx(expected)
        assert metrics.density_coverage(whole.astype(kind), FEATURES, 2) == metrics.density_coverage(whole, FEATURES, 2)
    assert metrics.frechet_distance(FEATURES, torch.from_numpy(whole).bfloat16()) == pytest.approx(expected)


@pytest.mark.parametrize("mask", [[0.1, 0.9, 0.2, 0.3], [0, 1, 2, 1], ["a"] * 4, np.ma.array([True] * 4), None])
def test_a_mask_is_one(mask):
    for call in (reliability, metrics.audit_metrics):
        with pytest.raises((TypeError, ValueError), match="is_noisy"):
            call(np.linspace(0, 1, 4), mask)
    assert metrics.audit_metrics([0.1, 0.9], [1, 0]) == metrics.audit_metrics([0.1, 0.9], [True, False])


@pytest.mark.parametrize(
    "true", [np.array([0.5, 0.5]) + 0j, ["0.5", "0.5"], np.ma.array([0.5, 0.5]), [True, False], None]
)
def test_a_true_marginal_holds_real_numbers(true):
    for call in (metrics.sampling_kl, metrics.sampling_tv):
        with pytest.raises((TypeError, ValueError), match="true (must be|is a masked)"):
            call(true, 10)
        for n in (0, -1, 1.5, "1", True, None, 10**400):
            with pytest.raises((TypeError, ValueError), match="n must be"):
                call([0.5, 0.5], n)


def test_counts_are_whole_and_fit_together():
    for k, n, message in ((0.5, 2, "whole and finite"), (1, math.inf, "whole"), ("1", 2, "successes must be real")):
        with pytest.raises((TypeError, ValueError), match=message):
            metrics.wilson_interval(k, n)
    with pytest.raises(ValueError, match=r"successes \[2\] and n \[3\] do not fit together"):
        metrics.wilson_interval([0, 1], [1, 2, 3])
    for num_classes in (2**21, 2**63):
        with pytest.raises(ValueError, match="num_classes must be <= 1048576"):
            metrics.predicted_marginal(CLASSES, num_classes=num_classes)
    with pytest.raises(ValueError, match="num_classes must be <= 16384, .*2 GiB"):
        metrics.confusion(CLASSES, CLASSES, num_classes=2**20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 1.5}, "n of the state must be an integer"), ({"n": 0}, "n must be >= 1"),
        ({"scatter": np.array([[1.0, 5.0], [0.0, 1.0]])}, "scatter .* symmetric"),
        ({"scatter": -np.eye(2)}, "diagonal >= 0"), ({"mean": ["a", "b"]}, "mean must be"),
        ({"mean": np.ma.array([0.0, 1.0])}, "mean is a masked array"),
    ],
)  # fmt: skip
def test_a_state_of_statistics(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        FeatureStatistics.from_state(FeatureStatistics(FEATURES).state() | change)


def test_files_that_are_none(tmp_path):
    (tmp_path / "a").write_text("no statistics")
    with pytest.raises(ValueError, match="a cannot be read as feature statistics"):
        FeatureStatistics.load(tmp_path / "a")
    for function in (FeatureStatistics.load, metrics.inception_name, metrics.find_inception_weights):
        for path in (tmp_path / "gone.pth", "x" * 300):
            with pytest.raises(FileNotFoundError, match="gone.pth|xxx"):
                function(path)
        with pytest.raises(TypeError, match="(path|where) must be a path, got 3"):
            function(3)


@pytest.mark.parametrize("values", [["1", "0"], MASKED[:2], [b"1", 0], [np.array("1"), 0]])
def test_evaluate_would_read_texts_and_drop_masks(values):
    metric = metrics.AccuracyWithInterval()
    for given in ({"predictions": values, "references": [0, 1]}, {"predictions": [0, 1], "references": values}):
        with pytest.raises(TypeError, match="(predictions|references) must be numbers, got (the text|a masked array)"):
            metric.add_batch(**given)
