"""The card that the stock Trainer writes also states the noise."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hf_noise.hub.load import load_noise
from hf_noise.noise import UniformTokens
from hf_noise.trainers import CausalLMTrainer
from hf_noise.trainers.card import state_noise_of_adapter


@pytest.fixture
def trainer(tiny_gpt2, random_rows, arguments):
    noise = UniformTokens(ratio=0.5, vocab_size=64, seed=3)
    return CausalLMTrainer(tiny_gpt2(), arguments(), noise=noise, train_dataset=random_rows(8))


def test_the_stock_card_states_the_noise(trainer):
    trainer.train()
    trainer.create_model_card(model_name="my/model", tags="mine")
    path = Path(trainer.args.output_dir, "README.md")
    card = ModelCard.load(path)
    assert {"mine", "hf_noise", "noisy-data", "uniform_tokens"} <= set(card.data.tags)
    assert card.data.noise["e"] == pytest.approx(1 / 3) and card.data.noise["seed"] == 3
    assert "e = 0.3333 of all units" in card.text
    assert load_noise(path.parent) == trainer.noise


def test_a_second_card_says_it_once(trainer):
    trainer.train()
    for _ in range(2):
        trainer.create_model_card()
    card = ModelCard.load(Path(trainer.args.output_dir, "README.md"))
    assert card.text.count("## Noise") == 1
    assert card.data.tags.count("hf_noise") == 1


def test_without_noise_the_card_stays_stock(tiny_gpt2, random_rows, arguments):
    trainer = CausalLMTrainer(tiny_gpt2(), arguments(), train_dataset=random_rows(8))
    trainer.train()
    trainer.create_model_card()
    card = ModelCard.load(Path(trainer.args.output_dir, "README.md"))
    assert "hf_noise" not in (card.data.tags or []) and "noise" not in card.data.to_dict()


def test_an_adapter_gets_its_noise_beside_it(trainer, tmp_path):
    """peft saves no config.json; with the library itself: tests/hub/test_adapter.py."""
    beside = tmp_path / "hf_noise.json"
    state_noise_of_adapter(tmp_path, trainer.noise)
    assert not beside.exists()
    (tmp_path / "adapter_config.json").write_text("{}")
    state_noise_of_adapter(tmp_path, None)
    assert not beside.exists()
    state_noise_of_adapter(tmp_path, trainer.noise)
    assert beside.exists() and load_noise(tmp_path) == trainer.noise


def test_an_adapter_without_noise_states_its_objective(trainer, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    del trainer.model.config.hf_noise
    state_noise_of_adapter(tmp_path, None, trainer.model)
    assert json.loads((tmp_path / "hf_noise.json").read_text()) == {"hf_noise_objective": trainer.loss.to_dict()}
    with pytest.raises(ValueError, match="is unknown: .* on rows as they came, .*the noise of an adapter lies beside"):
        load_noise(tmp_path)
