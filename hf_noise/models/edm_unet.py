"""The EDM U-Net by name: diffusers' stock `UNet2DModel`, so that a checkpoint needs nothing of ours to be loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from hf_noise.models.checks import MANY, check_int, check_name, check_number

__all__ = ["EDM_UNETS", "UNetShape", "edm_unet"]

# Factor on the first weights of a layer that ends a branch: an untrained network answers almost 0, so that its loss is
# about 1, and an untrained branch of SongUNet adds almost nothing to what goes past it.
_SMALL = 1e-5


@dataclass(frozen=True)
class UNetShape:
    """Channels of each level, from the full image to its smallest version, and residual blocks in each.

    Self-attention, with one head, stands behind every block at the sizes in `attention`, in pixels. Only networks with
    a `middle` have the two blocks and the attention between encoder and decoder. `song_unet`: built and begun as EDM's
    SongUNet (DDPM++) as far as diffusers has its parts; see `edm_unet`.
    """

    channels: tuple[int, ...]
    layers: int
    attention: tuple[int, ...] = ()
    middle: bool = True
    song_unet: bool = False


EDM_UNETS: dict[str, UNetShape] = {
    # 15,727,747 weights for 32 x 32 colour images of 10 classes: the 15.7 M of paper A, which gives no widths.
    "edm-cifar": UNetShape((64, 128, 256), layers=2, attention=(8,)),
    # 55,870,723 for the same images: paper C's DDPM++ has 55.74 M.
    "edm-ddpmpp": UNetShape((256, 256, 256), layers=4, attention=(16,), song_unet=True),
    # 1.81 M for the same images, for tests of a setting on a small machine.
    "edm-small": UNetShape((32, 64, 96), layers=1, attention=(8,)),
    # 1,568,129 for 32 x 32 grey images, to which MNIST is padded: paper C's has 1.56 M.
    "edm-mnist": UNetShape((64, 64, 64), layers=1, attention=(16,), song_unet=True),
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

    The networks of paper C ("edm-ddpmpp", "edm-mnist") have SongUNet's residual blocks, 33 and 15 of them, its
    resampling inside such blocks, its embedding of twice the channels and its attention in encoder and middle. They
    begin as it does: weights Xavier-uniform, biases 0, the last convolution of each block, the projection of each
    attention and the output layer times 1e-5. What it has and a stock `UNet2DModel` cannot have:

    - the factor sqrt(1/2) on the sum of a block and its shortcut: here only in the middle, by `mid_block_scale_factor`;
    - a 1x1 convolution in the shortcut of blocks that resample: here what goes past them is resampled and no more;
    - attention behind the last of the decoder's blocks of 16 x 16: diffusers has it behind all or none, here none;
    - a first convolution that makes half of the first level's channels, and half as many sines and cosines;
    - the class before the two layers of the embedding: here it is added behind them. Its table begins as the weights
      of SongUNet's label layer do, Xavier-uniform times the square root of the number of classes;
    - a number of groups for each group norm: here 16 in all of "edm-mnist", there 32 where 128 channels come together.

    (diffusers' blocks with "Skip" in their names have that factor, but filter with (1, 3, 3, 1) and carry a small image
    of three channels along: that is NCSN++.) The other networks begin as those of diffusers do, but for the output
    layer; the records in `benchmarks/results` were made with "edm-digits" and "edm-small" as they are.

    Args:
        name: a key of `EDM_UNETS`.
        num_classes: K >= 1; the network has K + 1 class embeddings, the last one for images without a class.
            (A pipeline is told: `EDMPipeline(unet, scheduler, num_classes=K)`, with `has_unconditional=True` if it was
            trained; by itself it takes all embeddings for classes.)
        image_size: height and width in pixels, divisible by 2 for each level but the first.
        num_channels: 1 for grey images, 3 for colour.
        dropout: in [0, 1), inside the residual blocks.

    Raises:
        ValueError: an unknown name, or a number outside its range.
        TypeError: what should be a number or a name is none.

    Source: Karras et al. 2022 (DDPM++ network, appendix F.2); paper A, section 4.3 of the specification, for the size.
    """
    check_name("the EDM network", name, EDM_UNETS)
    shape = EDM_UNETS[name]
    num_classes = check_int("num_classes", num_classes, f"[1, {MANY}]")
    num_channels = check_int("num_channels", num_channels, "[1, 1024]", "1 for grey images, 3 for colour")
    dropout = check_number("dropout", dropout, "[0, 1)")
    smallest = 2 ** (len(shape.channels) - 1)
    image_size = check_int("image_size", image_size, f"[{smallest}, 16384]", "it is in pixels")
    if image_size % smallest:
        raise ValueError(f"{name} halves images {len(shape.channels) - 1} times, got {image_size} pixels; pad them to "
                         f"a multiple of {smallest}")  # fmt: skip
    attends = [image_size >> level in shape.attention for level in range(len(shape.channels))]
    down, up, up_attends, of_song = "DownBlock2D", "UpBlock2D", "AttnUpBlock2D", {}
    if shape.song_unet:
        down, up, up_attends = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"
        of_song = dict(
            time_embedding_dim=2 * shape.channels[0], downsample_type="resnet", upsample_type="resnet",
            mid_block_scale_factor=math.sqrt(2),
        )  # fmt: skip
    unet = UNet2DModel(
        sample_size=image_size, in_channels=num_channels, out_channels=num_channels,
        block_out_channels=shape.channels, layers_per_block=shape.layers,
        down_block_types=tuple("AttnDownBlock2D" if attend else down for attend in attends),
        mid_block_type="UNetMidBlock2D" if shape.middle else None,
        up_block_types=tuple(up_attends if attend else up for attend in reversed(attends)),
        attention_head_dim=None, norm_num_groups=min(32, shape.channels[0] // 4), norm_eps=1e-6, freq_shift=1,
        dropout=dropout, num_class_embeds=num_classes + 1, **of_song,
    )  # fmt: skip
    with torch.no_grad():
        if shape.song_unet:
            _begin_as_song_unet(unet)
        unet.conv_out.weight.mul_(_SMALL)
        unet.conv_out.bias.zero_()
    return unet


def _begin_as_song_unet(unet: UNet2DModel) -> None:
    """Draw all weights anew as EDM's SongUNet does; all but the output layer's factor."""
    for module in unet.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D):
            module.conv2.weight.mul_(_SMALL)
        elif isinstance(module, Attention):
            module.to_out[0].weight.mul_(_SMALL)
            # There it is one layer from C to 3 C channels times sqrt(1/5), which has half the variance of three.
            for layer in (module.to_q, module.to_k, module.to_v):
                layer.weight.mul_(math.sqrt(1 / 10))
    nn.init.xavier_uniform_(unet.class_embedding.weight, gain=math.sqrt(unet.class_embedding.num_embeddings))
