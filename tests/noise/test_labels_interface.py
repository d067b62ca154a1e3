"""`LabelFlips` as a value: rates, equality, fingerprints, the form for `datasets.map`, and its errors."""

import dataclasses
import json
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets.fingerprint import Hasher

import hf_noise
from hf_noise.noise import LabelFlips, noise_from_dict

IGNORED = -100
T = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]]
SWAPPED = [[0.0, 1.0], [1.0, 0.0]]


def test_is_found_under_its_public_name():
    assert hf_noise.LabelFlips is LabelFlips


# The value


def test_equal_however_the_rate_is_spelt():
    by_ratio = LabelFlips.symmetric(ratio=0.1, num_classes=9)
    by_rate = LabelFlips.symmetric(error_rate=0.1 / 1.1, num_classes=9)
    assert by_ratio == by_rate and hash(by_ratio) == hash(by_rate)
    assert by_ratio != LabelFlips.symmetric(ratio=0.11, num_classes=9)


def test_equal_however_map_and_matrix_are_spelt():
    make = lambda mapping: LabelFlips.pairs(mapping, 0.5, num_classes=10)  # noqa: E731
    assert make({5: 3, 2: 0}) == make({2: 0, np.int64(5): 3}) == make([(5, 3), [2, 0]])
    assert make({2: 0}).mapping == ((2, 0),) != make({2: 1}).mapping
    by_list = LabelFlips.from_transition(T)
    assert by_list == LabelFlips.from_transition(np.array(T)) == LabelFlips.from_transition(torch.tensor(np.array(T)))
    assert by_list.matrix == tuple(map(tuple, T)) and hash(by_list) == hash(LabelFlips.from_transition(by_list.matrix))


def test_allowing_what_needs_no_permission_makes_no_difference():
    for make in (LabelFlips.symmetric, LabelFlips.uniform_resample, LabelFlips.cyclic):
        assert make(1.0, num_classes=10, allow_adversarial=True) == make(1.0, num_classes=10)


VARIANTS = [
    LabelFlips.symmetric(1.0, num_classes=10),
    LabelFlips.symmetric(0.3, num_classes=10),
    LabelFlips.symmetric(1.0, num_classes=100),
    LabelFlips.symmetric(1.0, num_classes=10, seed=1),
    LabelFlips.symmetric(1.0, num_classes=10, redraw="never"),
    LabelFlips.symmetric(10, num_classes=10, allow_adversarial=True),
    LabelFlips.uniform_resample(1.0, num_classes=10),
    LabelFlips.cyclic(1.0, num_classes=10),
    LabelFlips.pairs({2: 0, 3: 5}, 1.0, num_classes=10),
    LabelFlips.pairs({2: 0}, 1.0, num_classes=10),
    LabelFlips.from_transition(T),
    LabelFlips.from_transition(SWAPPED),
    LabelFlips.from_transition(np.full((2, 2), 0.5)),
]


@pytest.mark.parametrize("noise", VARIANTS, ids=repr)
def test_comes_back_as_it_was(noise):
    stored = json.loads(json.dumps(noise.to_dict(), allow_nan=False))
    assert stored == noise.to_dict() and stored["error_rate"] == noise.error_rate
    replaced = dataclasses.replace(dataclasses.replace(noise, seed=9), seed=noise.seed)
    for copy in (noise_from_dict(stored), pickle.loads(pickle.dumps(noise)), replaced):
        assert copy == noise and hash(copy) == hash(noise) and copy.ratio == noise.ratio
        assert copy.to_dict() == noise.to_dict()


def test_what_a_kind_does_not_have_is_not_stored():
    assert not {"mapping", "matrix"} & set(VARIANTS[0].to_dict())
    assert "mapping" not in LabelFlips.from_transition(T).to_dict()


def test_use_leaves_no_trace_in_the_value():
    noise = LabelFlips.from_transition(T)
    before = pickle.dumps(noise)
    noise(torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert noise.is_invertible and noise == LabelFlips.from_transition(T)
    assert pickle.dumps(noise) == before


def test_fingerprint_is_the_same_in_another_process_and_changes_with_each_field():
    here = [Hasher.hash(noise) for noise in VARIANTS]
    assert len(set(here)) == len(set(VARIANTS)) == len(VARIANTS)
    code = (
        "import pickle, sys; from datasets.fingerprint import Hasher\n"
        "print(*(Hasher.hash(noise) for noise in pickle.load(sys.stdin.buffer)))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(VARIANTS), capture_output=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert there.stdout.decode().split() == here


# Rates and matrices


def test_transition_matrices_by_hand():
    third, half = 1 / 3, 1 / 2
    assert LabelFlips.symmetric(1.0, num_classes=3).transition.tolist() == [
        [half, 0.25, 0.25], [0.25, half, 0.25], [0.25, 0.25, half],
    ]  # fmt: skip
    resampled = LabelFlips.uniform_resample(1.0, num_classes=3).transition
    np.testing.assert_allclose(resampled, (np.eye(3) + np.full((3, 3), third)) / 2)
    assert LabelFlips.cyclic(0.25, num_classes=3).transition.tolist() == [[0.8, 0.2, 0], [0, 0.8, 0.2], [0.2, 0, 0.8]]
    # Rows are clean: a true bird (2) is labelled airplane (0) half of the time, and never the other way round.
    pairs = LabelFlips.pairs({2: 0}, 1.0, num_classes=3).transition
    assert pairs.tolist() == [[1, 0, 0], [0, 1, 0], [half, 0, half]]
    assert LabelFlips.from_transition(T).transition.tolist() == T


@pytest.mark.parametrize("noise", VARIANTS, ids=repr)
def test_transition_matrices_are_row_stochastic(noise):
    matrix = noise.transition
    assert matrix.dtype == np.float64 and matrix.shape == (noise.num_classes, noise.num_classes)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-15)
    matrix[:] = 0  # its owner's to change
    assert noise.transition.sum() == pytest.approx(noise.num_classes)


def test_rates():
    symmetric, resampled = (make(1.0, num_classes=10) for make in (LabelFlips.symmetric, LabelFlips.uniform_resample))
    assert symmetric.error_rate == resampled.error_rate == 0.5 and symmetric.ratio == resampled.ratio == 1.0
    # The two meanings of 50%: half of the labels are wrong, or 45% of them.
    assert (symmetric.overall_error_rate(), resampled.overall_error_rate()) == (pytest.approx(0.5), pytest.approx(0.45))
    pairs = LabelFlips.pairs({2: 0, 3: 5}, error_rate=0.4, num_classes=10)
    assert pairs.error_rate == 0.4 and pairs.overall_error_rate() == pytest.approx(0.08)
    np.testing.assert_allclose(pairs.error_rates, [0, 0, 0.4, 0.4, 0, 0, 0, 0, 0, 0])
    matrix = LabelFlips.from_transition(T)
    assert matrix.error_rate == pytest.approx(0.8 / 3) and matrix.ratio == pytest.approx(0.8 / 2.2)
    swapped = LabelFlips.from_transition(SWAPPED)
    assert (swapped.error_rate, swapped.ratio) == (1.0, math.inf)


# The form for datasets.map


@pytest.mark.parametrize("column", ["label", "labels"])
def test_map_over_a_data_set(column):
    noise = LabelFlips.symmetric(1.0, num_classes=3, seed=3)
    labels = [0, 1, 2, IGNORED, 2, 1, 0]
    dataset = Dataset.from_dict({column: labels, "image": list("abcdefg")})
    mapped = {size: dataset.map(noise, batched=True, with_indices=True, batch_size=size) for size in (1, 2, 7)}
    noisy, is_noisy = noise(np.array(labels), np.arange(7))
    for result in mapped.values():
        assert result.column_names == [column, "image", f"clean_{column}", "is_noisy", "sample_id"]
        assert result[column][:] == noisy.tolist() and result["is_noisy"][:] == is_noisy.tolist()
        assert result[f"clean_{column}"][:] == labels and result["sample_id"][:] == list(range(7))
    # A column with sample ids goes before the row numbers, so that shuffling first changes nothing.
    again = dataset.add_column("sample_id", range(7)).shuffle(seed=1).map(noise, batched=True, with_indices=True)
    assert again.sort("sample_id")[column][:] == mapped[7][column][:]


@pytest.mark.parametrize("form", [None, "numpy", "torch"])
def test_class_names_stay_with_the_noisy_labels(form):
    features = Features({"label": ClassLabel(names=["cat", "dog", "emu"])})
    dataset = Dataset.from_dict({"label": [0, 1, 2] * 5}, features=features).with_format(form)
    noise = LabelFlips.cyclic(1.0, num_classes=3)
    mapped = dataset.map(noise, batched=True, with_indices=True).with_format(None)
    assert mapped.features["label"] == features["label"]
    assert mapped["label"][:] == noise(np.array([0, 1, 2] * 5), np.arange(15))[0].tolist()


def test_epoch_of_a_map():
    noise, batch = LabelFlips.symmetric(1.0, num_classes=100), {"label": [5] * 50}
    assert noise(batch, range(50), epoch=3)["label"].tolist() == noise([5] * 50, range(50), 3)[0].tolist()
    assert noise(batch, range(50), epoch=3)["label"].tolist() != noise(batch, range(50))["label"].tolist()


def test_bad_columns():
    noise = LabelFlips.symmetric(1.0, num_classes=3)
    with pytest.raises(ValueError, match="no column 'label' or 'labels' to corrupt, only: text, image"):
        noise({"text": ["a"], "image": [1]}, [0])
    with pytest.raises(TypeError, match="label must be integers"):
        noise({"label": [0.5, 1.5]}, [0, 1])
    with pytest.raises(TypeError, match="label must be integers"):
        noise({"label": [1, None]}, [0, 1])
    with pytest.raises(ValueError, match="one integer per row; pass whole batches, batched=True"):
        noise({"label": 1}, 0)
    with pytest.raises(ValueError, match="one integer per row"):
        noise({"labels": [[1, 2], [3, 4]]}, [0, 1])


# Errors


def make(**changes):
    return LabelFlips.symmetric(**{"ratio": 0.5, "num_classes": 10, **changes})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"ratio": -0.2}, ValueError, "ratio must be finite and >= 0, got -0.2"),
        ({"ratio": None}, ValueError, "give the amount of noise"),
        ({"ratio": None, "error_rate": 1.0}, ValueError, r"error_rate must lie in \[0, 1\), got 1.0"),
        ({"ratio": None, "error_rate": 1e-12}, ValueError, "below the finest rate"),
        ({"error_rate": 0.2}, ValueError, "contradict each other"),
        ({"num_classes": 1}, ValueError, r"num_classes must lie in \[2, 2\^20\], got 1; pass the number of classes"),
        ({"num_classes": (1 << 20) + 1}, ValueError, r"num_classes must lie in \[2, 2\^20\]"),
        ({"num_classes": 10.0}, TypeError, "num_classes must be an integer"),
        ({"num_classes": True}, TypeError, "num_classes must be an integer"),
        ({"seed": -1}, ValueError, "seed must lie in"),
        ({"redraw": "always"}, ValueError, 'redraw must be "epoch" or "never"'),
    ],
)
def test_bad_settings(changes, error, message):
    with pytest.raises(error, match=message):
        make(**changes)


@pytest.mark.parametrize("kind", [LabelFlips.symmetric, LabelFlips.uniform_resample])
@pytest.mark.parametrize("num_classes", [2, 3, 10, 1000])
def test_rates_past_the_limit_need_permission(kind, num_classes):
    limit = (num_classes - 1) / num_classes
    for at_limit in ({"ratio": num_classes - 1}, {"error_rate": limit}):
        assert not kind(**at_limit, num_classes=num_classes).allow_adversarial
    past = {"ratio": (num_classes - 1) * 1.01, "num_classes": num_classes}
    with pytest.raises(ValueError, match=rf"past \(C - 1\)/C = {limit:.6g} for {num_classes} .*allow_adversarial"):
        kind(**past)
    assert kind(**past, allow_adversarial=True).allow_adversarial


def test_other_kinds_need_no_permission():
    assert LabelFlips.cyclic(error_rate=0.95, num_classes=10, allow_adversarial=True).is_adversarial
    assert LabelFlips.pairs({1: 0}, error_rate=0.95, num_classes=10, allow_adversarial=True).is_adversarial
    assert LabelFlips.from_transition(SWAPPED).is_adversarial


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "pink", "error_rate": 0.1}, "kind must be one of symmetric, uniform_resample, cyclic, pairs"),
        ({"kind": "pairs", "error_rate": 0.1}, "mapping belongs to kind='pairs' and to no other, got kind='pairs'"),
        ({"kind": "cyclic", "error_rate": 0.1, "mapping": ((0, 1),)}, "mapping belongs to kind='pairs'"),
        ({"kind": "transition"}, "matrix belongs to kind='transition'"),
        ({"kind": "symmetric", "error_rate": 0.1, "matrix": T}, "matrix belongs to kind='transition'"),
        ({"kind": "transition", "matrix": SWAPPED}, "num_classes=3, but the matrix has 2 rows"),
        ({"kind": "transition", "matrix": T, "error_rate": 0.5}, "error_rate=0.5 contradicts the matrix"),
        ({"kind": "transition", "matrix": T, "ratio": 0.5}, "ratio=0.5 contradicts the matrix"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        LabelFlips(num_classes=3, **fields)


def test_what_sets_the_noise_apart_is_a_keyword():
    with pytest.raises(TypeError, match="positional"):
        LabelFlips.symmetric(0.5, None, 10)


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_bad_labels(convert):
    noise = make()
    with pytest.raises(ValueError, match=r"2 of 4 labels are outside \[0, 10\), the first at index 2: 10; give"):
        noise(convert([1, IGNORED, 10, -1]), convert([0, 1, 2, 3]))
    with pytest.raises(ValueError, match=r"1 of 4 labels are outside \[0, 10\), the first at index \(1, 0\): -1"):
        noise(convert([[1, 2], [-1, 3]]), convert([[0, 1], [2, 3]]))
    with pytest.raises(ValueError, match="the first at index 0: 10"):
        noise(convert(10), convert(0))
    with pytest.raises(ValueError, match="8192 of 8193 labels are outside .* the first at index 1: 255"):
        noise(convert(np.array([0] + [255] * 8192, dtype=np.uint8)), convert(np.arange(8193)))
    with pytest.raises(TypeError, match="labels must be integers"):
        noise(convert([0.5]), convert([0]))
    with pytest.raises(TypeError, match="labels must be integers"):
        noise(convert([True]), convert([0]))
    with pytest.raises(TypeError, match="sample must be integers"):
        noise(convert([1]), convert([0.5]))
    with pytest.raises(ValueError, match=r"one sample id each: labels have shape \[2\], sample has \[\]"):
        noise(convert([1, 2]), convert(0))
    with pytest.raises(ValueError, match=r"labels have shape \[2, 1\], sample has \[2\]"):
        noise(convert([[1], [2]]), convert([0, 1]))
    with pytest.raises(ValueError, match="int8 cannot hold labels up to 299"):
        make(num_classes=300)(convert(np.array([1], dtype=np.int8)), convert([0]))


def test_nothing_to_corrupt():
    noisy, is_noisy = make()(np.empty((0, 3), dtype=np.int32), np.empty((0, 3), dtype=np.int64))
    assert noisy.shape == is_noisy.shape == (0, 3) and noisy.dtype == np.int32 and is_noisy.dtype == bool
