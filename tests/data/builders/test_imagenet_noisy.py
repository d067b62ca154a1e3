"""ImageNet and its subsets, from tiny pictures with all its classes."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from datasets import load_dataset

from hf_noise.data.builders.imagenet_noisy import IMAGENETTE, ImagenetNoisyConfig, imagenet_classes
from hf_noise.noise import LabelFlips

NAME = "hf_noise/imagenet-noisy"
NAMES = [f"class {i}" for i in range(1000)]  # as on the Hub: words, in the order of the WordNet ids


@pytest.fixture(scope="module")
def source(tmp_path_factory, pictures):
    """Two pictures a class to train on, one to validate, and a test split without labels."""
    folder = tmp_path_factory.mktemp("imagenet")
    pictures(folder / "train.parquet", np.arange(2000) % 1000, NAMES, row_group_size=500)
    pictures(folder / "validation.parquet", np.arange(1000), NAMES)
    pictures(folder / "test.parquet", np.full(50, -1), NAMES)
    return str(folder)


@pytest.fixture
def load(tmp_path, source):
    def load(split=None, **settings):
        defaults = {"r": 1, "source": source, "cache_dir": str(tmp_path / "cache")}
        return load_dataset(NAME, split=split, **{**defaults, **settings})

    return load


def test_the_hub_by_default():
    config = ImagenetNoisyConfig(r=1)
    assert config.source == "ILSVRC/imagenet-1k" and config.classes == 1000


def test_subsets():
    assert imagenet_classes(10) == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
    assert imagenet_classes(100)[:3] == [0, 10, 20] and imagenet_classes(100)[-1] == 990
    assert list(IMAGENETTE.values()) == sorted(IMAGENETTE.values())
    for wrong in (50, 1, True, "10"):
        with pytest.raises(ValueError, match="classes must be 10, 100 or 1000, got"):
            imagenet_classes(wrong)


@pytest.mark.parametrize("classes", [10, 100, 1000])
def test_a_subset_is_numbered_anew(load, classes, seen):
    data = load(classes=classes)
    assert {split: rows.num_rows for split, rows in data.items()} == {"train": 2 * classes, "validation": classes}
    chosen = imagenet_classes(classes)
    train = data["train"]
    assert train.features["label"].names == [NAMES[index] for index in chosen]
    assert [number for number, *_ in seen(data["validation"])] == chosen
    assert train["clean_label"][:] == [*range(classes)] * 2
    assert train["sample_id"][:] == [*chosen, *(1000 + index for index in chosen)]
    noise = LabelFlips.symmetric(ratio=1, num_classes=classes)
    assert train["label"][:] == noise(np.array(train["clean_label"]), sample=np.array(train["sample_id"]))[0].tolist()
    assert json.loads(train.info.description.splitlines()[-1])["classes"] == classes
    assert seen(load("train", classes=classes, streaming=True)) == seen(train)


def test_settings_are_checked_before_anything_is_read():
    with pytest.raises(ValueError, match="classes must be 10, 100 or 1000, got 50"):
        load_dataset(NAME, r=1, classes=50)
    with pytest.raises(ValueError, match="no map of similar classes is known.*give pairs="):
        load_dataset(NAME, r=1, protocol="pairs")


def test_a_source_of_just_these_classes(load, tmp_path, pictures, caplog):
    wnids = list(IMAGENETTE.values())
    file = pictures(tmp_path / "imagenette.parquet", np.arange(50) % 10, wnids)
    with caplog.at_level(logging.WARNING, logger="hf_noise"):
        rows = load("train", source=file, classes=10)
    assert rows.num_rows == 50 and rows.features["label"].names == wnids and not caplog.records
    other = pictures(tmp_path / "other.parquet", np.arange(50) % 10, [f"n{i:08d}" for i in range(10)])
    with caplog.at_level(logging.WARNING, logger="hf_noise"):
        load("train", source=other, classes=10)
    assert "ten classes are not those of Imagenette" in caplog.text
    with pytest.raises(ValueError, match="have 10 classes; classes=100 takes a source of all 1000 or of just those"):
        load(source=file, classes=100)


def test_wordnet_ids_have_to_be_in_order(load, tmp_path, pictures):
    names = [f"n{i:08d}" for i in range(1000)]
    for index, wnid in IMAGENETTE.items():
        names[index] = wnid
    rows = load("train", source=pictures(tmp_path / "a.parquet", np.arange(1000), names), classes=10)
    assert rows.features["label"].names == list(IMAGENETTE.values())
    file = pictures(tmp_path / "b.parquet", np.arange(1000), names[1:] + names[:1])
    with pytest.raises(ValueError, match="not in the order of the 1000 WordNet ids.*n01440764 is not at its place"):
        load(source=file, classes=10)


def test_people_name_any_class(load, tmp_path, pictures):
    labels = np.arange(1000)
    file = pictures(tmp_path / "a.parquet", labels, human_some=labels)
    assert load("train", source=file, r=None, protocol="human:some").num_rows == 1000
    with pytest.raises(ValueError, match="needs all 1000 classes"):
        load(source=file, r=None, protocol="human:some", classes=10)
