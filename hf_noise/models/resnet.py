"""timm's ResNet behind the CIFAR stem, for images of a few pixels."""

from __future__ import annotations

from collections.abc import Sequence

from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from hf_noise.models.checks import MANY, check_int, check_sizes

__all__ = ["small_resnet"]


def small_resnet(layers: Sequence[int], channels: Sequence[int], num_channels: int, num_classes: int) -> ResNet:
    """A freshly initialised network with a 3x3 stem of stride 1 and no max-pool; seed torch before the call.

    Args:
        layers, channels: residual blocks in each of four stages, and their channels, of the first an even number.
        num_channels: of the images.
        num_classes: width of the head.

    Raises:
        ValueError, TypeError: a number is outside its range, or none.
    """
    layers = check_sizes("layers", layers, "[1, 1024]")
    channels = check_sizes("channels", channels, "[1, 65536]")
    if len(layers) != 4 or len(channels) != 4:
        raise ValueError(f"layers and channels must be of four stages, got {list(layers)} and {list(channels)}")
    num_channels = check_int("num_channels", num_channels, "[1, 1024]", "1 for grey images, 3 for colour")
    num_classes = check_int("num_classes", num_classes, f"[1, {MANY}]")
    width = channels[0]
    if width % 2:
        raise ValueError(f"channels of the first stage must be even, got {width}")
    # Of timm's stems, the deep one alone hands on another number of channels than 64; it is replaced at once.
    network = ResNet(
        BasicBlock, layers, num_classes=num_classes, in_chans=num_channels, stem_type="deep",
        stem_width=width // 2, channels=channels, zero_init_last=False,
    )  # fmt: skip
    network.conv1 = nn.Conv2d(num_channels, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network
