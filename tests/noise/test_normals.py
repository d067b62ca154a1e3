"""Normal and uniform numbers from the counter."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hf_noise.noise.normals_torch import log_normals, normals, uniforms

SAMPLES = torch.arange(2000)
# Kolmogorov and Smirnov's test on 200,000 fixed draws: a correct generator fails it for one seed in 10,000.
ALPHA = 1e-4


@pytest.mark.parametrize(("draw", "law"), [(normals, "norm"), (uniforms, "uniform")])
def test_the_law(draw, law):
    numbers = draw(0, 7, 0, SAMPLES, 100)
    assert numbers.shape == (2000, 100) and numbers.dtype == torch.float32
    assert stats.kstest(numbers.flatten().double().numpy(), law).pvalue > ALPHA


def test_neighbours_are_uncorrelated():
    numbers = normals(3, 7, 0, SAMPLES, 100).double()
    for first, second in [(numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:])]:
        r, n = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1], first.numel()
        assert abs(float(r)) < stats.norm.isf(ALPHA / 2) / n**0.5


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 1000), st.lists(st.integers(0, 2**40), min_size=1, max_size=8))
def test_a_sample_does_not_depend_on_its_batch(seed, epoch, ids):
    for draw in (normals, uniforms):
        together = draw(seed, 1, epoch, torch.tensor(ids), 5)
        alone = torch.cat([draw(seed, 1, epoch, torch.tensor([i]), 5) for i in ids])
        torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)
        assert torch.isfinite(together).all()


def test_the_logarithm_of_a_level_is_its_first_normal_number():
    levels = log_normals(3, 7, 1, SAMPLES, -1.2, 1.5)
    assert levels.shape == (2000,) and float(levels.min()) > 0
    torch.testing.assert_close((levels.log() + 1.2) / 1.5, normals(3, 7, 1, SAMPLES, 1)[:, 0], rtol=1e-5, atol=1e-6)


def test_a_longer_row_begins_with_the_shorter_one():
    assert torch.equal(normals(0, 1, 0, SAMPLES[:3], 7), normals(0, 1, 0, SAMPLES[:3], 20)[:, :7])


def test_uniform_numbers_stay_below_one():
    numbers = uniforms(0, 1, 0, SAMPLES, 5000)
    assert float(numbers.min()) >= 0 and float(numbers.max()) < 1


def test_seed_stream_and_epoch_matter():
    drawn = [normals(*parts, SAMPLES[:4], 4) for parts in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
