"""One run of `edm_noise.py` after the other: judge, classifier, training, samples, measurements, record, card."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import ProgressCallback, TrainingArguments, set_seed

from hf_noise.losses.dsm import P_MEAN, P_STD, SIGMA_DATA
from hf_noise.metrics import (
    Extractor,
    density_coverage,
    frechet_distance,
)
from hf_noise.models.edm_unet import edm_unet
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.reports.provenance import portable
from hf_noise.reports.record import RunRecord
from hf_noise.studies.classifier.run import Data, check_noise, noise_of
from hf_noise.studies.classifier.study import parse as judge_settings
from hf_noise.studies.diffusion.report import SAMPLES_FILE, TASK
from hf_noise.studies.engine import CHECKPOINTS_KEPT, reading, run_all, write_result
from hf_noise.studies.judging import (
    accuracy_of_judge,
    classwise_distance,
    consistency,
    load_judge,
    measured,
    trained_judge,
)
from hf_noise.studies.launch import check_disk, split_batch, training_world
from hf_noise.studies.progress import FigureProgress
from hf_noise.studies.time_classifier.run import (
    augmentation,
    in_unit_range,
    in_words,
    record_classifier,
    train_time_classifier,
)
from hf_noise.studies.time_classifier.study import parse as classifier_settings
from hf_noise.trainers import EDMTrainer
from hf_noise.trainers.folders import claimed
from hf_noise.trainers.images import CropFlip, DeviceImages
from hf_noise.trainers.labels import check_same_noise
from hf_noise.trainers.resuming import AUTO

# Images of each class that are kept for the figure.
KEPT_PER_CLASS = 8
# The average of the weights is kept beside them in each checkpoint, and the pipeline at the end.
COPIES = CHECKPOINTS_KEPT + 2

# Scales of the recipes that train judge and classifier.
_STUDIES = {"demo": "demo", "gpu": "gpu", "paper": "paper", "paper_c": "paper"}

# Lists of which a run has one value each, and what else changes nothing in its result.
NOT_IN_A_RUN = ("ratio", "protocol", "loss", "sample_batch")


@dataclass(frozen=True)
class Run:
    """One setting; `ratio` is None for human labels, whose rate is what it is."""

    ratio: float | None
    protocol: str
    loss: str
    seed: int

    @property
    def labels(self) -> str:
        """Which labels it trains on, in a word that can name a folder."""
        if self.ratio == 0:
            return "r0"
        return self.protocol.replace(":", "-") if self.ratio is None else f"r{self.ratio:.3g}-{self.protocol}"

    @property
    def name(self) -> str:
        return f"{self.labels}-{self.loss}-seed{self.seed}"

    @property
    def ignores(self) -> tuple[str, ...]:
        """Settings that it does not depend on."""
        return ("tau", "classifier", "classifier_model", "classifier_epochs") if self.loss == "dsm" else ()


@dataclass
class Study:
    """What all runs share: images, the judge, and what it sees in real ones."""

    data: Data
    judge: Extractor
    judge_accuracy: dict
    real_features: Tensor
    classifier: TimeDependentClassifier | None

    @classmethod
    def load(cls, settings, args: TrainingArguments, runs: Sequence[Run]) -> Study:
        """Read the images and the judge, which is trained on clean labels first if none is given.

        What any of the runs would refuse is refused before.
        """
        data = Data.load(settings, args)
        noises = check_noise(runs, data)
        classifier = None
        if settings.classifier is not None:
            classifier = given_classifier(settings.classifier, data)
            for run, noise in zip(runs, noises):
                if run.loss == "tdsm":
                    check_same_noise(classifier.config, noise)
        judge = load_judge(settings.judge or trained_judge(judge_of(settings), data), data, args.device)
        judged = judge(data.test.images, progress=False)[1].argmax(-1).numpy()
        seen = accuracy_of_judge(judge, judged, data.test.columns["labels"].cpu().numpy(), data.classes)
        return cls(data, judge, seen, judge(data.train_images.images, progress=False)[0], classifier)

    def rows(self, run: Run | None, flip: bool = False) -> DeviceImages:
        """Training images in [-1, 1] with the labels of a run, or the test images."""
        augment = CropFlip(padding=0, flip=True, seed=run.seed) if flip else None
        return in_unit_range(self.data.test if run is None else self.data.scored(run), augment)


def given_classifier(name: str, data: Data) -> TimeDependentClassifier:
    """The classifier in a folder or on the Hub. Raises ValueError: it is for other images, classes or noise levels."""
    with reading("the classifier", name):
        classifier = TimeDependentClassifier.from_pretrained(name)
    classifier.check(
        num_classes=len(data.classes), image_size=data.image_size, num_channels=data.num_channels,
        sigma_data=SIGMA_DATA, P_mean=P_MEAN, P_std=P_STD,
    )  # fmt: skip
    return classifier


def judge_of(settings):
    """Settings of `classifier_noise.py` for a judge of these images."""
    given = {
        "scale": _STUDIES[settings.scale], "output": f"{settings.output}/judge", "ratio": 0,
        "epochs": settings.judge_epochs, "bf16": settings.bf16, "torch_compile": settings.torch_compile,
    }  # fmt: skip
    common = ("data", "source", "test_source", "classes", "train_rows", "test_rows", "image_size", "num_processes")
    given |= {name: getattr(settings, name) for name in common}
    return judge_settings([f"--{name}={value}" for name, value in given.items() if value is not None])


def train(settings, runs, plans) -> bool:
    """Make all runs that are not finished; returns whether this is the main process."""

    def load(settings, args) -> Study:
        return Study.load(settings, args, runs)

    return run_all(settings, runs, plans, load=load, make=make_run, left_out=NOT_IN_A_RUN)


def classifier_for(
    settings, run: Run, study: Study, noise: LabelFlips | HumanLabels, on_cpu: bool
) -> TimeDependentClassifier:
    """The classifier of noisy images that was given, or one trained through T on the labels of this run."""
    if study.classifier is not None:
        return study.classifier
    folder = Path(settings.output) / classifier_name(run)
    same = (
        "data", "source", "test_source", "human_source", "classes", "train_rows", "test_rows", "image_size",
        "redraw", "flip", "augment", "allow_adversarial", "bf16", "fp16", "tf32", "torch_compile", "save_steps",
        "logging_steps",
    )  # fmt: skip
    given = {name: getattr(settings, name) for name in same} | {
        "scale": _STUDIES[settings.scale], "protocol": run.protocol, "ratio": run.ratio,
        "model": settings.classifier_model, "epochs": settings.classifier_epochs,
    }  # fmt: skip
    classifier = classifier_settings([f"--{name}={value}" for name, value in given.items() if value is not None])
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # no process may find the folder finished while another still writes it
    left_out = ("output", "transition", "seed", "save_steps", "logging_steps", "dry_run")
    claim = {name: value for name, value in asdict(classifier).items() if name not in left_out}
    # A finished one too must be that of these settings.
    with claimed(folder, claim, is_main=not int(os.environ.get("RANK", 0))):
        if not (folder / "record.json").exists():
            started, rows = time.perf_counter(), study.rows(run, settings.flip)
            steps = max(1, round(classifier.epochs * len(rows) / classifier.batch_size))
            trainer = train_time_classifier(
                rows, study.rows(None), noise=noise, folder=folder, settings=classifier, steps=steps, seed=run.seed,
                class_names=study.data.classes, on_cpu=on_cpu, title=folder.name,
                augment=augmentation(settings, run.seed),
            )  # fmt: skip
            record_classifier(
                trainer, folder, classifier, study.data, noise=noise, transition="known", started=started
            )  # fmt: skip
    return TimeDependentClassifier.from_pretrained(folder)


def classifier_name(run: Run) -> str:
    """Folder of the classifier that is trained on the labels of a run."""
    return f"classifier-{run.labels}-seed{run.seed}"


def make_run(settings, run: Run, plan, folder: Path, study: Study, on_cpu: bool, title: str) -> None:
    started = time.perf_counter()
    data, rows = study.data, study.rows(run, settings.flip)
    noise = noise_of(run, data, rows)
    classifier = classifier_for(settings, run, study, noise, on_cpu) if run.loss == "tdsm" else None
    rows_per_pass, accumulation = split_batch(plan.batch_size, training_world(), settings.micro_batch)
    args = TrainingArguments(
        output_dir=str(folder), max_steps=plan.steps, per_device_train_batch_size=rows_per_pass,
        gradient_accumulation_steps=accumulation, per_device_eval_batch_size=settings.micro_batch,
        learning_rate=settings.learning_rate, lr_scheduler_type=settings.schedule, warmup_steps=settings.warmup,
        weight_decay=0.0, max_grad_norm=settings.max_grad_norm, bf16=settings.bf16, fp16=settings.fp16,
        tf32=settings.tf32, torch_compile=settings.torch_compile, logging_steps=settings.logging_steps,
        save_steps=settings.save_steps, save_total_limit=CHECKPOINTS_KEPT, use_cpu=on_cpu, dataloader_pin_memory=False,
        dataloader_drop_last=len(rows) >= plan.batch_size, report_to="none", seed=run.seed,
    )  # fmt: skip
    set_seed(run.seed)
    model = edm_unet(
        settings.model, num_classes=len(data.classes), image_size=data.image_size, num_channels=data.num_channels,
        dropout=settings.dropout,
    )  # fmt: skip
    check_disk(folder, model.num_parameters(), COPIES)
    trainer = EDMTrainer(
        model, args, noise=noise, loss=run.loss, classifier=classifier, tau=settings.tau, ema_decay=settings.ema_decay,
        label_dropout=settings.label_dropout, augment=augmentation(settings, run.seed), train_dataset=rows,
        eval_dataset=study.rows(None),
    )  # fmt: skip
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(FigureProgress(title))
    trainer.train(resume_from_checkpoint=AUTO)
    realised, evaluated = trainer.realised_noise(), trainer.evaluate()
    images, labels = draw(settings, run, trainer, len(data.classes))
    trainer.save_model()
    if trainer.is_world_process_zero():
        keep_some(images, labels, folder / SAMPLES_FILE)
        record = RunRecord(
            name=run.name, task=TASK, recipe="recipes/edm_noise.py", seed=run.seed, settings=asdict(settings),
            model={"name": settings.model, "parameters": sum(p.numel() for p in trainer._published()),
                   "config": json.loads(model.to_json_string())},
            data={
                "builder": settings.data, "source": data.source, "classes": len(data.classes),
                "image_size": data.image_size, "channels": data.num_channels, "train_rows": data.train_rows,
                "test_rows": len(data.test), "augmentation": in_words(settings),
                "images drawn": f"with averaged weights, {settings.sampling_steps} steps of Heun's method",
            },
            noise=noise.to_dict() | {"realised": realised},
            # What people got wrong counts as any noise does: at a fixed budget the clean exposure is 1 - e.
            budget=replace(plan, ratio=noise.ratio).to_dict() | {
                "epochs": plan.sequences / data.train_rows, "processes": training_world(),
            },
            loss={"name": run.loss} | ({} if classifier is None else {
                "tau": settings.tau, "transition": classifier.config.transition_source or "known",
                "classifier": portable(settings.classifier or classifier_name(run)),
            }),
            metrics=measure(study, images, labels, evaluated), wall_seconds=time.perf_counter() - started,
        )  # fmt: skip
        write_result(record, folder)
    trainer.accelerator.wait_for_everyone()


def draw(settings, run: Run, trainer: EDMTrainer, classes: int) -> tuple[Tensor, np.ndarray]:
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


def measure(study: Study, images: Tensor, labels: np.ndarray, evaluated: dict) -> dict[str, dict]:
    """The figures of a run, each with the number of images behind it."""
    n, judge, data = len(images), study.judge, study.data
    features, logits = judge(images, progress=False)
    real, fake = study.real_features.numpy(), features.numpy()
    near = density_coverage(real, fake, device=judge.device)
    metrics = {
        "label_consistency": consistency(logits.argmax(-1).numpy(), labels, data.classes),
        "judge_test_accuracy": study.judge_accuracy,
        "frechet_distance": measured("frechet", frechet_distance(real, fake), n, judge),
        **{name: measured(name, near[name], n, judge) for name in ("density", "coverage")},
    }
    clean = data.train_images.columns["labels"].cpu().numpy()
    if (distance := classwise_distance(real, clean, fake, labels, data.classes, judge)) is not None:
        metrics["cw_frechet_distance"] = distance
    for name, key in (("test_loss", "eval_ema_loss"), ("test_loss_raw", "eval_loss")):
        metrics[name] = {"value": evaluated[key], "n": evaluated["eval_images"]}
    return metrics
