"""Which targets the trainer corrupts, when, and what it reports about them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import ClassVar

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer

from hf_noise import load_noise
from hf_noise.noise import LabelFlips, RandomDocuments, UniformTokens, draws
from hf_noise.noise.base import Redraw
from hf_noise.noise.token_noise import TokenNoise


@pytest.fixture
def spy():
    """`spy(trainer)`: a list that fills with (inputs, labels as trained on) of every training pass."""

    def watch(trainer) -> list:
        seen, original = [], trainer.targets

        def targets(inputs, *, draw):
            labels, is_noisy = original(inputs, draw=draw)
            if draw:
                seen.append(({name: column.clone() for name, column in inputs.items()}, labels.clone()))
            return labels, is_noisy

        trainer.targets = targets
        return seen

    return watch


def noisy_columns(rows, noise):
    """Rows as a noisy data set stores them."""
    for row in rows:
        labels, is_noisy = noise(row["input_ids"][None], torch.tensor([row["sample_id"]]).numpy())
        yield {**row, "labels": labels[0], "clean_labels": row["input_ids"], "is_noisy": is_noisy[0]}


@pytest.mark.parametrize("redraw", ["epoch", "never"])
def test_targets_carry_the_noise_of_their_sample_and_epoch(make_trainer, random_rows, spy, redraw):
    rows = random_rows(10)
    noise = UniformTokens(error_rate=0.5, vocab_size=64, seed=3, redraw=redraw)
    trainer = make_trainer(rows, noise=noise, max_steps=8)  # 3 batches in an epoch: epochs 0, 1 and 2
    seen = spy(trainer)
    trainer.train()
    clean = {row["sample_id"]: torch.as_tensor(row["input_ids"]) for row in rows}
    drawn = []
    for step, (inputs, labels) in enumerate(seen):
        tokens = torch.stack([clean[int(i)] for i in inputs["sample_id"]])
        expected, is_noisy = noise(tokens, inputs["sample_id"], step // 3)
        assert torch.equal(inputs["input_ids"], tokens)
        assert torch.equal(labels, expected)
        assert is_noisy.any()
        drawn += [(int(i), tuple(row.tolist())) for i, row in zip(inputs["sample_id"], labels)]
    assert len(drawn) == 28  # the last batch of an epoch has two rows
    assert len({i for i, _ in drawn}) == 10
    assert len(set(drawn)) == (28 if redraw == "epoch" else 10)


def test_a_second_training_starts_at_the_first_epoch_again(make_trainer, random_rows, noise, spy):
    trainer = make_trainer(random_rows(4), noise=noise, max_steps=3)
    seen = spy(trainer)
    trainer.train()
    first = {int(i): row.tolist() for i, row in zip(seen[0][0]["sample_id"], seen[0][1])}
    seen.clear()
    trainer.train()
    assert {int(i): row.tolist() for i, row in zip(seen[0][0]["sample_id"], seen[0][1])} == first


def test_rows_that_are_noisy_already_are_not_corrupted_again(make_trainer, random_rows, noise, spy):
    rows = list(noisy_columns(random_rows(8), noise))
    trainer = make_trainer(rows, noise=noise)
    seen = spy(trainer)
    trainer.train()
    stored = {row["sample_id"]: row for row in rows}
    for inputs, labels in seen:
        for i, inputs_row, labels_row in zip(inputs["sample_id"], inputs["input_ids"], labels):
            row = stored[int(i)]
            assert labels_row.tolist() == row["labels"].tolist() != row["input_ids"].tolist()
            assert inputs_row.tolist() == row["input_ids"].tolist()
    mask = [bit for row in rows for bit in row["is_noisy"][1:]]
    assert trainer.realised_noise() == {"rate": sum(mask) / len(mask), "n": len(mask)}


def test_evaluation_is_on_clean_targets(make_trainer, random_rows, noise, tiny_gpt2, nll_by_hand):
    rows = random_rows(5)
    expected = torch.cat([nll_by_hand(tiny_gpt2(), row["input_ids"]) for row in rows]).mean().item()
    for loss in ("nll", "corrected"):
        metrics = make_trainer(eval_rows=rows, noise=noise, loss=loss).evaluate()
        assert metrics["eval_nll"] == pytest.approx(expected, rel=1e-6)


def test_logs_tell_clean_and_corrupted_targets_apart(make_trainer, random_rows, noise, tiny_gpt2, nll_by_hand):
    """Two windows of two epochs each of the same rows, without learning, so that each is known in advance."""
    rows = random_rows(8)
    trainer = make_trainer(rows, noise=noise, learning_rate=0.0, max_steps=8, logging_steps=4)
    trainer.train()
    windows = [entry for entry in trainer.state.log_history if "loss" in entry]
    model, corrupted_everywhere = tiny_gpt2(), []
    for window, epochs in zip(windows, [(0, 1), (2, 3)], strict=True):
        nll, corrupted = [], []
        for epoch in epochs:
            for row in rows:
                tokens = torch.as_tensor(row["input_ids"])
                labels, is_noisy = noise(tokens[None], torch.tensor([row["sample_id"]]), epoch)
                nll.append(nll_by_hand(model, tokens, labels[0]))
                corrupted.append(is_noisy[0, 1:])
        nll, corrupted = torch.cat(nll), torch.cat(corrupted)
        corrupted_everywhere.append(corrupted)
        assert window["nll_clean_targets"] == pytest.approx(nll[~corrupted].mean().item(), rel=1e-6)
        assert window["nll_corrupted_targets"] == pytest.approx(nll[corrupted].mean().item(), rel=1e-6)
        assert window["noise_rate"] == pytest.approx(corrupted.double().mean().item(), rel=1e-12)
        assert window["loss"] == pytest.approx(nll.mean().item(), rel=1e-6)
    corrupted = torch.cat(corrupted_everywhere)
    assert trainer.realised_noise() == {"rate": corrupted.double().mean().item(), "n": 4 * 8 * 15}


def test_without_noise_nothing_is_corrupted(make_trainer, random_rows, spy):
    for noise in (None, UniformTokens(ratio=0, vocab_size=64)):
        trainer = make_trainer(random_rows(4), noise=noise)
        seen = spy(trainer)
        trainer.train()
        assert all(torch.equal(inputs["labels"], labels) for inputs, labels in seen)
        assert trainer.realised_noise() == {"rate": 0.0, "n": 2 * 4 * 15}
        assert not any("nll_corrupted_targets" in entry for entry in trainer.state.log_history)


def test_a_checkpoint_knows_its_noise(make_trainer, random_rows, noise, tmp_path):
    trainer = make_trainer(random_rows(4), noise=noise, save_strategy="steps", save_steps=2)
    trainer.train()
    trainer.save_model()
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-2"):
        assert json.loads((folder / "config.json").read_text())["hf_noise"] == noise.to_dict()
        assert AutoModelForCausalLM.from_pretrained(folder).config.hf_noise == noise.to_dict()


def test_a_stream_of_rows_trains_as_the_same_rows_in_memory(make_trainer, random_rows, noise, spy):
    rows = random_rows(8)
    stored = datasets.Dataset.from_list([{"input_ids": r["input_ids"].tolist(), "sample_id": r["sample_id"]}
                                         for r in rows])  # fmt: skip
    trainer = make_trainer(stored.to_iterable_dataset(), noise=noise, max_steps=4)
    seen = spy(trainer)
    trainer.train()
    for step, (inputs, labels) in enumerate(seen):
        part = rows[4 * (step % 2) : 4 * (step % 2) + 4]
        tokens = torch.stack([torch.as_tensor(row["input_ids"]) for row in part])
        assert inputs["sample_id"].tolist() == [row["sample_id"] for row in part]
        assert torch.equal(labels, noise(tokens, inputs["sample_id"], step // 2)[0])


def test_rows_without_a_sample_id_are_refused(make_trainer, random_rows, noise):
    rows = [{"input_ids": row["input_ids"]} for row in random_rows(4)]
    with pytest.raises(ValueError, match="sample_id.*rows have input_ids, labels"):
        make_trainer(rows, noise=noise).train()
    make_trainer(rows, noise=UniformTokens(ratio=0, vocab_size=64)).train()  # no noise, no need


def test_a_vocabulary_larger_than_the_models_is_refused(make_trainer):
    with pytest.raises(ValueError, match="ids up to 99, the model knows 64"):
        make_trainer(noise=UniformTokens(ratio=1, vocab_size=100))


@pytest.mark.parametrize("placement", ["append", "replace"])
def test_noise_on_documents_that_the_rows_do_not_bring_is_refused(make_trainer, random_rows, placement):
    noise = RandomDocuments(alpha=0.5, vocab_size=64, placement=placement)
    with pytest.raises(ValueError, match="RandomDocuments cannot be drawn by a trainer: rows bring it, .* is_noisy"):
        make_trainer(random_rows(4), noise=noise).train()


def test_noise_on_labels_is_refused(make_trainer):
    with pytest.raises(TypeError, match="takes noise on tokens or documents, got LabelFlips"):
        make_trainer(noise=LabelFlips.cyclic(1.0, num_classes=64))


def test_model_init_is_refused(tiny_gpt2, arguments, noise):
    """`Trainer` would make a second model in `train()`, without noise in its config and without a learned rate."""
    from hf_noise.trainers import CausalLMTrainer

    with pytest.raises(ValueError, match="model_init"):
        CausalLMTrainer(model_init=lambda: tiny_gpt2(), args=arguments(), noise=noise)


def test_sample_ids_survive_arguments_that_drop_columns(make_trainer, random_rows, tiny_gpt2, noise, monkeypatch,
                                                        tmp_path):  # fmt: skip
    """Without `args` the stock defaults hold, and these drop the columns that a model does not take."""
    from hf_noise.trainers import CausalLMTrainer

    monkeypatch.chdir(tmp_path)
    stored = datasets.Dataset.from_list([{"input_ids": r["input_ids"].tolist(), "sample_id": r["sample_id"]}
                                         for r in random_rows(4)])  # fmt: skip
    trainer = CausalLMTrainer(tiny_gpt2(), noise=noise, train_dataset=stored)
    assert "sample_id" in next(iter(trainer.get_train_dataloader()))
    stock = Trainer(tiny_gpt2(), train_dataset=stored, data_collator=lambda rows: rows[0])
    assert "sample_id" not in next(iter(stock.get_train_dataloader()))


def test_corrected_loss_of_a_known_batch(make_trainer, random_rows, noise, tiny_gpt2, nll_by_hand):
    rows = random_rows(4)
    nll = []
    for row in rows:
        tokens = torch.as_tensor(row["input_ids"])
        nll.append(nll_by_hand(tiny_gpt2(), tokens, noise(tokens[None], torch.tensor([row["sample_id"]]))[0][0]))
    expected = -torch.log(0.5 * torch.exp(-torch.cat(nll)) + 0.5 / 64).mean().item()
    trainer = make_trainer(rows, noise=noise, loss="corrected", max_steps=1)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-6)
    assert not math.isclose(expected, torch.cat(nll).mean().item(), rel_tol=1e-2)


@dataclass(frozen=True, kw_only=True)
class NextTokens(TokenNoise):
    """Replace tokens by the next id."""

    protocol: ClassVar[str] = "test_next_tokens"
    stream: ClassVar[int] = 902

    redraw: Redraw = "epoch"

    def replace_block(self, tokens, is_noisy, words, scratch, ignored) -> None:
        draws.mask(words, self.threshold, ignored, out=is_noisy)
        draws.put(tokens, (tokens + 1) % self.vocab_size, is_noisy)


@pytest.mark.parametrize("compiled", [False, True])
def test_any_noise_on_tokens_is_drawn_and_stated(make_trainer, random_rows, tmp_path, compiled):
    """A bare one, of which the trainer knows what it declares; without a twin it is drawn by NumPy in either way."""
    noise = NextTokens(ratio=1.0, vocab_size=64, seed=2)
    rows = random_rows(8)
    trainer = make_trainer(rows, noise=noise, max_steps=5, save_strategy="steps", save_steps=5)
    trainer.args.torch_compile = compiled
    seen, targets = [], trainer.targets
    trainer.targets = lambda inputs, *, draw: seen.append((inputs, targets(inputs, draw=draw))) or seen[-1][1]
    trainer.train()
    assert len(seen) == 5
    for step, (inputs, (labels, is_noisy)) in enumerate(seen):
        clean = inputs["input_ids"]
        assert torch.equal(labels, torch.where(is_noisy, (clean + 1) % 64, clean))
        assert torch.equal(labels, noise(clean, inputs["sample_id"], step // 2)[0]) and is_noisy.any()
    assert load_noise(tmp_path / "run" / "checkpoint-5") == noise == trainer.noise
    with pytest.raises(ValueError, match='error_rate="known" takes the weight of uniform noise.*NextTokens mixes no'):
        make_trainer(rows, noise=noise, loss="corrected")
    make_trainer(rows, noise=noise, loss="corrected", error_rate=0.5)
