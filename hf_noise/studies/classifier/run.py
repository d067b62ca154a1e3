"""One run of `classifier_noise.py` after the other: images, training, measurements, record, card."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, load_dataset_builder
from transformers import BitImageProcessor, ProgressCallback, TrainingArguments, set_seed

import hf_noise
from hf_noise.metrics import (
    accuracy,
    classifier_calibration,
    marginal_shift,
    per_class_accuracy,
    successor_rate,
)
from hf_noise.models.image import image_classifier
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.reports.record import RunRecord
from hf_noise.studies.engine import CHECKPOINTS_KEPT, run_all, with_interval, write_result
from hf_noise.studies.launch import check_disk, split_batch, training_world
from hf_noise.studies.progress import FigureProgress
from hf_noise.trainers import ImageClassifierTrainer
from hf_noise.trainers.base import noise_of as noise_in_rows
from hf_noise.trainers.images import CropFlip, DeviceImages, WorkerImages, channel_statistics, label_columns
from hf_noise.trainers.resuming import AUTO

# Training images on which accuracy is measured at the end, without augmentation.
SCORED_ROWS = 10_000
# Training images of data sets that need not be read to know them.
KNOWN_ROWS = {"hf_noise/cifar10-noisy": 50_000, "hf_noise/cifar100-noisy": 50_000, "hf_noise/mnist-noisy": 60_000}
IMAGENET_ROWS = 1_281_167
CLASSES_LISTED = 100  # up to this many, a record holds the accuracy of each class
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

# Lists of which a run has one value each, and what else changes nothing in its result.
NOT_IN_A_RUN = ("plan", "ratio", "protocol", "loss", "workers")


@dataclass(frozen=True)
class Run:
    """One setting; `ratio` is None for human labels, whose rate is what it is."""

    ratio: float | None
    protocol: str
    loss: str
    plan: str
    seed: int

    @property
    def name(self) -> str:
        if self.ratio == 0:
            return f"r0-seed{self.seed}"
        noise = self.protocol.replace(":", "-") if self.ratio is None else f"r{self.ratio:g}-{self.protocol}"
        return f"{noise}-{self.loss}-{self.plan}-seed{self.seed}"


@dataclass
class Data:
    """Training and test rows, their labels' names, and what images are normalised with."""

    settings: object
    device: torch.device
    classes: list[str]
    num_channels: int
    image_size: int
    mean: list[float]
    std: list[float]
    source: str
    train_rows: int
    train_images: DeviceImages | None
    test: DeviceImages | WorkerImages
    human: dict[str, Dataset] = field(default_factory=dict)

    @staticmethod
    def read(settings, protocol: str | None = None):
        """Training and test rows: clean ones, or with the human labels of a protocol."""
        options = {name: getattr(settings, name) for name in ("source", "test_source", "classes")}
        options |= {"protocol": protocol, "human_source": settings.human_source} if protocol else {"r": 0.0}
        options = {name: value for name, value in options.items() if value is not None}
        splits = hf_noise.load_dataset(settings.data, **options)
        train, test = splits["train"], splits["test" if "test" in splits else "validation"]
        clean = "label" if protocol is None else "clean_label"
        return part_of(train, settings.train_rows, "train_rows", clean), part_of(test, settings.test_rows, "test_rows")

    @classmethod
    def rows(cls, settings) -> int:
        """Number of training images, without reading any where it is known."""
        known = KNOWN_ROWS.get(settings.data) if settings.source is None else None
        if settings.data == "hf_noise/imagenet-noisy" and settings.classes == 1000 and settings.source is None:
            known = IMAGENET_ROWS
        return settings.train_rows or known or len(cls.read(settings)[0])

    @classmethod
    def load(cls, settings, args: TrainingArguments) -> Data:
        with args.main_process_first(desc="data"):
            train, test = cls.read(settings)
        image = train[0]["image"]
        channels = 1 if settings.on_device and image.mode == "L" else 3
        size = settings.image_size or max(image.size)
        common = {
            "settings": settings, "device": args.device, "classes": train.features["label"].names,
            "num_channels": channels, "image_size": size, "train_rows": len(train),
            "source": settings.source or load_dataset_builder(settings.data, r=0.0).config.source,
        }  # fmt: skip
        if not settings.on_device:
            return cls(**common, mean=IMAGENET_MEAN, std=IMAGENET_STD, train_images=None,
                       test=WorkerImages(test, transform_of(size, settings, train=False)))  # fmt: skip
        options = {"num_channels": channels, "pad_to": size, "device": args.device}
        images = DeviceImages.from_dataset(train, mean=[0.0] * channels, std=[1.0] * channels, **options)
        mean, std = channel_statistics(images.images)
        return cls(**common, mean=mean, std=std, train_images=images,
                   test=DeviceImages.from_dataset(test, mean=mean, std=std, **options))  # fmt: skip

    def labelled(self, protocol: str) -> Dataset:
        """Training rows with the labels that people gave them, read once."""
        if protocol not in self.human:
            self.human[protocol] = self.read(self.settings, protocol)[0]
        return self.human[protocol]

    def training(self, run: Run) -> DeviceImages | WorkerImages:
        """The rows of a run, with augmentation."""
        settings = self.settings
        if self.train_images is None:
            transform = transform_of(self.image_size, settings, train=True)
            return WorkerImages(self.pictures(run), transform, seed=run.seed)
        augment = CropFlip(padding=settings.crop_padding, flip=settings.flip, seed=run.seed)
        return self.scored(run, augment=augment)

    def pictures(self, run: Run) -> Dataset:
        """Training rows as they are read, with human labels if the run has them."""
        return self.read(self.settings)[0] if run.ratio is not None else self.labelled(run.protocol)

    def scored(
        self, run: Run, rows: int | None = None, augment: CropFlip | None = None
    ) -> DeviceImages | WorkerImages:
        """Training images of a run with its labels: all, or some on which to measure."""
        base = self.train_images
        if base is None:
            read = self.pictures(run)
            part = read.select(some_rows(len(read), rows))
            return WorkerImages(part, transform_of(self.image_size, self.settings, train=False))
        columns, info = base.columns, base.info
        if run.ratio is None:
            read = self.labelled(run.protocol)
            columns, info = label_columns(read), read.info
        part = torch.from_numpy(some_rows(len(base), rows)).to(self.device)
        return DeviceImages(
            base.images[part], {name: column[part] for name, column in columns.items()}, device=self.device,
            mean=self.mean, std=self.std, augment=augment, info=info,
        )  # fmt: skip


def part_of(rows: Dataset, wanted: int | None, flag: str, labels: str = "label") -> Dataset:
    """So many of the rows, always the same; all for None. Raises ValueError: there are fewer, or a class is missing."""
    if wanted is None:
        return rows
    if len(rows) < wanted:
        raise ValueError(f"--{flag} {wanted}, but there are {len(rows)} images; leave it out")
    part = rows.select(some_rows(len(rows), wanted))
    if absent := sorted(set(range(rows.features["label"].num_classes)) - set(part[labels])):
        others = f" and of {len(absent) - 1} others" if absent[1:] else ""
        raise ValueError(f"--{flag} {wanted} leaves no image of class {absent[0]}{others}; take more")
    return part


def some_rows(n: int, wanted: int | None = None) -> np.ndarray:
    """Indices of so many of n rows in their order, always the same; a source may be sorted by class."""
    if wanted is None or wanted >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).permutation(n)[:wanted])


def transform_of(size: int, settings, *, train: bool):
    """The usual crops of large images: random ones for training, the middle for a test."""
    from torchvision.transforms import v2

    if train:
        crop = [v2.RandomResizedCrop(size, antialias=True)]
        crop += [v2.RandomHorizontalFlip()] if settings.flip else []
    else:
        crop = [v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size)]
    return v2.Compose([
        v2.ToImage(), *crop, v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ])  # fmt: skip


def train(settings, runs, plans) -> bool:
    """Make all runs that are not finished; returns whether this is the main process."""
    return run_all(settings, runs, plans, load=loader_for(runs), make=make_run, left_out=NOT_IN_A_RUN)


def loader_for(runs) -> Callable[[Any, TrainingArguments], Data]:
    """What reads the data, and refuses what any of the runs would refuse."""

    def load(settings, args: TrainingArguments) -> Data:
        data = Data.load(settings, args)
        check_noise(runs, data)
        return data

    return load


def check_noise(runs, data: Data) -> list[LabelFlips | HumanLabels]:
    """The noise of each run; refuses what cannot be now, and not when the runs before it have been trained."""
    return [noise_of(run, data, data.labelled(run.protocol) if run.ratio is None else None) for run in runs]


def noise_of(run: Run, data: Data, rows) -> LabelFlips | HumanLabels:
    """The noise of a run: drawn by the trainer, or what came with human labels."""
    if run.ratio is None:
        return noise_in_rows(rows)
    settings, classes = data.settings, len(data.classes)
    common = {"ratio": run.ratio, "num_classes": classes, "seed": run.seed, "redraw": settings.redraw,
              "allow_adversarial": settings.allow_adversarial}  # fmt: skip
    if run.protocol == "pairs":
        return LabelFlips.pairs(settings.similar_classes(), **common)
    return getattr(LabelFlips, run.protocol if run.ratio else "symmetric")(**common)


def processor_of(settings, data: Data) -> BitImageProcessor:
    """What makes a picture what the network was tested on; padding with zeros is left to the caller."""
    normalised = {"image_mean": data.mean, "image_std": data.std}
    size, crop = data.image_size, {"height": data.image_size, "width": data.image_size}
    if settings.on_device:
        exact = settings.image_size is None
        return BitImageProcessor(size=crop, do_resize=exact, do_center_crop=False, do_convert_rgb=False, **normalised)
    shortest = {"shortest_edge": round(size * 256 / 224)}
    return BitImageProcessor(size=shortest, crop_size=crop, do_center_crop=True, **normalised)


def make_run(settings, run: Run, plan, folder: Path, data: Data, on_cpu: bool, title: str) -> None:
    started = time.perf_counter()
    world = training_world()
    rows_per_pass, accumulation = split_batch(plan.batch_size, world, settings.micro_batch)
    optimizer = {"sgd": {"optim": "sgd", "optim_args": "momentum=0.9"}, "adamw": {"optim": "adamw_torch_fused"}}
    args = TrainingArguments(
        output_dir=str(folder), max_steps=plan.steps, per_device_train_batch_size=rows_per_pass,
        gradient_accumulation_steps=accumulation, per_device_eval_batch_size=settings.micro_batch,
        learning_rate=settings.learning_rate, lr_scheduler_type="cosine", warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay, label_smoothing_factor=settings.label_smoothing, max_grad_norm=0.0,
        bf16=settings.bf16, torch_compile=settings.torch_compile, logging_steps=settings.logging_steps,
        save_steps=settings.save_steps, save_total_limit=CHECKPOINTS_KEPT, use_cpu=on_cpu,
        dataloader_num_workers=0 if settings.on_device else settings.workers, dataloader_pin_memory=not on_cpu,
        dataloader_drop_last=data.train_rows >= plan.batch_size, report_to="none", seed=run.seed,
        **optimizer[settings.optimizer],
    )  # fmt: skip
    set_seed(run.seed)
    model = image_classifier(
        settings.model, labels=data.classes, image_size=data.image_size, num_channels=data.num_channels
    )
    check_disk(folder, model.num_parameters(), CHECKPOINTS_KEPT + 1)
    rows = data.training(run)
    noise = noise_of(run, data, rows)
    trainer = ImageClassifierTrainer(
        model, args, noise=noise, loss=run.loss, mixup=settings.mixup, train_dataset=rows, eval_dataset=data.test,
        processing_class=processor_of(settings, data),
    )  # fmt: skip
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(FigureProgress(title))
    trainer.train(resume_from_checkpoint=AUTO)
    realised = trainer.realised_noise()
    metrics = measure(run, trainer, data, noise)
    trainer.save_model()
    if trainer.is_world_process_zero():
        record = RunRecord(
            name=run.name, task="image_classification", recipe="recipes/classifier_noise.py", seed=run.seed,
            settings=asdict(settings),
            model={"name": settings.model, "parameters": model.num_parameters(), "config": config_of(model)},
            data={
                "builder": settings.data, "source": data.source, "classes": len(data.classes),
                "image_size": data.image_size, "channels": data.num_channels, "train_rows": data.train_rows,
                "test_rows": len(data.test), "augmentation": augmentation(settings),
            },
            noise=noise.to_dict() | {"realised": realised},
            # What people got wrong counts as any noise does: at a fixed budget the clean exposure is 1 - e.
            budget=replace(plan, ratio=noise.ratio).to_dict() | {
                "epochs": plan.sequences / data.train_rows, "processes": world,
            },
            loss={"name": run.loss, "error_rate": noise.error_rate if run.loss == "corrected" else 0.0,
                  "source": "known" if run.loss == "corrected" else "none"},
            metrics=metrics, wall_seconds=time.perf_counter() - started,
        )  # fmt: skip
        write_result(record, folder)
    trainer.accelerator.wait_for_everyone()


def config_of(model) -> dict:
    """What sets the model apart; the names of the classes stay in the checkpoint."""
    config = json.loads(model.config.to_json_string(use_diff=True))
    return {name: value for name, value in config.items() if name not in ("id2label", "label2id", "label_names")}


def augmentation(settings) -> str:
    """What happens to training images, in words."""
    crop = f"random crop after padding by {settings.crop_padding} pixels" if settings.crop_padding else None
    crop = crop if settings.on_device else "random crop of 8% to 100% of the area"
    mixup = f"mixup {settings.mixup:g}" if settings.mixup else None
    parts = [crop, "horizontal flip" if settings.flip else None, mixup]
    return ", ".join(filter(None, parts)) or "none"


def measure(run: Run, trainer: ImageClassifierTrainer, data: Data, noise) -> dict[str, dict]:
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
