"""MNIST: its source, its pairs, its pictures. What it shares with the others is in tests/data/test_images.py."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import load_dataset

from hf_noise.data.builders.mnist_noisy import MnistNoisyConfig

NAME = "hf_noise/mnist-noisy"


def test_the_hub_by_default():
    assert MnistNoisyConfig(r=1).source == "ylecun/mnist"
    with pytest.raises(ConnectionError, match="'ylecun/mnist'"):
        load_dataset(NAME, r=1)


def test_pairs(tmp_path, pictures):
    file = pictures(tmp_path / "train.parquet", np.arange(500) % 10)
    rows = load_dataset(NAME, r=1, protocol="pairs", source=file, split="train", cache_dir=str(tmp_path))
    wrong = {(a, b) for a, b in zip(rows["clean_label"], rows["label"], strict=True) if a != b}
    assert wrong == {(2, 7), (3, 8), (5, 6), (6, 5)}


def test_mnist_itself(shared_data):
    files = {split: str(shared_data / f"mnist-{split}.parquet") for split in ("train", "test")}
    stream = load_dataset(NAME, r=1, source=files, streaming=True)
    rows = list(stream["train"].take(300))
    assert [row["clean_label"] for row in rows[:5]] == [5, 0, 4, 1, 9]  # as everyone knows it
    assert [row["clean_label"] for row in stream["test"].take(5)] == [7, 2, 1, 0, 4]
    assert rows[0]["image"].size == (28, 28) and rows[0]["image"].mode == "L"
    # 5 standard errors: one false alarm in 1.7 million seeds.
    assert abs(np.mean([row["is_noisy"] for row in rows]) - 0.5) < 5 * (0.25 / 300) ** 0.5
