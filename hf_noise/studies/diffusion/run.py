"""Diffusion models: judge and classifier, the trainer of a run, its images, and what is measured of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainingArguments

from hf_noise.losses.dsm import P_MEAN, P_STD, SIGMA_DATA
from hf_noise.metrics import Extractor, density_coverage, frechet_distance
from hf_noise.models.edm_unet import edm_unet
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.reports.provenance import portable
from hf_noise.studies import engine
from hf_noise.studies.classifier import study as judges
from hf_noise.studies.diffusion.report import SAMPLES_FILE
from hf_noise.studies.diffusion.study import CLASSIFIER_EPOCHS, Run, Settings
from hf_noise.studies.engine import Job
from hf_noise.studies.image_settings import DATA, shared
from hf_noise.studies.images import ImageData, describe_images, load_images, noise_of
from hf_noise.studies.judging import (
    accuracy_of_judge,
    classwise_distance,
    consistency,
    load_judge,
    measured,
    trained_judge,
)
from hf_noise.studies.reading import reading
from hf_noise.studies.settings import at_scale
from hf_noise.studies.study import steps_of
from hf_noise.studies.time_classifier import study as classifiers
from hf_noise.studies.time_classifier.run import augmentation, augmentation_in_words, in_unit_range, mirror
from hf_noise.trainers import EDMTrainer
from hf_noise.trainers.folders import claimed
from hf_noise.trainers.images import DeviceImages
from hf_noise.trainers.labels import check_same_noise

# Images of each class that are kept for the figure.
KEPT_PER_CLASS = 8
# Scales of the studies that train judge and classifier.
_STUDIES = {"demo": "demo", "gpu": "gpu", "paper": "paper", "paper_c": "paper"}


@dataclass
class Shared:
    """What all runs share: images, the judge, and what it sees in real ones."""

    data: ImageData
    classifier: TimeDependentClassifier | None
    judge: Extractor | None = None
    judge_accuracy: dict | None = None
    real_features: Tensor | None = None

    def look(self, settings: Settings, args: TrainingArguments) -> None:
        """Take up the judge, which is trained on clean labels first if none is given."""
        data = self.data
        self.judge = load_judge(settings.judge or trained_judge(judge_of(settings), data), data, args.device)
        judged = self.judge(data.test.images, progress=False)[1].argmax(-1).numpy()
        labels = data.test.columns["labels"].cpu().numpy()
        self.judge_accuracy = accuracy_of_judge(self.judge, judged, labels, data.classes)
        self.real_features = self.judge(data.train_images.images, progress=False)[0]

    def rows(self, run: Run, settings: Settings) -> DeviceImages:
        """Training images in [-1, 1] with the labels of a run."""
        return in_unit_range(self.data.scored(run), mirror(settings, run.seed))


def load(settings: Settings, args: TrainingArguments, runs: Sequence[Run], is_trial: bool = False) -> Shared:
    """Read the images, classifier and judge; what any of the runs would refuse is refused before a judge is trained."""
    data = load_images(settings, args, runs)
    classifier = None
    if settings.classifier is not None:
        classifier = given_classifier(settings.classifier, data)
        for run in runs:
            if run.loss == "tdsm":
                rows = data.labelled(run.protocol) if run.ratio is None else None
                check_same_noise(classifier.config, noise_of(run, data, rows))
    found = Shared(data, classifier)
    if not is_trial:
        found.look(settings, args)
    return found


def describe(settings: Settings, data: Shared) -> list[str]:
    """What the data are, for a dry run."""
    judge = judge_of(settings)
    trained = f"{judge.model}, trained first in {judge.epochs:g} epochs on clean labels"
    return [*describe_images(data.data), f"judge: {settings.judge or trained}"]


def given_classifier(name: str, data: ImageData) -> TimeDependentClassifier:
    """The classifier in a folder or on the Hub. Raises ValueError: it is for other images, classes or noise levels."""
    with reading("the classifier", name):
        classifier = TimeDependentClassifier.from_pretrained(name)
    classifier.check(
        num_classes=len(data.classes), image_size=data.image_size, num_channels=data.num_channels,
        sigma_data=SIGMA_DATA, P_mean=P_MEAN, P_std=P_STD,
    )  # fmt: skip
    return classifier


def judge_of(settings: Settings) -> judges.Settings:
    """Settings of a judge of these images."""
    return at_scale(
        judges.Settings, _STUDIES[settings.scale], output=f"{settings.output}/judge", ratio=[0.0],
        epochs=settings.judge_epochs, **shared(settings, *DATA, "num_processes", "bf16", "torch_compile"),
    )  # fmt: skip


def classifier_of(settings: Settings, run: Run) -> classifiers.Settings:
    """Settings of the classifier that is trained on the labels of a run."""
    scale = _STUDIES[settings.scale]
    usual = CLASSIFIER_EPOCHS.get(settings.scale, classifiers.SCALES[scale]["epochs"])
    longer = settings.epochs / Settings.scales[settings.scale]["epochs"]
    own = (
        "human_source", "human_column", "redraw", "flip", "augment", "allow_adversarial", "bf16", "fp16", "tf32",
        "torch_compile", "save_steps", "logging_steps", "num_processes",
    )  # fmt: skip
    return at_scale(
        classifiers.Settings, scale, output=settings.output, protocol=run.protocol, transition=["known"],
        seed=[run.seed], ratio=None if run.ratio is None else [run.ratio], model=settings.classifier_model,
        epochs=settings.classifier_epochs or usual * longer,
        **shared(settings, *DATA, *own),
    )  # fmt: skip


def classifier_job(job: Job) -> Job:
    """The run that trains the classifier through T on the labels of another run."""
    settings, study = classifier_of(job.settings, job.run), classifiers.STUDY
    data = replace(job.data.data, settings=settings)
    (run,) = study.runs(settings)
    # Unlike the study's own, of an epoch its last images too.
    steps = steps_of(settings.epochs, data.train_rows, settings.batch_size)
    plan = replace(study.plan(settings, run, data.train_rows), steps=steps, base_steps=steps)
    folder = job.folder.parent / f"classifier-{job.run.labels}-seed{job.run.seed}"
    return Job(study, settings, run, plan, folder, data, folder.name, is_trial=job.is_trial)


def helpers(job: Job) -> list[Job]:
    """The judge and, for TDSM, the classifier of noisy images, unless they are given."""
    found, settings, data = [], job.settings, job.data.data
    if settings.judge is None:
        judge = judge_of(settings)
        run = judges.clean_run(judge)
        plan = judges.STUDY.plan(judge, run, data.train_rows)
        own, folder = replace(data, settings=judge), job.folder.parent / "judge"
        found.append(Job(judges.STUDY, judge, run, plan, folder, own, "judge", is_trial=job.is_trial))
    if job.run.loss == "tdsm" and settings.classifier is None:
        found.append(classifier_job(job))
    return found


def classifier_for(job: Job) -> TimeDependentClassifier:
    """The classifier of noisy images that was given, or one trained through T on the labels of this run."""
    if job.data.classifier is not None:
        return job.data.classifier
    helper = classifier_job(job)
    if job.is_trial:  # as fast as it will be, and as wrong as it begins
        return helper.build().model
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # no process may find the folder finished while another still writes it
    claim, is_main = engine.identity(helper.settings, helper.run), not int(os.environ.get("RANK", 0))
    with claimed(helper.folder, claim, is_main=is_main):  # a finished one too must be that of these settings
        if not (helper.folder / "record.json").exists():
            engine.make(helper)
    return TimeDependentClassifier.from_pretrained(helper.folder)


def build(job: Job) -> EDMTrainer:
    settings, run, data = job.settings, job.run, job.data.data
    rows = job.data.rows(run, settings)
    classifier = classifier_for(job) if run.loss == "tdsm" else None
    args = job.arguments(len(rows), weight_decay=0.0, dataloader_pin_memory=False)
    model = edm_unet(
        settings.model, num_classes=len(data.classes), image_size=data.image_size, num_channels=data.num_channels,
        dropout=settings.dropout,
    )  # fmt: skip
    return EDMTrainer(
        model, args, noise=noise_of(run, data, rows), loss=run.loss, classifier=classifier, tau=settings.tau,
        ema_decay=settings.ema_decay, label_dropout=settings.label_dropout, augment=augmentation(settings, run.seed),
        train_dataset=rows, eval_dataset=in_unit_range(data.test),
    )  # fmt: skip


def finish(job: Job, trainer: EDMTrainer) -> dict[str, Any]:
    """What the record says; some of the images are kept beside it."""
    settings, run, data, noise = job.settings, job.run, job.data.data, trainer.noise
    realised, evaluated = trainer.realised_noise(), trainer.evaluate()
    images, labels = draw(settings, run, trainer, len(data.classes))
    if not trainer.is_world_process_zero():
        return {}
    keep_some(images, labels, job.folder / SAMPLES_FILE)
    # What people got wrong counts as any noise does: at a fixed budget the clean exposure is 1 - e.
    budget = replace(job.plan, ratio=noise.ratio).to_dict() | {
        "epochs": job.plan.sequences / data.train_rows, "processes": trainer.args.world_size,
    }  # fmt: skip
    loss = trainer.loss_record()
    if trainer.classifier is not None:
        helper, given = classifier_job(job), settings.classifier is not None
        loss |= {"tau": settings.tau, "classifier": portable(settings.classifier or helper.folder.name)}
        # What TDSM needs beside the network is part of what it costs.
        budget |= {} if given else {"classifier_steps": helper.plan.steps, "classifier_images": helper.plan.sequences}
    drawn = f"with averaged weights, {settings.sampling_steps} steps of Heun's method"
    return dict(
        model={"name": settings.model, "parameters": sum(p.numel() for p in trainer.published_parameters()),
               "config": json.loads(trainer.accelerator.unwrap_model(trainer.model).to_json_string())},
        data=data.to_dict() | {"augmentation": augmentation_in_words(settings), "images drawn": drawn},
        noise=noise.to_dict() | {"realised": realised},
        budget=budget,
        loss=loss,
        metrics=measure(job.data, images, labels, evaluated),
    )  # fmt: skip


def draw(settings: Settings, run: Run, trainer: EDMTrainer, classes: int) -> tuple[Tensor, np.ndarray]:
    """Images uint8 [N, channels, H, W] under the averaged weights, drawn by all processes, and their classes."""
    pipeline = trainer.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    labels = np.arange(settings.num_images) % classes
    starts = range(0, settings.num_images, settings.sample_batch)
    parts = []
    for start in starts[trainer.args.process_index :: trainer.args.world_size]:
        asked = labels[start : start + settings.sample_batch].tolist()
        drawn = pipeline(
            asked, seed=run.seed, first_index=start, num_inference_steps=settings.sampling_steps, output_type="pt"
        ).images
        parts.append((start, (drawn * 255).round().to(torch.uint8).cpu()))
    if trainer.args.world_size > 1:
        parts = gather_object(parts)
    return torch.cat([part for _, part in sorted(parts, key=lambda part: part[0])]), labels


def keep_some(images: Tensor, labels: np.ndarray, path: Path) -> None:
    """Write the first images of each class, for the figure: arrays `images` uint8 [N, H, W, channels] and `labels`."""
    kept = np.concatenate([np.flatnonzero(labels == label)[:KEPT_PER_CLASS] for label in np.unique(labels)])
    np.savez_compressed(path, images=images[kept].permute(0, 2, 3, 1).numpy(), labels=labels[kept])


def measure(shared: Shared, images: Tensor, labels: np.ndarray, evaluated: dict) -> dict[str, dict]:
    """The figures of a run, each with the number of images behind it."""
    n, judge, data = len(images), shared.judge, shared.data
    features, logits = judge(images, progress=False)
    real, fake = shared.real_features.numpy(), features.numpy()
    near = density_coverage(real, fake, device=judge.device)
    metrics = {
        "label_consistency": consistency(logits.argmax(-1).numpy(), labels, data.classes),
        "judge_test_accuracy": shared.judge_accuracy,
        "frechet_distance": measured("frechet", frechet_distance(real, fake), n, judge),
        **{name: measured(name, near[name], n, judge) for name in ("density", "coverage")},
    }
    clean = data.train_images.columns["labels"].cpu().numpy()
    if (distance := classwise_distance(real, clean, fake, labels, data.classes, judge)) is not None:
        metrics["cw_frechet_distance"] = distance
    for name, key in (("test_loss", "eval_ema_loss"), ("test_loss_raw", "eval_loss")):
        metrics[name] = {"value": evaluated[key], "n": evaluated["eval_images"]}
    return metrics
