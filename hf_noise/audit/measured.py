"""A figure of an audit with its interval, and what stands behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Measured", "parts_of", "told_parts"]


@dataclass(frozen=True)
class Measured:
    """A share or rate in [0, 1] and how it is known.

    Attributes:
        value: the estimate.
        low, high: its interval at `confidence`, low <= value <= high; [0, 1] where nothing is known.
        how: the method, and the assumption that it stands on, in words for a user.
        confidence: of the interval, in (0, 1).

    Raises ValueError: the figures are not in this order, or outside [0, 1].
    """

    value: float
    low: float
    high: float
    how: str
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.value <= self.high <= 1 or not 0 < self.confidence < 1:
            raise ValueError(f"a measured share needs 0 <= low <= value <= high <= 1, got {self.low!r}, "
                             f"{self.value!r}, {self.high!r} at confidence {self.confidence!r}")  # fmt: skip

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        digits = 1 if math.isclose(self.value, 0, abs_tol=5e-4) or self.value >= 0.01 else 2
        return f"{100 * self.value:.{digits}f}% [{100 * self.low:.{digits}f}, {100 * self.high:.{digits}f}]"


_BETWEEN = "; "


def told_parts(parts: Iterable[str]) -> str:
    """How something is known, of its parts in words."""
    return _BETWEEN.join(parts)


def parts_of(how: str, without: Iterable[str] = ()) -> list[str]:
    """The parts that `told_parts` joined, without these, such as warnings that are told by themselves."""
    for one in without:
        how = how.replace(f"{_BETWEEN}{one}", "")
    return how.split(_BETWEEN)
