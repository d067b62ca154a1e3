"""Text with labels, from a table through the usual map to the trainer: noisy labels, true ones, and ids."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, concatenate_datasets, load_dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    TrainingArguments,
)

from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.trainers import ClassifierTrainer
from hf_noise.trainers.base import noise_of

NAMES = ["art", "sports", "trade"]


@pytest.fixture
def table():
    """240 rows of text of several lengths; topics as words, and what a rule said of them."""
    topics = [NAMES[(i * 7) % 3] for i in range(240)]
    rule = [NAMES[(NAMES.index(topic) + (i % 4 == 0)) % 3] for i, topic in enumerate(topics)]
    text = [" ".join([topic] + ["word"] * (i % 5)) for i, topic in enumerate(topics)]
    return Dataset.from_dict({"text": text, "topic": topics, "weak": rule})


@pytest.fixture
def load(tmp_path):
    def load(source, **settings):
        given = {"source": source, "column": "topic", "cache_dir": str(tmp_path / "cache"), "split": "train"}
        return load_dataset("hf_noise/noisy", **(given | settings))

    return load


@pytest.fixture
def tokenize():
    words = {"[PAD]": 0, "[UNK]": 1, "word": 2} | {name: 3 + i for i, name in enumerate(NAMES)}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


@pytest.fixture
def trainer(tokenize, tmp_path):
    def make(rows, **options):
        torch.manual_seed(0)
        config = BertConfig(vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                            intermediate_size=16, max_position_embeddings=8, num_labels=3,
                            id2label=dict(enumerate(NAMES)), label2id={n: i for i, n in enumerate(NAMES)})  # fmt: skip
        args = TrainingArguments(
            output_dir=str(tmp_path / "run"), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no",
            per_device_train_batch_size=8, max_steps=2, logging_steps=1,
        )  # fmt: skip
        options = {"processing_class": tokenize} | options
        return ClassifierTrainer(BertForSequenceClassification(config), args, train_dataset=rows, **options)

    return make


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "dataset"])
def test_a_table_of_any_kind_comes_as_it_is_with_its_classes_in_one_order(table, load, tmp_path, kind):
    path = tmp_path / f"train.{kind}"
    if kind != "dataset":
        getattr(table, {"csv": "to_csv", "jsonl": "to_json", "parquet": "to_parquet"}[kind])(path)
    rows = load(table if kind == "dataset" else str(path), r=0.5)
    assert rows.features["topic"] == rows.features["clean_topic"] == ClassLabel(names=NAMES)
    assert rows["text"][:] == table["text"][:] and rows["weak"][:] == table["weak"][:]
    clean = np.array([NAMES.index(topic) for topic in table["topic"]])
    assert rows["clean_topic"][:] == clean.tolist()
    noisy, is_noisy = LabelFlips.symmetric(ratio=0.5, num_classes=3)(clean, sample=np.array(rows["sample_id"]))
    assert rows["topic"][:] == noisy.tolist() and rows["is_noisy"][:] == is_noisy.tolist()


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("removed", [None, ["text", "weak"]])
@pytest.mark.parametrize("pads", ["processing_class", "data_collator"])
def test_a_usual_map_keeps_them_through_to_the_batch(table, load, trainer, tokenize, streaming, removed, pads):
    rows = load(table, r=0.5, streaming=streaming)
    mapped = rows.map(lambda batch: tokenize(batch["text"]), batched=True, remove_columns=removed)
    mapped = mapped.rename_columns({"topic": "label", "clean_topic": "clean_label"})
    if pads == "data_collator":
        options = {"processing_class": None, "data_collator": DataCollatorWithPadding(tokenize)}
    else:
        options = {}
    made = trainer(mapped, **options)
    assert made.noise == noise_of(mapped) and made.noise.ratio == 0.5
    batch = next(iter(made.get_train_dataloader()))
    stored = {row["sample_id"]: row for row in rows}
    for i, sample in enumerate(batch["sample_id"].tolist()):
        row = stored[sample]
        assert (row["topic"], row["clean_topic"], row["is_noisy"]) == (
            int(batch["labels"][i]), int(batch["clean_labels"][i]), bool(batch["is_noisy"][i]))  # fmt: skip
        assert batch["input_ids"][i, 0] == 3 + row["clean_topic"]
    assert set(batch) == {"input_ids", "attention_mask", "labels", "clean_labels", "is_noisy", "sample_id"}
    made.train()
    assert made.realised_noise()["n"] == 16


def labelled(rows, tokenize):
    rows = rows.map(lambda batch: tokenize(batch["text"]), batched=True)
    return rows.rename_columns({"topic": "labels", "clean_topic": "clean_labels"})


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.select(range(200)), lambda rows: rows.filter(lambda row: "word" in row["text"]),
        lambda rows: rows.train_test_split(0.2, seed=0)["train"], lambda rows: rows.shuffle(seed=1),
        lambda rows: rows.sort("text"), lambda rows: rows.shard(2, 0),
        lambda rows: rows.train_test_split(0.2, seed=0)["test"],
    ],
    ids=["select", "filter", "train", "shuffle", "sort", "shard", "test"],
)  # fmt: skip
def test_the_noise_stays_with_chosen_rows(table, load, trainer, tokenize, change):
    made = trainer(change(labelled(load(table, r=0.5), tokenize)))
    assert made.noise == LabelFlips.symmetric(ratio=0.5, num_classes=3, redraw="never")
    made.train()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.filter(lambda row: not row["is_noisy"]), "the rows are said to carry LabelFlips"),
        (lambda rows: rows.map(lambda row: {"labels": 0}), "the rows are said to carry LabelFlips"),
        (lambda rows: rows.remove_columns("is_noisy"), "the rows have no is_noisy, so that they would count as"),
        (lambda rows: rows.map(lambda row: {"is_noisy": False}), "the rows are said to carry LabelFlips"),
        (lambda rows: rows.add_column("again", rows["sample_id"]).remove_columns("sample_id").add_column(
            "sample_id", list(range(5, 5 + len(rows)))), "the rows are said to carry LabelFlips"),
    ],
    ids=["filtered by the mask", "other labels", "no mask", "no noise", "other ids"],
)  # fmt: skip
def test_what_contradicts_the_noise_is_refused_by_name(table, load, trainer, tokenize, change, message):
    rows = change(labelled(load(table, r=0.5), tokenize))
    with pytest.raises(ValueError, match=message):
        trainer(rows).train()


def test_rows_of_two_noises_are_refused(table, load, trainer, tokenize):
    one, other = (labelled(load(table, r=r), tokenize) for r in (0.5, 1.0))
    with pytest.raises(ValueError, match="the rows state several noises"):
        trainer(concatenate_datasets([one, other]))


def test_text_that_nobody_tokenized_is_refused(table, load, trainer):
    rows = load(table, r=0.5).rename_columns({"topic": "label", "clean_topic": "clean_label"})
    with pytest.raises(ValueError, match="rows need input_ids, .*they have: text, label, .*by a tokenizer: rows ="):
        trainer(rows).train()


# --- labels that rules gave ---


def test_weak_labels_are_the_noisy_ones_and_their_matrix_is_counted(table, load, trainer, tokenize):
    rows = load(table, weak_column="weak")
    assert rows["topic"][:] == [NAMES.index(name) for name in table["weak"]]
    assert rows["clean_topic"][:] == [NAMES.index(name) for name in table["topic"]]
    noise = noise_of(rows)
    assert isinstance(noise, HumanLabels) and noise.name == "weak" and noise.error_rate == 0.25
    assert np.diag(noise.transition) == pytest.approx(0.75) and "people or rules" in noise.summary
    assert load(table, human_column="weak")._fingerprint == rows._fingerprint, "another spelling of one setting"
    made = trainer(labelled(rows, tokenize), loss="corrected")
    np.testing.assert_allclose(made.objective.transition, noise.transition)
    made.train()
    assert made.evaluate(labelled(rows, tokenize))["eval_rows"] == 240
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trainer(labelled(rows, tokenize).select(range(100))).noise == noise


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda rows: rows, {"weak_column": "rule"}, "no column 'rule'; .*choose one with weak_column="),
        (lambda rows: rows, {"weak_column": "weak", "human_column": "topic"}, "both name the given labels"),
        (lambda rows: rows, {"weak_column": "weak", "r": 0.5}, "at the rate that they have; leave out r=0.5"),
        (lambda rows: rows, {"weak_column": 5}, "weak_column must be a name, got 5"),
        (lambda rows: rows, {"weak_column": "weak", "protocol": "cyclic", "r": 1}, "weak_column= belongs to"),
        (lambda rows: rows.map(lambda row: {"weak": "else"}), {"weak_column": "weak"},
         "'weak' holds 'else', which is none of the 3 classes .art, sports, trade."),
        (lambda rows: rows.class_encode_column("topic").cast_column("topic", ClassLabel(names=NAMES))
         .remove_columns("weak").add_column("weak", [0] * 240)
         .cast_column("weak", ClassLabel(names=["art", "trade", "sports"])), {"weak_column": "weak"},
         "'topic' and 'weak' .* number their classes differently"),
    ],
)  # fmt: skip
def test_weak_labels_that_do_not_fit_are_refused(table, load, change, settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        load(change(table), **settings)
