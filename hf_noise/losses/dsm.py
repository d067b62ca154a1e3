"""Denoising score matching: what a denoiser D(x, sigma, y) of noisy images is trained by.

The minimiser is the posterior mean D(x, sigma, y) = E[x0 | x0 + sigma n = x, y], and (D - x) / sigma^2 the score of the
noisy images (Karras et al., "Elucidating the design space of diffusion-based generative models", NeurIPS 2022). A
denoiser is any callable `D(x, sigma, class_labels)`: x [B, ...] = x0 + sigma n, sigma [B], class_labels int64 [B] or
None; it returns its estimate of x0, of the shape and precision of x.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from hf_noise.losses.checks import check_floats, check_integers, check_positive, check_real, check_tensor

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
        sigma_data: standard deviation of the images, in [1e-6, 1e6].

    Returns:
        Tensor of the shape of `sigma`.

    Raises:
        TypeError: sigma is no floating-point tensor, or sigma_data no number.
        ValueError: sigma_data is out of range, or, on a CPU, a sigma is <= 0.

    Source: Karras et al. 2022, table 1.
    """
    check_floats("sigma", sigma)
    check_positive("sigma", sigma)
    sigma_data = check_real("sigma_data", sigma_data, "[1e-6, 1e6]", "it is the standard deviation of the images")
    return (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()


def noisy_images(images: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """x = x0 + sigma n, [B, ...]; dtypes and shapes are checked, values are not (a GPU would have to wait for that).

    Raises:
        TypeError: one of them is no floating-point tensor.
        ValueError: `images` have no axis beside B or no pixels, `sigma` is not [B], or `noise` has another shape than
            `images`.
    """
    for name, values in (("images", images), ("sigma", sigma), ("noise", noise)):
        check_floats(name, values)
    if images.ndim < 2 or 0 in images.shape[1:]:
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


def denoised_by(
    denoiser: Callable[..., Tensor], x: Tensor, sigma: Tensor, labels: Tensor | None, told: dict[str, Tensor | None]
) -> Tensor:
    """D(x, sigma, labels, **told), or a ValueError unless it is real and of the shape of x: others would broadcast."""
    denoised = denoiser(x, sigma, labels, **told)
    if not isinstance(denoised, Tensor) or denoised.shape != x.shape or not denoised.is_floating_point():
        is_tensor = isinstance(denoised, Tensor)
        what = f"{list(denoised.shape)} of {denoised.dtype}" if is_tensor else type(denoised).__name__
        raise ValueError(f"the denoiser must return floating-point images {list(x.shape)}, as it was given, got {what}")
    return denoised


def check_told(denoiser: Callable[..., Tensor], told: dict[str, Tensor | None], batch: int) -> None:
    """Raise TypeError or ValueError unless the denoiser can be called and it is told tensors [B, ...] or None."""
    if not callable(denoiser):
        raise TypeError(f"denoiser must be a callable D(x, sigma, class_labels), got {denoiser!r:.80}")
    for name, values in told.items():
        if values is None:
            continue
        check_tensor(name, values)
        if values.ndim < 1 or len(values) != batch:
            raise ValueError(f"{name} must have the leading dimension {batch} of the images, got {list(values.shape)}")


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
        TypeError: an argument is of another type or dtype.
        ValueError: shapes do not agree, that of what the denoiser returns too; sigma_data is out of range; or, on a
            CPU, a sigma is <= 0.

    Source: Karras et al. 2022, equations 2 and 3.
    """
    x = noisy_images(images, sigma, noise)
    check_told(denoiser, conditioning, len(images))
    if class_labels is not None:
        class_labels = check_integers("class_labels", class_labels)
        if class_labels.shape != sigma.shape:
            raise ValueError(f"{len(images)} images need as many class_labels, got {list(class_labels.shape)}")
    denoised = denoised_by(denoiser, x, sigma, class_labels, conditioning)
    return weighted_error(denoised, images, sigma, sigma_data)
