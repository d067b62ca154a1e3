"""Compute plans of paper A: how much longer, or with how much larger batches, to train on noisy data.

The paper's main plan keeps the clean exposure constant: a share e of the supervision is wrong, so the run takes
(1 + r) times as many sequences and sees as many clean ones as the run without noise, (1 + r)(1 - e) = 1. Where large
noise makes training unstable it spends them on larger batches. Its second plan keeps the budget fixed.

    ScaleSteps   batch_multiplier * steps = (1 + r) * base    algorithm 1, the principle of table 6
    ScaleBatch   batch * (1 + r), equal steps                 the same exposure without further updates
    Table6       the multipliers that the paper used          table 6
    FixedBudget  steps and batch unchanged                    table 8
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hf_noise.noise import rates

__all__ = ["FixedBudget", "Plan", "ScaleBatch", "ScaleSteps", "Schedule", "Table6", "plan_named"]

_SAME_RATIO = 1e-9


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long one run takes, beside the run without noise that it is compared with.

    Args:
        name: of the schedule that made it: "steps", "batch", "table6" or "budget".
        ratio: r >= 0, noisy units per clean unit.
        steps: optimiser steps, >= 1.
        batch_size: sequences in an optimiser step, over all processes and accumulated micro-batches, >= 1.
        base_steps, base_batch_size: the same of the run without noise.
    """

    name: str
    ratio: float
    steps: int
    batch_size: int
    base_steps: int
    base_batch_size: int

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
        for listed, multiplier in self.multipliers.items():
            # A ratio that was computed from an error rate may miss the listed one by a rounding error.
            if math.isclose(ratio, listed, abs_tol=_SAME_RATIO):
                return steps * (1 + listed) / multiplier, batch_size * multiplier
        ratios = ", ".join(f"{listed:g}" for listed in self.multipliers)
        others = ", ".join(repr(name) for name in _SCHEDULES if name != self.name)
        raise ValueError(f"paper A's table 6 has no ratio {ratio!r}, only {ratios}; other plans take any: {others}")


@dataclass(frozen=True, kw_only=True)
class FixedBudget(Schedule):
    """Steps and batch stay as they are, so the clean exposure falls to 1 - e (paper A, table 8)."""

    name: ClassVar[str] = "budget"

    def _scaled(self, ratio: float, steps: int, batch_size: int) -> tuple[float, float]:
        return steps, batch_size


_SCHEDULES: dict[str, type[Schedule]] = {cls.name: cls for cls in (ScaleSteps, ScaleBatch, Table6, FixedBudget)}


def plan_named(name: str, **settings: Any) -> Schedule:
    """The schedule of this name, "steps", "batch", "table6" or "budget", as a command line gives it.

    >>> plan_named("steps", batch_multiplier=2)
    ScaleSteps(batch_multiplier=2)
    """
    if name not in _SCHEDULES:
        raise ValueError(f"unknown compute plan {name!r}; choose from {', '.join(map(repr, _SCHEDULES))}")
    return _SCHEDULES[name](**settings)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be >= 1, got {value}")
    return int(value)
