import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.noise import counter, counter_torch

WORD = (1 << 64) - 1
EXTREMES = [0, 1, WORD, 1 << 63, (1 << 63) - 1, counter.GOLDEN, WORD - counter.GOLDEN + 1]
words_64 = st.one_of(st.sampled_from(EXTREMES), st.integers(0, WORD))


def signed(words):
    return torch.from_numpy(np.asarray(words, dtype=np.uint64).view(np.int64))


def unsigned(tensor):
    return tensor.numpy().view(np.uint64)


def test_known_answers_of_splitmix64():
    # The first outputs of the published generator with seed 0.
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert counter.words(np.zeros(1, dtype=np.uint64), counter.weyl(3)).tolist() == expected
    assert unsigned(counter_torch.words(torch.zeros(1, dtype=torch.int64), counter_torch.weyl(3))).tolist() == expected
    assert [counter.mix((k + 1) * counter.GOLDEN) for k in range(3)] == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(words_64, min_size=1, max_size=20))
def test_three_mixes_agree(values):
    expected = [counter.mix(value) for value in values]
    array = np.array(values, dtype=np.uint64)
    assert counter.mix_in_place(array.copy(), np.empty_like(array)).tolist() == expected
    assert unsigned(counter_torch.mix(signed(array))).tolist() == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(words_64, min_size=1, max_size=5), st.integers(0, 40))
def test_numpy_and_torch_words_agree(keys, length):
    keys = np.array(keys, dtype=np.uint64)
    ours = counter.words(keys[:, None], counter.weyl(length))
    theirs = counter_torch.words(signed(keys)[:, None], counter_torch.weyl(length))
    assert ours.shape == (len(keys), length)
    np.testing.assert_array_equal(ours, unsigned(theirs))
    np.testing.assert_array_equal(ours >> np.uint64(32), counter_torch.upper_half(theirs).numpy().astype(np.uint64))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, (1 << 63) - 1),
    st.integers(0, 9),
    st.integers(-3, 1 << 40),
    st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=5),
)
def test_numpy_and_torch_row_keys_agree(seed, stream, epoch, samples):
    ours = counter.row_keys(seed, stream, epoch, np.array(samples))
    theirs = counter_torch.row_keys(counter_torch.stream_key(seed, stream, epoch), torch.tensor(samples))
    np.testing.assert_array_equal(ours, unsigned(theirs))
    key = counter.stream_key(seed, stream, epoch)
    assert ours.tolist() == [counter.mix((key ^ (sample & WORD)) + counter.GOLDEN) for sample in samples]


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), (2, 0)])
def test_row_keys_take_samples_of_any_shape(shape):
    sample = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    keys = counter.row_keys(0, 1, 0, sample)
    assert keys.shape == shape and keys.dtype == np.uint64
    np.testing.assert_array_equal(keys.reshape(-1), counter.row_keys(0, 1, 0, sample.reshape(-1)))


def test_row_keys_leave_the_samples_alone():
    sample = np.arange(5)
    counter.row_keys(3, 1, 0, sample)
    assert sample.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_row_keys_depend_on_values_not_dtypes(dtype):
    np.testing.assert_array_equal(
        counter.row_keys(0, 1, 0, np.arange(100, dtype=dtype)), counter.row_keys(0, 1, 0, np.arange(100))
    )


def test_row_keys_are_distinct():
    # The finaliser is a bijection, so this holds for any samples of one stream.
    assert np.unique(counter.row_keys(0, 1, 0, np.arange(-50_000, 150_000))).size == 200_000


def test_streams_are_distinct():
    parts = itertools.product(range(12), range(6), range(-3, 12))
    keys = [counter.stream_key(*part) for part in parts]
    assert len(set(keys)) == len(keys)
    assert counter.stream_key(1, 2, 3) != counter.stream_key(3, 2, 1)


def test_positions_can_start_anywhere():
    np.testing.assert_array_equal(counter.weyl(5, 7), counter.weyl(12)[7:])


def test_words_into_given_space():
    keys = counter.row_keys(0, 1, 0, np.arange(4))[:, None]
    out, scratch = np.empty((4, 6), dtype=np.uint64), np.empty((4, 6), dtype=np.uint64)
    assert counter.words(keys, counter.weyl(6), out=out, scratch=scratch) is out
    np.testing.assert_array_equal(out, counter.words(keys, counter.weyl(6)))


def test_words_at_any_position_are_those_of_the_stream():
    key = counter.stream_key(5, 4, 1)
    stream = counter.words(np.array([key], dtype=np.uint64), counter.weyl(12))
    np.testing.assert_array_equal(counter.words_at(key, np.arange(12)), stream)
    np.testing.assert_array_equal(counter.words_at(key, np.array([[7, 0], [3, 11]])), stream[[[7, 0], [3, 11]]])
    assert counter.words_at(key, np.array(7)).shape == () and counter.words_at(key, np.array(7)) == stream[7]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, (1 << 63) - 1), st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=5),
    st.sampled_from(["int64", "int16"]),
)  # fmt: skip
def test_numpy_and_torch_words_at_agree(seed, positions, dtype):
    position = np.array(positions).astype(dtype)
    key = counter.stream_key(seed, 4, 0)
    ours = counter.words_at(key, position)
    np.testing.assert_array_equal(
        ours, unsigned(counter_torch.words_at(counter_torch.stream_key(seed, 4, 0), torch.from_numpy(position)))
    )
    assert ours.tolist() == [counter.mix(key + (int(k) + 1) * counter.GOLDEN) for k in position]
    out, scratch = np.empty_like(ours), np.empty_like(ours)
    assert counter.words_at(key, position, out=out, scratch=scratch) is out and (out == ours).all()


def test_units_are_uniform_in_the_unit_interval():
    units = counter.units(counter.row_keys(0, 1, 0, np.arange(1000))[:, None], counter.weyl(200))
    assert units.dtype == np.float64 and units.min() >= 0 and units.max() < 1
    assert np.all(units * 2.0**53 % 1 == 0)
    # Four standard errors of a mean and of a variance of 200,000 uniform numbers.
    assert units.mean() == pytest.approx(1 / 2, abs=4 * np.sqrt(1 / 12 / units.size))
    assert units.var() == pytest.approx(1 / 12, abs=4 * np.sqrt(1 / 180 / units.size))


def test_each_bit_of_a_word_is_fair_and_changes_with_each_part_of_its_key():
    parts = [(0, 1, 0, 0), (1, 1, 0, 0), (0, 2, 0, 0), (0, 1, 1, 0), (0, 1, 0, 1)]
    rows = [
        counter.words(counter.row_keys(seed, stream, epoch, np.array([sample]))[:, None], counter.weyl(4096))[0]
        for seed, stream, epoch, sample in parts
    ]
    for left, right in itertools.combinations(rows, 2):
        differing = np.unpackbits((left ^ right).view(np.uint8)).reshape(4096, 64)
        # 640 shares of 4096 fair bits: one lies over 5.5 standard errors off with probability 2e-5.
        assert np.abs(differing.mean(axis=0) - 0.5).max() < 5.5 * 0.5 / np.sqrt(4096)
