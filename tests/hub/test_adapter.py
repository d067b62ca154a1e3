"""Adapters of peft: their noise lies beside them, their base model is somebody else's, and they are pushed alone."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from huggingface_hub import HfApi, ModelCard

import hf_noise
from hf_noise.hub.adapter import load_adapter
from hf_noise.hub.load import load_noise
from hf_noise.hub.push import push_checkpoint

REPO = "user/adapter"
WEIGHTS = {"base_model.model.transformer.h.0.attn.c_attn.lora_A.weight": np.ones((2, 32), np.float32)}


@pytest.fixture
def adapter(tmp_path, noise):
    """What the trainer leaves of `get_peft_model(...)`."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": "user/base", "r": 2, "target_modules": ["c_attn"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(WEIGHTS, folder / "adapter_model.safetensors")
    (folder / "hf_noise.json").write_text(json.dumps({"hf_noise": noise.to_dict()}))
    for name in ("training_args.bin", "optimizer.pt", "notes.txt"):
        (folder / name).write_bytes(b"private")
    return folder


def test_an_adapter_is_pushed_with_its_noise(client, adapter, noise):
    assert load_noise(adapter) == load_noise(adapter / "hf_noise.json") == noise
    push_checkpoint(adapter, REPO)
    files = client.files(REPO)
    assert set(files) == {
        ".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors", "hf_noise.json",
    }  # fmt: skip
    card = ModelCard(files["README.md"].decode())
    assert card.data.base_model == "user/base" and card.data.library_name == "peft"
    assert load_noise(REPO) == noise
    assert files["adapter_config.json"] == (adapter / "adapter_config.json").read_bytes()


def test_the_card_of_a_stock_trainer_does_not_hide_the_noise(client, adapter, noise):
    (adapter / "README.md").write_text("---\nlibrary_name: peft\nbase_model: user/base\n---\n# Mine\n")
    push_checkpoint(adapter, REPO)
    assert "# Mine" in client.files(REPO)["README.md"].decode() and load_noise(REPO) == noise


def test_a_record_makes_the_card_and_states_the_noise(client, adapter, record, noise):
    (adapter / "hf_noise.json").unlink()
    with pytest.raises(ValueError, match="states no noise .looked at: adapter_config.json"):
        load_noise(adapter)
    push_checkpoint(adapter, REPO, record=record)
    card = ModelCard(client.files(REPO)["README.md"].decode())
    assert card.data.base_model == "user/base" and "AutoModelForCausalLM.from_pretrained" in card.text
    assert load_noise(REPO) == noise
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    push_checkpoint(adapter, REPO, record=record)
    text = client.files(REPO)["README.md"].decode()
    assert "from_pretrained" not in text and "hf_noise.load_noise" in text


@pytest.mark.parametrize("base", ["/home/me/gpt2", "~/models/gpt2", "./base", "runs/base", "C:\\models\\gpt2"])
def test_a_base_model_that_nobody_else_has_is_refused(client, adapter, base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "base").mkdir(parents=True)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
    with pytest.raises(ValueError, match="names the folder .* of this machine as its base model.*id on the Hub"):
        push_checkpoint(adapter, REPO)
    assert client.requests == []


def test_an_adapter_without_weights_or_noise(adapter, client):
    (adapter / "hf_noise.json").write_text('{"hf_noise": 3}')
    with pytest.raises(ValueError, match="hf_noise.json: 'hf_noise' must be noise.to_dict"):
        push_checkpoint(adapter, REPO)
    (adapter / "hf_noise.json").unlink()
    with pytest.raises(ValueError, match="noise of .* is unknown: adapter_config.json has no"):
        push_checkpoint(adapter, REPO)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="adapter_model.safetensors is missing"):
        push_checkpoint(adapter, REPO)


def test_a_trained_adapter_of_peft(client, checkpoint, noise, tmp_path, fresh_python, record):
    """With the library itself, where it is installed."""
    peft = pytest.importorskip("peft")
    import datasets
    from transformers import AutoModelForCausalLM, TrainingArguments

    from hf_noise.trainers import CausalLMTrainer

    push_checkpoint(checkpoint, "user/base")
    settings = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained("user/base"), settings)
    rows = datasets.Dataset.from_dict({"input_ids": [list(range(16))] * 8, "sample_id": list(range(8))})
    args = TrainingArguments(str(tmp_path / "run"), max_steps=1, save_steps=1, use_cpu=True, report_to="none")
    trainer = CausalLMTrainer(model, args, noise=noise, train_dataset=rows)
    trainer.train()
    trainer.save_model()
    assert load_noise(tmp_path / "run") == load_noise(tmp_path / "run" / "checkpoint-1") == noise
    push_checkpoint(tmp_path / "run", REPO, record=record)
    assert peft.PeftConfig.from_pretrained(REPO).base_model_name_or_path == "user/base"
    out = fresh_python(r"""
import json, re
from huggingface_hub import ModelCard
exec(re.search(r"```python\n(.*?)```", ModelCard.load("user/adapter").content, re.DOTALL)[1])
print(json.dumps([noise.to_dict(), sorted(name for name, _ in model.named_parameters() if "lora" in name)]))
""", PYTHONPATH=os.pathsep.join(str(Path(file).parents[1]) for file in (peft.__file__, hf_noise.__file__)))  # fmt: skip
    stated, weights = json.loads(out.splitlines()[-1])
    assert stated == noise.to_dict() and len(weights) == 4


# ---- adapters of a text classifier

CLASSES = ["economy", "health", "politics", "sport", "world"]
WORDS = {name: number for number, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"])}


@pytest.fixture
def base_encoder(tmp_path):
    """An encoder without a head, with its tokenizer, as one lies on the Hub."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=24, max_position_embeddings=32)  # fmt: skip
    folder = tmp_path / "base-encoder"
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return folder


@pytest.fixture
def classifier(client, base_encoder, tmp_path):
    """The folder of a run, of an adapter of five classes on `user/encoder`, and its trainer."""
    peft = pytest.importorskip("peft")
    import datasets
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments

    from hf_noise.noise import LabelFlips
    from hf_noise.objectives import CorrectedLabels
    from hf_noise.trainers import ClassifierTrainer

    HfApi().create_repo("user/encoder")
    HfApi().upload_folder(repo_id="user/encoder", folder_path=str(base_encoder))
    names = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}
    model = AutoModelForSequenceClassification.from_pretrained("user/encoder", **names)
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"]))
    rows = datasets.Dataset.from_dict({
        "input_ids": [[5 + i % 8, 5 + i % 3] for i in range(10)], "labels": [i % 5 for i in range(10)],
        "sample_id": list(range(10)),
    })  # fmt: skip
    args = TrainingArguments(str(tmp_path / "run"), max_steps=2, save_steps=1, use_cpu=True, report_to="none")
    noise = LabelFlips.symmetric(ratio=0.5, num_classes=5, seed=3)
    tokenizer = AutoTokenizer.from_pretrained(str(base_encoder))
    trainer = ClassifierTrainer(
        model, args, noise=noise, loss=CorrectedLabels(), train_dataset=rows, processing_class=tokenizer
    )
    trainer.train()
    trainer.save_model()
    return tmp_path / "run", trainer


def of_classifier(trainer, record):
    """A record of the run as a study writes it."""
    noise = trainer.noise.to_dict() | {"realised": trainer.realised_noise()}
    return dataclasses.replace(
        record, task="text_classification", noise=noise, loss=trainer.loss_record(), metrics={},
        data={"source": "owner/news", "classes": 5, "tokenizer": "user/encoder"},
    )  # fmt: skip


def test_an_adapter_of_a_classifier_comes_back_from_the_hub(client, classifier, record):
    import torch

    from hf_noise.objectives import CorrectedLabels, objective_from_dict

    folder, trainer = classifier
    for place in (folder, folder / "checkpoint-1"):
        assert load_noise(place) == trainer.noise and not list(place.glob("adapter_model.bin"))
        stated = json.loads((place / "hf_noise.json").read_text())
        assert objective_from_dict(stated["hf_noise_objective"]) == CorrectedLabels()
        assert list(stated["id2label"].values()) == CLASSES
    push_checkpoint(folder, REPO, record=of_classifier(trainer, record))
    files = client.files(REPO)
    assert not any(name.endswith((".bin", ".pt")) for name in files) and load_noise(REPO) == trainer.noise
    assert json.loads(files["hf_noise.json"]) == json.loads((folder / "hf_noise.json").read_text())
    card = ModelCard(files["README.md"].decode())
    assert (card.data.base_model, card.data.library_name) == ("user/encoder", "peft")
    assert card.data.pipeline_tag == "text-classification" and "T of the noise" in card.text
    tokens = torch.tensor([[5, 7, 9]])
    trainer.model.eval()
    with torch.no_grad():
        want = trainer.model(input_ids=tokens).logits[0].tolist()
    made: dict = {}
    exec(re.search(r"```python\n(.*?)```", card.content, re.DOTALL)[1], made)  # as a reader of the card does
    model = made["model"].eval()
    assert model(input_ids=tokens).logits[0].tolist() == pytest.approx(want, abs=1e-5)
    assert model.config.id2label[4] == "world" and len(made["tokenizer"]) == len(WORDS)
    assert model.config.hf_noise == made["noise"].to_dict() == trainer.noise.to_dict()
    assert objective_from_dict(model.config.hf_noise_objective) == CorrectedLabels()


def test_an_adapter_without_its_base_model_names_it(client, classifier, base_encoder, tmp_path, monkeypatch):
    folder, _ = classifier
    described = json.loads((folder / "adapter_config.json").read_text())

    def of(base):
        (folder / "adapter_config.json").write_text(json.dumps(described | {"base_model_name_or_path": base}))
        return load_adapter(folder)

    with pytest.raises(FileNotFoundError, match=r"adapter .*run' is for the model in '/gone/bert', and there is no"):
        of("/gone/bert")
    with pytest.raises(FileNotFoundError, match="base model of the adapter.*'user/gone': there is no such repository"):
        of("user/gone")
    with pytest.raises(FileNotFoundError, match="does not say what model it is for.*give base_model="):
        of(None)
    with pytest.raises(FileNotFoundError, match="'a b' is the base model of the adapter .* and neither a folder"):
        of("a b")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="base model of the adapter .*'user/never-seen'"):
        of("user/never-seen")
    loaded = load_adapter(folder, base_model=base_encoder)
    assert loaded.config.num_labels == 5, "from where it lies"


def test_the_base_model_is_of_the_revision_that_the_adapter_names(client, classifier, base_encoder, tmp_path):
    from transformers import BertConfig, BertModel

    folder, trainer = classifier
    trained_on = HfApi().model_info("user/encoder").sha
    other = BertConfig.from_pretrained(base_encoder, hidden_size=8)
    BertModel(other).save_pretrained(tmp_path / "other")
    HfApi().upload_folder(repo_id="user/encoder", folder_path=str(tmp_path / "other"))
    with pytest.raises(ValueError, match=r"adapter .*run' does not fit its base model 'user/encoder': .*size mismatch"):
        load_adapter(folder)
    described = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(described | {"revision": trained_on}))
    assert load_adapter(folder).config.hidden_size == 16
    with pytest.raises(ValueError, match="does not fit its base model '.*other'"):
        load_adapter(folder, base_model=tmp_path / "other")
    (folder / "adapter_config.json").write_text(json.dumps(described | {"revision": 3}))
    with pytest.raises(ValueError, match="names revision=3 of its base model, which is no text"):
        load_adapter(folder)


def test_a_base_model_in_pickle_form_is_refused(classifier, base_encoder):
    import torch
    from safetensors.torch import load_file

    folder, _ = classifier
    weights = base_encoder / "model.safetensors"
    torch.save(load_file(weights), base_encoder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="base-encoder', the base model of the adapter .* has no safetensors"):
        load_adapter(folder, base_model=base_encoder)
    assert load_adapter(folder, base_model=base_encoder, use_safetensors=False).config.num_labels == 5


def test_an_adapter_that_was_trained_without_noise_comes_back(classifier, base_encoder, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification

    from hf_noise.objectives import GCE, objective_from_dict
    from hf_noise.trainers import ClassifierTrainer

    folder, trainer = classifier
    trainer.args.output_dir = str(tmp_path / "plain")
    del trainer.model.config.hf_noise
    plain = ClassifierTrainer(trainer.model, trainer.args, loss="gce", train_dataset=trainer.train_dataset)
    plain.save_model()
    stated = json.loads((tmp_path / "plain" / "hf_noise.json").read_text())
    assert set(stated) == {"hf_noise_objective", "id2label"}
    model = load_adapter(tmp_path / "plain", base_model=base_encoder)
    assert objective_from_dict(model.config.hf_noise_objective) == GCE()
    assert list(model.config.id2label.values()) == CLASSES
    # Of one by peft alone the head says how many classes there are.
    (tmp_path / "plain" / "hf_noise.json").unlink()
    again = load_adapter(tmp_path / "plain", base_model=base_encoder).eval()
    tokens = torch.tensor([[5, 7, 9]])
    assert torch.equal(again(input_ids=tokens).logits, model.eval()(input_ids=tokens).logits)
    assert again.config.num_labels == 5
    with pytest.raises(ValueError, match="does not fit its base model .*size mismatch for .*classifier"):
        load_adapter(tmp_path / "plain", AutoModelForSequenceClassification, base_model=base_encoder, num_labels=4)


@pytest.mark.parametrize(("without", "message"), [("classifier", "it lacks .*classifier"),
                                                  ("lora_B", "missing adapter keys .*lora_B")])  # fmt: skip
def test_an_adapter_that_lacks_weights_is_refused(classifier, base_encoder, without, message):
    folder, _ = classifier
    weights = safetensors.numpy.load_file(folder / "adapter_model.safetensors")
    safetensors.numpy.save_file({name: value for name, value in weights.items() if without not in name},
                                folder / "adapter_model.safetensors", metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(ValueError, match=f"does not fit its base model .*{message}"):
        load_adapter(folder, base_model=base_encoder)


def test_what_is_no_adapter_is_refused(classifier, adapter, checkpoint, tmp_path, client, monkeypatch):
    folder, _ = classifier
    with pytest.raises(FileNotFoundError, match="is no adapter: it has no adapter_config.json"):
        load_adapter(checkpoint)
    with pytest.raises(FileNotFoundError, match="there is no folder '/gone' with an adapter"):
        load_adapter("/gone")
    with pytest.raises(FileNotFoundError, match="loading the adapter 'user/gone': there is no such repository"):
        load_adapter("user/gone")
    with pytest.raises(TypeError, match='load_adapter takes a path or "owner/name", got int'):
        load_adapter(3)
    with pytest.raises(ValueError, match="has the task_type None, which is none of SEQ_CLS"):
        load_adapter(adapter)
    stated = json.loads((folder / "hf_noise.json").read_text())
    for changed, message in (({"id2label": 3}, "'id2label' must name"), ({"hf_noise_objective": {}}, "cannot be read")):
        (folder / "hf_noise.json").write_text(json.dumps(stated | changed))
        with pytest.raises(ValueError, match=message):
            load_adapter(folder)
    # Weights that only a pickle holds stay where they are, and are not loaded.
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    for use in (load_adapter, lambda folder: push_checkpoint(folder, REPO)):
        with pytest.raises(FileNotFoundError, match="adapter_model.safetensors is missing.*pickle form"):
            use(folder)
    (folder / "adapter_model.bin").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").unlink()
    (folder / "hf_noise.json").unlink()
    (folder / "README.md").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="is a half-written adapter: there are weights but no adapter_config.json"):
        load_noise(folder)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModuleNotFoundError, match=r'loading an adapter needs peft: pip install "hf_noise\[peft\]"'):
        load_adapter(folder)


def test_an_adapter_by_another_name_states_its_noise_in_its_folder(classifier, noise, tmp_path):
    folder, trainer = classifier
    trainer.model.add_adapter("second", trainer.model.peft_config["default"])
    trainer.save_model(str(tmp_path / "two"))
    assert load_noise(tmp_path / "two" / "second") == load_noise(tmp_path / "two") == trainer.noise
