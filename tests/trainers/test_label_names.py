"""Labels under a name of the data set's own are found where `is_noisy` can be of nothing else, and else asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from torch.utils.data import ConcatDataset, Subset

import hf_noise
from hf_noise.noise import LabelFlips
from hf_noise.objectives import ELR
from hf_noise.trainers.label_names import with_label_names

TOPICS = ClassLabel(names=["art", "law", "sea", "sun"])
RIGHT = np.arange(32) % 4
WRONG = np.where(np.arange(32) % 5 == 0, (RIGHT + 1) % 4, RIGHT)


def noisy_texts(**renamed) -> Dataset:
    """Tokens, `topic` with every fifth label wrong, `clean_topic`, `is_noisy` and `sample_id`."""
    tokens = np.random.default_rng(0).integers(8, 64, (32, 6))
    columns = {"input_ids": tokens.tolist(), "topic": WRONG, "clean_topic": RIGHT, "is_noisy": WRONG != RIGHT,
               "worker": np.arange(32), "sample_id": np.arange(32)}  # fmt: skip
    kinds = {"input_ids": List(Value("int64")), "topic": TOPICS, "clean_topic": TOPICS, "is_noisy": Value("bool"),
             "worker": Value("int64"), "sample_id": Value("int64")}  # fmt: skip
    return Dataset.from_dict(columns, features=Features(kinds)).rename_columns(renamed)


def built(tmp_path, **settings) -> Dataset:
    """The same by `load_dataset`, of a file with a column `crowd` beside the true ones."""
    names = np.array(TOPICS.names)
    Dataset.from_dict({"text": ["a b"] * 32, "topic": names[RIGHT], "crowd": names[WRONG]}).to_csv(tmp_path / "a.csv")
    rows = hf_noise.load_dataset(
        "hf_noise/noisy", source=str(tmp_path / "a.csv"), column="topic", split="train", cache_dir=str(tmp_path / "c"),
        **settings,
    )  # fmt: skip
    return rows.map(lambda row: {"input_ids": [8, 9, 10 + row["sample_id"]]})


@pytest.mark.parametrize("loss", ["nll", "corrected", ELR()], ids=str)
def test_a_built_data_set_is_taken_under_its_own_names(any_trainer, tmp_path, loss):
    rows = built(tmp_path, weak_column="crowd")
    trainer = any_trainer("classifier", rows=rows, eval_rows=rows, loss=loss, max_steps=4)
    assert trainer.noise.error_rate == pytest.approx((WRONG != RIGHT).mean())
    trainer.train()
    assert trainer.realised_noise() == {"rate": pytest.approx((WRONG != RIGHT).mean()), "n": 32}
    for found in (trainer.evaluate(), trainer.evaluate(rows), trainer.predict(rows).metrics):
        assert {name.partition("_")[2] for name in found} >= {"accuracy", "accuracy_trained_labels", "memorised"}


def test_drawn_noise_of_a_built_data_set(any_trainer, tmp_path):
    trainer = any_trainer("classifier", rows=built(tmp_path, r=0.5, seed=1), max_steps=1)
    assert isinstance(trainer.noise, LabelFlips)
    trainer.train()


def batch_of(trainer):
    return next(iter(trainer.get_eval_dataloader()))


WRAPPED = {
    "table": lambda rows: rows,
    "stream": lambda rows: rows.to_iterable_dataset(),
    "torch format": lambda rows: rows.with_format("torch"),
    "mappings": list,
    "subset": lambda rows: Subset(rows, range(31, -1, -1)),
    "put together": lambda rows: ConcatDataset([Subset(rows, range(16)), Subset(rows, range(16, 32))]),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_rows_of_every_kind(any_trainer, wrap):
    rows = wrap(noisy_texts())
    trainer = any_trainer("classifier", rows=rows, eval_rows=rows, max_steps=1, per_device_eval_batch_size=32)
    batch = batch_of(trainer)
    order = batch["sample_id"].numpy()
    assert batch["labels"].tolist() == WRONG[order].tolist() and batch["clean_labels"].tolist() == RIGHT[order].tolist()
    trainer.train()


def test_a_data_set_that_comes_in_parts_stays_one():
    rows = noisy_texts()
    first, second = with_label_names(ConcatDataset([Subset(rows, [0]), Subset(rows, [1])])).datasets
    assert first.dataset is second.dataset and "topic" in rows.column_names


@pytest.mark.parametrize("kind", ["image_classifier", "time_classifier", "edm"])
def test_trainers_on_images(any_trainer, kind):
    rows = noisy_texts().remove_columns("input_ids").with_format("numpy")
    rows = rows.map(lambda row: {"pixel_values": np.full((1, 8, 8), row["sample_id"] / 32, np.float32)})
    trainer = any_trainer(kind, rows=rows, eval_rows=rows.with_format("torch"), max_steps=1,
                          per_device_eval_batch_size=32)  # fmt: skip
    assert batch_of(trainer)["labels"].tolist() == WRONG.tolist()
    trainer.train()
    assert trainer.realised_noise()["n"] == 8


ASKED = {
    "one of two was renamed": (
        noisy_texts(topic="label"),
        r"rows have label and is_noisy, and no clean_label .* rows.rename_columns\(\{'clean_topic': 'clean_label'\}\)",
    ),
    "the other one": (noisy_texts(clean_topic="clean_label"), r"rename_columns\(\{'topic': 'label'\}\)"),
    "no clean ones": (noisy_texts(topic="label").remove_columns("clean_topic"), "add the column clean_label, or drop"),
    "another label beside": (
        noisy_texts().add_column("label", RIGHT),
        r"if topic is meant, rows.remove_columns\('label'\).rename_columns\(\{'topic': 'label', 'clean_topic': 'cl",
    ),
    "two pairs": (
        noisy_texts().add_column("clean_worker", RIGHT),
        r"the labels may be topic or worker .*rename_columns\(\{'topic': 'label', 'clean_topic': 'clean_label'\}\)",
    ),
    "no pair": (noisy_texts().remove_columns("clean_topic"), "in no column of integers that has its clean_ one"),
    "words": (
        noisy_texts().cast_column("topic", Value("string")).cast_column("clean_topic", Value("string")),
        "in no column of integers that has its clean_ one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("rows", ASKED)
def test_what_cannot_be_told_is_refused_when_the_trainer_is_made(any_trainer, rows):
    data, message = ASKED[rows]
    for kind in ("classifier", "image_classifier"):
        with pytest.raises(ValueError, match=message):
            any_trainer(kind, rows=data)
    with pytest.raises(ValueError, match=message):
        any_trainer("classifier", eval_rows=data)
    with pytest.raises(ValueError, match=message):
        any_trainer("classifier").evaluate(data)


@pytest.mark.parametrize(("renamed", "message"), [
    ({}, r"rows need labels .*they have: .*rename_columns\(\{'topic': 'label', 'clean_topic': 'clean_label'\}\)"),
    ({"topic": "label"}, r"no clean_label .*rename_columns\(\{'clean_topic': 'clean_label'\}\)"),
])  # fmt: skip
def test_a_stream_of_unknown_columns_says_so_in_its_first_batch(any_trainer, renamed, message):
    rows = noisy_texts(**renamed).to_iterable_dataset().map(lambda row: row)
    assert rows.column_names is None
    with pytest.raises(ValueError, match=message):
        any_trainer("classifier", rows=rows).train()


def test_a_collator_that_makes_the_labels_sees_the_names_that_rows_have(any_trainer):
    def collate(rows):
        named = {"labels": "topic", "clean_labels": "clean_topic", "is_noisy": "is_noisy", "input_ids": "input_ids"}
        return {use: torch.tensor([row[name] for row in rows]) for use, name in named.items()}

    trainer = any_trainer("classifier", rows=noisy_texts(), data_collator=collate, remove_unused_columns=False)
    trainer.train()
    assert 0 < trainer.realised_noise()["rate"] < 1
