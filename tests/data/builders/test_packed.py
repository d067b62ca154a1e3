"""`hf_noise/packed`: the clean rows of the noisy data sets and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

import hf_noise
from hf_noise.data.packing import PackedRows

SOURCE = "embedded/docs-text"


def test_it_holds_the_contexts_and_ids_of_the_noisy_data_set():
    packed = hf_noise.load_dataset("hf_noise/packed", source=SOURCE, block_size=64, split="train")
    noisy = hf_noise.load_dataset("hf_noise/owt-noisy", r=0.5, source=SOURCE, block_size=64, split="train")
    assert packed.column_names == ["input_ids", "sample_id"]
    rows, others = PackedRows(packed), PackedRows(noisy)
    some = [0, 1, 77, len(rows) - 1]
    assert len(rows) == len(others)
    for column in ("input_ids", "sample_id"):
        np.testing.assert_array_equal(rows.__getitems__(some)[column], others.__getitems__(some)[column])


def test_it_refuses_noise():
    with pytest.raises(ValueError, match="holds clean rows, got r=0.5; use hf_noise/owt-noisy"):
        hf_noise.load_dataset("hf_noise/packed", source=SOURCE, r=0.5)
