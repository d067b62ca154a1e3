"""Image classifiers under label noise, on `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.noise.checks import check_real
from hf_noise.objectives.base import Objective
from hf_noise.objectives.volume_plan import VolumePlan
from hf_noise.trainers.classifier import ClassifierTrainer
from hf_noise.trainers.image_batches import collate_images
from hf_noise.trainers.image_labels import ImageLabelTrainer
from hf_noise.trainers.labels import add_penalty

__all__ = ["ImageClassifierTrainer", "collate_images"]


class ImageClassifierTrainer(ClassifierTrainer, ImageLabelTrainer):
    """Train an image classifier on noisy labels: `ClassifierTrainer` with images that may lie on the device.

    Rows are as for `ImageLabelTrainer`. Classes of model and rows that have names have to agree on them and on their
    order.

    Logs and evaluations are those of `ClassifierTrainer`.

    Args:
        noise: what the training labels suffer: `LabelFlips`, drawn here unless the rows have `is_noisy`, or
            `HumanLabels`, which are in the rows. Written into the model's config (`hf_noise`). A data set made by
            `load_dataset("hf_noise/...")` brings its own.
        loss: "nll" (cross-entropy), "corrected" for the forward-corrected one (Patrini et al., 2017), or any objective
            on labels, such as `hf_noise.objectives.CorrectedLabels(T)`. It is written into the config beside the noise
            (`hf_noise_objective`).
        transition: T for the corrected loss, see `ClassifierTrainer`; by default that of the noise.
        volume: how a T is learned.
        head: see `ClassifierTrainer`.
        mixup: alpha > 0 of the Beta distribution that images are mixed with; 0 for none. Logged accuracies then compare
            the prediction for a mixed image with the first of its two labels.
        channels_last: memory layout of model and images; by default on a GPU.
        **kwargs: as for `transformers.Trainer`; `args.label_smoothing_factor` smooths the labels.

    Raises:
        ValueError: noise, transition and model disagree on the classes, or the corrected loss has no T; and what
            `ClassifierTrainer` and `ImageLabelTrainer` refuse.
    """

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        *,
        noise: LabelFlips | HumanLabels | None = None,
        loss: Literal["nll", "corrected"] | str | Objective = "nll",
        transition: Literal["known", "estimated"] | np.ndarray | Tensor | None = None,
        volume: VolumePlan | None = None,
        head: nn.Module | None = None,
        mixup: float = 0.0,
        channels_last: bool | None = None,
        **kwargs: Any,
    ):
        if not (mixup := check_real("mixup", mixup)) == 0 and not 1e-6 <= mixup <= 1e6:
            raise ValueError(f"mixup must be 0 or lie in [1e-6, 1e6], got {mixup}; it is alpha of a Beta law")
        super().__init__(
            model, args, noise=noise, loss=loss, transition=transition, volume=volume, head=head,
            channels_last=channels_last, **kwargs,
        )  # fmt: skip
        if mixup and self.loss.needs_forward:
            name = type(self.loss).__name__
            raise ValueError(f"{name} looks at each row, and mixup={mixup} mixes two: leave one out")
        self.objective_claims |= {"mixup": mixup}
        self.mixup = torch.distributions.Beta(mixup, mixup) if mixup else None

    def _take_batches(self, model: Any, args: Any, options: dict[str, Any]) -> None:
        """Nothing: `ImageLabelTrainer` makes the batches."""

    def why_unrecorded(self) -> str | None:
        return None if self.mixup is None else "mixup mixes the images of two; leave mixup out"

    def network_inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"pixel_values": self.laid_out(inputs["pixel_values"])}

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

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self.mixup is None or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels, clean, is_noisy = self.targets(inputs, draw=True)
        images, sample = inputs["pixel_values"], inputs.get("sample_id")
        share = float(self.mixup.sample())
        taken = self.network_inputs({"pixel_values": torch.lerp(images.flip(0), images, share)})
        logits = self.logits(model, taken)
        losses, other = self.objective(logits, labels), self.objective(logits, labels.flip(0))
        self.book(losses, logits, labels, clean, is_noisy)
        self.watch(losses + other, sample)
        total = add_penalty(self.objective, (share * losses + (1 - share) * other).sum(), len(labels))
        loss = self.mean_loss(total, len(labels), num_items_in_batch)
        return (loss, {"logits": logits}) if return_outputs else loss
