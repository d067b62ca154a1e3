"""A data set built by `load_dataset("hf_noise/...")` brings its noise along, into the trainer and the checkpoint."""

from __future__ import annotations

import pytest
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

import hf_noise
from hf_noise.trainers import CausalLMTrainer


@pytest.fixture(scope="module")
def built():
    return hf_noise.load_dataset("hf_noise/docs-noisy", r=0.5, block_size=64, split="train")


def make_trainer(tmp_path, **kwargs) -> CausalLMTrainer:
    config = GPT2Config(vocab_size=2048, n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", max_steps=1)
    return CausalLMTrainer(GPT2LMHeadModel(config), args, **kwargs)


def test_noise_of_built_rows_is_recorded_and_known_to_the_loss(built, tmp_path):
    trainer = make_trainer(tmp_path, train_dataset=built, loss="corrected")
    assert trainer.objective.error_rate == pytest.approx(1 / 3)
    trainer.save_model(tmp_path / "model")
    noise = hf_noise.load_noise(tmp_path / "model")
    assert (noise.ratio, noise.vocab_size, noise.redraw) == (0.5, 2048, "never")


def test_another_noise_than_that_of_the_rows_is_refused(built, tmp_path):
    with pytest.raises(ValueError, match="the rows were built with UniformTokens.ratio=0.5.*leave noise= out"):
        make_trainer(tmp_path, train_dataset=built, noise=hf_noise.UniformTokens(ratio=1.0, vocab_size=2048))


def test_noise_that_is_in_the_rows_is_recorded_as_static(built, tmp_path):
    same = hf_noise.UniformTokens(ratio=0.5, vocab_size=2048)
    assert same.redraw == "epoch" and make_trainer(tmp_path, train_dataset=built, noise=same).noise.redraw == "never"


def test_clean_rows_take_the_noise_that_is_given(tmp_path):
    rows = hf_noise.load_dataset("hf_noise/docs-noisy", r=0.0, block_size=64, split="train")
    noise = hf_noise.UniformTokens(ratio=1.0, vocab_size=2048)
    # With the columns of noise, which say that there is none, and without them.
    for part in (rows, rows.select_columns(["input_ids", "sample_id"])):
        trainer = make_trainer(tmp_path, train_dataset=part, noise=noise)
        assert trainer.noise is noise
        trainer.train()
        assert trainer.realised_noise()["rate"] == pytest.approx(0.5, abs=0.11)  # 5 standard errors of 504 targets
