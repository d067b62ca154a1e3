"""The runs of a study of teacher noise, and the objective that each of them minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hf_noise.objectives import ErrorNorm, Objective, SequenceMixture, Truncated
from hf_noise.studies.losses import objective_class

__all__ = ["LOSSES", "ORACLE", "OTHERS", "OWN", "TASKS", "Run", "objective_of", "runs_of"]

TASKS = ["sparse", "rich"]
#: Of noisy runs; other objectives on tokens are of noise that falls on each token for itself. "oracle" is no objective
#: but a reference, the likelihood of the right pairs alone: what the best audit can win at the same number of steps.
LOSSES = ["nll", "oracle", "sequence-mixture", "truncated", "error-norm", "gce"]
ORACLE = "oracle"
#: Baselines with a parameter of which several values are tried: the setting of that name.
OWN = {"truncated": "fraction", "error-norm": "threshold"}
#: Where the mixture has the other writer's likelihood from.
OTHERS = ["teacher", "learned", "unigram"]


@dataclass(frozen=True)
class Run:
    """One setting; `other` is "none" but for the mixture, `own` the value of a baseline's own parameter."""

    task: str
    ratio: float
    loss: str
    other: str
    seed: int
    own: float | None = None

    @property
    def cure(self) -> str:
        """Loss and other writer as one word."""
        return self.loss if self.other == "none" else f"mixture-{self.other}"

    @property
    def name(self) -> str:
        what = f"r{self.ratio:.4g}-{self.cure}" if self.ratio else "clean"
        what += "" if self.own is None else f"-{self.own:g}"
        return f"{self.task}-{what}-seed{self.seed}"

    @property
    def kind(self) -> str:
        """What a step of it takes the time of, see `hf_noise.studies.dry_run`."""
        return f"{self.task} {self.other}"

    @property
    def ignores(self) -> tuple[str, ...]:
        """Settings that its result does not depend on: it has its own value of those that are tried."""
        return tuple(OWN.values())


def runs_of(settings: Any) -> list[Run]:
    """The runs of a study: of each task and seed the plain loss at each ratio, and the others at those of cures."""
    runs = []
    for seed in settings.seed:
        for task in settings.task:
            for ratio in sorted(settings.ratio):
                if ratio == 0 or "nll" in settings.loss:
                    runs.append(Run(task, ratio, "nll", "none", seed))
                if ratio and ratio in settings.cured:
                    cures = [loss for loss in settings.loss if loss != "nll"]
                    runs += [Run(task, ratio, loss, other, seed, own) for loss in cures
                             for other in (settings.other if loss == "sequence-mixture" else ["none"])
                             for own in (getattr(settings, OWN[loss]) if loss in OWN else [None])]  # fmt: skip
    return list(dict.fromkeys(runs))


def objective_of(run: Run) -> str | Objective:
    """What a run minimises. Who does not know the teacher does not know e either."""
    if run.loss in ("nll", ORACLE):
        return "nll"
    if run.loss == "sequence-mixture":
        return SequenceMixture("known" if run.other == "teacher" else "learned", other=run.other)
    if run.loss == "truncated":
        return Truncated(fraction=run.own, drops="rows")
    if run.loss == "error-norm":
        return ErrorNorm(threshold=run.own)
    return objective_class(run.loss, "tokens")()
