"""Rows become batches: stacked, padded, never shared with the file they come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_noise.trainers.collate import collate_rows


def test_a_batch_of_columns_is_taken_as_it_is():
    ids = np.arange(6, dtype=np.int32).reshape(2, 3)
    ids.flags.writeable = False  # as rows of a mapped file are
    batch = collate_rows({"input_ids": ids, "sample_id": np.array([4, 5])})
    assert {name: column.dtype for name, column in batch.items()} == dict.fromkeys(batch, torch.int64)
    assert batch["labels"].tolist() == batch["input_ids"].tolist() == [[0, 1, 2], [3, 4, 5]]
    batch["input_ids"][0, 0] = 99
    assert ids[0, 0] == 0


def test_equal_rows_are_stacked_without_a_mask():
    batch = collate_rows([
        {"input_ids": [1, 2], "labels": np.array([3, 4], dtype=np.int16), "is_noisy": [True, False], "sample_id": 7},
        {"input_ids": [5, 6], "labels": np.array([5, 6], dtype=np.int16), "is_noisy": [False, False], "sample_id": 8},
    ])  # fmt: skip
    assert sorted(batch) == ["input_ids", "is_noisy", "labels", "sample_id"]
    assert batch["is_noisy"].dtype == torch.bool
    assert batch["labels"].tolist() == [[3, 4], [5, 6]]
    assert batch["sample_id"].tolist() == [7, 8]


def test_shorter_rows_are_padded_on_the_right():
    batch = collate_rows([
        {"input_ids": [1, 2, 3], "clean_labels": [1, 2, 3], "is_noisy": [True, True, True]},
        {"input_ids": [4], "clean_labels": [4], "is_noisy": [True]},
    ])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == batch["clean_labels"].tolist() == [[1, 2, 3], [4, -100, -100]]
    assert batch["is_noisy"].tolist() == [[True, True, True], [True, False, False]]


def test_a_mask_of_ones_own_says_where_targets_are():
    mask = torch.tensor([[1, 1], [1, 0]])
    batch = collate_rows({"input_ids": torch.tensor([[1, 2], [3, 0]]), "attention_mask": mask})
    assert batch["labels"].tolist() == [[1, 2], [3, -100]]


def test_tensors_are_accepted():
    batch = collate_rows([{"input_ids": torch.tensor([1, 2], dtype=torch.int32)}, {"input_ids": torch.tensor([3, 4])}])
    assert batch["input_ids"].tolist() == [[1, 2], [3, 4]]
    assert batch["input_ids"].dtype == torch.int64


@pytest.mark.parametrize("rows", [[{"text": [1]}], {"text": [[1]]}])
def test_rows_without_tokens_are_refused(rows):
    with pytest.raises(ValueError, match="column input_ids, they have: text"):
        collate_rows(rows)
