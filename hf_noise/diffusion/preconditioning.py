"""EDM's preconditioning (Karras et al. 2022, equation 7 and table 1): a network's raw output turned into a denoiser.

    D(x, sigma, class) = c_skip x + c_out F(c_in x, c_noise, class)

The network F always sees inputs of unit variance and is asked for outputs of unit variance, at every sigma. Training
and sampling use these same functions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SIGMA_DATA", "Denoiser", "scalings"]

#: Standard deviation of image data in [-1, 1], as EDM and papers A and C assume it.
SIGMA_DATA = 0.5


def scalings(sigma: Tensor, sigma_data: float = SIGMA_DATA) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(c_skip, c_out, c_in, c_noise), each of the shape and dtype of sigma (float, > 0).

    c_skip = sigma_data^2 / (sigma^2 + sigma_data^2), c_out = sigma sigma_data / sqrt(sigma^2 + sigma_data^2),
    c_in = 1 / sqrt(sigma^2 + sigma_data^2), c_noise = ln(sigma) / 4.

    Source: Karras et al. 2022, table 1.
    """
    total = sigma.square() + sigma_data**2  # the variance of x
    c_in = total.rsqrt()
    return sigma_data**2 / total, sigma * sigma_data * c_in, c_in, sigma.log() / 4


class Denoiser(nn.Module):
    """The denoiser D of a diffusers `UNet2DModel`, or of any network that is called in its way.

    Args:
        unet: F(sample [B, C, H, W], timestep [B], class_labels [B] or None, return_dict=False) -> ([B, C, H, W],).
        sigma_data: standard deviation of the data, > 0.

    Raises:
        ValueError: sigma_data is not positive.
    """

    def __init__(self, unet: nn.Module, sigma_data: float = SIGMA_DATA):
        super().__init__()
        if not sigma_data > 0:
            raise ValueError(f"sigma_data must be > 0, got {sigma_data}; it is the standard deviation of the images")
        self.unet = unet
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The estimate of the clean image, float32 [B, C, H, W] (float64 for a float64 x).

        Args:
            x: noisy images x0 + sigma n, [B, C, H, W], float32 or float64.
            sigma: noise level of each image, [B], > 0.
            class_labels: int64 [B], or None for a network without classes.
        """
        c_skip, c_out, c_in, c_noise = scalings(sigma.to(x.dtype), self.sigma_data)
        c_skip, c_out, c_in = (c[:, None, None, None] for c in (c_skip, c_out, c_in))
        # The network may hold weights of another precision, or run under autocast; neither goes beyond this call: at
        # small sigma the clean image is the small difference between x and its noise.
        dtype = next((p.dtype for p in self.unet.parameters()), x.dtype)
        raw = self.unet((c_in * x).to(dtype), c_noise, class_labels, return_dict=False)[0]
        return torch.addcmul(c_skip * x, c_out, raw.to(x.dtype))
