"""A network that is exact for Gaussian data: its samples, and those of each solver, are known in closed form."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from hf_noise.diffusion.preconditioning import scalings


class GaussianNet(ModelMixin, ConfigMixin):
    """The raw network F of pixels that are N(mean[class], std^2), as a UNet2DModel is called."""

    @register_to_config
    def __init__(self, std=0.5, means=(0.0,), has_classes=False, sample_size=4, in_channels=1, sigma_data=0.5):
        super().__init__()
        self.register_to_config(num_class_embeds=len(means) if has_classes else None)
        self.anchor = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.calls = []  # (sigma, x) that the network was shown

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        sigma = (4 * timestep.double()).exp()
        c_skip, c_out, c_in, _ = scalings(sigma, self.config.sigma_data)
        x = sample.double() / c_in
        self.calls.append((sigma.item(), x))
        means = torch.tensor(self.config.means, dtype=torch.float64)
        mean = means[0] if class_labels is None else means[class_labels][:, None, None, None]
        raw = (self.denoised(x, sigma, mean) - c_skip * x) / c_out
        return (raw.to(sample.dtype),)

    def denoised(self, x, sigma, mean):
        """E[x0 | x], x0 ~ N(mean, std^2)."""
        variance = self.config.std**2
        return (variance * x + sigma**2 * mean) / (variance + sigma**2)

    def flowed(self, x, sigma, mean=0.0):
        """Where the exact probability flow carries x from sigma to 0."""
        std = self.config.std
        return mean + (x - mean) * std / (std**2 + sigma**2) ** 0.5
