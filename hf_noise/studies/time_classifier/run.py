"""Classifiers of noisy images: the trainer of a run, and what is measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments

from hf_noise.analysis.transition import anchor_transition, transition_error
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.studies.engine import Job
from hf_noise.studies.images import ImageData, describe_images, load_images, noise_of
from hf_noise.studies.time_classifier.study import Run, Settings
from hf_noise.trainers import TimeClassifierTrainer
from hf_noise.trainers.edm_augment import EDMAugment
from hf_noise.trainers.images import CropFlip, DeviceImages
from hf_noise.trainers.resuming import AUTO
from hf_noise.trainers.time_classifier import VolumePlan

# Anchor points are looked for among images with hardly any noise.
ANCHOR_SIGMA = 0.05
PLANS = {"short": VolumePlan(), "paper": VolumePlan.paper()}


def in_unit_range(rows: DeviceImages, augment: CropFlip | None = None) -> DeviceImages:
    """The same rows with images in [-1, 1], where Gaussian noise is added to them."""
    half = [0.5] * rows.images.shape[1]
    return DeviceImages(
        rows.images, rows.columns, device=rows.images.device, mean=half, std=half, augment=augment, info=rows.info
    )


def mirror(settings: Any, seed: int) -> CropFlip | None:
    """What mirrors half of the training images, if a run has it."""
    return CropFlip(padding=0, flip=True, seed=seed) if settings.flip else None


def augmentation(settings: Any, seed: int) -> EDMAugment | None:
    """EDM's augmentation, if a run has it; it mirrors what may be mirrored."""
    if not settings.augment:
        return None
    return EDMAugment(probability=settings.augment, flip=settings.can_be_mirrored, seed=seed)


def augmentation_in_words(settings: Any) -> str:
    """What happens to training images."""
    edm = f"EDM's with probability {settings.augment:g}" if settings.augment else None
    return ", ".join(filter(None, ["horizontal flip" if settings.flip else None, edm])) or "none"


def load(
    settings: Settings, args: TrainingArguments, runs: Sequence[Run], is_trial: bool = False
) -> ImageData:
    return load_images(settings, args, runs)


def describe(settings: Settings, data: ImageData) -> list[str]:
    return describe_images(data)


def helpers(job: Job) -> list[Job]:
    """For anchor points, a classifier that corrects nothing, in a folder within."""
    if job.run.transition != "anchor":
        return []
    plain = replace(job.run, transition="none")
    return [replace(job, run=plain, folder=job.folder / "plain", title=f"{job.title}, plain")]


def build(job: Job) -> TimeClassifierTrainer:
    """The trainer of a run; for anchor points, a plain classifier is trained first."""
    settings, run, data = job.settings, job.run, job.data
    rows = in_unit_range(data.scored(run), mirror(settings, run.seed))
    # "human" and "known" both take T of the noise.
    through = {"none": None, "human": "known"}.get(run.transition, run.transition)
    if run.transition == "anchor":
        through = "known" if job.is_trial else anchors(job, rows)
    args = job.arguments(len(rows), max_grad_norm=0.0, dataloader_pin_memory=False)
    model = TimeDependentClassifier(
        num_classes=len(data.classes), image_size=data.image_size, num_channels=data.num_channels,
        architecture=settings.model, class_names=list(data.classes), augmentation=bool(settings.augment),
    )  # fmt: skip
    return TimeClassifierTrainer(
        model, args, noise=noise_of(run, data, rows), transition=through, volume=PLANS[settings.matrix_phases],
        augment=augmentation(settings, run.seed), train_dataset=rows, eval_dataset=in_unit_range(data.test),
    )  # fmt: skip


def anchors(job: Job, rows: DeviceImages) -> np.ndarray:
    """T [C, C] off the anchor points of a classifier that corrects nothing, which is trained now."""
    plain = helpers(job)[0].build()
    plain.train(resume_from_checkpoint=AUTO)
    plain.save_model()
    return anchor_transition(noisy_posterior(plain, rows), job.settings.anchor_quantile)


def finish(job: Job, trainer: TimeClassifierTrainer) -> dict[str, Any]:
    """What the record says."""
    settings, run, data, model = job.settings, job.run, job.data, trainer.model
    noise, realised = trainer.noise, trainer.realised_noise()
    plan = replace(job.plan, ratio=noise.ratio)
    return dict(
        model={"name": settings.model, "parameters": model.num_parameters(), "config": dict(model.config)},
        data=data.to_dict() | {"augmentation": augmentation_in_words(settings)},
        noise=noise.to_dict() | {"realised": realised},
        budget=plan.to_dict() | {"epochs": plan.sequences / data.train_rows, "processes": trainer.args.world_size},
        loss=trainer.loss_record() | {"error_rate": noise.error_rate, "source": run.transition},
        metrics=measure(trainer, noise),
    )  # fmt: skip


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
