"""What regularisers of fine-tuning are told: frozen values, each with the settings of its paper."""

from __future__ import annotations

from dataclasses import dataclass

from hf_noise.noise.checks import check_integer
from hf_noise.objectives.base import real_in

__all__ = ["L2SP", "LNSR", "SMART"]


@dataclass(frozen=True, kw_only=True)
class L2SP:
    """Weights are pulled to where they were pre-trained, those of the new head to 0: `hf_noise.losses.l2_sp`.

    Of an adapter of LoRA, what it adds to a weight is pulled to 0, which is the same. What is new is what is outside
    the base model: a pooler inside it that the checkpoint lacks, and that is drawn as the model is loaded, counts as
    pre-trained, and is held where it was drawn.

    Args:
        alpha: strength towards the pre-trained weights, finite and >= 0; the paper tries 1 to 1e-4.
        beta: strength towards 0 of the head, finite and >= 0; 0.01 is the paper's.

    Raises:
        ValueError: a number is outside its range.
        TypeError: a value is no number.
    """

    alpha: float = 0.01
    beta: float = 0.01

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            object.__setattr__(self, name, real_in(name, getattr(self, name), "[0, inf)"))


@dataclass(frozen=True, kw_only=True)
class SMART:
    """Predictions hardly change where the embeddings of the input do: `hf_noise.losses.smart`.

    Args:
        weight: of the regulariser, finite and >= 0; the paper tries 1, 3 and 5.
        epsilon: bound of each entry of the perturbation, > 0, in units of the embeddings.
        step_size: of the ascent, > 0.
        sigma: standard deviation of its start, > 0.
        steps: of ascent, in [1, 100]; each costs a forward pass and a backward pass, and the last look one more.

    Raises:
        ValueError: a number is outside its range.
        TypeError: a value is no number.
    """

    weight: float = 1.0
    epsilon: float = 1e-5
    step_size: float = 1e-3
    sigma: float = 1e-5
    steps: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", real_in("weight", self.weight, "[0, inf)"))
        for name in ("epsilon", "step_size", "sigma"):
            object.__setattr__(self, name, real_in(name, getattr(self, name), "(0, inf)"))
        object.__setattr__(self, "steps", _integer_in("steps", self.steps, 1, 100))


@dataclass(frozen=True, kw_only=True)
class LNSR:
    """Noise on what one layer is given hardly changes the layers above: `hf_noise.losses.lnsr`.

    Args:
        weight: of the regulariser, finite and >= 0; ours.
        layer: that is given the noise, counted from 0 at the bottom; its cost is a pass through it and those above.
        sigma: of the noise, relative to the root mean square of what the layer is given; finite and >= 0.

    Raises:
        ValueError: a number is outside its range.
        TypeError: a value is no number.
    """

    weight: float = 1.0
    layer: int = 0
    sigma: float = 0.05

    def __post_init__(self) -> None:
        for name in ("weight", "sigma"):
            object.__setattr__(self, name, real_in(name, getattr(self, name), "[0, inf)"))
        object.__setattr__(self, "layer", _integer_in("layer", self.layer, 0, 9999))


def _integer_in(name: str, value: int, low: int, high: int) -> int:
    number = check_integer(name, value)
    if not low <= number <= high:
        raise ValueError(f"{name} must lie in [{low}, {high}], got {value!r}")
    return number
