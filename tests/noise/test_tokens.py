import dataclasses
import math
import os
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.noise import UniformTokens, counter, realised_rate
from hf_noise.noise.tokens_torch import corrupt

VOCABULARIES = [1, 2, 65, 50257, 1 << 20, (1 << 20) + 1, 1 << 31]
IGNORED = -100

HAS_COMPILER = any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++"))


def by_hand(noise, tokens, sample, epoch=0):
    """The algorithm token by token in Python integers."""
    e_32, choices = round(noise.error_rate * 2**32), noise.vocab_size - noise.exclude_original
    stream = counter.stream_key(noise.seed, noise.stream, epoch if noise.redraw == "epoch" else 0)
    row = counter.mix((stream ^ (sample % 2**64)) + counter.GOLDEN)
    noisy, mask = [], []
    for index, token in enumerate(tokens):
        word = counter.mix(row + (index + 1) * counter.GOLDEN)
        replaced = word >> 32 < e_32 and token != IGNORED
        if choices <= 1 << 20:
            new = (word % 2**32) * choices >> 32
        else:
            new = counter.mix(word + counter.GOLDEN) * choices >> 64
        if noise.exclude_original and new >= token:
            new += 1
        noisy.append(new if replaced else token)
        mask.append(replaced)
    return noisy, mask


@st.composite
def noises(draw, vocabularies=tuple(VOCABULARIES)):
    vocab_size = draw(st.sampled_from(vocabularies))
    return UniformTokens(
        error_rate=draw(st.sampled_from([0, 2**-32, 0.05, 0.5, 0.999, 1 - 2**-40])),
        vocab_size=vocab_size,
        seed=draw(st.sampled_from([0, 1, (1 << 63) - 1])),
        exclude_original=vocab_size > 1 and draw(st.booleans()),
        redraw=draw(st.sampled_from(["epoch", "never"])),
    )


def random_tokens(noise, shape, dtype=np.int64, ignored=0.1, seed=0):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(noise.vocab_size, size=shape)
    if np.iinfo(dtype).min < 0:
        tokens[rng.random(shape) < ignored] = IGNORED
    return tokens.astype(dtype)


def same(left, right):
    for a, b in zip(left, right, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)


# The draws


def test_golden_values():
    # Committed draws: if they change, so does every cached data set and the noise of every published checkpoint; then
    # `UniformTokens.version` must rise.
    noisy, is_noisy = UniformTokens(ratio=0.5, vocab_size=50257, seed=7)(np.arange(8), sample=3, epoch=2)
    assert noisy.tolist() == [0, 30150, 2, 3, 4, 5, 8869, 7]
    assert is_noisy.tolist() == [False, True, False, False, False, False, True, False]
    wide = UniformTokens(error_rate=0.5, vocab_size=1 << 21, seed=7, exclude_original=True)
    assert wide(np.arange(8), sample=3)[0].tolist() == [1241907, 1, 2, 1670510, 69118, 5, 6, 7]


@settings(max_examples=60, deadline=None)
@given(noises(), st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 5), st.integers(0, 99))
def test_numpy_equals_the_algorithm_by_hand(noise, sample, epoch, seed):
    tokens = random_tokens(noise, 30, seed=seed)
    noisy, is_noisy = noise(tokens, sample, epoch)
    assert (noisy.tolist(), is_noisy.tolist()) == by_hand(noise, tokens.tolist(), sample, epoch)


@settings(max_examples=60, deadline=None)
@given(
    noises(), st.sampled_from(["uint16", "int32", "int64"]), st.lists(st.integers(0, 5), max_size=2), st.integers(0, 3)
)
def test_numpy_equals_torch(noise, dtype, shape, epoch):
    if noise.vocab_size - 1 > np.iinfo(dtype).max:
        noise = dataclasses.replace(noise, vocab_size=np.iinfo(dtype).max + 1)
    tokens = random_tokens(noise, (*shape, 17), dtype=dtype)
    sample = np.arange(0, 1009 * math.prod(shape), 1009).reshape(shape)
    ours = noise(tokens, sample, epoch)
    theirs = noise(torch.from_numpy(tokens), torch.from_numpy(sample), epoch)
    assert theirs[0].dtype == getattr(torch, dtype) and theirs[1].dtype == torch.bool
    same(ours, [tensor.numpy() for tensor in theirs])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compiled", [False, True])
def test_gpu_equals_numpy(compiled):
    for vocab_size, exclude in ((50257, False), ((1 << 20) + 1, True), (1 << 31, False)):
        noise = UniformTokens(ratio=0.5, vocab_size=vocab_size, seed=5, exclude_original=exclude)
        tokens, sample = random_tokens(noise, (16, 1000)), np.arange(16) * (1 << 40)
        tensors = corrupt(noise, torch.from_numpy(tokens).cuda(), torch.from_numpy(sample).cuda(), 3, compiled)
        assert tensors[0].is_cuda
        same(noise(tokens, sample, 3), [tensor.cpu().numpy() for tensor in tensors])


@pytest.mark.skipif(not HAS_COMPILER, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_equals_numpy():
    for vocab_size, exclude in ((50257, False), ((1 << 20) + 1, True)):
        noise = UniformTokens(ratio=0.5, vocab_size=vocab_size, seed=5, exclude_original=exclude)
        tokens, sample = random_tokens(noise, (3, 64), ignored=0.2), np.array([4, -1, 1 << 40])
        for epoch in (0, 7):
            compiled = corrupt(noise, torch.from_numpy(tokens), torch.from_numpy(sample), epoch, compiled=True)
            same(noise(tokens, sample, epoch), [tensor.numpy() for tensor in compiled])


@settings(max_examples=40, deadline=None)
@given(noises(), st.data())
def test_noise_does_not_depend_on_batch_order_or_length(noise, data):
    tokens, sample = random_tokens(noise, (8, 12)), np.arange(8) * 37 - 50
    noisy, is_noisy = noise(tokens, sample)
    order = np.array(data.draw(st.permutations(range(8))))
    cut, length = data.draw(st.integers(0, 8)), data.draw(st.integers(0, 12))
    for rows in np.split(order, [cut]):
        same(noise(tokens[rows, :length], sample[rows]), (noisy[rows, :length], is_noisy[rows, :length]))
    row = int(order[0])
    same(noise(tokens[row], int(sample[row])), (noisy[row], is_noisy[row]))
    same(noise(tokens.reshape(2, 4, 12), sample.reshape(2, 4)), (noisy.reshape(2, 4, 12), is_noisy.reshape(2, 4, 12)))


@settings(max_examples=40, deadline=None)
@given(noises(), st.lists(st.integers(0, 9), max_size=8), st.integers(0, 3))
def test_ragged_rows_equal_single_calls(noise, lengths, epoch):
    rows = [random_tokens(noise, length, seed=length) for length in lengths]
    values = np.concatenate([np.empty(0, dtype=np.int64), *rows])
    noisy, is_noisy = noise.flat(values, np.array(lengths, dtype=np.int64), np.arange(len(rows)), epoch)
    alone = [noise(row, number, epoch) for number, row in enumerate(rows)]
    assert noisy.tolist() == [token for row, _ in alone for token in row]
    assert is_noisy.tolist() == [flag for _, mask in alone for flag in mask]


@pytest.mark.parametrize("shape", [(3, 20_000), (40, 1000), (1, 8192), (2, 8193)])
def test_blocks_of_work_do_not_show(shape):
    # Rows longer than a block are cut, short ones share a block; torch knows no blocks.
    noise = UniformTokens(ratio=0.5, vocab_size=300)
    tokens, sample = random_tokens(noise, shape), np.arange(shape[0])
    theirs = noise(torch.from_numpy(tokens), torch.from_numpy(sample))
    same(noise(tokens, sample), [tensor.numpy() for tensor in theirs])


def test_input_is_left_alone_and_may_be_a_read_only_view():
    noise = UniformTokens(ratio=1, vocab_size=50)
    tokens = random_tokens(noise, (6, 20))
    tokens.setflags(write=False)
    view = tokens[::2, ::-2]
    same(noise(view, np.arange(3)), noise(view.copy(), np.arange(3)))
    tensor = torch.arange(20)
    noise(tensor, 0)
    assert tensor.tolist() == list(range(20))


# What is replaced, and by what


@pytest.mark.parametrize("vocab_size", [2, 3, 65, (1 << 20) + 1])
def test_exclude_original_never_draws_the_original(vocab_size):
    noise = UniformTokens(error_rate=0.9, vocab_size=vocab_size, exclude_original=True)
    tokens = random_tokens(noise, (50, 100), ignored=0)
    noisy, is_noisy = noise(tokens, np.arange(50))
    np.testing.assert_array_equal(noisy != tokens, is_noisy)
    assert noisy.min() >= 0 and noisy.max() < vocab_size


@settings(max_examples=30, deadline=None)
@given(noises())
def test_untouched_positions_and_range(noise):
    tokens = random_tokens(noise, (4, 50), ignored=0.3)
    noisy, is_noisy = noise(tokens, np.arange(4))
    assert not is_noisy[tokens == IGNORED].any()
    np.testing.assert_array_equal(noisy[~is_noisy], tokens[~is_noisy])
    assert ((noisy[is_noisy] >= 0) & (noisy[is_noisy] < noise.vocab_size)).all()


def test_no_noise_changes_nothing():
    noise = UniformTokens(ratio=0, vocab_size=100)
    tokens = random_tokens(noise, (5, 40))
    noisy, is_noisy = noise(tokens, np.arange(5))
    np.testing.assert_array_equal(noisy, tokens)
    assert not is_noisy.any() and noisy is not tokens


def test_rate_close_to_one_replaces_everything_and_the_finest_rate_almost_nothing():
    tokens = np.zeros((10, 1000), dtype=np.int64)
    assert UniformTokens(error_rate=1 - 1e-12, vocab_size=9)(tokens, np.arange(10))[1].all()
    assert not UniformTokens(error_rate=2**-32, vocab_size=9)(tokens, np.arange(10))[1].any()


@pytest.mark.parametrize("r", [0.1, 0.3, 0.5, 1.0, 4.0])
def test_realised_rate_of_a_million_tokens(r):
    noise = UniformTokens(ratio=r, vocab_size=50257, seed=11)
    _, is_noisy = noise(np.zeros((1000, 1000), dtype=np.int32), np.arange(1000))
    realised, e = realised_rate(is_noisy), noise.error_rate
    # Four standard errors: a false alarm has probability 6e-5, once, as the seed is fixed.
    assert realised["n"] == 10**6 and abs(realised["rate"] - e) < 4 * math.sqrt(e * (1 - e) / 10**6)
    # Rows and positions vary as coin tosses do, not more: variance of counts within 5 of its standard errors.
    for axis in (0, 1):
        counts = is_noisy.sum(axis=axis)
        assert abs(counts.var() / (1000 * e * (1 - e)) - 1) < 5 * math.sqrt(2 / 1000)


@pytest.mark.parametrize("exclude", [False, True])
def test_realised_wrong_rate(exclude):
    # A replacement repeats the original with probability 1/V, so e (1 - 1/V) of the tokens are wrong, not e.
    noise = UniformTokens(error_rate=0.5, vocab_size=4, seed=2, exclude_original=exclude)
    tokens = random_tokens(noise, (500, 400), ignored=0)
    wrong = (noise(tokens, np.arange(500))[0] != tokens).mean()
    expected = 0.5 if exclude else 0.375
    assert abs(wrong - expected) < 4 * math.sqrt(expected * (1 - expected) / tokens.size)


@pytest.mark.parametrize(("vocab_size", "exclude"), [(16, False), (17, True), (1 << 24, False)])
def test_replacements_are_uniform(vocab_size, exclude):
    noise = UniformTokens(ratio=1, vocab_size=vocab_size, seed=8, exclude_original=exclude)
    noisy, is_noisy = noise(np.full((400, 500), vocab_size - 1), np.arange(400))
    counts = np.bincount(noisy[is_noisy] * 16 // (vocab_size - exclude), minlength=16)
    expected = is_noisy.sum() / 16
    # The upper 1e-6 quantile of chi-square with 15 degrees of freedom; both halves of the vocabulary's ways to draw.
    assert counts.size == 16 and ((counts - expected) ** 2 / expected).sum() < 56.49


def test_replacement_does_not_depend_on_whether_the_word_is_low():
    # Mask and replacement come of one word: at any e the replacements must be uniform all the same.
    for e in (0.01, 0.3):
        noise = UniformTokens(error_rate=e, vocab_size=16, seed=4)
        noisy, is_noisy = noise(np.full((1000, 1000), 15, dtype=np.int8), np.arange(1000))
        counts, expected = np.bincount(noisy[is_noisy], minlength=16), is_noisy.sum() / 16
        assert ((counts - expected) ** 2 / expected).sum() < 56.49


def test_seeds_epochs_samples_and_positions_are_independent():
    tokens, sample = np.zeros((100, 1000), dtype=np.int64), np.arange(100)
    base = UniformTokens(ratio=1, vocab_size=1000, seed=0)
    noisy, mask = base(tokens, sample)
    others = {
        "seed": dataclasses.replace(base, seed=1)(tokens, sample),
        "epoch": base(tokens, sample, 1),
        "sample": base(tokens, sample + 100),
        "neighbour": (np.roll(noisy, 1, axis=0), np.roll(mask, 1, axis=0)),
        "position": (np.roll(noisy, 1, axis=1), np.roll(mask, 1, axis=1)),
    }
    for other_noisy, other_mask in others.values():
        # Two fair masks agree on half of the places; 4 standard errors.
        assert abs((mask == other_mask).mean() - 0.5) < 4 * 0.5 / math.sqrt(mask.size)
        both = mask & other_mask
        correlation = np.corrcoef(noisy[both], other_noisy[both])[0, 1]
        assert abs(correlation) < 4 / math.sqrt(both.sum())


def test_redraw():
    tokens = np.zeros((4, 100), dtype=np.int64)
    dynamic = UniformTokens(ratio=1, vocab_size=1000)
    static = dataclasses.replace(dynamic, redraw="never")
    assert not np.array_equal(dynamic(tokens, np.arange(4), 1)[1], dynamic(tokens, np.arange(4), 0)[1])
    for epoch in (0, 1, 5):
        same(static(tokens, np.arange(4), epoch), dynamic(tokens, np.arange(4), 0))


def test_mixture_rate():
    assert UniformTokens(error_rate=0.3, vocab_size=4).mixture_rate == 0.3
    # p(noisy | clean): (1 - w) + w / V on the clean token must be 1 - e.
    noise = UniformTokens(error_rate=0.3, vocab_size=4, exclude_original=True)
    assert (1 - noise.mixture_rate) + noise.mixture_rate / 4 == pytest.approx(0.7)
