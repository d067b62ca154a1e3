"""Classifiers of noisy images at every noise level: what tells the transition-aware weights of TDSM the clean class.

From paper C (TDSM): the image x_t = x_0 + sigma n is scaled by c_in = 1 / sqrt(sigma^2 + sigma_data^2); the network
is told ln(sigma) / 4 as 128 sines and cosines behind two linear layers, and adds what it makes of them to each channel
after each stage.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from hf_noise.models.checks import (
    MANY,
    as_json,
    check_class_names,
    check_floats,
    check_int,
    check_name,
    check_number,
    check_sizes,
    check_unmasked,
    shown,
)
from hf_noise.models.loading import load_whole
from hf_noise.models.time_networks import ARCHITECTURES, EMBEDDING, FREQUENCIES, network

__all__ = ["ARCHITECTURES", "TimeDependentClassifier"]

#: Numbers that describe EDM's augmentation of an image.
AUGMENTATION = 9

# Entries of a row may have been rounded to float32, or to the digits of a text.
_ROW_SUM_TOLERANCE = 1e-4


class TimeDependentClassifier(ModelMixin, ConfigMixin):
    """p(class | x_t) for an image x_t under Gaussian noise of any level sigma.

    Trained through a transition matrix, or on labels known to be clean, its softmax estimates the CLEAN class, which is
    what `hf_noise.losses.transition_aware_weights(clean_posterior=...)` takes; else it gives the class of the labels it
    saw (`noisy_posterior=`). The attribute `predicts` says which.

    Args:
        num_classes: C >= 2.
        image_size: height and width in pixels.
        num_channels: 1 for grey images, 3 for colour.
        architecture: one of `ARCHITECTURES`: small convolutional networks for 8 x 8 ("cnn-digits") and 32 x 32
            ("cnn-mnist"), residual ones, or the encoder half of the EDM U-Net ("unet-encoder").
        block_out_channels, layers_per_block, attention_resolutions: of the encoder half; other networks have their own.
        augmentation: whether the network is told how an image was augmented.
        sigma_data: standard deviation of the clean images in [-1, 1], > 0.
        P_mean, P_std: ln sigma ~ N(P_mean, P_std^2) while it was trained, P_std > 0.
        class_names: of the classes, each another one.
        transition: T [C, C] that it was trained through, rows clean and of sum 1; None for none.
        transition_source: "known" (of the noise), "estimated" (by volume minimisation), "given", or None without T.
        hf_noise: `noise.to_dict()` of the noise that the training labels had.
        predicts: "clean" or "noisy"; `TimeClassifierTrainer` sets it. None: "clean" with a transition, else "noisy".

    Raises:
        ValueError: an unknown architecture, an image size it cannot take, names or a matrix of other classes, rows that
            are no probabilities, predicts="noisy" with a transition, or a number outside its range.
        TypeError: an argument of another kind, such as a string for a number.

    Source: Na et al., "Label-noise robust diffusion models", ICLR 2024, appendix (paper C).
    """

    main_input_name = "noisy_images"

    @register_to_config
    def __init__(
        self,
        num_classes: int = 10,
        image_size: int = 32,
        num_channels: int = 3,
        architecture: str = "resnet18",
        block_out_channels: Sequence[int] = (64, 128, 256),
        layers_per_block: int = 2,
        attention_resolutions: Sequence[int] = (8,),
        augmentation: bool = False,
        sigma_data: float = 0.5,
        P_mean: float = -1.2,
        P_std: float = 1.2,
        class_names: Sequence[str] | None = None,
        transition: Sequence[Sequence[float]] | None = None,
        transition_source: Literal["known", "estimated", "given"] | None = None,
        hf_noise: dict[str, Any] | None = None,
        predicts: Literal["clean", "noisy"] | None = None,
    ):
        super().__init__()
        self.register_to_config(**_checked(self.config))
        self.time_proj = Timesteps(FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=1)
        self.time_embedding = TimestepEmbedding(
            FREQUENCIES, EMBEDDING, post_act_fn="silu", cond_proj_dim=AUGMENTATION if augmentation else None
        )
        self.network = network(self.config)

    @property
    def predicts(self) -> Literal["clean", "noisy"]:
        """Whether the softmax estimates the clean class, or that of labels that may be wrong, fitted to as they are."""
        return self.config.predicts or ("noisy" if self.config.transition is None else "clean")

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> TimeDependentClassifier:
        """Load from a folder of `save_pretrained` or from the Hub; safetensors only, and all weights or none.

        Arguments are those of `ModelMixin.from_pretrained`.

        Raises:
            ValueError: use_safetensors=False, or tensors are missing, unknown or of another shape.
            OSError: there are no weights in safetensors, or they cannot be read.
        """
        if kwargs.pop("use_safetensors", True) is False:
            raise ValueError("TimeDependentClassifier loads safetensors only; weights in pickle form can run code")
        return load_whole(super().from_pretrained, pretrained_model_name_or_path, use_safetensors=True, **kwargs)

    def check(self, **ours: Any) -> None:
        """Refuse this classifier for a run of other images, classes or noise levels.

        Args:
            **ours: what it must be made for, under the names of the class's arguments, such as num_classes=10.

        Raises:
            ValueError: it is not; the message names the first that differs.
            TypeError: it has no argument of such a name.
        """
        for name, value in ours.items():
            if name not in self.config:
                raise TypeError(f"the classifier has no {name}; check takes names of its arguments, as num_classes=10")
            if getattr(self.config, name) != value:
                raise ValueError(
                    f"the classifier has {name} = {getattr(self.config, name)}, this run {value}; train one for the "
                    "same images, classes and noise levels"
                )

    def forward(self, noisy_images: Tensor, sigma: Tensor, augment: Tensor | None = None) -> Tensor:
        """Logits of the classes.

        Args:
            noisy_images: float [B, channels, H, W], x_t = x_0 + sigma n with x_0 in [-1, 1].
            sigma: float [B] or [], > 0.
            augment: float [B, 9], how each image was augmented; None says that it was not, or keeps it quiet.

        Returns:
            float32 [B, C], under autocast too.

        Raises:
            ValueError: `augment` is given, and the network was made without `augmentation`; shapes do not fit.
            TypeError: images or sigma are no tensors of floating-point numbers.
        """
        self._check_inputs(noisy_images, sigma, augment)
        sigma = sigma.float().expand(len(noisy_images))
        embedded = self.time_proj(sigma.log() / 4)
        if self.config.augmentation and augment is None:
            augment = embedded.new_zeros(len(noisy_images), AUGMENTATION)
        elif augment is not None and not self.config.augmentation:
            raise ValueError("this classifier takes no augment=; make it with augmentation=True")
        dtype = self.time_embedding.linear_1.weight.dtype
        embedded = self.time_embedding(embedded.to(dtype), None if augment is None else augment.to(dtype))
        c_in = torch.rsqrt(sigma**2 + self.config.sigma_data**2)
        return self.network((noisy_images.float() * c_in[:, None, None, None]).to(dtype), embedded).float()

    def log_posterior(self, noisy_images: Tensor, sigma: Tensor, temperature: float = 1.0) -> Tensor:
        """log p(class | x_t), float32 [B, C], of logits divided by a finite `temperature` > 0; else as `forward`."""
        temperature = check_number("temperature", temperature, "(0, inf)", "1 leaves the posterior as it is")
        return F.log_softmax(self(noisy_images, sigma) / temperature, dim=-1)

    def _check_inputs(self, images: Any, sigma: Any, augment: Any) -> None:
        """Kinds and shapes alone: no value is read back from a device."""
        config = self.config
        check_floats("noisy_images", images, "in [-1, 1] before noise was added")
        check_floats("sigma", sigma, "the noise level of each image")
        if augment is not None:
            check_floats("augment", augment, "how each image was augmented")
        expected = (config.num_channels, config.image_size, config.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"noisy_images must have the shape [B, {', '.join(map(str, expected))}], got "
                             f"{list(images.shape)}")  # fmt: skip
        if tuple(sigma.shape) not in {(), (len(images),)}:
            raise ValueError(f"sigma must have the shape [{len(images)}] or [] for {len(images)} noisy_images, got "
                             f"{list(sigma.shape)}")  # fmt: skip
        if sigma.device != images.device:
            raise ValueError(f"sigma must be where noisy_images are, on {images.device}, got {sigma.device}")
        if augment is not None and tuple(augment.shape) != (len(images), AUGMENTATION):
            raise ValueError(f"augment must have the shape {[len(images), AUGMENTATION]}, got {list(augment.shape)}")


def _checked(config: Any) -> dict[str, Any]:
    """The arguments as plain numbers, lists and names; ValueError or TypeError for the first that makes no sense."""
    classes = check_int("num_classes", config.num_classes, f"[2, {MANY}]")
    for name, known in (
        ("architecture", ARCHITECTURES), ("transition_source", ("known", "estimated", "given")),
        ("predicts", ("clean", "noisy")),
    ):  # fmt: skip
        if getattr(config, name) is not None or name == "architecture":
            check_name(name, getattr(config, name), known)
    if not isinstance(config.augmentation, bool):
        raise TypeError(f"augmentation must be True or False, got {shown(config.augmentation)}")
    transition = None if config.transition is None else _rows(config.transition, classes)
    if transition is None and config.transition_source is not None:
        raise ValueError(f"transition_source={config.transition_source!r} says where T is from; give transition=")
    if transition is not None and config.predicts == "noisy":
        raise ValueError('predicts="noisy", but training through a transition matrix gives clean classes')
    return {
        "num_classes": classes,
        "image_size": check_int("image_size", config.image_size, "[1, 16384]", "it is in pixels"),
        "num_channels": check_int("num_channels", config.num_channels, "[1, 1024]", "1 for grey images, 3 for colour"),
        "block_out_channels": check_sizes("block_out_channels", config.block_out_channels, "[4, 65536]"),
        "layers_per_block": check_int("layers_per_block", config.layers_per_block, "[1, 1024]"),
        "attention_resolutions": check_sizes("attention_resolutions", config.attention_resolutions, "[1, 16384]", 0),
        "sigma_data": check_number("sigma_data", config.sigma_data, "(0, inf)", "it is the images' deviation"),
        "P_mean": check_number("P_mean", config.P_mean, "(-inf, inf)", "it is the mean of ln sigma"),
        "P_std": check_number("P_std", config.P_std, "(0, inf)", "it is the standard deviation of ln sigma"),
        "class_names": None if config.class_names is None else check_class_names(config.class_names, classes),
        "transition": transition,
        "hf_noise": as_json("hf_noise", config.hf_noise),
    }


def _rows(transition: Any, classes: int) -> list[list[float]]:
    """A matrix of probabilities, rows clean."""
    check_unmasked("transition", transition)
    try:
        matrix = np.asarray(transition)
        if matrix.dtype.kind not in "iuf":
            raise TypeError
    except (TypeError, ValueError, RuntimeError):  # also of NumPy and torch, for rows of several lengths
        raise TypeError(f"transition must be rows of probabilities, got {shown(transition)}") from None
    if matrix.shape != (classes, classes):
        raise ValueError(f"transition has the shape {list(matrix.shape)} for {classes} classes; it must be "
                         f"{[classes, classes]}")  # fmt: skip
    matrix = matrix.astype(np.float64)
    rows = matrix.sum(1)
    if not (matrix >= 0).all() or not (np.abs(rows - 1) <= _ROW_SUM_TOLERANCE).all():
        raise ValueError(f"each row of transition must be >= 0 and have the sum 1, got {shown(matrix.tolist())}")
    return matrix.tolist()
