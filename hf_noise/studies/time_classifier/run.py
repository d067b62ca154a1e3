"""One run of `time_classifier.py` after the other; `train_time_classifier` also serves other recipes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import ProgressCallback, TrainingArguments, set_seed

from hf_noise.analysis.transition import anchor_transition, transition_error
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.noise.schedule import plan_named
from hf_noise.reports.record import RunRecord
from hf_noise.reports.tables import figure, markdown_table
from hf_noise.studies.classifier.run import Data, loader_for, noise_of
from hf_noise.studies.engine import CHECKPOINTS_KEPT, run_all, write_result
from hf_noise.studies.launch import check_disk, split_batch, training_world
from hf_noise.studies.progress import FigureProgress
from hf_noise.trainers import TimeClassifierTrainer
from hf_noise.trainers.edm_augment import EDMAugment
from hf_noise.trainers.images import CropFlip, DeviceImages
from hf_noise.trainers.resuming import AUTO
from hf_noise.trainers.time_classifier import VolumePlan

TRANSITIONS = ("known", "estimated", "anchor", "human", "none")
# Anchor points are looked for among images with hardly any noise.
ANCHOR_SIGMA = 0.05
PLANS = {"short": VolumePlan(), "paper": VolumePlan.paper()}
# Lists of which a run has one value each.
NOT_IN_A_RUN = ("ratio", "transition")


@dataclass(frozen=True)
class Run:
    """One setting; `ratio` is None for human labels, whose rate is what it is."""

    ratio: float | None
    protocol: str
    transition: str
    seed: int

    @property
    def name(self) -> str:
        noise = self.protocol.replace(":", "-") if self.ratio is None else f"r{self.ratio:.3g}-{self.protocol}"
        return f"{noise}-{self.transition}-seed{self.seed}"


def in_unit_range(rows: DeviceImages, augment: CropFlip | None = None) -> DeviceImages:
    """The same rows with images in [-1, 1], where Gaussian noise is added to them."""
    half = [0.5] * rows.images.shape[1]
    return DeviceImages(
        rows.images, rows.columns, device=rows.images.device, mean=half, std=half, augment=augment, info=rows.info
    )


def augmentation(settings, seed: int) -> EDMAugment | None:
    """EDM's augmentation, if a run has it."""
    if not settings.augment:
        return None
    return EDMAugment(probability=settings.augment, flip=settings.can_be_mirrored, seed=seed)


def in_words(settings) -> str:
    """What happens to training images."""
    edm = f"EDM's with probability {settings.augment:g}" if settings.augment else None
    return ", ".join(filter(None, ["horizontal flip" if settings.flip else None, edm])) or "none"


def train(settings, runs, plans) -> bool:
    """Make all runs that are not finished; returns whether this is the main process."""
    return run_all(settings, runs, plans, load=loader_for(runs), make=make_run, left_out=NOT_IN_A_RUN)


def make_run(settings, run: Run, plan, folder: Path, data: Data, on_cpu: bool, title: str) -> None:
    started = time.perf_counter()
    rows = data.scored(run)
    noise = noise_of(run, data, rows)
    mirror = CropFlip(padding=0, flip=True, seed=run.seed) if settings.flip else None
    trainer = train_time_classifier(
        in_unit_range(rows, mirror), in_unit_range(data.test), noise=noise, folder=folder, settings=settings,
        transition=run.transition, class_names=data.classes, steps=plan.steps, seed=run.seed, on_cpu=on_cpu,
        title=title, augment=augmentation(settings, run.seed),
    )  # fmt: skip
    record_classifier(trainer, folder, settings, data, noise=noise, transition=run.transition, started=started)


def record_classifier(
    trainer: TimeClassifierTrainer,
    folder: Path,
    settings: Any,
    data: Data,
    *,
    noise: LabelFlips | HumanLabels,
    transition: str,
    started: float,
) -> None:
    """Measure a classifier and write its record and card, after which its folder counts as finished.

    Args:
        settings: `time_classifier.Settings`.
        transition: one of `TRANSITIONS`.
        started: `time.perf_counter()` before it was trained.
    """
    realised, metrics = trainer.realised_noise(), measure(trainer, noise)
    if trainer.is_world_process_zero():
        model, args = trainer.model, trainer.args
        plan = plan_named("budget").plan(noise.ratio, steps=args.max_steps, batch_size=settings.batch_size)
        record = RunRecord(
            name=folder.name, task="noisy_classification", recipe="recipes/time_classifier.py", seed=args.seed,
            settings=asdict(settings),
            model={"name": settings.model, "parameters": model.num_parameters(), "config": dict(model.config)},
            data={
                "builder": settings.data, "source": data.source, "classes": len(data.classes),
                "image_size": data.image_size, "channels": data.num_channels, "train_rows": data.train_rows,
                "test_rows": len(data.test), "augmentation": in_words(settings),
            },
            noise=noise.to_dict() | {"realised": realised},
            budget=plan.to_dict() | {"epochs": plan.sequences / data.train_rows, "processes": training_world()},
            loss={"name": "nll" if transition == "none" else "corrected", "error_rate": noise.error_rate,
                  "source": transition},
            metrics=metrics, wall_seconds=time.perf_counter() - started,
        )  # fmt: skip
        write_result(record, folder)
    trainer.accelerator.wait_for_everyone()


def train_time_classifier(
    rows: DeviceImages,
    test: DeviceImages,
    *,
    noise: LabelFlips | HumanLabels | None,
    folder: Path,
    settings: Any,
    transition: str = "known",
    class_names: Sequence[str],
    steps: int,
    seed: int = 0,
    on_cpu: bool = False,
    title: str = "classifier",
    augment: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] | None = None,
) -> TimeClassifierTrainer:
    """Train a classifier of noisy images and save it in `folder`, going on from its last checkpoint if it has one.

    Args:
        rows, test: images in [-1, 1] (`in_unit_range`), with labels and sample ids.
        noise: what the labels of `rows` suffer.
        folder: for checkpoints, and at the end for `TimeDependentClassifier.from_pretrained`.
        settings: `time_classifier.Settings`, or whatever has its fields from `model` on that concern training.
        transition: one of `TRANSITIONS`; "human" and "known" both take T of the noise, "none" corrects nothing.
        class_names: of the C classes.
        steps: of the optimiser.
        augment: of training images, see `TimeClassifierTrainer`.

    Returns:
        The trainer; its `model` is the classifier, its `transition` what that was trained through.
    """
    rows_per_pass, accumulation = split_batch(settings.batch_size, training_world(), settings.micro_batch)
    given = None if transition == "none" else {"human": "known"}.get(transition, transition)
    if transition == "anchor":
        plain = train_time_classifier(
            rows, test, noise=noise, folder=folder / "plain", settings=settings, transition="none",
            class_names=class_names, steps=steps, seed=seed, on_cpu=on_cpu, title=f"{title}, plain", augment=augment,
        )  # fmt: skip
        given = anchor_transition(noisy_posterior(plain, rows), settings.anchor_quantile)
    args = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=rows_per_pass,
        gradient_accumulation_steps=accumulation, per_device_eval_batch_size=settings.micro_batch,
        learning_rate=settings.learning_rate, lr_scheduler_type=settings.schedule, warmup_steps=settings.warmup,
        max_grad_norm=0.0, bf16=settings.bf16, fp16=settings.fp16, tf32=settings.tf32,
        torch_compile=settings.torch_compile, logging_steps=settings.logging_steps, save_steps=settings.save_steps,
        save_total_limit=CHECKPOINTS_KEPT, use_cpu=on_cpu, dataloader_pin_memory=False,
        dataloader_drop_last=len(rows) >= settings.batch_size, report_to="none", seed=seed,
    )  # fmt: skip
    set_seed(seed)
    model = TimeDependentClassifier(
        num_classes=len(class_names), image_size=rows.images.shape[-1], num_channels=rows.images.shape[1],
        architecture=settings.model, class_names=list(class_names), augmentation=augment is not None,
    )  # fmt: skip
    check_disk(folder, model.num_parameters(), CHECKPOINTS_KEPT + 1)
    trainer = TimeClassifierTrainer(
        model, args, noise=noise, transition=given, volume=PLANS[settings.matrix_phases], augment=augment,
        train_dataset=rows, eval_dataset=test,
    )  # fmt: skip
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(FigureProgress(title))
    trainer.train(resume_from_checkpoint=AUTO)
    trainer.save_model()
    return trainer


@torch.no_grad()
def noisy_posterior(trainer: TimeClassifierTrainer, rows: DeviceImages, batch_size: int = 1024) -> np.ndarray:
    """p(noisy label | x_t) float64 [N, C] of all rows at a small noise level, the same on every process."""
    model, found = trainer.model.eval(), []
    for start in range(0, len(rows), batch_size):
        batch = rows.__getitems__(range(start, min(start + batch_size, len(rows))))
        images = batch["pixel_values"].to(trainer.args.device)
        sigma = torch.full((len(images),), ANCHOR_SIGMA, device=images.device)
        noised = trainer.noised(images, sigma, batch["sample_id"].to(images.device), stream=87, epoch=0)
        found.append(model.log_posterior(noised, sigma).double().softmax(-1).cpu())
    return torch.cat(found).numpy()


def measure(trainer: TimeClassifierTrainer, noise: LabelFlips | HumanLabels) -> dict[str, dict]:
    """The figures of a run, each with the number of images, or of entries of T, behind it."""
    found = trainer.evaluate()
    n = found["eval_images"]
    metrics = {name.removeprefix("eval_"): {"value": value, "n": n} for name, value in found.items()
               if name.startswith(("eval_accuracy", "eval_nll"))}  # fmt: skip
    if trainer.transition is not None:
        error = transition_error(trainer.transition, noise.transition)
        entries = noise.num_classes**2
        metrics |= {
            "transition_mean_absolute_error": {"value": error.mean_absolute, "n": entries, "largest": error.largest},
            "transition_worst_row": {"value": error.worst_row, "n": noise.num_classes},
        }  # fmt: skip
    return metrics


def table(records: Sequence[RunRecord]) -> str:
    """One line per run: the matrix against the true one, accuracy at every noise level."""
    records = [record for record in records if record.task == "noisy_classification"]
    levels = [name for name in records[0].metrics if name.startswith("accuracy_sigma")] if records else []
    header = ["run", "e", "T: mean error", "T: largest", "T: worst row (TV)", "NLL", "accuracy, %",
              *(f"at sigma {name.removeprefix('accuracy_sigma')}" for name in levels)]  # fmt: skip
    lines = []
    for record in records:
        metrics = record.metrics
        mean, worst = metrics.get("transition_mean_absolute_error", {}), metrics.get("transition_worst_row", {})
        lines.append([
            record.name, figure(record.noise["error_rate"]), figure(mean.get("value"), 4),
            figure(mean.get("largest"), 4), figure(worst.get("value"), 4), figure(metrics["nll"]["value"]),
            *(figure(100 * metrics[name]["value"], 1) for name in ("accuracy", *levels)),
        ])  # fmt: skip
    return markdown_table(header, lines)
