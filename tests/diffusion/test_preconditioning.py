"""Scalings at known values, and the denoiser on real networks of diffusers."""

import math

import pytest
import torch
from diffusers import UNet2DModel
from hypothesis import given
from hypothesis import strategies as st

from hf_noise.diffusion.preconditioning import SIGMA_DATA, Denoiser, scalings
from hf_noise.losses import edm_weight


def tiny_unet(**options):
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1,
        norm_num_groups=4, down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        **options,
    ).eval()  # fmt: skip


def test_worked_values():
    """Of the specification, section 9.6."""
    c_skip, c_out, c_in, c_noise = scalings(torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(c_skip, torch.tensor([0.5, 0.2]))
    torch.testing.assert_close(c_out, torch.tensor([0.353553, 0.447214]), rtol=2e-6, atol=0)
    torch.testing.assert_close(c_in, torch.tensor([1.414214, 0.894427]), rtol=2e-6, atol=0)
    torch.testing.assert_close(c_noise, torch.tensor([-0.173287, 0.0]), rtol=2e-6, atol=1e-9)


@given(st.floats(1e-3, 1e3), st.floats(0.05, 5))
def test_unit_variance_in_and_out(sigma, sigma_data):
    """What equation 7 was made for: with variances sd^2 and sigma^2, input and target of F have variance 1."""
    c_skip, c_out, c_in, _ = scalings(torch.tensor(sigma, dtype=torch.float64), sigma_data)
    assert c_in.item() ** 2 * (sigma**2 + sigma_data**2) == pytest.approx(1)
    target = ((1 - c_skip) ** 2 * sigma_data**2 + c_skip**2 * sigma**2) / c_out**2  # of (x0 - c_skip x) / c_out
    assert target.item() == pytest.approx(1)


def test_the_loss_weighs_by_the_same_data():
    """lambda = 1 / c_out^2: losses and diffusion import nothing of each other, and each states sigma_data."""
    sigma = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    torch.testing.assert_close(edm_weight(sigma), scalings(sigma)[1] ** -2)


@pytest.mark.parametrize("classes", [None, 4])
def test_the_denoiser_is_its_formula(classes):
    unet = tiny_unet(num_class_embeds=classes)
    x, sigma = torch.randn(3, 1, 8, 8), torch.tensor([0.01, 1.0, 80.0])
    labels = None if classes is None else torch.tensor([0, 1, 3])
    with torch.no_grad():
        denoised = Denoiser(unet)(x, sigma, labels)
        for i, s in enumerate(sigma.tolist()):
            total = s**2 + SIGMA_DATA**2
            label = None if labels is None else labels[i : i + 1]
            raw = unet(x[i : i + 1] / total**0.5, torch.tensor(s).log() / 4, label).sample
            expected = SIGMA_DATA**2 / total * x[i : i + 1] + s * SIGMA_DATA / total**0.5 * raw
            torch.testing.assert_close(denoised[i : i + 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", ["autocast", "bf16 weights"])
def test_low_precision_ends_inside(way):
    """At small sigma, D is x to within c_out of it; bfloat16 alone would be off by 0.004 of x."""
    unet = tiny_unet()
    x, sigma = torch.randn(2, 1, 8, 8), torch.full((2,), 1e-3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        denoised = Denoiser(unet if way == "autocast" else unet.bfloat16())(x, sigma)
    full = Denoiser(tiny_unet())(x, sigma)
    assert denoised.dtype == torch.float32
    torch.testing.assert_close(denoised, full, rtol=0, atol=1e-4)


@pytest.mark.parametrize("wrong", [0, -1.0, math.nan, math.inf, 10**400])
def test_sigma_data_must_be_positive(wrong):
    for call in (lambda: Denoiser(tiny_unet(), sigma_data=wrong), lambda: scalings(torch.ones(1), wrong)):
        with pytest.raises(ValueError, match=r"sigma_data must lie in \[1e-18, 1e18\], got"):
            call()


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"x": torch.zeros(3, 8, 8)}, ValueError, r"shape \[B, 1, H, W\] and sigma \[B\], got \[3, 8, 8\] and \[2\]"),
        ({"sigma": torch.tensor(1.0)}, ValueError, r"got \[2, 1, 8, 8\] and \[\]"),
        ({"class_labels": torch.zeros(1, dtype=torch.int64)}, ValueError, r"must have the shape \[2\], got \[1\]"),
        ({"x": torch.zeros(2, 1, 8, 8, dtype=torch.uint8)}, TypeError, "x must be a tensor of floating-point .*uint8"),
        ({"x": torch.zeros(2, 1, 8, 8).half()}, TypeError, "x must be float32 or float64, got torch.float16"),
        ({"sigma": [1.0, 2.0]}, TypeError, "sigma must be a tensor of floating-point numbers, .*got list"),
        ({"sigma": torch.ones(2, dtype=torch.complex64)}, TypeError, "got torch.complex64"),
        ({"class_labels": [0, 1]}, TypeError, r"class_labels must be a tensor of int64 \[B\], got list"),
        ({"class_labels": torch.zeros(2)}, TypeError, "got torch.float32"),
    ],
)
def test_kinds_and_shapes_of_the_denoiser(changed, error, message):
    given = {"x": torch.zeros(2, 1, 8, 8), "sigma": torch.ones(2), "class_labels": torch.zeros(2, dtype=torch.int64)}
    with pytest.raises(error, match=message):
        Denoiser(tiny_unet(num_class_embeds=2))(**(given | changed))
