"""Noise in the column of tokens or labels of any data set."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value, load_dataset

from hf_noise.data.labels import NoisyLabelsBuilder
from hf_noise.noise import HumanLabels, LabelFlips, UniformTokens, noise_from_description

NAME = "hf_noise/noisy"


@pytest.fixture
def source(tmp_path):
    """A folder with ragged tokens [-100 or 0..49], a name and a label; train and test."""
    draw = np.random.default_rng(0)
    label = ClassLabel(names=["a", "b"])
    features = Features({"tokens": List(Value("int16")), "name": Value("string"), "label": label})
    features |= {"pair": List(Value("string"))}
    for split, rows in {"train": 500, "test": 40}.items():
        tokens = [draw.integers(0, 50, n).astype(np.int16) for n in draw.integers(1, 40, rows)]
        for row in tokens[::7]:
            row[0] = -100
        columns = {"tokens": tokens, "name": [f"{split} {i}" for i in range(rows)], "label": [0] * rows}
        columns |= {"pair": [["a", "b"]] * rows}
        data = Dataset.from_dict(columns, features=Features(features))
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
    assert rows.column_names == ["tokens", "name", "label", "pair", "sample_id", "clean_tokens", "is_noisy"]
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
    Dataset.from_dict({"tokens": [[1, 2]] * 3, "sample_id": [7, 9, 3]}).to_parquet(tmp_path / "own.parquet")
    rows = load(source=str(tmp_path / "own.parquet"))
    noise = UniformTokens(ratio=1, vocab_size=50)
    assert rows["sample_id"][:] == [7, 9, 3]
    assert rows["tokens"][:] == noise(np.array([[1, 2]] * 3), sample=np.array([7, 9, 3]))[0].tolist()


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
        ({"column": "name"}, "column 'name' holds Value.*single labels, for which vocab_size=50 means nothing"),
        ({"column": "pair"}, "only lists of integer tokens"),
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


# --- labels ---

TOPICS = ["sports", "science", "art", "trade"]


@pytest.fixture
def texts(tmp_path):
    """A folder with texts, their topics as a ClassLabel and as integers, and what people said; train and test."""
    label = ClassLabel(names=TOPICS)
    features = Features({"text": Value("string"), "topic": label, "stars": Value("int8"), "human_some": label})
    for split, rows in {"train": 600, "test": 40}.items():
        topics = [i % 4 for i in range(rows)]
        columns = {
            "text": [f"{split} {i}" for i in range(rows)], "topic": topics, "stars": topics,
            "human_some": [(i + (i % 3 == 0)) % 4 for i in range(rows)],
        }  # fmt: skip
        Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "texts" / f"{split}.parquet")
    return str(tmp_path / "texts")


@pytest.fixture
def load_labels(texts, tmp_path):
    def load(split="train", **settings):
        defaults = {"r": 1, "source": texts, "column": "topic", "cache_dir": str(tmp_path)}
        return load_dataset(NAME, split=split, **{**defaults, **settings})

    return load


@pytest.mark.parametrize(
    ("settings", "noise"),
    [
        ({}, LabelFlips.symmetric(ratio=1, num_classes=4)),
        ({"protocol": "uniform_resample", "seed": 3}, LabelFlips.uniform_resample(ratio=1, num_classes=4, seed=3)),
        ({"protocol": "pairs", "pairs": {np.int64(0): np.int8(3)}}, LabelFlips.pairs({0: 3}, ratio=1, num_classes=4)),
        ({"protocol": "cyclic", "epoch": 2}, LabelFlips.cyclic(ratio=1, num_classes=4)),
        ({"protocol": "pairs", "pairs": {0: 3}}, LabelFlips.pairs({0: 3}, ratio=1, num_classes=4)),
    ],
)
@pytest.mark.parametrize("column", ["topic", "stars"])
def test_labels(load_labels, settings, noise, column):
    sized = {"num_classes": 4} if column == "stars" else {}
    rows = load_labels(column=column, **sized, **settings)
    assert rows.column_names == ["text", "topic", "stars", "human_some", "sample_id", f"clean_{column}", "is_noisy"]
    assert rows.features[column] == rows.features[f"clean_{column}"] and rows.features["is_noisy"] == Value("bool")
    sample = np.array(rows["sample_id"])
    noisy, mask = noise(np.array(rows[f"clean_{column}"]), sample=sample, epoch=settings.get("epoch", 0))
    assert rows[column][:] == noisy.tolist() and rows["is_noisy"][:] == mask.tolist() and mask.any()
    assert sample.tolist() == list(range(600))
    assert list(load_labels(column=column, streaming=True, **sized, **settings)) == rows.to_list()
    assert not np.any(load_labels("test", column=column, **sized, **settings)["is_noisy"])


def test_a_class_label_brings_its_size(load_labels):
    assert load_labels(num_classes=4)["topic"][:] == load_labels()["topic"][:]


def test_labels_that_people_gave(load_labels):
    rows = load_labels(r=None, protocol="human:some")
    assert rows["topic"][:] == rows["human_some"][:] and abs(np.mean(rows["is_noisy"]) - 1 / 3) < 1e-3
    noise = noise_from_description(rows.info.description)
    assert isinstance(noise, HumanLabels) and noise.error_rate == pytest.approx(1 / 3)
    assert list(load_labels(r=None, protocol="human:some", streaming=True)) == rows.to_list()
    assert not np.any(load_labels("test", r=None, protocol="human:some")["is_noisy"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"column": "stars", "num_classes": 3}, r"150 of 600 labels are outside \[0, 3\), the first at index 3: 3"),
        ({"column": "stars", "num_classes": 5}, r"'train' .* no row of 1 of its 5 classes: 4; .*allow_missing_classes"),
        ({"num_classes": 5}, "'topic' has 4 classes, not 5"),
        ({"column": "text"}, "column 'text' of .* holds 640 different texts in 640 rows.*choose another .*column="),
        ({"vocab_size": 4}, "single labels, for which vocab_size=4 means nothing"),
        ({"exclude_original": True}, "exclude_original=True means nothing"),
        ({"protocol": "pairs"}, 'no map of similar classes is known for these data; give pairs='),
        ({"protocol": "human:some"}, "leave out r=1"),
        ({"r": None, "protocol": "human:none"}, "no column 'human_none'"),
        ({"r": 4}, r"past \(C - 1\)/C = 0.75"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_labels_refused(load_labels, tmp_path, settings, message, streaming):
    with pytest.raises(ValueError, match=message):
        next(iter(load_labels(streaming=streaming, **settings)))
    assert not list(tmp_path.rglob("dataset_info.json")) and not list(tmp_path.rglob("*.incomplete"))


@pytest.fixture
def unsupervised(tmp_path):
    """As IMDB: a split in which no row has a label, under a name of its own."""

    def write(labels):
        for split, values in {"train": [0, 1, 2, 3] * 500, "unsupervised": labels}.items():
            file = tmp_path / "imdb" / "data" / f"{split}-00000-of-00001.parquet"
            features = Features({"topic": ClassLabel(names=TOPICS)})
            Dataset.from_dict({"topic": values}, features=features).to_parquet(file)
        return str(tmp_path / "imdb")

    return write


@pytest.mark.parametrize("local", [True, False])
def test_a_clean_split_without_labels_stays(load_labels, unsupervised, monkeypatch, local):
    if not local:  # as from the Hub: nothing is read before the rows themselves
        monkeypatch.setattr(NoisyLabelsBuilder, "read_labels", lambda *_: None)
    source = unsupervised([-1] * 1500)
    rows = load_labels("unsupervised", source=source)
    assert set(rows["topic"]) == {-1} and not any(rows["is_noisy"])
    assert any(load_labels(source=source)["is_noisy"])
    with pytest.raises(ValueError, match=r"1500 of 1500 labels are outside|1000 of 1000 labels are outside"):
        load_labels(source=source, noisy_splits="unsupervised")
    for gaps in ([-1, 0, 1, 2, 3], [-1] * 1000 + [0, 1, 2, 3]):
        with pytest.raises(ValueError, match=r"labels are outside \[0, 4\)|1000 rows without a label \(-1\) among"):
            load_labels(source=unsupervised(gaps))


@pytest.mark.parametrize(
    ("dtype", "classes"),
    [("uint8", 4), ("uint16", 4), ("uint32", 4), ("uint64", 4), ("int8", 128), ("uint8", 256), ("int16", 300)],
)
def test_labels_of_any_integers(load_labels, tmp_path, dtype, classes):
    given = np.arange(3 * classes) % classes
    pq.write_table(pa.table({"y": given.astype(dtype)}), tmp_path / "own.parquet")
    settings = {"source": str(tmp_path / "own.parquet"), "column": "y", "num_classes": classes}
    rows = load_labels(**settings)
    noisy, _ = LabelFlips.symmetric(ratio=1, num_classes=classes)(given, sample=np.arange(given.size))
    assert rows["y"][:] == noisy.tolist() and rows["clean_y"][:] == given.tolist()
    assert rows.features["y"] == rows.features["clean_y"] == Value(dtype)
    assert list(load_labels(streaming=True, **settings)) == rows.to_list()


def test_labels_that_no_int64_holds_are_outside(load_labels, tmp_path):
    pq.write_table(pa.table({"y": np.array([0, 2**64 - 1], dtype=np.uint64)}), tmp_path / "own.parquet")
    with pytest.raises(ValueError, match=r"labels are outside \[0, 2\), the first at index 1"):
        load_labels(source=str(tmp_path / "own.parquet"), column="y", num_classes=2)


@pytest.mark.parametrize("how", ["folder", "glob", "mapping"])
def test_splits_that_number_their_classes_differently(load_labels, tmp_path, how):
    for split, names in {"train": TOPICS, "test": TOPICS[::-1]}.items():
        features = Features({"topic": ClassLabel(names=names)})
        Dataset.from_dict({"topic": [0, 1, 2, 3]}, features=features).to_parquet(tmp_path / "own" / f"{split}.parquet")
    source = {
        "folder": str(tmp_path / "own"), "glob": str(tmp_path / "own" / "*"),
        "mapping": {split: str(tmp_path / "own" / f"{split}.parquet") for split in ("train", "test")},
    }[how]  # fmt: skip
    for streaming in (False, True):
        with pytest.raises(ValueError, match="'(train|test)' and .* number the classes of column 'topic' diff"):
            load_labels(None, source=source, streaming=streaming)


def test_labels_of_people_that_are_numbered_differently(load_labels, tmp_path):
    kinds = Features({"topic": ClassLabel(names=TOPICS), "human_some": ClassLabel(names=TOPICS[::-1])})
    rows = Dataset.from_dict({"topic": [0, 1, 2, 3], "human_some": [0, 1, 2, 3]}, features=kinds)
    rows.to_parquet(tmp_path / "own.parquet")
    rows.select_columns(["topic"]).to_parquet(tmp_path / "alone.parquet")
    own = {"source": str(tmp_path / "own.parquet")}
    apart = {"source": str(tmp_path / "alone.parquet"), "human_source": str(tmp_path / "own.parquet")}
    for settings in (own, apart):
        with pytest.raises(ValueError, match="'topic' and 'human_some' .* number their classes differently"):
            load_labels(r=None, protocol="human:some", **settings)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "jsonl", "disk"])
def test_data_that_were_corrupted_and_stored_are_not_corrupted_again(load_labels, tmp_path, streaming, kind):
    noisy = load_labels()
    if kind == "disk":
        noisy.save_to_disk(tmp_path / "stored")
    else:
        getattr(noisy, {"parquet": "to_parquet", "jsonl": "to_json"}[kind])(tmp_path / "stored" / f"train.{kind}")
    sized = {"num_classes": 4} if kind == "jsonl" else {}
    stored = str(tmp_path / "stored" / "*.arrow" if kind == "disk" else tmp_path / "stored")
    with pytest.raises(ValueError, match="'topic' is corrupted already: there is 'clean_topic' and 'is_noisy'"):
        load_labels(source=stored, streaming=streaming, **sized)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": 5}, "protocol must be a name, got 5"), ({"protocol": ["cyclic"]}, "protocol must be a name"),
        ({"column": 5}, "column must be a name"), ({"source": 5}, "source must be a path or a name, .*, got 5"),
        ({"source": ["a", "b"]}, "'a' in the list given as source"), ({"num_classes": "4"}, "num_classes must be an"),
        ({"vocab_size": True}, "vocab_size must be an integer, got True"),
        ({"protocol": "pairs", "pairs": 5}, "pairs must be a dictionary of classes"),
        ({"protocol": "pairs", "pairs": {True: 1}}, "pairs must be a dictionary of classes"),
        ({"protocol": "pairs", "pairs": {"a": 1}}, "pairs must be a dictionary of classes"),
        ({"allow_missing_classes": 1}, "allow_missing_classes must be True or False, got 1"),
        ({"exclude_original": None}, "exclude_original must be True or False"),
        ({"noisy_splits": 5}, "noisy_splits must be names of splits, .* got 5"),
        ({"noisy_splits": {"train": 1}}, "noisy_splits must be names of splits"),
        ({"source_config": 5}, "source_config must be a name"), ({"tokenizer": 5}, "tokenizer must be a name"),
        ({"epoch": 1 << 63}, r"epoch must lie in \[0, 2\^63\)"),
        ({"source": {}}, r"source=\{\} must name splits"), ({"source": ""}, "source must name a file"),
        ({"source_config": "some"}, "source_config='some' means nothing for source='.*own.parquet'"),
        ({"source": "embedded/digits", "column": "label", "source_config": "some"}, "source_config='some' means"),
        ({"vocab_size": 0}, "single labels, for which vocab_size=0 means nothing"),
    ],
)
def test_settings_of_the_wrong_kind(load_labels, tmp_path, settings, message):
    Dataset.from_dict({"topic": [0, 1]}).to_parquet(tmp_path / "own.parquet")
    with pytest.raises((TypeError, ValueError), match=message):
        load_labels(**{"source": str(tmp_path / "own.parquet"), "num_classes": 2, **settings})


def test_splits_of_different_columns_are_named(load_labels, tmp_path):
    for split, columns in {"train": ["topic", "stars"], "test": ["topic", "counts"]}.items():
        Dataset.from_dict({name: [0, 1] for name in columns}).to_parquet(tmp_path / "two" / f"{split}.parquet")
    with pytest.raises(ValueError, match="'train' and 'test' .* different columns: 'counts', 'stars' in one only"):
        load_labels(source=str(tmp_path / "two"), num_classes=2)
    rows = load_labels(source=str(tmp_path / "two" / "train.parquet"), num_classes=2)
    assert rows.num_rows == 2


def test_lines_of_json(load_labels, tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(f'{{"x": "{i}", "y": {i % 3}}}\n' for i in range(300)))
    rows = load_labels(source=str(tmp_path / "a.jsonl"), column="y", num_classes=3)
    noisy, _ = LabelFlips.symmetric(ratio=1, num_classes=3)(np.arange(300) % 3, sample=np.arange(300))
    assert rows["y"][:] == noisy.tolist()


def test_questions_by_their_kind(load_labels, shared_data):
    file = shared_data / "trec-train.parquet"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    rows = load_labels(source=str(file), column="label", r=1)
    # 5 standard errors: one false alarm in 1.7 million seeds.
    assert abs(np.mean(rows["is_noisy"]) - 0.5) < 5 * (0.25 / rows.num_rows) ** 0.5
