"""Packing loses nothing but the end, and its rows are read without a copy."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, List, Value, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.data import packing as packing_module
from hf_noise.data.embedded import embedded_tokenizer
from hf_noise.data.packing import PackedRows, Packing, check_block_size


@pytest.fixture(scope="module")
def tokenizer():
    return embedded_tokenizer(300)


def stream(tokenizer, texts):
    """The token stream, document by document: the slow way."""
    return [i for text in texts if text for i in (*tokenizer(text)["input_ids"], tokenizer.eos_token_id)]


@given(
    texts=st.lists(st.text("ab c\n", max_size=30), max_size=12),
    block_size=st.integers(2, 40),
    batch_size=st.integers(1, 5),
    most=st.sampled_from([1, 10, 40, 1000]),
)
@settings(max_examples=60, deadline=None)
def test_rows_are_the_stream_cut_in_pieces(tokenizer, texts, block_size, batch_size, most):
    packing = Packing(tokenizer, block_size)
    batches = [texts[i : i + batch_size] for i in range(0, len(texts), batch_size)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing_module, "_MOST_TEXT", most)
        blocks = list(packing.rows(batches))
    whole = stream(tokenizer, texts)
    rows = len(whole) // block_size
    assert all(block.dtype == np.int32 and block.shape[1] == block_size and len(block) for block in blocks)
    flat = np.concatenate([block.ravel() for block in blocks]) if blocks else np.empty(0)
    assert flat.tolist() == whole[: rows * block_size]
    assert (packing.tokens, packing.rows_made) == (len(whole), rows)
    assert packing.dropped == len(whole) - rows * block_size < block_size
    assert packing.documents == sum(map(bool, texts))


@given(
    batches=st.lists(st.lists(st.text("ab", max_size=9), max_size=6), max_size=5), most=st.sampled_from([1, 5, 12])
)
@settings(max_examples=60, deadline=None)
def test_no_more_text_than_that_is_tokenised_together(batches, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing_module, "_MOST_TEXT", most)
        parts = list(packing_module._parts(batches))
    assert [text for part in parts for text in part] == [text for batch in batches for text in batch if text]
    assert all(len(part) <= 1 or sum(map(len, part)) <= most for part in parts)


def test_spelt_out_special_tokens_are_text(tokenizer):
    ids = next(Packing(tokenizer, 2).rows([["a <|endoftext|> b"]])).ravel().tolist()
    assert tokenizer.eos_token_id not in ids[:-1]


def test_the_report(tokenizer, caplog):
    packing = Packing(tokenizer, 8)
    with caplog.at_level("INFO", logger="hf_noise.data.packing"):
        rows = sum(len(block) for block in packing.rows([["some text that is packed"] * 5]))
        packing.log("here")
    counts = f"{packing.tokens} tokens -> {rows} rows of 8, {packing.dropped} tokens dropped"
    assert f"here: 5 documents, {counts}" in caplog.text


@pytest.mark.parametrize("size", [1, 0, -3, 2.0, True])
def test_block_size(size, tokenizer):
    with pytest.raises(ValueError, match="block_size must be an integer >= 2"):
        check_block_size(size)
    with pytest.raises(ValueError, match="block_size"):
        next(Packing(tokenizer, size).rows([["a"]]))


def test_memory_does_not_grow_with_the_corpus(tokenizer):
    import tracemalloc

    def peak(batches):
        tracemalloc.start()
        for _ in Packing(tokenizer, 64).rows(["some words of text " * 20] * 20 for _ in range(batches)):
            pass
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(2)
    assert peak(40) < 1.2 * peak(4)


# --- PackedRows ---

LENGTH = 6


def make(rows, first=0, length=LENGTH):
    tokens = np.arange(rows * LENGTH, dtype=np.int32).reshape(rows, LENGTH) + 1000 * first
    features = Features({"input_ids": List(Value("int32"), length=length), "sample_id": Value("int64")})
    return Dataset.from_dict({"input_ids": tokens, "sample_id": np.arange(rows) + first}, features=features)


@pytest.fixture(params=["file", "chunks", "lists"])
def dataset(request, tmp_path):
    """40 rows: in one mapped file, in several chunks, or with lists of (equal) free lengths."""
    if request.param == "chunks":
        return concatenate_datasets([make(11), make(0), make(29, first=11)])
    make(40, length=-1 if request.param == "lists" else LENGTH).save_to_disk(tmp_path / "d")
    return Dataset.load_from_disk(tmp_path / "d")


def buffers(dataset):
    return [chunk.flatten().to_numpy() for chunk in dataset.data.table["input_ids"].chunks]


def shares(array, dataset):
    return any(np.shares_memory(array, buffer) for buffer in buffers(dataset))


def test_rows_are_views(dataset):
    rows = PackedRows(dataset)
    assert len(rows) == 40 and rows.block_size == LENGTH
    for i in (0, 10, 11, 39, -1):
        item = rows[i]
        assert item["input_ids"].tolist() == dataset[i]["input_ids"] and item["sample_id"] == dataset[i]["sample_id"]
        assert item["input_ids"].dtype == np.int32 and shares(item["input_ids"], dataset)


def test_neighbours_are_a_view_and_others_one_copy(dataset):
    rows = PackedRows(dataset)
    neighbours, scattered = rows.__getitems__([20, 21, 22]), rows.__getitems__([5, 30, 5, 0])
    assert shares(neighbours["input_ids"], dataset) and not shares(scattered["input_ids"], dataset)
    for batch, ids in ((neighbours, [20, 21, 22]), (scattered, [5, 30, 5, 0])):
        assert batch["input_ids"].tolist() == dataset[ids]["input_ids"]
        assert batch["sample_id"].tolist() == dataset[ids]["sample_id"] and batch["sample_id"].dtype == np.int64


@given(ids=st.lists(st.integers(-40, 39), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_any_batch(ids):
    dataset = concatenate_datasets([make(11), make(29, first=11)])
    batch = PackedRows(dataset).__getitems__(ids)
    assert batch["input_ids"].tolist() == dataset[[i % 40 for i in ids]]["input_ids"]


def test_selections(dataset):
    for part in (dataset.select(range(5, 25)), dataset.shuffle(seed=1), dataset.select([7, 3, 38])):
        rows = PackedRows(part)
        batch = rows.__getitems__(range(len(part)))
        assert batch["input_ids"].tolist() == list(part["input_ids"])
        assert shares(rows[2]["input_ids"], dataset)


def test_outside(dataset):
    rows = PackedRows(dataset)
    for index in (40, -41):
        with pytest.raises(IndexError, match=f"row {index} is outside a data set of 40 rows"):
            rows[index]
    assert len(PackedRows(dataset.select([]))) == 0
    for index in (0.5, True, float("inf"), 1 << 70, "1", None):
        with pytest.raises(TypeError, match="rows? must be integers"):
            rows[index]
    assert rows[np.uint8(3)]["sample_id"] == rows[3]["sample_id"]


def test_pickles_by_reference(tmp_path):
    make(2000).save_to_disk(tmp_path / "d")
    rows = PackedRows(Dataset.load_from_disk(tmp_path / "d"))
    pickled = pickle.dumps(rows)
    assert len(pickled) < 10_000
    assert pickle.loads(pickled)[1999]["input_ids"].tolist() == rows[1999]["input_ids"].tolist()


def to_torch(batch):
    import torch

    return {key: torch.tensor(value, dtype=torch.int64) for key, value in batch.items()}


@pytest.mark.parametrize("workers", [0, 2])
def test_data_loader(tmp_path, workers):
    from torch.utils.data import DataLoader

    make(40).save_to_disk(tmp_path / "d")
    dataset = Dataset.load_from_disk(tmp_path / "d")
    loader = DataLoader(PackedRows(dataset), batch_size=7, num_workers=workers, collate_fn=to_torch)
    batches = list(loader)
    assert [list(batch["input_ids"].shape) for batch in batches] == [[7, LENGTH]] * 5 + [[5, LENGTH]]
    assert sum((batch["sample_id"].tolist() for batch in batches), []) == list(range(40))
    assert sum((batch["input_ids"].tolist() for batch in batches), []) == list(dataset["input_ids"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"input_ids": [[1, 2]]}, "no column 'sample_id', only 'input_ids'"),
        ({"tokens": [[1, 2]], "sample_id": [0]}, "no column 'input_ids'"),
        ({"input_ids": [[1, 2], [3]], "sample_id": [0, 1]}, r"several lengths \(1 to 2\)"),
        ({"input_ids": [1, 2], "sample_id": [0, 1]}, "not lists"),
        ({"input_ids": [[0.5]], "sample_id": [0]}, "not of integers"),
        ({"input_ids": [[1], None], "sample_id": [0, 1]}, "null"),
        ({"input_ids": [[1], [None]], "sample_id": [0, 1]}, "1 token.s. that are null"),
        ({"input_ids": [[1], [2]], "sample_id": [0, None]}, "'sample_id' holds int64 with 1 null"),
        ({"input_ids": [[1], [2]], "sample_id": ["a", "b"]}, "'sample_id' holds string"),
    ],
)
def test_unfit_columns(columns, message):
    with pytest.raises(ValueError, match=message):
        PackedRows(Dataset.from_dict(columns))


@pytest.mark.parametrize("given", [None, [], {"input_ids": [[1]]}, DatasetDict()])
def test_what_is_no_stored_split(given, dataset):
    with pytest.raises(TypeError, match=f"one split that is stored, got {type(given).__name__}"):
        PackedRows(given)
    with pytest.raises(TypeError, match="column must be the name of a column, got 5"):
        PackedRows(dataset, 5)


def test_chunks_of_several_lengths():
    parts = [Dataset.from_dict({"input_ids": [[1] * n], "sample_id": [0]}) for n in (2, 3)]
    with pytest.raises(ValueError, match=r"several lengths: \[2, 3\]"):
        PackedRows(concatenate_datasets(parts))
