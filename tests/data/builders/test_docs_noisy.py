"""The offline data set of the README."""

from __future__ import annotations

import numpy as np
from datasets import load_dataset

NAME = "hf_noise/docs-noisy"


def test_a_third_of_the_targets_is_noisy():
    data = load_dataset(NAME, r=0.5)
    assert set(data) == {"train", "validation"}
    mask = data["train"].with_format("numpy")["is_noisy"][:]
    # 5 standard errors: one false alarm in 1.7 million seeds.
    assert abs(mask.mean() - 1 / 3) < 5 * (2 / 9 / mask.size) ** 0.5 and mask.shape[1] == 128
    assert not np.any(data["validation"]["is_noisy"])


def test_a_named_configuration_is_the_same_data():
    named = load_dataset(NAME, "r0.5", split="train[:50]")
    assert named.to_list() == load_dataset(NAME, r=0.5, split="train[:50]").to_list()


def test_streaming_has_the_same_rows():
    stream = load_dataset(NAME, r=0.5, split="train", streaming=True)
    assert stream.num_shards == 4
    assert list(stream.take(200)) == load_dataset(NAME, r=0.5, split="train[:200]").to_list()
