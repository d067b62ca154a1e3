"""AUROC, calibration error and Brier score of a clean posterior, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hf_noise.metrics.audit import audit_metrics, reliability

POSTERIOR = np.array([0.9, 0.8, 0.35, 0.35, 0.1])
IS_NOISY = np.array([False, False, True, False, True])


def test_figures_worked_by_hand():
    metrics = audit_metrics(POSTERIOR, IS_NOISY, bins=2)
    # Pairs (clean, corrupted): 0.9 and 0.8 win over both, 0.35 ties with 0.35 and wins over 0.1.
    assert metrics["auroc"] == pytest.approx(5.5 / 6)
    assert metrics["brier"] == pytest.approx((0.1**2 + 0.2**2 + 0.35**2 + 0.65**2 + 0.1**2) / 5)
    # Below one half: stated 0.8/3, observed 1/3; above: stated 0.85, observed 1.
    assert metrics["ece"] == pytest.approx(3 / 5 * abs(0.8 / 3 - 1 / 3) + 2 / 5 * 0.15)
    assert metrics["n"] == 5


def test_reliability_by_bins():
    low, high = reliability(POSTERIOR, IS_NOISY, bins=2)
    assert low == {"stated": pytest.approx(0.8 / 3), "observed": pytest.approx(1 / 3), "n": 3}
    assert high == {"stated": pytest.approx(0.85), "observed": 1.0, "n": 2}
    # One belongs to the last bin, and empty bins are left out.
    assert reliability(np.array([1.0, 0.0]), np.array([False, True]), bins=10) == [
        {"stated": 0.0, "observed": 0.0, "n": 1}, {"stated": 1.0, "observed": 1.0, "n": 1},
    ]  # fmt: skip


def test_a_posterior_that_means_what_it_says_is_calibrated():
    """Half a million units: the error of 15 bins is about 0.001, one of 0.005 a false alarm in far fewer than 1e-6."""
    draw = np.random.default_rng(0)
    posterior = draw.random(500_000)
    metrics = audit_metrics(posterior, draw.random(500_000) >= posterior)
    assert metrics["ece"] < 0.005
    assert metrics["brier"] == pytest.approx(1 / 6, abs=0.002)
    assert audit_metrics(posterior**2, draw.random(500_000) >= posterior)["ece"] > 0.1


def test_perfect_and_inverted_audits():
    truth = np.array([True, False, False])
    assert audit_metrics((~truth).astype(np.float32), truth) == {"auroc": 1.0, "ece": 0.0, "brier": 0.0, "n": 3}
    assert audit_metrics(truth.astype(float), truth)["auroc"] == 0.0


@pytest.mark.parametrize(
    ("posterior", "is_noisy", "message"),
    [
        ([0.5, 0.5], [True], r"two arrays \[n\] are needed, got clean_posterior \(2,\) and is_noisy \(1,\)"),
        ([[0.5]], [[True]], r"two arrays \[n\]"),
        ([0.5, 1.2], [True, False], r"lies in \[0, 1\]"),
        ([-0.1, 0.2], [True, False], r"lies in \[0, 1\]"),
        ([math.nan, 0.2], [True, False], r"lies in \[0, 1\]"),
        ([], [], r"lies in \[0, 1\]"),
        ([0.1, 0.2], [True, True], "all of these are of one kind"),
        ([0.1, 0.2], [False, False], "all of these are of one kind"),
    ],
)
def test_bad_input_is_refused(posterior, is_noisy, message):
    with pytest.raises(ValueError, match=message):
        audit_metrics(np.array(posterior), np.array(is_noisy))
