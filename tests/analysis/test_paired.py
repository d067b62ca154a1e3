"""Paired tests against scipy's and against counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test, ttest_1samp

from hf_noise.analysis.paired import MOST_EXACT, paired_test


@pytest.mark.parametrize("n", [2, 5, 10])
def test_it_is_scipys(n):
    draw = np.random.default_rng(n)
    ours, theirs = draw.normal(0.3, 1, n), draw.normal(0, 1, n)
    found = paired_test(ours, theirs)
    known = ttest_1samp(ours - theirs, 0)
    interval = known.confidence_interval(0.95)
    assert (found.mean, found.t_p) == pytest.approx((np.mean(ours - theirs), known.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.is_apart == ((known.pvalue < 0.05) if n > 2 else None)
    exact = permutation_test(
        (ours, theirs), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert found.permutation_p == pytest.approx(exact)


def test_five_wins_of_five_are_one_sixteenth():
    """2 of 32 ways to swap the pairs: the smallest p of five seeds, whatever the difference."""
    found = paired_test([5.0, 4, 3, 2, 9], [1.0, 1, 1, 1, 1])
    assert found.permutation_p == found.sign_p == found.smallest_p == 0.0625
    assert (found.wins, found.ties, found.losses) == (5, 0, 0)


def test_ties_and_one_pair():
    same = paired_test([1.0, 2.0], [1.0, 2.0])
    assert (same.sign_p, same.permutation_p, same.t_p, same.is_apart) == (1.0, 1.0, None, None)
    one = paired_test([2.0], [1.0])
    assert (one.low, one.high, one.t_p, one.is_apart, one.permutation_p) == (None, None, None, None, 1.0)
    # Three of four pairs tie: the sign test has one left, and of 16 sums 16 are as far from 0.
    assert paired_test([1.0, 1, 1, 2], [1.0, 1, 1, 1]).sign_p == 1.0


@pytest.mark.parametrize("ours", [[0.62, 0.72, 0.82], [0.50, 0.60, 0.70]])
def test_differences_that_are_all_equal_are_no_certainty(ours):
    """0.12 of three seeds, which rounding tells apart in the 17th place, and 0: no interval of no width."""
    found = paired_test(ours, [0.50, 0.60, 0.70])
    assert (found.low, found.high, found.t_p, found.is_apart) == (None, None, None, None)
    assert found.permutation_p == (0.25 if found.wins else 1.0)


def test_two_pairs_tell_nothing_apart():
    """Their interval leaves out 0: it is 12.7 standard errors to either side, and those are of two numbers."""
    found = paired_test([1.0, 1.001], [0.0, 0.0])
    assert found.low > 0 and found.is_apart is None
    assert paired_test([1.0, 1.001, 1.002], [0.0, 0.0, 0.0]).is_apart


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=1, max_size=8), st.integers(-9, 9))
def test_swapping_turns_the_sign_and_a_shift_of_both_nothing(pairs, shift):
    ours, theirs = np.array(pairs, float).T
    found, turned = paired_test(ours, theirs), paired_test(theirs + shift, ours + shift)
    assert turned.mean == pytest.approx(-found.mean)
    assert (turned.wins, turned.losses, turned.sign_p) == (found.losses, found.wins, found.sign_p)
    assert turned.permutation_p == found.permutation_p >= found.smallest_p
    if found.low is not None:
        assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_five_percent_of_equal_methods_are_told_apart():
    """1,000 comparisons of nothing: 50 expected; 4.5 standard errors either way (false alarms: 7 in a million)."""
    draw = np.random.default_rng(0)
    rejected = sum(paired_test(draw.normal(size=5), draw.normal(size=5)).is_apart for _ in range(1000))
    assert abs(rejected - 50) <= 4.5 * math.sqrt(1000 * 0.05 * 0.95)


def test_many_pairs_have_no_exact_permutation():
    assert paired_test(np.ones(MOST_EXACT + 1), np.zeros(MOST_EXACT + 1)).permutation_p is None


@pytest.mark.parametrize(
    ("ours", "theirs", "options", "error", "said"),
    [
        ([1.0, 2.0], [1.0], {}, ValueError, "one seed"),
        ([], [], {}, ValueError, "n >= 1"),
        ([[1.0]], [[1.0]], {}, ValueError, "n"),
        ([float("nan")], [1.0], {}, ValueError, "ours"),
        (["a"], [1.0], {}, TypeError, "ours"),
        ([1.0], [1.0], {"confidence": 1.0}, ValueError, "confidence"),
        ([1.0], [1.0], {"confidence": "a"}, TypeError, "confidence"),
    ],
)
def test_refused(ours, theirs, options, error, said):
    with pytest.raises(error, match=said):
        paired_test(ours, theirs, **options)
