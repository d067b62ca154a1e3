"""Compute plans of paper A: how much longer, or with how much larger batches, to train on noisy data.

The paper's main plan keeps the clean exposure constant: a share e of the supervision is wrong, so the run takes
(1 + r) times as many sequences and sees as many clean ones as the run without noise, (1 + r)(1 - e) = 1. Where large
noise makes training unstable it spends them on larger batches. Its second plan keeps the budget fixed.

    ScaleSteps   batch_multiplier * steps = (1 + r) * base    algorithm 1, the principle of table 6
    ScaleBatch   batch * (1 + r), equal steps                 the same exposure without further updates
    Table6       the multipliers that the paper used          table 6
    Table7       those of its ImageNet classifiers            table 7
    FixedBudget  steps and batch unchanged                    table 8
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from hf_noise.noise import rates
from hf_noise.noise.checks import check_choice, check_integer

__all__ = ["FixedBudget", "Plan", "ScaleBatch", "ScaleSteps", "Schedule", "Table6", "Table7", "plan_named"]

_SAME_RATIO = 1e-9
# Up to which a float, and JSON, holds every integer.
_MOST = 1 << 53


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long one run takes, beside the run without noise that it is compared with.

    Args:
        name: of the schedule that made it: "steps", "batch", "table6", "table7" or "budget".
        ratio: r >= 0, noisy units per clean unit.
        steps: optimiser steps, >= 1.
        batch_size: sequences in an optimiser step, over all processes and accumulated micro-batches, >= 1.
        base_steps, base_batch_size: the same of the run without noise.

    Raises:
        TypeError: a number is of another type.
        ValueError: a number is out of range.
    """

    name: str
    ratio: float
    steps: int
    batch_size: int
    base_steps: int
    base_batch_size: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name must be that of a schedule, such as 'steps', got {self.name!r}")
        object.__setattr__(self, "ratio", rates.check_ratio(self.ratio))
        rates.error_rate(self.ratio)  # raises for a ratio too large for it
        for name in ("steps", "batch_size", "base_steps", "base_batch_size"):
            object.__setattr__(self, name, _count(name, getattr(self, name)))

    @property
    def error_rate(self) -> float:
        """e = r / (1 + r)."""
        return rates.error_rate(self.ratio)

    @property
    def batch_multiplier(self) -> float:
        """Batch size over that of the run without noise."""
        return self.batch_size / self.base_batch_size

    @property
    def sequences(self) -> int:
        """Sequences that the run processes, repeated ones counted each time."""
        return self.steps * self.batch_size

    @property
    def exposure(self) -> float:
        """Clean supervision relative to the run without noise: 1 if it is constant, 1 - e at a fixed budget.

        It differs from 1 by the rounding of steps and batch size to integers.
        """
        return self.sequences / (1 + self.ratio) / (self.base_steps * self.base_batch_size)

    def tokens(self, block_size: int) -> int:
        """Tokens that the run processes, in sequences of `block_size` tokens."""
        return self.sequences * _count("block_size", block_size)

    def clean_tokens(self, block_size: int) -> int:
        """Expected number of those tokens whose target is left as it is, (1 - e) of all, rounded."""
        return round(self.tokens(block_size) / (1 + self.ratio))

    def to_dict(self, block_size: int | None = None) -> dict[str, Any]:
        """All of it as JSON-able values, as run records keep it; with `block_size` also the numbers of tokens."""
        entries = {
            "plan": self.name,
            "ratio": self.ratio,
            "error_rate": self.error_rate,
            "base_steps": self.base_steps,
            "base_batch_size": self.base_batch_size,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "batch_multiplier": self.batch_multiplier,
            "sequences": self.sequences,
            "exposure": self.exposure,
        }
        if block_size is not None:
            entries |= {"tokens": self.tokens(block_size), "clean_tokens": self.clean_tokens(block_size)}
        return entries


class Schedule(ABC):
    """Base of the frozen dataclasses that turn a noise ratio into a `Plan`; a subclass says `name` and `_scaled`."""

    name: ClassVar[str]
    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def plan(self, ratio: float, *, steps: int, batch_size: int) -> Plan:
        """The run at noise ratio `ratio`.

        Args:
            ratio: r >= 0.
            steps: optimiser steps of the run without noise, >= 1.
            batch_size: its sequences per optimiser step, over all processes and accumulated micro-batches, >= 1.

        Raises:
            ValueError: a value is out of range, or this schedule is not defined for this ratio.
        """
        r = rates.check_ratio(ratio)
        base = _count("steps", steps), _count("batch_size", batch_size)
        new_steps, new_batch_size = self._scaled(r, *base)
        if not max(new_steps, new_batch_size) <= _MOST:
            raise ValueError(
                f"ratio {ratio!r} makes {new_steps:.3g} steps of {new_batch_size:.3g} sequences of steps={steps} and "
                f"batch_size={batch_size}; give smaller ones"
            )
        return Plan(
            name=self.name, ratio=r, steps=max(1, round(new_steps)), batch_size=max(1, round(new_batch_size)),
            base_steps=base[0], base_batch_size=base[1],
        )

    @abstractmethod
    def _scaled(self, ratio: float, steps: int, batch_size: int) -> tuple[float, float]:
        """Steps and batch size at `ratio`, before they are rounded to integers."""


@dataclass(frozen=True, kw_only=True)
class ScaleSteps(Schedule):
    """Constant clean exposure through more steps: batch_multiplier * steps = (1 + r) * base (paper A, algorithm 1).

    Args:
        batch_multiplier: integer >= 1 by which the batch grows and the steps shrink, at every ratio. Large noise
            trains more stably in larger batches (paper A, table 6, used 2 at r = 0.5 and 12 at r = 1).

    Example:
        >>> ScaleSteps().plan(0.3, steps=600_000, batch_size=480).steps
        780000
        >>> ScaleSteps(batch_multiplier=2).plan(0.5, steps=600_000, batch_size=480).steps
        450000
    """

    name: ClassVar[str] = "steps"
    batch_multiplier: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch_multiplier", _count("batch_multiplier", self.batch_multiplier))

    def _scaled(self, ratio: float, steps: int, batch_size: int) -> tuple[float, float]:
        return steps * (1 + ratio) / self.batch_multiplier, batch_size * self.batch_multiplier


@dataclass(frozen=True, kw_only=True)
class ScaleBatch(Schedule):
    """Constant clean exposure in equally many steps: the batch grows by 1 + r, rounded to whole sequences.

    Comparable with the run without noise update by update. `Plan.exposure` says what the rounding left of it.

    Example:
        >>> ScaleBatch().plan(0.3, steps=1500, batch_size=32).batch_size
        42
    """

    name: ClassVar[str] = "batch"

    def _scaled(self, ratio: float, steps: int, batch_size: int) -> tuple[float, float]:
        return steps, batch_size * (1 + ratio)


@dataclass(frozen=True, kw_only=True)
class Table6(Schedule):
    """Paper A's own plan for GPT-2: constant clean exposure with the batch multipliers of its table 6.

    Only defined at the paper's ratios, 0, 0.1, 0.3, 0.5 and 1. With its base of 600,000 steps of 480 sequences these
    run 600,000, 660,000, 780,000, 450,000 and 100,000 steps.

    Example:
        >>> plan = Table6().plan(1.0, steps=600_000, batch_size=480)
        >>> plan.steps, plan.batch_multiplier
        (100000, 12.0)
    """

    name: ClassVar[str] = "table6"
    #: Batch multiplier at each ratio.
    multipliers: ClassVar[dict[float, int]] = {0.0: 1, 0.1: 1, 0.3: 1, 0.5: 2, 1.0: 12}

    def _scaled(self, ratio: float, steps: int, batch_size: int) -> tuple[float, float]:
        listed = _listed(ratio, self.multipliers, "paper A's table 6")
        multiplier = self.multipliers[listed]
        return steps * (1 + listed) / multiplier, batch_size * multiplier


@dataclass(frozen=True, kw_only=True)
class Table7(Schedule):
    """Paper A's own plan for ViT-B on ImageNet and its subsets: the batch multipliers and epochs of its table 7.

    The table divides epochs by the batch multiplier m. An epoch covers the data once whatever the batch, so that taken
    literally some runs see half or a quarter of the correct labels.

    Args:
        classes: of the data set, 10, 100 or 1000.
        reading: "principle" keeps what the paper says, (1 + r) times the images, in steps that are m times fewer;
            "as_printed" takes the printed epochs, and `Plan.exposure` shows what that costs.

    Example:
        >>> Table7(classes=100).plan(1.0, steps=1000, batch_size=128).exposure
        1.0
        >>> Table7(classes=100, reading="as_printed").plan(1.0, steps=1000, batch_size=128).exposure
        0.25
    """

    name: ClassVar[str] = "table7"
    #: Classes -> ratio -> batch multiplier.
    multipliers: ClassVar[dict[int, dict[float, int]]] = {
        10: {0.0: 1, 0.1: 1, 0.3: 1, 0.5: 1, 1.0: 2},
        100: {0.0: 1, 0.1: 1, 0.3: 2, 0.5: 2, 1.0: 4},
        1000: {0.0: 1, 0.1: 1, 0.3: 1, 0.5: 1, 1.0: 1},
    }
    readings: ClassVar[tuple[str, ...]] = ("principle", "as_printed")
    classes: int = 1000
    reading: str = "principle"

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", check_integer("classes", self.classes))
        if self.classes not in self.multipliers:
            raise ValueError(f"paper A's table 7 has 10, 100 or 1000 classes, got {self.classes!r}")
        listed = f"one of {', '.join(map(repr, self.readings))}"
        object.__setattr__(self, "reading", check_choice("reading", self.reading, self.readings, listed))

    def _scaled(self, ratio: float, steps: int, batch_size: int) -> tuple[float, float]:
        multipliers = self.multipliers[self.classes]
        listed = _listed(ratio, multipliers, "paper A's table 7")
        multiplier = multipliers[listed]
        # The printed epochs are (1 + r) 300 / m, and an epoch in batches m times larger has m times fewer steps.
        divisor = multiplier if self.reading == "principle" else multiplier**2
        return steps * (1 + listed) / divisor, batch_size * multiplier


@dataclass(frozen=True, kw_only=True)
class FixedBudget(Schedule):
    """Steps and batch stay as they are, so the clean exposure falls to 1 - e (paper A, table 8)."""

    name: ClassVar[str] = "budget"

    def _scaled(self, ratio: float, steps: int, batch_size: int) -> tuple[float, float]:
        return steps, batch_size


_SCHEDULES: dict[str, type[Schedule]] = {cls.name: cls for cls in (ScaleSteps, ScaleBatch, Table6, Table7, FixedBudget)}


def plan_named(name: str, **settings: Any) -> Schedule:
    """The schedule of this name, "steps", "batch", "table6", "table7" or "budget", as a command line gives it.

    >>> plan_named("steps", batch_multiplier=2)
    ScaleSteps(batch_multiplier=2)
    """
    if not isinstance(name, str) or name not in _SCHEDULES:
        raise ValueError(f"unknown compute plan {name!r}; choose from {', '.join(map(repr, _SCHEDULES))}")
    taken = {field.name for field in fields(_SCHEDULES[name])}
    unknown = sorted(set(settings) - taken)
    if unknown:
        known = ", ".join(sorted(taken)) or "none"
        raise TypeError(f"the compute plan {name!r} has no setting {', '.join(unknown)}; it has: {known}")
    return _SCHEDULES[name](**settings)


def _listed(ratio: float, table: dict[float, Any], name: str) -> float:
    """The ratio of a table that this one is, within rounding: it may have been computed from an error rate."""
    for listed in table:
        if math.isclose(ratio, listed, abs_tol=_SAME_RATIO):
            return listed
    ratios = ", ".join(f"{listed:g}" for listed in table)
    others = ", ".join(repr(other) for other in _SCHEDULES if not other.startswith("table"))
    raise ValueError(f"{name} has no ratio {ratio!r}, only {ratios}; other plans take any: {others}")


def _count(name: str, value: Any) -> int:
    count = check_integer(name, value)
    if count < 1:
        raise ValueError(f"{name} must be >= 1, got {value}")
    if count > _MOST:
        raise ValueError(f"{name} must be <= 2^53, got {value}")
    return count
