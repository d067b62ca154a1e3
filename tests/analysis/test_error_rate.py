"""The estimate of e from ranks recovers what was put in, and errs upwards where text leaks into the tail."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from hf_noise.analysis.error_rate import error_rate_from_ranks

VOCABULARY = 2000


def ranks(seed: int, e: float, n: int = 5000, leak: float = 0.0) -> np.ndarray:
    """Clean targets rank among the first (geometric), a share e of all, and of the clean ones `leak`, anywhere."""
    draw = np.random.default_rng(seed)
    above = np.minimum(draw.geometric(0.05, n) - 1, VOCABULARY - 1)
    anywhere = draw.random(n) < e + (1 - e) * leak
    return np.where(anywhere, draw.integers(0, VOCABULARY, n), above)


@pytest.mark.parametrize("e", [0.02, 0.1, 0.5, 0.9])
def test_the_interval_covers_the_truth_as_often_as_it_says(e):
    """200 data sets: coverage below the 0.1% quantile of Binomial(200, 0.95) is a false alarm once in 1,000 seeds."""
    found = [error_rate_from_ranks(ranks(seed, e), VOCABULARY) for seed in range(200)]
    covered = sum(x.low <= e <= x.high for x in found)
    assert covered >= binom.ppf(0.001, 200, 0.95)
    # And the estimate is nearly unbiased. (100 replaced tokens in all, as at e = 0.02, leave one or two beyond a large
    # cut-off, and the mean comes out 6% low; with more of them the bias is gone.)
    assert np.mean([x.value for x in found]) == pytest.approx(e, rel=0.1 if e == 0.02 else 0.05)
    assert all(x.low <= x.value <= x.high for x in found)


def test_intervals_tighten_with_data_and_widen_with_confidence():
    small, large = (error_rate_from_ranks(ranks(0, 0.3, n), VOCABULARY) for n in (500, 50_000))
    assert large.high - large.low < (small.high - small.low) / 5
    sure = error_rate_from_ranks(ranks(0, 0.3, 500), VOCABULARY, confidence=0.999)
    assert sure.high - sure.low > small.high - small.low
    assert (sure.confidence, sure.n) == (0.999, 500)


def test_clean_tokens_in_the_tail_push_the_estimate_up_not_down():
    found = [error_rate_from_ranks(ranks(seed, 0.2, leak=0.05), VOCABULARY) for seed in range(50)]
    assert np.mean([x.value for x in found]) == pytest.approx(0.2 + 0.8 * 0.05, abs=0.01)
    assert sum(x.high >= 0.2 for x in found) == 50


def test_a_tail_of_text_that_fades_is_avoided_by_a_larger_cutoff():
    """Clean ranks that reach past the middle of the vocabulary and thin out: counting there would be biased."""
    draw = np.random.default_rng(0)
    clean = draw.exponential(0.15 * VOCABULARY, 200_000).astype(int) % VOCABULARY
    above = np.where(draw.random(200_000) < 0.3, draw.integers(0, VOCABULARY, 200_000), clean)
    at_half = (above >= VOCABULARY / 2).mean() / 0.5
    found = error_rate_from_ranks(above, VOCABULARY)
    assert at_half > 0.34
    assert found.cutoff > 0.7
    assert found.value == pytest.approx(0.3, abs=0.02)


def test_without_noise_the_estimate_is_about_zero():
    found = error_rate_from_ranks(np.zeros(10_000, dtype=int), VOCABULARY)
    assert (found.value, found.low) == (0.0, 0.0)
    assert 0 < found.high < 0.002


def test_pure_noise_is_everything():
    found = error_rate_from_ranks(np.arange(VOCABULARY), VOCABULARY)
    assert found.value == pytest.approx(1.0, abs=0.01)
    assert found.high == 1.0


def test_the_smallest_vocabulary_works():
    found = error_rate_from_ranks(np.array([0, 0, 0, 1]), 2)
    assert (found.value, found.cutoff) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("above", "vocab_size", "message"),
    [
        ([], 10, "no targets"),
        ([0, 10], 10, r"\[0, 10\), they span \[0, 10\]"),
        ([-1, 3], 10, r"they span \[-1, 3\]"),
        ([0], 1, r"\[0, 1\)"),
    ],
)
def test_bad_ranks_are_refused(above, vocab_size, message):
    with pytest.raises(ValueError, match=message):
        error_rate_from_ranks(np.array(above, dtype=int), vocab_size)
