"""What an audit makes of images and texts: features without labels, networks in folds, and networks of others."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from PIL import Image
from printed import printed_by
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from hf_noise import audit_labels
from hf_noise.reports.record import RunRecord
from hf_noise.studies.audit import network, study
from hf_noise.studies.audit.patches import patch_features
from hf_noise.studies.audit.words import cut_note, word_features

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import feature_backbones as tiny  # noqa: E402  (tests are no package: the line above makes it importable)

main = functools.partial(printed_by, study.main)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of stripes that lie or stand, in one folder a class, every eighth in the other's."""
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(80):
        stripes = np.tile((np.arange(20) // 2 % 2)[:, None] * 120, (1, 20)) + draw.integers(0, 100, (20, 20))
        is_lying = i % 2 == 0
        place = folder / ("lying" if is_lying != (i % 8 < 1) else "standing")
        place.mkdir(exist_ok=True)
        Image.fromarray((stripes if is_lying else stripes.T).astype(np.uint8)).save(place / f"{i:02d}.png")
    return folder


def test_a_folder_of_images_needs_no_more_than_its_path(pictures, tmp_path):
    printed = main("--source", pictures, "--output", tmp_path)
    record = RunRecord.from_json((tmp_path / "record.json").read_text())
    assert record.model["way"] == "patches" and record.data["column"] == "label"
    rows = pq.read_table(tmp_path / "rows.parquet").to_pandas()
    order = rows.sort_values("p_wrong", ascending=False)
    found = {Path(one["path"]).name for one in order.image[:10]}
    assert found == {f"{i:02d}.png" for i in range(0, 80, 8)}, "by the names of their files"
    assert "lying" in printed and any(f"/{name}" in printed for name in found)
    assert not any("/" in one["path"] for one in order.image), "no folder of this machine"
    (moved := tmp_path / "moved").mkdir()
    (tmp_path / "rows.parquet").rename(moved / "rows.parquet")
    rows = load_dataset("parquet", data_files=str(moved / "rows.parquet"), split="train")
    own = {place.name: place.read_bytes() for place in pictures.glob("*/*.png")}
    assert all(one["bytes"] == own[one["path"]] for one in order.image) and rows[0]["image"].size == (20, 20)
    for name in ("features", "probabilities"):
        mode = (tmp_path / f"{name}.safetensors").stat().st_mode
        assert mode == (tmp_path / "record.json").stat().st_mode, "others may read all files or none"


def test_networks_are_trained_in_folds_that_are_kept(pictures, tmp_path, monkeypatch):
    told = [
        "--source", pictures, "--network", "resnet10-digits", "--network_size", "8", "--folds", "2", "--epochs", "1",
        "--batch_size", "20", "--output", tmp_path,
    ]  # fmt: skip
    trained, rows = network.trained, []

    def counted(settings, pictures, labels, fitted, *more, **kwargs):
        rows.append(fitted)
        return trained(settings, pictures, labels, fitted, *more, **kwargs)

    monkeypatch.setattr(network, "trained", counted)
    first = main(*told)
    assert len(rows) == 2 and sorted(np.concatenate(rows)) == list(range(80)), "each row is judged by the other fold's"
    (tmp_path / "folds" / "fold-1.safetensors").unlink()
    assert main(*told) == first and len(rows) == 3, "only what is lost is made again"
    main(*told, "--train")
    record = RunRecord.from_json((tmp_path / "record.json").read_text())
    assert "given_label_accuracy_corrected" in record.metrics and record.model["way"] == "network"


def test_a_network_of_the_users_makes_the_features(tmp_path):
    model, draw = tiny.bert(tmp_path / "bert"), np.random.default_rng(0)
    labels = np.arange(90) % 2
    texts = [" ".join(draw.choice(["a", "b", "c"] if label else ["d", "e", "f"], 6)) for label in labels]
    given = np.where(np.arange(90) < 9, 1 - labels, labels)
    from datasets import ClassLabel, Dataset, Features, Value

    of = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rows = Dataset.from_dict({"text": texts, "label": given}, features=of)
    rows.to_parquet(tmp_path / "rows.parquet")
    main("--source", tmp_path / "rows.parquet", "--model", model, "--output", tmp_path / "out")
    found = pq.read_table(tmp_path / "out" / "rows.parquet")["p_wrong"].to_numpy()
    own = audit_labels(rows, column="label", model=model)
    np.testing.assert_allclose(found, own.p_wrong, atol=1e-6)
    assert (np.argsort(-found)[:9] < 9).mean() > 0.8
    with pytest.raises(ValueError, match="there are 'text', 'more'; remove_columns"):
        audit_labels(rows.add_column("more", texts), column="label", model=model)
    with pytest.raises(ValueError, match="labels were given as an array"):
        audit_labels(given, model=model)
    with pytest.raises(ValueError, match="not two of them"):
        audit_labels(rows, column="label", model=model, features=np.zeros((90, 2)))


def test_words_tell_topics_apart_and_copies_do_not_differ():
    draw = np.random.default_rng(0)
    words = [["red", "blue", "green"], ["north", "south", "west"]]
    labels = np.arange(200) % 2
    texts = [" ".join(draw.choice(words[label], 4)) + f" number {draw.integers(99)}" for label in labels]
    features, test = word_features([*texts, texts[0]], texts[:3])
    assert features.shape == (201, 12) and features.dtype == np.float32
    np.testing.assert_array_equal(features[200], features[0])
    np.testing.assert_allclose(test, features[:3], atol=1e-5)
    assert cross_val_score(LogisticRegression(C=100), features[:200], labels).mean() > 0.95
    cut = cut_note([*texts, "north " * 5000])
    assert cut == "of 1 texts only the first 10,000 letters are read (the longest has 30,000)" and not cut_note(texts)
    assert word_features(["!", "?", "! ?"])[0].shape[0] == 3, "signs are words where there are no others"


def test_patches_tell_patterns_apart_and_copies_do_not_differ():
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (70, 3, 16, 16), generator=draw)
    images[::2] += (torch.arange(16) // 2 % 2 * 120)[:, None]
    images[1::2] += torch.arange(16) // 2 % 2 * 120
    images = images.to(torch.uint8)
    images[69] = images[3]
    features, test = patch_features(images, images[5:9])
    assert features.shape == (70, 512) and features.dtype == np.float32 and (features >= 0).all()
    np.testing.assert_array_equal(features[69], features[3])
    np.testing.assert_allclose(test, features[5:9], rtol=1e-4, atol=1e-5)
    assert cross_val_score(LogisticRegression(), features, np.arange(70) % 2).mean() > 0.95
