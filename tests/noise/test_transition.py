import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.noise import LabelFlips
from hf_noise.noise.transition import check_prior, check_transition, posterior, rates_of

# Worked example of paper C's weights, with a T that is neither symmetric nor doubly stochastic.
T = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]])
S = [[0.875, 0.125, 0], [2 / 13, 8 / 13, 3 / 13], [1 / 9, 1 / 9, 7 / 9]]


@st.composite
def matrices(draw):
    n = draw(st.integers(2, 8))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    matrix = rng.gamma(draw(st.sampled_from([0.2, 1.0, 20.0])), size=(n, n)) + 1e-9
    return matrix / matrix.sum(axis=1, keepdims=True)


def priors(n):
    p = np.random.default_rng(n).random(n) + 0.1
    return p / p.sum()


# Posterior


def test_posterior_of_the_worked_example():
    np.testing.assert_allclose(posterior(T), S, atol=1e-15)
    np.testing.assert_allclose(LabelFlips.from_transition(T).posterior(), S, atol=1e-15)


def test_posterior_by_hand_with_a_prior():
    # p(clean = 0) = 0.1: 0.1 * 0.7 against 0.6 * 0.1 and 0.3 * 0.0 for the noisy label 0.
    np.testing.assert_allclose(posterior(T, [0.1, 0.6, 0.3])[0], [7 / 13, 6 / 13, 0])


@settings(max_examples=60, deadline=None)
@given(matrices())
def test_posterior_is_bayes_rule_and_its_rows_sum_to_one(matrix):
    prior = priors(len(matrix))
    s = posterior(matrix, prior)
    np.testing.assert_allclose(s.sum(axis=1), 1)
    joint = prior[:, None] * matrix
    np.testing.assert_allclose(s * joint.sum(axis=0)[:, None], joint.T)
    # Back again: the posterior's own posterior, under the noisy marginal, is T.
    np.testing.assert_allclose(posterior(s, prior @ matrix), matrix, rtol=1e-6)


def test_posterior_of_symmetric_noise_is_its_matrix():
    noise = LabelFlips.symmetric(error_rate=0.4, num_classes=7)
    np.testing.assert_allclose(noise.posterior(), noise.transition)
    assert not np.allclose(noise.posterior(priors(7)), noise.transition)


def test_posterior_of_one_way_pairs_is_not_symmetric():
    noise = LabelFlips.pairs({2: 0}, error_rate=0.5, num_classes=3)
    # A label 0 is a true 0 twice out of three times; a label 2 is always right.
    np.testing.assert_allclose(noise.posterior(), [[2 / 3, 0, 1 / 3], [0, 1, 0], [0, 0, 1]])


def test_a_label_that_cannot_occur_has_no_posterior():
    s = posterior(np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert np.isnan(s[0]).all() and s[1].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([0.5, 0.5], r"one probability for each of 3 classes, got shape \[2\]"),
        ([2, 3, 5], "sum to 1, got a sum of 10 .*divide counts by their sum"),
        ([0.5, 0.6, -0.1], "smallest entry of -0.1"),
        ([0.5, 0.5, math.nan], "sum of nan"),
    ],
)
def test_bad_priors(prior, message):
    with pytest.raises(ValueError, match=message):
        posterior(T, prior)


def test_priors():
    assert check_prior(None, 4).tolist() == [0.25] * 4
    assert check_prior(torch.tensor([0.25, 0.75]), 2).tolist() == [0.25, 0.75]


# Error rates and breakdown


def test_error_rates():
    noise = LabelFlips.from_transition(T)
    np.testing.assert_allclose(noise.error_rates, [0.3, 0.2, 0.3])
    assert noise.error_rates.dtype == np.float64
    assert noise.overall_error_rate() == pytest.approx(0.8 / 3) == pytest.approx(noise.error_rate)
    assert noise.overall_error_rate([1, 0, 0]) == pytest.approx(0.3)
    resampled = LabelFlips.uniform_resample(error_rate=0.5, num_classes=4)
    assert (resampled.error_rate, resampled.overall_error_rate()) == (0.5, pytest.approx(0.375))


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100])
def test_breakdown_points(num_classes):
    points = {
        LabelFlips.symmetric: (num_classes - 1) / num_classes,
        LabelFlips.uniform_resample: 1.0,
        LabelFlips.cyclic: 0.5,
    }
    for make, point in points.items():
        assert make(error_rate=0.3, num_classes=num_classes).breakdown_point == pytest.approx(point)
        # The general formula, of the matrix alone; rates of a matrix are shares of wrong labels.
        general = LabelFlips.from_transition(make(error_rate=0.3, num_classes=num_classes).transition)
        wrong = (num_classes - 1) / num_classes if make == LabelFlips.uniform_resample else 1
        assert general.breakdown_point == pytest.approx(point * wrong)


@settings(max_examples=60, deadline=None)
@given(matrices())
def test_breakdown_point_is_where_the_likeliest_label_changes(matrix):
    errors = matrix * (1 - np.eye(len(matrix)))
    noise = LabelFlips.from_transition(matrix)
    scale = noise.breakdown_point / noise.error_rate

    def keeps(factor):
        scaled = factor * errors + np.diag(1 - factor * errors.sum(axis=1))
        return all((np.delete(row, i) < row[i]).all() for i, row in enumerate(scaled))

    assert keeps(scale * 0.999) and not keeps(scale * 1.001)
    assert noise.is_adversarial == (not keeps(1.0))


def test_noise_without_errors_does_not_break_down():
    assert LabelFlips.from_transition(np.eye(3)).breakdown_point == 1.0
    assert not LabelFlips.from_transition(np.eye(3)).is_adversarial
    assert LabelFlips.symmetric(0, num_classes=10).breakdown_point == pytest.approx(0.9)


def test_adversarial():
    cyclic = [LabelFlips.cyclic(error_rate=e, num_classes=10).is_adversarial for e in (0.4, 0.5, 0.6)]
    assert cyclic == [False, False, True]
    assert not LabelFlips.symmetric(9, num_classes=10).is_adversarial
    assert LabelFlips.symmetric(10, num_classes=10, allow_adversarial=True).is_adversarial
    assert not LabelFlips.uniform_resample(error_rate=0.99, num_classes=10, allow_adversarial=True).is_adversarial


# Inverse


@pytest.mark.parametrize(("e", "condition"), [(0.2, 9 / 7), (0.4, 1.8), (0.5, 2.25), (0.8, 9.0), (0.89, 90.0)])
def test_condition_of_symmetric_noise(e, condition):
    noise = LabelFlips.symmetric(error_rate=e, num_classes=10)
    assert noise.is_invertible and noise.condition_number == pytest.approx(condition)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100, 300])
def test_symmetric_noise_is_singular_exactly_at_the_limit(num_classes):
    limit = LabelFlips.symmetric(ratio=num_classes - 1, num_classes=num_classes)
    assert not limit.is_invertible and limit.condition_number == math.inf
    assert LabelFlips.symmetric(ratio=(num_classes - 1) * 0.999, num_classes=num_classes).is_invertible


def test_cyclic_noise_at_one_half_has_an_inverse_for_odd_numbers_of_classes():
    assert [LabelFlips.cyclic(1.0, num_classes=c).is_invertible for c in (2, 3, 10, 11, 100)] == [
        False, True, False, True, False,
    ]  # fmt: skip
    assert LabelFlips.cyclic(1.0, num_classes=5).condition_number == pytest.approx(3.236, abs=1e-3)


def test_pairs_both_ways_are_singular_at_one_half_and_one_way_never():
    assert not LabelFlips.pairs({3: 5, 5: 3}, 1.0, num_classes=10).is_invertible
    assert LabelFlips.pairs({2: 0}, error_rate=0.99, num_classes=10, allow_adversarial=True).is_invertible


# Checks


def test_accepts_what_holds_numbers():
    for numbers in (T, T.tolist(), torch.tensor(T), T.astype(np.float32), np.array([[1, 0], [0, 1]])):
        matrix = check_transition(numbers)
        assert matrix.dtype == np.float64
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-15)


def test_rounding_is_mended_once():
    matrix = check_transition(np.random.default_rng(0).dirichlet(np.ones(50), size=50).astype(np.float32))
    np.testing.assert_array_equal(check_transition(matrix), matrix)
    np.testing.assert_array_equal(check_transition(T), T)


@pytest.mark.parametrize(
    ("matrix", "error", "message"),
    [
        ([[0.5, 0.5]], ValueError, r"shape \[C, C\] with C >= 2 classes, got \[1, 2\]"),
        ([0.5, 0.5], ValueError, r"got \[2\]"),
        ([[1.0]], ValueError, r"got \[1, 1\]"),
        (np.full((2, 2, 2), 0.5), ValueError, r"got \[2, 2, 2\]"),
        ([[0.6, 0.5], [0.5, 0.5]], ValueError, r"row 0 of .* sums to 1.1, not to 1 \(1 such rows\)$"),
        (T.T, ValueError, "row 0 .* sums to 0.8, .*its columns do, so it may be the transpose"),
        ([[1.1, -0.1], [0, 1]], ValueError, r"T\[0, 1\] = -0.1 is no probability \(1 such entries\)"),
        ([[1, 0], [math.nan, 1]], ValueError, r"T\[1, 0\] = nan is no probability"),
        ([[math.inf, 0], [0, 1]], ValueError, r"T\[0, 0\] = inf is no probability"),
        ([["a", "b"], ["c", "d"]], TypeError, "a transition matrix holds real numbers"),
        ([[1j, 0], [0, 1]], TypeError, "real numbers, got complex128"),
    ],
)
def test_bad_matrices(matrix, error, message):
    with pytest.raises(error, match=message):
        LabelFlips.from_transition(matrix)


def test_rates_of():
    assert rates_of(0.2, None, None) == (0.25, 0.2) == rates_of(0.2, 0.25, 0.2)
    assert rates_of(1.0, math.inf, 1.0) == (math.inf, 1.0)
    with pytest.raises(ValueError, match="error_rate=0.3 contradicts the matrix, by which it is 0.2"):
        rates_of(0.2, None, 0.3)
    with pytest.raises(ValueError, match="ratio=0.3 contradicts the matrix, by which it is 0.25"):
        rates_of(0.2, 0.3, None)
