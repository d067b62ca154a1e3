"""e from ranks and from fits: on drawn targets whose law is known, and where clean text looks like noise."""

from __future__ import annotations

import numpy as np
import pytest

from hf_noise.analysis.token_rate import rate_from_mixture, rate_from_tails, token_error_rate

V, LENGTH = 64, 25


def drawn(seed, e, rows=60, sharpness=3.0, temperature=1.0):
    """tail, entropy, row, log_clean and log_noise of targets predicted at a temperature, a share of them replaced."""
    draw = np.random.default_rng(seed)
    n = rows * LENGTH
    logits = draw.normal(size=(n, V)) * draw.uniform(0.5, 1.5, size=(n, 1)) * sharpness
    logits -= logits.max(1, keepdims=True)
    p = np.exp(logits / temperature)
    target = (p.cumsum(1) < draw.random((n, 1)) * p.sum(1, keepdims=True)).sum(1)
    wrong = draw.random(n) < e
    target[wrong] = draw.integers(V, size=wrong.sum())
    own = logits[np.arange(n), target]
    tail = ((logits > own[:, None]).sum(1) + 0.5) / V
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    entropy = -(np.exp(log_p) * log_p).sum(1)
    clean = np.stack([own / t - np.log(np.exp(logits / t).sum(1)) for t in (0.7, 1.0, 1.4)], 1)
    return tail, entropy, np.repeat(np.arange(rows), LENGTH), clean, np.full(n, -np.log(V))


@pytest.mark.parametrize("temperature", [0.8, 1.3])
@pytest.mark.parametrize("e", [0.01, 0.2, 0.5])
def test_the_interval_covers(e, temperature):
    """Of a model that is right, too sure, and not sure enough; of few targets, so that there are many draws."""
    found = [token_error_rate(*drawn(seed, e, temperature=temperature)) for seed in range(8)]
    assert sum(one.low <= e <= one.high for one in found) >= 7
    assert np.mean([one.high - one.low for one in found]) < 0.15 + 0.7 * e
    assert all(one.low <= one.value <= one.high for one in found)


def test_counting_needs_nothing_of_the_model():
    """Tails alone: a model that knows nothing leaves any rate open up to what it is, and beyond."""
    tail, entropy, row, *_ = drawn(0, 0.3, sharpness=0.01)
    assert rate_from_tails(tail, entropy, row).high > 0.9
    tail, entropy, row, *_ = drawn(0, 0.3)
    found = rate_from_tails(tail, entropy, row)
    assert 0 < found.low < 0.3 < found.high < 0.5
    wider = rate_from_tails(tail, entropy, row, confidence=0.999)
    assert wider.low < found.low and found.high < wider.high


def test_a_fit_finds_the_share_of_a_law_that_is_not_uniform():
    draw, n, e = np.random.default_rng(0), 4000, 0.3
    wrong = draw.random(n) < e
    values = np.where(wrong, draw.exponential(1.0, n), draw.exponential(0.2, n))
    clean = np.stack([np.log(k) - k * values for k in (8.0, 5.0, 3.0)], 1)
    found = rate_from_mixture(clean, -values, np.arange(n) // 40)
    assert found.low < e < found.high and found.high - found.low < 0.4
    assert set(found.parts) == {"the prediction as it is", "any temperature"}
    wider = rate_from_mixture(clean, -values, np.arange(n) // 40, draw.random(n))
    assert wider.low <= found.low and found.high <= wider.high and len(wider.parts) == 4


def test_noise_like_text_is_given_a_lower_end_that_knows_less():
    arrays = drawn(3, 0.2)
    plain, careful = token_error_rate(*arrays), token_error_rate(*arrays, resembles=True)
    assert careful.low <= plain.low and careful.high == plain.high


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tail": np.full(100, 1.5)}, r"\[0, 1\]"), ({"tail": np.full(100, np.nan)}, r"\[0, 1\]"),
        ({"entropy": np.full(100, np.inf)}, "finite"), ({"entropy": np.zeros(3)}, r"must be \[n\]"),
        ({"row": np.zeros(100)}, "row must be integers"), ({"tail": ["a"] * 100}, "real numbers"),
        ({"confidence": 1}, "confidence must lie"), ({"confidence": "1"}, "confidence must be"),
        ({"log_clean": np.zeros((100, 0))}, "log_noise"), ({"log_clean": np.full((100, 3), np.nan)}, "NaN"),
    ],
)  # fmt: skip
def test_what_is_no_sample(change, message):
    valid = {"tail": np.linspace(0, 1, 100), "entropy": np.ones(100), "row": np.arange(100) // 10,
             "log_clean": np.zeros((100, 3)), "log_noise": np.zeros(100)}  # fmt: skip
    with pytest.raises((TypeError, ValueError), match=message):
        token_error_rate(**{**valid, **change})
    with pytest.raises(ValueError, match="at least 50 targets .*, got 3"):
        rate_from_tails(np.zeros(3), np.zeros(3), np.zeros(3, dtype=int))
