"""EDM's non-leaking augmentation of images, drawn on their device from the counter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_noise.noise.checks import check_flag, check_real, check_seed
from hf_noise.noise.normals_torch import uniforms

__all__ = ["EDMAugment"]

_DRAWS = 14
# Added to 2 u - 1, puts a draw u of 24 bits in the middle of its interval, so that no normal number is infinite: they
# end at +-5.42. Added to u itself it would be lost where u is nearly 1.
_HALF_STEP = 2.0**-24


@dataclass(frozen=True, kw_only=True)
class EDMAugment:
    """Flips, scaling, rotation, stretching and shifts of training images, and what was done to each.

    A network that is told what was done need not show it in what it generates. Every kind is drawn for an image with
    `probability`, but the horizontal flip for each image: it falls on half of them. What lies outside an image is its
    reflection; pixels are interpolated linearly.

    It differs from EDM's own in three points. Every stretch has an axis of any direction, where EDM turns half of them
    and has the others along rows or columns (`turned=0.5` does so too). A stretch has no sign, see `draw`. And pixels
    are not filtered by wavelets.

    Args:
        probability: in [0, 1].
        flip: whether images are flipped, horizontally and vertically; False for digits.
        scale, stretch: standard deviation of log2 of the factor on both sides, and of that on one side and its inverse
            on the other; finite and >= 0.
        rotation: largest angle as a share of half a turn, in [0, 1].
        turned: share of the stretches whose axis has any direction, in [0, 1]; the others go along the rows or the
            columns of the image, half of them each. EDM's is 0.5. It changes no other draw, and 1 is how stretches were
            drawn before there was a choice, so that equal seeds go on giving equal images.
        shift: standard deviation, as a share of the image's side; finite and >= 0.
        seed: of the draws, in [0, 2^63).

    Raises:
        TypeError: a number is none, or `flip` is no bool.
        ValueError: a number outside its range.

    Source: Karras et al. 2022, appendix F.2 and table 6; the share of turned stretches is in their code alone.
    """

    probability: float = 0.12
    flip: bool = True
    scale: float = 0.2
    rotation: float = 1.0
    stretch: float = 0.2
    shift: float = 0.125
    seed: int = 0
    turned: float = 1.0
    stream: ClassVar[int] = 82

    def __post_init__(self) -> None:
        for name in ("probability", "rotation", "turned", "scale", "stretch", "shift"):
            object.__setattr__(self, name, check_real(name, getattr(self, name)))
        for name in ("probability", "rotation", "turned"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("scale", "stretch", "shift"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {getattr(self, name)}; 0 switches it off")
        object.__setattr__(self, "flip", check_flag("flip", self.flip))
        object.__setattr__(self, "seed", check_seed(self.seed))

    def __call__(self, images: Tensor, sample: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Float images [B, C, H, W] of equal sides, sample ids int64 [B] -> images, descriptions float32 [B, 9].

        A description is: flipped horizontally, vertically (0 or 1 each), normal number of the scale, cos - 1 and sin of
        the rotation, half-normal number of the stretch times cos and sin of its axis, normal numbers of the shifts; 0
        for whatever was not done.

        Raises:
            TypeError: images are not floating-point, or samples or the epoch no integers.
            ValueError: images whose sides differ, or another number of them than of samples.
        """
        if not isinstance(images, Tensor) or not images.is_floating_point() or images.layout is not torch.strided:
            what = f"{images.dtype}, {images.layout}" if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(f"images must be a dense floating-point tensor, got {what}")
        if images.ndim != 4 or 0 in images.shape[1:]:
            raise ValueError(f"images must be [B, C, H, W], got {list(images.shape)}")
        if images.shape[-1] != images.shape[-2]:
            raise ValueError(f"rotations need images of equal sides, got {list(images.shape[-2:])} pixels; crop them")
        described, angle, axis = self.draw(sample, epoch)
        if len(described) != len(images):
            raise ValueError(f"{len(images)} images need as many sample ids, got {len(described)}")
        flat = F.affine_grid(self._sources(described, angle, axis), list(images.shape), align_corners=False)
        # Places need more digits than float16 has, and float64 images places of their own precision.
        dtype = torch.promote_types(images.dtype, flat.dtype)
        moved = F.grid_sample(
            images.to(dtype), flat.to(dtype), mode="bilinear", padding_mode="reflection", align_corners=False
        )
        return moved.to(images.dtype), described

    def draw(self, sample: Tensor, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Descriptions [B, 9], angles of rotation [B] and of the stretched axis [B].

        EDM's number of a stretch is normal; one below 0 stretches at right angles to the axis, which its description,
        number times direction, does not tell from one above 0 along the opposite axis. Here it is half-normal.
        """
        u = uniforms(self.seed, self.stream, epoch, sample, _DRAWS).unbind(-1)
        flipped, scaled, turned, stretched, shifted = (value < self.probability for value in u[:5])
        across, down = ((value < 0.5).float() * self.flip for value in u[5:7])
        scale, stretch, right, below = (math.sqrt(2) * torch.erfinv((2 * v - 1) + _HALF_STEP) for v in u[7:11])
        angle = torch.where(turned, (2 * u[11] - 1) * math.pi * self.rotation, 0)
        axis = (2 * u[12] - 1) * math.pi
        if self.turned < 1:
            # Along the rows where EDM draws a number above 0, along the columns for one below.
            upright = torch.where(u[12] < 0.5, 0, math.pi / 2)
            axis = torch.where(u[13] < self.turned, axis, upright)
        # Without a sign: a narrower side is a stretched other one, and the description would not tell the two apart.
        stretch = torch.where(stretched, stretch.abs(), 0)
        return torch.stack([
            across, torch.where(flipped, down, 0), torch.where(scaled, scale, 0), angle.cos() - 1, angle.sin(),
            stretch * axis.cos(), stretch * axis.sin(), torch.where(shifted, right, 0), torch.where(shifted, below, 0),
        ], -1), angle, axis  # fmt: skip

    def _sources(self, described: Tensor, angle: Tensor, axis: Tensor) -> Tensor:
        """Where each pixel of the result comes from: affine maps [B, 2, 3] in units of half a side."""
        across, down, scale = described[:, :3].unbind(-1)
        stretch = described[:, 5:7].norm(dim=-1)
        # The inverse of flip, scale, rotation, stretch, shift, in this order.
        factor = torch.exp2(-self.scale * scale)
        flip = torch.diag_embed(torch.stack([1 - 2 * across, 1 - 2 * down], -1) * factor[:, None])
        narrow = torch.exp2(-self.stretch * stretch)
        stretched = _turn(axis) @ torch.diag_embed(torch.stack([narrow, 1 / narrow], -1)) @ _turn(-axis)
        linear = flip @ _turn(-angle) @ stretched
        return torch.cat([linear, linear @ (-2 * self.shift * described[:, 7:, None])], -1)


def _turn(angle: Tensor) -> Tensor:
    """Rotations [B, 2, 2] by angles [B]."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
