"""The noise scale on losses whose gradients are known: by hand, over all batches there are, and its interval."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.analysis import gradient_noise_scale


def test_every_batch_there_is_gives_the_exact_signal_and_variance():
    """Of the loss |w - x|^2 / 2 the gradient is w - x: G = w - mean, tr(Sigma) = the summed variances."""
    x = np.array([[0.0, 1.0], [2.0, -1.0], [4.0, 3.0]])
    w = np.array([5.0, -2.0])
    small, big = [], []
    for drawn in itertools.product(range(3), repeat=3):  # all samples with replacement; the small batch is a part
        gradients = w - x[list(drawn)]
        small.append(np.sum(gradients[:1].mean(0) ** 2))
        big.append(np.sum(gradients.mean(0) ** 2))
    found = gradient_noise_scale(small, big, small_batch=1, big_batch=3)
    signal, variance = np.sum((w - x.mean(0)) ** 2), x.var(0).sum()
    assert found.signal == pytest.approx(signal, rel=1e-12)
    assert found.variance == pytest.approx(variance, rel=1e-12)
    assert found.value == pytest.approx(variance / signal, rel=1e-12)
    assert found.low < found.value < found.high and found.n == 27


def test_batches_of_several_sizes():
    sizes = np.array([[1, 4], [2, 6], [3, 30]])
    norms = 2.0 + 10.0 / sizes  # |G|^2 = 2, tr(Sigma) = 10
    found = gradient_noise_scale(norms[:, 0], norms[:, 1], small_batch=sizes[:, 0], big_batch=sizes[:, 1])
    assert (found.signal, found.variance, found.value) == pytest.approx((2, 10, 5))
    assert (found.low, found.high) == pytest.approx((5, 5), rel=1e-6)  # nothing scatters


def simulated(draw, n, w):
    x = draw.normal(size=(n, 8, 20))
    gradients = w - x
    return np.sum(gradients[:, :4].mean(1) ** 2, -1), np.sum(gradients.mean(1) ** 2, -1)


def test_the_interval_holds_as_often_as_it_says():
    draw, hits = np.random.default_rng(0), 0
    w = np.full(20, 0.5)  # |G|^2 = 5, tr(Sigma) = 20
    for _ in range(400):
        found = gradient_noise_scale(*simulated(draw, 12, w), small_batch=4, big_batch=8)
        hits += found.low <= 4 <= found.high
    assert 0.92 <= hits / 400 <= 0.99


def test_without_a_signal_the_interval_has_no_end():
    found = gradient_noise_scale(*simulated(np.random.default_rng(1), 30, np.zeros(20)), small_batch=4, big_batch=8)
    assert found.high == math.inf and found.low > 1


def test_one_pair_tells_a_value_and_no_interval():
    found = gradient_noise_scale(4.0, 2.0, small_batch=4, big_batch=12)
    assert (found.n, found.low, found.high) == (1, 0.0, math.inf)
    assert found.value == pytest.approx(12)


def test_a_signal_below_nought_is_an_infinite_scale_and_a_variance_below_nought_is_none():
    found = gradient_noise_scale([4.0, 5.0], [0.5, 0.4], small_batch=1, big_batch=2)
    assert found.signal < 0 and found.value == found.high == math.inf
    found = gradient_noise_scale([1.0, 1.1], [2.0, 2.2], small_batch=1, big_batch=2)
    assert found.variance < 0 and found.value == found.low == 0


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 30), st.integers(0, 10**6), st.floats(1e-6, 1e6))
def test_it_has_no_unit_and_holds_its_value(n, seed, unit):
    small, big = simulated(np.random.default_rng(seed), n, np.full(20, 0.3))
    one = gradient_noise_scale(small, big, small_batch=4, big_batch=8)
    other = gradient_noise_scale(unit * small, unit * big, small_batch=4, big_batch=8)
    assert 0 <= one.low <= one.value <= one.high
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), rel=1e-6)


@pytest.mark.parametrize(
    ("changed", "kind", "says"),
    [
        ({"small": [1.0, -1.0]}, ValueError, "small must lie in"),
        ({"big": [math.nan, 1.0]}, ValueError, "big must lie in"),
        ({"small": ["a", "b"]}, TypeError, "small"),
        ({"small": [[1.0]]}, ValueError, r"small must be \[n\]"),
        ({"small": [], "big": []}, ValueError, "at least one pair"),
        ({"small": [1.0, 2.0, 3.0]}, ValueError, "do not fit together"),
        ({"small_batch": 8}, ValueError, "small_batch must be below big_batch, got 8 and 8"),
        ({"big_batch": 0}, ValueError, "big_batch must lie in"),
        ({"confidence": 1.0}, ValueError, "confidence must lie in"),
    ],
)
def test_refused(changed, kind, says):
    good = {"small": [2.0, 3.0], "big": [1.0, 2.0], "small_batch": 4, "big_batch": 8}
    with pytest.raises(kind, match=says):
        gradient_noise_scale(**(good | changed))


def test_of_rows_in_tokens():
    rows = gradient_noise_scale([4.0, 4.4, 3.6], [2.0, 2.1, 1.9], small_batch=4, big_batch=12)
    tokens = gradient_noise_scale([4.0, 4.4, 3.6], [2.0, 2.1, 1.9], small_batch=4 * 255, big_batch=12 * 255)
    found = rows.times(255)
    assert (found.value, found.low, found.high) == pytest.approx((tokens.value, tokens.low, tokens.high))
    assert (found.signal, found.variance) == pytest.approx((tokens.signal, tokens.variance))
    assert all(type(one) is float for one in (found.value, found.low, found.high))
    with pytest.raises(ValueError, match="units must be a number > 0, got 0"):
        rows.times(0)
