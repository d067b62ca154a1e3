"""CIFAR-10 by every protocol, from small pictures of the same form and from the data set itself."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Image, Value, load_dataset

from hf_noise.data.builders.cifar10_noisy import Cifar10NoisyConfig
from hf_noise.noise import HumanLabels, LabelFlips, noise_from_description
from hf_noise.noise.label_maps import CIFAR10

NAME = "hf_noise/cifar10-noisy"
NAMES = list(Cifar10NoisyConfig.CLASS_NAMES)


@pytest.fixture
def source(tmp_path, pictures):
    labels = np.arange(400) % 10
    people = np.where(np.arange(400) % 4 == 0, (labels + 1) % 10, labels)
    return {
        "train": pictures(tmp_path / "cifar" / "train.parquet", labels, NAMES, human_worse=people),
        "test": pictures(tmp_path / "cifar" / "test.parquet", labels[:30], NAMES),
    }


@pytest.fixture
def load(source, tmp_path):
    def load(split="train", **settings):
        defaults = {"source": source, "cache_dir": str(tmp_path / "cache")}
        return load_dataset(NAME, split=split, **{**defaults, **settings})

    return load


def test_the_hub_by_default():
    assert Cifar10NoisyConfig(r=1).source == "uoft-cs/cifar10"
    with pytest.raises(ConnectionError, match="'uoft-cs/cifar10'.*source="):
        load_dataset(NAME, r=1)


def test_columns(load):
    rows = load(r=1)
    label = ClassLabel(names=NAMES)
    assert rows.features == {
        "image": Image(), "label": label, "sample_id": Value("int64"), "clean_label": label, "is_noisy": Value("bool")
    }
    assert rows["clean_label"][:] == (np.arange(400) % 10).tolist() and rows["sample_id"][:] == list(range(400))
    assert load("test", r=1)["label"][:] == (np.arange(30) % 10).tolist()


@pytest.mark.parametrize(
    ("protocol", "noise"),
    [
        ("symmetric", LabelFlips.symmetric(ratio=1, num_classes=10, seed=5)),
        ("uniform_resample", LabelFlips.uniform_resample(ratio=1, num_classes=10, seed=5)),
        ("cyclic", LabelFlips.cyclic(ratio=1, num_classes=10, seed=5)),
        ("pairs", LabelFlips.pairs(CIFAR10, ratio=1, num_classes=10, seed=5)),
    ],
)
def test_a_protocol_is_its_noise(load, protocol, noise):
    rows = load(r=1, protocol=protocol, seed=5)
    noisy, is_noisy = noise(np.array(rows["clean_label"]), sample=np.array(rows["sample_id"]))
    assert rows["label"][:] == noisy.tolist() and rows["is_noisy"][:] == is_noisy.tolist() and is_noisy.any()
    assert noise_from_description(rows.info.description).kind == protocol


def test_what_people_said(load, seen):
    rows = load(protocol="human:worse")
    wrong = np.arange(400) % 4 == 0
    assert rows["is_noisy"][:] == wrong.tolist()
    assert rows["label"][:] == np.where(wrong, np.arange(1, 401) % 10, np.arange(400) % 10).tolist()
    noise = noise_from_description(rows.info.description)
    assert isinstance(noise, HumanLabels) and noise.error_rate == 0.25 and noise.name == "worse"
    noise.check(rows["clean_label"][:])
    assert load("test", protocol="human:worse")["is_noisy"][:] == [False] * 30
    assert seen(load(protocol="human:worse", streaming=True)) == seen(rows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "human:worse", "r": 1}, "at the rate that they have; leave out r=1"),
        ({"protocol": "human:worse", "error_rate": 0.4}, "leave out error_rate=0.4"),
        ({"protocol": "human:worse", "name": "r0.5"}, "leave out r=0.5.*configuration 'r0.5' brings it"),
        ({"protocol": "human:worse", "noisy_splits": "test"}, "the train split alone; leave test out of noisy_splits"),
        ({"protocol": "human:best"}, "no column 'human_best'; it has .*'human_worse'"),
        ({"protocol": "human:", "r": 1}, "protocol must be one of symmetric, .* or human:<name>.* got 'human:'"),
        ({"protocol": "assymetric", "r": 1}, "got 'assymetric'"),
        ({"r": 1, "human_source": "a.parquet"}, "human_source= belongs to protocol=\"human:<name>\""),
        ({"r": 1, "pairs": {1: 2}}, "pairs= belongs to protocol=\"pairs\""),
        ({"r": 10}, r"past \(C - 1\)/C = 0.9 for 10 classes.*allow_adversarial=True"),
        ({"r": None}, "say how much noise: r=0.5 \\(noisy labels per clean one\\)"),
    ],
)
def test_refused(load, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        load(**settings)
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_a_rate_past_the_limit_if_it_is_meant(load):
    # 400 labels of which 10/11 flip: 5 standard errors, one false alarm in 1.7 million seeds.
    assert abs(np.mean(load(r=10, allow_adversarial=True)["is_noisy"]) - 10 / 11) < 5 * (10 / 121 / 400) ** 0.5


def test_pairs_of_ones_own(load):
    rows = load(r=1, protocol="pairs", pairs={0: 9})
    assert {pair for pair in zip(rows["clean_label"], rows["label"], strict=True) if pair[0] != pair[1]} == {(0, 9)}


def test_pairs_rely_on_the_order_of_classes(load, tmp_path, pictures):
    other = pictures(tmp_path / "other.parquet", np.arange(50) % 10, ["plane", "car", *NAMES[2:]])
    assert load(source=other, r=1).num_rows == 50
    with pytest.raises(ValueError, match="order of the classes airplane.*are plane, car.*give pairs="):
        load(source=other, r=1, protocol="pairs")
    assert load(source=other, r=1, protocol="pairs", pairs={0: 2}).num_rows == 50


def test_human_labels_beside_the_data(load, source, tmp_path, pictures):
    people = (np.arange(400) + (np.arange(400) % 2)) % 10
    settings = {"protocol": "human:own", "source": pictures(tmp_path / "plain.parquet", np.arange(400) % 10, NAMES)}
    given = pictures(tmp_path / "given.parquet", np.arange(400) % 10, label="clean_label", human_own=people)
    rows = load(human_source=given, **settings)
    assert rows["label"][:] == people.tolist() and np.mean(rows["is_noisy"]) == 0.5
    shuffled = pictures(tmp_path / "order.parquet", (np.arange(400) + 3) % 10, label="clean_label", human_own=people)
    with pytest.raises(ValueError, match="does not belong to .*plain.parquet.*another order"):
        load(human_source=shuffled, **settings)
    short = pictures(tmp_path / "short.parquet", np.arange(390) % 10, label="clean_label", human_own=people[:390])
    with pytest.raises(ValueError, match="belong to 390 samples, and the data have 400"):
        load(human_source=short, **settings)
    with pytest.raises(ValueError, match="no column 'human_own'.*choose one with human_source="):
        load(human_source=source["train"], **settings)


def test_human_labels_out_of_range(load, tmp_path, pictures):
    people = np.arange(50) % 10
    people[[7, 9]] = -1
    file = pictures(tmp_path / "gaps.parquet", np.arange(50) % 10, human_worse=people)
    with pytest.raises(ValueError, match=r"'human_worse': 2 of 50 human labels are outside \[0, 10\).*index 7: -1"):
        load(source=file, protocol="human:worse")


# --- the real thing ---


@pytest.fixture(scope="module")
def cifar(shared_data, tmp_path_factory):
    files = {split: shared_data / f"cifar10-{split}.parquet" for split in ("train", "test")}
    if missing := [str(file) for file in files.values() if not file.is_file()]:
        pytest.skip(f"{', '.join(missing)} not there")
    folder = tmp_path_factory.mktemp("cifar10")

    def load(**settings):
        source = {split: str(file) for split, file in files.items()}
        # The pictures are checked in one test, which is enough.
        settings = {"source": source, "check_images": False, "cache_dir": str(folder), **settings}
        return load_dataset(NAME, **settings)

    return load


def test_cifar10n(cifar, shared_data):
    data = cifar(protocol="human:worse")
    rows = data["train"].select_columns(["label", "clean_label", "is_noisy", "sample_id"]).with_format("numpy")[:]
    assert data["train"].num_rows == 50_000 and data["test"].num_rows == 10_000
    assert round(100 * rows["is_noisy"].mean(), 1) == 40.2
    labels = pq.read_table(shared_data / "cifar10-train.parquet", columns=["label", "human_worse"]).to_pydict()
    assert rows["label"].tolist() == labels["human_worse"] and rows["clean_label"].tolist() == labels["label"]
    np.testing.assert_array_equal(rows["sample_id"], np.arange(50_000))
    noise = noise_from_description(data["train"].info.description)
    expected = np.zeros((10, 10))
    np.add.at(expected, (labels["label"], labels["human_worse"]), 1 / 5000)
    np.testing.assert_allclose(noise.transition, expected, atol=1e-12)
    # People take trucks for automobiles and deer for horses.
    errors = expected - np.diag(np.diag(expected))
    assert errors[1].argmax() == 9 and errors[9].argmax() == 1 and errors[3].argmax() == 5
    record = json.loads(data["train"].info.description.splitlines()[-1])
    assert record["realised"]["train"] == {"rate": pytest.approx(0.402, abs=5e-4), "n": 50_000}


@pytest.mark.parametrize("protocol", ["symmetric", "uniform_resample", "cyclic", "pairs"])
def test_transition_matrices(cifar, protocol):
    """All entries within 4 standard errors: at most 200 that are random, so one false alarm in 70 seeds; one is set."""
    data = cifar(protocol=protocol, r=1.0)
    rows = data["train"].select_columns(["label", "clean_label", "is_noisy"]).with_format("numpy")[:]
    counts = np.zeros((10, 10))
    np.add.at(counts, (rows["clean_label"], rows["label"]), 1)
    expected = noise_from_description(data["train"].info.description).transition
    errors = np.sqrt(expected * (1 - expected) / counts.sum(axis=1, keepdims=True))
    assert (np.abs(counts / counts.sum(axis=1, keepdims=True) - expected) <= 4 * errors).all()
    rate = 1 - np.diagonal(expected).mean()
    assert abs(rows["is_noisy"].mean() - rate) <= 4 * np.sqrt(rate * (1 - rate) / 50_000)
    assert not data["test"].with_format("numpy")["is_noisy"][:].any()


def test_pictures_of_cifar(cifar, shared_data):
    stream = cifar(r=1, streaming=True, check_images=True)["train"]
    original = pq.ParquetFile(shared_data / "cifar10-train.parquet").read_row_group(0, columns=["image"])
    for row, picture in zip(stream.take(5), original["image"].to_pylist(), strict=False):
        assert row["image"].size == (32, 32) and row["image"].mode == "RGB"
        assert row["image"].filename.endswith(picture["path"] or "")
