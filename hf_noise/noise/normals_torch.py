"""Normal and uniform numbers from the counter, as tensors: what a diffusion model adds to an image.

Like the noise of labels they are a pure function of (seed, stream, epoch, sample, position), so a loss does not depend
on how samples are spread over batches and processes. The words are the same bits on every device; the logarithm and
the sine of these words may differ in the last place between a CPU and a GPU.
"""

from __future__ import annotations

import math

import torch

from hf_noise.noise import counter_torch, draws_torch
from hf_noise.noise.checks import check_epoch, check_integer, check_real, check_seed

__all__ = ["log_normals", "normals", "uniforms"]

_PER_WORD = 2.0**-32


def normals(seed: int, stream: int, epoch: int, sample: torch.Tensor, length: int) -> torch.Tensor:
    """Standard normal numbers, two from each word (Box and Muller, 1958).

    Args:
        seed: in [0, 2^63).
        stream: keeps apart what shares a seed.
        epoch: of the draw.
        sample: integers [B], the stable index of each sample; the numbers are on its device.
        length: numbers per sample, in [0, 2^28).

    Returns:
        float32 [B, length]; none is further from 0 than 6.67.

    Raises:
        TypeError: an argument holds no integers.
        ValueError: seed, epoch or length is out of range, or samples are not [B].
    """
    length = _check_length(length)
    words = _words(seed, stream, epoch, sample, (length + 1) // 2)
    # + 1 keeps the logarithm finite: the share is in (0, 1].
    radius = torch.log((counter_torch.upper_half(words) + 1).float().mul_(_PER_WORD)).mul_(-2).sqrt_()
    angle = (words & counter_torch.LOWER_HALF).float().mul_(2 * math.pi * _PER_WORD)
    out = radius.new_empty(*radius.shape, 2)
    torch.mul(radius, torch.cos(angle), out=out[..., 0])
    torch.mul(radius, torch.sin(angle), out=out[..., 1])
    return out.flatten(1)[:, :length]


def log_normals(seed: int, stream: int, epoch: int, sample: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """One number of each sample whose logarithm is N(mean, std^2), float32 [B], > 0; else as `normals`.

    Raises ValueError unless mean and std are finite and std >= 0.
    """
    mean, std = check_real("mean", mean), check_real("std", std)
    if not math.isfinite(mean) or not 0 <= std < math.inf:
        raise ValueError(f"mean must be finite, std finite and >= 0, got mean={mean!r} and std={std!r}")
    return torch.exp(mean + std * normals(seed, stream, epoch, sample, 1)[:, 0])


def uniforms(seed: int, stream: int, epoch: int, sample: torch.Tensor, length: int) -> torch.Tensor:
    """Uniform numbers, float32 [B, length] in [0, 1); arguments as for `normals`."""
    words = _words(seed, stream, epoch, sample, _check_length(length))
    return (counter_torch.upper_half(words) >> 8).float() * 2.0**-24  # 24 bits: all that float32 holds below 1


def _words(seed: int, stream: int, epoch: int, sample: torch.Tensor, length: int) -> torch.Tensor:
    draws_torch.check_integers("sample", sample)
    if sample.ndim != 1:
        raise ValueError(f"sample must be ids [B], got shape {list(sample.shape)}")
    key = counter_torch.stream_key_on(
        check_seed(seed), check_integer("stream", stream), check_epoch(epoch), sample.device
    )
    offsets = counter_torch.weyl(length, sample.device)
    return counter_torch.words(counter_torch.row_keys(key, sample)[:, None], offsets)


def _check_length(length: int) -> int:
    if not 0 <= check_integer("length", length) < 1 << 28:
        raise ValueError(f"length must lie in [0, 2^28), got {length}")
    return int(length)
