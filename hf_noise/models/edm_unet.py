"""The EDM U-Net by name: diffusers' stock `UNet2DModel`, so that a checkpoint needs nothing of ours to be loaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import UNet2DModel

__all__ = ["EDM_UNETS", "UNetShape", "edm_unet"]

# Factor on the output layer's first weights: an untrained network answers almost 0, so that its loss is about 1.
_SMALL = 1e-5


@dataclass(frozen=True)
class UNetShape:
    """Channels of each level, from the full image to its smallest version, and residual blocks in each.

    Self-attention, with one head, stands behind every block at the sizes in `attention`, in pixels. Only networks with
    a `middle` have the two blocks and the attention between encoder and decoder.
    """

    channels: tuple[int, ...]
    layers: int
    attention: tuple[int, ...] = ()
    middle: bool = True


EDM_UNETS: dict[str, UNetShape] = {
    # 15,727,747 weights for 32 x 32 colour images of 10 classes: the 15.7 M of paper A, which gives no widths.
    "edm-cifar": UNetShape((64, 128, 256), layers=2, attention=(8,)),
    # 59.0 M for the same images: paper C's DDPM++ of 55.7 M, as near as diffusers' blocks come to it.
    "edm-ddpmpp": UNetShape((256, 256, 256), layers=4, attention=(16,)),
    # 1.81 M for the same images, for tests of a setting on a small machine.
    "edm-small": UNetShape((32, 64, 96), layers=1, attention=(8,)),
    # 1.81 M for 32 x 32 grey images; MNIST is padded to this size, as in paper C.
    "edm-mnist": UNetShape((32, 64, 96), layers=1, attention=(8,)),
    # 0.27 M for 8 x 8 grey images.
    "edm-digits": UNetShape((24, 48), layers=1, middle=False),
}


def edm_unet(
    name: str, *, num_classes: int, image_size: int, num_channels: int, dropout: float = 0.0
) -> UNet2DModel:
    """The raw network F(c_in x, c_noise, class) of EDM's preconditioning with fresh weights; see `EDM_UNETS`.

    It is told the noise level as c_noise = ln(sigma) / 4, in [-1.6, 1.1] for the sampler's sigmas, through sines and
    cosines of frequencies 1 to 1/10000 including both ends, as EDM's own network is. (diffusers' "fourier" embedding
    takes a logarithm of what it is told, which may be negative here.) Group norms have 32 groups, or a quarter of the
    first level's channels if that is less, and eps 1e-6.

    Args:
        name: a key of `EDM_UNETS`.
        num_classes: K >= 1; the network has K + 1 class embeddings, the last one for images without a class.
        image_size: height and width in pixels, divisible by 2 for each level but the first.
        num_channels: 1 for grey images, 3 for colour.
        dropout: in [0, 1), inside the residual blocks.

    Raises:
        ValueError: an unknown name, or a number outside its range.

    Source: Karras et al. 2022 (DDPM++ network, appendix F.2); paper A, section 4.3 of the specification, for the size.
    """
    if name not in EDM_UNETS:
        raise ValueError(f"unknown EDM network {name!r}; known: {', '.join(EDM_UNETS)}")
    shape = EDM_UNETS[name]
    if num_classes < 1:
        raise ValueError(f"num_classes must be >= 1, got {num_classes}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
    smallest = 2 ** (len(shape.channels) - 1)
    if image_size < smallest or image_size % smallest:
        raise ValueError(f"{name} halves images {len(shape.channels) - 1} times, got {image_size} pixels; pad them to "
                         f"a multiple of {smallest}")  # fmt: skip
    attends = [image_size >> level in shape.attention for level in range(len(shape.channels))]
    unet = UNet2DModel(
        sample_size=image_size, in_channels=num_channels, out_channels=num_channels,
        block_out_channels=shape.channels, layers_per_block=shape.layers,
        down_block_types=tuple("AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
        mid_block_type="UNetMidBlock2D" if shape.middle else None,
        up_block_types=tuple("AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
        attention_head_dim=None, norm_num_groups=min(32, shape.channels[0] // 4), norm_eps=1e-6, freq_shift=1,
        dropout=dropout, num_class_embeds=num_classes + 1,
    )  # fmt: skip
    with torch.no_grad():
        unet.conv_out.weight.mul_(_SMALL)
        unet.conv_out.bias.zero_()
    return unet
