"""A GPT-2 of a few thousand weights, rows of random tokens, and trainers that leave nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

from hf_noise.noise import UniformTokens
from hf_noise.trainers import CausalLMTrainer

VOCABULARY = 64
LENGTH = 16


@pytest.fixture
def tiny_gpt2():
    """`tiny_gpt2(seed=0, **config)`: one layer, width 16, 64 tokens, no dropout."""

    def make(seed: int = 0, **config) -> GPT2LMHeadModel:
        torch.manual_seed(seed)
        shape = {"vocab_size": VOCABULARY, "n_positions": LENGTH, "n_embd": 16, "n_layer": 1, "n_head": 2}
        off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
        model = GPT2LMHeadModel(GPT2Config(**(shape | off | config)))
        with torch.no_grad():  # larger weights than GPT-2 starts with, so that tokens differ in their NLL
            model.transformer.wte.weight.mul_(20)
        return model

    return make


@pytest.fixture
def random_rows():
    """`random_rows(n, lengths=(16,))`: rows of random tokens, their lengths in turn from `lengths`."""

    def make(n: int, lengths=(LENGTH,), seed: int = 0) -> list[dict]:
        draw = np.random.default_rng(seed)
        return [
            {"input_ids": draw.integers(0, VOCABULARY, lengths[i % len(lengths)]), "sample_id": 1000 + 7 * i}
            for i in range(n)
        ]

    return make


@pytest.fixture
def arguments(tmp_path):
    """`arguments(**changes)`: TrainingArguments for the CPU that write nothing and log every step."""

    def make(**changes) -> TrainingArguments:
        usual = {
            "output_dir": str(tmp_path / "run"), "use_cpu": True, "report_to": "none", "disable_tqdm": True,
            "save_strategy": "no", "logging_steps": 1, "per_device_train_batch_size": 4, "max_steps": 2,
            "lr_scheduler_type": "constant", "dataloader_pin_memory": False,
        }  # fmt: skip
        return TrainingArguments(**(usual | changes))

    return make


@pytest.fixture
def make_trainer(tiny_gpt2, arguments):
    """`make_trainer(rows, model=..., noise=..., loss=..., <TrainingArguments>)`."""

    def make(rows=None, *, model=None, eval_rows=None, cls=CausalLMTrainer, **settings):
        own = {k: settings.pop(k) for k in ("noise", "loss", "error_rate", "fused_loss", "callbacks") if k in settings}
        return cls(
            model or tiny_gpt2(), arguments(**settings), train_dataset=rows, eval_dataset=eval_rows, **own
        )

    return make


@pytest.fixture
def noise():
    """Half of the targets wrong."""
    return UniformTokens(error_rate=0.5, vocab_size=VOCABULARY, seed=3)


@pytest.fixture
def nll_by_hand():
    """`nll_by_hand(model, tokens, labels=None)`: float64 [L - 1], NLL of each target of one row, without a batch."""

    def compute(model, tokens, labels=None) -> torch.Tensor:
        tokens = torch.as_tensor(tokens)
        labels = tokens if labels is None else torch.as_tensor(labels)
        with torch.no_grad():
            logits = model.eval()(input_ids=tokens[None]).logits[0]
        return F.cross_entropy(logits[:-1].double(), labels[1:], reduction="none")

    return compute


@pytest.fixture
def broken_in_step_3():
    """`broken_in_step_3(trainer)`: trains on noise levels that are NaN for even ids in step 3; the record it leaves."""

    def train(trainer) -> dict:
        draw = trainer.levels

        def levels(sample, stream, epoch):
            breaks = (sample % 2 == 0) & (trainer.state.global_step == 2)
            return draw(sample, stream, epoch).masked_fill(breaks, float("nan"))

        trainer.levels = levels
        with pytest.raises(FloatingPointError, match=r"NaN or infinite in step 3 for \d of 8 images \(sample_id \d+"):
            trainer.train()
        return json.loads((Path(trainer.args.output_dir) / "non_finite_loss.json").read_text())

    return train
