"""How a transition matrix is learned beside a classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hf_noise.noise.checks import check_real

__all__ = ["VolumePlan"]


@dataclass(frozen=True, kw_only=True)
class VolumePlan:
    """How a transition matrix is learned beside the classifier.

    Args:
        phases: (until which share of the steps, factor on every learning rate). Shares rise within (0, 1], factors are
            finite and >= 0. After the last phase the matrix stays as it is and the factor is 1 again.
        matrix_rate: learning rate of the matrix as a multiple of the classifier's; finite and > 0.
        weight: of log |det T|; finite and >= 0.
        initial_diagonal: in (1/C, 1), where the diagonal of T starts; None for paper C's start, 0.482 for 10 classes
            and 0.078 for 100 (the authors of volume minimisation start 100 classes at 0.48 too).

    Raises:
        ValueError: a number outside its range.
        TypeError: `phases` are no pairs, or a value is no number.
    """

    phases: tuple[tuple[float, float], ...] = ((0.5, 1.0), (0.6, 0.1), (0.7, 0.01))
    matrix_rate: float = 30.0
    weight: float = 1e-4
    initial_diagonal: float | None = None

    def __post_init__(self) -> None:
        phases = self.phases
        if not isinstance(phases, list | tuple) or not all(
            isinstance(phase, list | tuple) and len(phase) == 2 for phase in phases
        ):
            raise TypeError(f"phases must be pairs (share of the steps, factor), got {phases!r:.80}")
        phases = tuple((check_real("phases", share), check_real("phases", factor)) for share, factor in phases)
        checked = {name: check_real(name, getattr(self, name)) for name in ("matrix_rate", "weight")}
        checked["phases"] = phases
        if self.initial_diagonal is not None:
            checked["initial_diagonal"] = check_real("initial_diagonal", self.initial_diagonal)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        shares = [0.0, *(share for share, _ in phases)]
        if not phases or not all(one < other for one, other in zip(shares, shares[1:])) or shares[-1] > 1:
            raise ValueError(f"the shares of phases must rise within (0, 1], got {shares[1:]}")
        factors = [factor for _, factor in phases]
        if not all(0 <= value < math.inf for value in (*factors, self.weight)):
            raise ValueError(f"factors of phases and weight must be finite and >= 0, got {factors} and {self.weight}")
        if not 0 < self.matrix_rate < math.inf:
            raise ValueError(f"matrix_rate must be finite and > 0, got {self.matrix_rate}; give T to leave it as it is")
        if self.initial_diagonal is not None and not 0 < self.initial_diagonal < 1:
            raise ValueError(f"initial_diagonal must lie in (1/C, 1), got {self.initial_diagonal!r}")

    @classmethod
    def paper(cls) -> VolumePlan:
        """Paper C's: 1x until 1.5M images, 0.1x until 3M, 0.01x until 7.5M, then frozen.

        These are shares of its 200M images: a shorter run learns the matrix on fewer, and needs phases of its own.
        """
        return cls(phases=((0.0075, 1.0), (0.015, 0.1), (0.0375, 0.01)), matrix_rate=1.0)

    def factors(self, done: float) -> tuple[float, float]:
        """Factors on the learning rates of classifier and matrix when this share of the steps is done."""
        for share, factor in self.phases:
            if done < share:
                return factor, factor
        return 1.0, 0.0
