"""What `LabelFlips` draws: by hand, in NumPy and torch, its rates and its transition matrix."""

import dataclasses
import math
import os
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from hf_noise.noise import LabelFlips, counter, realised_rate
from hf_noise.noise.alias import ALIAS_BITS
from hf_noise.noise.label_maps import CIFAR10, CIFAR100, MNIST
from hf_noise.noise.labels_torch import flip

IGNORED = -100
HAS_COMPILER = any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++"))


def random_matrix(num_classes, seed=0, sparse=0.3):
    rng = np.random.default_rng(seed)
    matrix = rng.gamma(0.5, size=(num_classes, num_classes)) * (rng.random((num_classes, num_classes)) > sparse)
    matrix[np.arange(num_classes), np.arange(num_classes)] += 0.5
    return matrix / matrix.sum(axis=1, keepdims=True)


def make(kind, num_classes=10, error_rate=0.5, **settings):
    if kind == "transition":
        return LabelFlips.from_transition(random_matrix(num_classes), **settings)
    settings = {"allow_adversarial": True, **settings}
    if kind == "pairs":
        mapping = {i: i // 2 for i in range(1, num_classes, 2)} | {0: num_classes - 1}
        return LabelFlips.pairs(mapping, error_rate=error_rate, num_classes=num_classes, **settings)
    return getattr(LabelFlips, kind)(error_rate=error_rate, num_classes=num_classes, **settings)


KINDS = ["symmetric", "uniform_resample", "cyclic", "pairs", "transition"]


@st.composite
def noises(draw):
    return make(
        draw(st.sampled_from(KINDS)), draw(st.sampled_from([2, 3, 10, 100])),
        draw(st.sampled_from([0, 2**-32, 0.05, 0.5, 0.999, 1 - 2**-40])),
        seed=draw(st.sampled_from([0, 1, (1 << 63) - 1])), redraw=draw(st.sampled_from(["epoch", "never"])),
    )  # fmt: skip


def random_labels(noise, shape, dtype=np.int64, ignored=0.1, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(noise.num_classes, size=shape)
    if np.iinfo(dtype).min < 0:
        labels = np.where(rng.random(shape) < ignored, IGNORED, labels)
    return labels.astype(dtype)


def by_hand(noise, label, sample, epoch=0):
    """The algorithm for one label in Python integers."""
    if label == IGNORED:
        return label
    stream = counter.stream_key(noise.seed, noise.stream, epoch if noise.redraw == "epoch" else 0)
    word = counter.mix(stream + (sample + 1) * counter.GOLDEN)
    high, low, classes = word >> 32, word % 2**32, noise.num_classes
    if noise.kind == "transition":
        column = low * classes >> 32
        cell = int(noise.cells[label, column])
        return column if high < cell >> ALIAS_BITS else cell % 2**ALIAS_BITS
    if high >= round(noise.error_rate * 2**32):
        return label
    if noise.kind == "symmetric":
        other = low * (classes - 1) >> 32
        return other + (other >= label)
    if noise.kind == "uniform_resample":
        return low * classes >> 32
    if noise.kind == "cyclic":
        return (label + 1) % classes
    return dict(noise.mapping).get(label, label)


def same(left, right):
    for a, b in zip(left, right, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)


# The draws


def test_golden_values():
    # Committed draws: if they change, so does every cached data set and the noise of every published checkpoint; then
    # `LabelFlips.version` must rise.
    labels, sample = np.arange(10), np.arange(10) * 7
    drawn = {kind: make(kind, seed=7)(labels, sample, epoch=2)[0].tolist() for kind in KINDS[:4]}
    assert drawn == {
        "symmetric": [7, 1, 6, 3, 0, 5, 5, 7, 8, 2],
        "uniform_resample": [7, 1, 5, 3, 1, 5, 5, 7, 8, 2],
        "cyclic": [1, 1, 3, 3, 5, 5, 7, 7, 8, 0],
        "pairs": [9, 1, 2, 3, 4, 5, 6, 7, 8, 4],
    }
    noise = LabelFlips.from_transition([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]], seed=7)
    assert noise(np.arange(12) % 3, np.arange(12))[0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1, 1, 0, 1, 1]


@settings(max_examples=100, deadline=None)
@given(noises(), st.integers(-(1 << 63), (1 << 63) - 40), st.integers(0, 5), st.integers(0, 99))
def test_numpy_equals_the_algorithm_by_hand(noise, first, epoch, seed):
    labels, sample = random_labels(noise, 30, seed=seed), first + np.arange(30)
    noisy, is_noisy = noise(labels, sample, epoch)
    expected = [by_hand(noise, *pair, epoch) for pair in zip(labels.tolist(), sample.tolist())]
    assert noisy.tolist() == expected
    assert is_noisy.tolist() == [a != b for a, b in zip(labels.tolist(), expected)]


@settings(max_examples=80, deadline=None)
@given(
    noises(), st.sampled_from(["uint8", "int16", "int32", "int64"]), st.lists(st.integers(0, 5), max_size=3),
    st.integers(0, 3),
)  # fmt: skip
def test_numpy_equals_torch(noise, dtype, shape, epoch):
    labels = random_labels(noise, shape, dtype=dtype)
    sample = np.arange(0, 1009 * math.prod(shape), 1009).reshape(shape)
    ours = noise(labels, sample, epoch)
    theirs = noise(torch.from_numpy(labels), torch.from_numpy(sample), epoch)
    assert ours[0].dtype == dtype and ours[1].dtype == bool
    assert theirs[0].dtype == getattr(torch, dtype) and theirs[1].dtype == torch.bool
    same(ours, [tensor.numpy() for tensor in theirs])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gpu_equals_numpy(kind, compiled):
    for num_classes in (10, 1000):
        noise = make(kind, num_classes, seed=5)
        labels, sample = random_labels(noise, (16, 1000)), np.arange(16_000).reshape(16, 1000) << 30
        tensors = flip(noise, torch.from_numpy(labels).cuda(), torch.from_numpy(sample).cuda(), 3, compiled)
        assert tensors[0].is_cuda and tensors[1].is_cuda
        same(noise(labels, sample, 3), [tensor.cpu().numpy() for tensor in tensors])


@pytest.mark.skipif(not HAS_COMPILER, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize("kind", ["symmetric", "pairs", "transition"])
def test_compiled_equals_numpy(kind):
    noise = make(kind, seed=5)
    labels, sample = random_labels(noise, 100, ignored=0.2), np.arange(100) - 50
    for epoch in (0, 7):
        compiled = flip(noise, torch.from_numpy(labels), torch.from_numpy(sample), epoch, compiled=True)
        same(noise(labels, sample, epoch), [tensor.numpy() for tensor in compiled])


@settings(max_examples=60, deadline=None)
@given(noises(), st.data())
def test_noise_does_not_depend_on_batch_order_or_shape(noise, data):
    labels, sample = random_labels(noise, 24), np.arange(24) * 37 - 50
    noisy, is_noisy = noise(labels, sample)
    order = np.array(data.draw(st.permutations(range(24))))
    for part in np.split(order, [data.draw(st.integers(0, 24))]):
        same(noise(labels[part], sample[part]), (noisy[part], is_noisy[part]))
    one = int(order[0])
    alone = noise(int(labels[one]), int(sample[one]))
    assert alone[0].shape == () and (alone[0], alone[1]) == (noisy[one], is_noisy[one])
    shape = data.draw(st.sampled_from([(24, 1), (2, 3, 4), (1, 24)]))
    same(noise(labels.reshape(shape), sample.reshape(shape)), (noisy.reshape(shape), is_noisy.reshape(shape)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ignored", [0, 0.1])
def test_blocks_of_work_do_not_show(kind, ignored):
    noise = make(kind, 100)
    labels, sample = random_labels(noise, 20_000, ignored=ignored), np.arange(20_000)
    noisy, is_noisy = noise(labels, sample)
    same(noise(torch.from_numpy(labels), torch.from_numpy(sample)), map(torch.from_numpy, (noisy, is_noisy)))
    for start in (0, 8191, 16_383):
        same(noise(labels[start:], sample[start:]), (noisy[start:], is_noisy[start:]))


@pytest.mark.parametrize("kind", KINDS)
def test_input_is_left_alone_and_may_be_a_read_only_view(kind):
    noise = make(kind)
    labels = random_labels(noise, (6, 20))
    labels.setflags(write=False)
    view, sample = labels[::2, ::-2], np.arange(60).reshape(3, 20)[:, ::2]
    same(noise(view, sample), noise(view.copy(), sample.copy()))
    tensor = torch.arange(10)
    noise(tensor, torch.arange(10))
    assert tensor.tolist() == list(range(10))


@settings(max_examples=40, deadline=None)
@given(noises())
def test_ignored_labels_stay_and_all_others_are_classes(noise):
    labels = random_labels(noise, 200, ignored=0.5)
    noisy, is_noisy = noise(labels, np.arange(200))
    assert (noisy[labels == IGNORED] == IGNORED).all() and not is_noisy[labels == IGNORED].any()
    known = noisy[labels != IGNORED]
    assert ((known >= 0) & (known < noise.num_classes)).all()
    np.testing.assert_array_equal(noisy != labels, is_noisy)


# What the kinds mean


def counted(noise, n_each, epoch=0):
    """How often each class became which, int64 [C, C], from `n_each` labels of each class."""
    labels = np.arange(noise.num_classes * n_each) % noise.num_classes
    noisy, is_noisy = noise(labels, np.arange(labels.size), epoch)
    counts = np.bincount(labels * noise.num_classes + noisy, minlength=noise.num_classes**2)
    return counts.reshape(noise.num_classes, -1), is_noisy


PROTOCOLS = {
    "symmetric-2": make("symmetric", 2, 0.3, seed=1),
    "symmetric-10": LabelFlips.symmetric(ratio=1.0, num_classes=10, seed=1),
    "symmetric-10-rare": LabelFlips.symmetric(ratio=0.1, num_classes=10, seed=2),
    "symmetric-100": LabelFlips.symmetric(ratio=0.5, num_classes=100, seed=3),
    "symmetric-1000": LabelFlips.symmetric(error_rate=0.4, num_classes=1000, seed=4),
    "resample-10": LabelFlips.uniform_resample(ratio=1.0, num_classes=10, seed=5),
    "resample-1000": LabelFlips.uniform_resample(ratio=1.0, num_classes=1000, seed=6),
    "cyclic-10": LabelFlips.cyclic(ratio=1.0, num_classes=10, seed=7),
    "cyclic-1000": LabelFlips.cyclic(ratio=0.3, num_classes=1000, seed=8),
    "mnist": LabelFlips.pairs(MNIST, error_rate=0.4, num_classes=10, seed=9),
    "cifar10": LabelFlips.pairs(CIFAR10, error_rate=0.4, num_classes=10, seed=10),
    "cifar100": LabelFlips.pairs(CIFAR100, error_rate=0.4, num_classes=100, seed=11),
    "matrix-3": LabelFlips.from_transition([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]], seed=12),
    "matrix-10": LabelFlips.from_transition(random_matrix(10), seed=13),
    "matrix-100": LabelFlips.from_transition(random_matrix(100), seed=14),
    "matrix-1000": LabelFlips.from_transition(random_matrix(1000), seed=15),
}


@pytest.mark.parametrize("noise", PROTOCOLS.values(), ids=PROTOCOLS)
def test_empirical_transition_matrix_and_rate(noise):
    matrix, n_each = noise.transition, max(1000, 1_000_000 // noise.num_classes)
    counts, is_noisy = counted(noise, n_each)
    assert (counts[matrix == 0] == 0).all() and (counts[matrix == 1] == n_each).all()

    # The rate, overall: 4 standard errors, a false alarm of 6e-5 for each protocol.
    errors = noise.error_rates
    realised, expected = realised_rate(is_noisy), errors.mean()
    error = math.sqrt((errors * (1 - errors)).mean() / is_noisy.size)
    assert realised["n"] == is_noisy.size and abs(realised["rate"] - expected) <= 4 * error
    assert is_noisy.sum() == counts.sum() - np.trace(counts)

    # Every cell is binomial: exact tails, so that all cells of a protocol together raise a false alarm of at most 1e-3.
    # The seeds are fixed, so that whatever alarm there is was there when this was written.
    random = (matrix > 0) & (matrix < 1)
    level = 1e-3 / (2 * random.sum())
    p, cell = np.unique(matrix[random], return_inverse=True)
    low, high = binom.ppf(level, n_each, p)[cell], binom.isf(level, n_each, p)[cell]
    assert ((counts[random] >= low) & (counts[random] <= high)).all()


@pytest.mark.parametrize("noise", [noise for noise in PROTOCOLS.values() if noise.num_classes <= 10], ids=repr)
def test_cells_within_four_standard_errors(noise):
    # At most 90 random cells each: a false alarm has probability 6e-3, once, as the seeds are fixed.
    matrix, n_each = noise.transition, 1_000_000 // noise.num_classes
    counts, _ = counted(noise, n_each)
    assert (np.abs(counts / n_each - matrix) <= 4 * np.sqrt(matrix * (1 - matrix) / n_each) + 1e-12).all()


@pytest.mark.parametrize("num_classes", [10, 100, 1000])
@pytest.mark.parametrize("e", [0.05, 0.4])
def test_realised_rate_of_symmetric_flips(num_classes, e):
    # A false alarm has probability 6e-5, once.
    labels = np.random.default_rng(1).integers(num_classes, size=1_280_000)
    _, is_noisy = LabelFlips.symmetric(error_rate=e, num_classes=num_classes)(labels, np.arange(labels.size))
    assert abs(is_noisy.mean() - e) < 4 * math.sqrt(e * (1 - e) / labels.size)


def test_wrong_labels_vary_as_coin_tosses_do():
    noise = LabelFlips.symmetric(ratio=1.0, num_classes=10)
    _, is_noisy = noise(np.zeros((1000, 1000), dtype=np.int8), np.arange(10**6).reshape(1000, 1000))
    for axis in (0, 1):  # within 5 standard errors of the variance
        assert abs(is_noisy.sum(axis=axis).var() / 250 - 1) < 5 * math.sqrt(2 / 1000)


def test_symmetric_flips_never_keep_and_resampling_may():
    labels, sample = np.arange(100_000) % 10, np.arange(100_000)
    flipped = make("symmetric", error_rate=1 - 2**-40)
    assert flipped(labels, sample)[1].all()
    redrawn = make("uniform_resample", error_rate=1 - 2**-40)(labels, sample)
    # One redraw in ten comes out as it was, and is not noisy.
    assert abs((~redrawn[1]).mean() - 0.1) < 4 * math.sqrt(0.09 / 100_000)


def test_cyclic_wraps_around():
    noisy, is_noisy = make("cyclic", error_rate=1 - 2**-40)(np.arange(10), np.arange(10))
    assert noisy.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0] and is_noisy.all()


def test_pairs_leave_other_classes_alone():
    noise = LabelFlips.pairs(CIFAR10, error_rate=1 - 2**-40, num_classes=10, allow_adversarial=True)
    noisy, is_noisy = noise(np.arange(10), np.arange(10))
    assert noisy.tolist() == [0, 1, 0, 5, 7, 3, 6, 7, 8, 1]
    assert np.flatnonzero(is_noisy).tolist() == [2, 3, 4, 5, 9]


def test_a_matrix_without_noise_or_without_choice():
    labels, sample = np.arange(1000) % 5, np.arange(1000)
    assert not LabelFlips.from_transition(np.eye(5))(labels, sample)[1].any()
    turned = LabelFlips.from_transition(np.eye(5)[[2, 3, 4, 0, 1]])(labels, sample)
    assert (turned[0] == (labels + 2) % 5).all() and turned[1].all()


@pytest.mark.parametrize("kind", ["symmetric", "uniform_resample", "cyclic", "pairs"])
def test_no_noise_changes_nothing(kind):
    labels = random_labels(make(kind), 1000)
    noisy, is_noisy = make(kind, error_rate=0)(labels, np.arange(1000))
    np.testing.assert_array_equal(noisy, labels)
    assert not is_noisy.any() and noisy is not labels
    assert not make(kind, error_rate=2**-32)(labels, np.arange(1000))[1].any()


def test_replacement_does_not_depend_on_whether_the_word_is_low():
    # Mask and replacement come of one word: at any e the replacements must be uniform all the same.
    for e in (0.01, 0.3):
        noise = LabelFlips.symmetric(error_rate=e, num_classes=17, seed=4)
        noisy, is_noisy = noise(np.full(1_000_000, 16, dtype=np.int8), np.arange(1_000_000))
        counts, expected = np.bincount(noisy[is_noisy], minlength=16), is_noisy.sum() / 16
        # The upper 1e-6 quantile of chi-square with 15 degrees of freedom.
        assert counts.size == 16 and ((counts - expected) ** 2 / expected).sum() < 56.49


def test_seeds_epochs_and_samples_are_independent():
    labels, sample = np.zeros(200_000, dtype=np.int64), np.arange(200_000)
    base = LabelFlips.symmetric(ratio=1.0, num_classes=1000, seed=0)
    noisy, mask = base(labels, sample)
    others = {
        "seed": dataclasses.replace(base, seed=1)(labels, sample),
        "epoch": base(labels, sample, 1),
        "sample": base(labels, sample + labels.size),
        "neighbour": (np.roll(noisy, 1), np.roll(mask, 1)),
        "shard": base(labels, sample + (1 << 40)),
    }
    for other_noisy, other_mask in others.values():
        # Two fair masks agree on half of the places; 4 standard errors, for each of ten figures.
        assert abs((mask == other_mask).mean() - 0.5) < 4 * 0.5 / math.sqrt(mask.size)
        both = mask & other_mask
        assert abs(np.corrcoef(noisy[both], other_noisy[both])[0, 1]) < 4 / math.sqrt(both.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_redraw(kind):
    dynamic = make(kind)
    labels, sample = random_labels(dynamic, 400), np.arange(400)
    static = dataclasses.replace(dynamic, redraw="never")
    assert not np.array_equal(dynamic(labels, sample, 1)[0], dynamic(labels, sample, 0)[0])
    for epoch in (0, 1, 5):
        same(static(labels, sample, epoch), dynamic(labels, sample, 0))
