"""Adapters of peft: their noise lies beside them, their base model is somebody else's, and they are pushed alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from huggingface_hub import ModelCard

import hf_noise
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
