import dataclasses
import math

import numpy as np
import pytest
import torch
from datasets.fingerprint import Hasher
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.noise import GaussianDocuments, RandomDocuments

GPT2 = 50257
UNIFORM = RandomDocuments(alpha=0.05, vocab_size=GPT2)
BOOSTED = RandomDocuments(alpha=0.05, vocab_size=GPT2, boost="random")
LOW = RandomDocuments(alpha=0.05, vocab_size=GPT2, boost="low")
GAUSSIAN = GaussianDocuments(alpha=0.05, vocab_size=GPT2)
KINDS = [UNIFORM, BOOSTED, LOW, GAUSSIAN]


def vary(noise, **changes):
    return dataclasses.replace(noise, **changes)


def test_golden_values():
    # Committed draws: if they change, so does every corpus made with them; then `version` must rise.
    assert vary(UNIFORM, seed=7).rows(3, 8).tolist() == [22033, 38637, 48105, 23111, 30129, 47333, 30320, 30927]
    assert vary(BOOSTED, seed=7).rows(3, 8).tolist() == [22471, 39021, 47978, 23557, 30741, 47176, 30897, 31516]
    assert vary(BOOSTED, seed=7).boosted[:5].tolist() == [935, 1628, 1994, 4030, 4910]
    assert vary(GAUSSIAN, seed=7).rows(3, 8).tolist() == [25324, 25427, 24689, 24541, 25348, 25263, 26317, 26001]
    interleaved = RandomDocuments(alpha=0.2, vocab_size=GPT2, seed=7, placement="interleave")
    assert interleaved.order(12).tolist() == [12, 0, 1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 10, 11, 14]
    replaced = np.flatnonzero(vary(interleaved, placement="replace").replaced(np.arange(40)))
    assert replaced.tolist() == [14, 16, 19, 20, 22, 24, 26, 29, 33, 37]


def test_entropies():
    assert UNIFORM.entropy == pytest.approx(math.log(50256), abs=1e-9)
    # Two levels of probability: 100 tokens at 0.9/50256 + 0.001, the others at 0.9/50256.
    base, top = 0.9 / 50256, 0.9 / 50256 + 0.001
    by_hand = -100 * top * math.log(top) - 50156 * base * math.log(base)
    assert BOOSTED.entropy == pytest.approx(by_hand, abs=1e-9)
    # A normal variable with standard deviation 500: ln(500 sqrt(2 pi e)) = 7.6335.
    assert GAUSSIAN.entropy == pytest.approx(math.log(500 * math.sqrt(2 * math.pi * math.e)), abs=1e-6)
    assert GAUSSIAN.entropy < BOOSTED.entropy < UNIFORM.entropy


@pytest.mark.parametrize("noise", KINDS, ids=repr)
def test_probabilities(noise):
    p = noise.probabilities()
    assert p.shape == (GPT2,) and p.dtype == np.float64
    assert p.sum() == pytest.approx(1, abs=1e-12) and p.min() >= 0
    assert p[noise.exclude] == 0 and noise.exclude == GPT2 - 1


@pytest.mark.parametrize(
    "noise",
    [
        RandomDocuments(alpha=0.1, vocab_size=16, exclude=None),
        RandomDocuments(alpha=0.1, vocab_size=17, exclude=0, boost="low", n_boost=3, boost_mass=0.5),
        RandomDocuments(alpha=0.1, vocab_size=17, exclude=8, boost="random", n_boost=5, seed=2),
        GaussianDocuments(alpha=0.1, vocab_size=16, mean=7, std=3, exclude=None),
    ],
    ids=repr,
)
def test_draws_follow_the_probabilities(noise):
    rows = noise.rows(np.arange(300), 1000)
    counts = np.bincount(rows.reshape(-1), minlength=noise.vocab_size)
    expected = noise.probabilities() * rows.size
    drawn = expected > 0
    assert counts[~drawn].sum() == 0 and drawn.sum() == 16
    # The upper 1e-6 quantile of chi-square with 15 degrees of freedom.
    assert ((counts - expected)[drawn] ** 2 / expected[drawn]).sum() < 56.49


def test_gaussian_of_the_paper():
    assert (GAUSSIAN.mean, GAUSSIAN.std) == (25128, 500)
    p, ids = GAUSSIAN.probabilities(), np.arange(GPT2)
    assert p @ ids == pytest.approx(25128, abs=1e-6)
    # Rounding to integers adds a variance of 1/12.
    assert p @ (ids - 25128) ** 2 == pytest.approx(500**2 + 1 / 12, abs=1e-3)
    rows = GAUSSIAN.rows(np.arange(200), 1000)
    # Four standard errors of the mean and of the standard deviation.
    assert rows.mean() == pytest.approx(25128, abs=4 * 500 / math.sqrt(rows.size))
    assert rows.std() == pytest.approx(500, abs=4 * 500 / math.sqrt(2 * rows.size))


def test_gaussian_keeps_its_shape_in_another_vocabulary():
    small = GaussianDocuments(alpha=0.05, vocab_size=2049)
    assert small.mean == 1024 and small.std == pytest.approx(500 / 50256 * 2048)


def test_gaussian_is_clipped_at_the_ends():
    noise = GaussianDocuments(alpha=0.1, vocab_size=9, mean=2, std=1, exclude=None)
    # Everything below 0.5 becomes token 0: Phi(-1.5); everything above 7.5 token 8: 1 - Phi(5.5).
    assert noise.probabilities()[0] == pytest.approx(0.066807201268858, abs=1e-12)
    assert noise.probabilities()[8] == pytest.approx(1.898956e-08, abs=1e-12)


@pytest.mark.parametrize(
    ("mean", "std", "is_taken"), [(50, 19.6, True), (50, 19.65, False), (0, 0.2, True), (0, 1, False)]
)
def test_a_gaussian_wider_than_the_vocabulary_is_refused(mean, std, is_taken):
    """101 tokens reach 50.5 from their middle: 2.576 standard deviations of 19.6, beyond which 1 % of the draws lie."""
    settings = {"alpha": 0.1, "vocab_size": 101, "mean": mean, "std": std}
    if is_taken:
        GaussianDocuments(**settings)
    else:
        message = rf"std={std} around mean={mean} is wider than the vocabulary \(vocab_size=101\): .* a smaller std"
        with pytest.raises(ValueError, match=message):
            GaussianDocuments(**settings)


def test_a_vocabulary_too_small_for_the_boost_is_refused():
    message = r"vocab_size=1001 is too small for boost='low', which makes 1001 tokens .* or n_boost= in \[1, 1000\]"
    with pytest.raises(ValueError, match=message):
        RandomDocuments(alpha=0.1, vocab_size=1001, boost="low")
    assert RandomDocuments(alpha=0.1, vocab_size=1002, boost="low").n_boost == 1001


def test_gaussian_draws_the_excluded_token_again():
    whole = GaussianDocuments(alpha=0.1, vocab_size=9, exclude=None).probabilities()
    without = GaussianDocuments(alpha=0.1, vocab_size=9, exclude=4).probabilities()
    whole[4] = 0
    np.testing.assert_allclose(without, whole / whole.sum(), atol=1e-15)


@pytest.mark.parametrize("exclude", [0, 3, 64])
def test_excluded_token_never_comes(exclude):
    noise = RandomDocuments(alpha=0.1, vocab_size=65, exclude=exclude)
    seen = np.unique(noise.rows(np.arange(100), 100))
    assert seen.tolist() == [token for token in range(65) if token != exclude]


def test_exclude_counts_from_the_end_if_negative():
    noise = RandomDocuments(alpha=0.1, vocab_size=65)
    assert noise.exclude == 64 and noise == vary(noise, exclude=-1) == vary(noise, exclude=64)
    assert vary(noise, exclude=None).probabilities()[64] > 0


def test_boosted_tokens():
    assert BOOSTED.boosted.size == 100 and np.unique(BOOSTED.boosted).size == 100
    assert LOW.boosted.tolist() == list(range(1001))
    assert RandomDocuments(alpha=0.1, vocab_size=65, exclude=0, boost="low", n_boost=3).boosted.tolist() == [1, 2, 3]
    every = RandomDocuments(alpha=0.1, vocab_size=65, exclude=5, boost="random", n_boost=64)
    assert every.boosted.tolist() == [token for token in range(65) if token != 5]
    assert UNIFORM.boosted.size == 0
    assert not np.array_equal(BOOSTED.boosted, vary(BOOSTED, seed=1).boosted)
    assert BOOSTED.probabilities()[BOOSTED.boosted].sum() == pytest.approx(0.1 + 0.9 * 100 / 50256, abs=1e-12)


def test_boost_fields_are_filled_in():
    assert (UNIFORM.n_boost, UNIFORM.boost_mass) == (0, 0.0)
    assert (BOOSTED.n_boost, BOOSTED.boost_mass) == (100, 0.1)
    assert (LOW.n_boost, LOW.boost_mass) == (1001, 0.1)
    assert BOOSTED == vary(BOOSTED, n_boost=100) != vary(BOOSTED, n_boost=99)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=6),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_a_document_is_a_function_of_its_number(noise, samples, length, longer):
    rows = noise.rows(np.array(samples), length + longer)
    assert rows.dtype == np.int64 and rows.shape == (len(samples), length + longer)
    for sample, row in zip(samples, rows, strict=True):
        np.testing.assert_array_equal(noise.rows(sample, length), row[:length])
    tensor = noise.rows(torch.tensor(samples).reshape(1, -1), length + longer)
    assert tensor.dtype == torch.int64
    np.testing.assert_array_equal(tensor.numpy()[0], rows)


def test_seeds_documents_and_kinds_are_independent():
    base = UNIFORM.rows(np.arange(50), 1000)
    unlike = [
        vary(UNIFORM, seed=1).rows(np.arange(50), 1000),
        UNIFORM.rows(np.arange(50, 100), 1000),
        GAUSSIAN.rows(np.arange(50), 1000),
        np.roll(base, 1, axis=0),
    ]
    for other in unlike:
        # Four standard errors of a correlation of 50,000 pairs.
        assert abs(np.corrcoef(base.reshape(-1), other.reshape(-1))[0, 1]) < 4 / math.sqrt(base.size)


def test_alpha_and_placement_do_not_change_the_documents():
    rows = UNIFORM.rows(np.arange(3), 10)
    np.testing.assert_array_equal(vary(UNIFORM, alpha=0.2, placement="interleave").rows(np.arange(3), 10), rows)


def test_fingerprints_change_with_each_field():
    base = RandomDocuments(alpha=0.05, vocab_size=GPT2, boost="random")
    changes = {
        "alpha": 0.2, "vocab_size": 50258, "seed": 1, "placement": "replace", "exclude": None, "boost": "low",
        "n_boost": 99, "boost_mass": 0.2,
    }
    assert set(changes) == {field.name for field in dataclasses.fields(base)}
    gaussian = [vary(GAUSSIAN, mean=3e3), vary(GAUSSIAN, std=3.0), GAUSSIAN]
    noises = [base, *(vary(base, **{name: value}) for name, value in changes.items()), *gaussian]
    assert len({Hasher.hash(noise) for noise in noises}) == len(noises) == len(set(noises))


# Errors


@pytest.mark.parametrize("alpha", [-0.1, 1, 1.5, math.nan, math.inf])
@pytest.mark.parametrize("cls", [RandomDocuments, GaussianDocuments])
def test_bad_alpha(cls, alpha):
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\)"):
        cls(alpha=alpha, vocab_size=100)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"vocab_size": 0}, ValueError, r"vocab_size must lie in \[2, 2\^20\], got 0"),
        ({"vocab_size": 1}, ValueError, r"vocab_size must lie in \[2, 2\^20\], got 1"),
        ({"vocab_size": (1 << 20) + 1}, ValueError, "vocab_size must lie in"),
        ({"vocab_size": 10.0}, TypeError, "vocab_size must be an integer"),
        ({"seed": -1}, ValueError, "seed must lie in"),
        ({"placement": "shuffle"}, ValueError, "placement must be one of append, interleave, replace, got 'shuffle'"),
        ({"exclude": 100}, ValueError, r"exclude must be None or a token in \[0, 100\)"),
        ({"exclude": -101}, ValueError, "exclude must be None or a token"),
        ({"exclude": 1.0}, TypeError, "exclude must be a token id or None"),
        ({"boost": "high"}, ValueError, 'boost must be "none", "random" or "low"'),
        ({"boost": "random"}, ValueError, r"too small for boost='random', .* or n_boost= in \[1, 99\]"),
        ({"boost": "random", "n_boost": 100}, ValueError, r"n_boost must be an integer in \[1, 99\], got 100"),
        ({"boost": "low", "n_boost": 0}, ValueError, r"n_boost must be an integer in \[1, 99\], got 0"),
        ({"boost": "low", "n_boost": 3, "boost_mass": 0}, ValueError, r"boost_mass must lie in \(0, 1\], got 0"),
        ({"boost": "low", "n_boost": 3, "boost_mass": math.nan}, ValueError, "boost_mass must lie in"),
        ({"n_boost": 5}, ValueError, 'need boost="random" or boost="low"'),
        ({"boost_mass": 0.2}, ValueError, 'need boost="random" or boost="low"'),
    ],
)
def test_bad_settings(changes, error, message):
    with pytest.raises(error, match=message):
        RandomDocuments(**{"alpha": 0.05, "vocab_size": 100, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": -1}, r"mean must lie in \[0, 99\], the ids of the vocabulary, got -1"),
        ({"mean": math.nan}, "mean must lie in"),
        ({"mean": "50"}, "mean must be a real number"),
        ({"std": 0}, "std must be finite and > 0, got 0"),
        ({"std": math.inf}, "std must be finite and > 0"),
        ({"mean": 99, "std": 0.001}, "nothing but the excluded token 99 could be drawn"),
    ],
)
def test_bad_gaussian(changes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        GaussianDocuments(**{"alpha": 0.05, "vocab_size": 100, **changes})
