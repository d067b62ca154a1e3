"""What noise documents cost, from the records of a study: settings over seeds, beside the runs without noise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_noise.noise.protocols import protocol_names
from hf_noise.reports.checks import check_records
from hf_noise.reports.record import RunRecord
from hf_noise.reports.verdicts import Spread, spread

__all__ = ["UNIFORM", "Compared", "Setting", "at_step", "compared", "curve", "setting_of", "value_of"]

UNIFORM = "random-documents"


@dataclass(frozen=True)
class Setting:
    """What the runs of a line have in common; `clean_of` as of `DocumentRun`."""

    protocol: str
    alpha: float
    loss: str
    clean_of: float | None = None

    @property
    def is_clean(self) -> bool:
        return self.alpha == 0


def setting_of(record: RunRecord) -> Setting:
    """Protocol by the name of a flag, alpha, and the loss: "nll", or where the mixture's has alpha from."""
    noise, loss = record.noise, record.loss
    name = "nll" if loss["name"] == "nll" else str(loss.get("source", loss["name"]))
    if noise["alpha"] == 0:
        return Setting("none", 0.0, name, record.budget.get("clean_of"))
    return Setting(protocol_of(noise), noise["alpha"], name)


def protocol_of(noise: Mapping[str, Any]) -> str:
    """The name of a noise that is stored, as a flag has it."""
    for name, cls in protocol_names("documents").items():
        boost = cls.names[name].get("boost", "none")
        if noise["protocol"] == cls.protocol and noise.get("boost", "none") == boost:
            return name
    raise ValueError(f"a record has noise of protocol {noise['protocol']!r}, which is none of documents")


@dataclass(frozen=True)
class Compared:
    """The records of a study by setting and seed."""

    runs: dict[Setting, dict[int, RunRecord]]
    task: str = "causal_lm"

    @property
    def loss(self) -> str:
        """What is measured, in the words of a table and of an axis."""
        return "loss of masked tokens" if self.task == "masked_lm" else "NLL"

    @property
    def clean(self) -> dict[int, RunRecord]:
        """The runs without noise of the study's own steps."""
        return next((runs for setting, runs in self.runs.items() if setting == Setting("none", 0.0, "nll")), {})

    def noisy(self, loss: str | None = None) -> list[Setting]:
        """Settings with noise, by protocol, alpha and loss."""
        found = [one for one in self.runs if not one.is_clean and loss in (None, one.loss)]
        names = sorted(protocol_names("documents"), key=lambda name: (name != UNIFORM, name))
        return sorted(found, key=lambda one: (names.index(one.protocol), one.alpha, one.loss != "nll", one.loss))

    def over_seeds(self, setting: Setting, figure: Callable[[RunRecord, RunRecord], float | None]) -> Spread | None:
        """A figure of a run and the one without noise of its seed; None where there are none."""
        runs = self.runs.get(setting, {})
        found = [figure(runs[seed], self.clean[seed]) for seed in sorted(runs) if seed in self.clean]
        found = [value for value in found if value is not None]
        return spread(found) if found else None

    def rise(self, setting: Setting, metric: str = "validation_nll") -> Spread | None:
        """Rise of an NLL over the run without noise at equal steps, in percent of it."""
        return self.over_seeds(setting, lambda run, clean: _rise(value_of(run, metric), value_of(clean, metric)))

    def rise_at_equal_text(self, setting: Setting) -> Spread | None:
        """The same at equal text, as the paper reads it: the run without noise at (1 - alpha) of its steps."""
        return self.over_seeds(
            setting, lambda run, clean: _rise(value_of(run), at_step(clean, run.budget["steps"] * (1 - setting.alpha)))
        )

    def rise_over_shorter_run(self, setting: Setting) -> Spread | None:
        """The same against a run without noise that was planned for so many steps; None where none was made."""
        shorter = self.runs.get(Setting("none", 0.0, "nll", setting.alpha), {})
        runs = self.runs.get(setting, {})
        seeds = sorted(set(shorter) & set(runs))
        return spread([_rise(value_of(runs[s]), value_of(shorter[s])) for s in seeds]) if seeds else None


def compared(records: Sequence[RunRecord]) -> Compared:
    """Sort records by setting and seed.

    Raises:
        ValueError, TypeError: these are no records of runs of this study, or of two, or two of one setting and seed.
    """
    numbers = ("noise.alpha", "metrics.validation_nll.value", "budget.steps")
    check_records(records, numbers=numbers, texts={"loss.name": None})
    runs: dict[Setting, dict[int, RunRecord]] = defaultdict(dict)
    for record in records:
        setting = setting_of(record)
        if (other := runs[setting].setdefault(record.seed, record)) is not record:
            raise ValueError(
                f"the records {other.name!r} and {record.name!r} are both of {setting}, seed {record.seed}; show one "
                "study at a time"
            )
        if fault := _differs(records[0], record):
            raise ValueError(f"the records {records[0].name!r} and {record.name!r} are of two studies: {fault}")
    return Compared(dict(runs), records[0].task if records else "causal_lm")


def _differs(one: RunRecord, other: RunRecord) -> str | None:
    """In which of the things that all runs of a study share two records differ."""
    alike = [("task", None), ("model", "name"), ("data", "source"), ("data", "tokenizer"), ("data", "block_size"),
             ("budget", "base_steps"), ("budget", "base_batch_size")]  # fmt: skip
    for field, name in alike:
        a, b = (getattr(run, field) if name is None else getattr(run, field).get(name) for run in (one, other))
        if a != b:
            return f"{field}{'' if name is None else '.' + name} is {a!r:.80} and {b!r:.80}"
    return None


def value_of(record: RunRecord, metric: str = "validation_nll") -> float | None:
    return record.metrics.get(metric, {}).get("value")


def curve(record: RunRecord, metric: str = "validation_nll") -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a figure along training, float64 [n] each; empty where it was not followed."""
    found = record.metrics.get(metric, {})
    return np.asarray(found.get("steps", []), float), np.asarray(found.get("values", []), float)


def at_step(record: RunRecord, step: float, metric: str = "validation_nll") -> float | None:
    """A figure at a step, between two measurements on the line through them; None before the first."""
    steps, values = curve(record, metric)
    if not steps.size or not steps[0] <= step <= steps[-1]:
        return None
    return float(np.interp(step, steps, values))


def _rise(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else 100 * (value / base - 1)
