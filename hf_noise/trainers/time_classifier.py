"""The time-dependent classifier of paper C: clean classes of noisy images, learned from noisy labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers.utils import SAFE_WEIGHTS_NAME

from hf_noise.losses import label_nll
from hf_noise.losses.dsm import noisy_images
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.noise.normals_torch import log_normals, normals
from hf_noise.objectives.base import Objective, objective_named
from hf_noise.objectives.labels import CorrectedLabels, CrossEntropy
from hf_noise.objectives.volume_plan import VolumePlan
from hf_noise.trainers.arguments import check_given, check_positive
from hf_noise.trainers.finite import check_finite
from hf_noise.trainers.image_labels import ImageLabelTrainer
from hf_noise.trainers.labels import add_penalty, class_names, sample_ids
from hf_noise.trainers.meter import LabelMeter, sum_dtype
from hf_noise.trainers.model_config import write_config
from hf_noise.trainers.objective import search_no_unused

__all__ = ["TimeClassifierTrainer", "VolumePlan"]

# Streams of the levels and of the noise. An evaluation is the same whenever it is made, so it has draws of its own.
TRAINING, EVALUATION = (84, 85), (86, 87)
# The name under which diffusers looks for weights.
_WEIGHTS = "diffusion_pytorch_model.safetensors"


class TimeClassifierTrainer(ImageLabelTrainer):
    """Train a `TimeDependentClassifier` on noisy labels, at noise levels ln sigma ~ N(P_mean, P_std^2) of its config.

    Rows are as for `ImageLabelTrainer`, `pixel_values` in [-1, 1], always with `sample_id`: levels and noise of an
    image are a pure function of (args.seed, epoch, sample_id), so they do not depend on batches, processes and resumes.

    Logs tell accuracy against the labels that were trained on from accuracy against the clean ones. `evaluate` gives
    accuracy and NLL on clean labels, at levels as in training (`eval_accuracy`, `eval_nll`) and at each fixed one
    (`eval_accuracy_sigma0.3`). The config of the saved model states the noise, T, where T is from, and whether it
    predicts clean or noisy labels.

    `compute_metrics` is given no logits: `predictions` are float64 [N, 2, 1 + levels], NLL and hits of each row at
    levels as in training and at each fixed one; `label_ids` are the clean labels.

    Several processes give the loss of one on the same batches, but not for a network with batch normalisation
    ("resnet18", "resnet34"): each process normalises by its own part of the batch, and the saved running statistics are
    those of the main process. Convert it by `torch.nn.SyncBatchNorm.convert_sync_batchnorm` first if that matters.

    Args:
        model: `hf_noise.models.time_classifier.TimeDependentClassifier`.
        noise: `LabelFlips`, drawn here unless the rows have `is_noisy`, or `HumanLabels`, which are in the rows.
        loss: an objective on labels, such as `hf_noise.objectives.CorrectedLabels("estimated")`, or its name; None for
            what `transition` and `volume` say.
        transition: what the classifier is trained through. "known": T of the noise; "estimated": T is learned by volume
            minimisation; a matrix [C, C] with rows clean; None: nothing, so that it predicts the labels as they are:
            "noisy" ones unless `noise` is given and its rate is 0.
        volume: how T is estimated.
        augment: (images, sample ids, epoch) -> (images, description float [B, 9]) for training images, such as EDM's
            augmentation; its description is given to a model that takes one.
        eval_sigmas: the fixed levels, > 0.
        **kwargs: as for `transformers.Trainer`.

    Raises:
        ValueError: noise, T, model and data disagree on classes or images, T is to be known and there is no noise, or
            levels are not > 0; and what `ImageLabelTrainer` refuses.
        FloatingPointError: in training or when saving, a loss or a weight that is not finite.

    Source: Na et al., "Label-noise robust diffusion models", ICLR 2024 (the time-dependent classifier); Patrini et al.,
    CVPR 2017 (training through T); Li et al., ICML 2021 (estimated T).
    """

    always_drawn = "noise levels and the noise of images"

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        *,
        noise: LabelFlips | HumanLabels | None = None,
        loss: str | Objective | None = None,
        transition: Literal["known", "estimated"] | np.ndarray | Tensor | None = "known",
        volume: VolumePlan | None = None,
        augment: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] | None = None,
        eval_sigmas: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0),
        **kwargs: Any,
    ):
        check_given(model, args, kwargs | {"augment": augment})
        if not isinstance(eval_sigmas, Sequence) or isinstance(eval_sigmas, str) or not eval_sigmas:
            raise TypeError(f"eval_sigmas must be a sequence of noise levels, got {eval_sigmas!r:.80}")
        eval_sigmas = [check_positive("each of eval_sigmas", sigma) for sigma in eval_sigmas]
        loss = _objective(loss, transition, volume)
        search_no_unused(args)
        self.prepare(loss, args, kwargs)
        super().__init__(model, args, noise=noise, meter=LabelMeter(), **kwargs)
        if self.model.config.class_names is None:
            write_config(self.model, class_names=class_names(self.train_dataset))
        self.eval_sigmas, self.augment = tuple(eval_sigmas), augment
        self.minimise(loss, num_classes=self.num_classes, was_given=noise is not None)
        if isinstance(loss, CrossEntropy | CorrectedLabels):
            self.objective_claims = {"transition": self.source, "objective": loss.claims()["objective"]}
        self._state()
        # Labels of which nothing is known may be wrong: only T, or noise that is stated to be none, makes them clean.
        is_clean = self.source is not None or (noise is not None and noise.error_rate == 0)
        write_config(self.model, predicts="clean" if is_clean else "noisy")

    @property
    def class_names(self) -> list[str] | None:
        return self.model.config.class_names

    @property
    def num_classes(self) -> int:
        return self.model.config.num_classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        config = self.model.config
        return config.num_channels, config.image_size, config.image_size

    def _state(self) -> None:
        """What the classifier is trained through, in its config."""
        if self.source != "estimated":  # else T is stated when it is saved
            stated = None if self.transition is None else self.transition.tolist()
            write_config(self.model, transition=stated, transition_source=self.source)

    def write_objective(self, loss: Objective) -> None:
        """Nothing: the config says what T is and where it is from, and its keys are a public format."""

    @property
    def source(self) -> str | None:
        """Where T is from: "known", "given" or "estimated"; None for none."""
        return None if self.objective.source == "none" else self.objective.source

    @property
    def transition(self) -> np.ndarray | None:
        """T that the classifier is trained through, as it stands now: float64 [C, C], None for none."""
        return getattr(self.objective, "transition", None)

    @property
    def volume(self) -> nn.Module | None:
        """What learns T, None where it is not learned."""
        return self.learned

    def levels(self, sample: Tensor, stream: int, epoch: int) -> Tensor:
        """sigma float32 [B], > 0, of samples int64 [B], drawn by the law of the model's config."""
        config = self.model.config
        return log_normals(self.args.seed, stream, epoch, sample, config.P_mean, config.P_std)

    def noised(self, images: Tensor, sigma: Tensor, sample: Tensor, stream: int, epoch: int) -> Tensor:
        """x_t = x_0 + sigma n, float32 [B, C, H, W]."""
        noise = normals(self.args.seed, stream, epoch, sample, images[0].numel()).view(images.shape)
        return self.laid_out(noisy_images(images, sigma, noise))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, clean, is_noisy = self.targets(inputs, draw=model.training)
        images, sample, described = inputs["pixel_values"], sample_ids(inputs), None
        if self.augment is not None and model.training:
            images, described = self.augment(images, sample, self.epoch)
        if not self.model.config.augmentation:
            described = None
        sigma = self.levels(sample, TRAINING[0], self.epoch)
        logits = model(self.noised(images, sigma, sample, TRAINING[1], self.epoch), sigma, described)
        losses = self.objective(logits, labels)
        if model.training:
            nll = losses.detach() if self.loss.is_nll else label_nll(logits.detach(), labels)
            self.meter.add(nll, logits.detach().argmax(-1), labels, clean, is_noisy)
            self.watch(losses, sample)
        total = add_penalty(self.objective, losses.sum(), len(labels))
        loss = self.mean_loss(total, len(labels), num_items_in_batch)
        return (loss, {"logits": logits}) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Sums per row instead of logits: (None, float64 [B, 2, 1 + levels] = NLL and hits on clean labels, [B])."""
        inputs = self._prepare_evaluation(inputs)
        labels = inputs.get("clean_labels", inputs["labels"])
        images, sample = inputs["pixel_values"], sample_ids(inputs)
        nll, hits = [], []
        with torch.no_grad(), self.compute_loss_context_manager():
            as_trained = self.levels(sample, EVALUATION[0], 0)
            fixed = [torch.full_like(as_trained, level) for level in self.eval_sigmas]
            for number, sigma in enumerate([as_trained, *fixed]):
                logits = model(self.noised(images, sigma, sample, EVALUATION[1], number), sigma)
                nll.append(label_nll(logits, labels))
                hits.append(logits.argmax(-1) == labels)
        nll = torch.stack(nll, -1)
        sums = torch.stack([nll.to(sum_dtype(nll)), torch.stack(hits, -1).to(sum_dtype(nll))], 1)
        return None, sums, labels

    def exact_metrics(self, prediction: Any) -> dict[str, float]:
        """Means over rows [N, 2, 1 + levels]."""
        sums = np.asarray(prediction.predictions, dtype=np.float64)
        check_finite(sums[:, 0].sum(-1))
        (nll, *nlls), (accuracy, *accuracies) = sums.mean(0).tolist()
        figures = {"loss": nll, "nll": nll, "accuracy": accuracy, "images": len(sums)}
        for level, n, a in zip(self.eval_sigmas, nlls, accuracies, strict=True):
            figures |= {f"nll_sigma{level:g}": n, f"accuracy_sigma{level:g}": a}
        return figures

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if self.learned is not None:
            write_config(self.model, transition=self.transition.tolist(), transition_source=self.source)
        super()._save(output_dir, state_dict)
        if self.args.should_save and self._checkpoint_state is None:
            # A model to use, not a checkpoint to go on from: as diffusers names its files.
            folder = output_dir or self.args.output_dir
            os.replace(os.path.join(folder, SAFE_WEIGHTS_NAME), os.path.join(folder, _WEIGHTS))
            self.model.save_config(folder)


def _objective(loss: str | Objective | None, transition: Any, volume: VolumePlan | None) -> Objective:
    """What is minimised; `transition=` and `volume=` are short spellings of those of `CorrectedLabels`."""
    if not isinstance(volume, VolumePlan | None):
        raise TypeError(f"volume must be a VolumePlan or None, got {volume!r:.80}")
    if loss is None and transition is None:
        return CrossEntropy()
    if loss is None or (isinstance(loss, str) and loss == CorrectedLabels.name):
        return CorrectedLabels(transition, volume)
    if volume is not None or not isinstance(transition, str) or transition != "known":
        raise ValueError("transition= and volume= are short for loss=CorrectedLabels(transition, volume), and loss is "
                         f"{loss!r:.200}; leave one out")  # fmt: skip
    return objective_named(loss, TimeClassifierTrainer.unit)
