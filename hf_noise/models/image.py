"""Image classifiers by name: networks for small images, ResNet-18 with the CIFAR stem among them, and all of timm's.

Importing this module teaches `AutoModelForImageClassification` the small ones, so that a published checkpoint of theirs
is loaded after `import hf_noise.models.image`. A network of timm's own needs no such import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)
from transformers.modeling_outputs import ImageClassifierOutput

from hf_noise.models.checks import MANY, check_class_names, check_int, check_sizes, shown
from hf_noise.models.resnet import small_resnet

__all__ = ["SMALL", "Shape", "SmallResNetConfig", "SmallResNetForImageClassification", "image_classifier"]


@dataclass(frozen=True)
class Shape:
    """Residual blocks in each of four stages, and their channels."""

    layers: tuple[int, ...]
    channels: tuple[int, ...]


#: Networks with the CIFAR stem: 3x3 convolution of stride 1, no max-pool. Parameter counts are with 10 classes.
SMALL = {
    "resnet10-digits": Shape((1, 1, 1, 1), (16, 16, 32, 32)),  # for one channel of 8 x 8
    "resnet10-small": Shape((1, 1, 1, 1), (16, 32, 64, 128)),
    "resnet18-cifar": Shape((2, 2, 2, 2), (64, 128, 256, 512)),  # 11.2 M, papers A and C
    "resnet34-cifar": Shape((3, 4, 6, 3), (64, 128, 256, 512)),  # 21.3 M, paper C
}


class SmallResNetConfig(PreTrainedConfig):
    """Residual blocks and channels of each of four stages, and the number of input channels."""

    model_type = "hf_noise_small_resnet"

    def __init__(
        self,
        layers: tuple[int, ...] = (2, 2, 2, 2),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        num_channels: int = 3,
        **kwargs: Any,
    ):
        self.layers = list(check_sizes("layers", layers, "[1, 1024]"))
        self.channels = list(check_sizes("channels", channels, "[1, 65536]"))
        self.num_channels = num_channels
        super().__init__(**kwargs)


class SmallResNetForImageClassification(PreTrainedModel):
    """timm's ResNet behind the CIFAR stem, so that a 32 x 32 image still is 4 x 4 at the last stage."""

    config_class = SmallResNetConfig
    base_model_prefix = "network"
    main_input_name = "pixel_values"
    accepts_loss_kwargs = False

    def __init__(self, config: SmallResNetConfig):
        super().__init__(config)
        self.network = small_resnet(config.layers, config.channels, config.num_channels, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The constructors have done it; transformers would draw them again by its own rule."""

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any) -> ImageClassifierOutput:
        """Logits [B, C] of images float [B, channels, H, W]; with labels int64 [B] also their mean cross-entropy."""
        logits = self.network(pixel_values)
        loss = nn.functional.cross_entropy(logits, labels) if labels is not None else None
        return ImageClassifierOutput(loss=loss, logits=logits)


AutoConfig.register(SmallResNetConfig.model_type, SmallResNetConfig, exist_ok=True)
AutoModelForImageClassification.register(SmallResNetConfig, SmallResNetForImageClassification, exist_ok=True)


def image_classifier(
    name: str, *, labels: list[str] | int, image_size: int, num_channels: int = 3, **model_args: Any
) -> PreTrainedModel:
    """A freshly initialised classifier; seed torch before the call.

    Args:
        name: in `SMALL`, or any architecture that timm lists, such as "vit_base_patch16_224".
        labels: names of the classes, each another one, or their number.
        image_size: height and width in pixels.
        num_channels: 1 for grey images, 3 for colour.
        **model_args: for `timm.create_model`, such as `drop_path_rate`.

    Raises:
        ValueError: the name is unknown, a number is out of its range, two classes have one name, or timm makes no such
            network, or none for images of this size.
        TypeError: an argument of another kind, such as a string for a number.
    """
    if not isinstance(name, str):
        raise TypeError(f"the image classifier must be a name, got {shown(name)}; known: {', '.join(SMALL)}")
    if isinstance(labels, list | tuple):
        names = check_class_names(labels)
    else:
        count = check_int("labels", labels, f"[1, {MANY}]", "or a list of the classes' names")
        names = [str(i) for i in range(count)]
    check_int("the number of labels", len(names), f"[1, {MANY}]")
    image_size = check_int("image_size", image_size, "[1, 16384]", "it is in pixels")
    num_channels = check_int("num_channels", num_channels, "[1, 1024]", "1 for grey images, 3 for colour")
    numbers = {name: number for number, name in enumerate(names)}
    known = {"num_labels": len(names), "id2label": dict(enumerate(names)), "label2id": numbers}
    if name in SMALL:
        if model_args:
            raise ValueError(f"{name!r} has no options, got {', '.join(model_args)}")
        shape = SMALL[name]
        config = SmallResNetConfig(shape.layers, shape.channels, num_channels, image_size=image_size, **known)
        return SmallResNetForImageClassification(config)
    if not timm.is_model(name):
        raise ValueError(f"unknown image classifier {name!r}; known: {', '.join(SMALL)}, timm.list_models()")
    sized = timm.get_pretrained_cfg(name)
    if sized is not None and sized.fixed_input_size and sized.input_size[-1] != image_size:
        model_args = {"img_size": image_size, **model_args}
    config = TimmWrapperConfig(
        architecture=name, model_args={"in_chans": num_channels, **model_args}, image_size=image_size, **known
    )
    try:
        return TimmWrapperForImageClassification(config)
    except Exception as error:  # whatever any of timm's networks raises for options that it does not take
        options = {"labels": len(names), "image_size": image_size, **config.model_args}
        raise ValueError(f"timm makes no {name} of {shown(options)}: {error}") from error
