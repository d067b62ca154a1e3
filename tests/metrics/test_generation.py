"""Inception score, label consistency and the reference line: by hand and as properties."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from hf_noise.metrics import generation, inception_score, label_consistency, mixture_reference


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_sure_and_balanced_predictions_score_the_number_of_classes(classes):
    assert inception_score(np.tile(np.eye(classes), (3, 1)), splits=1)["inception_score"] == pytest.approx(classes)
    found = inception_score(np.tile(np.eye(classes), (20, 1)), splits=10)
    assert found == {
        "inception_score": pytest.approx(classes), "std": pytest.approx(0, abs=1e-9), "splits": 10, "n": 20 * classes,
    }  # fmt: skip


def test_by_hand():
    """(1, 0) and (1/2, 1/2): marginal (3/4, 1/4); KLs ln(4/3) and (ln(2/3) + ln 2) / 2."""
    expected = np.exp((np.log(4 / 3) + (np.log(2 / 3) + np.log(2)) / 2) / 2)
    assert inception_score([[1, 0], [0.5, 0.5]], splits=1)["inception_score"] == pytest.approx(expected)
    # One image a split: each is its own marginal. Sorted by class it is as bad.
    assert inception_score(np.eye(2), splits=2)["inception_score"] == 1
    # Two splits of which one sees both classes: mean 1.5, standard deviation 0.5.
    found = inception_score([[1, 0], [0, 1], [1, 0], [1, 0]], splits=2)
    assert (found["inception_score"], found["std"]) == (pytest.approx(1.5), pytest.approx(0.5))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 5))
def test_it_lies_between_one_and_the_number_of_classes(seed, classes, splits):
    draw = np.random.default_rng(seed)
    p = draw.dirichlet(np.full(classes, 0.3), size=20)
    found = inception_score(p, splits)
    assert 1 <= found["inception_score"] <= classes
    once = inception_score(p, 1)["inception_score"]
    assert inception_score(draw.permutation(p), 1)["inception_score"] == pytest.approx(once)
    assert inception_score(p[:, ::-1].astype(np.float32), splits)["inception_score"] == pytest.approx(
        found["inception_score"], rel=1e-5
    )
    assert inception_score(np.tile(p[:1], (20, 1)), splits)["inception_score"] == pytest.approx(1, abs=1e-12)


def test_consistency_by_hand():
    """Asked for 0 twice, 2 three times; one right each, and 2 twice."""
    found = label_consistency([0, 1, 2, 2, 0], [0, 0, 2, 2, 2], num_classes=3)
    wilson = binomtest(3, 5).proportion_ci(method="wilson")
    assert {name: found[name] for name in ("label_consistency", "low", "high", "n")} == {
        "label_consistency": 0.6, "low": pytest.approx(wilson.low), "high": pytest.approx(wilson.high), "n": 5,
    }  # fmt: skip
    per_class = found["per_class"]
    np.testing.assert_array_equal(per_class["label_consistency"], [0.5, np.nan, 2 / 3])
    np.testing.assert_array_equal(per_class["n"], [2, 0, 3])
    assert per_class["low"][0] == pytest.approx(binomtest(1, 2).proportion_ci(method="wilson").low)


def test_the_reference_line_of_the_specification():
    """Values in percent of spec section 4.3: e = 1/11, 3/13, 1/3, 1/2 for r = 0.1, 0.3, 0.5, 1."""
    rates = [0.1 / 1.1, 0.3 / 1.3, 0.5 / 1.5, 0.5]
    for clean, classes, expected in (
        (0.94082, 10, [85.59, 72.52, 62.94, 47.37]), (0.65236, 100, [59.34, 50.26, 43.61, 32.79]),
    ):  # fmt: skip
        found = [round(100 * mixture_reference(clean, e, classes), 2) for e in rates]
        assert found == expected
        assert mixture_reference(clean, 0, classes) == clean
        # At e = (C - 1) / C the label says nothing.
        assert mixture_reference(clean, (classes - 1) / classes, classes) == pytest.approx(1 / classes)


def test_a_generator_that_fits_the_noisy_conditional():
    """Drawn as the formula says, n = 200,000: standard error 0.0011, five of them."""
    draw = np.random.default_rng(0)
    asked = draw.integers(10, size=200_000)

    def other(labels, rate):
        return np.where(draw.random(labels.size) < rate, (labels + draw.integers(1, 10, labels.size)) % 10, labels)

    judged = other(other(asked, 1 / 3), 0.08)  # the image's class, then what the judge takes it for
    found = label_consistency(judged, asked, num_classes=10)["label_consistency"]
    # A judge's mistake on a wrong image hits the label at 1/9 too: all C - 1 others alike, as in the formula.
    assert found == pytest.approx(mixture_reference(0.92, 1 / 3, 10), abs=0.0055)


def test_what_is_refused():
    with pytest.raises(ValueError, match="1 of 2 rows are no probabilities, row 1 sums to 0.7"):
        inception_score([[0.5, 0.5], [0.2, 0.5]], splits=1)
    with pytest.raises(ValueError, match="minimum -0.1; take softmax"):
        inception_score([[1.1, -0.1]], splits=1)
    with pytest.raises(ValueError, match="hold NaN"):
        inception_score([[np.nan, 1]], splits=1)
    with pytest.raises(ValueError, match=r"splits must lie in \[1, 2\]"):
        inception_score(np.eye(2))
    with pytest.raises(ValueError, match=r"1 of 2 predictions lie outside \[0, 2\)"):
        label_consistency([0, 2], [0, 1], num_classes=2)
    with pytest.raises(ValueError, match="clean_consistency must lie in .*not a percentage"):
        mixture_reference(94.082, 0.5, 10)
    with pytest.raises(ValueError, match="error_rate must lie"):
        mixture_reference(0.9, -0.1, 10)


def test_examples():
    assert doctest.testmod(generation) == doctest.TestResults(failed=0, attempted=1)
