"""Wilson's interval against scipy, by hand, and by the share of cases that it covers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from hf_noise.metrics import wilson_interval


@settings(deadline=None)
@given(
    st.integers(1, 10**7).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.sampled_from([0.5, 0.9, 0.95, 0.999]),
)
def test_agrees_with_scipy(pair, confidence):
    k, n = pair
    low, high = wilson_interval(k, n, confidence)
    # A p-value that is not asked for makes binomtest slow; at p = k / n it is found at once.
    reference = binomtest(k, n, p=k / n).proportion_ci(confidence, method="wilson")
    assert low == pytest.approx(reference.low, rel=1e-9, abs=1e-15)
    assert high == pytest.approx(reference.high, rel=1e-9)
    assert 0 <= low <= k / n <= high <= 1


def test_by_hand():
    """z = 2 has the two-sided confidence erf(sqrt 2); k = 1, n = 4: (1 + 2) / 8 -+ 2 sqrt(1 * 3 / 4 + 1) / 8."""
    low, high = wilson_interval(1, 4, math.erf(math.sqrt(2)))
    assert low == pytest.approx(3 / 8 - math.sqrt(1.75) / 4)
    assert high == pytest.approx(3 / 8 + math.sqrt(1.75) / 4)


def test_arrays_broadcast_and_nothing_tried_is_nan():
    low, high = wilson_interval([[0, 5], [10, 0]], [[10, 10], [10, 0]])
    assert low.shape == high.shape == (2, 2) and low.dtype == high.dtype == np.float64
    assert low[0, 0] == 0 and high[1, 0] == 1 and low[0, 1] + high[0, 1] == pytest.approx(1)
    assert np.isnan(low[1, 1]) and np.isnan(high[1, 1])
    lows, _ = wilson_interval([1, 2], 10)
    assert lows.tolist() == [wilson_interval(1, 10)[0], wilson_interval(2, 10)[0]]


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.94])
def test_covers_about_as_often_as_it_says(p):
    """Exact coverage at n = 500, summed over all outcomes: Wilson's wavers about 95%, here by less than 1.5 points."""
    k = np.arange(501)
    low, high = wilson_interval(k, 500)
    assert binom.pmf(k, 500, p)[(low <= p) & (p <= high)].sum() == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("k", "n"), [(5, 4), (-1, 4), ([1, 5], [4, 4]), (math.nan, 4), (0, -1)])
def test_impossible_counts_are_refused(k, n):
    with pytest.raises(ValueError, match=r"successes must lie in \[0, n\], got (5|-1|nan|0) of n = (4|-1)"):
        wilson_interval(k, n)


@pytest.mark.parametrize("confidence", [0, 1, 95, -0.5, math.nan])
def test_confidence_is_a_share(confidence):
    with pytest.raises(ValueError, match=rf"confidence must lie in \(0, 1\), got {confidence}"):
        wilson_interval(1, 2, confidence)
