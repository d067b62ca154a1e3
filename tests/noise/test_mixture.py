import dataclasses
import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.noise import GaussianDocuments, RandomDocuments, realised_rate

UNIFORM = RandomDocuments(alpha=0.05, vocab_size=50257)
KINDS = [
    UNIFORM,
    RandomDocuments(alpha=0.05, vocab_size=50257, boost="random"),
    GaussianDocuments(alpha=0.05, vocab_size=50257),
]
alphas = st.one_of(st.sampled_from([0.0, 0.01, 0.05, 0.2, 0.5]), st.floats(0, 0.95))


def vary(noise, **changes):
    return dataclasses.replace(noise, **changes)


# The mixture


@pytest.mark.parametrize(
    ("alpha", "clean", "noise"), [(0.05, 950, 50), (0.2, 1000, 250), (0.01, 99, 1), (0, 7, 0), (0.5, 3, 3), (0.2, 0, 0)]
)
def test_alpha_is_the_share_of_the_mixture(alpha, clean, noise):
    assert RandomDocuments(alpha=alpha, vocab_size=10).number_of_noise_rows(clean) == noise


@settings(max_examples=100, deadline=None)
@given(alphas, st.integers(0, 10**12))
def test_share_is_exact_to_one_row(alpha, n_clean):
    noise = RandomDocuments(alpha=alpha, vocab_size=10)
    n_noise = noise.number_of_noise_rows(n_clean)
    assert abs(n_noise - alpha * (n_clean + n_noise)) <= 0.5 * (1 - alpha) + 1e-9 * (n_clean + 1)
    assert noise.error_rate == alpha and noise.ratio == pytest.approx(alpha / (1 - alpha))


@settings(max_examples=100, deadline=None)
@given(alphas, st.integers(0, 200), st.integers(0, 3), st.sampled_from(["append", "interleave"]))
def test_order_holds_every_row_once_and_keeps_the_clean_order(alpha, n_clean, seed, placement):
    noise = RandomDocuments(alpha=alpha, vocab_size=10, seed=seed, placement=placement)
    order, n_noise = noise.order(n_clean), noise.number_of_noise_rows(n_clean)
    assert order.dtype == np.int64
    assert order[order < n_clean].tolist() == list(range(n_clean))
    assert order[order >= n_clean].tolist() == list(range(n_clean, n_clean + n_noise))
    if placement == "append":
        assert order.tolist() == list(range(n_clean + n_noise))
    if placement == "interleave" and n_noise:
        # One row of noise in each of n_noise stretches: every beginning of the corpus has its share, to one row.
        seen = np.cumsum(order >= n_clean)
        fair = np.arange(1, order.size + 1) * n_noise / order.size
        assert np.abs(seen - fair).max() <= 1


def test_interleaving_is_random_within_its_stretches():
    noise = RandomDocuments(alpha=0.1, vocab_size=10, placement="interleave")
    order = noise.order(90_000)
    places = np.flatnonzero(order >= 90_000) % 10
    # The upper 1e-6 quantile of chi-square with 9 degrees of freedom is 44.8.
    assert ((np.bincount(places, minlength=10) - 1000) ** 2 / 1000).sum() < 44.8
    assert not np.array_equal(order, vary(noise, seed=1).order(90_000))


def test_a_mixture_end_to_end():
    noise = RandomDocuments(alpha=0.25, vocab_size=100, placement="interleave")
    clean = np.full((9, 5), 99)
    order = noise.order(len(clean))
    pool = np.concatenate([clean, noise.rows(np.arange(noise.number_of_noise_rows(len(clean))), 5)])
    mixture = pool[order]
    assert mixture.shape == (12, 5)
    assert ((mixture == 99).all(axis=1) == (order < 9)).all()
    assert realised_rate(order >= 9) == {"rate": 0.25, "n": 12}


# Replacement of whole rows


def replacing(noise=UNIFORM, **changes):
    return vary(noise, placement="replace", **changes)


def test_whole_rows_are_replaced():
    noise = replacing(alpha=0.3)
    tokens, sample = np.full((50, 8), 7, dtype=np.int32), np.arange(50) * 3
    noisy, is_noisy = noise(tokens, sample)
    assert noisy.dtype == np.int32 and is_noisy.dtype == bool
    replaced = noise.replaced(sample)
    np.testing.assert_array_equal(is_noisy, np.repeat(replaced[:, None], 8, axis=1))
    np.testing.assert_array_equal(noisy[replaced], noise.rows(sample[replaced], 8))
    assert (noisy[~replaced] == 7).all() and (tokens == 7).all()
    assert 0 < replaced.sum() < 50


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(KINDS), st.permutations(range(6)), st.integers(0, 6), st.sampled_from(["int32", "int64"]))
def test_replacement_does_not_depend_on_batch_order_or_backend(kind, order, cut, dtype):
    noise = replacing(kind, alpha=0.5)
    tokens, sample = np.arange(60).reshape(6, 10).astype(dtype), np.arange(6)
    noisy, is_noisy = noise(tokens, sample)
    order = np.array(order)
    for rows in (order[:cut], order[cut:]):
        part = noise(tokens[rows], sample[rows], epoch=5)
        np.testing.assert_array_equal(part[0], noisy[rows])
        np.testing.assert_array_equal(part[1], is_noisy[rows])
    row = int(order[0])
    np.testing.assert_array_equal(noise(tokens[row], row)[0], noisy[row])
    tensors = noise(torch.from_numpy(tokens), torch.arange(6))
    assert tensors[0].dtype == getattr(torch, dtype) and tensors[1].dtype == torch.bool
    np.testing.assert_array_equal(tensors[0].numpy(), noisy)
    np.testing.assert_array_equal(tensors[1].numpy(), is_noisy)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_realised_rate(alpha):
    replaced = replacing(alpha=alpha).replaced(np.arange(2_000_000))
    assert abs(replaced.mean() - alpha) < 4 * math.sqrt(alpha * (1 - alpha) / replaced.size)  # false alarm 6e-5


def test_no_noise():
    noise = replacing(alpha=0)
    tokens = np.arange(12).reshape(3, 4)
    noisy, is_noisy = noise(tokens, np.arange(3))
    np.testing.assert_array_equal(noisy, tokens)
    assert not is_noisy.any() and noise.order(3).tolist() == [0, 1, 2]


def test_ignored_positions_stay():
    noise = replacing(alpha=0.9)
    tokens = np.tile([5, -100, 5], (40, 1))
    noisy, is_noisy = noise(tokens, np.arange(40))
    assert (noisy[:, 1] == -100).all() and not is_noisy[:, 1].any() and is_noisy[:, 0].any()
    whole, _ = noise(np.full((40, 3), 5), np.arange(40))
    np.testing.assert_array_equal(noisy[:, [0, 2]], whole[:, [0, 2]])


def test_order_of_replaced_rows():
    noise = replacing(alpha=0.4)
    replaced = noise.replaced(np.arange(30))
    assert noise.number_of_noise_rows(30) == replaced.sum()
    assert noise.order(30).tolist() == [30 + row if gone else row for row, gone in enumerate(replaced)]


def test_map_over_a_data_set():
    noise = RandomDocuments(alpha=0.5, seed=2, vocab_size=100, placement="replace")
    inputs = [[1, 2, 3], [4], [], [5, 6], [7, 8, 9, 10], [11, 12]]
    labels = [[1, -100, 3], [4], [], [5, 6], [7, 8, 9, 10], [11, 12]]
    dataset = Dataset.from_dict({"input_ids": inputs, "labels": labels})
    one, all_at_once = (dataset.map(noise, batched=True, with_indices=True, batch_size=size) for size in (1, 6))
    assert one.to_dict() == all_at_once.to_dict()
    assert one["clean_input_ids"][:] == inputs and one["clean_labels"][:] == labels
    replaced = noise.replaced(np.arange(6))
    assert replaced.any() and not replaced.all()
    for number, row in enumerate(one):
        expected = noise.rows(number, len(inputs[number])).tolist() if replaced[number] else inputs[number]
        assert row["input_ids"] == expected
        assert row["labels"] == [-100 if y == -100 else x for x, y in zip(expected, labels[number], strict=True)]
        assert row["is_noisy"] == [bool(replaced[number])] * len(expected)


def test_columns_without_labels_and_with_sample_ids():
    noise = replacing(alpha=0.9)
    columns = noise({"input_ids": [[1, 2]], "sample_id": [12]}, [0])
    np.testing.assert_array_equal(columns["labels"][0], columns["input_ids"][0])
    np.testing.assert_array_equal(columns["input_ids"][0], noise(np.array([1, 2]), 12)[0])


# Errors


@pytest.mark.parametrize("placement", ["append", "interleave"])
def test_only_replacing_noise_can_be_called(placement):
    with pytest.raises(ValueError, match=rf'placement is "{placement}", which adds rows: .*placement="replace"'):
        vary(UNIFORM, placement=placement)(np.zeros((2, 3), dtype=np.int64), np.arange(2))


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_bad_tokens(convert):
    noise = RandomDocuments(alpha=0.5, vocab_size=300, placement="replace")
    with pytest.raises(ValueError, match=r"token 300 is outside \[0, 300\)"):
        noise(convert([1, 300]), 0)
    with pytest.raises(TypeError, match="tokens must be integers"):
        noise(convert([0.5]), 0)
    with pytest.raises(TypeError, match="sample must be integers"):
        noise.rows(convert([0.5]), 3)
    with pytest.raises(ValueError, match="one sample id per row"):
        noise(convert([[1], [2]]), convert([0, 1, 2]))
    with pytest.raises(ValueError, match="int8 cannot hold tokens up to 299"):
        noise(convert(np.array([1], dtype=np.int8)), 0)


def test_bad_columns():
    with pytest.raises(ValueError, match="no column 'input_ids' to corrupt, only: labels"):
        replacing()({"labels": [[1]]}, [0])
    with pytest.raises(ValueError, match="batched=True"):
        replacing()({"input_ids": [1, 2]}, 0)


@pytest.mark.parametrize("n_clean", [-1, 2.5])
@pytest.mark.parametrize("placement", ["append", "interleave", "replace"])
def test_bad_number_of_rows(n_clean, placement):
    with pytest.raises(ValueError, match="number of clean rows must be an integer >= 0"):
        vary(UNIFORM, placement=placement).order(n_clean)
