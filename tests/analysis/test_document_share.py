"""The share of noise documents from log-odds of rows: closed forms, ends, and how often its interval is right."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hf_noise.analysis.document_share import document_share


def test_rows_that_are_certain_give_the_interval_of_a_proportion():
    """3 of 10: alpha^3 (1 - alpha)^7 falls to exp(-1.92) of its largest value at the ends."""
    found = document_share(np.array([math.inf] * 7 + [-900.0] * 3))
    assert found.value == pytest.approx(0.3) and found.n == 10
    for end in (found.low, found.high):
        drop = 3 * math.log(end / 0.3) + 7 * math.log((1 - end) / 0.7)
        assert drop == pytest.approx(-3.841458820694124 / 2)
    assert found.low < 0.3 < found.high


def test_the_ends():
    none, every = document_share(np.full(50, math.inf)), document_share(np.full(50, -800.0))
    assert (none.value, none.low) == (0, 0) and none.high == pytest.approx(1 - math.exp(-1.920729 / 50), rel=1e-5)
    assert (every.value, every.high) == (1, 1) and every.low == pytest.approx(1 - none.high)
    unknown = document_share(np.zeros(5))
    assert (unknown.low, unknown.high) == (0, 1), "rows that say nothing"


def test_the_estimate_is_where_the_mean_posterior_is_the_share():
    odds = np.random.default_rng(0).normal(1, 2, 400)
    alpha = document_share(odds).value
    assert np.mean(1 / (1 + (1 - alpha) / alpha * np.exp(odds))) == pytest.approx(alpha)


def test_intervals_hold_the_truth_as_often_as_stated():
    """Rows of two unit normals at -1 and 1, whose log-odds are 2 x. Of 400 at 95% at least 364 (p < 1e-4 of fewer)."""
    draw, hits = np.random.default_rng(1), 0
    for _ in range(400):
        is_noise = draw.random(200) < 0.2
        found = document_share(2 * draw.normal(np.where(is_noise, -1, 1)))
        hits += found.low <= 0.2 <= found.high
    assert 364 <= hits <= 396


@pytest.mark.parametrize(
    ("odds", "confidence", "error", "message"),
    [
        ([], 0.95, ValueError, "at least one row"), ([math.nan], 0.95, ValueError, "none of them NaN"),
        ([[1.0]], 0.95, ValueError, r"numbers \[N\]"), (["a"], 0.95, TypeError, "log_odds"),
        ([1.0], 1.0, ValueError, r"confidence must lie in \(0, 1\), got 1.0"),
    ],
)  # fmt: skip
def test_bad_values_are_named(odds, confidence, error, message):
    with pytest.raises(error, match=message):
        document_share(odds, confidence=confidence)
