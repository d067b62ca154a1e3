"""A small network on images that nobody has a model for: trained once for each fold, and on what the audit says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from scipy.special import softmax
from torch import Tensor
from transformers import ProgressCallback, TrainingArguments, set_seed

from hf_noise.audit.out_of_fold import split_rows
from hf_noise.models.image import image_classifier
from hf_noise.studies.audit.kept import kept_array
from hf_noise.studies.audit.study import Settings
from hf_noise.studies.images import GREY
from hf_noise.studies.launch import split_batch
from hf_noise.studies.progress import FigureProgress
from hf_noise.trainers import ImageClassifierTrainer
from hf_noise.trainers.images import CropFlip, DeviceImages, channel_statistics, decode_images

__all__ = ["Pictures", "fold_probabilities", "predicted", "read_pictures", "trained"]

#: Of SGD, as the studies of classifiers have it.
_WEIGHT_DECAY, _MOMENTUM = 5e-4, 0.9


@dataclass(frozen=True)
class Pictures:
    """Decoded images uint8 [N, 1 or 3, H, W], and what they are normalised with."""

    images: Tensor
    mean: list[float]
    std: list[float]

    def rows(self, labels: np.ndarray, which: np.ndarray, device: Any, augment: Any = None) -> DeviceImages:
        """Some of the images, with labels of all [N]."""
        which = torch.from_numpy(which)
        columns = {"labels": torch.from_numpy(labels)[which], "sample_id": which}
        return DeviceImages(self.images[which], columns, device=device, mean=self.mean, std=self.std, augment=augment)


def read_pictures(table: Dataset, column: str, most: int, like: Pictures | None = None) -> Pictures:
    """All images of a column in one size: their own if all have it and it is at most `most`, else squares of `most`.

    Args:
        like: images whose channels, size and statistics these are to have.

    Raises ValueError: one cannot be read.
    """
    if like is not None:
        channels, size = like.images.shape[1], like.images.shape[-1]
        return Pictures(decode_images(table, column, channels, size), like.mean, like.std)
    alone = table.select_columns([column])  # of a row all columns are decoded
    modes, sizes = zip(*((image.mode, image.size) for image in (alone[row][column] for row in range(len(alone)))))
    fits = len(set(sizes)) == 1 and len({*sizes[0]}) == 1 and max(sizes[0]) <= most
    channels = 1 if all(mode in GREY for mode in modes) else 3
    images = decode_images(table, column, channels, None if fits else most)
    return Pictures(images, *channel_statistics(images))


def fold_probabilities(
    settings: Settings, pictures: Pictures, labels: np.ndarray, classes: Sequence[str], args: TrainingArguments,
    key: str,
) -> np.ndarray:  # fmt: skip
    """p(label = j) of each row, float64 [N, C], by networks that have not seen it; of each fold it is kept.

    All processes work together. Raises ValueError as `split_rows`.
    """
    flat = pictures.images.flatten(1).numpy()
    folds = split_rows(flat, labels, settings.folds, settings.seed % 2**32)
    found = np.empty((len(labels), len(classes)))
    for number, (fitted, judged) in enumerate(folds):

        def make(number: int = number, fitted: np.ndarray = fitted, judged: np.ndarray = judged) -> np.ndarray:
            title = f"fold {number + 1} of {settings.folds}"
            return predicted(trained(settings, pictures, labels, fitted, classes, args, title), pictures, judged)

        place = Path(settings.output) / "folds" / f"fold-{number}.safetensors"
        found[judged] = kept_array(place, f"{key} fold {number}", make)
    return found


def trained(
    settings: Settings, pictures: Pictures, labels: np.ndarray, rows: np.ndarray, classes: Sequence[str],
    args: TrainingArguments, title: str, loss: Any = "nll",
) -> ImageClassifierTrainer:  # fmt: skip
    """A network trained on some rows, with the bar of its steps."""
    per_pass, passes = split_batch(settings.batch_size, args.world_size, settings.batch_size)
    told = TrainingArguments(
        output_dir=str(Path(settings.output) / "network"), save_strategy="no", report_to="none", use_cpu=args.use_cpu,
        max_steps=max(1, round(settings.epochs * len(rows) / settings.batch_size)), seed=settings.seed,
        per_device_train_batch_size=per_pass, gradient_accumulation_steps=passes, per_device_eval_batch_size=512,
        learning_rate=settings.learning_rate, lr_scheduler_type="cosine", weight_decay=_WEIGHT_DECAY, max_grad_norm=0.0,
        optim="sgd", optim_args=f"momentum={_MOMENTUM}", bf16=settings.bf16, dataloader_pin_memory=not args.use_cpu,
        dataloader_drop_last=len(rows) >= settings.batch_size, logging_steps=20,
    )  # fmt: skip
    set_seed(settings.seed)
    size = pictures.images.shape[-1]
    model = image_classifier(
        settings.network, labels=list(classes), image_size=size, num_channels=pictures.images.shape[1]
    )
    # Nobody knows whether a mirror changes what is on an image.
    augment = CropFlip(padding=max(1, size // 8), flip=False, seed=settings.seed)
    trainer = ImageClassifierTrainer(
        model, told, loss=loss, train_dataset=pictures.rows(labels, rows, args.device, augment)
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(FigureProgress(title))
    trainer.train()
    return trainer


def predicted(trainer: ImageClassifierTrainer, pictures: Pictures, rows: np.ndarray) -> np.ndarray:
    """p(class = j) of some rows, float64 [n, C]."""
    nothing = np.zeros(len(pictures.images), dtype=np.int64)
    logits = trainer.predict(pictures.rows(nothing, rows, trainer.args.device)).predictions
    return softmax(logits.astype(np.float64), axis=1)
