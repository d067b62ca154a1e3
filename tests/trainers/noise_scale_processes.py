"""What each of two processes does in `test_noise_scale.py`, which starts them by torchrun with a folder to write to."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

from hf_noise.trainers import CausalLMTrainer, NoiseScaleCallback

VOCABULARY, LENGTH, ROWS = 64, 16, 32


def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=16, n_layer=1, n_head=2,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    ))  # fmt: skip


def rows() -> list[dict]:
    draw = np.random.default_rng(0)
    return [{"input_ids": draw.integers(0, VOCABULARY, LENGTH), "sample_id": i} for i in range(ROWS)]


class Seen(NoiseScaleCallback):
    """Notes the rows of each pass."""

    def before_pass(self, trainer, model, inputs):
        self.ids.append(inputs["sample_id"].tolist())
        super().before_pass(trainer, model, inputs)


def train(folder: Path, batch: int, passes: int) -> dict:
    """Two steps whose weights stay as they are; the measurements, and the rows of each pass of this process."""
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, max_steps=2, logging_steps=1,
        per_device_train_batch_size=batch, gradient_accumulation_steps=passes, optim="sgd", learning_rate=0.0,
        save_strategy="no", dataloader_drop_last=True, dataloader_pin_memory=False, max_grad_norm=0.1,
    )  # fmt: skip
    seen = Seen(every=1)
    seen.ids = []
    trainer = CausalLMTrainer(model(), args, train_dataset=rows(), callbacks=[seen])
    trainer.train()
    return {"measured": seen.measurements, "ids": seen.ids, "log": trainer.state.log_history[1]}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = {str(passes): train(folder / f"run{passes}", 4 // passes, passes) for passes in (1, 2)}
    (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
