"""Batch advice by hand, against the moments of mixtures that are counted out, and what it refuses."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.analysis import advise_batch
from hf_noise.analysis.advice import BatchAdvice, nearest_factor, noise_power
from hf_noise.analysis.gradients import coherence
from hf_noise.analysis.noise_scale import NoiseScale

MEASURED = {"snr": 2.0, "batch_size": 16, "snr_ratio": 1.0, "noise_scale": 5.0}
RATIOS = st.floats(0.01, 20)


def scale_of(low, value, high):
    return NoiseScale(value, low, high, signal=1.0, variance=value, n=9, confidence=0.95)


def test_the_noise_scale_of_a_mixture_is_that_of_its_moments():
    """Clean gradients of known spread, corrupt ones that point both ways: all of them counted out."""
    clean = np.array([[3.0, 0.0], [1.0, 2.0], [2.0, -2.0], [2.0, 4.0]])  # mean (2, 1)
    corrupt = np.array([[0.5, 2.0], [-0.5, -2.0]])
    mean = clean.mean(0)
    signal = mean @ mean
    clean_scale, q = clean.var(0).sum() / signal, np.sum(corrupt**2, 1).mean() / signal
    for r in (0.1, 0.5, 1.0, 4.0):
        e = r / (1 + r)
        rows, weight = np.vstack([clean, corrupt]), np.array([(1 - e) / 4] * 4 + [e / 2] * 2)
        mixed = weight @ rows
        variance = weight @ np.sum((rows - mixed) ** 2, 1)
        # The SNR that such gradients have, so that q comes back.
        snr = 1 / math.sqrt(q / noise_power(1.0, batch_size=16, ratio=1.0, noise_scale=clean_scale))
        found = advise_batch(r, snr=snr, batch_size=16, snr_ratio=1.0, noise_scale=clean_scale)
        assert found.power == pytest.approx(q)
        assert found.noisy_noise_scale == pytest.approx(variance / (mixed @ mixed))
        assert found.multiplier == pytest.approx(found.noisy_noise_scale / clean_scale)
        assert found.steps_factor == pytest.approx((1 + r) / found.multiplier)


def test_the_power_of_noise_counts_corrupt_examples_out():
    """Orthogonal gradients of length 1 and 3, where norms of sums are what the formula says: q = 9 / |G|^2."""
    means = []
    for share in (0.75, 0.25):  # clean, corrupt
        total = 0.0
        for kinds in itertools.product((0, 1), repeat=4):
            n = sum(kinds)
            total += share**n * (1 - share) ** (4 - n) * (math.sqrt(n * n + 0.5 * n) if share == 0.75 else math.sqrt(n))
        means.append(total)
    snr = means[0] / (3 * means[1])
    assert noise_power(snr, batch_size=4, ratio=1 / 3, noise_scale=0.5) == pytest.approx(9)


def test_where_corrupt_gradients_are_as_long_as_clean_ones():
    """B_c large, q = B_c: signal halves, noise stays, so that a batch four times as large is as good (r = 1)."""
    size = 1000
    snr = 1 / math.sqrt(1e6 / noise_power(1.0, batch_size=size, ratio=1.0, noise_scale=1e6))
    found = advise_batch(1.0, snr=snr, batch_size=size, snr_ratio=1.0, noise_scale=1e6)
    assert found.multiplier == pytest.approx(4, rel=1e-3) and found.nearest([1, 2, 4, 8]) == 4
    sgd = advise_batch(1.0, snr=snr, batch_size=size, snr_ratio=1.0, noise_scale=1e6, optimizer="sgd")
    assert sgd.multiplier == pytest.approx(2, rel=1e-3)


@settings(deadline=None, max_examples=50)
@given(RATIOS, st.floats(0.05, 50), st.integers(1, 200), RATIOS, st.floats(0.01, 1e5))
def test_a_noise_scale_measured_under_noise_tells_the_same(ratio, snr, size, at, scale):
    told = {"snr": snr, "batch_size": size, "snr_ratio": at}
    one = advise_batch(ratio, noise_scale=scale, **told)
    noisy = advise_batch(at, noise_scale=scale, **told).noisy_noise_scale
    other = advise_batch(ratio, noise_scale=noisy, noise_scale_ratio=at, **told)
    assert other.multiplier == pytest.approx(one.multiplier, rel=1e-6)
    assert other.clean_noise_scale == pytest.approx(scale, rel=1e-6)


@settings(deadline=None, max_examples=50)
@given(RATIOS, st.floats(0.05, 50), st.integers(1, 200), RATIOS, st.floats(0.01, 1e5), st.sampled_from(["adam", "sgd"]))
def test_more_noise_asks_for_more(ratio, snr, size, at, scale, optimizer):
    told = {"batch_size": size, "snr_ratio": at, "optimizer": optimizer}
    found = advise_batch(ratio, snr=snr, noise_scale=scale, **told)
    assert found.multiplier >= 1 and found.low == found.multiplier == found.high
    assert advise_batch(2 * ratio, snr=snr, noise_scale=scale, **told).multiplier > found.multiplier
    assert advise_batch(ratio, snr=snr / 2, noise_scale=scale, **told).multiplier > found.multiplier
    assert advise_batch(ratio, snr=snr, noise_scale=2 * scale, **told).multiplier < found.multiplier
    assert advise_batch(0.0, snr=snr, noise_scale=scale, **told).multiplier == 1


def test_the_interval_joins_both_measurements():
    given_ends = MEASURED | {"noise_scale": scale_of(3.0, 5.0, 9.0), "snr_interval": (1.5, 3.0)}
    found = advise_batch(1.0, **given_ends)
    worst = advise_batch(1.0, **(MEASURED | {"noise_scale": 3.0, "snr": 1.5}))
    best = advise_batch(1.0, **(MEASURED | {"noise_scale": 9.0, "snr": 3.0}))
    assert (found.low, found.high) == pytest.approx((best.multiplier, worst.multiplier))
    assert found.multiplier == advise_batch(1.0, **MEASURED).multiplier


def test_of_an_open_interval_the_ends_are_limits():
    found = advise_batch(1.0, **(MEASURED | {"noise_scale": scale_of(0.0, 5.0, math.inf)}))
    large = advise_batch(1.0, **(MEASURED | {"noise_scale": 1e11}))
    assert found.high == math.inf and found.low == pytest.approx(large.multiplier, rel=1e-6)


def test_an_end_below_what_noise_alone_leaves_is_open():
    told = MEASURED | {"noise_scale_ratio": 1.0}
    found = advise_batch(1.0, **(told | {"noise_scale": scale_of(0.5, 60.0, 90.0)}))
    assert found.high == math.inf and found.multiplier == advise_batch(1.0, **(told | {"noise_scale": 60.0})).multiplier
    assert found.low == advise_batch(1.0, **(told | {"noise_scale": 90.0})).multiplier


@pytest.mark.parametrize("at", [0.0, 1.0])
def test_without_a_signal_the_advice_is_the_limit(at):
    """SNR^2 is then the power of clean over that of corrupt examples: with as many of each, signal halves."""
    told = {"snr": 0.8, "batch_size": 16, "snr_ratio": 1.0, "noise_scale": math.inf, "noise_scale_ratio": at}
    found = advise_batch(1.0, **told)
    assert found.multiplier == pytest.approx(2 * (1 + 1 / 0.8**2))
    assert found.noisy_noise_scale == found.power == found.clean_noise_scale == math.inf
    assert found.low == found.multiplier == found.high
    assert advise_batch(0.0, **told).multiplier == 1
    large = advise_batch(1.0, **(told | {"noise_scale": 1e11, "noise_scale_ratio": 0.0}))
    assert large.multiplier == pytest.approx(found.multiplier, rel=1e-6)


def test_nearest_counts_factors():
    found = BatchAdvice(2.7, 1, 9, 1, 1, 1, 1, 1, "adam")
    assert found.nearest([8, 4, 2, 1]) == 2 and found.nearest([1, 8]) == 1 and found.nearest([4.0]) == 4
    assert nearest_factor(3.0, [1, 2, 8]) == 2 and nearest_factor(math.inf, [1, 2, 8]) == 8
    with pytest.raises(ValueError, match="choices must"):
        found.nearest([0, 1])


@pytest.mark.parametrize(
    ("changed", "kind", "says"),
    [
        ({"ratio": -1.0}, ValueError, "ratio must be finite and >= 0"),
        ({"ratio": "1"}, TypeError, "ratio"),
        ({"snr": 0.0}, ValueError, "snr must lie in"),
        ({"snr": math.inf}, ValueError, "snr must lie in"),
        ({"batch_size": 0}, ValueError, "batch_size must be a whole number"),
        ({"batch_size": 2.5}, ValueError, "batch_size must be a whole number"),
        ({"snr_ratio": 0.0}, ValueError, "without corrupt or clean examples"),
        ({"noise_scale": 0.0}, ValueError, "noise_scale must lie in"),
        ({"noise_scale": math.nan}, ValueError, "or be infinite where no signal was found"),
        ({"noise_scale": "5"}, TypeError, "noise_scale"),
        ({"noise_scale": 0.5, "noise_scale_ratio": 1.0}, ValueError, "leaves of noise alone"),
        ({"snr_interval": (2.5, 3.0)}, ValueError, "snr_interval must be"),
        ({"snr_interval": (-0.1, 3.0)}, ValueError, "with 0 <= low <= snr <= high"),
        ({"snr_interval": (1.0, math.nan)}, ValueError, "snr_interval must be"),
        ({"snr_interval": (None, None)}, TypeError, "snr_interval"),
        ({"optimizer": "adamw"}, ValueError, "adamw"),
    ],
)
def test_refused(changed, kind, says):
    with pytest.raises(kind, match=says):
        advise_batch(**({"ratio": 1.0} | MEASURED | changed))


def test_of_an_open_interval_of_the_snr_the_ends_are_limits():
    """An SNR that may be 0 leaves no upper end; one without an end leaves what clean rows alone scatter."""
    for told in ({}, {"noise_scale_ratio": 1.0, "noise_scale": 60.0}, {"noise_scale": math.inf}):
        told = MEASURED | told
        found = advise_batch(1.0, **told, snr_interval=(0.0, math.inf))
        near = advise_batch(1.0, **told, snr_interval=(1e-6, 1e12))
        assert found.high == math.inf and near.high > 1e6
        assert found.low == pytest.approx(near.low) and found.multiplier == near.multiplier
        assert advise_batch(0.0, **told, snr_interval=(0.0, math.inf)).high == pytest.approx(1)
    sgd = advise_batch(1.0, **MEASURED, snr_interval=(0.0, math.inf), optimizer="sgd")
    assert sgd.low == pytest.approx((2 + 1 / 5) / 2)


@pytest.mark.parametrize("batches", [2, 3, 12])
def test_what_coherence_measures_is_advised_on_as_it_is(batches):
    """Also of few batches, where the SNR may be 0 or without an end."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3)).double()

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return SimpleNamespace(logits=self.inner(x))

    draw = np.random.default_rng(0)
    rows = [{"x": torch.from_numpy(draw.normal(1, 1, (8, 2))), "labels": torch.from_numpy(draw.integers(0, 3, 8)),
             "is_noisy": torch.arange(8) % 8 < (1 if i % 2 else 7)} for i in range(batches)]  # fmt: skip
    one = coherence(Logits(), rows).estimates["snr"]
    assert 0 <= one.low <= one.value <= one.high
    found = advise_batch(1.0, snr=one.value, snr_interval=(one.low, one.high), batch_size=8, snr_ratio=1.0,
                         noise_scale=5.0)  # fmt: skip
    assert 1 <= found.low <= found.multiplier <= found.high
    assert (found.high == math.inf) == (one.low == 0)
    assert batches > 2 or one.low == 0 and one.high == math.inf, "of two so different batches nothing is known"
