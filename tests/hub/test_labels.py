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
    called = {CYCLIC: {"r": 1.0, "protocol": "cyclic", "pairs": [[0, 1], [1, 0]]}, PEOPLE: {"protocol": "human:worse"}}
    configs = [
        describe_config({"train": labelled}, name, noise.to_dict()) | {"arguments": called[noise]}
        for name, noise in noises.items()
    ]
    return DataRecord(
        name="user/pictures", builder="hf_noise/digits-noisy", source="embedded/digits", unit=unit, data={},
        columns=columns, configs=configs, command="x", versions={}, git=None,
    )  # fmt: skip


def test_the_protocol_comes_back_by_name(labelled):
    text = data_card(record(labelled, {"r1.0": CYCLIC})).text
    again = 'hf_noise.load_dataset("hf_noise/digits-noisy", r=1.0, protocol="cyclic", pairs={0: 1, 1: 0})'
    assert again in text and 'noise(rows["clean_label"][:], sample=rows["sample_id"][:], epoch=0)' in text


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


def test_a_source_on_the_hub(client, fresh_python, tmp_path):
    """Small data sets with the columns of the default ones, read over HTTP by a new process."""
    import json

    from huggingface_hub import HfApi

    api, pictures = HfApi(), [{"bytes": png(number), "path": None} for number in range(200)]
    forms = {"user/cifar10": ("img", "label", 10), "user/cifar100": ("img", "fine_label", 100)}
    for repo, (image, label, classes) in forms.items():
        api.create_repo(repo, repo_type="dataset")
        kinds = {image: datasets.Image(), label: datasets.ClassLabel(num_classes=classes)}
        for split in ("train", "test"):
            columns = {image: pictures, label: np.arange(200) % classes}
            file = tmp_path / "part.parquet"
            datasets.Dataset.from_dict(columns, features=datasets.Features(kinds)).to_parquet(file)
            name = f"data/{split}-00000-of-00001.parquet"
            api.upload_file(path_or_fileobj=file.read_bytes(), path_in_repo=name, repo_id=repo, repo_type="dataset")
    out = fresh_python(
        """
import json
import hf_noise
from datasets import load_dataset
found = {}
for name in ("cifar10", "cifar100"):
    data = load_dataset(f"hf_noise/{name}-noisy", r=1, source=f"user/{name}")
    stream = load_dataset(f"hf_noise/{name}-noisy", r=1, source=f"user/{name}", split="train", streaming=True)
    columns = ["label", "clean_label", "is_noisy", "sample_id"]
    rows = data["train"].select_columns(columns)
    assert list(stream.select_columns(columns)) == rows.to_list() and not any(data["test"]["is_noisy"])
    found[name] = [rows.to_dict(), data["train"][7]["image"].getpixel((0, 0))]
print(json.dumps(found))
"""
    )
    for name, (rows, pixel) in json.loads(out.splitlines()[-1]).items():
        classes = {"cifar10": 10, "cifar100": 100}[name]
        noisy, is_noisy = LabelFlips.symmetric(ratio=1, num_classes=classes)(
            np.arange(200) % classes, sample=np.arange(200)
        )
        assert rows["label"] == noisy.tolist() and rows["is_noisy"] == is_noisy.tolist() and pixel == 7


def png(number: int) -> bytes:
    import io

    import PIL.Image

    stream = io.BytesIO()
    PIL.Image.new("L", (2, 2), number).save(stream, "PNG")
    return stream.getvalue()
