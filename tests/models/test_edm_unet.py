"""The EDM U-Nets by name: their sizes, how they begin, what they are told, and that a checkpoint is diffusers' own."""

import json
import math

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from hf_noise.models.edm_unet import EDM_UNETS, edm_unet

SHAPES = {"edm-cifar": (32, 3), "edm-ddpmpp": (32, 3), "edm-small": (32, 3), "edm-mnist": (32, 1), "edm-digits": (8, 1)}
COUNTS = {
    "edm-cifar": 15_727_747, "edm-ddpmpp": 55_870_723, "edm-small": 1_807_683, "edm-mnist": 1_568_129,
    "edm-digits": 265_849,
}  # fmt: skip


def network(name="edm-digits", **options):
    size, channels = SHAPES[name]
    return edm_unet(name, **{"num_classes": 10, "image_size": size, "num_channels": channels, **options})


@pytest.mark.parametrize("name", EDM_UNETS)
def test_sizes_that_are_stated(name):
    with torch.device("meta"):
        unet = network(name)
    assert sum(p.numel() for p in unet.parameters()) == COUNTS[name]
    down, up = unet.config.down_block_types, unet.config.up_block_types
    assert sum(block.startswith("Attn") for block in down) == (name != "edm-digits")
    if not EDM_UNETS[name].song_unet:
        assert down[::-1] == tuple(block.replace("Up", "Down") for block in up)


def song_unet(base, blocks, channels, classes=10, levels=3, size=32, attention=16):
    """(weights, residual blocks, attentions) of EDM's SongUNet, channels 2 * base at all levels, of the specification's
    section 9.6: what the networks of paper C are compared to."""
    width, embedding = 2 * base, 4 * base
    counted = {"weights": 0, "blocks": 0, "attentions": 0}

    def convolution(before, after, kernel):
        return before * after * kernel**2 + after

    def block(before, after, resamples=False, attends=False):
        counted["blocks"] += 1
        counted["attentions"] += attends
        counted["weights"] += 2 * before + convolution(before, after, 3) + embedding * after + after
        counted["weights"] += 2 * after + convolution(after, after, 3)
        counted["weights"] += convolution(before, after, 1) * (before != after or resamples)
        counted["weights"] += (2 * after + convolution(after, 3 * after, 1) + convolution(after, after, 1)) * attends

    counted["weights"] += (classes + 9) * base  # of label and augmentation
    counted["weights"] += (base + 1) * embedding + (embedding + 1) * embedding + convolution(channels, base, 3)
    now, skips = base, [base]
    for level in range(levels):
        if level:
            block(width, width, resamples=True)
            skips.append(width)
        for _ in range(blocks):
            block(now, width, attends=size >> level == attention)
            now = width
            skips.append(width)
    for level in reversed(range(levels)):
        if level == levels - 1:
            block(width, width, attends=True)
            block(width, width)
        else:
            block(width, width, resamples=True)
        for last in [False] * blocks + [True]:
            block(width + skips.pop(), width, attends=last and size >> level == attention)
    counted["weights"] += 2 * width + convolution(width, channels, 3)
    return tuple(counted.values())


@pytest.mark.parametrize(
    ("name", "base", "blocks", "stated"), [("edm-ddpmpp", 128, 4, 55.735e6), ("edm-mnist", 32, 1, 1.559e6)]
)
def test_the_networks_of_paper_c_differ_from_song_unet_by_what_is_stated(name, base, blocks, stated):
    channels, width, embedding = SHAPES[name][1], 2 * base, 4 * base
    weights, resnets, attentions = song_unet(base, blocks, channels)
    assert weights == pytest.approx(stated, abs=500)  # the paper's figure in thousands: the twin counts the right net
    with torch.device("meta"):
        unet = network(name)
    assert sum(isinstance(module, ResnetBlock2D) for module in unet.modules()) == resnets == 9 + 6 * blocks
    assert sum(isinstance(module, Attention) for module in unet.modules()) == attentions - 1
    first_level = (
        9 * channels * base + base  # convolution of the image
        + 2 * 9 * base * width + 4 * base  # first block of the encoder, last of the decoder: 3x3 and group norm
        - (base * width + width) + base * width  # 1x1 shortcuts: none, and one of more channels
        + base * embedding  # more sines and cosines
    )  # fmt: skip
    attention = 2 * width + 4 * (width**2 + width)
    label = 11 * embedding - (10 + 9) * base
    assert COUNTS[name] - weights == first_level - attention - 4 * (width**2 + width) + label
    assert abs(COUNTS[name] / weights - 1) < 0.006


@pytest.mark.parametrize("name", EDM_UNETS)
def test_how_they_begin(name):
    """Standard deviations of n >= 4,096 uniform draws are known to sqrt(0.2 / n) = 0.7 %, and 5 % are 7 times that."""
    torch.manual_seed(0)
    unet = network(name)
    is_song = name in ("edm-ddpmpp", "edm-mnist")
    ends = [module.conv2 for module in unet.modules() if isinstance(module, ResnetBlock2D)]
    ends += [module.to_out[0] for module in unet.modules() if isinstance(module, Attention)]
    factors = {id(layer): 1e-5 for layer in [unet.conv_out, *ends] if is_song or layer is unet.conv_out}
    asked = [layer for m in unet.modules() if isinstance(m, Attention) for layer in (m.to_q, m.to_k, m.to_v)]
    factors |= {id(layer): math.sqrt(0.1) for layer in asked if is_song}
    for layer in unet.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.numel() >= 4096:
            ins, outs = (side * layer.weight[0, 0].numel() for side in layer.weight.shape[1::-1])
            expected = math.sqrt(2 / (ins + outs) if is_song else 1 / (3 * ins)) * factors.get(id(layer), 1)
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
        if is_song and hasattr(layer, "bias") and not isinstance(layer, nn.GroupNorm):
            assert layer.bias is None or not layer.bias.any()
    embedded = unet.class_embedding.weight
    assert embedded.std().item() == pytest.approx(
        math.sqrt(2 * len(embedded) / sum(embedded.shape)) if is_song else 1, rel=0.1
    )
    assert unet.config.mid_block_scale_factor == (math.sqrt(2) if is_song else 1)


def test_an_untrained_block_of_song_unet_hands_on_what_it_is_given():
    torch.manual_seed(0)
    block = network("edm-mnist").down_blocks[0].resnets[0]
    given = torch.randn(2, 64, 8, 8)
    torch.testing.assert_close(block(given, torch.randn(2, 128)), given, rtol=0, atol=1e-3)


def test_one_embedding_more_than_classes():
    assert network(num_classes=7).class_embedding.num_embeddings == 8


def test_the_output_depends_on_noise_level_and_class():
    """Between neighbours of the sampler's 18 levels, where ln(sigma) / 4 moves by 0.08 at least."""
    torch.manual_seed(0)
    unet = network()
    with torch.no_grad():
        unet.conv_out.weight.mul_(1e5)
        levels = (80 ** (1 / 7) + torch.arange(18) / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        image = torch.randn(1, 1, 8, 8).expand(18, -1, -1, -1)
        label = torch.zeros(18, dtype=torch.int64)
        by_level = unet(image, levels.log() / 4, label).sample
        by_class = unet(image[:11], torch.zeros(11), torch.arange(11)).sample
    size = by_level.std()
    assert ((by_level[1:] - by_level[:-1]).square().mean((1, 2, 3)).sqrt() > 1e-3 * size).all()
    assert (by_level[0] - by_level[-1]).square().mean().sqrt() > 0.05 * size
    assert (torch.pdist(by_class.flatten(1)) / 8 > 3e-3 * size).all()


def test_an_untrained_network_answers_almost_nothing():
    answer = network()(torch.randn(2, 1, 8, 8), torch.zeros(2), torch.arange(2)).sample
    assert answer.abs().max() < 1e-3


def test_a_checkpoint_is_a_stock_one(tmp_path):
    unet = network(dropout=0.1)
    unet.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["_class_name"] == "UNet2DModel" and config["dropout"] == 0.1
    again = UNet2DModel.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(unet.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("edm-imagenet", {}, "the EDM network must be one of 'edm-cifar', .*, got 'edm-imagenet'"),
        ("edm-digits", {"num_classes": 0}, r"num_classes must be a whole number in \[1, 131072\], got 0"),
        ("edm-digits", {"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ("edm-cifar", {"image_size": 30}, "halves images 2 times, got 30 pixels; pad them to a multiple of 4"),
    ],
)
def test_refusals(name, options, message):
    with pytest.raises(ValueError, match=message):
        edm_unet(name, **{"num_classes": 10, "image_size": 8, "num_channels": 1, **options})
