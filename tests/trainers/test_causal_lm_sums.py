"""Losses are exact sums over tokens. Each test shows beside it what the stock behaviour gives."""

from __future__ import annotations

import pytest
import torch
from transformers import Trainer

from hf_noise.losses import nll as nll_module
from hf_noise.trainers.collate import collate_rows

RAGGED = (16, 3, 9, 2, 12)


class StockLoss(Trainer):
    """The usual override of `compute_loss`."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return model(**{name: column for name, column in inputs.items() if name != "sample_id"}).loss


@pytest.fixture
def stock_trainer(tiny_gpt2, arguments):
    """A plain Trainer on the same rows, without the column it cannot use."""

    def make(rows=None, *, eval_rows=None, cls=Trainer, **settings):
        rows, eval_rows = ([{"input_ids": r["input_ids"]} for r in x] if x else None for x in (rows, eval_rows))
        args = arguments(remove_unused_columns=False, **settings)
        return cls(tiny_gpt2(), args, data_collator=collate_rows, train_dataset=rows, eval_dataset=eval_rows)

    return make


def losses(trainer) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_loss_is_the_mean_over_predicted_tokens(make_trainer, stock_trainer, random_rows, tiny_gpt2, nll_by_hand):
    rows = random_rows(4)
    by_hand = torch.cat([nll_by_hand(tiny_gpt2(), row["input_ids"]) for row in rows]).mean().item()
    (ours,) = losses(make_trainer(rows, max_steps=1))
    (stock,) = losses(stock_trainer(rows, max_steps=1))
    assert ours == pytest.approx(by_hand, rel=1e-6)
    # The stock Trainer divides GPT-2's loss by all 16 tokens of a row, of which 15 are predicted.
    assert stock == pytest.approx(by_hand * 15 / 16, rel=1e-6)


def test_evaluation_is_exact_at_any_batch_size(make_trainer, stock_trainer, random_rows, tiny_gpt2, nll_by_hand):
    rows = random_rows(11, RAGGED)
    every = torch.cat([nll_by_hand(tiny_gpt2(), row["input_ids"]) for row in rows])
    ours, stock = [], []
    for size in (1, 4, 8):
        metrics = make_trainer(eval_rows=rows, per_device_eval_batch_size=size).evaluate()
        assert metrics["eval_tokens"] == every.numel() == sum(len(row["input_ids"]) - 1 for row in rows)
        assert metrics["eval_loss"] == metrics["eval_nll"]
        assert metrics["eval_perplexity"] == pytest.approx(every.mean().exp().item(), rel=1e-6)
        ours.append(metrics["eval_nll"])
        trainer = stock_trainer(eval_rows=rows, per_device_eval_batch_size=size)
        trainer._loss_shifts_labels = True  # repairs the count of targets, not the mean of batch means
        stock.append(trainer.evaluate()["eval_loss"])
    assert ours == pytest.approx([every.mean().item()] * 3, rel=1e-6)
    assert max(stock) - min(stock) > 0.01


def test_evaluation_drops_no_row(make_trainer, random_rows):
    """Dropping the last incomplete batch is an option for training; the stock Trainer applies it to both."""
    settings = dict(eval_rows=random_rows(5), per_device_eval_batch_size=4, dataloader_drop_last=True)
    assert make_trainer(**settings).evaluate()["eval_tokens"] == 5 * 15
    trainer = make_trainer(random_rows(5), **settings)
    assert len(trainer.get_train_dataloader()) == 1


def test_accumulated_batches_equal_one_large_batch(make_trainer, stock_trainer, random_rows):
    """Rows of different lengths, so that a mean of means would show, and SGD, so that weights show gradients."""
    rows = random_rows(8, RAGGED)
    settings = dict(optim="sgd", learning_rate=0.05, max_grad_norm=0.0, max_steps=3)
    large = make_trainer(rows, per_device_train_batch_size=8, **settings)
    small = make_trainer(rows, per_device_train_batch_size=2, gradient_accumulation_steps=4, **settings)
    assert losses(small) == pytest.approx(losses(large), rel=1e-6)
    torch.testing.assert_close(weights(small), weights(large), rtol=0, atol=1e-6)

    large = stock_trainer(rows, cls=StockLoss, per_device_train_batch_size=8, **settings)
    small = stock_trainer(
        rows, cls=StockLoss, per_device_train_batch_size=2, gradient_accumulation_steps=4, **settings
    )
    assert losses(small)[0] > 3 * losses(large)[0]
    assert not torch.allclose(weights(small), weights(large), atol=1e-2)


def test_a_short_last_accumulation_is_weighted_by_its_tokens(make_trainer, random_rows, tiny_gpt2, nll_by_hand):
    """Seven rows in batches of 2 x 2: the second update of the epoch has three rows."""
    rows = random_rows(7, RAGGED)
    by_hand = {row["sample_id"]: nll_by_hand(tiny_gpt2(), row["input_ids"]) for row in rows}
    trainer = make_trainer(rows, per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=0.0)
    passes, original = [], trainer.targets

    def targets(inputs, *, draw):
        passes.append(inputs["sample_id"].tolist())
        return original(inputs, draw=draw)

    trainer.targets = targets
    first, second = losses(trainer)
    assert [len(ids) for ids in passes] == [2, 2, 2, 1]
    for loss, update in ((first, passes[:2]), (second, passes[2:])):
        nll = torch.cat([by_hand[i] for ids in update for i in ids])
        assert loss == pytest.approx(nll.mean().item(), rel=1e-6)


def test_ignored_labels_count_nowhere(make_trainer, random_rows, tiny_gpt2, nll_by_hand):
    rows = random_rows(4)
    expected = []
    for row in rows:
        expected.append(nll_by_hand(tiny_gpt2(), row["input_ids"])[6:])
        row["labels"] = row["input_ids"].copy()
        row["labels"][:7] = -100
    expected = torch.cat(expected).mean().item()
    trainer = make_trainer(rows, eval_rows=rows, learning_rate=0.0, max_steps=1)
    assert losses(trainer) == pytest.approx([expected], rel=1e-6)
    assert trainer.evaluate()["eval_nll"] == pytest.approx(expected, rel=1e-6)


def test_evaluation_without_a_target_is_refused(make_trainer, random_rows):
    rows = random_rows(3)
    for row in rows:
        row["labels"] = row["input_ids"] * 0 - 100
    with pytest.raises(ValueError, match="hold no target"):
        make_trainer(eval_rows=rows).evaluate()


@pytest.mark.skipif(not nll_module.HAS_FUSED, reason="this torch has no fused linear cross-entropy")
@pytest.mark.parametrize("loss", ["nll", "corrected"])
def test_fused_loss_equals_the_plain_path(make_trainer, random_rows, noise, loss):
    rows = random_rows(8, RAGGED)
    settings = dict(noise=noise, loss=loss, optim="sgd", learning_rate=0.05, max_steps=3)
    plain = make_trainer(rows, eval_rows=rows, fused_loss=False, **settings)
    fused = make_trainer(rows, eval_rows=rows, fused_loss=True, **settings)
    assert losses(fused) == pytest.approx(losses(plain), rel=1e-6)
    torch.testing.assert_close(weights(fused), weights(plain), rtol=0, atol=1e-6)
    assert fused.evaluate()["eval_nll"] == pytest.approx(plain.evaluate()["eval_nll"], rel=1e-6)
    # Called as ever, the model still gives its logits.
    assert fused.model(input_ids=torch.zeros(1, 4, dtype=torch.long)).logits.shape == (1, 4, 64)


def test_fused_loss_is_off_by_default_on_a_cpu(make_trainer, random_rows):
    assert not make_trainer(random_rows(2)).fused_loss


@pytest.mark.parametrize("name", ["final_logit_softcapping", "logit_scale", "logits_scaling"])
def test_models_that_change_their_logits_refuse_the_fused_loss(make_trainer, tiny_gpt2, name):
    model = tiny_gpt2()
    setattr(model.config, name, 30.0)
    with pytest.raises(ValueError, match=f"{name}.*fused_loss=False"):
        make_trainer(model=model, fused_loss=True)
    assert not make_trainer(model=model).fused_loss


def test_a_torch_without_fused_loss_says_so(make_trainer, monkeypatch):
    monkeypatch.setattr("hf_noise.trainers.causal_lm.HAS_FUSED", False)
    with pytest.raises(RuntimeError, match="fused_loss=False"):
        make_trainer(fused_loss=True)
