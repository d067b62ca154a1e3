"""Features of images, and what a metric of them may be called: FID and IS of Inception, all else says of what.

extractor = inception_extractor(device="cuda") if find_inception_weights() else judge_extractor(judge, ...)
features, logits = extractor(images)        # uint8 [N, C, H, W]
metric_name("frechet", extractor)           # "FID", or "Frechet distance in judge features (resnet10-digits)"

A network of Inception's shape can hold any weights. FID is what comes of the .pth file that pytorch-fid publishes,
known by its SHA-256. Metrics of any other file say which weights they are of, those of a conversion to safetensors too:
nothing shows what it was converted from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from hf_noise.metrics.checks import check_count, check_device, real_numbers
from hf_noise.metrics.inception_weights import (
    INCEPTION,
    INCEPTION_FILE,
    digest_of,
    features_name,
    find_inception_weights,
    read_weights,
)
from hf_noise.metrics.words import FEATURE_METRICS

__all__ = [
    "Extractor",
    "inception_extractor",
    "judge_extractor",
    "metric_name",
    "weights_hash",
]

@dataclass(frozen=True)
class Extractor:
    """Turns uint8 images into features and logits; made by `inception_extractor` and `judge_extractor`.

    Attributes:
        name: what the features are: "Inception" with the weights of pytorch-fid's release, else such as "judge features
            (resnet10-digits)" or "Inception features (weights 1f2e3d4c)".
        classes: what the logits are of, such as "the judge's classes (resnet10-digits)".
        device: where it computes.
        image_size: height and width that images must have, None for any.
        num_channels: channels that images must have; images of one channel are repeated if it is 3.
        weights: SHA-256 of Inception's file; of a judge that of its tensors and of how it normalises images.
    """

    name: str
    classes: str
    device: torch.device
    image_size: int | None
    num_channels: int
    weights: str
    _network: nn.Module = field(repr=False)
    _forward: Callable[[Tensor], tuple[Tensor, Tensor]] = field(repr=False)

    @property
    def is_inception(self) -> bool:
        """Whether these are the features that FID and IS are made of."""
        return self.name == INCEPTION

    def __call__(self, images: Tensor, *, batch_size: int = 256, progress: bool = True) -> tuple[Tensor, Tensor]:
        """Features float32 [N, D] and logits float32 [N, C] on the CPU.

        Args:
            images: uint8 [N, channels, H, W] in [0, 255], on any device.
            batch_size: images per forward pass.
            progress: show a bar.

        Raises:
            TypeError: images are no uint8 tensor, or batch_size is no integer.
            ValueError: there are none, or they have another shape than the network takes; NaN or inf come out.
        """
        parts = list(self.batches(images, batch_size=batch_size, progress=progress))
        return torch.cat([features for features, _ in parts]), torch.cat([logits for _, logits in parts])

    def batches(
        self, images: Tensor, *, batch_size: int = 256, progress: bool = True
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The same batch by batch, in order, so that statistics of any number of images take constant memory."""
        self._check(images)
        batch_size = check_count("batch_size", batch_size)
        if not isinstance(progress, bool):
            raise TypeError(f"progress must be True or False, got {progress!r}")
        starts = range(0, len(images), batch_size)
        for start in tqdm(starts, desc=self.name, unit="batch", disable=not progress, leave=False):
            batch = images[start : start + batch_size].to(self.device)
            if batch.shape[1] != self.num_channels:
                batch = batch.expand(-1, self.num_channels, -1, -1)
            # One layout for all: of one-channel images the strides alone choose between convolutions that round apart.
            batch = batch.reshape(-1).view(batch.shape)
            with torch.inference_mode():
                features, logits = (part.float().cpu() for part in self._forward(batch))
            if not (torch.isfinite(features).all() and torch.isfinite(logits).all()):
                raise ValueError(f"{self.name} gives NaN or inf for images {start} to {start + len(batch) - 1}")
            yield features, logits

    def _check(self, images: Tensor) -> None:
        if not isinstance(images, Tensor):
            raise TypeError(f"images must be a tensor uint8 [N, channels, H, W], got {type(images).__name__}")
        if images.dtype != torch.uint8:
            raise TypeError(f"images must be uint8 in [0, 255], got {images.dtype}; round and clamp them first")
        if images.ndim != 4 or 0 in images.shape:
            raise ValueError(f"images must be [N, channels, H, W] with N >= 1, got shape {list(images.shape)}")
        channels, size = images.shape[1], images.shape[2:]
        if channels not in (1, self.num_channels):
            raise ValueError(f"images have {channels} channels, {self.name} takes {self.num_channels}")
        if self.image_size is not None and tuple(size) != (self.image_size, self.image_size):
            raise ValueError(
                f"images are {list(size)} pixels, {self.name} was trained on {self.image_size} x {self.image_size}; "
                "pad or resize them as its training images were"
            )


def metric_name(metric: str, extractor: Extractor) -> str:
    """What a metric of these features is called: FID, CW-FID and IS only of Inception with pytorch-fid's own weights.

    Raises ValueError: the metric is none of frechet, classwise_frechet, inception_score, density, coverage,
        classwise_density, classwise_coverage.
    """
    if not isinstance(extractor, Extractor):
        raise TypeError(f"extractor must be an Extractor, got {type(extractor).__name__}")
    if not isinstance(metric, str) or metric not in FEATURE_METRICS:
        raise ValueError(f"unknown metric {metric!r}; known: {', '.join(FEATURE_METRICS)}")
    words = FEATURE_METRICS[metric]
    if extractor.is_inception:
        return words.of_inception
    return words.of_other.format(features=extractor.name, classes=extractor.classes)


def inception_extractor(weights: str | os.PathLike | None = None, *, device: torch.device | str = "cpu") -> Extractor:
    """pytorch-fid's Inception: features are its 2048 pool features; logits are of its 1008 classes, without the bias.

    The score of Salimans et al. (2016) is of those logits: their network leaves the bias out. Metrics of it are FID and
    IS if the file of weights is the release's own (see `inception_name`).

    Args:
        weights: as for `find_inception_weights`. A .pth file is read without running anything in it.
        device: where to compute.

    Raises:
        ImportError: pytorch-fid is not installed.
        FileNotFoundError: there are no weights.
        ValueError: the file holds other weights, or is broken; the device cannot be used.
    """
    device = check_device(device)
    try:
        from pytorch_fid import inception
    except ImportError as error:
        raise ImportError("Inception features take pytorch-fid; pip install pytorch-fid") from error
    path = find_inception_weights(weights)
    if path is None:
        raise FileNotFoundError(
            f"no Inception weights in torch.hub's cache ({INCEPTION_FILE}); pass a file or a Hub id, or use the "
            "features of a judge"
        )
    state = read_weights(path)
    try:
        with _instead_of_download(inception, state):
            network = inception.InceptionV3([inception.InceptionV3.DEFAULT_BLOCK_INDEX])
    except RuntimeError as error:  # of load_state_dict: missing, unexpected or misshapen
        raise ValueError(f"{path.name} does not hold pytorch-fid's Inception weights: {error}") from error
    network.eval().to(device)
    head = state["fc.weight"].float().to(device)

    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        # pytorch-fid resizes to 299 x 299 and scales to [-1, 1] itself.
        features = network(images.float() / 255)[0].flatten(1)
        return features, features @ head.T

    digest = digest_of(path)
    classes = f"Inception's classes (weights {digest[:8]})"
    return Extractor(features_name(digest), classes, device, None, 3, digest, network, forward)


def judge_extractor(
    model: nn.Module, *, name: str, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu"
) -> Extractor:
    """The features that a classifier's last linear layer sees, and its logits.

    Args:
        model: takes `pixel_values` float [B, channels, H, W] and returns an output with `.logits`, as the classifiers
            of transformers do (`hf_noise.models.image`, timm's through transformers); it is put into evaluation mode.
        name: of the judge, such as "resnet10-digits"; it stands in the name of every metric.
        mean, std: what its training images were normalised with, in units where 255 is 1; one number per channel.
        device: where to compute; the model is moved there.

    Raises:
        TypeError: the model is no module, the name no text, or mean or std hold no real numbers.
        ValueError: mean and std do not fit together, a mean is not finite or a std not finite and > 0, the device
            cannot be used, or the model has no linear layer with its number of classes.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch module, got {type(model).__name__}")
    if not isinstance(name, str) or not name:
        raise TypeError(f"name must be a text such as 'resnet10-digits', got {name!r}")
    means, stds = real_numbers("mean", mean), real_numbers("std", std)
    if means.ndim != 1 or means.shape != stds.shape or not means.size:
        raise ValueError(
            f"mean and std need one number per channel each, got {list(means.shape)} and {list(stds.shape)}"
        )
    if not (np.isfinite(means).all() and np.isfinite(stds).all() and (stds > 0).all()):
        raise ValueError(f"mean must be finite and std finite and > 0, got {means.tolist()} and {stds.tolist()}")
    mean, std = means.tolist(), stds.tolist()
    device = check_device(device)
    model.eval().to(device)
    head = classification_head(model)
    shift = torch.tensor(mean, device=device).view(-1, 1, 1) * 255
    scale = 1 / (torch.tensor(std, device=device).view(-1, 1, 1) * 255)
    dtype = next(model.parameters()).dtype

    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            # As `DeviceImages` normalises, so that the judge answers as it did in its own test.
            logits = model(pixel_values=images.float().sub_(shift).mul_(scale).to(dtype)).logits
        finally:
            hook.remove()
        return seen[-1].flatten(1), logits

    size = getattr(getattr(model, "config", None), "image_size", None)
    digest = weights_hash(model, list(map(float, mean)), list(map(float, std)))
    classes = f"the judge's classes ({name})"
    return Extractor(f"judge features ({name})", classes, device, size, len(mean), digest, model, forward)


def classification_head(model: nn.Module) -> nn.Linear:
    """The last linear layer that gives one number per class; raises ValueError if there is none."""
    classes = getattr(getattr(model, "config", None), "num_labels", None)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    fitting = [layer for layer in layers if classes in (None, layer.out_features)]
    if not fitting:
        raise ValueError(
            f"{type(model).__name__} has no linear layer that gives {classes} classes, whose input would be its "
            "features; use another judge"
        )
    return fitting[-1]


def weights_hash(network: nn.Module, *settings: Any) -> str:
    """SHA-256 of the tensors of a network and of what else its output depends on, in hexadecimal.

    Args:
        network: its parameters and buffers count, each with its name, dtype and shape, in whatever order.
        settings: plain values and containers of them, such as a configuration; what JSON does not know counts as text.

    Raises TypeError: the network is no module.
    """
    if not isinstance(network, nn.Module):
        raise TypeError(f"network must be a torch module, got {type(network).__name__}")
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def _instead_of_download(inception: Any, state: dict[str, Tensor]) -> Iterator[None]:
    """pytorch-fid fetches its weights while it builds the network, and unpickles them; it gets ours instead."""
    download = inception.load_state_dict_from_url
    inception.load_state_dict_from_url = lambda *_, **__: state
    try:
        yield
    finally:
        inception.load_state_dict_from_url = download
