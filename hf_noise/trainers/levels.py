"""The law of the noise levels that a denoiser is trained at."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from hf_noise.diffusion.preconditioning import SIGMA_DATA
from hf_noise.losses.dsm import P_MEAN, P_STD
from hf_noise.noise.checks import check_real
from hf_noise.noise.normals_torch import log_normals
from hf_noise.trainers.arguments import check_positive

__all__ = ["NoiseLevels"]


@dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """ln sigma ~ N(P_mean, P_std^2), for images of standard deviation sigma_data.

    Args:
        sigma_data: > 0.
        P_mean: in [-20, 20].
        P_std: in (0, 20].

    Raises:
        ValueError: a number is outside its range.
        TypeError: it is no number.

    Source: Karras et al., NeurIPS 2022; the defaults are theirs.
    """

    sigma_data: float = SIGMA_DATA
    P_mean: float = P_MEAN
    P_std: float = P_STD

    def __post_init__(self) -> None:
        checked = {name: check_positive(name, getattr(self, name)) for name in ("sigma_data", "P_std")}
        checked["P_mean"] = check_real("P_mean", self.P_mean)
        if not abs(checked["P_mean"]) <= 20 or checked["P_std"] > 20:
            raise ValueError(f"P_mean must lie in [-20, 20] and P_std in (0, 20], got {self.P_mean} and {self.P_std}; "
                             "EDM's ln sigma has the mean -1.2 and the deviation 1.2")  # fmt: skip
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def taken_from(cls, options: dict[str, Any], levels: NoiseLevels | None) -> NoiseLevels:
        """`levels`, or what short spellings among `options` say of them (`sigma_data=0.5`), which are taken out.

        Raises:
            ValueError: both are given.
            TypeError: `levels` is of another type.
        """
        if not isinstance(levels, cls | None):
            raise TypeError(f"levels must be NoiseLevels(...) or None, got {levels!r:.80}")
        own = {field.name: options.pop(field.name) for field in fields(cls) if field.name in options}
        if own and levels is not None:
            raise ValueError(f"levels={levels} holds {', '.join(own)} already; leave one out")
        return cls(**own) if levels is None else levels

    def draw(self, seed: int, stream: int, epoch: int, sample: Tensor) -> Tensor:
        """sigma float32 [B], > 0, of samples int64 [B]: a pure function of all that is given."""
        return log_normals(seed, stream, epoch, sample, self.P_mean, self.P_std)
