"""The EDM U-Nets by name: their sizes, what they are told, and that a checkpoint is diffusers' own."""

import json

import pytest
import torch
from diffusers import UNet2DModel

from hf_noise.models.edm_unet import EDM_UNETS, edm_unet

SHAPES = {"edm-cifar": (32, 3), "edm-ddpmpp": (32, 3), "edm-small": (32, 3), "edm-mnist": (32, 1), "edm-digits": (8, 1)}
COUNTS = {
    "edm-cifar": 15_727_747, "edm-ddpmpp": 59_024_643, "edm-small": 1_807_683, "edm-mnist": 1_806_529,
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
    attends = [block for block in unet.config.down_block_types if block.startswith("Attn")]
    assert len(attends) == (3 - 2 if name != "edm-ddpmpp" else 1) * (name != "edm-digits")
    assert unet.config.down_block_types[::-1] == tuple(
        block.replace("Up", "Down") for block in unet.config.up_block_types
    )


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
        ("edm-imagenet", {}, "unknown EDM network 'edm-imagenet'; known: edm-cifar"),
        ("edm-digits", {"num_classes": 0}, "num_classes must be >= 1, got 0"),
        ("edm-digits", {"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ("edm-cifar", {"image_size": 30}, "halves images 2 times, got 30 pixels; pad them to a multiple of 4"),
    ],
)
def test_refusals(name, options, message):
    with pytest.raises(ValueError, match=message):
        edm_unet(name, **{"num_classes": 10, "image_size": 8, "num_channels": 1, **options})
