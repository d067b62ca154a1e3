"""What each of two processes does in `test_time_classifier.py`, which calls `train` itself for the run of one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import TrainingArguments

from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import LabelFlips
from hf_noise.trainers import TimeClassifierTrainer
from hf_noise.trainers.images import DeviceImages

CLASSES, SIZE = 4, 6


def rows(n=32, seed=0, **columns):
    """Images whose class is the brightest of four quadrants, in [-1, 1]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    images = rng.integers(0, 60, (n, 1, SIZE, SIZE), dtype=np.uint8)
    for image, label in zip(images, labels):
        top, left = divmod(label, 2)
        image[0, 3 * top : 3 * top + 3, 3 * left : 3 * left + 3] += 180
    columns = {"labels": torch.from_numpy(labels), "sample_id": torch.arange(n) * 3 + seed, **columns}
    return DeviceImages(torch.from_numpy(images), columns, mean=[0.5], std=[0.5])


def network(seed=0):
    torch.manual_seed(seed)
    return TimeDependentClassifier(CLASSES, SIZE, 1, "cnn-digits")


def train(folder: Path, batch_size: int, transition: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """Train, and evaluate on rows that fill no batch; (figures, weights)."""
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, max_steps=5, logging_steps=1,
        per_device_train_batch_size=batch_size, per_device_eval_batch_size=2, optim="sgd", learning_rate=0.05,
        save_strategy="no", dataloader_drop_last=True,
    )  # fmt: skip
    noise = LabelFlips.symmetric(error_rate=0.4, num_classes=CLASSES, seed=5)
    trainer = TimeClassifierTrainer(
        network(), args, noise=noise, transition=transition, train_dataset=rows(20), eval_dataset=rows(7, 1)
    )
    trainer.train()
    figures = {
        "evaluation": {k: v for k, v in trainer.evaluate().items() if "nll" in k or "accuracy" in k or "images" in k},
        "log": [{k: v for k, v in entry.items() if k not in ("grad_norm", "epoch", "step")}
                for entry in trainer.state.log_history if "loss" in entry],
        "transition": trainer.transition.tolist(),
    }  # fmt: skip
    return figures, trainer.model.state_dict()


def main(folder: Path) -> None:
    world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    results, weights = train(folder / "run", 8 // world, "estimated")
    torch.distributed.barrier()
    (folder / f"rank{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()  # its threads may abort a process that ends with them


if __name__ == "__main__":
    main(Path(sys.argv[1]))
