"""CIFAR-100: the fine labels, and pairs inside a superclass."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from hf_noise.data.builders.cifar100_noisy import Cifar100NoisyConfig
from hf_noise.noise.label_maps import CIFAR100_SUPERCLASSES

NAME = "hf_noise/cifar100-noisy"


@pytest.fixture
def source(tmp_path, pictures):
    """As on the Hub: `img`, `fine_label`, `coarse_label`."""
    file = pictures(tmp_path / "train.parquet", np.arange(1000) % 100, image="img", label="fine_label")
    table = pq.read_table(file)
    pq.write_table(table.append_column("coarse_label", pa.array([0] * 1000)), file)
    return file


def load(source, tmp_path, **settings):
    return load_dataset(NAME, source=source, split="train", cache_dir=str(tmp_path), **settings)


def test_the_hub_by_default():
    assert Cifar100NoisyConfig(r=1).source == "uoft-cs/cifar100"


def test_fine_labels(source, tmp_path):
    rows = load(source, tmp_path, r=0.5)
    assert rows.column_names == ["image", "label", "sample_id", "clean_label", "is_noisy"]
    assert rows["clean_label"][:] == (np.arange(1000) % 100).tolist() and rows.features["label"].num_classes == 100


def test_pairs_stay_in_their_superclass(source, tmp_path):
    rows = load(source, tmp_path, r=1, protocol="pairs")
    superclass = {fine: name for name, members in CIFAR100_SUPERCLASSES.items() for fine in members}
    wrong = [(a, b) for a, b in zip(rows["clean_label"], rows["label"], strict=True) if a != b]
    assert all(superclass[a] == superclass[b] for a, b in wrong)
    # Every class has a partner: 5 standard errors, one false alarm in 1.7 million seeds.
    assert abs(len(wrong) / 1000 - 0.5) < 5 * (0.25 / 1000) ** 0.5


def test_labels_of_another_column(source, tmp_path):
    with pytest.raises(ValueError, match="no row of 99 of its 100 classes"):
        load(source, tmp_path, r=1, label_column="coarse_label")
