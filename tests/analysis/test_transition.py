"""Distances of transition matrices by hand, and the anchor-point estimate on posteriors that have anchor points."""

from __future__ import annotations

import numpy as np
import pytest

from hf_noise.analysis.transition import anchor_transition, transition_error
from hf_noise.noise import LabelFlips


def test_distances_by_hand():
    found = transition_error([[0.7, 0.2, 0.1], [0, 1, 0], [0.1, 0.1, 0.8]], [[0.5, 0.3, 0.2], [0, 1, 0], [0, 0, 1]])
    assert found.mean_absolute == pytest.approx((0.4 + 0 + 0.4) / 9)
    assert found.largest == pytest.approx(0.2)
    np.testing.assert_allclose(found.total_variation, [0.2, 0, 0.2])
    assert found.worst_row == pytest.approx(0.2)


def test_a_matrix_of_other_classes_is_refused():
    with pytest.raises(ValueError, match="the estimate has 2 classes, the true matrix 3"):
        transition_error(np.eye(2), np.eye(3))


@pytest.mark.parametrize("quantile", [0.97, 1.0])
def test_anchor_points_show_their_row(quantile):
    """A fifth of the samples are sure, the others are mixtures, and T is not symmetric."""
    draw = np.random.default_rng(0)
    true = LabelFlips.cyclic(error_rate=0.3, num_classes=4).transition
    clean = draw.dirichlet(np.ones(4), 400)
    clean[:80] = np.eye(4)[draw.integers(4, size=80)]
    np.testing.assert_allclose(anchor_transition(clean @ true, quantile), true, atol=1e-12)


def test_without_anchor_points_the_estimate_is_too_mixed():
    clean = np.random.default_rng(0).dirichlet(5 * np.ones(4), 400)
    assert np.diagonal(anchor_transition(clean)).max() < 0.9


@pytest.mark.parametrize(
    ("posterior", "quantile", "message"),
    [
        (np.ones(3), 0.9, r"must be \[N, C\] with N >= 1 and C >= 2, got shape \[3\]"),
        ([[0.5, 0.5], [0.5, 0.4]], 0.9, "1 of 2 rows of noisy_posterior are no distributions, the first is row 1"),
        ([[0.5, 0.5]], 0.0, r"quantile must lie in \(0, 1\], got 0.0"),
    ],
)
def test_what_is_no_posterior_is_refused(posterior, quantile, message):
    with pytest.raises(ValueError, match=message):
        anchor_transition(posterior, quantile)
