"""Trainers with the objectives that others published: any micro-batches, restarts, the fused head."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from hf_noise.losses.nll import HAS_FUSED
from hf_noise.noise import Masking
from hf_noise.objectives import GCE, DocumentMixture, ErrorNorm, Smoothed, Truncated
from hf_noise.trainers import MaskedLMTrainer

PEERS = [
    GCE(0.5), Smoothed(0.2), Truncated(0.3, start=0.25), Truncated(0.3, drops="rows", start=0.25),
    ErrorNorm(1.1, start=0.25),
]  # fmt: skip


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def state(trainer):
    return {} if trainer.learned is None else {k: v.clone() for k, v in trainer.learned.state_dict().items()}


@pytest.mark.parametrize("loss", PEERS, ids=repr)
def test_micro_batches_change_nothing(make_trainer, random_rows, noise, loss):
    def run(batch, accumulation):
        trainer = make_trainer(
            random_rows(32, (16, 9, 12)), noise=noise, loss=loss, max_steps=4, optim="sgd", learning_rate=0.3,
            per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
        )  # fmt: skip
        trainer.train()
        return trainer

    whole, parts = run(8, 1), run(2, 4)
    for name, weight in weights(parts).items():
        torch.testing.assert_close(weight, weights(whole)[name], rtol=0, atol=1e-5)
    for name, values in state(parts).items():
        assert torch.equal(values, state(whole)[name]), name
    losses = [[entry["loss"] for entry in one.state.log_history if "loss" in entry] for one in (parts, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and len(losses[0]) == 4
    if whole.learned is not None:
        record = whole.loss_record()
        assert 0 < record["dropped"] < 0.6 and record["objective"] == loss.to_dict()
        assert whole.state.log_history[0]["dropped"] == 0 < whole.state.log_history[-2]["dropped"]


@pytest.mark.parametrize("loss", PEERS[2:], ids=repr)
def test_what_a_truncation_knows_is_in_its_checkpoints(make_trainer, random_rows, noise, tmp_path, loss):
    settings = {"noise": noise, "loss": loss, "save_strategy": "steps", "save_steps": 1, "max_steps": 6}
    whole = make_trainer(random_rows(16), **settings)
    whole.train()
    file = tmp_path / "run" / "checkpoint-3" / "hf_noise_state.safetensors"
    assert {f"{whole.objective.module_name}.{key}" for key in state(whole)} <= set(load_file(file))
    weights_file = load_file(tmp_path / "run" / "checkpoint-3" / "model.safetensors")
    assert not any("hf_noise" in name for name in weights_file)
    again = make_trainer(random_rows(16), output_dir=str(tmp_path / "again"), **settings)
    again.train(resume_from_checkpoint=str(file.parent))
    for found, expected in ((weights(again), weights(whole)), (state(again), state(whole))):
        assert found.keys() == expected.keys()
        assert all(torch.equal(values, expected[name]) for name, values in found.items())
    assert len(whole.optimizer.param_groups) == 2, "nothing is learned beside the model"


def test_a_run_is_not_resumed_under_another_threshold(make_trainer, random_rows, noise):
    settings = {"noise": noise, "save_strategy": "steps", "save_steps": 1}
    make_trainer(random_rows(8), loss=Truncated(0.3), max_steps=1, **settings).train()
    again = make_trainer(random_rows(8), loss=Truncated(0.2), max_steps=2, **settings)
    with pytest.raises(ValueError, match="objective.fraction = 0.3, this run has 0.2"):
        again.train(resume_from_checkpoint="auto")


def test_where_everything_is_dropped_nothing_is_learned_and_nothing_breaks(make_trainer, random_rows, noise):
    trainer = make_trainer(random_rows(8), noise=noise, loss=ErrorNorm(1e-3, start=0), weight_decay=0.0)
    before = weights(trainer)
    trainer.train()
    assert all(torch.equal(weight, before[name]) for name, weight in weights(trainer).items())
    assert trainer.objective.facts()["dropped"] == 1.0
    assert [entry["loss"] for entry in trainer.state.log_history if "loss" in entry] == [0, 0]


@pytest.mark.skipif(not HAS_FUSED, reason="this torch has no fused linear cross-entropy")
@pytest.mark.parametrize("loss", [PEERS[0], PEERS[2]], ids=repr)
def test_what_needs_no_logits_goes_with_the_fused_head(make_trainer, random_rows, noise, loss):
    runs = []
    for fused in (False, True):
        trainer = make_trainer(random_rows(16), noise=noise, loss=loss, fused_loss=fused, max_steps=4, optim="sgd",
                               learning_rate=0.1)  # fmt: skip
        trainer.train()
        runs.append(trainer)
    for name, weight in weights(runs[1]).items():
        torch.testing.assert_close(weight, weights(runs[0])[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("loss", [*PEERS, DocumentMixture(0.1, "unigram", start=0.25)], ids=repr)
def test_a_masked_model_minimises_them_too(make_trainer, tiny_bert, random_rows, noise, loss):
    """With the head at masked positions alone, where no logits are needed, as with it everywhere."""
    runs, shares = [], {"mask_share": 1.0, "random_share": 0.0} if isinstance(loss, DocumentMixture) else {}
    for sparse in (None, False):
        trainer = make_trainer(
            random_rows(16), cls=MaskedLMTrainer, model=tiny_bert(), noise=noise, loss=loss, sparse_head=sparse,
            masking=Masking(vocab_size=64, mask_token=64, probability=0.5, **shares), max_steps=4, optim="sgd",
            learning_rate=0.1,
        )  # fmt: skip
        trainer.train()
        runs.append(trainer)
    assert (runs[0].sparse_head is None) == loss.needs_logits
    for name, weight in weights(runs[1]).items():
        torch.testing.assert_close(weight, weights(runs[0])[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("loss", ["smoothed", "error-norm"])
def test_what_needs_the_logits_refuses_the_fused_head(make_trainer, loss):
    with pytest.raises(ValueError, match="needs the logits, which the fused loss never holds: use fused_loss=False"):
        make_trainer(loss=loss, fused_loss=True)
