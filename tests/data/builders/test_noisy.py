"""Noise in the token column of any data set."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value, load_dataset

from hf_noise.noise import UniformTokens

NAME = "hf_noise/noisy"


@pytest.fixture
def source(tmp_path):
    """A folder with ragged tokens [-100 or 0..49], a name and a label; train and test."""
    draw = np.random.default_rng(0)
    label = ClassLabel(names=["a", "b"])
    features = Features({"tokens": List(Value("int16")), "name": Value("string"), "label": label})
    for split, rows in {"train": 500, "test": 40}.items():
        tokens = [draw.integers(0, 50, n).astype(np.int16) for n in draw.integers(1, 40, rows)]
        for row in tokens[::7]:
            row[0] = -100
        columns = {"tokens": tokens, "name": [f"{split} {i}" for i in range(rows)], "label": [0] * rows}
        data = Dataset.from_dict(columns, features=features)
        data.to_parquet(tmp_path / "source" / f"{split}.parquet", batch_size=150)
    return str(tmp_path / "source")


@pytest.fixture
def load(source, tmp_path):
    def load(split="train", **settings):
        defaults = {"r": 1, "source": source, "column": "tokens", "vocab_size": 50, "cache_dir": str(tmp_path)}
        return load_dataset(NAME, split=split, **{**defaults, **settings})

    return load


def test_columns_and_noise(load):
    rows = load()
    assert rows.column_names == ["tokens", "name", "label", "sample_id", "clean_tokens", "is_noisy"]
    assert rows.features["tokens"] == rows.features["clean_tokens"] == List(Value("int16"))
    assert isinstance(rows.features["label"], ClassLabel)
    noise = UniformTokens(ratio=1, vocab_size=50)
    for row in rows.select(range(0, 500, 50)):
        noisy, mask = noise(np.array([row["clean_tokens"]]), sample=np.array([row["sample_id"]]))
        assert noisy[0].tolist() == row["tokens"] and mask[0].tolist() == row["is_noisy"]


def test_test_split_is_clean(load):
    rows = load("test")
    assert rows["tokens"][:] == rows["clean_tokens"][:] and rows["sample_id"][0] == 2 << 60
    assert load("test", noisy_splits="test")["tokens"][:] != rows["tokens"][:]


def test_streaming_changes_nothing(load):
    assert list(load(streaming=True)) == load().to_list()


def test_ignored_positions_stay(load):
    rows = load()
    first = [(row["tokens"][0], row["is_noisy"][0]) for row in rows.select(range(0, 500, 7))]
    assert first == [(-100, False)] * len(first)


def test_own_sample_ids_are_kept(load, tmp_path):
    Dataset.from_dict({"tokens": [[1, 2]] * 3, "sample_id": [7, 9, 7]}).to_parquet(tmp_path / "own.parquet")
    rows = load(source=str(tmp_path / "own.parquet"))
    assert rows["sample_id"][:] == [7, 9, 7] and rows["tokens"][0] == rows["tokens"][2]


def test_splits_of_other_names_share_no_ids(load, tmp_path):
    for name in ("train", "dev_b", "dev_a"):
        file = tmp_path / "own" / "data" / f"{name}-00000-of-00001.parquet"  # the pattern that allows any name
        Dataset.from_dict({"tokens": [[1, 2]] * 3}).to_parquet(file)
    first = {name: rows["sample_id"][0] for name, rows in load(None, source=str(tmp_path / "own")).items()}
    assert first == {"train": 0, "dev_a": 3 << 60, "dev_b": 4 << 60}


def test_vocabulary_from_a_tokenizer(load):
    rows = load(vocab_size=None, tokenizer="embedded:300")
    assert 200 < max(max(row) for row in rows["tokens"]) < 300


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"column": "label"}, "column 'label' holds ClassLabel.*single labels, for which vocab_size=50 means nothing"),
        ({"protocol": "cyclic"}, "lists of tokens, for which protocol='cyclic' means nothing"),
        ({"num_classes": 50}, "lists of tokens, for which num_classes=50 means nothing"),
        ({"column": "name"}, "only lists of integer tokens"),
        ({"column": "words"}, "no column 'words'.*choose one with column="),
        ({"column": None}, "say what to corrupt"),
        ({"source": None}, "say what to corrupt"),
        ({"vocab_size": None}, "give vocab_size="),
        ({"tokenizer": "embedded"}, "give vocab_size="),
        ({"vocab_size": 10}, r"outside \[0, 10\): vocab_size=10 is smaller than a token seen"),
        ({"vocab_size": 40_000}, "int16 cannot hold"),
        ({"vocab_size": 0}, "vocab_size must lie in"),
    ],
)
def test_refused(load, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        load(**settings)
    assert not list(tmp_path.rglob("dataset_info.json")) and not list(tmp_path.rglob("*.incomplete"))
