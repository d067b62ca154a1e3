"""The embedded digits: all of them, once, with their pixels."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset
from sklearn.datasets import load_digits

from hf_noise.data.digits import digits, digits_files, digits_identity


def test_splits_part_the_digits():
    (train, train_labels), (test, test_labels) = digits("train"), digits("test")
    assert train.shape == (1442, 8, 8) and test.shape == (355, 8, 8) and train.dtype == np.uint8
    data = load_digits()
    rows = np.concatenate([train, test]).reshape(1797, 64)
    original = np.rint(rows * (16 / 255))
    joined = np.column_stack([original, np.concatenate([train_labels, test_labels])])
    expected = np.column_stack([data.images.reshape(1797, 64), data.target])
    np.testing.assert_array_equal(joined[np.lexsort(joined.T)], expected[np.lexsort(expected.T)])


def test_a_fifth_of_every_class_is_tested():
    for label, (few, many) in enumerate(zip(*(np.bincount(digits(split)[1]) for split in ("test", "train")))):
        assert few == (few + many) // 5, label


def test_the_split_takes_every_fifth_of_a_class():
    zeros = load_digits().images[load_digits().target == 0]
    np.testing.assert_array_equal(np.rint(digits("test")[0][digits("test")[1] == 0] * (16 / 255)), zeros[4::5])


@pytest.mark.parametrize("split", ["train", "test"])
def test_files_hold_the_same_pixels(split):
    (file,) = digits_files(split)
    rows = Dataset.from_parquet(file)
    pixels, labels = digits(split)
    assert rows.features["label"] == ClassLabel(names=list("0123456789"))
    np.testing.assert_array_equal(np.stack([np.asarray(picture) for picture in rows["image"]]), pixels)
    np.testing.assert_array_equal(rows["label"][:], labels)
    assert rows[0]["image"].mode == "L" and rows[0]["image"].size == (8, 8)


def test_identity_follows_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_NOISE_CACHE", str(tmp_path))
    before = digits_identity()
    assert before == digits_identity()
    (file,) = digits_files("test")
    pq.write_table(pq.read_table(file).slice(1), file)
    assert digits_identity() != before


@pytest.mark.parametrize("read", [digits, digits_files])
def test_unknown_split(read):
    with pytest.raises(ValueError, match="\"train\" and \"test\", not 'validation'"):
        read("validation")
