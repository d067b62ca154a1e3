"""The study of fine-tuning from the command line to its table: a tiny encoder on texts whose words tell their class."""

from __future__ import annotations

import functools
import json
import re

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from printed import printed_by
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

import hf_noise
from hf_noise.hub.adapter import load_adapter
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.objectives import LGM, CorrectedLabels, CrossEntropy, Regularised, objective_from_dict
from hf_noise.reports.record import read_records
from hf_noise.studies.engine import Job
from hf_noise.studies.finetune import run as work
from hf_noise.studies.finetune.data import read_rows
from hf_noise.studies.finetune.encoder import embedded_words, encoder_config
from hf_noise.studies.finetune.network import adapted, pretrained
from hf_noise.studies.finetune.runs import EMBEDDED_MODEL, LOSSES, Run, objective_of, passes_of, runs_of
from hf_noise.studies.finetune.study import STUDY, Settings, plan_of
from hf_noise.studies.settings import SettingError, at_scale
from hf_noise.trainers.card import state_noise_of_adapter

main = functools.partial(printed_by, STUDY.main)
CLASSES = ["economy", "health", "sport"]
WORDS = [["money", "bank", "trade"], ["doctor", "flu", "nurse"], ["goal", "match", "team"]]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """A BERT without a head, and its tokenizer of words."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(word for some in WORDS for word in some), "the", "a"]
    torch.manual_seed(0)
    BertModel(BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=32,
    )).save_pretrained(folder)  # fmt: skip
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return folder


def texts(rows, seed, **more):
    draw = np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    found = {"text": [" ".join(["the", *draw.choice(WORDS[label], 3)][: 2 + i % 3]) for i, label in enumerate(labels)],
             "label": labels.tolist()}  # fmt: skip
    weak = np.where(draw.random(rows) < 0.4, (labels + 1) % 3, labels)
    return found | {name: make(labels, weak) for name, make in more.items()}


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    kind = ClassLabel(names=CLASSES)
    for split, rows in (("train", 48), ("test", 30)):
        weak = {"weak": lambda labels, weak: weak.tolist()} if split == "train" else {}
        features = Features({"text": Value("string"), "label": kind} | dict.fromkeys(weak, kind))
        Dataset.from_dict(texts(rows, 0, **weak), features=features).to_parquet(folder / f"{split}.parquet")
    return folder


@pytest.fixture(scope="session")
def given(encoder, sources):
    return ["--model", encoder, "--source", sources / "train.parquet", "--test_source", sources / "test.parquet",
            "--epochs", "2", "--batch_size", "16", "--max_length", "8", "--logging_steps", "2", "--seed",
            "0"]  # fmt: skip


def settings_of(sources, **changes):
    usual = dict(source=str(sources / "train.parquet"), test_source=str(sources / "test.parquet"), output="runs/x")
    return at_scale(Settings, "demo", **usual | changes)


@pytest.fixture(scope="session")
def study(given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    told = [*given, "--output", folder, "--ratio", "0", "1", "--method", "lora", "--loss", "nll", "corrected",
            "--regulariser", "none", "smart"]  # fmt: skip
    return folder, main(*told), told


ADAPTERS = ["clean-nll-lora-seed0", "clean-nll-lora-smart-seed0", "r1-symmetric-corrected-lora-seed0",
            "r1-symmetric-nll-lora-seed0", "r1-symmetric-nll-lora-smart-seed0"]  # fmt: skip


def test_each_run_leaves_an_adapter_that_comes_back(study, encoder):
    folder, _, _ = study
    assert sorted(path.name for path in folder.iterdir()) == sorted([*ADAPTERS, "study.md", "study.png"])
    run = folder / "r1-symmetric-corrected-lora-seed0"
    assert {"adapter_model.safetensors", "hf_noise.json", "record.json", "README.md", "tokenizer.json"} <= {
        path.name for path in run.iterdir()
    }
    noise = LabelFlips.symmetric(ratio=1.0, num_classes=3, redraw="never")
    assert hf_noise.load_noise(run) == noise
    model = load_adapter(run)
    assert model.config.id2label == dict(enumerate(CLASSES))
    assert objective_from_dict(model.config.hf_noise_objective) == CorrectedLabels()
    names = {name for name, _ in model.named_parameters() if "modules_to_save" in name}
    assert {name.split(".modules_to_save")[0].split(".")[-1] for name in names} == {"classifier"}, "what is new"
    card = (run / "README.md").read_text()
    assert "library_name: peft" in card and "text-classification" in card


def test_the_card_of_an_adapter_says_how_it_was_trained(study):
    """Its base model is a folder here, which the Hub would look for as a repository."""
    card = (study[0] / "r1-symmetric-corrected-lora-seed0" / "README.md").read_text()
    assert "base_model:" not in card and "That is `tiny-bert`, a folder of those who made this" in card
    for row in ("rank | 8", "alpha | 16", "dropout | 0.1", "modules with an adapter | query, value",
                "trained parameters | 1,075", "learning rate | 0.005", "text column | text",
                "label column | label"):  # fmt: skip
        assert f"| {row} |" in card, row
    assert "load it by `hf_noise.hub.adapter.load_adapter`,\nnot by `pipeline`" in card
    assert "accuracy on training rows, labels as trained on" in card and "image" not in card


def test_records_hold_what_was_measured(study, encoder):
    folder, _, _ = study
    records = {record.name: record for record in read_records(folder)}
    assert sorted(records) == sorted(ADAPTERS)
    for name, record in records.items():
        assert (record.task, record.budget["steps"], record.budget["epochs"]) == ("text_classification", 6, 2.0)
        assert record.metrics["test_accuracy"]["n"] == 30 and record.data["names"] == CLASSES
        assert ("memorised" in record.metrics) == name.startswith("r1")
        assert record.model["method"] == "lora"
        assert record.model["trained_parameters"] == 2 * 2 * 2 * 16 * 8 + 3 * 16 + 3, "two factors of q, v; the head"
        adapter = BertModel.from_pretrained(encoder).num_parameters() + record.model["trained_parameters"]
        assert record.model["parameters"] == adapter, "the head once"
        assert record.loss["passes"] == (3 if "smart" in name else 1)
    noisy = records["r1-symmetric-nll-lora-smart-seed0"]
    assert noisy.noise["realised"]["n"] == 96 and noisy.loss["regulariser"] == "smart"
    assert isinstance(objective_from_dict(noisy.loss["objective"]), Regularised)


def test_the_table_compares_with_cross_entropy(study):
    folder, printed, _ = study
    assert re.search(r"\| symmetric, e = 0.50, LoRA +\| +corrected, T known \|", printed)
    assert "Points of accuracy on right test labels over cross-entropy" in printed
    assert printed.rstrip().endswith(f"tables, of each run too: {folder / 'study.md'}")
    assert all(run in (folder / "study.md").read_text() for run in ADAPTERS)


def test_started_again_it_trains_nothing(study, monkeypatch):
    _, printed, told = study
    monkeypatch.setattr("hf_noise.studies.engine.make", lambda *_: pytest.fail("made a finished run"))
    assert main(*told) == printed


def test_weak_labels_and_a_transition_that_is_learned(given, tmp_path):
    printed = main(*given, "--output", tmp_path, "--ratio", "--weak_column", "weak", "--loss", "corrected", "estimated",
                   "--validation_source", given[3])  # fmt: skip
    records = {record.name: record for record in read_records(tmp_path)}
    assert sorted(records) == ["weak-corrected-full-seed0", "weak-estimated-full-seed0"]
    for record in records.values():
        assert record.noise["protocol"] == "human_labels" and record.noise["name"] == "weak"
        assert record.noise["realised"]["rate"] == pytest.approx(record.noise["error_rate"], abs=0.02)
        assert record.metrics["validation_accuracy"]["n"] == 48
    learned = records["weak-estimated-full-seed0"].metrics
    card = (tmp_path / "weak-corrected-full-seed0" / "README.md").read_text()
    assert "People or rules gave the wrong labels" in card and "image" not in card and "label column | weak" in card
    assert learned["transition_mean_absolute_error"]["n"] == 9 and "weak labels (weak), e = 0." in printed
    noise = hf_noise.load_noise(tmp_path / "weak-corrected-full-seed0")
    counted = HumanLabels.from_columns(*(texts(48, 0, weak=lambda _, weak: weak)[name] for name in ("label", "weak")),
                                       num_classes=3, name="weak")  # fmt: skip
    assert noise == counted
    whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / "weak-corrected-full-seed0")
    assert whole.config.id2label[2] == "sport"


def test_labels_as_they_come(given, tmp_path):
    """They are wrong already, and nobody knows how many are."""
    told = [*given, "--output", tmp_path, "--column", "weak", "--as_they_come", "--forget_rate", "0.4", "--loss", "nll",
            "estimated", "elr", "co-teaching", "--regulariser", "none", "l2-sp"]  # fmt: skip
    told[told.index("--test_source") + 1] = tmp_path / "test.parquet"
    Dataset.from_dict(texts(30, 0, weak=lambda labels, _: labels.tolist())).cast_column(
        "weak", ClassLabel(names=CLASSES)
    ).to_parquet(tmp_path / "test.parquet")
    printed = main(*told)
    records = {record.name: record for record in read_records(tmp_path)}
    cures = ["nll", "nll-l2-sp", "estimated", "elr", "co-teaching"]
    names = {f"as-they-come-{cure.partition('-')[0] if 'l2' in cure else cure}-full{'-l2-sp' * ('l2' in cure)}-seed0"
             for cure in cures}  # fmt: skip
    assert set(records) == names
    assert "| labels as they come, all weights |" in printed and "right labels" not in printed
    assert "Points of accuracy on test labels as given" in printed
    for name, record in records.items():
        assert record.noise == {"protocol": "unknown"} and not {"ratio", "error_rate", "exposure"} & set(record.budget)
        assert not {"train_accuracy_clean_labels", "memorised"} & set(record.metrics)
        card = (tmp_path / name / "README.md").read_text()
        assert "Nobody knows how many of the labels are wrong" in card and "accuracy, test labels as given" in card
        assert "load_noise" not in card and "known to be wrong" not in card and "on purpose" not in card
        with pytest.raises(ValueError, match="its noise is unknown: labels were taken as they come"):
            hf_noise.load_noise(tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert "hf_noise" not in config and config["hf_noise_objective"]
    assert records["as-they-come-co-teaching-full-seed0"].loss["forget_rate"] == 0.4
    assert len(records["as-they-come-estimated-full-seed0"].loss["transition"]) == 3


def test_an_encoder_of_known_noise_does_not_lend_it_to_labels_as_they_come(encoder, sources, tmp_path):
    """What its config says of its own training goes among what was before."""
    model = BertModel.from_pretrained(encoder)
    model.config.hf_noise = {"protocol": "uniform_tokens"}
    model.save_pretrained(tmp_path / "model")
    PreTrainedTokenizerFast.from_pretrained(encoder).save_pretrained(tmp_path / "model")
    settings = settings_of(sources, model=str(tmp_path / "model"), as_they_come=True, output=str(tmp_path / "x"),
                           max_length=8)  # fmt: skip
    run = Run(None, "as-they-come", "nll", "full", "none", False, 0)
    data = work.load(settings, None, [run])
    job = Job(STUDY, settings, run, plan_of(settings, run, 48), tmp_path / "x", data, "", True)
    config = work.build(job).model.config
    assert not hasattr(config, "hf_noise") and config.hf_noise_before == [{"protocol": "uniform_tokens"}]


def test_the_embedded_encoder_and_texts(tmp_path):
    printed = main("--output", tmp_path, "--pretrain_steps", "2", "--epochs", "1", "--train_rows", "64", "--test_rows",
                   "40", "--ratio", "0", "--regulariser", "none", "--seed", "0")  # fmt: skip
    (record,) = [one for one in read_records(tmp_path) if one.task == "text_classification"]
    assert record.data["source"] == "embedded/docs-topics" and record.data["classes"] == 10
    config = json.loads((tmp_path / "encoder" / "config.json").read_text())
    assert config["model_type"] == "modernbert" and config["classifier_pooling"] == "mean"
    assert "hf_noise_masking" in config, "which is said of the encoder, and not of the classifier"
    (run,) = tmp_path.glob("clean-*/config.json")
    stated = {key for key in json.loads(run.read_text()) if key.startswith("hf_noise")}
    assert stated == {"hf_noise", "hf_noise_objective"}
    assert "cross-entropy" in printed


def test_a_dry_run_trains_nothing(given, tmp_path):
    printed = main(*given, "--output", tmp_path / "none", "--dry_run", "--loss", "nll", "gce", "--regulariser", "none",
                   "--error_rate", "0", "0.3")  # fmt: skip
    assert "r0.4286-symmetric-gce-full-seed0: e = 0.3000, 6 steps x 16 texts = 2.0 epochs" in printed
    assert "48 texts to train on, 30 to test on" in printed and "economy: 16, health: 16, sport: 16" in printed
    assert "time: about" in printed and not (tmp_path / "none").exists()


def test_a_dry_run_tells_the_data_first_and_the_disk_of_an_adapter(given, tmp_path):
    told = [*given, "--output", tmp_path / "none", "--dry_run", "--loss", "nll", "--regulariser", "none", "--ratio",
            "0", "--method", "lora"]  # fmt: skip
    printed = main(*told)
    places = [printed.index(part) for part in ("48 texts to train on", "clean-nll-lora-seed0: e", "time: about")]
    assert places == sorted(places)
    settings = STUDY.parse([*map(str, told)])
    data = work.load(settings, None, [])
    trainers = {}
    for method in ("full", "lora"):
        run = Run(0.0, "none", "co-teaching" if method == "lora" else "nll", method, "none", False, 0)
        settings.forget_rate = 0.2
        job = Job(STUDY, settings, run, plan_of(settings, run, 48), tmp_path / "none", data, "", True)
        trainers[method] = job.build()
    assert trainers["full"].num_saved == trainers["full"].num_weights
    adapter = 2 * 2 * 2 * 16 * 8 + 3 * 16 + 3
    assert trainers["lora"].num_saved == 2 * adapter < trainers["lora"].num_weights / 2, "of both networks"


def test_a_dry_run_looks_at_data_whatever_the_model(given, tmp_path):
    told = [*given, "--dry_run", "--ratio", "0", "--output", tmp_path]
    told[1] = "minilm"
    printed = main(*told)
    assert "48 texts to train on, 30 to test on" in printed and "clean-nll-full-seed0: e = 0.0000, 6 steps" in printed
    assert "model: minilm on the Hub, which a run downloads" in printed and "time:" not in printed
    with pytest.raises(ValueError, match="no column 'txt'"):
        main(*told, "--text_column", "txt")
    with pytest.raises(ValueError, match="--pairs names the class 'war'"):
        main(*told[:-4], "--ratio", "1", "--protocol", "pairs", "--pairs", "war:sport", "--output", tmp_path)
    told[told.index("--test_source") + 1] = "someone/texts"
    assert "data: someone/texts on the Hub, which a run downloads" in main(*told)


# ---- settings, runs and objectives


def test_runs_of_a_study():
    settings = at_scale(Settings, "demo", ratio=[0.0, 1.0], seed=[3], regulariser=["none", "lnsr"], lgm=True,
                        method=["full", "lora"], loss=["nll", "elr"])  # fmt: skip
    names = [run.name for run in runs_of(settings)]
    assert len(names) == len(set(names)) == 2 * (4 + 4 + 1)
    assert {"clean-nll-full-lnsr-lgm-seed3", "r1-symmetric-elr-lora-seed3"} <= set(names)
    assert not any("elr-full-lnsr" in name or name.startswith("clean-elr") for name in names)


def test_labels_as_they_come_have_the_losses_of_a_scale_that_need_no_known_noise():
    settings = at_scale(Settings, "demo", as_they_come=True)
    assert settings.loss == ["nll", "estimated", "gce", "elr"]
    assert {run.labels for run in runs_of(settings)} == {"as-they-come"}
    assert at_scale(Settings, "demo", as_they_come=True, forget_rate=0.2).loss[-1] == "co-teaching"


def test_each_loss_and_regulariser_has_its_objective():
    settings = at_scale(Settings, "demo", l2_sp=0.5, smart=2.0, lnsr=3.0)
    for loss in LOSSES:
        found = objective_of(Run(1.0, "symmetric", loss, "lora", "none", False, 0), settings)
        assert "labels" in (found.units or (found.unit,))
    assert objective_of(Run(0.0, "none", "nll", "full", "none", False, 0), settings) == CrossEntropy()
    assert objective_of(Run(1.0, "symmetric", "co-teaching", "lora", "none", False, 3), settings).seed == 3
    estimated = objective_of(Run(1.0, "symmetric", "estimated", "lora", "none", False, 0), settings)
    assert estimated.volume.matrix_rate * settings.lora_learning_rate == pytest.approx(settings.matrix_rate)
    for name, field, weight in (("l2-sp", "l2_sp", "alpha"), ("smart", "smart", "weight"), ("lnsr", "lnsr", "weight")):
        found = objective_of(Run(0.0, "none", "nll", "full", name, True, 5), settings)
        assert isinstance(found.base, LGM) and found.seed == 5
        assert getattr(getattr(found, field), weight) == {"l2_sp": 0.5, "smart": 2.0, "lnsr": 3.0}[field]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_column": ["a", "b", "c"]}, "takes one column, or two of a pair, got 3"),
        ({"model": "no/such/folder/here"}, "there is no such folder; give that of an encoder"),
        ({"error_rate": [0.2], "ratio": [1.0]}, "--ratio and --error_rate say the same"),
        ({"error_rate": [1.0]}, "--error_rate must be"), ({"ratio": [-0.1]}, "--ratio must be >= 0"),
        ({"protocol": ["random"]}, "unknown --protocol random; known: symmetric"),
        ({"protocol": ["pairs"]}, "--protocol pairs and --pairs go together"),
        ({"protocol": ["pairs"], "pairs": ["sport"]}, "--pairs takes class:class, got 'sport'"),
        ({"weak_column": "weak", "ratio": [0.5]}, "--weak_column weak: its labels are wrong at the rate"),
        ({"weak_column": "weak", "error_rate": [0.0, 0.3]}, "leave out --ratio and --error_rate, or give 0"),
        ({"weak_column": "label"}, "--weak_column label is --column"), ({"loss": ["hinge"]}, "--loss must be one of"),
        ({"regulariser": ["dropout"]}, "--regulariser must be one of none, l2-sp, smart, lnsr"),
        ({"method": ["lora"], "push_to_hub": "me/x"}, "an adapter of embedded/.*which nobody else has"),
        ({"ratio": [0.0], "loss": ["nll", "estimated", "elr"]}, "estimated elr would do nothing.*--as_they_come"),
        ({"ratio": [1.0], "loss": ["gce"], "regulariser": ["smart"]}, "--regulariser smart would do nothing.*add nll"),
        ({"ratio": [1.0], "loss": ["gce"], "regulariser": ["none"], "lgm": True}, "--lgm would do nothing"),
        ({"as_they_come": True, "ratio": [0.0]}, "--as_they_come: .*leave out --ratio"),
        ({"as_they_come": True, "error_rate": [0.2]}, "--as_they_come: .*leave out --ratio"),
        ({"as_they_come": True, "weak_column": "weak"}, "--as_they_come: .*leave out"),
        ({"as_they_come": True, "loss": ["corrected"]}, "--loss corrected corrects by the T of the noise.*estimated"),
        ({"as_they_come": True, "loss": ["co-teaching"]}, "--loss co-teaching leaves out.*state --forget_rate"),
        ({"ratio": []}, "--ratio is empty"), ({"method": []}, "--method is empty"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(changes, message):
    with pytest.raises(SettingError, match=message):
        at_scale(Settings, "demo", **changes)


def test_the_published_setting():
    settings = STUDY.parse(["--scale", "paper", "--source", "rte.parquet", "--text_column", "sentence1", "sentence2"])
    assert (settings.model, settings.ratio, settings.lgm) == ("google-bert/bert-large-uncased", [0.0], True)
    assert len(runs_of(settings)) == 5 * 4 * 2, "five seeds of table 4's cells, and of plain fine-tuning"
    with pytest.raises(SettingError, match="--scale paper needs --source"):
        at_scale(Settings, "paper")


# ---- data


def test_pairs_of_texts_and_classes_by_their_names(tmp_path, encoder):
    rows = texts(12, 1) | {"second": ["a bank"] * 12}
    names = [CLASSES[label] for label in rows.pop("label")]
    weak = [CLASSES[(CLASSES.index(name) + (i == 0)) % 3] for i, name in enumerate(names)]
    Dataset.from_dict(rows | {"topic": names, "rule": weak}).to_parquet(tmp_path / "all.parquet")
    found = read_rows(settings_of(tmp_path, source=str(tmp_path / "all.parquet"), test_source=None, test_fraction=0.4,
                                  text_column=["text", "second"], column="topic", weak_column="rule"))  # fmt: skip
    assert found.classes == CLASSES and len(found.train) + len(found.test) == 12
    assert not set(found.train.ids) & set(found.test.ids)
    assert (found.train.weak != found.train.labels).sum() == (0 in found.train.ids)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(encoder)
    made = found.train.tokenised(tokenizer, 32, CLASSES, is_weak=True)
    assert set(made.column_names) >= {"input_ids", "label", "sample_id", "clean_label", "is_noisy"}
    assert tokenizer.decode(made[0]["input_ids"]) == f"{found.train.texts[0][0]} a bank"


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ({"weak": ["economy", "war", "sport"] * 4}, {"weak_column": "weak"}, "class 'war' in 4 row.s., the first row"),
        ({"weak": [0, 1, 3] * 4}, {"weak_column": "weak"}, "column 'weak' holds 3 in 4 row.s. of the train split"),
        ({"weak": ["sport", None, "health"] * 4}, {"weak_column": "weak"}, "holds 4 null.s. .*the first in row 1"),
        ({}, {"weak_column": "rules"}, "no column 'rules'"), ({}, {"text_column": ["title"]}, "no column 'title'"),
        ({"text": [None, "a", "b"] * 4}, {}, "column 'text' holds 4 null.s. in the train split, the first in row 0"),
        ({"label": ["economy", "sport", None] * 4}, {}, "'label' holds 4 null.s. .*, the first in row 2"),
        ({"label": [0, None, 1] * 4}, {}, "'label' holds 4 null.s. in the train split, the first in row 1"),
        ({"text": [1, 2, 3] * 4}, {}, "column 'text' holds int64, no texts"),
        ({"label": [0.5, 1.5, 2.5] * 4}, {}, "holds .*float64.*no class labels"),
        ({"text": ["a", " \n", "b"] * 4}, {}, "the text of row 1 of the train split is blank, and that of 3 more"),
        ({}, {"train_rows": 13}, "--train_rows 13, but there are 12 rows"),
        ({"label": ["economy"] * 12}, {}, "holds one class only"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used_are_named(tmp_path, rows, changes, message):
    made = texts(12, 1)
    made["label"] = [CLASSES[label] for label in made["label"]]
    if rows.get("weak") and isinstance(rows["weak"][0], int):  # numbers beside numbers
        made["label"] = [CLASSES.index(name) for name in made["label"]]
    Dataset.from_dict(made | rows).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=message):
        read_rows(settings_of(tmp_path, test_source=str(tmp_path / "train.parquet"), **changes))


def test_texts_without_tokens_are_refused_by_their_row_before_anything_is_trained(tmp_path, monkeypatch):
    """Of a character that the tokenizer leaves out, in the shortest row, which evaluation would call its first."""
    made = texts(12, 1)
    Dataset.from_dict(made).to_parquet(tmp_path / "train.parquet")
    Dataset.from_dict(made | {"text": [*made["text"][:7], "\u200b", *made["text"][8:]]}).to_parquet(
        tmp_path / "test.parquet"
    )
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split("\u200b", "removed"),
                                                       pre_tokenizers.Whitespace()])  # fmt: skip
    monkeypatch.setattr(work, "embedded_words", lambda: PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    monkeypatch.setattr(work, "train_encoder", lambda *_, **__: pytest.fail("trained first"))
    settings = settings_of(tmp_path, train_rows=6)
    with pytest.raises(ValueError, match="the text of row 7 of the test split has no token"):
        work.load(settings, None, [])


def test_the_encoder_is_named_from_the_root(tmp_path, monkeypatch, encoder):
    """An adapter says where its encoder is, and may be loaded from any folder."""
    monkeypatch.chdir(encoder.parent)
    for model, place in ((encoder.name, encoder), (EMBEDDED_MODEL, encoder.parent / "runs/x/encoder")):
        assert work.encoder_of(at_scale(Settings, "demo", model=model, output="runs/x")) == str(place)
    monkeypatch.chdir(tmp_path)
    assert work.encoder_of(at_scale(Settings, "demo", model="owner/name")) == "owner/name"


def test_passes_of_a_row():
    settings = at_scale(Settings, "demo")
    wanted = {("nll", "none"): 1, ("gce", "none"): 1, ("co-teaching", "none"): 2, ("nll", "l2-sp"): 1,
              ("nll", "smart"): 3, ("nll", "lnsr"): 2}  # fmt: skip
    for (loss, regulariser), passes in wanted.items():
        assert passes_of(objective_of(Run(1.0, "symmetric", loss, "full", regulariser, False, 0), settings)) == passes


# ---- the network


def test_targets_of_an_adapter(encoder):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(encoder)
    model, new = pretrained(str(encoder), CLASSES, tokenizer)
    assert new == ["classifier"] and model.config.num_labels == 3
    settings = at_scale(Settings, "demo", lora_targets=["value", "dense2"])
    with pytest.raises(ValueError, match="--lora_targets dense2: BertForSequenceClassification has no module.*dense"):
        adapted(model, new, settings)
    settings = at_scale(Settings, "demo", lora_targets=["value"])
    trained = {name for name, one in adapted(model, new, settings).named_parameters() if one.requires_grad}
    assert len(trained) == 2 * 2 + 2 and all("value.lora" in name or "classifier" in name for name in trained)


def test_a_head_that_was_trained_before_is_drawn_anew(tmp_path, encoder):
    """Its classes may be others of the same number, or the same in another order."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(encoder)
    config = RobertaConfig(vocab_size=14, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                           intermediate_size=16, max_position_embeddings=34, num_labels=3)  # fmt: skip
    trained = RobertaForSequenceClassification(config)
    with torch.no_grad():
        for one in trained.parameters():
            one.fill_(0.5)
    trained.save_pretrained(tmp_path)
    for classes in (CLASSES, CLASSES[:2]):  # of another number, only the last layer would be drawn by transformers
        model, new = pretrained(str(tmp_path), classes, tokenizer)
        assert new == ["classifier"] and list(model.config.id2label.values()) == classes
        assert 0 < model.classifier.dense.weight.std() < 0.05 and 0 < model.classifier.out_proj.weight.std() < 0.05
        assert not model.classifier.out_proj.bias.any()
        assert (model.roberta.embeddings.word_embeddings.weight == 0.5).all()


@pytest.mark.parametrize("targets", [[], ["Wqkv", "dense"]], ids=["all-linear", "of a name that the head has too"])
def test_an_adapter_of_the_embedded_encoder_comes_back(tmp_path, monkeypatch, targets):
    """Its head has a linear layer, and is saved whole: no adapter goes inside it."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    ModernBertForMaskedLM(encoder_config(reference_compile=False)).save_pretrained(tmp_path / "encoder")
    tokenizer = embedded_words()
    model, new = pretrained(str(tmp_path / "encoder"), CLASSES, tokenizer)
    model = adapted(model, new, at_scale(Settings, "demo", lora_targets=targets))
    assert sorted(model.peft_config["default"].modules_to_save) == ["classifier", "head", "score"], "each once"
    assert not any("lora" in name and ".head." in name for name, _ in model.named_parameters())
    with torch.no_grad():
        for one in model.parameters():
            if one.requires_grad:
                one.add_(0.05 * torch.randn_like(one))
    model.save_pretrained(tmp_path / "adapter")
    state_noise_of_adapter(tmp_path / "adapter", None, model)
    tokens = torch.tensor([[4, 5, 2], [7, 5, 2]])
    want = model.eval()(input_ids=tokens).logits
    monkeypatch.chdir("/")
    again = load_adapter(tmp_path / "adapter").eval()
    assert torch.equal(again(input_ids=tokens).logits, want) and again.config.id2label == dict(enumerate(CLASSES))


def test_an_encoder_that_lacks_weights_is_refused(encoder, tmp_path):
    from safetensors.torch import load_file, save_file

    tokenizer = PreTrainedTokenizerFast.from_pretrained(encoder)
    state = load_file(encoder / "model.safetensors")
    (tmp_path / "config.json").write_text((encoder / "config.json").read_text())
    gone = next(name for name in state if name.endswith("layer.0.output.dense.weight"))
    save_file({name: value for name, value in state.items() if name != gone}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="lacks 1 tensor.s. of its encoder, such as bert.encoder.layer.0.output.dense"):
        pretrained(str(tmp_path), CLASSES, tokenizer)


def test_what_was_learned_by_heart_is_counted_row_by_row(study, sources):
    """Rows are scored from the shortest to the longest: their labels have to come along."""
    folder, _, _ = study
    run = folder / "r1-symmetric-nll-lora-seed0"
    (record,) = [one for one in read_records(folder) if one.name == run.name]
    train = read_rows(settings_of(sources)).train
    tokenizer, model = PreTrainedTokenizerFast.from_pretrained(run), load_adapter(run).eval()
    with torch.no_grad():
        guess = model(**tokenizer(train.texts[0], return_tensors="pt", padding=True)).logits.argmax(-1).numpy()
    noisy, is_noisy = hf_noise.load_noise(run)(train.labels, sample=train.ids, epoch=0)
    want = {"train_accuracy_trained_labels": guess == noisy, "train_accuracy_clean_labels": guess == train.labels,
            "memorised": (guess == noisy)[is_noisy]}  # fmt: skip
    for name, hits in want.items():
        assert record.metrics[name] == {"value": pytest.approx(hits.mean()), "n": hits.size}
