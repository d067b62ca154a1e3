"""The digits that need no download."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import get_dataset_config_names, load_dataset

from hf_noise.data.digits import digits
from hf_noise.noise import LabelFlips

NAME = "hf_noise/digits-noisy"


def test_offline_and_at_once():
    data = load_dataset(NAME, r=1)
    assert {split: rows.num_rows for split, rows in data.items()} == {"train": 1442, "test": 355}
    rows = data["train"]
    noise = LabelFlips.symmetric(ratio=1, num_classes=10)
    noisy, is_noisy = noise(digits("train")[1], sample=np.arange(1442))
    assert rows["label"][:] == noisy.tolist() and rows["is_noisy"][:] == is_noisy.tolist()
    np.testing.assert_array_equal(np.stack([np.asarray(picture) for picture in rows["image"]]), digits("train")[0])
    assert data["test"]["label"][:] == digits("test")[1].tolist()


def test_named_configurations():
    assert get_dataset_config_names(NAME) == ["r0.0", "r0.1", "r0.3", "r0.5", "r1.0"]
    rows = load_dataset(NAME, "r0.3", split="train")
    assert rows["label"][:] == load_dataset(NAME, r=0.3, split="train")["label"][:]
    record = json.loads(rows.info.description.splitlines()[-1])
    assert record["noise"]["error_rate"] == pytest.approx(0.3 / 1.3)


def test_streaming_has_the_same_rows():
    rows = load_dataset(NAME, r=0.5, protocol="pairs", split="train")
    stream = load_dataset(NAME, r=0.5, protocol="pairs", split="train", streaming=True)
    columns = ["label", "clean_label", "is_noisy", "sample_id"]
    assert list(stream.select_columns(columns)) == rows.select_columns(columns).to_list()
    assert {(a, b) for a, b in zip(rows["clean_label"], rows["label"], strict=True) if a != b} == {
        (2, 7), (3, 8), (5, 6), (6, 5)
    }
