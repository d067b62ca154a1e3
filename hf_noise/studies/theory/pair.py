"""The exchange rate k along training, from the records of two runs: one on clean text, one on the mixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hf_noise.analysis.ntp_theory import LARGEST_LOSS, k_from_losses
from hf_noise.reports.record import RunRecord, is_number, read_records

__all__ = ["Pair", "pair_of", "read_pair"]

VALIDATION, NOISE = "validation_nll", "noise_nll"


@dataclass(frozen=True, eq=False)
class Pair:
    """Losses of two runs at the same steps, in nats per token, float64 [S].

    Attributes:
        names: of the clean and of the mixed run.
        alpha: share of noise of the mixed run.
        steps: optimiser steps, all after `early_step`, at which k is looked at.
        clean_star: loss on clean text of the clean run.
        clean: loss on clean text of the mixed run.
        noise: loss on noise of the mixed run.
        early_step: step whose loss on noise stands for that of h*.
        early_noise: that loss.
    """

    names: tuple[str, str]
    alpha: float
    steps: np.ndarray
    clean_star: np.ndarray
    clean: np.ndarray
    noise: np.ndarray
    early_step: int
    early_noise: float

    @cached_property
    def k(self) -> np.ndarray:
        """k at each step; NaN where no noise was learned since the early step, <= 0 where no clean text was lost."""
        return k_from_losses(self.clean_star, self.clean, self.early_noise, self.noise)

    @property
    def is_rate(self) -> np.ndarray:
        """Where k is a rate that Proposition 1 covers: above 0."""
        return self.k > 0

    @property
    def without_gain(self) -> int:
        """Number of steps at which the noise is known no better than at the early step."""
        return int(np.isnan(self.k).sum())

    @property
    def without_loss(self) -> int:
        """Number of steps, of the others, at which the mixed run is as good on clean text, or better."""
        return int((self.k <= 0).sum())

    @property
    def pays_below(self) -> np.ndarray:
        """The k up to which following the noise pays at each step: alpha p_c / ((1 - alpha) p_n)."""
        return self.alpha / (1 - self.alpha) * np.exp(self.early_noise - self.clean_star)

    def describe(self) -> str:
        """One line: whose k it is, at how many steps, and where there is none."""
        clean, mixed = self.names
        gaps = [
            f"{n} without one, where {why}"
            for n, why in (
                (self.without_gain, f"the noise is known no better than at step {self.early_step}"),
                (self.without_loss, "the clean loss is no higher"),
            )
            if n
        ]
        told = ", ".join([f"k at {self.is_rate.sum()} of {len(self.steps)} steps", *gaps])
        return f"{clean} and {mixed} (alpha = {self.alpha:g}): {told}; p_n of step {self.early_step}"


def read_pair(clean: str, mixed: str, early: float) -> Pair:
    """Read two runs and bring them to the same steps, those of the mixed run; the clean one is interpolated linearly.

    Args:
        clean: record file, or folder with one run on clean text in it.
        mixed: the same of a run on a mixture with noise documents.
        early: share of the mixed run's steps, in (0, 1), near which its loss on noise is taken for that of h*.

    Raises:
        FileNotFoundError, ValueError: there is no such record, or none or several that fit; the two do not belong
            together; a record has no losses along training, or none at steps that both have.
    """
    one, other = _run("clean", clean, is_mixed=False), _run("mixed", mixed, is_mixed=True)
    return pair_of(one, other, early, f"--mixed {mixed}")


def pair_of(one: RunRecord, other: RunRecord, early: float, told: str = "") -> Pair:
    """The same of the records of a clean and of a mixed run; `told` is what errors call the second."""
    told = told or other.name
    _check_alike(one, other)
    clean_steps, clean_values = _curve(one, VALIDATION)
    steps, values = _curve(other, VALIDATION)
    noise_steps, noise_values = _curve(other, NOISE)
    total = other.budget.get("steps")
    total = total if is_number(total) and total > 0 else noise_steps[-1]
    at = int(np.abs(noise_steps - early * total).argmin())
    low = max(clean_steps[0], noise_steps[0], noise_steps[at] + 1)
    kept = (steps >= low) & (steps <= min(clean_steps[-1], noise_steps[-1]))
    if not kept.any():
        raise ValueError(
            f"{told}: no step of {VALIDATION} lies after step {noise_steps[at]}, where p_n is taken, and "
            f"within both runs (clean {_span(clean_steps)}, mixed {_span(steps)}, its noise {_span(noise_steps)}); "
            "measure more often, or give a smaller --early"
        )
    steps, values = steps[kept], values[kept]
    return Pair(
        names=(one.name, other.name), alpha=_alpha(other), steps=steps,
        clean_star=np.interp(steps, clean_steps, clean_values), clean=values,
        noise=np.interp(steps, noise_steps, noise_values), early_step=int(noise_steps[at]),
        early_noise=float(noise_values[at]),
    )  # fmt: skip


def _run(flag: str, path: str, *, is_mixed: bool) -> RunRecord:
    """The one run of this kind in a record file or folder."""
    found = [record for record in read_records(path) if isinstance(record, RunRecord)]
    fitting = [record for record in found if (_alpha(record) > 0) == is_mixed and (is_mixed or not _is_noisy(record))]
    if len(fitting) == 1:
        return fitting[0]
    wanted = "with noise documents (noise.alpha > 0)" if is_mixed else "on clean text"
    if not fitting:
        there = ", ".join(record.name for record in found) or "no record of a run"
        raise ValueError(f"--{flag} {path}: there is no run {wanted}, only {there}")
    raise ValueError(
        f"--{flag} {path}: there are {len(fitting)} runs {wanted}, {', '.join(record.name for record in fitting)}; "
        "name the folder of one of them"
    )


def _alpha(record: RunRecord) -> float:
    alpha = record.noise.get("alpha")
    return float(alpha) if is_number(alpha) and 0 <= alpha < 1 else 0.0


def _is_noisy(record: RunRecord) -> bool:
    """Whether it was trained on noise of any kind."""
    rates = [record.noise.get(name) for name in ("alpha", "ratio", "error_rate")]
    return any(is_number(rate) and rate > 0 for rate in rates)


def _check_alike(one: RunRecord, other: RunRecord) -> None:
    """Raise ValueError unless two runs differ in their noise alone, as far as both say."""
    alike = {
        "model": ("name",), "data": ("source", "tokenizer", "block_size", "vocab_size"),
        "budget": ("steps", "batch_size"), "settings": ("learning_rate", "warmup", "weight_decay"), "loss": ("name",),
    }  # fmt: skip
    told = [
        (f"{field}.{name}", getattr(one, field).get(name), getattr(other, field).get(name))
        for field, names in alike.items() for name in names
    ]  # fmt: skip
    told.append(("seed", one.seed, other.seed))
    told.append((f"metrics.{VALIDATION}.n", *(run.metrics.get(VALIDATION, {}).get("n") for run in (one, other))))
    for name, first, second in told:
        if first is not None and second is not None and first != second:
            raise ValueError(
                f"--clean {one.name} has {name} = {first!r:.80} and --mixed {other.name} has {second!r:.80}; k "
                "compares two runs that differ in their noise alone"
            )


def _curve(record: RunRecord, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses of a metric along training, int64 and float64 [S]."""
    told: Mapping[str, Any] = record.metrics.get(metric, {})
    steps, values = told.get("steps"), told.get("values")
    if not isinstance(steps, list) or not isinstance(values, list) or not steps:
        raise ValueError(
            f"the record {record.name!r} has no metrics.{metric} along training (steps and values); run it again with "
            "a version that measures them"
        )
    if len(steps) != len(values):
        raise ValueError(f"the record {record.name!r} has {len(steps)} steps and {len(values)} values of {metric}")
    if not all(isinstance(step, int) and 0 <= step < 1 << 53 for step in steps) or sorted(set(steps)) != steps:
        raise ValueError(f"steps of {metric} in the record {record.name!r} must be integers that rise, got "
                         f"{steps!r:.80}")  # fmt: skip
    if bad := [value for value in values if not is_number(value) or not 0 <= value <= LARGEST_LOSS]:
        raise ValueError(f"values of {metric} in the record {record.name!r} must be losses in nats per token, in "
                         f"[0, {LARGEST_LOSS:g}], got {bad[0]!r:.80}")  # fmt: skip
    return np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64)


def _span(steps: np.ndarray) -> str:
    return f"{steps[0]} to {steps[-1]}"
