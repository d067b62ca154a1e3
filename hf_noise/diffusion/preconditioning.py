"""EDM's preconditioning (Karras et al. 2022, equation 7 and table 1): a network's raw output turned into a denoiser.

    D(x, sigma, class) = c_skip x + c_out F(c_in x, c_noise, class)

The network F always sees inputs of unit variance and is asked for outputs of unit variance, at every sigma. Training
and sampling use these same functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hf_noise.diffusion.ranges import check_sigma
from hf_noise.models.checks import check_floats

__all__ = ["SIGMA_DATA", "Denoiser", "scalings"]

#: Standard deviation of image data in [-1, 1], as EDM and papers A and C assume it.
SIGMA_DATA = 0.5


def scalings(sigma: Tensor, sigma_data: float = SIGMA_DATA) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(c_skip, c_out, c_in, c_noise), each of the shape and dtype of sigma (float, > 0).

    c_skip = sigma_data^2 / (sigma^2 + sigma_data^2), c_out = sigma sigma_data / sqrt(sigma^2 + sigma_data^2),
    c_in = 1 / sqrt(sigma^2 + sigma_data^2), c_noise = ln(sigma) / 4.

    Raises:
        ValueError: sigma_data lies outside [1e-18, 1e18]. Values of sigma are not read.
        TypeError: sigma is no tensor of floating-point numbers, or sigma_data no number.

    Source: Karras et al. 2022, table 1.
    """
    check_floats("sigma", sigma, "the noise level of each image")
    sigma_data = check_sigma("sigma_data", sigma_data)
    total = sigma.square() + sigma_data**2  # the variance of x
    c_in = total.rsqrt()
    return sigma_data**2 / total, sigma * sigma_data * c_in, c_in, sigma.log() / 4


class Denoiser(nn.Module):
    """The denoiser D of a diffusers `UNet2DModel`, or of any network that is called in its way.

    Args:
        unet: F(sample [B, C, H, W], timestep [B], class_labels [B] or None, return_dict=False) -> ([B, C, H, W],).
        sigma_data: standard deviation of the data, > 0.

    Raises:
        ValueError: sigma_data lies outside [1e-18, 1e18].
        TypeError: unet is no network, or sigma_data no number.
    """

    def __init__(self, unet: nn.Module, sigma_data: float = SIGMA_DATA):
        super().__init__()
        if not isinstance(unet, nn.Module):
            raise TypeError(f"unet must be a network such as UNet2DModel, got {type(unet).__name__}")
        self.unet = unet
        self.sigma_data = check_sigma("sigma_data", sigma_data)

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """The estimate of the clean image, float32 [B, C, H, W] (float64 for a float64 x).

        Args:
            x: noisy images x0 + sigma n, [B, C, H, W], float32 or float64.
            sigma: noise level of each image, [B], > 0.
            class_labels: int64 [B], or None for a network without classes.

        Raises:
            ValueError: shapes do not fit, or a label has no embedding.
            TypeError: x or sigma are no tensors of floating-point numbers, x has less precision than float32, or labels
                are no tensor of whole numbers. Values are read of labels alone, and on a CPU.
        """
        _check_inputs(x, sigma, class_labels, getattr(self.unet, "config", None))
        c_skip, c_out, c_in, c_noise = scalings(sigma.to(x.dtype), self.sigma_data)
        c_skip, c_out, c_in = (c[:, None, None, None] for c in (c_skip, c_out, c_in))
        # The network may hold weights of another precision, or run under autocast; neither goes beyond this call: at
        # small sigma the clean image is the small difference between x and its noise.
        dtype = next((p.dtype for p in self.unet.parameters()), x.dtype)
        raw = self.unet((c_in * x).to(dtype), c_noise, class_labels, return_dict=False)[0]
        return torch.addcmul(c_skip * x, c_out, raw.to(x.dtype))


def _check_inputs(x: Tensor, sigma: Tensor, class_labels: Tensor | None, config: Any) -> None:
    """Kinds and shapes alone, so that no host waits for a device; `config` is the network's, if it has one."""
    config = config if isinstance(config, Mapping) else {}
    check_floats("x", x, "noisy images [B, C, H, W]")
    check_floats("sigma", sigma, "the noise level of each image")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64, got {x.dtype}; the network alone may run in less, by autocast")
    channels = config.get("in_channels", "C")
    if x.ndim != 4 or sigma.shape != x.shape[:1] or x.shape[1] != (x.shape[1] if channels == "C" else channels):
        raise ValueError(f"x must have the shape [B, {channels}, H, W] and sigma [B], got {list(x.shape)} and "
                         f"{list(sigma.shape)}")  # fmt: skip
    multiple = 2 ** (len(config.get("block_out_channels", "1")) - 1)
    if x.shape[2] % multiple or x.shape[3] % multiple or 0 in x.shape[2:]:
        raise ValueError(f"height and width of x must be multiples of {multiple}, got {list(x.shape)}; pad the images")
    if sigma.device != x.device:
        raise ValueError(f"sigma must be where x is, on {x.device}, got {sigma.device}")
    if class_labels is None:
        if config.get("num_class_embeds"):
            raise ValueError(f"the network has {config['num_class_embeds']} class embeddings: pass class_labels [B]")
        return
    if not isinstance(class_labels, Tensor) or class_labels.dtype not in (torch.int64, torch.int32):
        kind = class_labels.dtype if isinstance(class_labels, Tensor) else type(class_labels).__name__
        raise TypeError(f"class_labels must be a tensor of int64 [B], got {kind}")
    if class_labels.shape != x.shape[:1]:
        raise ValueError(f"class_labels must have the shape {list(x.shape[:1])}, got {list(class_labels.shape)}")
    embeddings = config.get("num_class_embeds")
    if embeddings and len(class_labels) and _may_look(class_labels):
        low, high = class_labels.aminmax()
        if low < 0 or high >= embeddings:
            raise ValueError(f"class_labels must lie in [0, {embeddings - 1}], got {int(low if low < 0 else high)}")


def _may_look(values: Tensor) -> bool:
    """Whether to read values makes nothing wait and breaks no graph: on a CPU, outside of compilation and `vmap`."""
    return values.device.type == "cpu" and type(values) is Tensor and not (
        torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(values)
    )  # fmt: skip
