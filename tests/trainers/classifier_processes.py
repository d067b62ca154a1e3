"""Small classifiers of text with each objective, for one process and for each of two (`two_processes.py`)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

from hf_noise.noise import LabelFlips
from hf_noise.objectives import ELR, GCE, CorrectedLabels, CoTeaching, VolumePlan
from hf_noise.trainers import ClassifierTrainer

CLASSES, TOKENS, LENGTH = 4, 32, 6
NOISE = LabelFlips.symmetric(ratio=1.0, num_classes=CLASSES, seed=5)
LOSSES = {
    "gce": GCE(0.7), "elr": ELR(0.5, 2.0), "co-teaching": CoTeaching(0.25, warmup=0.4),
    "estimated": CorrectedLabels("estimated", VolumePlan(phases=((0.6, 1.0), (0.9, 0.5)), initial_diagonal=0.6)),
}  # fmt: skip


def rows(n=20, seed=0):
    """Rows of tokens of which the first tells the label."""
    draw = np.random.default_rng(seed)
    tokens, labels = draw.integers(CLASSES, TOKENS, (n, LENGTH)), draw.integers(0, CLASSES, n)
    tokens[:, 0] = labels
    return [{"input_ids": ids.tolist(), "labels": int(label), "sample_id": 50 - i + seed}
            for i, (ids, label) in enumerate(zip(tokens, labels))]  # fmt: skip


def network(seed=0, **config):
    torch.manual_seed(seed)
    shape = {"vocab_size": TOKENS, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 32, "max_position_embeddings": LENGTH, "num_labels": CLASSES}  # fmt: skip
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertForSequenceClassification(BertConfig(**(shape | off | config)))
    with torch.no_grad():  # larger weights than BERT starts with, so that rows differ in their losses
        model.bert.embeddings.word_embeddings.weight.mul_(20)
    return model


def trainer_of(folder, loss, batch_size=8, model=None, **changes):
    """A trainer that takes five steps."""
    args = TrainingArguments(**{
        "output_dir": str(folder), "use_cpu": True, "report_to": "none", "disable_tqdm": True, "max_steps": 5,
        "logging_steps": 1, "per_device_train_batch_size": batch_size, "per_device_eval_batch_size": 2, "optim": "sgd",
        "learning_rate": 0.1, "save_strategy": "no", "dataloader_drop_last": True, "dataloader_pin_memory": False,
        "weight_decay": 0.1, **changes,
    })  # fmt: skip
    return ClassifierTrainer(
        model or network(), args, noise=NOISE, loss=LOSSES[loss], train_dataset=rows(), eval_dataset=rows(7, 1)
    )


def train(folder: Path, batch_size: int, loss: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """Train with one of `LOSSES`, and evaluate on rows that fill no batch; (figures, all that is learned)."""
    trainer = trainer_of(folder, loss, batch_size, save_strategy="steps", save_steps=5)
    trainer.train()
    figures = {
        "evaluation": {k: v for k, v in trainer.evaluate().items() if "nll" in k or "accuracy" in k or "rows" in k},
        "log": [{k: v for k, v in entry.items() if k not in ("grad_norm", "epoch", "step")}
                for entry in trainer.state.log_history if "loss" in entry],
        "realised": trainer.realised_noise(),
    }  # fmt: skip
    return figures, learned(trainer)


def learned(trainer) -> dict[str, torch.Tensor]:
    """The weights of the model, and what is learned beside it."""
    beside = {} if trainer.learned is None else trainer.learned.state_dict()
    beside = {f"{trainer.objective.module_name}.{name}": value for name, value in beside.items()}
    return {name: value.clone() for name, value in (trainer.model.state_dict() | beside).items()}


def train_all(folder: Path) -> dict[str, dict]:
    """Figures of each of `LOSSES`, trained by all processes of a launch; what each has learned goes into the folder."""
    world, rank, results = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"]), {}
    for loss in LOSSES:
        results[loss], learned = train(folder / loss, 8 // world, loss)
        save_file(learned, folder / f"{loss}-{rank}.safetensors")
    return results
