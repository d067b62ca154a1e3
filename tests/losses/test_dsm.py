"""Denoising score matching: its weight, its value for known denoisers, its minimiser, what is refused."""

from __future__ import annotations

import pytest
import torch

from hf_noise.losses import dsm_loss, edm_weight


def random_images(n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images, noise = (torch.randn(n, 2, 3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return images, torch.rand(n, generator=generator, dtype=torch.float64) + 0.1, noise


def test_weight_is_that_of_the_paper():
    assert edm_weight(torch.tensor([0.5, 1.0])).tolist() == [8, 5]
    sigma = torch.tensor([0.3, 7.0])
    c_out = sigma * 0.7 / (sigma**2 + 0.7**2).sqrt()
    torch.testing.assert_close(edm_weight(sigma, 0.7), 1 / c_out**2)


def test_value_for_denoisers_worked_by_hand():
    images, noise = torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), 3.0)
    sigma = torch.tensor([0.5, 1.0])
    # x = 1 + 3 sigma. Of the answer x the error is (3 sigma)^2; of the answer 0 it is 1.
    torch.testing.assert_close(dsm_loss(lambda x, *_: x, images, sigma, noise, None), torch.tensor([18.0, 45.0]))
    torch.testing.assert_close(dsm_loss(lambda x, *_: 0 * x, images, sigma, noise, None), torch.tensor([8.0, 5.0]))


def test_an_untrained_network_in_edms_preconditioning_has_a_loss_of_about_one():
    """Images of standard deviation sigma_data; D = c_skip x has the error c_out^2 at every noise level."""
    generator = torch.Generator().manual_seed(0)
    images, noise = (torch.randn(400, 1, 10, 10, generator=generator) for _ in range(2))
    sigma = torch.exp(1.2 * torch.randn(400, generator=generator) - 1.2)

    def skip(x, sigma, labels):
        return (0.25 / (sigma**2 + 0.25)).view(-1, 1, 1, 1) * x

    # 40,000 squares of a standard normal: a standard error of sqrt(2 / 40,000) = 0.007.
    assert dsm_loss(skip, 0.5 * images, sigma, noise, None).mean().item() == pytest.approx(1, abs=0.03)


def test_each_image_has_its_own_loss_and_its_own_conditioning():
    images, sigma, noise = random_images()
    labels, told = torch.tensor([0, 3, 1, 2]), torch.arange(4.0, dtype=torch.float64)

    def denoiser(x, sigma, labels, augmentation):
        return (labels + augmentation * sigma).view(-1, 1, 1, 1) * x

    together = dsm_loss(denoiser, images, sigma, noise, labels, augmentation=told)
    alone = [
        dsm_loss(denoiser, images[[i]], sigma[[i]], noise[[i]], labels[[i]], augmentation=told[[i]]) for i in range(4)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.ones(4), "noise": torch.ones(4)}, r"with an axis of pixels at least, got \[4\]"),
        ({"sigma": torch.ones(3)}, r"sigma \[4\] .* got sigma \[3\]"),
        ({"sigma": torch.ones(4, 1)}, r"got sigma \[4, 1\]"),
        ({"noise": torch.ones(4, 2, 3, 1)}, r"noise \[4, 2, 3, 1\]"),
        ({"sigma_data": 0.0}, r"sigma_data must lie in \[1e-6, 1e6\], got 0.0"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    images, sigma, noise = random_images()
    arguments = {"images": images, "sigma": sigma, "noise": noise, "class_labels": None, **change}
    with pytest.raises(ValueError, match=message):
        dsm_loss(lambda x, *_: x, **arguments)
