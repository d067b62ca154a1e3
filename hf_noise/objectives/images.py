"""Objectives of diffusion: plain score matching, or one that goes through a transition matrix T."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hf_noise.noise.checks import check_choice, check_count, check_flag, check_real
from hf_noise.noise.transition import check_transition
from hf_noise.objectives.base import Objective

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DSM", "TDSM"]


@dataclass(frozen=True)
class DSM(Objective):
    """Plain denoising score matching under EDM's noise, on the labels as they are."""

    name = "dsm"
    unit = "images"

    def __call__(self, denoiser: Callable[..., Tensor], *given: Tensor, **options: Any) -> Tensor:
        """Losses [B] of images, sigma, noise and labels, see `hf_noise.losses.dsm_loss`."""
        from hf_noise.losses import dsm_loss

        return dsm_loss(denoiser, *given, **options)

    def facts(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, kw_only=True)
class TDSM(Objective):
    """Transition-aware denoising score matching, see `hf_noise.losses.tdsm_loss`.

    Args:
        transition: T [C, C], rows clean; by default what the classifier was trained through, else that of the noise.
            T = I needs no classifier, and is `DSM` exactly.
        weights: "bayes" for a classifier that predicts clean classes (trained through T), "inverse" for one that
            predicts noisy labels.
        tau: in [0, 1); classes of weight <= tau are left out.
        temperature: of the classifier, finite and > 0.
        renormalise: divide the weights that are left by their sum.
        grad_classes: "observed", or "all" for the textbook objective.
        chunk: most (image, class) pairs in one pass, None for a default by the device.

    Raises:
        ValueError: a value is out of its range, or T is no matrix of probabilities.
        TypeError: a value is of another kind.

    Source: Na et al., "Label-noise robust diffusion models", ICLR 2024.
    """

    transition: Sequence[Sequence[float]] | None = None
    weights: Literal["bayes", "inverse"] = "bayes"
    tau: float = 0.01
    temperature: float = 1.0
    renormalise: bool = False
    grad_classes: Literal["observed", "all"] = "observed"
    chunk: int | None = None

    name = "tdsm"
    unit = "images"

    def __post_init__(self) -> None:
        checked = {
            "tau": _below_one("tau", self.tau), "temperature": _positive("temperature", self.temperature),
            "renormalise": check_flag("renormalise", self.renormalise),
            "chunk": None if self.chunk is None else check_count("chunk", self.chunk, 1, 31),
            "weights": check_choice("weights", self.weights, ("bayes", "inverse")),
            "grad_classes": check_choice("grad_classes", self.grad_classes, ("observed", "all")),
        }  # fmt: skip
        if self.transition is not None:  # hashable, and as JSON holds it
            checked["transition"] = tuple(map(tuple, check_transition(self.transition).tolist()))
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def sentence(self) -> str:
        return self.told({}, "")

    def __call__(self, denoiser: Callable[..., Tensor], *given: Tensor, **options: Any) -> Tensor:
        """Losses [B] of images, sigma, noise, labels and transition-aware weights."""
        from hf_noise.losses import tdsm_loss

        return tdsm_loss(
            denoiser, *given, tau=self.tau, renormalise=self.renormalise, grad_classes=self.grad_classes,
            chunk=self.chunk, **options,
        )  # fmt: skip

    def claims(self) -> dict[str, Any]:
        """As for every objective, but for `chunk`: a run may go on where there is less memory."""
        claims = super().claims()
        del claims["objective"]["chunk"]
        return claims

    def facts(self) -> dict[str, Any]:
        return {"tau": self.tau}

    def told(self, facts: Mapping[str, Any], task: str, error_rate: float | None = None) -> str:
        return (
            "transition-aware denoising score matching (TDSM): at a noisy label the network is fitted to the image "
            "together with its answers at other classes, each with the probability that the image is of this "
            f"class; T is {facts.get('transition', 'known')}."
        )


def _below_one(name: str, value: Any) -> float:
    number = check_real(name, value)
    if not 0 <= number < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value!r}")
    return number


def _positive(name: str, value: Any) -> float:
    number = check_real(name, value)
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} must be finite and > 0, got {value!r}")
    return number
