"""Ids that repeat are found, however many there are and in whatever order."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.data import labels, sample_ids
from hf_noise.data.builder import CorpusError
from hf_noise.data.builders import noisy
from hf_noise.data.corrupt import corrupt
from hf_noise.data.sample_ids import SeenIds, check_unique
from hf_noise.noise import LabelFlips

FLIPS = LabelFlips.symmetric(ratio=1.0, num_classes=10)
ids = st.one_of(st.integers(-3, 12), st.integers(-(2**63), 2**63 - 1))


@given(batches=st.lists(st.lists(ids, max_size=5), max_size=6), held=st.sampled_from([1, 2, 3, 100]))
@settings(max_examples=150, deadline=None)
def test_as_a_set_says(batches, held):
    given = [np.array(batch, dtype=np.int64) for batch in batches]
    everything = [number for batch in batches for number in batch]
    again = len(everything) - len(set(everything))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_ids, "_HELD", held)
        if not again:
            check_unique(lambda: iter(given), "here")
        else:
            with pytest.raises(CorpusError, match=f"^here: {again} of {len(everything)} rows have a sample id that"):
                check_unique(lambda: iter(given), "here")


@given(batches=st.lists(st.lists(ids, min_size=1, max_size=5), max_size=9))
@settings(max_examples=150, deadline=None)
def test_a_stream_is_told_at_the_batch_in_which_one_comes_again(batches):
    seen, before = SeenIds("here"), set()
    for batch in batches:
        if before & set(batch) or len(set(batch)) < len(batch):
            with pytest.raises(CorpusError, match="here: .* rows have a sample id"):
                seen.add(np.array(batch, dtype=np.int64))
            return
        seen.add(np.array(batch, dtype=np.int64))
        before |= set(batch)


def test_a_stream_holds_few_parts_and_forgets_the_oldest(monkeypatch):
    monkeypatch.setattr(sample_ids, "_HELD", 1000)
    seen = SeenIds("here")
    for start in range(0, 5000, 10):
        seen.add(np.arange(start, start + 10))
        assert len(seen._parts) < 12 and sum(part.size for part in seen._parts) <= 1000
    seen.add(np.arange(10))  # long forgotten
    with pytest.raises(CorpusError, match="such as 4995"):
        seen.add(np.array([4995]))


def test_growing_ids_are_read_once_and_the_rest_in_rounds(monkeypatch):
    monkeypatch.setattr(sample_ids, "_HELD", 100)
    reads = []

    def of(numbers):
        def batches():
            reads.append(len(numbers))
            return np.split(np.array(numbers, dtype=np.int64), 4)

        return batches

    check_unique(of(range(400)), "here")
    assert len(reads) == 1
    check_unique(of(range(399, -1, -1)), "here")
    assert len(reads) == 1 + 1 + 4
    with pytest.raises(CorpusError, match="399 of 400 rows have .* such as 7"):
        check_unique(of([7] * 400), "here")


# --- in data ---


def rows(numbers, **columns):
    return Dataset.from_dict({"label": [i % 10 for i in range(len(numbers))], "sample_id": numbers, **columns})


REPEATED = {
    "one id per annotator": (np.arange(4000) // 2000, 3998, "999 of 1000"),
    "counted anew": (np.arange(4000) % 2000, 2000, "1000 of 3000"),
    "one of many": (np.r_[np.arange(3999), 7], 1, "1 of 4000"),
    "shuffled": (np.random.default_rng(0).permutation(np.r_[np.arange(3999), 7]), 1, "1 of [1-4]000"),
}


@pytest.mark.parametrize("name", REPEATED)
@pytest.mark.parametrize("how", ["builder", "two processes", "stream", "corrupt"])
def test_rows_that_share_an_id_are_refused(tmp_path, monkeypatch, name, how):
    monkeypatch.setattr(noisy, "SHARD_BYTES", 1)
    monkeypatch.setattr(labels, "SHARD_BYTES", 1)
    numbers, again, first = REPEATED[name]
    # All rows are counted, but of a stream only those that were read.
    message = first if how == "stream" else f"{again} of 4000"
    remedy = "Give each row of the data set an integer of its own"
    with pytest.raises(CorpusError, match=rf"column 'sample_id': ({message}) rows have .*{remedy}"):
        if how == "corrupt":
            corrupt(rows(numbers), FLIPS, column="label")
            return
        rows(numbers).to_parquet(tmp_path / "own.parquet", batch_size=1000)
        list(load_dataset(
            "hf_noise/noisy", source=str(tmp_path / "own.parquet"), column="label", num_classes=10, r=1, split="train",
            streaming=how == "stream", num_proc=2 if how == "two processes" else None,
            cache_dir=str(tmp_path / "cache"),
        ))  # fmt: skip
    assert not list(tmp_path.rglob("dataset_info.json"))


def test_ids_differ_between_splits_and_files(tmp_path):
    options = {"column": "label", "num_classes": 10, "r": 1, "cache_dir": str(tmp_path / "cache")}
    for split, first in {"train": 0, "test": 30}.items():
        rows(np.arange(first, first + 40)).to_parquet(tmp_path / "splits" / f"{split}.parquet")
    with pytest.raises(CorpusError, match="10 of 80 rows have a sample id .* such as 3"):
        load_dataset("hf_noise/noisy", source=str(tmp_path / "splits"), **options)
    for number in range(2):
        rows(np.arange(40)).to_parquet(tmp_path / "shards" / f"{number}.parquet")
    with pytest.raises(CorpusError, match="40 of 80 rows"):
        load_dataset("hf_noise/noisy", source=str(tmp_path / "shards"), **options)


def test_corrupted_splits_share_no_id_and_clean_ones_do_not_matter():
    splits = DatasetDict(train=rows(range(40)), test=rows(range(40)))
    assert "is_noisy" in corrupt(splits, FLIPS, column="label")["train"].column_names
    with pytest.raises(CorpusError, match="column 'sample_id': 40 of 80 rows"):
        corrupt(splits, FLIPS, column="label", noisy_splits="test")
    apart = DatasetDict(train=rows(range(40)), test=rows(range(40, 80)))
    assert "is_noisy" in corrupt(apart, FLIPS, column="label", noisy_splits="test")["test"].column_names


def test_a_stream_may_be_read_again_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr(noisy, "SHARD_BYTES", 1)
    monkeypatch.setattr(labels, "SHARD_BYTES", 1)
    rows(range(40)).to_parquet(tmp_path / "own.parquet", batch_size=10)
    stream = load_dataset("hf_noise/noisy", source=str(tmp_path / "own.parquet"), column="label", num_classes=10, r=1,
                          split="train", streaming=True)  # fmt: skip
    assert stream.num_shards == 4
    whole = [row["sample_id"] for row in stream]
    assert whole == list(range(40)) == [row["sample_id"] for row in pickle.loads(pickle.dumps(stream))]
    assert [row["sample_id"] for row in stream] == whole
    assert [one["sample_id"] == other["sample_id"] for one, other in zip(stream, stream, strict=True)] == [True] * 40
    for epoch in range(3):
        shuffled = stream.shuffle(seed=1, buffer_size=5)
        shuffled.set_epoch(epoch)
        assert sorted(row["sample_id"] for row in shuffled) == whole
    iterator = iter(stream)
    first = [next(iterator)["sample_id"] for _ in range(15)]
    state = stream.state_dict()
    stream.load_state_dict(state)
    assert first + [row["sample_id"] for row in stream] == whole


def test_a_selection_is_checked_as_it_is():
    data = rows([0, 0, 1, 2])
    assert corrupt(data.select([1, 2, 3]), FLIPS, column="label")["sample_id"][:] == [0, 1, 2]
    with pytest.raises(CorpusError, match="1 of 2 rows"):
        corrupt(data.select([1, 0]), FLIPS, column="label")


def test_a_stream_is_checked_within_its_batches():
    stream = rows([0, 1, 1, 0]).to_iterable_dataset()
    with pytest.raises(CorpusError, match="column 'sample_id', one batch: 2 of 4 rows"):
        list(corrupt(stream, FLIPS, column="label"))
    assert len(list(corrupt(stream, FLIPS, column="label", batch_size=2))) == 4  # no batch has two


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint32", "uint64", "int64"])
def test_any_integers_are_ids(dtype):
    kind = pa.array(np.arange(40).astype(dtype))
    data = Dataset(pa.table({"label": np.arange(40) % 10, "sample_id": kind}))
    drawn, _ = FLIPS(np.arange(40) % 10, sample=np.arange(40))
    assert corrupt(data, FLIPS, column="label")["label"][:] == drawn.tolist()
