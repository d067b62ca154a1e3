"""What noise must cost, against the figures that follow from paper A's table 8."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hf_noise.analysis.nll_floor import binary_entropy, calibration_floor, masked_entropy, noisy_nll
from hf_noise.noise import Masking

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


@pytest.mark.parametrize(
    "masking",
    [
        Masking(vocab_size=7, mask_token=7), Masking(vocab_size=7, mask_token=3, special_tokens=(0, 5)),
        Masking(vocab_size=7, mask_token=7, mask_share=0.3, random_share=0.7),
        Masking(vocab_size=7, mask_token=7, mask_share=0.3, random_share=0.0),
        Masking(vocab_size=7, mask_token=7, mask_share=1.0, random_share=0.0),
    ],
)  # fmt: skip
def test_the_entropy_of_a_masked_token_by_the_whole_table(masking):
    """Against the joint table of target and what is read, entry by entry."""
    p = np.random.default_rng(3).dirichlet(np.ones(7))
    found, is_predicted = masked_entropy(masking, p), [token not in masking.never for token in range(7)]
    p, joint = np.where(is_predicted, p, 0) / p[is_predicted].sum(), np.zeros((7, 8))
    kept = 1 - masking.mask_share - masking.random_share
    for target in range(7):
        joint[target, masking.mask_token] += p[target] * masking.mask_share
        joint[target, target] += p[target] * kept
        joint[target, :7] += p[target] * masking.random_share / 7
    positive = joint[joint > 0]
    read = joint.sum(0)[joint.sum(0) > 0]
    assert found == pytest.approx(float((read * np.log(read)).sum() - (positive * np.log(positive)).sum()), abs=1e-12)


def test_the_entropy_of_masked_tokens_is_what_a_perfect_model_loses():
    """Masks as they are drawn, and the posterior of each token; five standard errors of the mean over them."""
    masking, n = Masking(vocab_size=50, mask_token=50, probability=0.5), 200_000
    tokens = np.random.default_rng(0).integers(50, size=(n // 100, 100))
    read, targets = masking(tokens, np.arange(n // 100))
    read, targets = read[targets != -100], targets[targets != -100]
    # Of what is not the mask token, half is the target itself and the other half any token.
    nll = np.where(read == 50, np.log(50), -np.log(np.where(read == targets, 0.5 + 0.5 / 50, 0.5 / 50)))
    expected = masked_entropy(masking, np.full(50, 1 / 50))
    assert abs(nll.mean() - expected) < 5 * nll.std() / np.sqrt(len(nll)) and expected < np.log(50) - 0.2


@pytest.mark.parametrize(
    ("masking", "p", "message"),
    [
        ("bert", [0.5, 0.5], "masking must be"), (Masking(vocab_size=2, mask_token=2), [1.0], "shape \\[2\\]"),
        (Masking(vocab_size=2, mask_token=2), [0.5, 0.4], "the sum 1"),
        (Masking(vocab_size=2, mask_token=2), [1.5, -0.5], ">= 0"),
        (Masking(vocab_size=2, mask_token=2, special_tokens=(0,)), [1.0, 0.0], "special tokens alone"),
        (Masking(vocab_size=2, mask_token=2), [math.nan, 1.0], "sum 1"),
    ],
)  # fmt: skip
def test_what_is_no_distribution_of_masked_tokens_is_refused(masking, p, message):
    with pytest.raises((TypeError, ValueError), match=message):
        masked_entropy(masking, p)
