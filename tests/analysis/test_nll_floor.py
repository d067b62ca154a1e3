"""What noise must cost, against the figures that follow from paper A's table 8."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hf_noise.analysis.nll_floor import binary_entropy, calibration_floor, noisy_nll

#: Clean NLL and vocabulary of GPT-2 124M in paper A, table 8.
CLEAN, VOCABULARY = 2.8650, 50257


@pytest.mark.parametrize(
    ("ratio", "floor", "noisy"),
    [(0, 2.8650, 2.8650), (0.1, 2.9603, 3.8933), (0.3, 3.1274, 5.2421), (0.5, 3.2705, 6.1548), (1, 3.5581, 7.5381)],
)
def test_floors_and_noisy_nlls_of_table_8(ratio, floor, noisy):
    e = ratio / (1 + ratio)
    assert CLEAN + calibration_floor(e) == pytest.approx(floor, abs=5e-5)
    assert noisy_nll(CLEAN, e, VOCABULARY) == pytest.approx(noisy, abs=5e-5)


def test_floor_is_what_the_optimal_model_of_noisy_data_loses():
    """A model that predicts q = (1 - e) p + e / V exactly, on targets that it knows for certain."""
    e, vocab_size = 0.3, 10**6
    q = (1 - e) + e / vocab_size
    assert calibration_floor(e) == pytest.approx(-math.log(q), abs=1e-6)


def test_noisy_nll_is_the_entropy_of_the_mixture():
    """Exact where text and noise cannot agree: 4 equally likely tokens among a million."""
    e, vocab_size, likely = 0.4, 10**6, 4
    q = np.full(vocab_size, e / vocab_size)
    q[:likely] += (1 - e) / likely
    assert noisy_nll(math.log(likely), e, vocab_size) == pytest.approx(-(q * np.log(q)).sum(), abs=5e-5)


def test_binary_entropy_at_its_known_points():
    assert binary_entropy(0) == 0
    assert binary_entropy(0.5) == pytest.approx(math.log(2))
    assert binary_entropy(0.2) == pytest.approx(binary_entropy(0.8))


@pytest.mark.parametrize("e", [-0.1, 1.0, math.nan])
@pytest.mark.parametrize("function", [calibration_floor, binary_entropy, lambda e: noisy_nll(3.0, e, 100)])
def test_rates_out_of_range_are_refused(function, e):
    with pytest.raises(ValueError, match="error_rate"):
        function(e)
