"""What `EDMPipeline` is asked for and made of: images, classes and seeds in number, and a network of EDM's kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_noise.models.checks import MANY, check_int, check_unmasked, shown

__all__ = ["as_integers", "batch_size_of", "class_embeddings", "is_list", "number_of_classes"]


def batch_size_of(class_labels: Any, batch_size: Any, seed: Any, generator: Any) -> int:
    """Number of images that all arguments agree on."""
    within = f"[1, {MANY}]"
    said = {}
    if batch_size is not None:
        said["batch_size"] = check_int("batch_size", batch_size, within, "it counts the images")
    if class_labels is not None:
        labels = as_integers(class_labels)
        if labels.ndim > 1:
            raise ValueError(f"class_labels must be one class or a list of them, got the shape {tuple(labels.shape)}")
        if labels.ndim:
            said["class_labels"] = len(labels)
    if is_list(seed):
        said["seed"] = len(seed)
    if generator is not None:
        each = generator if isinstance(generator, list) else [generator]
        if not all(isinstance(one, torch.Generator) for one in each):
            raise TypeError(f"generator must be a torch.Generator or a list of them, got {shown(generator)}")
        if each is generator:
            said["generator"] = len(each)
    if len(set(said.values())) > 1:
        counts = ", ".join(f"{name} says {count}" for name, count in said.items())
        raise ValueError(f"the number of images is not clear: {counts}")
    return check_int("the number of images", next(iter(said.values()), 1), within, "draw more in several calls")


def is_list(value: Any) -> bool:
    """Whether a seed is a list of numbers rather than one; a string is neither, and will be refused as a number."""
    check_unmasked("seed", value)
    if isinstance(value, np.ndarray | Tensor):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def as_integers(class_labels: Any) -> Tensor:
    """Classes as a tensor of integers on the host."""
    check_unmasked("class_labels", class_labels)
    try:
        labels = class_labels.cpu().numpy() if isinstance(class_labels, Tensor) else np.asarray(class_labels)
        if labels.dtype.kind not in "iu" and labels.size:
            raise ValueError(labels.dtype)
    except (TypeError, ValueError, RuntimeError):  # also of NumPy and torch, for what makes no array
        raise ValueError(f"class_labels must be integers, got {shown(class_labels)}") from None
    if labels.dtype == np.uint64:  # numbers past int64 are no class in any case, and would become negative
        labels = np.minimum(labels, np.uint64(np.iinfo(np.int64).max))
    return torch.from_numpy(np.array(labels, dtype=np.int64, order="C"))  # torch takes no reversed array


def class_embeddings(unet: Any) -> int:
    """Class embeddings of a network, 0 for one without classes; refuses a network that is not called as EDM's is."""
    config = getattr(unet, "config", None)
    if not isinstance(unet, torch.nn.Module) or config is None:
        raise TypeError(f"unet must be a UNet2DModel, got {type(unet).__name__}")
    channels, made = config.get("in_channels"), config.get("out_channels", config.get("in_channels"))
    for wrong, remedy in (
        (config.get("sample_size") is None, "it states no image size; make it with sample_size="),
        (channels != made, f"it makes images of {made} channels out of {channels}"),
        (config.get("class_embed_type") is not None, "it has no table of classes; leave out class_embed_type="),
        (
            config.get("time_embedding_type", "positional") != "positional",
            'EDM tells it ln(sigma) / 4, which may be negative; leave out time_embedding_type=, or take "positional"',
        ),
    ):
        if wrong:
            raise ValueError(f"this network cannot be sampled: {remedy}")
    return config.get("num_class_embeds") or 0


def number_of_classes(embeddings: int, num_classes: Any, has_unconditional: Any) -> int:
    """num_classes, by default what the network has embeddings for."""
    if not isinstance(has_unconditional, bool):
        raise TypeError(f"has_unconditional must be True or False, got {shown(has_unconditional)}")
    if has_unconditional and not embeddings:
        raise ValueError("has_unconditional=True, but the network has no class embeddings; the last would be that of "
                         "images without a class")  # fmt: skip
    if num_classes is None:
        return embeddings - has_unconditional
    num_classes = check_int("num_classes", num_classes, f"[0, {MANY}]")
    allowed = {embeddings - 1} if has_unconditional else {embeddings, max(0, embeddings - 1)}
    if num_classes not in allowed:
        raise ValueError(
            f"the network has {embeddings} class embeddings: num_classes must be "
            + (f"{embeddings - 1}, as the last is the unconditional class" if has_unconditional else
               " or ".join(map(str, sorted(allowed, reverse=True))))
            + f", got {num_classes}; has_unconditional={has_unconditional} says whether the last one is for images "
            "without a class"
        )  # fmt: skip
    return num_classes
