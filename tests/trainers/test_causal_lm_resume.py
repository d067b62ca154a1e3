"""A run that was stopped and started again ends with the weights of a run that was not."""

from __future__ import annotations

import math
import resource

import datasets
import pytest
import torch
from transformers import GPT2LMHeadModel

from hf_noise.noise import UniformTokens
from hf_noise.trainers.checkpoints import last_complete_checkpoint


@pytest.fixture
def run(make_trainer, tiny_gpt2, noise, tmp_path):
    """Train 7 steps with dropout and a learned rate; `resume` is the step of the checkpoint to start from."""

    def train(rows, resume=None, folder="run", **settings):
        trainer = make_trainer(
            rows, model=tiny_gpt2(resid_pdrop=0.1), noise=noise, loss="corrected", error_rate="learned",
            max_steps=7, save_strategy="steps", save_steps=1, logging_steps=2, learning_rate=1e-2,
            lr_scheduler_type="cosine", per_device_train_batch_size=2, output_dir=str(tmp_path / folder), **settings,
        )  # fmt: skip
        checkpoint = tmp_path / "run" / f"checkpoint-{resume}" if resume else None
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return trainer

    return train


def assert_same(resumed, whole):
    for (name, ours), theirs in zip(resumed.model.named_parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert torch.equal(resumed.learned.logit, whole.learned.logit)
    assert resumed.realised_noise() == whole.realised_noise()


def figures(trainer) -> list[dict]:
    """Log entries without the times."""
    return [{k: v for k, v in entry.items() if "runtime" not in k and "per_second" not in k}
            for entry in trainer.state.log_history if "loss" in entry]  # fmt: skip


@pytest.mark.parametrize(
    ("accumulation", "steps"),
    [
        (1, (2, 5, 6)),  # 10 rows in batches of 2: step 5 ends the epoch
        (2, (1, 3, 4)),  # 5 batches, 2 to an update: step 3 ends the epoch with a single one
    ],
)
def test_resumed_weights_are_bit_identical(run, random_rows, accumulation, steps):
    rows = random_rows(10)
    whole = run(rows, gradient_accumulation_steps=accumulation)
    for step in steps:
        resumed = run(rows, resume=step, folder=f"from-{step}", gradient_accumulation_steps=accumulation)
        assert_same(resumed, whole)
        # Also the figures of a logging window that the stop cut in two.
        for ours, theirs in zip(figures(resumed), figures(whole), strict=True):
            assert {k: v for k, v in ours.items() if "nll" in k or "rate" in k} == pytest.approx(
                {k: v for k, v in theirs.items() if "nll" in k or "rate" in k}, rel=1e-12
            )


def test_a_run_that_was_stopped_after_its_last_step_has_nothing_left_to_do(run, random_rows):
    """The stock Trainer makes one step more when the last one was not the last of its epoch."""
    whole = run(random_rows(10))
    again = run(random_rows(10), resume=7, folder="again")
    assert again.state.global_step == 7
    assert_same(again, whole)
    assert again.evaluate(random_rows(2))["eval_nll"] == whole.evaluate(random_rows(2))["eval_nll"]


def test_a_stream_is_resumed_in_its_first_pass(run, random_rows):
    plain = [{"input_ids": row["input_ids"].tolist(), "sample_id": row["sample_id"]} for row in random_rows(16)]
    stream = datasets.Dataset.from_list(plain).to_iterable_dataset()
    whole = run(stream)
    assert_same(run(stream, resume=3, folder="again"), whole)


def test_a_stream_is_not_resumed_wrongly_in_a_later_pass(run, random_rows):
    """The stock Trainer takes a stream for one endless epoch, so it would skip rows that are not there."""
    plain = [{"input_ids": row["input_ids"].tolist(), "sample_id": row["sample_id"]} for row in random_rows(6)]
    stream = datasets.Dataset.from_list(plain).to_iterable_dataset()
    run(stream)
    with pytest.raises(RuntimeError, match="first pass only, and the checkpoint stands in pass 2"):
        run(stream, resume=5, folder="again")


def test_a_checkpoint_that_cannot_be_written_leaves_nothing_behind(run, random_rows, tmp_path, tiny_gpt2):
    """Files may grow to the size of the weights, which is less than the optimiser's two moments need."""
    limit = 4 * tiny_gpt2().num_parameters() + 2048
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (limit, limit // 4):  # too little for the optimiser's state, too little for the weights
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            with pytest.raises(OSError, match="checkpoint-1 could not be written.*was removed"):
                run(random_rows(10))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not list((tmp_path / "run").glob("checkpoint-*"))
    assert last_complete_checkpoint(tmp_path / "run") is None
    assert math.isfinite(run(random_rows(10)).objective.error_rate)
    assert last_complete_checkpoint(tmp_path / "run").name == "checkpoint-7"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"noise": UniformTokens(error_rate=0.4, vocab_size=64, seed=3)}, "noise = .*0.5.*this run has .*0.4.*"),
        ({"noise": UniformTokens(error_rate=0.5, vocab_size=64, seed=4)}, "noise = .*'seed': 3.*has .*'seed': 4.*"),
        ({"noise": None}, "noise = .*this run has None"),
        ({"loss": "corrected"}, "error_rate = None, this run has known"),
    ],
)
def test_a_run_is_not_resumed_under_another_noise_or_loss(make_trainer, random_rows, noise, changes, named):
    settings = {"noise": noise, "save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    make_trainer(random_rows(16), **settings).train()
    again = make_trainer(random_rows(16), **(settings | {"max_steps": 3} | changes))
    with pytest.raises(ValueError, match=f"checkpoint-2 was trained with {named}. Go on as it began"):
        again.train(resume_from_checkpoint="auto")


def test_a_model_that_goes_on_under_another_noise_states_the_earlier_one_too(
    make_trainer, random_rows, noise, tmp_path, caplog
):
    trainer = make_trainer(random_rows(8), noise=noise)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    other = UniformTokens(error_rate=0.1, vocab_size=64)
    for _ in range(2):  # what was only made states nothing of the past
        model = GPT2LMHeadModel.from_pretrained(tmp_path / "model")
        again = make_trainer(random_rows(8), noise=noise, model=model)
        assert not hasattr(again.model.config, "hf_noise_before")
        again = make_trainer(random_rows(8), noise=other, model=GPT2LMHeadModel.from_pretrained(tmp_path / "model"))
        assert again.model.config.hf_noise_before == [noise.to_dict()] and "another noise before" in caplog.text
        assert again.model.config.hf_noise == other.to_dict()
