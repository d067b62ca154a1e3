"""Image classifiers under label noise, on `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor
from torch.utils.data import default_collate

from hf_noise.losses.labels import label_nll, log_columns
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.trainers.base import NoiseTrainer
from hf_noise.trainers.images import DeviceImages
from hf_noise.trainers.meter import LabelMeter

__all__ = ["ImageClassifierTrainer", "collate_images"]


class ImageClassifierTrainer(NoiseTrainer):
    """Train an image classifier on noisy labels, with plain or with forward-corrected cross-entropy.

    Rows hold `pixel_values`, `labels` and `sample_id` (dynamic noise, drawn on the device for every epoch), or those of
    a noisy data set: noisy `labels`, `clean_labels`, `is_noisy`; see `hf_noise.trainers.images`.

    Logs tell accuracy against the labels that were trained on from accuracy against the clean ones, and how many of the
    wrong labels the model gives back (`memorised`). `evaluate` returns exact accuracy and NLL over all rows;
    `predict` returns logits.

    Args:
        noise: what the training labels suffer: `LabelFlips`, drawn here unless the rows have `is_noisy`, or
            `HumanLabels`, which are in the rows. Written into the model's config (`hf_noise`). A data set made by
            `load_dataset("hf_noise/...")` brings its own.
        loss: "nll" (cross-entropy), or "corrected" for the forward-corrected one (Patrini et al., 2017).
        transition: T [C, C] float for the corrected loss, rows clean; by default that of the noise.
        mixup: alpha > 0 of the Beta distribution that images are mixed with; 0 for none. Logged accuracies then compare
            the prediction for a mixed image with the first of its two labels.
        channels_last: memory layout of model and images; by default on a GPU.
        **kwargs: as for `transformers.Trainer`; `args.label_smoothing_factor` smooths the labels.

    Raises:
        ValueError: noise, transition and model disagree on the classes, or the corrected loss has no T; and what
            `NoiseTrainer` refuses.
    """

    noise_kinds = (LabelFlips, HumanLabels)
    other_noise = "see hf_noise.noise for noise on labels"

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        *,
        noise: LabelFlips | HumanLabels | None = None,
        loss: Literal["nll", "corrected"] = "nll",
        transition: np.ndarray | Tensor | None = None,
        mixup: float = 0.0,
        channels_last: bool | None = None,
        **kwargs: Any,
    ):
        if mixup < 0:
            raise ValueError(f"mixup must be >= 0, got {mixup}; it is alpha of a Beta distribution, 0 for none")
        kwargs.setdefault("data_collator", collate_images)
        super().__init__(model, args, noise=noise, meter=LabelMeter(), **kwargs)
        self.columns = self._log_columns(loss, transition)
        self.mixup = torch.distributions.Beta(mixup, mixup) if mixup else None
        self.label_smoother = None  # of transformers; a corrected loss is smoothed in `label_nll`
        for rows in (self.train_dataset, self.eval_dataset):
            check_labels(getattr(rows, "columns", {}), self.model.config.num_labels)
        self.model_accepts_loss_kwargs = True
        self.label_names = ["labels"]
        self.compute_metrics = self.compute_metrics or exact_accuracy
        if any(isinstance(rows, DeviceImages) for rows in (self.train_dataset, self.eval_dataset)):
            if self.args.dataloader_num_workers:
                raise ValueError("DeviceImages are on the device already: dataloader_num_workers must be 0")
            self.args.dataloader_pin_memory = False
        self.channels_last = self.args.device.type == "cuda" if channels_last is None else channels_last
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)

    def check_noise(self, noise: LabelFlips | HumanLabels) -> None:
        known = self.model.config.num_labels
        if noise.num_classes != known:
            raise ValueError(f"the noise has {noise.num_classes} classes, the model {known}; use the same number")

    def _log_columns(self, loss: str, transition: Any) -> Tensor | None:
        if loss == "nll":
            if transition is not None:
                raise ValueError('transition= is for loss="corrected"')
            return None
        if loss != "corrected":
            raise ValueError(f'loss must be "nll" or "corrected", got {loss!r}')
        if transition is None:
            if self.noise is None:
                raise ValueError(
                    'loss="corrected" takes T from the noise, and the trainer was given none; pass noise=, or '
                    "transition= [C, C] with rows clean"
                )
            transition = self.noise.transition
        columns = log_columns(torch.as_tensor(transition, dtype=torch.float64))
        if len(columns) != self.model.config.num_labels:
            raise ValueError(f"transition has {len(columns)} classes, the model {self.model.config.num_labels}")
        return columns.float().to(self.args.device)

    def targets(self, inputs: Mapping[str, Tensor], *, draw: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Labels to train on and clean labels, int64 [B], and where they differ, bool [B]."""
        labels = inputs["labels"]
        if self.has_noise(inputs):
            return labels, inputs["clean_labels"], inputs["is_noisy"].bool()
        if not draw or self.noise is None:
            return labels, labels, torch.zeros_like(labels, dtype=torch.bool)
        if isinstance(self.noise, HumanLabels):
            raise ValueError("HumanLabels cannot be drawn: rows need the columns labels, clean_labels and is_noisy")
        if "sample_id" not in inputs:
            raise ValueError(
                "dynamic noise needs the column `sample_id`, the stable index of each row; rows have "
                f"{', '.join(sorted(inputs))}"
            )
        noisy, is_noisy = self.noise(labels, inputs["sample_id"], self.epoch)
        return noisy, labels, is_noisy

    def logits(self, model: Any, images: Tensor) -> Tensor:
        """Logits float32 [B, C] of images [B, channels, H, W]."""
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return model(pixel_values=images).logits.float()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, clean, is_noisy = self.targets(inputs, draw=model.training)
        images = inputs["pixel_values"]
        if self.mixup is not None and model.training:
            share = float(self.mixup.sample())
            logits = self.logits(model, torch.lerp(images.flip(0), images, share))
            other = self.nll(logits, labels.flip(0))
        else:
            share, logits, other = 1.0, self.logits(model, images), 0.0
        nll = self.nll(logits, labels)
        if model.training:
            self.meter.add(nll.detach(), logits.detach().argmax(-1), labels, clean, is_noisy)
        total = (share * nll + (1 - share) * other).sum()
        loss = self.mean_loss(total, len(labels), num_items_in_batch)
        return (loss, {"logits": logits}) if return_outputs else loss

    def nll(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each label, float32 [B]."""
        return label_nll(logits, labels, self.columns, self.args.label_smoothing_factor)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """(None, logits float32 [B, C], clean labels [B])."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = self.logits(model, inputs["pixel_values"])
        return None, logits, inputs.get("clean_labels", inputs["labels"])


def check_labels(columns: Mapping[str, Tensor], num_classes: int) -> None:
    """Raise ValueError for labels outside [0, C), with their number and the first one, before anything is trained."""
    for name in ("labels", "clean_labels"):
        if name in columns:
            wrong = ((columns[name] < 0) | (columns[name] >= num_classes)).nonzero().flatten()
            if len(wrong):
                first = int(wrong[0])
                raise ValueError(
                    f"{len(wrong)} of {len(columns[name])} {name} are outside [0, {num_classes}), the first is "
                    f"{int(columns[name][first])} in row {first}; correct them, or make a model with more classes"
                )


def collate_images(rows: Any) -> dict[str, Tensor]:
    """Rows to a batch; a batch that a data set made as a whole stays as it is."""
    return rows if isinstance(rows, Mapping) else default_collate(rows)


def exact_accuracy(prediction: Any) -> dict[str, float]:
    """Accuracy, NLL in nats and number of images from logits [N, C] and labels [N]."""
    logits, labels = np.asarray(prediction.predictions, dtype=np.float64), np.asarray(prediction.label_ids)
    nll = -log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]
    return {
        "loss": float(nll.mean()), "nll": float(nll.mean()), "accuracy": float((logits.argmax(-1) == labels).mean()),
        "images": len(labels),
    }  # fmt: skip
