"""Class-conditional diffusion under EDM's noise, trained on wrong labels: plainly, or through their matrix T."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hf_noise.diffusion.pipeline_arguments import class_embeddings
from hf_noise.diffusion.preconditioning import Denoiser
from hf_noise.losses import dsm_loss, transition_aware_weights
from hf_noise.losses.dsm import noisy_images
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.noise.normals_torch import normals, uniforms
from hf_noise.objectives.base import Objective, condensed, objective_named
from hf_noise.objectives.images import DSM, TDSM
from hf_noise.trainers.arguments import check_below_one, check_given
from hf_noise.trainers.edm_network import Average, Description, check_embeddings
from hf_noise.trainers.edm_through import through
from hf_noise.trainers.finite import check_finite
from hf_noise.trainers.image_labels import ImageLabelTrainer
from hf_noise.trainers.labels import class_names, sample_ids
from hf_noise.trainers.levels import NoiseLevels
from hf_noise.trainers.meter import LossMeter, sum_dtype
from hf_noise.trainers.objective import search_no_unused

if TYPE_CHECKING:
    from diffusers import UNet2DModel

    from hf_noise.diffusion import EDMPipeline

__all__ = ["EDMTrainer", "EMA_FILE"]

SIGMA_STREAM, IMAGE_STREAM, DROPPED_STREAM = 80, 81, 83
# An evaluation is the same whenever it is made, so it has draws of its own.
EVALUATION_STREAM = 87
EMA_FILE = "ema.safetensors"
_STEPS = "optimization_step"
_AUGMENT = "hf_noise_augment"


class EDMTrainer(ImageLabelTrainer):
    """Train a diffusers `UNet2DModel` as EDM's denoiser D(x, sigma, class) on images with noisy labels.

    Rows are as for `ImageLabelTrainer`, `pixel_values` in [-1, 1], always with `sample_id`: wrong labels, noise levels
    ln sigma ~ N(P_mean, P_std^2), noise of the images and dropped labels are a pure function of (args.seed, epoch,
    sample_id), so they do not depend on batches, processes and resumes.

    Logs tell the loss on images with clean labels from that on images with wrong ones. `evaluate` gives the plain
    loss on clean labels under the raw weights (`eval_loss`) and under their moving average (`eval_ema_loss`), on noise
    that is always the same. `save_model` and `pipeline` give an `EDMPipeline`, whose network is the stock UNet2DModel.

    `compute_metrics` is given losses: `predictions` are float64 [N, 2], under the raw and the averaged weights, and
    `label_ids` the clean labels.

    Args:
        unet: with K + 1 class embeddings, the last one for images without a label; see `hf_noise.models.edm_unet`.
        noise: `LabelFlips`, drawn here unless the rows have `is_noisy`, or `HumanLabels`, which are in the rows.
        loss: "dsm", "tdsm" through the transition matrix, or an objective on images such as
            `hf_noise.objectives.TDSM(tau=0.1)`, whose fields are short spellings here too (`tau=0.1`).
        classifier: `TimeDependentClassifier` for "tdsm", trained at the same noise levels on the same classes. It is
            frozen, and no part of any checkpoint.
        transition: T [C, C] for "tdsm", rows clean; by default what the classifier was trained through, else that of
            the noise. T = I needs no classifier, and is "dsm" exactly. A T that differs from the classifier's own
            gives a warning.
        ema_decay: of the moving average, in [0, 1). It starts lower: step k uses at most k / (k + 9).
        label_dropout: share of labels that are left out in training, in [0, 1); > 0 for classifier-free guidance.
        levels: of the noise; `NoiseLevels(sigma_data=..., P_mean=..., P_std=...)`, short `sigma_data=...`. EDM's by
            default.
        augment: (images, sample ids, epoch) -> (images, description float [B, 9]) for training images, such as
            `EDMAugment()`. The network is told the description through a layer that is left out afterwards.
        **kwargs: as for `transformers.Trainer`.

    Raises:
        ValueError: noise, transition, classifier, network and data disagree on classes, images or noise levels; the
            classifier was trained on labels of other noise; T is singular or badly conditioned in the inverse form; an
            option is out of range; and what `ImageLabelTrainer` refuses.
        FloatingPointError: in training or when saving, a loss or a weight that is not finite.

    Source: Karras et al., "Elucidating the design space of diffusion-based generative models", NeurIPS 2022 (noise
    levels, preconditioning, augmentation); Na et al., "Label-noise robust diffusion models", ICLR 2024 (TDSM).
    """

    unit = "images"
    can_learn = False
    own_prefix = _AUGMENT
    always_drawn = "noise levels and the noise of images"

    def __init__(
        self,
        unet: UNet2DModel = None,
        args: Any = None,
        *,
        noise: LabelFlips | HumanLabels | None = None,
        loss: Literal["dsm", "tdsm"] | str | Objective = "dsm",
        classifier: nn.Module | None = None,
        transition: np.ndarray | Tensor | None = None,
        ema_decay: float = 0.9993,
        label_dropout: float = 0.0,
        levels: NoiseLevels | None = None,
        augment: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] | None = None,
        **kwargs: Any,
    ):
        from diffusers.training_utils import EMAModel

        check_given(unet, args, kwargs | {"augment": augment, "classifier": classifier})
        ema_decay = check_below_one("ema_decay", ema_decay)
        label_dropout = check_below_one("label_dropout", label_dropout)
        levels = NoiseLevels.taken_from(kwargs, levels)
        loss = _objective(loss, classifier, transition, kwargs)
        if not class_embeddings(unet) > 1:
            raise ValueError("the network has no classes; make it with num_class_embeds = K + 1, see edm_unet")
        for rows in (kwargs.get("train_dataset"), kwargs.get("eval_dataset")):
            check_embeddings(unet, len(class_names(rows) or ()), "the data have")
        search_no_unused(args)
        if augment is not None:
            unet.add_module(_AUGMENT, Description(unet))
        super().__init__(unet, args, noise=noise, meter=LossMeter(), **kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError("the moving average is kept on each device as a whole: use DDP, not FSDP or DeepSpeed")
        self.noise_levels, self.augment, self.label_dropout = levels, augment, label_dropout
        self.minimise(loss, num_classes=self.num_classes, was_given=noise is not None)
        self.classifier = self.transition = None
        if isinstance(loss, TDSM):
            self.classifier, self.transition = through(self, loss, classifier, was_given=noise is not None)
            self.objective = DSM() if self.transition is None else loss  # T = I
            if self.transition is not None:  # the T that it goes through, wherever it is from
                claimed = {**self.objective_claims["objective"], "transition": self.transition.matrix.tolist()}
                self.objective_claims["objective"] = condensed(claimed)
        self.names = [name for name, _ in self.model.named_parameters() if not name.startswith(self.own_prefix)]
        self.ema = EMAModel(self.published_parameters(), decay=ema_decay, foreach=True)
        self.add_callback(Average(self))

    @property
    def num_classes(self) -> int:
        return self.model.config.num_class_embeds - 1

    def check_noise(self, noise: LabelFlips | HumanLabels) -> None:
        check_embeddings(self.model, noise.num_classes, "the noise has")
        super().check_noise(noise)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        size = self.model.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.model.config.in_channels, height, width

    def write_noise(self, noise: LabelFlips | HumanLabels) -> None:
        """Nothing: `EDMPipeline` states the noise, and the network's config stays one of diffusers."""

    def write_objective(self, loss: Objective) -> None:
        """Nothing: `EDMPipeline` states the objective."""

    @property
    def sigma_data(self) -> float:
        """Standard deviation of the images."""
        return self.noise_levels.sigma_data

    @property
    def P_mean(self) -> float:
        """Mean of ln sigma."""
        return self.noise_levels.P_mean

    @property
    def P_std(self) -> float:
        """Standard deviation of ln sigma."""
        return self.noise_levels.P_std

    def published_parameters(self) -> list[nn.Parameter]:
        """Parameters of the network itself, without the layer for augmentation."""
        named = dict(self.model.named_parameters())
        return [named[name] for name in self.names]

    def loss_record(self) -> dict[str, Any]:
        record = super().loss_record()
        if self.classifier is not None:
            record["transition"] = self.classifier.config.transition_source or "known"
        return record

    def denoiser(self, model: nn.Module) -> Callable[..., Tensor]:
        """The denoiser in training, of the network as it is wrapped: D(x, sigma, class_labels, augment=None) -> x0.

        x and x0 are float32 [B, C, H, W], sigma float32 [B] > 0, class_labels int64 [B] in [0, K] with K for none, and
        `augment` float32 [B, 9] says how the images were augmented.
        """
        plain = Denoiser(model, self.sigma_data)
        if self.augment is None:
            return plain
        layer = getattr(self.model, _AUGMENT)

        def told(x: Tensor, sigma: Tensor, class_labels: Tensor, augment: Tensor | None = None) -> Tensor:
            with layer.telling(augment):
                return plain(x, sigma, class_labels)

        return told

    def levels(self, sample: Tensor, stream: int, epoch: int) -> Tensor:
        """sigma float32 [B], > 0, of samples int64 [B]: a pure function of (args.seed, stream, epoch, sample)."""
        return self.noise_levels.draw(self.args.seed, stream, epoch, sample)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, _, is_noisy = self.targets(inputs, draw=True)
        images, sample, told = inputs["pixel_values"], sample_ids(inputs), {}
        if self.augment is not None:
            images, told["augment"] = self.augment(images, sample, self.epoch)
        sigma = self.levels(sample, SIGMA_STREAM, self.epoch)
        noise = normals(self.args.seed, IMAGE_STREAM, self.epoch, sample, images[0].numel()).view(images.shape)
        images = self.laid_out(images)
        weights = self._weights(images, sigma, noise, labels)
        if self.label_dropout:
            dropped = uniforms(self.args.seed, DROPPED_STREAM, self.epoch, sample, 1)[:, 0] < self.label_dropout
            labels = torch.where(dropped, self.num_classes, labels)
        denoiser, options = self.denoiser(model), {"sigma_data": self.sigma_data, **told}
        given = (images, sigma, noise, labels) if weights is None else (images, sigma, noise, labels, weights)
        losses = self.objective(denoiser, *given, **options)
        self.meter.add(losses.detach(), is_noisy)
        self.watch(losses, sample)
        loss = self.mean_loss(losses.sum(), len(labels), num_items_in_batch)
        return (loss, {"losses": losses}) if return_outputs else loss

    @torch.no_grad()
    def _weights(self, images: Tensor, sigma: Tensor, noise: Tensor, labels: Tensor) -> Tensor | None:
        """Transition-aware weights [B, C], None for plain matching."""
        if self.transition is None:
            return None
        # Paper C: the classifier sees the augmented image and is not told how it was augmented.
        # accelerate wraps the network it trains alone: without this the classifier would run in float32.
        with self.accelerator.autocast():
            logits = self.classifier(noisy_images(images, sigma, noise), sigma)
        given = {"bayes": "clean_posterior", "inverse": "noisy_posterior"}[self.loss.weights]
        return transition_aware_weights(
            labels, self.transition, logits=True, temperature=self.loss.temperature, **{given: logits}
        )

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """(None, float64 [B, 2] = loss under the raw and the averaged weights, labels [B])."""
        inputs = self._prepare_evaluation(inputs)
        labels, sample = inputs.get("clean_labels", inputs["labels"]), sample_ids(inputs)
        images = self.laid_out(inputs["pixel_values"])
        sigma = self.levels(sample, EVALUATION_STREAM, 0)
        noise = normals(self.args.seed, EVALUATION_STREAM, 1, sample, images[0].numel()).view(images.shape)
        denoiser = Denoiser(self.model, self.sigma_data)
        averaged = {f"unet.{name}": value for name, value in zip(self.names, self.ema.shadow_params)}

        def ema(*given: Tensor) -> Tensor:
            return torch.func.functional_call(denoiser, averaged, given)

        with torch.no_grad(), self.compute_loss_context_manager():
            both = [dsm_loss(one, images, sigma, noise, labels, sigma_data=self.sigma_data) for one in (denoiser, ema)]
        losses = torch.stack(both, -1)
        return None, losses.to(sum_dtype(losses)), labels

    def exact_metrics(self, prediction: Any) -> dict[str, float]:
        """Means over rows [N, 2]."""
        losses = np.asarray(prediction.predictions, dtype=np.float64)
        check_finite(losses.sum(-1))
        raw, averaged = losses.mean(0).tolist()
        return {"loss": raw, "ema_loss": averaged, "images": len(losses)}

    def pipeline(self, ema: bool = True) -> EDMPipeline:
        """Sampler with a copy of the network as it stands: the moving average of its weights, or the raw ones."""
        from hf_noise.diffusion import EDMHeunScheduler, EDMPipeline

        with torch.random.fork_rng(devices=[]):  # training goes on as if no network had been made
            unet = type(self.model).from_config(self.model.config).to(self.args.device)
        weights = self.ema.shadow_params if ema else self.published_parameters()
        with torch.no_grad():
            for parameter, value in zip(unet.parameters(), weights, strict=True):
                parameter.copy_(value)
        return EDMPipeline(
            unet.eval(), EDMHeunScheduler(sigma_data=self.sigma_data), num_classes=self.num_classes,
            has_unconditional=self.label_dropout > 0, hf_noise=None if self.noise is None else self.noise.to_dict(),
            hf_noise_objective=self.loss.to_dict(),
        )  # fmt: skip

    def saved_values(self) -> Iterator[tuple[str, Tensor]]:
        yield from super().saved_values()
        yield from ((f"average of {name}", value) for name, value in zip(self.names, self.ema.shadow_params))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = output_dir or self.args.output_dir
        if self._checkpoint_state is None:  # a model to use, not a checkpoint to go on from
            if self.args.should_save:
                self.pipeline().save_pretrained(folder)
            return
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            average = {name: value.cpu().contiguous() for name, value in zip(self.names, self.ema.shadow_params)}
            save_file(average | {_STEPS: torch.tensor(self.ema.optimization_step)}, os.path.join(folder, EMA_FILE))

    def _load_own(self, folder: str, state: Mapping[str, Tensor]) -> None:
        super()._load_own(folder, state)
        average = load_file(os.path.join(folder, EMA_FILE))
        self.ema.optimization_step = int(average[_STEPS])
        for name, value in zip(self.names, self.ema.shadow_params):
            value.copy_(average[name])
        if self.augment is not None:
            getattr(self.model, _AUGMENT).load_state_dict(
                {name.removeprefix(f"{_AUGMENT}."): v for name, v in state.items() if name.startswith(_AUGMENT)}
            )


def _objective(loss: str | Objective, classifier: Any, transition: Any, options: dict[str, Any]) -> Objective:
    """What is minimised; `transition=` and short spellings among `options` are those of `TDSM`, and are taken out."""
    own = {field.name: options.pop(field.name) for field in fields(TDSM) if field.name in options}
    if isinstance(loss, str) and loss == TDSM.name:
        return TDSM(transition=transition, **own)
    TDSM(**own)  # values are checked whatever is minimised
    objective = objective_named(loss, EDMTrainer.unit)
    if isinstance(objective, TDSM):
        if own or transition is not None:
            raise ValueError(f"{', '.join(own) or 'transition'}= is short for loss=TDSM(...), which holds its own; "
                             "leave one out")  # fmt: skip
    elif classifier is not None or transition is not None:
        raise ValueError('classifier= and transition= are for loss="tdsm"')
    return objective
