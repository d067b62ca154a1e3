"""Data of one's own: labels as words, booleans and integers, sources in memory, splits that are held out."""

from __future__ import annotations

import json
import pickle

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Image, Value, load_dataset, load_dataset_builder
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.data.held_rows import HeldRows, MissingSplitError, split_of
from hf_noise.noise import HumanLabels, LabelFlips, noise_from_description

NAME = "hf_noise/noisy"
PETS = ["cat", "dog", "hen"]


@pytest.fixture
def load(tmp_path):
    def load(split="train", name=NAME, **settings):
        defaults = {"column": "label", "cache_dir": str(tmp_path / "cache")} if name == NAME else {}
        defaults = {"r": 0.5, "cache_dir": str(tmp_path / "cache"), **defaults}
        return load_dataset(name, split=split, **{**defaults, **settings})

    return load


def csv(file, labels, column="label"):
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"text {row},{label}\n" for row, label in enumerate(labels)]
    file.write_text(f"text,{column}\n" + "".join(lines))
    return str(file)


def told(rows):
    return json.loads(rows.info.description.splitlines()[-1])


# --- what labels may be ---


def test_words_of_a_csv(load, tmp_path):
    words = ["hen", "cat", "dog", "cat"] * 50
    rows = load(source=csv(tmp_path / "a.csv", words))
    assert rows.features["label"] == rows.features["clean_label"] == ClassLabel(names=PETS)
    clean = np.array([PETS.index(word) for word in words])
    noisy, mask = LabelFlips.symmetric(ratio=0.5, num_classes=3)(clean, sample=np.arange(200))
    assert rows["clean_label"][:] == clean.tolist() and rows["label"][:] == noisy.tolist()
    assert rows["is_noisy"][:] == mask.tolist() and rows["text"][:2] == ["text 0", "text 1"]
    assert list(load(source=str(tmp_path / "a.csv"), streaming=True)) == rows.to_list()


def test_a_word_of_the_test_split_alone_is_a_class_too(load, tmp_path):
    source = {"train": csv(tmp_path / "a.csv", ["dog", "hen"] * 9), "test": csv(tmp_path / "b.csv", ["cat", *PETS])}
    with pytest.raises(ValueError, match=r"'train' of .* no row of 1 of its 3 classes: 0 \(cat\); mend the source"):
        load(source=source)
    data = load(None, source=source, allow_missing_classes=True)
    assert data["train"].features["label"].names == data["test"].features["label"].names == PETS
    assert data["train"]["clean_label"][:2] == [1, 2] and data["test"]["clean_label"][:] == [0, 0, 1, 2]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
@pytest.mark.parametrize("num_proc", [None, 2])
def test_classes_are_those_of_all_files(load, tmp_path, kind, num_proc):
    for number, words in enumerate((["hen", "dog"], ["cat", "dog"], ["dog", "dog"])):
        rows = Dataset.from_dict({"label": words * 20})
        getattr(rows, {"jsonl": "to_json"}.get(kind, f"to_{kind}"))(tmp_path / f"part-{number}.{kind}")
    rows = load(source=str(tmp_path / f"part-*.{kind}"), num_proc=num_proc)
    assert rows.features["label"].names == PETS
    assert [PETS[label] for label in rows["clean_label"]] == [*["hen", "dog"] * 20, *["cat", "dog"] * 20, *["dog"] * 40]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_booleans(load, tmp_path, kind):
    rows = Dataset.from_dict({"label": [True, False, True] * 20})
    getattr(rows, f"to_{kind}")(tmp_path / f"a.{kind}")
    rows = load(source=str(tmp_path / f"a.{kind}"))
    assert rows.features["label"].names == ["false", "true"] and rows["clean_label"][:3] == [1, 0, 1]
    assert rows.features["label"].dtype == "int64"


def test_integers_without_a_gap(load, tmp_path):
    pq.write_table(pa.table({"label": np.arange(36, dtype=np.uint8) % 12}), tmp_path / "a.parquet")
    rows = load(source=str(tmp_path / "a.parquet"))
    assert rows.features["label"].names == [str(number) for number in range(12)]  # 2 before 10
    assert rows["clean_label"][:] == (np.arange(36) % 12).tolist()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 3], "labels from 0 to 3, but no 2: .*number them anew, or write them as words"),
        ([1, 2, 3], "labels from 1 to 3, but no 0"),
        ([0, 2**62], "but no 1"),
        ([-1, 0, 1], "holds the label -1, and classes are numbered from 0"),
        ([0, 0], "one class only, '0'"),
        (["cat", "cat"], "one class only, 'cat'"),
        (["cat", " "], "holds the label ' '; every row needs a label"),
        (["cat", None], r"1 null\(s\), the first in row 1 of .*a.parquet; every row needs a label"),
        ([0.0, 1.0], "only lists of integer tokens can be corrupted.*words, booleans or integers"),
        ([f"name {i}" for i in range(200)], "200 different texts in 200 rows, no class labels.*column="),
    ],
)
def test_labels_that_are_no_classes(load, tmp_path, labels, message):
    pq.write_table(pa.table({"label": labels}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=message):
        load(source=str(tmp_path / "a.parquet"))
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_the_row_of_a_missing_label_is_that_of_its_file(load, tmp_path):
    labels = ["cat", "dog"] * 20
    pq.write_table(pa.table({"label": labels}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"label": [*labels[:33], None, None]}), tmp_path / "b.parquet", row_group_size=10)
    with pytest.raises(ValueError, match=r"holds 2 null\(s\), the first in row 33 of .*b.parquet"):
        load(source=str(tmp_path / "*.parquet"))


def test_labels_that_are_wrong_already_need_no_noise_added(load, tmp_path):
    message = r"r=0 is none; labels that are wrong already need none .* as they are, .*ELR, .*; or .* by weak_column="
    with pytest.raises(ValueError, match=message):
        load(source=csv(tmp_path / "a.csv", PETS * 9), r=None)


def test_splits_of_several_kinds(load, tmp_path):
    for split, labels in {"train": PETS * 9, "test": [True, False]}.items():
        pq.write_table(pa.table({"label": labels}), tmp_path / f"{split}.parquet")
    with pytest.raises(ValueError, match="'test' and 'train' of .* have different types in column 'label'"):
        load(source=str(tmp_path / "*.parquet"))


def test_a_column_of_another_name(load, tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(f'{{"content": "{PETS[i % 3]}"}}\n' for i in range(60)))
    rows = load(source=str(tmp_path / "a.jsonl"), column="content")
    assert rows.features["content"].names == PETS
    with pytest.raises(ValueError, match="no column 'label'; it has 'content': choose one with column="):
        load(source=str(tmp_path / "a.jsonl"))


def test_the_noise_is_known_before_and_after_the_data_are_built(tmp_path):
    options = {"source": csv(tmp_path / "a.csv", PETS * 9), "column": "label", "r": 1, "cache_dir": str(tmp_path)}
    builder = load_dataset_builder(NAME, **options)
    assert builder.noise == LabelFlips.symmetric(ratio=1, num_classes=3) == pickle.loads(pickle.dumps(builder)).noise
    builder.download_and_prepare()
    assert load_dataset_builder(NAME, **options).noise == builder.noise and not builder._labels_read


# --- images of one's own ---


def photos(folder, size=6):
    """Three classes of pictures: 16 bits, grey and transparent ones among them."""
    modes = {"cat": ("RGB", "I;16"), "dog": ("L", "RGBA"), "hen": ("RGB", "P")}
    for pet, (one, other) in modes.items():
        (folder / pet).mkdir(parents=True)
        for number in range(6):
            mode = (one, other)[number % 2]
            if mode == "I;16":
                picture = PIL.Image.fromarray(np.full((size, size + number), 1000 * number, dtype=np.uint16))
            else:
                picture = PIL.Image.new("RGB", (size, size + number), (40 * number, 9, 8)).convert(mode)
            picture.save(folder / pet / f"{number}.png")
    return str(folder)


@pytest.mark.parametrize("name", [NAME, "hf_noise/digits-noisy"])
def test_a_folder_of_classes(load, tmp_path, name):
    chosen = {"image_column": "image"} if name == NAME else {}
    rows = load(name=name, source=photos(tmp_path / "pets"), **chosen)
    assert rows.column_names == ["image", "label", "sample_id", "clean_label", "is_noisy"]
    assert rows.features["label"].names == PETS and rows["clean_label"][:] == [0] * 6 + [1] * 6 + [2] * 6
    assert rows[1]["image"].mode == "I;16" and rows[7]["image"].mode == "RGBA"


@pytest.mark.parametrize("label", [PETS, [True, False], [0, 1, 2, 3]])
def test_pictures_in_a_column_of_any_name(load, tmp_path, pictures, label):
    table = pq.read_table(pictures(tmp_path / "a.parquet", [0] * 60, image="picture"))
    table = table.set_column(1, "label", pa.array([label[i % len(label)] for i in range(60)]))
    pq.write_table(table.append_column("image", pa.array(range(60))), tmp_path / "a.parquet")
    rows = load(source=str(tmp_path / "a.parquet"), image_column="picture", r=0.3)
    kind = ClassLabel(names=[str(name).lower() for name in sorted(label)])
    assert rows.features == {
        "image": Image(), "label": kind, "sample_id": Value("int64"), "clean_label": kind, "is_noisy": Value("bool")
    }
    assert [int(np.asarray(image)[0] @ [256, 1]) for image in rows["image"]] == rows["sample_id"][:] == [*range(60)]
    assert [label[i % len(label)] for i in range(60)] == [sorted(label)[number] for number in rows["clean_label"]]
    assert list(load(source=str(tmp_path / "a.parquet"), image_column="picture", streaming=True, r=0.3))


def test_labels_of_pictures_by_another_name(load, tmp_path, pictures):
    file = pictures(tmp_path / "a.parquet", np.arange(30) % 3, PETS, label="kind", broken={4})
    rows = load(source=file, column="kind", image_column="image", on_error="skip", test_fraction=0.2)
    assert rows.features["label"].names == PETS and 4 not in rows["sample_id"][:]
    with pytest.raises(ValueError, match="row 4 of shard 0 .*, of class 1 .dog.*cannot be read"):
        load(source=file, column="kind", image_column="image")
    for wrong, message in [
        ({"column": "kind", "image_size": 4}, "image_size=4 is for images; name their column, image_column="),
        ({"column": "kind", "label_column": "kind"}, "name the labels with column="),
        ({"column": "kind", "image_column": "kind"}, "'kind' .*holds ClassLabel.*, no images"),
        ({"column": "kind", "image_column": "photo"}, "no column 'photo'; it has 'image', 'kind'"),
    ]:
        with pytest.raises(ValueError, match=message):
            load(source=file, **wrong)


def test_images_of_one_size(load, tmp_path):
    folder = photos(tmp_path / "pets")
    with pytest.raises(ValueError, match=r"row 1 has 7 x 6 pixels, more than image_size=6; pass resize=True.*=7 or m"):
        load(source=folder, image_column="image", image_size=6)
    padded = load(source=folder, image_column="image", image_size=13)
    assert {image.size for image in padded["image"]} == {(13, 13)}
    pixels = np.asarray(padded[5]["image"])  # 11 wide and 6 high, of 16 bits
    assert pixels.dtype == np.uint16 and (pixels[3:9, 1:12] == 5000).all() and pixels.sum() == 5000 * 66
    small = load(source=folder, image_column="image", image_size=4, resize=True)
    assert {image.size for image in small["image"]} == {(4, 4)}
    assert [image.mode for image in small["image"]][:2] == ["RGB", "I;16"]
    assert (np.asarray(small[5]["image"]) == 5000).all() and np.asarray(small[4]["image"])[0, 0].tolist() == [160, 9, 8]
    same = load(source=folder, image_column="image", image_size=6, resize=True)
    stored = same.cast_column("image", Image(decode=False))[0]["image"]["bytes"]
    assert stored is None or stored == (tmp_path / "pets" / "cat" / "0.png").read_bytes()


def test_resizing_averages_and_cuts_the_middle(load, tmp_path):
    stripes = np.zeros((64, 128), dtype=np.uint8)
    stripes[:, 32:96:2] = 200  # a fine pattern between black margins
    for pet in PETS:
        (tmp_path / "pets" / pet).mkdir(parents=True)
        PIL.Image.fromarray(stripes).save(tmp_path / "pets" / pet / "0.png")
    rows = load(source=str(tmp_path / "pets"), image_column="image", image_size=8, resize=True)
    pixels = np.asarray(rows[0]["image"]).astype(int)
    assert abs(pixels[:, 1:-1] - 100).max() <= 3  # the mean of the pattern, and no margin
    for wrong, message in [({"resize": True}, "needs image_size="), ({"image_size": 0}, "image_size must lie in")]:
        with pytest.raises(ValueError, match=message):
            load(source=str(tmp_path / "pets"), image_column="image", **wrong)


# --- sources ---


@pytest.fixture
def rows():
    return Dataset.from_dict({"text": [f"text {i}" for i in range(300)], "label": [PETS[i % 3] for i in range(300)]})


def test_a_dataset_is_a_source(load, tmp_path, rows):
    file = str(tmp_path / "a.parquet")
    rows.to_parquet(file)
    noisy = load(source=rows)
    assert noisy.to_list() == load(source=file).to_list() == list(load(source=rows, streaming=True))
    assert told(noisy)["source"] == f"a Dataset of 300 rows with the fingerprint {rows._fingerprint}"
    assert load(source=rows.shuffle(seed=0).with_format("numpy")).to_list() != noisy.to_list()
    odd = load(source=rows.select(range(1, 300, 2)))
    assert odd["text"][:] == rows["text"][1::2]
    assert load(source=rows, num_proc=2, cache_dir=str(tmp_path / "two")).to_list() == noisy.to_list()


def test_the_cache_knows_data_in_memory_by_their_fingerprint(tmp_path, rows):
    def cache(source):
        return load_dataset_builder(NAME, r=1, source=source, column="label", cache_dir=str(tmp_path)).cache_dir

    other = rows.select(range(299))
    assert cache(rows) == cache(rows) != cache(other)
    assert cache(DatasetDict(train=rows)) != cache(DatasetDict(train=other)) != cache(DatasetDict(test=other))


def test_a_dataset_dict_is_a_source(load, rows):
    parts = DatasetDict(rows.train_test_split(0.2, seed=0))
    data = load(None, source=parts)
    assert {split: part["text"][:] for split, part in data.items()} == {k: v["text"][:] for k, v in parts.items()}
    assert any(data["train"]["is_noisy"]) and not any(data["test"]["is_noisy"])
    only = load(None, source=rows, test_source=parts["test"])
    assert only["test"]["text"][:] == parts["test"]["text"][:]


def test_lists_of_files(load, tmp_path):
    for name in "abc":
        csv(tmp_path / f"{name}.csv", PETS * 3)
    files = [str(tmp_path / f"{name}.csv") for name in "cab"]
    data = load(None, source={"train": files[:2], "test": tmp_path / "b.csv"})
    assert data["train"].num_rows == 18 and data["test"].num_rows == 9
    for source, error in [
        ([*files, files[0]], "comes twice"), ([], "the list given as source is empty"), ([str(tmp_path)], "no file or"),
        ([3], "must hold paths of files, got 3"), ({"train": {"a": files}}, "a dictionary in a dictionary"),
        (iter(files), "must be a path or a name, a list of paths"),
    ]:
        with pytest.raises((TypeError, ValueError), match=error):
            load(source=source)


def test_a_stream_is_no_source(load, rows):
    with pytest.raises(TypeError, match=r"of type IterableDataset; of a stream, hf_noise.corrupt\(\) takes one"):
        load(source=rows.to_iterable_dataset())
    with pytest.raises(ValueError, match="is empty: it has no rows"):
        load(source=rows.select([]))


# --- splits that are held out ---


@settings(max_examples=50)
@given(st.floats(0, 0.49), st.floats(0, 0.49), st.lists(st.integers(0, 2**62), min_size=1, max_size=50))
def test_each_row_is_in_one_part(validation, test, ids):
    held = HeldRows(validation, test)
    parts = [held.rows(split, np.array(ids)) for split in ("train", "validation", "test")]
    if not held:
        assert parts == [None] * 3
        return
    parts = [part for part in parts if part is not None]
    assert (np.sum(parts, axis=0) == 1).all()
    # A share of its own does not move the other.
    if validation and test:
        np.testing.assert_array_equal(HeldRows(0, test).rows("test", np.array(ids)), held.rows("test", np.array(ids)))
        np.testing.assert_array_equal(
            HeldRows(validation, 0).rows("validation", np.array(ids)), held.rows("validation", np.array(ids))
        )


def test_rows_are_held_out_for_all_noises_alike(load, rows):
    data = load(None, source=rows, test_fraction=0.2, validation_fraction=0.1)
    texts = {split: part["text"][:] for split, part in data.items()}
    assert sorted(sum(texts.values(), [])) == sorted(rows["text"])
    # 300 draws: 5 standard errors, one false alarm in 1.7 million seeds; the seed is fixed.
    assert abs(len(texts["test"]) - 60) < 5 * 6.9 and abs(len(texts["validation"]) - 30) < 5 * 5.2
    assert any(data["train"]["is_noisy"]) and not any(data["test"]["is_noisy"]) and told(data["train"])["held_out"]
    again = load(None, source=rows, test_fraction=0.2, validation_fraction=0.1, seed=3, r=1, streaming=True)
    assert {split: [row["text"] for row in part] for split, part in again.items()} == texts
    whole = {row["sample_id"]: row for row in load(source=rows)}
    assert all(whole[row["sample_id"]] == row for row in data["train"])  # the noise of a row is what it was
    assert {row["sample_id"] for part in data.values() for row in part} == set(range(300))


@pytest.mark.parametrize("name", [NAME, "hf_noise/mnist-noisy"])
def test_pictures_are_held_out(load, tmp_path, pictures, seen, name):
    chosen = {"image_column": "image"} if name == NAME else {}
    file = pictures(tmp_path / "a.parquet", np.arange(200) % 10)
    data = load(None, name=name, source=file, test_fraction=0.3, **chosen)
    numbers = {split: [number for number, *_ in seen(part)] for split, part in data.items()}
    assert sorted(numbers["train"] + numbers["test"]) == [*range(200)] and len(numbers["test"]) > 20
    assert all(part["sample_id"][:] == numbers[split] for split, part in data.items())


def test_tokens_are_held_out(load, tmp_path):
    Dataset.from_dict({"tokens": [[i, 1] for i in range(100)]}).to_parquet(tmp_path / "a.parquet")
    options = {"source": str(tmp_path / "a.parquet"), "column": "tokens", "vocab_size": 100, "test_fraction": 0.3}
    data = load(None, **options)
    assert sorted(row[0] for part in data.values() for row in part["clean_tokens"]) == [*range(100)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test_fraction": 1.0}, r"test_fraction must lie in \[0, 1\), got 1.0"),
        ({"test_fraction": "a"}, "test_fraction must be a real number"),
        ({"test_fraction": 0.5, "validation_fraction": 0.5}, "leave nothing to train on"),
        ({"test_fraction": 0.1, "test_source": "a.csv"}, "give test_source or test_fraction, not both"),
    ],
)
def test_shares_that_cannot_be(load, rows, settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        load(source=rows, **settings)


def test_what_is_there_is_not_held_out(load, rows):
    both = DatasetDict(train=rows, test=rows)
    with pytest.raises(ValueError, match="has a test split already; leave out test_fraction="):
        load(source=both, test_fraction=0.1)
    with pytest.raises(ValueError, match="has a test split already; leave out test_source="):
        load(source=both, test_source=rows)
    assert load("validation", source=both, validation_fraction=0.1).num_rows > 10
    with pytest.raises(MissingSplitError, match=r"no train split in .* \(splits: test\): say which of its files"):
        load(source=DatasetDict(test=rows), validation_fraction=0.1)


def test_a_part_without_rows_says_what_to_do(load, rows):
    with pytest.raises(ValueError, match="'test' of a Dataset of 300 rows .* came out empty; raise test_fraction="):
        load(source=rows, test_fraction=1e-9)


def test_a_class_that_is_all_held_out_is_named(load):
    rare = Dataset.from_dict({"label": ["cat", "dog"] * 100 + ["hen"]})
    share = next(s for s in np.arange(0.1, 0.9, 0.1) if HeldRows(0, s).rows("test", np.array([200]))[0])
    with pytest.raises(ValueError, match=r"no row of 1 of its 3 classes: 2 \(hen\); .*lower test_fraction="):
        load(source=rare, test_fraction=float(share))


def test_a_split_that_is_missing():
    splits = {"train": 1, "dev": 2}
    assert split_of(splits, "train", "'a.csv'") == 1 and split_of(splits, "validation", "'a.csv'", "dev") == 2
    with pytest.raises(MissingSplitError) as raised:
        split_of(splits, "test", "'a.csv'")
    message = "no test split in 'a.csv' (splits: train, dev): name one with test_source=, or hold out a share with "
    assert str(raised.value) == message + "test_fraction=0.1" and isinstance(raised.value, ValueError)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


# --- labels that people gave ---


def weak(count=120):
    clean = [PETS[i % 3] for i in range(count)]
    return {"label": clean, "weak_label": [PETS[(i + (i % 4 == 0)) % 3] for i in range(count)]}


def test_labels_of_people_from_any_column(load, tmp_path):
    columns = weak()
    rows = load(source=Dataset.from_dict(columns), human_column="weak_label", r=None)
    assert [PETS[label] for label in rows["label"]] == columns["weak_label"] and np.mean(rows["is_noisy"]) == 0.25
    noise = noise_from_description(rows.info.description)
    assert isinstance(noise, HumanLabels) and noise.name == "weak_label"
    named = load(source=Dataset.from_dict(columns), human_column="weak_label", protocol="human:some", r=None)
    assert named["label"][:] == rows["label"][:] and noise_from_description(named.info.description).name == "some"


def test_labels_of_people_that_the_train_split_alone_has(load, tmp_path):
    for split, names in {"train": ["label", "weak_label"], "test": ["label"]}.items():
        Dataset.from_dict({name: weak()[name] for name in names}).to_parquet(tmp_path / f"{split}.parquet")
    data = load(None, source=str(tmp_path / "*.parquet"), human_column="weak_label", r=None)
    assert data["train"].column_names == data["test"].column_names == ["label", "sample_id", "clean_label", "is_noisy"]
    assert np.mean(data["train"]["is_noisy"]) == 0.25 and not any(data["test"]["is_noisy"])


@pytest.mark.parametrize("beside", [True, False])
def test_labels_of_people_and_rows_that_are_held_out(load, beside):
    rows = Dataset.from_dict(weak(300))
    source = {"source": rows} if beside else {"source": rows.select_columns(["label"]), "human_source": rows}
    data = load(None, **source, human_column="weak_label", r=None, test_fraction=0.3)
    train = data["train"]
    noise_from_description(train.info.description).check(train["clean_label"][:])  # the fingerprint is of these rows
    assert not any(data["test"]["is_noisy"])
    assert [PETS[label] for label in train["label"]] == [weak(300)["weak_label"][i] for i in train["sample_id"]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"human_column": "other"}, "no column 'other'; it has 'label', 'weak_label': choose one with human_column="),
        ({"human_column": "weak_label", "protocol": "symmetric", "r": 1}, 'human_column= belongs to protocol="human:'),
        ({"human_column": "weak_label", "r": 1}, "leave out r=1"),
        ({"human_column": 3}, "human_column must be a name"),
        ({"protocol": "human:weak_label"}, "no column 'human_weak_label'; it has 'label', 'weak_label'"),
    ],
)
def test_labels_of_people_that_cannot_be(load, settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        load(source=Dataset.from_dict(weak()), **{"r": None, **settings})


def test_a_word_that_is_no_class(load):
    columns = weak()
    columns["weak_label"][7] = "fox"
    with pytest.raises(ValueError, match=r"'weak_label' holds 'fox', which is none of the 3 classes \(cat, dog, hen\)"):
        load(source=Dataset.from_dict(columns), human_column="weak_label", r=None)


def test_titles_of_news_with_weak_labels(load, shared_data):
    files = {split: shared_data / f"hausa_newsclass-{split}.parquet" for split in ("train", "validation", "test")}
    if missing := [str(file) for file in files.values() if not file.is_file()]:
        pytest.skip(f"{', '.join(missing)} not there")
    data = load(None, source=files, human_column="weak_label", r=None)
    assert 0.4 < np.mean(data["train"]["is_noisy"]) < 0.6 and data["test"].num_rows == 582


