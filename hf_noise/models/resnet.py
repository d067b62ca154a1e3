"""timm's ResNet behind the CIFAR stem, for images of a few pixels."""

from __future__ import annotations

from collections.abc import Sequence

from timm.models.resnet import BasicBlock, ResNet
from torch import nn

__all__ = ["small_resnet"]


def small_resnet(layers: Sequence[int], channels: Sequence[int], num_channels: int, num_classes: int) -> ResNet:
    """A freshly initialised network with a 3x3 stem of stride 1 and no max-pool; seed torch before the call.

    Args:
        layers, channels: residual blocks in each of four stages, and their channels.
        num_channels: of the images.
        num_classes: width of the head.
    """
    width = channels[0]
    # Of timm's stems, the deep one alone hands on another number of channels than 64; it is replaced at once.
    network = ResNet(
        BasicBlock, tuple(layers), num_classes=num_classes, in_chans=num_channels, stem_type="deep",
        stem_width=width // 2, channels=tuple(channels), zero_init_last=False,
    )  # fmt: skip
    network.conv1 = nn.Conv2d(num_channels, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network
