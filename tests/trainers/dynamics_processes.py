"""What each of two processes does in `test_dynamics.py`, which starts them by torchrun with a folder to write to."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from hf_noise.trainers import ClassifierTrainer, DynamicsCallback

CLASSES, TOKENS, LENGTH, ROWS = 4, 32, 6, 13


def rows() -> list[dict]:
    draw = np.random.default_rng(0)
    return [{"input_ids": draw.integers(0, TOKENS, LENGTH).tolist(), "labels": int(draw.integers(CLASSES)),
             "sample_id": 50 - i} for i in range(ROWS)]  # fmt: skip


def network() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(
        vocab_size=TOKENS, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=LENGTH, num_labels=CLASSES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    ))  # fmt: skip


class Stop(TrainerCallback):
    """Breaks a run off after six steps."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 6:
            raise InterruptedError


def trainer(cls, folder: Path, record: Path, *callbacks, **settings):
    """Two epochs of four steps."""
    args = TrainingArguments(**{
        "output_dir": str(folder), "use_cpu": True, "report_to": "none", "disable_tqdm": True, "num_train_epochs": 2,
        "per_device_train_batch_size": 2, "optim": "sgd", "learning_rate": 0.0, "save_strategy": "no",
        "dataloader_pin_memory": False, "remove_unused_columns": False, **settings,
    })  # fmt: skip
    callbacks = [DynamicsCallback(record), *callbacks]
    return cls(network(), args, train_dataset=Dataset.from_list(rows()), callbacks=callbacks)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    trainer(ClassifierTrainer, folder / "run", folder / "ours").train()
    trainer(Trainer, folder / "run", folder / "stock").train()
    saving = {"save_strategy": "steps", "save_steps": 3, "learning_rate": 0.1}
    trainer(ClassifierTrainer, folder / "one" / "run", folder / "straight", **saving).train()
    try:
        trainer(ClassifierTrainer, folder / "two" / "run", folder / "resumed", Stop(), **saving).train()
    except InterruptedError:
        torch.distributed.barrier()
    trainer(ClassifierTrainer, folder / "two" / "run", folder / "resumed", **saving).train(resume_from_checkpoint=True)
    try:  # what the main process refuses stops both
        trainer(ClassifierTrainer, folder / "run", folder / "ours", seed=7).train()
    except (FileExistsError, RuntimeError) as error:
        (folder / f"refused{os.environ['RANK']}").write_text(f"{type(error).__name__}: {error}")
    torch.distributed.destroy_process_group()
