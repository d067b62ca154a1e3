"""Calibration error, likelihood and Brier score of a classifier, worked by hand and on simulated truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax

from hf_noise.metrics import classifier_calibration, classifier_reliability
from hf_noise.metrics.calibration import calibration_error, stated_and_observed

# Probabilities of three rows; predicted 0, 0, 2 and true 0, 1, 2.
P = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
REFERENCES = np.array([0, 1, 2])
LOGITS = st.tuples(st.integers(1, 20), st.integers(2, 5)).flatmap(
    lambda shape: st.tuples(
        arrays(np.float64, shape, elements=st.floats(-30, 30)),
        arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)),
    )
)


def test_by_hand():
    found = classifier_calibration(np.log(P), REFERENCES, bins=10)
    assert found["nll"] == pytest.approx(-(math.log(0.8) + math.log(0.3) + math.log(0.6)) / 3)
    rows = [0.2**2 + 0.1**2 + 0.1**2, 0.6**2 + 0.7**2 + 0.1**2, 0.2**2 + 0.2**2 + 0.4**2]
    assert found["brier"] == pytest.approx(sum(rows) / 3)
    # Two rows state 0.6 and half of them are right; one states 0.8 and is.
    assert found["ece"] == pytest.approx(2 / 3 * 0.1 + 1 / 3 * 0.2)
    assert found["confidence"] == pytest.approx((0.8 + 0.6 + 0.6) / 3)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["n"] == 3


def test_reliability_by_hand():
    middle, high = classifier_reliability(np.log(P), REFERENCES, bins=4)
    assert middle == {"stated": pytest.approx(0.6), "observed": 0.5, "n": 2}
    assert high == {"stated": pytest.approx(0.8), "observed": 1.0, "n": 1}
    assert calibration_error([middle, high]) == classifier_calibration(np.log(P), REFERENCES, bins=4)["ece"]


def test_the_edges_of_the_bins():
    """A bin holds its lower edge; one belongs to the last; an empty bin is left out."""
    rows = stated_and_observed(np.array([0.0, 0.25, 0.5, 1.0]), np.array([False, True, False, True]), bins=2)
    assert rows == [{"stated": 0.125, "observed": 0.5, "n": 2}, {"stated": 0.75, "observed": 0.5, "n": 2}]
    assert [row["stated"] for row in stated_and_observed(np.array([0.0, 1.0]), np.ones(2, bool), bins=9)] == [0, 1]


def test_sure_and_right_or_wrong():
    logits = np.array([[1000.0, -1000.0], [1000.0, -1000.0]])
    right = classifier_calibration(logits, [0, 0])
    assert right == {"ece": 0, "nll": 0, "brier": 0, "confidence": 1, "accuracy": 1, "n": 2}
    wrong = classifier_calibration(logits, [1, 1])
    assert wrong == {"ece": 1, "nll": 2000, "brier": 2, "confidence": 1, "accuracy": 0, "n": 2}


def test_knowing_nothing():
    """Equal logits over four classes: every row predicts class 0 at 1/4, ln 4 nats, (3/4)^2 + 3 (1/4)^2 = 3/4."""
    found = classifier_calibration(np.zeros((4, 4), np.float32), [0, 1, 2, 3])
    assert found == pytest.approx(
        {"ece": 0, "nll": math.log(4), "brier": 0.75, "confidence": 0.25, "accuracy": 0.25, "n": 4}
    )


def test_a_class_ruled_out():
    logits = np.array([[0.0, -math.inf, 0.0], [0.0, 0.0, 0.0]])
    assert classifier_calibration(logits, [0, 1])["nll"] == pytest.approx((math.log(2) + math.log(3)) / 2)
    assert classifier_calibration(logits, [1, 1])["nll"] == math.inf


def test_a_near_tie_counts_as_the_logits_have_it():
    """1e-20 is lost in the softmax; the second class was predicted all the same."""
    assert classifier_calibration([[0.0, 1e-20]], [1])["accuracy"] == 1
    assert classifier_reliability([[0.0, 1e-20]], [1]) == [{"stated": 0.5, "observed": 1.0, "n": 1}]


@settings(deadline=None)
@given(LOGITS)
def test_against_plain_formulas(case):
    logits, references = case
    found = classifier_calibration(logits, references)
    p, one_hot = softmax(logits, axis=1), np.eye(logits.shape[1])[references]
    assert found["brier"] == pytest.approx(((p - one_hot) ** 2).sum(axis=1).mean(), abs=1e-12)
    assert found["nll"] == pytest.approx(-(log_softmax(logits, axis=1) * one_hot).sum(axis=1).mean(), abs=1e-12)
    assert found["accuracy"] == (logits.argmax(axis=1) == references).mean()
    assert 0 <= found["ece"] <= 1 and 0 <= found["brier"] <= 2 and found["nll"] >= 0
    # The triangle inequality: bins can only add to the gap of the whole.
    assert found["ece"] >= abs(found["confidence"] - found["accuracy"]) - 1e-12
    whole = classifier_calibration(logits, references, bins=1)
    assert whole["ece"] == pytest.approx(abs(found["confidence"] - found["accuracy"]), abs=1e-12)


@settings(deadline=None)
@given(LOGITS, st.floats(-500, 500), st.randoms(use_true_random=False))
def test_what_does_not_matter(case, constant, draw):
    """A constant on every logit, log-probabilities in their place, and names of the classes without ties."""
    logits, references = case
    logits = logits + 1e-3 * np.arange(logits.shape[1])  # hypothesis likes equal numbers, and a tie depends on names
    found = classifier_calibration(logits, references, bins=1)
    for same in (logits + constant, log_softmax(logits, axis=1)):
        again = classifier_calibration(same, references, bins=1)
        assert {name: again[name] for name in ("nll", "brier", "confidence")} == pytest.approx(
            {name: found[name] for name in ("nll", "brier", "confidence")}, rel=1e-6, abs=1e-9
        )
    names = list(range(logits.shape[1]))
    draw.shuffle(names)
    renamed = np.empty_like(logits)
    renamed[:, names] = logits
    again = classifier_calibration(renamed, np.array(names)[references], bins=1)
    assert {name: again[name] for name in ("nll", "brier", "confidence")} == pytest.approx(
        {name: found[name] for name in ("nll", "brier", "confidence")}, rel=1e-9, abs=1e-12
    )


def test_a_classifier_that_means_what_it_says():
    """References drawn from the stated probabilities, n = 100,000, 15 bins.

    E|share - mean| of a bin of n_b units is at most 1 / (2 sqrt(n_b)), so by Cauchy's inequality the expected error is
    at most sqrt(15 / n) / 2 = 0.0062. One reference moves it by at most 1 / n, so by McDiarmid's inequality it lies
    more than sqrt(ln(1e6) / (2 n)) = 0.0084 above that with a probability of at most 1e-6.
    """
    n = 100_000
    draw = np.random.default_rng(0)
    logits = draw.normal(scale=2, size=(n, 6))
    gumbel = draw.gumbel(size=logits.shape)
    references = (logits + gumbel).argmax(axis=1)
    found = classifier_calibration(logits, references)
    assert found["ece"] < 0.0062 + 0.0084
    # -ln p of a drawn class is entropy on average; its spread is about 1 nat, five standard errors of n are 0.016.
    p = softmax(logits, axis=1)
    assert found["nll"] == pytest.approx(-(p * np.log(p)).sum(axis=1).mean(), abs=0.016)
    sharp, flat = (classifier_calibration(factor * logits, references) for factor in (3, 0.3))
    assert sharp["ece"] > 0.1 and sharp["confidence"] > sharp["accuracy"]
    assert flat["ece"] > 0.1 and flat["confidence"] < flat["accuracy"]
    assert min(sharp["nll"], flat["nll"]) > found["nll"] and min(sharp["brier"], flat["brier"]) > found["brier"]


@pytest.mark.parametrize(
    ("logits", "references", "error", "message"),
    [
        ([[0.0, 1.0], [math.nan, 0.0], [0.0, math.inf]], [0, 0, 0], ValueError,
         "2 of 3 rows of logits hold NaN or inf, the first is row 1"),
        ([[0.0, 1.0], [-math.inf, -math.inf]], [0, 0], ValueError, "1 of 2 rows .* the first is row 1"),
        ([[0.0, 1.0]], [2], ValueError, r"1 of 1 references lie outside \[0, 2\), the first is 2 at index 0"),
        ([[0.0, 1.0]], [0, 1], ValueError, "1 rows of logits do not belong to 2 references"),
        ([[0.0, 1.0]], [0.0], TypeError, "references must be integers, got float64"),
        ([0.0, 1.0], [0, 1], ValueError, r"logits must be \[n, C\] with C >= 2 classes, got shape \[2\]"),
        ([[0.0]], [0], ValueError, r"C >= 2 classes, got shape \[1, 1\]"),
        (np.zeros((0, 3)), [], ValueError, r"references must be class indices \[n\] with n >= 1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("metric", [classifier_calibration, classifier_reliability], ids=lambda metric: metric.__name__)
def test_bad_input_is_refused(metric, logits, references, error, message):
    with pytest.raises(error, match=message):
        metric(np.array(logits), references)


@pytest.mark.parametrize(
    ("bins", "message"),
    [(0, ">= 1, got 0; 15 is usual"), (-1, ">= 1, got -1"), (math.nan, "an integer"), (True, "an integer")],
)
def test_bins_are_counted_from_one(bins, message):
    with pytest.raises((TypeError, ValueError), match=f"bins must be {message}"):
        classifier_calibration(np.zeros((2, 2)), [0, 1], bins=bins)
