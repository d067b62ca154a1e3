"""KL and total variation of class marginals: by hand, as properties, and at the scale of sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy

from hf_noise.metrics import marginal_kl, marginal_shift, marginal_tv, predicted_marginal, sampling_kl, sampling_tv

C = 4
LABELS = arrays(np.int64, st.integers(1, 50), elements=st.integers(0, C - 1))
PAIRS = st.integers(1, 60).flatmap(lambda n: st.tuples(*[arrays(np.int64, n, elements=st.integers(0, C - 1))] * 2))
POSITIVE = arrays(np.float64, C, elements=st.floats(0.01, 1)).map(lambda p: p / p.sum())


def test_by_hand():
    """Predicted (3/4, 1/4) against (1/2, 1/2)."""
    predictions, references = [0, 0, 0, 1], [0, 1, 1, 0]
    kl = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)  # nats, predicted first
    assert predicted_marginal(predictions, num_classes=2).tolist() == [0.75, 0.25]
    assert marginal_kl(predictions, references, num_classes=2) == pytest.approx(kl)
    assert marginal_tv(predictions, references, num_classes=2) == pytest.approx(0.25)
    assert marginal_kl(predictions, num_classes=2, true=[0.5, 0.5]) == pytest.approx(kl)
    # The other direction is another number: 1/2 ln(2/3) + 1/2 ln 2.
    assert marginal_kl(references, predictions, num_classes=2) == pytest.approx(0.5 * math.log(4 / 3))
    assert marginal_kl(references, predictions, num_classes=2) != pytest.approx(kl)


def test_the_shift_stands_beside_its_scale():
    """C = 2, n = 4: KL of sampling 1/8; total variation 2 sqrt(1/4 / (8 pi)) = sqrt(1 / (8 pi))."""
    found = marginal_shift([0, 0, 0, 1], [0, 1, 1, 0], num_classes=2)
    assert found == {
        "marginal_kl": marginal_kl([0, 0, 0, 1], [0, 1, 1, 0], num_classes=2), "sampling_kl": 0.125,
        "marginal_tv": 0.25, "sampling_tv": pytest.approx(math.sqrt(1 / (8 * math.pi))), "n": 4,
    }  # fmt: skip
    assert marginal_shift([0, 0, 0, 1], num_classes=2, true=[0.5, 0.5]) == found


def test_an_exactly_uniform_histogram_is_at_zero():
    predictions = np.tile(np.arange(10), 1000)
    assert marginal_kl(predictions, predictions[::-1], num_classes=10) == 0
    assert marginal_kl(predictions, num_classes=10, true=np.full(10, 0.1)) == pytest.approx(0, abs=1e-15)
    assert marginal_tv(predictions, num_classes=10, true=np.full(10, 0.1)) == pytest.approx(0, abs=1e-15)


def test_accuracy_and_marginal_are_apart():
    """Cyclic noise learned to the end: every answer wrong, not one class more often than in truth."""
    references = np.arange(1000) % 10
    assert marginal_kl((references + 1) % 10, references, num_classes=10) == 0


def test_a_class_without_true_probability():
    assert marginal_kl([0, 2], [0, 1], num_classes=3) == math.inf
    assert marginal_tv([0, 2], [0, 1], num_classes=3) == 0.5
    # A class that is never predicted adds nothing: 1 ln(1 / 0.5).
    assert marginal_kl([0, 0], [0, 1], num_classes=3) == pytest.approx(math.log(2))
    assert marginal_tv([0, 0], [1, 1], num_classes=3) == 1
    # It is no class that sampling could fill either.
    assert sampling_kl([0.5, 0.5, 0.0], 100) == sampling_kl([0.5, 0.5], 100) == 1 / 200


@settings(deadline=None)
@given(PAIRS)
def test_zero_means_equal(pair):
    predictions, references = pair
    kl, tv = (metric(predictions, references, num_classes=C) for metric in (marginal_kl, marginal_tv))
    same = np.array_equal(np.bincount(predictions, minlength=C), np.bincount(references, minlength=C))
    assert kl >= 0 and 0 <= tv <= 1
    assert (kl == 0) == same and (tv == 0) == same
    assert kl >= 2 * tv**2 - 1e-12  # Pinsker's inequality, which holds in nats and with half the L1 distance


@settings(deadline=None)
@given(PAIRS)
def test_total_variation_is_symmetric(pair):
    predictions, references = pair
    assert marginal_tv(predictions, references, num_classes=C) == marginal_tv(references, predictions, num_classes=C)


@settings(deadline=None)
@given(PAIRS, st.permutations(range(C)))
def test_the_names_of_the_classes_do_not_matter(pair, names):
    renamed = np.array(names)
    before = marginal_shift(*pair, num_classes=C)
    after = marginal_shift(renamed[pair[0]], renamed[pair[1]], num_classes=C)
    assert after == pytest.approx(before, rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(PAIRS, st.randoms(use_true_random=False))
def test_only_the_histograms_count(pair, draw):
    predictions, references = pair
    order = list(range(references.size))
    draw.shuffle(order)
    assert marginal_shift(predictions[order], references, num_classes=C) == marginal_shift(
        predictions, references, num_classes=C
    )


@settings(deadline=None)
@given(LABELS, POSITIVE)
def test_against_scipy(predictions, true):
    histogram = np.bincount(predictions, minlength=C) / predictions.size
    assert marginal_kl(predictions, num_classes=C, true=true) == pytest.approx(entropy(histogram, true), abs=1e-12)


def test_sampling_alone():
    """10,000 independent uniform predictions, C = 10: expected KL (10 - 1) / 20,000 = 0.00045.

    20,000 KL is nearly chi-square of 9 degrees, so one KL has standard deviation sqrt(18) / 20,000 = 2.1e-4 and the
    mean of 400 has 1.1e-5; one total variation has at most 0.003, the mean of 400 at most 1.5e-4. Five of these are
    the bounds: a false alarm in fewer than 1e-6.
    """
    uniform = np.full(10, 0.1)
    draws = [np.random.default_rng(seed).integers(10, size=10_000) for seed in range(400)]
    kl = np.mean([marginal_kl(predictions, num_classes=10, true=uniform) for predictions in draws])
    tv = np.mean([marginal_tv(predictions, num_classes=10, true=uniform) for predictions in draws])
    assert sampling_kl(uniform, 10_000) == pytest.approx(0.00045)
    assert kl == pytest.approx(0.00045, abs=5.5e-5)
    assert sampling_tv(uniform, 10_000) == pytest.approx(0.01197, abs=1e-5)
    assert tv == pytest.approx(0.01197, abs=7.5e-4)


def test_a_marginal_of_float32_is_near_enough():
    true = np.full(1000, 1 / 1000, np.float32)
    assert marginal_kl(np.arange(1000), num_classes=1000, true=true) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({}, r"give the true marginal once: references=\[n\] to count, or true=\[C\]"),
        ({"references": [0], "true": [0.5, 0.5]}, "give the true marginal once"),
        ({"true": [0.5, 0.3, 0.2]}, "true names 3 classes and num_classes is 2"),
        ({"true": [0.5, 0.6]}, r"true must be >= 0 and sum to 1, got a sum of 1\.1"),
        ({"true": [1.5, -0.5]}, r"got a sum of 1, minimum -0\.5"),
        ({"true": [math.nan, 0.5]}, "got a sum of nan"),
        ({"true": [math.inf, 0.5]}, "got a sum of inf"),
        ({"true": [[0.5, 0.5]]}, r"probabilities \[C\] of C >= 2 classes, got shape \[1, 2\]"),
    ],
)
@pytest.mark.parametrize("metric", [marginal_kl, marginal_tv, marginal_shift], ids=lambda metric: metric.__name__)
def test_bad_marginals_are_refused(metric, given_, message):
    with pytest.raises(ValueError, match=message):
        metric([0], num_classes=2, **given_)


@pytest.mark.parametrize("sampling", [sampling_kl, sampling_tv])
def test_sampling_needs_predictions(sampling):
    with pytest.raises(ValueError, match="n must be >= 1 predictions, got 0"):
        sampling([0.5, 0.5], 0)
    with pytest.raises(ValueError, match="sum to 1"):
        sampling([0.5, 0.4], 10)
