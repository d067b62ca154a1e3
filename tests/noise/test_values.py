"""Values that look like others: integers of every width, flags, epochs, masked arrays, fields of a card."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from hf_noise.noise import GaussianDocuments, HumanLabels, LabelFlips, RandomDocuments, UniformTokens, noise_from_dict
from hf_noise.noise.counter import stream_key

INTEGERS = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "uint64", ">i4", ">u2")
TOKENS = UniformTokens(ratio=1.0, vocab_size=100)
ROWS = RandomDocuments(alpha=0.5, vocab_size=100, placement="replace")
T = [[0.5, 0.5, 0.0], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]
FLIPS = [
    LabelFlips.symmetric(1.0, num_classes=100), LabelFlips.uniform_resample(1.0, num_classes=128),
    LabelFlips.cyclic(1.0, num_classes=3), LabelFlips.pairs({0: 1}, 1.0, num_classes=3), LabelFlips.from_transition(T),
]  # fmt: skip
HUMAN = HumanLabels.from_columns([0, 1, 1], [0, 0, 1], num_classes=2, name="worse")
NOISES = [TOKENS, ROWS, GaussianDocuments(alpha=0.5, vocab_size=100, placement="replace"), *FLIPS, HUMAN]
MASKED = np.ma.array([1, 0, 1], mask=[False, True, False])


def columns(noise):
    """Values [2000] that the noise takes, and their samples."""
    size = getattr(noise, "num_classes", 100)
    return np.random.default_rng(0).integers(0, size, 2000), np.arange(2000)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("noise", [TOKENS, ROWS, *FLIPS], ids=lambda noise: f"{noise.protocol}-{noise.summary[:20]}")
def test_every_kind_of_integer_draws_as_int64_does(noise, dtype):
    values, sample = columns(noise)
    values = values if isinstance(noise, LabelFlips) else values.reshape(-1, 10)
    sample = sample[: len(values)]
    expected, mask = noise(values, sample)
    noisy, is_noisy = noise(values.astype(dtype), sample.astype("uint32"))
    assert noisy.dtype == dtype
    np.testing.assert_array_equal(noisy, expected)
    np.testing.assert_array_equal(is_noisy, mask)
    if dtype.startswith(">"):
        return
    tensors = noise(torch.from_numpy(values.astype(dtype)), torch.from_numpy(sample).to(torch.uint16))
    assert tensors[0].dtype == getattr(torch, dtype) and tensors[1].dtype == torch.bool
    np.testing.assert_array_equal(tensors[0].numpy(), expected)
    np.testing.assert_array_equal(tensors[1].numpy(), mask)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_human_labels_are_the_same_in_every_kind_of_integer(dtype):
    clean, human = (np.array(column, dtype=dtype) for column in ([0, 1, 1], [0, 0, 1]))
    assert HumanLabels.from_columns(clean, human, num_classes=2, name="worse") == HUMAN
    noisy, is_noisy = HUMAN.columns(clean, human)
    assert noisy.tolist() == [0, 0, 1] and is_noisy.tolist() == [False, True, False]


def test_rows_of_several_kinds_of_integers():
    """Joined, uint64 and int64 would be float64; and what int64 does not hold may not come out as -100."""
    rows = [np.array([1, 2], dtype=np.uint64), [3], []]
    found = TOKENS({"labels": rows}, [0, 1, 2])
    expected = TOKENS({"labels": [[1, 2], [3], []]}, [0, 1, 2])
    assert [row.tolist() for row in found["labels"]] == [row.tolist() for row in expected["labels"]]
    with pytest.raises(ValueError, match="labels must hold integers below 2\\^63, got 18446744073709551516"):
        TOKENS({"labels": [np.array([2**64 - 100], dtype=np.uint64), [3]]}, [0, 1])


@pytest.mark.parametrize("value", [-1, 2, 1, 0, "no", None, 1.0, np.array(True)])
def test_a_flag_is_a_bool(value):
    """exclude_original=-1 drew ids outside the vocabulary, 2 never drew the last one."""
    for make in (
        lambda: UniformTokens(ratio=1.0, vocab_size=100, exclude_original=value),
        lambda: noise_from_dict(TOKENS.to_dict() | {"exclude_original": value}),
    ):
        with pytest.raises(TypeError, match="exclude_original must be True or False, got"):
            make()
    with pytest.raises(TypeError, match="allow_adversarial must be True or False, got"):
        LabelFlips.symmetric(1.0, num_classes=10, allow_adversarial=value)


def test_numpys_bool_is_a_bool():
    noise = UniformTokens(ratio=1.0, vocab_size=100, exclude_original=np.bool_(True))
    assert noise.exclude_original is True and noise == dataclasses.replace(TOKENS, exclude_original=True)


@pytest.mark.parametrize("epoch", [0.9, 1.0, "1", None, True, 2**64, 2**63, -1, np.float64(1), np.array([1]), 10**400])
def test_an_epoch_is_an_integer_from_0_on(epoch):
    tokens, sample = np.array([[1, 2]]), np.array([0])
    calls = [
        lambda: TOKENS(tokens, sample, epoch), lambda: TOKENS(torch.from_numpy(tokens), sample, epoch),
        lambda: dataclasses.replace(TOKENS, redraw="never")(tokens, sample, epoch),
        lambda: TOKENS.flat(tokens[0], np.array([2]), sample, epoch), lambda: TOKENS({"labels": [[1]]}, [0], epoch),
        lambda: ROWS(tokens, sample, epoch), lambda: ROWS({"input_ids": [[1]]}, [0], epoch),
        *(lambda noise=noise: noise(sample, sample, epoch) for noise in FLIPS),
        lambda: FLIPS[0](torch.from_numpy(sample), sample, epoch), lambda: FLIPS[0]({"label": [1]}, [0], epoch),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises((TypeError, ValueError), match="epoch must (be an integer|lie in)"):
            call()


def test_epochs_of_numpy_and_the_largest_one():
    values, sample = columns(FLIPS[0])
    for epoch in (np.int8(3), np.uint64(3)):
        np.testing.assert_array_equal(FLIPS[0](values, sample, epoch)[0], FLIPS[0](values, sample, 3)[0])
    assert stream_key(0, 4, 2**63 - 1) not in (stream_key(0, 4, -1), stream_key(0, 4, 0))
    FLIPS[0](values, sample, 2**63 - 1)


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: f"{noise.protocol}-{noise.summary[:20]}")
@pytest.mark.parametrize("value", [[], {}, "x", 1.5j, math.nan, b"1"], ids=repr)
def test_a_card_with_another_type_in_a_field_is_refused_by_its_name(noise, value):
    stored = noise.to_dict()
    for field in dataclasses.fields(noise):
        if field.name in ("ratio", "error_rate") and value != value:
            continue  # NaN has a message of its own
        if isinstance(stored.get(field.name), str) and value == "x" and field.name == "name":
            continue  # any text will do
        words = {"matrix": "matrix", "counts": "counts", "mapping": "mapping", "std": "std"}
        with pytest.raises((TypeError, ValueError), match=words.get(field.name, field.name)):
            noise_from_dict(stored | {field.name: value})


@pytest.mark.parametrize("config", [None, 3, "uniform_tokens", [("protocol", "uniform_tokens")], {1: 2}])
def test_what_is_no_stored_noise_is_refused(config):
    with pytest.raises((TypeError, ValueError), match="a noise is stored as a dictionary|unknown noise protocol None"):
        noise_from_dict(config)
    with pytest.raises(ValueError, match="version True .*draws version 1"):
        noise_from_dict(TOKENS.to_dict() | {"version": True})


def test_masked_arrays_are_refused_wherever_an_array_is_taken():
    matrix = np.ma.array(T, mask=np.eye(3, dtype=bool))
    calls = {
        "tokens": lambda: TOKENS(MASKED, 0), "sample": lambda: FLIPS[2]([1, 0, 1], MASKED),
        "labels": lambda: FLIPS[2](MASKED, [0, 1, 2]), "values": lambda: TOKENS.flat(MASKED, [3], [0]),
        "label": lambda: FLIPS[2]({"label": MASKED}, [0, 1, 2]),
        "sample_id": lambda: FLIPS[2]({"label": [1]}, MASKED[:1]),
        "transition": lambda: LabelFlips.from_transition(matrix), "prior": lambda: FLIPS[4].posterior(matrix[0]),
        "clean": lambda: HUMAN.check(MASKED), "mapping": lambda: LabelFlips.pairs(MASKED[None, :2], 0.1, num_classes=3),
        "input_ids": lambda: ROWS({"input_ids": [MASKED]}, [0]),
        "counts": lambda: dataclasses.replace(HUMAN, counts=matrix),
    }  # fmt: skip
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"{name}.* is a masked array, and its mask would be lost"):
            call()


@pytest.mark.parametrize("length", [-1, 2**40, 1.0, "3", None])
@pytest.mark.parametrize("noise", [ROWS, NOISES[2]])
def test_documents_have_a_length(noise, length):
    with pytest.raises((TypeError, ValueError), match="length must be"):
        noise.rows(np.arange(3), length)
    assert noise.rows([0, 1], 0).shape == (2, 0)


def test_what_no_machine_holds_is_refused():
    with pytest.raises(ValueError, match="num_classes=1048576 would take 8.19e\\+03 GiB"):
        LabelFlips.symmetric(1.0, num_classes=2**20).transition  # noqa: B018
    for n_clean in (2**30, 2**53):
        with pytest.raises(ValueError, match="number of clean rows that makes .* is too large"):
            ROWS.order(n_clean)
