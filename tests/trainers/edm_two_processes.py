"""What each process of `torchrun --nproc_per_node 2 edm_two_processes.py folder` does in `test_edm_processes.py`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import TrainingArguments

from hf_noise.models.edm_unet import edm_unet
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import LabelFlips
from hf_noise.studies.launch import check_world
from hf_noise.trainers import EDMTrainer
from hf_noise.trainers.images import DeviceImages

CLASSES, BATCH, STEPS = 4, 8, 4
NOISE = LabelFlips.symmetric(ratio=1.0, num_classes=CLASSES, seed=3)


def rows(n: int) -> DeviceImages:
    draw = np.random.default_rng(n)
    images = torch.from_numpy(draw.integers(0, 256, (n, 1, 8, 8), dtype=np.uint8))
    columns = {"labels": torch.from_numpy(draw.integers(0, CLASSES, n)), "sample_id": torch.arange(n) + 100}
    return DeviceImages(images, columns, mean=[0.5], std=[0.5])


def train(folder: Path, batch_size: int) -> tuple[dict, dict[str, torch.Tensor]]:
    """Train by TDSM, and evaluate on rows that fill no batch; (figures, averaged weights)."""
    args = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, max_steps=STEPS, logging_steps=1,
        per_device_train_batch_size=batch_size, per_device_eval_batch_size=2, optim="sgd", learning_rate=0.05,
        save_strategy="steps", save_steps=STEPS, dataloader_drop_last=True,
    )  # fmt: skip
    check_world(args)
    torch.manual_seed(0)
    unet = edm_unet("edm-digits", num_classes=CLASSES, image_size=8, num_channels=1)
    torch.nn.init.normal_(unet.conv_out.weight, std=0.1)
    classifier = TimeDependentClassifier(
        CLASSES, 8, 1, "cnn-digits", transition=NOISE.transition.tolist(), transition_source="known"
    )
    trainer = EDMTrainer(
        unet, args, noise=NOISE, loss="tdsm", classifier=classifier, label_dropout=0.2, ema_decay=0.5,
        train_dataset=rows(20), eval_dataset=rows(7),
    )  # fmt: skip
    trainer.train()
    figures = {
        "evaluation": {k: v for k, v in trainer.evaluate().items() if "loss" in k or "images" in k},
        "log": [{k: v for k, v in entry.items() if "loss" in k or k == "noise_rate"}
                for entry in trainer.state.log_history if "loss" in entry],
        "realised": trainer.realised_noise(),
    }  # fmt: skip
    return figures, {name: p.detach().clone() for name, p in trainer.pipeline().unet.named_parameters()}


def main(folder: Path) -> None:
    world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    figures, weights = train(folder / "run", BATCH // world)
    if rank == 0:
        save_file(weights, folder / "average.safetensors")
    (folder / f"rank{rank}.json").write_text(json.dumps(figures))
    torch.distributed.destroy_process_group()  # its threads may abort a process that ends with them


if __name__ == "__main__":
    main(Path(sys.argv[1]))
