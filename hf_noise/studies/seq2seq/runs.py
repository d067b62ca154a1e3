"""The runs of a study of teacher noise, and the objective that each of them minimises."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hf_noise.objectives import ErrorNorm, Objective, SequenceMixture, Truncated
from hf_noise.studies.losses import objective_class

__all__ = ["LOSSES", "OTHERS", "STRENGTHS", "TASKS", "Run", "objective_of", "runs_of"]

TASKS = ["sparse", "rich"]
#: What noisy runs are trained with; other objectives on tokens are of noise on each token for itself. Two are the plain
#: NLL on fewer pairs: "oracle" on the right ones alone, "audited" on those that a mixture calls right.
LOSSES = ["nll", "sequence-mixture", "audited", "truncated", "error-norm", "gce", "oracle"]
#: Of these, with the setting that a run of it has one value of.
STRENGTHS = {"truncated": "fraction", "error-norm": "threshold"}
#: Where the mixture has the other writer's likelihood from.
OTHERS = ["teacher", "learned", "unigram"]
_SHORT = {"sequence-mixture": "mixture"}


@dataclass(frozen=True)
class Run:
    """One setting; `other` is "none" but for the mixture and its audit, `strength` None but for the truncations."""

    task: str
    ratio: float
    loss: str
    other: str
    seed: int
    strength: float | None = None

    @property
    def cure(self) -> str:
        """Loss and other writer, or its strength, as one word."""
        if self.strength is not None:
            return f"{self.loss}-{self.strength:g}"
        return self.loss if self.other == "none" else f"{_SHORT.get(self.loss, self.loss)}-{self.other}"

    @property
    def audit(self) -> str:
        """Name of the run whose audit says which pairs this one is trained on."""
        return replace(self, loss="sequence-mixture").name

    @property
    def name(self) -> str:
        what = f"r{self.ratio:.4g}-{self.cure}" if self.ratio else "clean"
        return f"{self.task}-{what}-seed{self.seed}"

    @property
    def kind(self) -> str:
        """What a step of it takes the time of, see `hf_noise.studies.dry_run`."""
        return f"{self.task} {self.other}"


def runs_of(settings: Any) -> list[Run]:
    """The runs of a study: of each task and seed the plain loss at each ratio, and the others at those of cures."""
    runs = []
    for seed in settings.seed:
        for task in settings.task:
            for ratio in sorted(settings.ratio):
                if ratio == 0 or "nll" in settings.loss:
                    runs.append(Run(task, ratio, "nll", "none", seed))
                if ratio and ratio in settings.cured:
                    plain = Run(task, ratio, "nll", "none", seed)
                    runs += [run for loss in settings.loss if loss != "nll"
                             for run in _of_loss(replace(plain, loss=loss), settings)]  # fmt: skip
    return list(dict.fromkeys(runs))


def _of_loss(run: Run, settings: Any) -> list[Run]:
    if run.loss in STRENGTHS:
        return [replace(run, strength=value) for value in getattr(settings, STRENGTHS[run.loss])]
    others = settings.other if run.loss in ("sequence-mixture", "audited") else ["none"]
    return [replace(run, other=other) for other in others]


def objective_of(run: Run, settings: Any) -> str | Objective:
    """What a run minimises. Who does not know the teacher does not know e either."""
    if run.loss in ("nll", "oracle", "audited"):
        return "nll"
    if run.loss == "sequence-mixture":
        return SequenceMixture("known" if run.other == "teacher" else "learned", other=run.other)
    if run.loss == "truncated":
        return Truncated(fraction=run.strength, drops="rows")
    if run.loss == "error-norm":
        return ErrorNorm(threshold=run.strength)
    return objective_class(run.loss, "tokens")()
