"""Denoising score matching: what a denoiser D(x, sigma, y) of noisy images is trained by.

The minimiser is the posterior mean D(x, sigma, y) = E[x0 | x0 + sigma n = x, y], and (D - x) / sigma^2 the score of the
noisy images (Karras et al., "Elucidating the design space of diffusion-based generative models", NeurIPS 2022). A
denoiser is any callable `D(x, sigma, class_labels)`: x [B, ...] = x0 + sigma n, sigma [B], class_labels int64 [B] or
None; it returns its estimate of x0, of the shape and precision of x.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["dsm_loss", "edm_weight"]

SIGMA_DATA = 0.5
#: EDM's noise levels in training: ln sigma ~ N(P_MEAN, P_STD^2).
P_MEAN, P_STD = -1.2, 1.2


def edm_weight(sigma: Tensor, sigma_data: float = SIGMA_DATA) -> Tensor:
    """Weight of a noise level, lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 = 1 / c_out^2.

    With it the network inside EDM's preconditioning has targets of variance one at every noise level. For sigma_data =
    0.5 it is 8 at sigma = 0.5 and 5 at 1.

    Args:
        sigma: float, any shape, > 0.
        sigma_data: standard deviation of the images, > 0.

    Returns:
        Tensor of the shape of `sigma`.

    Raises:
        ValueError: sigma_data <= 0.

    Source: Karras et al. 2022, table 1.
    """
    if not sigma_data > 0:
        raise ValueError(f"sigma_data must be > 0, got {sigma_data!r}; it is the standard deviation of the images")
    return (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()


def noisy_images(images: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """x = x0 + sigma n, [B, ...]; shapes are checked, values are not (a GPU would have to wait for that).

    Raises:
        ValueError: `images` have no axis beside B, `sigma` is not [B], or `noise` has another shape than `images`.
    """
    if images.ndim < 2:
        raise ValueError(f"images must be [B, ...] with an axis of pixels at least, got {list(images.shape)}")
    if sigma.shape != images.shape[:1] or noise.shape != images.shape:
        raise ValueError(
            f"images {list(images.shape)} need sigma {list(images.shape[:1])} and noise of their own shape, "
            f"got sigma {list(sigma.shape)} and noise {list(noise.shape)}"
        )
    return images + per_image(sigma, images) * noise


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """[B] -> [B, 1, ...], so that it multiplies whole images."""
    return values.reshape(-1, *[1] * (images.ndim - 1))


def weighted_error(denoised: Tensor, images: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """lambda(sigma) |D - x0|^2 / pixels, [B]."""
    return edm_weight(sigma, sigma_data) * (denoised - images).square().flatten(1).mean(1)


def dsm_loss(
    denoiser: Callable[..., Tensor],
    images: Tensor,
    sigma: Tensor,
    noise: Tensor,
    class_labels: Tensor | None,
    *,
    sigma_data: float = SIGMA_DATA,
    **conditioning: Tensor,
) -> Tensor:
    """Denoising score matching of each image: lambda(sigma) times the mean over pixels of (D(x0 + sigma n) - x0)^2.

    The mean over pixels, where EDM's code sums, makes losses of different image sizes comparable: the network that
    always answers 0 inside EDM's preconditioning, as one does before training, has a loss of about 1.

    Args:
        denoiser: D(x, sigma, class_labels, **conditioning).
        images: float [B, ...], x0, in [-1, 1]; one axis beside B at least.
        sigma: float [B], > 0; EDM draws ln sigma ~ N(-1.2, 1.2^2).
        noise: float, standard normal, of the shape of `images`.
        class_labels: int64 [B], or None for a denoiser without classes.
        sigma_data: standard deviation of the images, > 0.
        conditioning: what else the denoiser is told, each of leading dimension B, such as augmentation vectors.

    Returns:
        float [B]; its mean over a batch is the loss.

    Raises:
        ValueError: shapes do not agree, or sigma_data <= 0.

    Source: Karras et al. 2022, equations 2 and 3.
    """
    denoised = denoiser(noisy_images(images, sigma, noise), sigma, class_labels, **conditioning)
    return weighted_error(denoised, images, sigma, sigma_data)
