"""Rows of noise added to clean rows: their share, their tokens, their ids, and masks read from bits."""

from __future__ import annotations

import pickle

import datasets
import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, Features, IterableDataset, LargeList, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise import corrupt, load_noise
from hf_noise.data.added import free_ids
from hf_noise.data.bits import BitRows
from hf_noise.data.packing import PackedRows
from hf_noise.noise import GaussianDocuments, RandomDocuments
from hf_noise.noise.describe import noise_dict_from_description

V = 64


@pytest.fixture(autouse=True)
def no_bars():
    datasets.disable_progress_bars()


def rows_of(n=20, length=5, kind="fixed", token="int32", first=0, **more):
    tokens = np.random.default_rng(n).integers(0, V, (n, length)).tolist()
    inner = Value(token)
    lists = {"fixed": List(inner, length=length), "list": List(inner), "large": LargeList(inner)}[kind]
    columns = {"input_ids": tokens, "sample_id": list(range(first, first + n)), **more}
    kinds = {"input_ids": lists, "sample_id": Value("int64"), **dict.fromkeys(more, lists)}
    return Dataset.from_dict(columns, features=Features(kinds))


def noise_of(alpha=0.2, placement="append", **more):
    return RandomDocuments(alpha=alpha, vocab_size=V, placement=placement, seed=1, **more)


def test_known_rows_by_hand():
    """Four rows of text at alpha = 1/3 take two of noise, whose ids begin the block after that of the text."""
    clean = rows_of(4, 3)
    mixed = corrupt(clean, noise_of(1 / 3), "input_ids")
    assert mixed["sample_id"] == [0, 1, 2, 3, 1 << 40, (1 << 40) + 1]
    assert mixed["noise_share"] == [0, 0, 0, 0, 1, 1] and mixed["is_noisy"][3:5] == [[False] * 3, [True] * 3]
    assert mixed["input_ids"][4:] == noise_of(1 / 3).rows(np.array([1 << 40, (1 << 40) + 1]), 3).tolist()
    assert mixed["input_ids"][:4] == clean["input_ids"][:]
    told = noise_dict_from_description(mixed.info.description)
    assert told["realised"] == {"rate": 1 / 3, "n": 18} and load_noise(mixed) == noise_of(1 / 3)


@given(
    n=st.integers(1, 60), length=st.integers(1, 20), alpha=st.floats(0, 0.9), batch=st.integers(1, 70),
    placement=st.sampled_from(["append", "interleave"]), kind=st.sampled_from(["fixed", "list", "large"]),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_any_mixture(n, length, alpha, batch, placement, kind):
    clean, noise = rows_of(n, length, kind), noise_of(alpha, placement)
    n_noise = noise.number_of_noise_rows(n)
    if alpha > 0 and not n_noise:
        for rows in (clean, clean.to_iterable_dataset()):
            with pytest.raises(ValueError, match=f"beside {n} clean rows is less than one row of noise; raise alpha="):
                list(corrupt(rows, noise, "input_ids"))
        return
    mixed = corrupt(clean, noise, "input_ids", batch_size=batch)
    stream = Dataset.from_list(list(corrupt(clean.to_iterable_dataset(), noise, "input_ids", batch_size=batch)),
                               features=mixed.features)  # fmt: skip
    for made in (mixed, stream):
        rows = made.with_format("numpy")[:]
        is_noise = rows["noise_share"] == 1
        assert (rows["is_noisy"] == is_noise[:, None]).all() and rows["noise_share"].dtype == np.float32
        assert is_noise.sum() == n_noise and len(made) == n + n_noise
        ids = rows["sample_id"]
        assert (rows["input_ids"][is_noise] == noise.rows(ids[is_noise], length)).all()
        assert (ids[~is_noise] == np.arange(n)).all() and np.unique(ids).size == ids.size
        assert rows["input_ids"][~is_noise].tolist() == clean["input_ids"][:]
    if placement == "append":
        assert mixed.to_list() == stream.to_list()
    else:
        assert (mixed.with_format("numpy")["noise_share"][:] == (noise.order(n) >= n)).all()
        # Never ahead of the share, and never more than two rows behind it.
        is_noise = np.array(stream["noise_share"][:]) == 1
        worth = noise.ratio * (~is_noise).cumsum()
        placed, is_full = is_noise.cumsum(), ~np.append(is_noise[1:], False)
        assert (placed <= worth + 0.5 + 1e-9).all() and (placed[is_full] >= worth[is_full] - 2).all()


@pytest.mark.parametrize("placement", ["append", "interleave"])
def test_batches_processes_and_files_change_nothing(tmp_path, placement):
    clean, noise = rows_of(50, 7), noise_of(0.3, placement)
    clean.save_to_disk(tmp_path / "clean")
    stored = datasets.load_from_disk(tmp_path / "clean")
    expected = corrupt(clean, noise, "input_ids").to_list()
    mixed = corrupt(stored, noise, "input_ids", num_proc=2, batch_size=3)
    assert mixed.to_list() == expected
    # The clean rows lie where they lay, and the new ones in files beside them.
    files = {file["filename"] for file in mixed.cache_files}
    assert {file["filename"] for file in stored.cache_files} < files
    assert mixed.data.nbytes > 0 and all(str(tmp_path) in file for file in files)
    streams = [corrupt(stored.to_iterable_dataset(num_shards=shards), noise, "input_ids", batch_size=batch)
               for shards, batch in ((1, 1000), (5, 3))]  # fmt: skip
    assert list(streams[0]) == list(streams[1]) and streams[0].num_shards == 1
    assert isinstance(streams[0], IterableDataset) and load_noise(streams[0]) == noise


def test_selected_rows_and_labels_beside_the_inputs():
    clean = rows_of(30, 4, "list", "int64", labels=np.full((30, 4), 3).tolist()).shuffle(seed=0).select(range(9))
    mixed = corrupt(clean, noise_of(0.4), "labels")
    rows = mixed.with_format("numpy")[:]
    assert rows["sample_id"][:9].tolist() == clean["sample_id"][:] and len(mixed) == 15
    assert (rows["labels"][:9] == 3).all() and (rows["labels"][9:] == rows["input_ids"][9:]).all()


def test_rows_without_ids_are_numbered_and_formats_stay():
    clean = rows_of(8).remove_columns("sample_id").with_format("numpy")
    mixed = corrupt(clean, noise_of(), "input_ids")
    assert mixed[:]["sample_id"].tolist() == [*range(8), 1 << 40, (1 << 40) + 1]
    assert corrupt(clean, noise_of(0.0), "input_ids")[:]["is_noisy"].sum() == 0


def test_splits_share_no_document():
    splits = DatasetDict(train=rows_of(8), validation=rows_of(8, first=100))
    mixed = corrupt(splits, noise_of(0.5), "input_ids", noisy_splits=("validation",))
    assert not set(mixed["train"]["sample_id"]) & set(mixed["validation"]["sample_id"])
    assert corrupt(splits, noise_of(0.5), "input_ids")["validation"].to_list() == splits["validation"].to_list()


@pytest.mark.parametrize(
    ("taken", "own", "n", "block"),
    [
        ([(0, 9)], (0, 9), 3, 1), ([(-5, -1)], (-5, -1), 1, 0), ([(5 << 40, 7 << 40)], (5 << 40, 7 << 40), 1, 8),
        ([(0, 9), (1 << 40, 3 << 40)], (0, 9), 1, 4), ([(0, 9), (2 << 40, 3 << 40)], (0, 9), (1 << 40) + 1, 4),
    ],
)  # fmt: skip
def test_ids_that_no_row_has(taken, own, n, block):
    assert free_ids(taken, own, n) == block << 40


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (Dataset.from_dict({"input_ids": [[1, 2], [3]] * 9}), "'input_ids' have 1 to 2 tokens, .* pack them first"),
        (Dataset.from_dict({"input_ids": [[1, 2]] * 9, "text": ["a"] * 9}), r"remove_columns\(\['text'\]\)"),
        (corrupt(rows_of(), noise_of(), "input_ids"), "is corrupted already: there is 'is_noisy' and 'noise_share'"),
        (rows_of(9, 2).add_column("labels", [[1, 2]] * 9), r"columns differ: .*int32.*int64"),
        (Dataset.from_dict({"input_ids": [[1, V]] * 9}), "column 'input_ids': token 64 is outside"),
        (Dataset.from_dict({"input_ids": [[1, None]] * 9}), "column 'input_ids' holds nulls"),
        (Dataset.from_dict({"input_ids": [[1, 2], None] * 9}), r"9 row\(s\) that are null|holds nulls"),
        (rows_of(9, 0, "list"), "have 0 to 0 tokens"),
        (Dataset.from_dict({"input_ids": [["a"]]}), "only lists of integer tokens"),
        (Dataset.from_dict({"tokens": [[1, 2]]}), "there is no column 'input_ids' to corrupt"),
        (rows_of(0), "no rows to corrupt"), (rows_of(first=(1 << 63) - 30), "largest sample id is 92233.*below 2.63"),
        (rows_of(20, 5, token="int8"), None),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed_is_refused_by_name(rows, message):
    if message is None:
        noise = RandomDocuments(alpha=0.2, vocab_size=1000)
        rows, message = rows, "int8 cannot hold tokens up to 999"
    else:
        noise = noise_of()
    with pytest.raises(ValueError, match=message):
        corrupt(rows, noise, "input_ids")


def test_streams_that_cannot_be_mixed_are_refused_by_name():
    spread = noise_of(placement="interleave")
    with pytest.raises(ValueError, match=r"holds 576460752303423488, an id that rows of noise could have"):
        list(corrupt(rows_of(first=1 << 59).to_iterable_dataset(), spread, "input_ids"))
    ragged = Dataset.from_dict({"input_ids": [[1, 2], [3]], "sample_id": [0, 1]}).to_iterable_dataset()
    with pytest.raises(ValueError, match="have 1 to 2 tokens"):
        list(corrupt(ragged, noise_of(0.5), "input_ids", batch_size=1))
    twice = Dataset.from_dict({"input_ids": [[1, 2]] * 2, "sample_id": [0, 0]}).to_iterable_dataset()
    with pytest.raises(ValueError, match="1 of 2 rows have a sample id that another row has"):
        list(corrupt(twice, noise_of(0.5), "input_ids"))
    with pytest.raises(ValueError, match="needs a column 'sample_id'"):
        corrupt(rows_of().remove_columns("sample_id").to_iterable_dataset(), spread, "input_ids")


@given(n=st.integers(1, 12), length=st.integers(1, 21), cut=st.integers(0, 5), data=st.data())
@settings(max_examples=60, deadline=None)
def test_bits_are_the_booleans(n, length, cut, data):
    flat = np.random.default_rng(n).random((n + cut) * length) < 0.5
    kind = data.draw(st.sampled_from(["fixed", "list", "large"]))
    offsets = np.arange(n + cut + 1) * length
    chunk = {
        "fixed": lambda: pa.FixedSizeListArray.from_arrays(pa.array(flat), length),
        "list": lambda: pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat)),
        "large": lambda: pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(flat)),
    }[kind]().slice(cut)
    rows, expected = BitRows(chunk, "is_noisy", length), flat.reshape(-1, length)[cut:]
    index = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8)))
    assert (rows[index] == expected[index]).all() and (rows[1:n] == expected[1:n]).all() and rows[index].dtype == bool
    with pytest.raises(ValueError, match=f"need {length + 1} booleans each"):
        BitRows(chunk, "is_noisy", length + 1)


def test_packed_rows_bring_the_mask_of_their_tokens_alone():
    mixed = corrupt(rows_of(21, 13), noise_of(0.5, "interleave"), "input_ids").shuffle(seed=2)
    packed, plain = PackedRows(mixed), mixed.with_format("numpy")[:]
    assert packed.column_names == ["input_ids", "is_noisy", "sample_id"]
    for rows in (packed, pickle.loads(pickle.dumps(packed))):
        batch = rows.__getitems__([5, 0, 41, 7])
        assert batch["is_noisy"].dtype == bool and (batch["is_noisy"] == plain["is_noisy"][[5, 0, 41, 7]]).all()
        assert (rows[3]["is_noisy"] == plain["is_noisy"][3]).all()
    of_labels = rows_of(labels=rows_of()["input_ids"][:], clean_labels=rows_of()["input_ids"][:])
    of_labels = of_labels.add_column("is_noisy", [[True] * 5] * 20)
    for rows in (of_labels, mixed.with_format(columns=["input_ids", "sample_id"]), rows_of()):
        assert PackedRows(rows).column_names == ["input_ids", "sample_id"] and set(PackedRows(rows)[0]) == {
            "input_ids", "sample_id"}  # fmt: skip
    with pytest.raises(ValueError, match="holds .*, not lists of booleans"):
        PackedRows(rows_of().add_column("is_noisy", [True] * 20))


def test_another_distribution_and_a_column_of_another_name():
    noise = GaussianDocuments(alpha=0.5, vocab_size=V)
    mixed = corrupt(rows_of().rename_column("input_ids", "tokens"), noise, "tokens")
    assert mixed["tokens"][20:] == noise.rows(np.array(mixed["sample_id"][20:]), 5).tolist()
    assert PackedRows(mixed, column="tokens")[30]["is_noisy"].all()
