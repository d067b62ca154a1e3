"""Image classifiers: the trainer of a run, and what is measured of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from transformers import BitImageProcessor, TrainingArguments
from transformers.image_utils import PILImageResampling

from hf_noise.metrics import (
    accuracy,
    classifier_calibration,
    marginal_shift,
    per_class_accuracy,
    successor_rate,
)
from hf_noise.models.image import image_classifier
from hf_noise.studies.classifier.signal import advice_metrics, observers
from hf_noise.studies.classifier.study import Run, Settings, learning_rate_of
from hf_noise.studies.engine import Job, with_interval
from hf_noise.studies.images import ImageData, describe_images, load_images, noise_of
from hf_noise.trainers import ImageClassifierTrainer

# Training images on which accuracy is measured at the end, without augmentation.
SCORED_ROWS = 10_000
CLASSES_LISTED = 100  # up to this many, a record holds the accuracy of each class
OPTIMIZERS = {"sgd": {"optim": "sgd", "optim_args": "momentum=0.9"}, "adamw": {"optim": "adamw_torch_fused"}}


def load(
    settings: Settings, args: TrainingArguments, runs: Sequence[Run], is_trial: bool = False
) -> ImageData:
    return load_images(settings, args, runs)


def describe(settings: Settings, data: ImageData) -> list[str]:
    return describe_images(data)


def helpers(job: Job) -> list[Job]:
    """Nothing is trained before a run."""
    return []


def build(job: Job) -> ImageClassifierTrainer:
    settings, run, data = job.settings, job.run, job.data
    args = job.arguments(
        data.train_rows, lr_scheduler_type="cosine", max_grad_norm=0.0,
        learning_rate=learning_rate_of(settings, job.plan),
        dataloader_num_workers=0 if settings.on_device else settings.workers, **OPTIMIZERS[settings.optimizer],
    )  # fmt: skip
    model = image_classifier(
        settings.model, labels=data.classes, image_size=data.image_size, num_channels=data.num_channels
    )
    rows = data.training(run)
    watching = observers(settings.batch_size) if is_watched(job) else []
    return ImageClassifierTrainer(
        model, args, noise=noise_of(run, data, rows), loss=run.loss, mixup=settings.mixup, train_dataset=rows,
        eval_dataset=data.test, processing_class=processor_of(settings, data), callbacks=watching,
    )  # fmt: skip


def is_watched(job: Job) -> bool:
    """Whether the gradients of this run are measured for advice on the batch: with noise, and the batch of without."""
    run = job.run
    is_usual = (run.protocol, run.loss, run.plan) == ("symmetric", "nll", "steps")
    return job.settings.advise and bool(run.ratio) and is_usual and not job.is_trial


def finish(job: Job, trainer: ImageClassifierTrainer) -> dict[str, Any]:
    """What the record says."""
    settings, run, plan, data = job.settings, job.run, job.plan, job.data
    noise, model, realised = trainer.noise, trainer.accelerator.unwrap_model(trainer.model), trainer.realised_noise()
    return dict(
        model={"name": settings.model, "parameters": model.num_parameters(), "config": config_of(model)},
        data=data.to_dict() | {"augmentation": augmentation_in_words(settings)},
        noise=noise.to_dict() | {"realised": realised},
        # What people got wrong counts as any noise does: at a fixed budget the clean exposure is 1 - e.
        budget=replace(plan, ratio=noise.ratio).to_dict() | {
            "epochs": plan.sequences / data.train_rows, "processes": trainer.args.world_size,
        },
        loss=trainer.loss_record() | {"error_rate": noise.error_rate if run.loss == "corrected" else 0.0},
        metrics=measure(run, trainer, data)
        | (advice_metrics(trainer) if is_watched(job) else {}),
    )  # fmt: skip


def processor_of(settings: Settings, data: ImageData) -> BitImageProcessor:
    """What makes a picture what the network was tested on; padding with zeros is left to the caller."""
    normalised = {"image_mean": data.mean, "image_std": data.std}
    size, crop = data.image_size, {"height": data.image_size, "width": data.image_size}
    if settings.on_device and settings.resize:
        options = {"size": {"shortest_edge": size}, "crop_size": crop, "resample": PILImageResampling.LANCZOS}
        return BitImageProcessor(**options, do_center_crop=True, do_convert_rgb=False, **normalised)
    if settings.on_device:
        exact = settings.image_size is None and data.is_square
        return BitImageProcessor(size=crop, do_resize=exact, do_center_crop=False, do_convert_rgb=False, **normalised)
    shortest = {"shortest_edge": round(size * 256 / 224)}
    return BitImageProcessor(size=shortest, crop_size=crop, do_center_crop=True, **normalised)


def config_of(model: Any) -> dict[str, Any]:
    """What sets the model apart; the names of the classes stay in the checkpoint."""
    config = json.loads(model.config.to_json_string(use_diff=True))
    return {name: value for name, value in config.items() if name not in ("id2label", "label2id", "label_names")}


def augmentation_in_words(settings: Settings) -> str:
    """What happens to training images."""
    crop = f"random crop after padding by {settings.crop_padding} pixels" if settings.crop_padding else None
    crop = crop if settings.on_device else "random crop of 8% to 100% of the area"
    mixup = f"mixup {settings.mixup:g}" if settings.mixup else None
    parts = [crop, "horizontal flip" if settings.flip else None, mixup]
    return ", ".join(filter(None, parts)) or "none"


def measure(run: Run, trainer: ImageClassifierTrainer, data: ImageData) -> dict[str, dict]:
    """The figures of a run, each with the number of images behind it."""
    classes = len(data.classes)
    logits, labels, _ = trainer.predict(data.test)
    predicted, n = logits.argmax(-1), len(labels)
    overall = accuracy(predicted, labels, num_classes=classes)
    calibration = classifier_calibration(logits, labels)
    successor = successor_rate(predicted, labels, num_classes=classes)
    shift = marginal_shift(predicted, labels, num_classes=classes)
    metrics = {
        "test_accuracy": with_interval(overall, "accuracy"),
        "test_nll": {"value": calibration["nll"], "n": n, "unit": "nats"},
        "test_ece": {"value": calibration["ece"], "n": n},
        "successor_rate": with_interval(successor, "successor_rate"),
        "marginal_kl": {
            "value": shift["marginal_kl"], "n": n, "unit": "nats", "of_sampling_alone": shift["sampling_kl"],
        },
        "marginal_tv": {"value": shift["marginal_tv"], "n": n, "of_sampling_alone": shift["sampling_tv"]},
    }  # fmt: skip
    if classes <= CLASSES_LISTED:
        by_class = per_class_accuracy(predicted, labels, num_classes=classes)["accuracy"]
        metrics["test_accuracy"]["per_class"] = dict(zip(data.classes, map(float, by_class)))
    scored = data.scored(run, SCORED_ROWS)
    # The labels of the last epoch that was trained to its end.
    trainer.draw_epoch(max(0, math.floor(trainer.state.epoch or 0) - 1))
    guess = trainer.predict(scored).predictions.argmax(-1)
    trained, clean, wrong = (part.cpu().numpy() for part in trainer.targets(scored.columns, draw=True))
    kinds = {"train_accuracy_clean_labels": guess == clean, "train_accuracy_trained_labels": guess == trained}
    if np.any(wrong):
        kinds["memorised"] = (guess == trained)[wrong]
    for name, hits in kinds.items():
        metrics[name] = {"value": float(hits.mean()), "n": hits.size}
    return metrics
