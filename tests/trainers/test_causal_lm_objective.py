"""The trainer's objectives: what they learn, which weights they decay, what they leave in a checkpoint."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hf_noise.noise import UniformTokens


@pytest.fixture
def predictable_rows():
    """64 rows in which each token follows from the one before: t -> 5 t + 3 (mod 64)."""
    rows = []
    for i in range(64):
        tokens = [i]
        while len(tokens) < 16:
            tokens.append((5 * tokens[-1] + 3) % 64)
        rows.append({"input_ids": tokens, "sample_id": i})
    return rows


@pytest.fixture
def learn(make_trainer, predictable_rows, tiny_gpt2, noise):
    """Train on the predictable rows with half of the targets wrong."""

    def run(steps=250, **settings):
        model = tiny_gpt2(n_embd=32)
        with torch.no_grad():
            model.transformer.wte.weight.div_(20)
        trainer = make_trainer(
            predictable_rows, model=model, eval_rows=predictable_rows, noise=noise, max_steps=steps,
            per_device_train_batch_size=32, learning_rate=1e-2, logging_steps=50, **settings,
        )  # fmt: skip
        trainer.train()
        return trainer, trainer.evaluate()["eval_nll"]

    return run


def test_corrected_loss_learns_what_the_plain_loss_cannot(learn):
    """The plain loss ends at its floor, -ln(1 - e) = 0.69 nats; the corrected one far below."""
    _, plain = learn()
    known, corrected = learn(loss="corrected")
    assert plain > 0.9 * math.log(2)
    assert corrected < 0.2 * math.log(2)
    assert (known.objective.source, known.objective.error_rate) == ("known", 0.5)


def test_learned_rate_finds_the_truth_where_the_text_is_certain(learn):
    trainer, nll = learn(loss="corrected", error_rate="learned")
    logged = [entry["learned_error_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert 0.1 < logged[0] < logged[-1]
    assert trainer.objective.error_rate == pytest.approx(logged[-1]) == pytest.approx(0.5, abs=0.05)
    assert nll < 0.2 * math.log(2)


def test_assumed_rate_is_used_as_stated(learn, make_trainer):
    trainer, nll = learn(loss="corrected", error_rate=0.2, steps=120)
    assert (trainer.objective.source, trainer.objective.error_rate) == ("assumed", 0.2)
    assert trainer.noise.error_rate == 0.5
    assert not any("learned_error_rate" in entry for entry in trainer.state.log_history)


def test_excluding_the_original_changes_the_known_rate(make_trainer):
    noise = UniformTokens(error_rate=0.5, vocab_size=64, exclude_original=True)
    assert make_trainer(noise=noise, loss="corrected").objective.error_rate == pytest.approx(0.5 * 64 / 63)


def test_only_matrices_decay_and_the_rate_learns_faster(make_trainer, random_rows, noise):
    trainer = make_trainer(
        random_rows(4), noise=noise, loss="corrected", error_rate="learned", weight_decay=0.1, learning_rate=1e-3
    )
    optimizer = trainer.create_optimizer()
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    names[id(trainer.learned.logit)] = "rate"
    decayed = {names[id(p)] for g in optimizer.param_groups if g["weight_decay"] == 0.1 for p in g["params"]}
    others = {names[id(p)] for g in optimizer.param_groups if g["weight_decay"] == 0.0 for p in g["params"]}
    assert all(trainer.model.get_parameter(name).ndim == 2 for name in decayed)
    assert all(trainer.model.get_parameter(name).ndim == 1 for name in others - {"rate"})
    assert decayed | others == set(names.values())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)  # each once
    rate = optimizer.param_groups[-1]
    assert [names[id(p)] for p in rate["params"]] == ["rate"]
    assert (rate["lr"], rate["weight_decay"]) == (1e-2, 0.0)


def test_learned_rate_stays_out_of_the_weights(make_trainer, random_rows, noise, tmp_path, caplog):
    trainer = make_trainer(random_rows(4), noise=noise, loss="corrected", error_rate="learned",
                           save_strategy="steps", save_steps=2)  # fmt: skip
    trainer.train()
    trainer.save_model()
    trainer.model.save_pretrained(tmp_path / "by-hand")
    checkpoint = tmp_path / "run" / "checkpoint-2"
    for folder in (tmp_path / "run", checkpoint, tmp_path / "by-hand"):
        assert not any("hf_noise" in name for name in load_file(folder / "model.safetensors"))
        with caplog.at_level(logging.WARNING):
            _, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not info["unexpected_keys"]
        assert not info["missing_keys"]
    state = load_file(checkpoint / "hf_noise_state.safetensors")
    assert torch.sigmoid(state["hf_noise_error_rate.logit"]).item() == trainer.objective.error_rate
    assert not (tmp_path / "run" / "hf_noise_state.safetensors").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "huber"}, 'loss must be .*"nll".* "corrected"'),
        ({"loss": "corrected"}, '"known" takes e from the noise'),
        ({"loss": "corrected", "error_rate": "guessed"}, '"known", "learned" or a number'),
        ({"loss": "corrected", "error_rate": 1.0}, "error_rate"),
    ],
)
def test_settings_that_do_not_fit_are_refused(make_trainer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**settings)
