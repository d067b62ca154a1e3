"""Image classifiers under label noise, on `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor

from hf_noise.losses.labels import label_nll
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.noise.checks import check_real
from hf_noise.objectives.base import Objective, objective_named
from hf_noise.objectives.labels import CorrectedLabels
from hf_noise.trainers.finite import check_finite
from hf_noise.trainers.image_batches import collate_images
from hf_noise.trainers.image_labels import ImageLabelTrainer
from hf_noise.trainers.meter import LabelMeter

__all__ = ["ImageClassifierTrainer", "collate_images"]


class ImageClassifierTrainer(ImageLabelTrainer):
    """Train an image classifier on noisy labels, with plain or with forward-corrected cross-entropy.

    Rows are as for `ImageLabelTrainer`. Classes of model and rows that have names have to agree on them and on their
    order.

    Logs tell accuracy against the labels that were trained on from accuracy against the clean ones, and how many of the
    wrong labels the model gives back (`memorised`). `evaluate` returns exact accuracy and NLL over all rows;
    `predict` returns logits, and so does what `compute_metrics` is given, beside the clean labels.

    Args:
        noise: what the training labels suffer: `LabelFlips`, drawn here unless the rows have `is_noisy`, or
            `HumanLabels`, which are in the rows. Written into the model's config (`hf_noise`). A data set made by
            `load_dataset("hf_noise/...")` brings its own.
        loss: "nll" (cross-entropy), "corrected" for the forward-corrected one (Patrini et al., 2017), or any objective
            on labels, such as `hf_noise.objectives.CorrectedLabels(T)`. It is written into the config beside the noise
            (`hf_noise_objective`).
        transition: T [C, C] float for the corrected loss, rows clean; by default that of the noise.
        mixup: alpha > 0 of the Beta distribution that images are mixed with; 0 for none. Logged accuracies then compare
            the prediction for a mixed image with the first of its two labels.
        channels_last: memory layout of model and images; by default on a GPU.
        **kwargs: as for `transformers.Trainer`; `args.label_smoothing_factor` smooths the labels.

    Raises:
        ValueError: noise, transition and model disagree on the classes, or the corrected loss has no T; and what
            `ImageLabelTrainer` refuses.
    """

    can_learn = False
    honoured = ("label_smoothing_factor",)

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        *,
        noise: LabelFlips | HumanLabels | None = None,
        loss: Literal["nll", "corrected"] | str | Objective = "nll",
        transition: np.ndarray | Tensor | None = None,
        mixup: float = 0.0,
        channels_last: bool | None = None,
        **kwargs: Any,
    ):
        if not (mixup := check_real("mixup", mixup)) == 0 and not 1e-6 <= mixup <= 1e6:
            raise ValueError(f"mixup must be 0 or lie in [1e-6, 1e6], got {mixup}; it is alpha of a Beta law")
        if "error_rate" in kwargs:
            raise TypeError("error_rate= is for tokens; wrong labels are corrected through transition= [C, C]")
        loss = _objective(loss, transition)
        super().__init__(model, args, noise=noise, meter=LabelMeter(), channels_last=channels_last, **kwargs)
        smoothing = self.args.label_smoothing_factor
        self.minimise(loss, num_classes=self.num_classes, was_given=noise is not None, smoothing=smoothing)
        self.objective_claims |= {"mixup": mixup, "label_smoothing": smoothing}
        self.mixup = torch.distributions.Beta(mixup, mixup) if mixup else None

    @property
    def class_names(self) -> list[str] | None:
        names = getattr(self.model.config, "id2label", None)
        return None if not names else [str(names[i]) for i in sorted(names)]

    def check_fit(self, inputs: Mapping[str, Tensor]) -> None:
        images, config = inputs["pixel_values"], self.model.config
        channels = (getattr(config, "model_args", None) or {}).get("in_chans", getattr(config, "num_channels", None))
        if images.ndim != 4 or not images.is_floating_point():
            shape = f"{images.dtype} {list(images.shape)}"
            raise ValueError(f"pixel_values must be float [B, channels, H, W], got {shape}; normalise the images")
        if channels is not None and images.shape[1] != channels:
            is_last = images.shape[3] == channels
            raise ValueError(f"images have {images.shape[1]} channels, the model takes {channels}; "
                             + ("channels come first: image.permute(2, 0, 1)" if is_last else
                                "convert them, or make a model for them (num_channels=)"))  # fmt: skip

    def logits(self, model: Any, images: Tensor) -> Tensor:
        """Logits float32 [B, C] of images [B, channels, H, W]."""
        return model(pixel_values=self.laid_out(images)).logits.float()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, clean, is_noisy = self.targets(inputs, draw=model.training)
        images = inputs["pixel_values"]
        if self.mixup is not None and model.training:
            share = float(self.mixup.sample())
            logits = self.logits(model, torch.lerp(images.flip(0), images, share))
            other = self.objective(logits, labels.flip(0))
        else:
            share, logits, other = 1.0, self.logits(model, images), 0.0
        losses = self.objective(logits, labels)
        if model.training:
            nll = losses.detach() if self.loss.is_nll else label_nll(logits.detach(), labels)
            self.meter.add(nll, logits.detach().argmax(-1), labels, clean, is_noisy)
            self.watch(losses + other, inputs.get("sample_id"))
        total = (share * losses + (1 - share) * other).sum()
        loss = self.mean_loss(total, len(labels), num_items_in_batch)
        return (loss, {"logits": logits}) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """(None, logits float32 [B, C], clean labels [B])."""
        inputs = self._prepare_evaluation(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = self.logits(model, inputs["pixel_values"])
        return None, logits, inputs.get("clean_labels", inputs["labels"])

    def exact_metrics(self, prediction: Any) -> dict[str, float]:
        return exact_accuracy(prediction)


def _objective(loss: str | Objective, transition: Any) -> Objective:
    """What is minimised; `transition=` is the short spelling of `CorrectedLabels(transition)`."""
    if isinstance(loss, str) and loss == CorrectedLabels.name:
        return CorrectedLabels() if transition is None else CorrectedLabels(transition)
    objective = objective_named(loss, ImageClassifierTrainer.unit)
    if transition is not None:
        raise ValueError('transition= is for loss="corrected"')
    return objective


def exact_accuracy(prediction: Any) -> dict[str, float]:
    """Accuracy, NLL in nats and number of images from logits [N, C] and labels [N]."""
    logits, labels = np.asarray(prediction.predictions, dtype=np.float64), np.asarray(prediction.label_ids)
    nll = -log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]
    check_finite(nll)
    return {
        "loss": float(nll.mean()), "nll": float(nll.mean()), "accuracy": float((logits.argmax(-1) == labels).mean()),
        "images": len(labels),
    }  # fmt: skip
