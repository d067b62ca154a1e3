"""Data sets with noisy labels and pictures, as they are published."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
from hub_store import card_errors
from huggingface_hub import DatasetCard

from hf_noise.hub.data_card import LABEL_COLUMNS, data_card, describe_columns
from hf_noise.hub.data_folder import describe_config, write_config
from hf_noise.hub.load import load_noise
from hf_noise.hub.push import push_dataset
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.reports.record import DataRecord

CYCLIC = LabelFlips.cyclic(ratio=1, num_classes=3, seed=4, redraw="never")
PEOPLE = HumanLabels.from_columns(np.arange(30) % 3, np.arange(30) // 2 % 3, num_classes=3, name="worse")


@pytest.fixture
def labelled(tmp_path):
    """Thirty pictures that lie in files, in three classes."""
    import PIL.Image

    paths = []
    for number in range(30):
        PIL.Image.new("L", (2, 2), number).save(tmp_path / f"{number}.png")
        paths.append(str(tmp_path / f"{number}.png"))
    clean, ids = np.arange(30) % 3, np.arange(30)
    noisy, is_noisy = CYCLIC(clean, sample=ids)
    kinds = datasets.ClassLabel(names=["a", "b", "c"])
    columns = {"image": paths, "label": noisy, "sample_id": ids, "clean_label": clean, "is_noisy": is_noisy}
    features = {"image": datasets.Image(), "label": kinds, "sample_id": datasets.Value("int64"), "clean_label": kinds,
                "is_noisy": datasets.Value("bool")}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def test_pictures_go_into_the_files(labelled, tmp_path):
    (path,) = write_config({"train": labelled}, tmp_path / "out", "r1.0").values()
    for number in range(30):
        (tmp_path / f"{number}.png").unlink()
    rows = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path))
    assert [np.asarray(picture)[0, 0] for picture in rows["image"]] == list(range(30))
    assert rows.features == labelled.features and rows["label"][:] == labelled["label"][:]


def test_a_push_says_what_the_columns_hold(client, labelled):
    push_dataset(labelled, "user/pictures", config_name="r1.0", noise=CYCLIC, source="some/pictures")
    card = DatasetCard(client.files("user/pictures", "dataset")["README.md"].decode())
    assert "`some/pictures` with labels corrupted on purpose." in card.text and card_errors(str(card)) == []
    for column, meaning in LABEL_COLUMNS.items():
        assert f"| `{column}` | {meaning} |" in card.text
    assert "| `r1.0` | label_flips (cyclic) | 1 | 0.5 |" in card.text
    assert "needs `hf_noise` and the true labels" in card.text
    wrong = sum(labelled["is_noisy"])
    assert card.data["noise"][0]["realised"] == {"rate": wrong / 30, "n": 30}
    assert load_noise("user/pictures") == CYCLIC


def record(labelled, noises):
    unit, columns = describe_columns(labelled.features)
    configs = [describe_config({"train": labelled}, name, noise.to_dict()) for name, noise in noises.items()]
    return DataRecord(
        name="user/pictures", builder="hf_noise/digits-noisy", source="embedded/digits", unit=unit, data={},
        columns=columns, configs=configs, command="x", versions={}, git=None,
    )  # fmt: skip


def test_the_protocol_comes_back_by_name(labelled):
    text = data_card(record(labelled, {"r1.0": CYCLIC})).text
    assert 'hf_noise.load_dataset("hf_noise/digits-noisy", r=1, protocol="cyclic")' in text


def test_labels_of_people_are_not_called_artificial(labelled, tmp_path):
    card = data_card(record(labelled, {"worse": PEOPLE}))
    assert "the noise is that of real annotators" in card.text and "synthetic" not in card.text
    assert "`embedded/digits` with labels that people gave." in card.text
    assert 'load_dataset("hf_noise/digits-noisy", protocol="human:worse")' in card.text
    assert "| `worse` | human_labels (worse) |" in card.text and card_errors(str(card)) == []
    card.save(tmp_path / "README.md")
    assert load_noise(tmp_path) == PEOPLE
    both = data_card(record(labelled, {"r1.0": CYCLIC, "worse": PEOPLE})).text
    assert "synthetic" in both and "Where the protocol is human_labels: the noisy labels are those" in both
