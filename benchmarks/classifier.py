"""The image classifier's trainer against a bare PyTorch loop, and augmentation on the device against row by row.

    python benchmarks/classifier.py [--model resnet18-cifar] [--quick] [--output benchmarks/results/classifier.json]
    python benchmarks/classifier.py --model small-bert       # any classifier's trainer against the stock one, on text

All variants train the same network on the same rows in turns. See benchmarks/README.md for what each bar means.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from compare import Report, Spread, arguments, clock, interleave, ratio, start
from datasets import Dataset
from observe import syncs_per_step
from PIL import Image
from steps import by_trainer
from torch import nn
from torchvision import transforms
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments
from transformers import get_cosine_schedule_with_warmup as cosine_schedule

from hf_noise.models.image import image_classifier
from hf_noise.noise import LabelFlips
from hf_noise.objectives import ELR
from hf_noise.trainers import ClassifierTrainer, DynamicsCallback, ImageClassifierTrainer
from hf_noise.trainers.image_classifier import collate_images
from hf_noise.trainers.images import CropFlip, DeviceImages

CLASSES, SIZE, PADDING = 10, 32, 4
MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
# A tenth of the usual rate: at 0.1 two sums that differ in the last place are far apart after a few steps.
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4


@dataclass(frozen=True)
class Setting:
    """Images of a batch, steps of a turn and rounds that take minutes."""

    batch: int
    steps: int
    rounds: int


SETTINGS = {
    "resnet10-small": Setting(64, steps=7, rounds=9), "resnet18-cifar": Setting(32, steps=4, rounds=5),
    "small-bert": Setting(16, steps=10, rounds=9),
}  # fmt: skip
WORDS, LENGTH = 8192, 64
LOOKS = 130  # steps in which logits that wait are looked at twice, in 13 epochs that are written


def make_images(n: int, augment: CropFlip | None = None) -> DeviceImages:
    """Random images of CIFAR's size."""
    draw = np.random.default_rng(0)
    images = torch.from_numpy(draw.integers(0, 256, (n, 3, SIZE, SIZE), dtype=np.uint8))
    columns = {"labels": torch.from_numpy(draw.integers(0, CLASSES, n)), "sample_id": torch.arange(n)}
    return DeviceImages(images, columns, mean=MEAN, std=STD, augment=augment)


def network(name: str) -> nn.Module:
    """The network, always with the same weights."""
    torch.manual_seed(0)
    return image_classifier(name, labels=CLASSES, image_size=SIZE)


def training_arguments(folder: Path, batch: int, steps: int) -> TrainingArguments:
    """What the bare loop does too; nothing is written or shown."""
    return TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=batch, max_steps=steps, learning_rate=LEARNING_RATE,
        optim="sgd", optim_args=f"momentum={MOMENTUM}", weight_decay=WEIGHT_DECAY, max_grad_norm=0.0,
        lr_scheduler_type="cosine", save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        logging_steps=10**9, remove_unused_columns=False, dataloader_pin_memory=False, seed=0,
    )  # fmt: skip


def bare_loop(model: nn.Module, rows: DeviceImages, order: list[list[int]]) -> tuple[float, nn.Module]:
    """The same training without a trainer, over the batches in `order`; (median seconds per step, model)."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=MOMENTUM)
    schedule = cosine_schedule(optimizer, 0, len(order))
    ends = []
    model.train()
    for indices in order:
        batch = rows.__getitems__(indices)
        logits = model(pixel_values=batch["pixel_values"]).logits
        nn.functional.cross_entropy(logits, batch["labels"]).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        ends.append(clock())
    return float(np.median(np.diff(ends))), model


def time_steps(report: Report, name: str, setting: Setting, rounds: int, folder: Path) -> None:
    """Seconds per step: bare loop, ours without noise, with noise, with the corrected loss."""
    rows = make_images(setting.batch * setting.steps, CropFlip(padding=PADDING))
    noise = LabelFlips.symmetric(error_rate=0.4, num_classes=CLASSES)
    args = training_arguments(folder, setting.batch, setting.steps)

    def ours(**kwargs) -> Callable[[], tuple[float, Trainer]]:
        return by_trainer(
            lambda **more: ImageClassifierTrainer(network(name), args, train_dataset=rows, **kwargs, **more)
        )

    order = list(itertools.islice(iter(ours()()[1].get_train_dataloader().batch_sampler), setting.steps))
    variants = {
        "bare": lambda: bare_loop(network(name), rows, order),
        "clean": ours(),
        "noise": ours(noise=noise),
        "corrected": ours(noise=noise, loss="corrected"),
    }
    reference = variants["bare"]()[1].state_dict()
    trained = variants["clean"]()[1].model.state_dict()
    weights = [key for key, value in reference.items() if value.is_floating_point()]
    began = network(name).state_dict()
    moved = max(float((reference[key] - began[key]).abs().max()) for key in weights)
    apart = max(float((reference[key] - trained[key]).abs().max()) for key in weights)
    report.equal("weights after the bare loop and the trainer", apart < 1e-3 * moved, f"{apart:.1e}, moved {moved:.1e}")

    times = interleave(variants, rounds, timer=lambda variant: variant()[0])
    report.add("bare loop", Spread.of(times["bare"] * 1e3), unit="ms/step")
    report.add("trainer with noise", Spread.of(setting.batch / times["noise"]), unit="image/s")
    report.add("trainer without noise / bare loop", ratio(times["clean"], times["bare"]), at_most=1.02)
    report.add("trainer with noise / bare loop", ratio(times["noise"], times["bare"]), at_most=1.02)
    report.add("corrected / plain loss, both with noise", ratio(times["corrected"], times["noise"]), at_most=1.02)


def small_bert() -> nn.Module:
    """A BERT of 1.4 M weights without dropout, always with the same ones."""
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(
        vocab_size=WORDS, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512,
        max_position_embeddings=LENGTH, num_labels=CLASSES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    ))  # fmt: skip


class TimedDynamics(DynamicsCallback):
    """Counts the seconds that it takes from the first step to the end of training, with all that it writes."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.seconds = self.before = 0.0
        self.made = clock()
        for name in ("seen", "on_step_begin", "on_step_end", "on_epoch_begin", "on_epoch_end", "on_train_end"):
            setattr(self, name, self._timed(getattr(self, name)))

    def _timed(self, call: Callable) -> Callable:
        def timed(*args, **kwargs):
            began = clock()
            call(*args, **kwargs)
            self.seconds += clock() - began

        return timed

    def on_train_begin(self, *args, **kwargs):
        super().on_train_begin(*args, **kwargs)
        self.before = clock() - self.made


def time_text(report: Report, setting: Setting, rounds: int, folder: Path) -> None:
    """Seconds per step on text: the stock Trainer, ours without noise, with noise, corrected, with a memory of
    rows; and what it costs to record training dynamics."""
    draw = np.random.default_rng(0)
    n = setting.batch * setting.steps
    tokens = draw.integers(1, WORDS, (n, LENGTH)).tolist()
    rows = Dataset.from_dict({"input_ids": tokens, "attention_mask": [[1] * LENGTH] * n,
                              "label": draw.integers(0, CLASSES, n), "sample_id": range(n)})  # fmt: skip
    noise = LabelFlips.symmetric(error_rate=0.4, num_classes=CLASSES)
    args = replace(training_arguments(folder, setting.batch, setting.steps), remove_unused_columns=True)

    def trained_by(cls: type[Trainer], **options) -> Callable[[], tuple[float, Trainer]]:
        return by_trainer(lambda **more: cls(small_bert(), args, train_dataset=rows, **options, **more))

    def recorded(cls: type[Trainer], steps: int = setting.steps, **options) -> Callable[[], tuple[float, Trainer]]:
        """With a record that begins anew in each turn."""

        def make(callbacks: list) -> Trainer:
            shutil.rmtree(folder / "record", ignore_errors=True)
            its = replace(args, remove_unused_columns=False, max_steps=steps)
            callbacks = [*callbacks, TimedDynamics(folder / "record")]
            return cls(small_bert(), its, train_dataset=rows, callbacks=callbacks, **options)

        return by_trainer(make)

    variants = {
        "stock": trained_by(Trainer),
        "clean": trained_by(ClassifierTrainer),
        "noise": trained_by(ClassifierTrainer, noise=noise),
        "corrected": trained_by(ClassifierTrainer, noise=noise, loss="corrected"),
        "elr": trained_by(ClassifierTrainer, noise=noise, loss=ELR()),
        "recorded": recorded(ClassifierTrainer, noise=noise),
        "stock, recorded": recorded(Trainer),
    }
    began = small_bert().state_dict()
    stock, ours = (variants[name]()[1].model.state_dict() for name in ("stock", "clean"))
    weights = [key for key, value in stock.items() if value.is_floating_point()]
    moved = max(float((stock[key] - began[key]).abs().max()) for key in weights)
    apart = max(float((stock[key] - ours[key]).abs().max()) for key in weights)
    report.equal("weights after both trainers", apart < 1e-3 * moved, f"{apart:.1e}, moved {moved:.1e}")
    times = interleave(variants, rounds, timer=lambda variant: variant()[0])
    report.add("stock Trainer, small BERT", Spread.of(times["stock"] * 1e3), unit="ms/step")
    report.add("ClassifierTrainer without noise / stock", ratio(times["clean"], times["stock"]), at_most=1.02)
    report.add("ClassifierTrainer with noise / stock", ratio(times["noise"], times["stock"]), at_most=1.02)
    report.add("corrected / plain loss, both with noise", ratio(times["corrected"], times["noise"]), at_most=1.02)
    report.add("ELR / plain loss, both with noise", ratio(times["elr"], times["noise"]))
    report.add("DynamicsCallback / without, with noise", ratio(times["recorded"], times["noise"]), at_most=1.02)
    of_stock = ratio(times["stock, recorded"], times["stock"])
    report.add("DynamicsCallback / without, stock Trainer", of_stock, at_most=1.02)
    shares = []
    for _ in range(max(2, rounds // 3)):
        started = clock()
        trainer = recorded(ClassifierTrainer, steps=max(setting.steps, LOOKS), noise=noise)()[1]
        (own,) = [one for one in trainer.callback_handler.callbacks if isinstance(one, TimedDynamics)]
        shares.append(own.seconds / (clock() - started - own.before))
    report.add("DynamicsCallback, all its own time of training", Spread.of(shares), at_most=0.02)


def augmentation(report: Report, rounds: int, batch: int) -> None:
    """A batch cropped, mirrored and normalised where it lies, against torchvision's transforms image by image."""
    rows = make_images(4 * batch, CropFlip(padding=PADDING))
    index = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:batch].tolist()
    pictures = [Image.fromarray(rows.images[i].permute(1, 2, 0).numpy()) for i in index]
    by_row = transforms.Compose([
        transforms.RandomCrop(SIZE, padding=PADDING), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])  # fmt: skip
    plain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    expected = torch.stack([plain(picture) for picture in pictures])
    apart = float((make_images(4 * batch).__getitems__(index)["pixel_values"] - expected).abs().max())
    report.equal("normalised images", apart < 1e-5, f"{apart:.1e}")
    variants = {
        "device": lambda: rows.__getitems__(index),
        "rows": lambda: torch.stack([by_row(picture) for picture in pictures]),
    }
    times = interleave(variants, rounds, repeats=3)
    report.add("augmentation on the device", Spread.of(batch / times["device"]), unit="image/s")
    report.add("on the device / row by row, images per second", ratio(times["rows"], times["device"]), at_least=10)


def host_syncs(report: Report, folder: Path) -> None:
    """Host synchronisations per step of the whole training loop; they do not depend on the size of the network."""
    rows, noise = make_images(64, CropFlip()), LabelFlips.symmetric(error_rate=0.4, num_classes=CLASSES)

    def count(make: Callable[[TrainingArguments], Trainer]) -> float:
        def train(steps: int) -> None:
            trainer = make(training_arguments(folder, 2, steps))
            trainer.remove_callback(PrinterCallback)
            trainer.train()

        return syncs_per_step(train)

    model = "resnet10-digits"
    stock = count(lambda args: Trainer(network(model), args, train_dataset=rows, data_collator=_for_stock))
    report.add("host syncs, stock Trainer", stock, unit="per step")
    for what, options in {"without noise": {}, "with noise": {"noise": noise},
                          "corrected loss": {"noise": noise, "loss": "corrected"}}.items():  # fmt: skip
        n = count(lambda args: ImageClassifierTrainer(network(model), args, train_dataset=rows, **options))  # noqa: B023
        report.add(f"host syncs, trainer {what} - stock", n - stock, at_most=0.0, unit="per step")


def _for_stock(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: column for name, column in collate_images(batch).items() if name != "sample_id"}


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=list(SETTINGS), default="resnet10-small")
    args = parser.parse_args(argv)
    start(args)
    setting = SETTINGS[args.model]
    if args.quick:
        setting = replace(setting, batch=4, steps=3, rounds=2)
    rounds = args.rounds or setting.rounds
    kind = "Text" if args.model == "small-bert" else "Image"
    report = Report(f"{kind} classifier, {args.model}", {"model": args.model, **vars(setting), "rounds": rounds})
    with tempfile.TemporaryDirectory() as name:
        if args.model == "small-bert":
            time_text(report, setting, rounds, Path(name))
            return report.finish(args.output)
        host_syncs(report, Path(name))
        augmentation(report, rounds, 16 if args.quick else 128)
        time_steps(report, args.model, setting, rounds, Path(name))
    return report.finish(args.output)


if __name__ == "__main__":
    sys.exit(min(1, main()))
