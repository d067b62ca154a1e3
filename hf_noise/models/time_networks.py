"""Networks of the classifiers of noisy images: features of x_t, to which the noise level adds in every channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor, nn

from hf_noise.models.resnet import small_resnet

__all__ = ["ARCHITECTURES", "EMBEDDING", "FREQUENCIES", "network"]

#: Sines and cosines of the noise level, their frequencies geometric from 1 to 1/10000; width of their embedding.
FREQUENCIES, EMBEDDING = 128, 512

#: Convolutions of the small networks: (channels, kernel, pooling) each.
CONVOLUTIONS = {
    "cnn-digits": ((32, 3, 1), (64, 3, 2), (64, 3, 1)),  # for 8 x 8
    "cnn-mnist": ((16, 5, 2), (32, 5, 2)),  # paper C's for 32 x 32: 2048 features
}
#: Residual blocks per stage of paper C's networks for CIFAR-10 and CIFAR-100.
RESNETS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
ARCHITECTURES = (*CONVOLUTIONS, *RESNETS, "unet-encoder")

_WIDTHS = (64, 128, 256, 512)
#: Pixels of the largest images of the small networks, whose head has weights for each pixel.
_LARGEST = 256


def network(config: Any) -> nn.Module:
    """The network, embedded noise level [B, EMBEDDING] and images -> logits, of a classifier's configuration."""
    name = config.architecture
    if name in CONVOLUTIONS:
        return _ConvNet(config.num_channels, config.image_size, config.num_classes, CONVOLUTIONS[name])
    if name in RESNETS:
        return _ResNet(config.num_channels, config.num_classes, RESNETS[name])
    if name == "unet-encoder":
        return _UNetEncoder(config)
    raise ValueError(f"unknown architecture {name!r}; known: {', '.join(ARCHITECTURES)}")


def _added(maps: Tensor, bias: Tensor) -> Tensor:
    """Maps [B, channels, H, W] plus one number [B, channels] for each."""
    return maps + bias[:, :, None, None]


class _ConvNet(nn.Module):
    """Convolutions with ReLU and pooling, after each what the noise level adds to every channel."""

    def __init__(self, num_channels: int, size: int, num_classes: int, convolutions: Sequence[tuple[int, int, int]]):
        super().__init__()
        if size > _LARGEST:
            raise ValueError(f"the small networks take images of up to {_LARGEST} pixels, got {size}; take a resnet")
        widths = [width for width, _, _ in convolutions]
        self.pooling = [pool for _, _, pool in convolutions]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, width, kernel, padding=kernel // 2)
            for before, (width, kernel, _) in zip([num_channels, *widths], convolutions)
        )
        self.biases = nn.ModuleList(nn.Linear(EMBEDDING, width) for width in widths)
        for pool in self.pooling:
            if size % pool:
                raise ValueError(f"images of {size} pixels cannot be halved {self.pooling.count(2)} times; pad them")
            size //= pool
        self.head = nn.Linear(widths[-1] * size**2, num_classes)

    def forward(self, images: Tensor, embedded: Tensor) -> Tensor:
        maps, embedded = images, F.silu(embedded)
        for convolution, bias, pool in zip(self.convolutions, self.biases, self.pooling):
            maps = F.max_pool2d(F.relu(convolution(maps)), pool)
            maps = _added(maps, bias(embedded))
        return self.head(maps.flatten(1))


class _ResNet(nn.Module):
    """timm's ResNet with the CIFAR stem, after each stage what the noise level adds to every channel."""

    def __init__(self, num_channels: int, num_classes: int, layers: Sequence[int]):
        super().__init__()
        self.resnet = small_resnet(layers, _WIDTHS, num_channels, num_classes)
        self.biases = nn.ModuleList(nn.Linear(EMBEDDING, width) for width in _WIDTHS)

    def forward(self, images: Tensor, embedded: Tensor) -> Tensor:
        net, embedded = self.resnet, F.silu(embedded)
        maps = net.maxpool(net.act1(net.bn1(net.conv1(images))))
        for stage, bias in zip((net.layer1, net.layer2, net.layer3, net.layer4), self.biases):
            maps = _added(stage(maps), bias(embedded))
        return net.forward_head(maps)


class _UNetEncoder(nn.Module):
    """Down blocks and middle block of a diffusers U-Net, the mean over all pixels, one linear layer."""

    def __init__(self, config: Any):
        super().__init__()
        widths, size = tuple(config.block_out_channels), config.image_size
        if size % 2 ** (len(widths) - 1):
            raise ValueError(f"images of {size} pixels cannot be halved {len(widths) - 1} times; give fewer blocks")
        groups = min(32, widths[0] // 4)
        if any(width % groups for width in widths):
            raise ValueError(f"block_out_channels must be multiples of {groups}, the number of groups that are "
                             f"normalised together, got {list(widths)}")  # fmt: skip
        attends = [size >> level in tuple(config.attention_resolutions) for level in range(len(widths))]
        unet = UNet2DModel(
            sample_size=size, in_channels=config.num_channels, out_channels=config.num_channels,
            block_out_channels=widths, layers_per_block=config.layers_per_block, time_embedding_dim=EMBEDDING,
            down_block_types=tuple("AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
            up_block_types=("UpBlock2D",) * len(widths), attention_head_dim=None,
            norm_num_groups=groups, norm_eps=1e-6,
        )  # fmt: skip
        self.conv_in, self.down_blocks, self.mid_block = unet.conv_in, unet.down_blocks, unet.mid_block
        self.norm = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.head = nn.Linear(widths[-1], config.num_classes)

    def forward(self, images: Tensor, embedded: Tensor) -> Tensor:
        maps = self.conv_in(images)
        for block in self.down_blocks:
            maps, _ = block(maps, temb=embedded)
        maps = F.silu(self.norm(self.mid_block(maps, embedded)))
        return self.head(maps.mean((2, 3)))
