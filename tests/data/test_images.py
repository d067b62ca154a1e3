"""Pictures with noisy labels: the same rows however they are made, and what is refused."""

from __future__ import annotations

import json
import logging
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Image, Value, load_dataset, load_dataset_builder

from hf_noise.data import images, labels
from hf_noise.data.images import unreadable
from hf_noise.noise import LabelFlips

NAME = "hf_noise/mnist-noisy"
DIGITS = list("0123456789")


@pytest.fixture
def load(tmp_path, source):
    def load(split="train", **settings):
        defaults = {"r": 1, "source": source, "cache_dir": str(tmp_path / "cache")}
        return load_dataset(NAME, split=split, **{**defaults, **settings})

    return load


@pytest.fixture(scope="module")
def source(tmp_path_factory, pictures):
    """One file of 600 pictures in six row groups."""
    file = tmp_path_factory.mktemp("source") / "train.parquet"
    return pictures(file, np.arange(600) % 10, DIGITS, row_group_size=100)


def test_one_shard_counts_its_rows(load, seen):
    rows = load()
    assert rows["sample_id"][:] == list(range(600))
    noisy, mask = LabelFlips.symmetric(ratio=1, num_classes=10)(np.arange(600) % 10, sample=np.arange(600))
    columns = [np.arange(600), np.arange(600) % 10, mask, noisy, np.arange(600)]
    assert seen(rows) == list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("protocol", ["symmetric", "human:some"])
def test_processes_streaming_and_batches_change_nothing(load, tmp_path, pictures, seen, monkeypatch, protocol):
    people = (np.arange(600) * 7 // 5) % 10
    settings = {"source": pictures(tmp_path / "s.parquet", np.arange(600) % 10, human_some=people, row_group_size=100)}
    settings |= {"protocol": protocol, **({"r": None} if protocol != "symmetric" else {})}
    monkeypatch.setattr(labels, "SHARD_BYTES", 1)
    monkeypatch.setattr(images, "SHARD_BYTES", 1)
    rows = load(**settings)
    assert rows["sample_id"][::100] == [shard << 40 for shard in range(6)]
    if protocol != "symmetric":
        assert rows["label"][:] == people.tolist()
    stream = load(streaming=True, **settings)
    assert stream.num_shards == 6 and seen(stream) == seen(rows)
    assert seen(load(num_proc=2, cache_dir=str(tmp_path / "two"), **settings)) == seen(rows)
    monkeypatch.setattr(images, "_BATCH", 7)
    assert seen(load(streaming=True, **settings)) == seen(rows)


def test_epochs_and_seeds_differ(load):
    drawn = [load()["label"][:], load(epoch=1)["label"][:], load(seed=1)["label"][:]]
    assert all(np.mean(np.array(a) != b) > 0.4 for a, b in zip(drawn, drawn[1:] + drawn[:1], strict=True))


def test_a_named_configuration(load):
    assert load(r=None, name="r1.0")["label"][:] == load()["label"][:]


def test_settings_that_mean_the_same_share_a_cache(source):
    def cache(**settings):
        return load_dataset_builder(NAME, **{"r": 1, "source": source, **settings}).cache_dir

    base = cache()
    assert base == cache(protocol="symmetric") == cache(r=None, error_rate=0.5) == cache(pairs=None)
    human = {"r": None, "protocol": "human:some"}
    assert cache(**human) == cache(**human, seed=3) == cache(**human, epoch=2)
    pairs = [cache(protocol="pairs", pairs=pairs) for pairs in (None, {1: 2, 3: 4}, {3: 4, 1: 2})]
    assert pairs[1] == pairs[2] != pairs[0]
    others = [
        cache(protocol="cyclic"), cache(**human), cache(protocol="human:other", r=None), cache(test_source=source),
        cache(source={"train": source, "test": source}), cache(on_error="skip"), *pairs[:2],
    ]
    assert len({base, *others}) == len(others) + 1


# --- sources ---


def test_splits_by_mapping_folder_glob_and_test_source(load, tmp_path, pictures, seen):
    files = {split: tmp_path / "own" / f"some-{split}.parquet" for split in ("train", "test")}
    for (split, file), rows in zip(files.items(), (40, 20), strict=True):
        pictures(file, np.arange(rows) % 10, DIGITS, **{f"of_{split}": np.zeros(rows, dtype=int)})
    both = [
        load(None, source={split: str(file) for split, file in files.items()}),
        load(None, source=str(tmp_path / "own")),
        load(None, source=str(tmp_path / "own" / "*.parquet")),
        load(None, source=str(files["train"]), test_source=str(files["test"])),
    ]
    for data in both:
        assert {split: rows.num_rows for split, rows in data.items()} == {"train": 40, "test": 20}
        assert all(seen(data[split]) == seen(both[0][split]) for split in data)
    assert not np.any(both[0]["test"]["is_noisy"]) and both[0]["test"]["sample_id"][0] == 2 << 60
    assert np.any(load("test", source=str(tmp_path / "own"), noisy_splits="test")["is_noisy"])


def test_a_source_without_a_training_split(load, tmp_path, pictures):
    file = pictures(tmp_path / "test.parquet", np.arange(20) % 10)
    with pytest.raises(ValueError, match=r"no train split in the source .* \(splits: test\)"):
        load(source={"test": file})
    with pytest.raises(ValueError, match="has a test split already; leave out test_source="):
        load(source={"train": file, "test": file}, test_source=file)


def test_a_folder_of_pictures(load, tmp_path, seen):
    from PIL import Image as Picture

    order = []
    for split, copies in (("train", 3), ("test", 1)):
        for label in DIGITS:
            (folder := tmp_path / "folder" / split / label).mkdir(parents=True)
            for copy in range(copies):
                number = int(label) * 10 + copy
                Picture.fromarray(np.array([[0, number], [0, 0]], dtype=np.uint8)).save(folder / f"{copy}.png")
                order.append(number) if split == "train" else None
    (tmp_path / "folder" / "LICENSE.txt").write_text("of the pictures")
    data = load(None, source=str(tmp_path / "folder"), protocol="pairs")
    assert {split: rows.num_rows for split, rows in data.items()} == {"train": 30, "test": 10}
    rows = seen(data["train"])
    assert sorted(number for number, *_ in rows) == order
    assert all(number // 10 == clean for number, clean, *_ in rows)
    assert data["train"].features["label"].names == DIGITS
    assert seen(load(source=str(tmp_path / "folder"), protocol="pairs", streaming=True)) == rows


def test_a_folder_of_pictures_without_a_class(load, tmp_path):
    from PIL import Image as Picture

    for split, missing in (("train", None), ("test", "4")):
        for label in DIGITS:
            if label != missing:
                (folder := tmp_path / "folder" / split / label).mkdir(parents=True)
                Picture.new("L", (2, 2)).save(folder / "1.png")
    with pytest.raises(ValueError, match=r"split 'test' .* no row of 1 of its 10 classes: 4 \(4\)"):
        load(source=str(tmp_path / "folder"))
    assert not caches(tmp_path / "cache")
    (tmp_path / "folder" / "train" / "2" / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"row 2 .*train/2/1.png\), of class 2 \(2\), cannot be read"):
        load(source=str(tmp_path / "folder"))


def test_column_names(load, tmp_path, pictures):
    file = pictures(tmp_path / "a.parquet", np.arange(20) % 10, image="picture", label="digit")
    for settings, message in [
        ({}, "no column 'image' or 'img'; it has 'picture', 'digit': choose one with image_column="),
        ({"image_column": "photo"}, "no column 'photo'"),
        ({"image_column": "picture"}, "no column 'label'; .*label_column="),
        ({"image_column": "picture", "label_column": "picture"}, "'picture' holds Image.*no class labels"),
    ]:
        with pytest.raises(ValueError, match=message):
            load(source=file, **settings)
    assert load(source=file, image_column="picture", label_column="digit").column_names[:2] == ["image", "label"]


def test_plain_bytes_and_plain_integers(load, tmp_path, pictures, seen):
    table = pq.read_table(pictures(tmp_path / "a.parquet", np.arange(20) % 10))
    plain = pa.table({"image": table["image"].combine_chunks().field("bytes"), "label": table["label"].cast("uint8")})
    pq.write_table(plain, tmp_path / "b.parquet")
    rows = load(source=str(tmp_path / "b.parquet"))
    assert seen(rows) == seen(load(source=str(tmp_path / "a.parquet"))) and rows.features["label"].names == DIGITS


# --- labels that cannot be ---


def caches(folder):
    return [*folder.rglob("dataset_info.json"), *folder.rglob("*.arrow"), *folder.rglob("*.incomplete")]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({30: -1, 35: 10}, r"split 'train': 2 of 40 labels are outside \[0, 10\), the first at index 30: -1"),
        ({7: 8, 17: 8, 27: 8, 37: 8}, r"split 'train' .* no row of 1 of its 10 classes: 7 \(7\).*allow_missing"),
    ],
)
def test_wrong_labels(load, tmp_path, pictures, wrong, message, streaming):
    given = np.arange(40) % 10
    given[list(wrong)] = list(wrong.values())
    with pytest.raises(ValueError, match=message):
        next(iter(load(source=pictures(tmp_path / "a.parquet", given), streaming=streaming)))
    assert not caches(tmp_path / "cache")


def test_missing_classes_if_they_may_be(load, tmp_path, pictures):
    file = pictures(tmp_path / "a.parquet", [1, 2, 3])
    assert load(source=file, allow_missing_classes=True)["clean_label"][:] == [1, 2, 3]
    with pytest.raises(ValueError, match=r"7 of its 10 classes: 0 \(0\), 4 \(4\), .*, 7 \(7\), \.\.\.;") as raised:
        load(source=file)
    assert "split 'train'" in str(raised.value)


def test_another_number_of_classes(load, tmp_path, pictures, caplog):
    nine = load(source=pictures(tmp_path / "a.parquet", np.arange(20) % 9, DIGITS[:9]))
    assert nine.features["label"].names == DIGITS[:9] and "has 9 classes, not 10" in caplog.text
    three = load(source=pictures(tmp_path / "b.parquet", np.arange(20) % 3))
    assert three.features["label"].names == ["0", "1", "2"]
    with pytest.raises(ValueError, match=r"no row of 2 of its 11 classes: 9 \(9\), 10 \(x\)"):
        load(source=pictures(tmp_path / "c.parquet", np.arange(20) % 9, [*DIGITS, "x"]))
    with pytest.raises(ValueError, match="order of the classes 0, .* are 0, 1, 2; give pairs="):
        load(source=str(tmp_path / "b.parquet"), protocol="pairs")


def test_splits_that_number_their_classes_differently(load, tmp_path, pictures):
    orders = {"a": DIGITS, "b": DIGITS[::-1]}
    files = [pictures(tmp_path / f"{key}.parquet", np.arange(20) % 10, names) for key, names in orders.items()]
    with pytest.raises(ValueError, match="'train' and 'test' .* name their classes differently"):
        load(source=files[0], test_source=files[1])


def test_files_that_number_their_classes_differently(load, tmp_path, pictures):
    for number, names in enumerate((DIGITS, DIGITS[::-1])):
        pictures(tmp_path / f"{number}.parquet", np.arange(20) % 10, names)
    with pytest.raises(ValueError, match=r"0.parquet and .*1.parquet .* number the classes of column 'label' differ"):
        load(source=str(tmp_path / "*.parquet"))


@pytest.mark.parametrize("streaming", [False, True])
def test_labels_that_were_corrupted_are_not_corrupted_again(load, tmp_path, streaming):
    noisy = load()
    noisy.to_parquet(tmp_path / "stored.parquet")
    stored = {"source": str(tmp_path / "stored.parquet"), "streaming": streaming}
    with pytest.raises(ValueError, match="'label' .* is corrupted already.*label_column='clean_label'"):
        load(**stored)
    again = load(label_column="clean_label", **stored)
    assert [row["label"] for row in again] == noisy["label"][:]


def test_a_column_without_images(load, tmp_path, pictures):
    file = pictures(tmp_path / "a.parquet", np.arange(20) % 10, DIGITS)
    with pytest.raises(ValueError, match="column 'label' of .* holds ClassLabel.*, no images; .*image_column="):
        load(source=file, image_column="label")
    with pytest.raises(TypeError, match="image_column must be a name, got 3"):
        load(source=file, image_column=3)
    with pytest.raises(TypeError, match="check_images must be True or False, got 'no'"):
        load(source=file, check_images="no")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", 'file_name,label\n"1.png,0\n', "ParserError"),
        ("metadata.csv", "", "EmptyDataError"),
        ("metadata.csv", "name,label\n1.png,0\n", "`file_name`.* must be present"),
        ("metadata.jsonl", '{"file_name": "1.pn', "ArrowInvalid"),
        ("metadata.parquet", "no parquet", "ArrowInvalid"),
    ],
)
def test_broken_labels_of_a_folder_of_pictures_are_named(load, tmp_path, name, content, message):
    from PIL import Image as Picture

    (folder := tmp_path / "folder" / "train").mkdir(parents=True)
    for number in range(3):
        Picture.new("L", (2, 2)).save(folder / f"{number}.png")
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=rf"(?s)the file .*folder/train/{name} .*cannot be read .*{message}"):
        load(source=str(tmp_path / "folder"))


def test_labels_that_are_none(load, tmp_path, pictures):
    table = pq.read_table(pictures(tmp_path / "a.parquet", np.arange(20) % 10))
    missing = pa.array([None, *(np.arange(1, 20) % 10)], pa.int64())
    pq.write_table(table.set_column(1, "label", missing), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"'label' holds 1 null\(s\), the first in row 0 of .*; every row needs"):
        load(source=str(tmp_path / "a.parquet"))
    text = pa.array(DIGITS * 2)
    pq.write_table(table.replace_schema_metadata().set_column(1, "label", text), tmp_path / "b.parquet")
    assert load(source=str(tmp_path / "b.parquet"))["clean_label"][:] == [*range(10)] * 2
    pq.write_table(table.set_column(1, "label", pa.array(np.linspace(0, 1, 20))), tmp_path / "c.parquet")
    with pytest.raises(ValueError, match=r"holds Value\('float64'\), no class labels; give words.*label_column="):
        load(source=str(tmp_path / "c.parquet"))


# --- pictures that cannot be read ---


@pytest.fixture
def broken(tmp_path, pictures):
    return pictures(tmp_path / "b.parquet", np.arange(60) % 10, DIGITS, broken={13, 41}, row_group_size=20)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_broken_picture_is_named(load, tmp_path, broken, streaming):
    named = r"train.*image in row 13 of shard 0 \(13.png\), of class 3 \(3\), cannot"
    with pytest.raises(ValueError, match=f'{named}.*on_error="skip"'):
        list(load(source=broken, streaming=streaming))
    assert not caches(tmp_path / "cache")


def told(rows):
    return json.loads(rows.info.description.splitlines()[-1])


@pytest.mark.parametrize("num_proc", [None, 2])
def test_broken_pictures_are_skipped_and_counted(load, tmp_path, broken, seen, caplog, monkeypatch, num_proc):
    if num_proc:
        monkeypatch.setattr(labels, "SHARD_BYTES", 1)
        monkeypatch.setattr(images, "SHARD_BYTES", 1)
    with caplog.at_level(logging.WARNING, logger="hf_noise"):
        rows = load(source=broken, on_error="skip", num_proc=num_proc)
    left = [i for i in range(60) if i not in (13, 41)]
    assert [number for number, *_ in seen(rows)] == left
    assert told(rows)["skipped"] == {"train": 2} and told(rows)["realised"]["train"]["n"] == 58
    assert not list((tmp_path / "cache").rglob("skipped*"))
    if not num_proc:
        assert rows["sample_id"][:] == left  # the noise of the others is what it was
        assert "13.png" in caplog.text and "train: skipped 2 unreadable images of shard 0" in caplog.text
        assert [number for number, *_ in seen(load(source=broken, on_error="skip", streaming=True))] == left


def test_what_people_said_stays_with_its_picture(load, tmp_path, pictures, seen):
    people = (np.arange(60) * 7) % 10
    file = pictures(tmp_path / "a.parquet", np.arange(60) % 10, DIGITS, broken={13, 41}, human_some=people)
    rows = load(source=file, on_error="skip", r=None, protocol="human:some")
    assert [row[3] for row in seen(rows)] == people[[number for number, *_ in seen(rows)]].tolist()
    assert rows.num_rows == 58


def test_whole_sources_skip_nothing(load):
    assert "skipped" not in told(load(on_error="skip"))


def test_pictures_are_not_looked_at_if_not_asked(load, broken):
    rows = load(source=broken, check_images=False)
    assert rows.num_rows == 60 and rows["label"][:10]
    with pytest.raises(ValueError, match='on_error="skip" needs check_images=True'):
        load(source=broken, check_images=False, on_error="skip")
    with pytest.raises(ValueError, match='on_error must be "raise" or "skip", got \'ignore\''):
        load(source=broken, on_error="ignore")


def test_a_class_that_is_all_broken_is_missing(load, tmp_path, pictures):
    file = pictures(tmp_path / "a.parquet", np.arange(20) % 10, broken={3, 13})
    with pytest.raises(ValueError, match=r"no row of 1 of its 10 classes: 3 \(3\)"):
        load(source=file, on_error="skip")


def test_unreadable(pictures, tmp_path, monkeypatch):
    table = pq.read_table(pictures(tmp_path / "a.parquet", [0] * 8, broken={2, 5}))
    storage = Image().cast_storage(table["image"].combine_chunks())
    cut = {"bytes": storage[0].as_py()["bytes"][:45], "path": None}
    absent = {"bytes": None, "path": str(tmp_path / "none.png")}
    every = pa.concat_arrays([storage, pa.array([None, cut, absent], storage.type)])
    reasons = unreadable(every)
    assert sorted(reasons) == [2, 5, 8, 9, 10] and "Unidentified" in reasons[2] and "missing" in reasons[8]
    assert "No such file" in reasons[10]
    monkeypatch.setattr(images, "_WORTH_A_THREAD", 0)
    assert unreadable(every).keys() == reasons.keys()


def test_a_connection_that_breaks_is_no_broken_picture(monkeypatch):
    def breaks(*_):
        raise ConnectionError("gone")

    monkeypatch.setattr(Image, "decode_example", breaks)
    with pytest.raises(ConnectionError, match="gone"):
        unreadable(pa.array([{"bytes": b"x", "path": None}], Image().pa_type))


def test_a_builder_can_be_sent_to_another_process(source, tmp_path):
    builder = load_dataset_builder(NAME, r=1, source=source, cache_dir=str(tmp_path))
    assert pickle.loads(pickle.dumps(builder)).noise == builder.noise


def test_parquet_output(source, tmp_path):
    builder = load_dataset_builder(NAME, r=1, source=source, cache_dir=str(tmp_path))
    builder.download_and_prepare(tmp_path / "out", file_format="parquet")
    rows = Dataset.from_parquet(str(tmp_path / "out" / "*.parquet"))
    assert rows.features["label"].names == DIGITS and rows[7]["image"].size == (2, 2)
    assert told(builder)["realised"]["train"] == {"rate": np.mean(rows["is_noisy"]), "n": 600}
    assert Features({"is_noisy": Value("bool")}).items() <= rows.features.items()
