"""The runs of a study of fine-tuning, and the objective that each of them minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hf_noise.objectives import (
    L2SP,
    LNSR,
    SMART,
    CorrectedLabels,
    CoTeaching,
    CrossEntropy,
    Objective,
    Regularised,
    VolumePlan,
)
from hf_noise.studies.losses import names_of_losses, objective_class

__all__ = [
    "AS_THEY_COME", "EMBEDDED_MODEL", "LOSSES", "METHODS", "REGULARISERS", "Run", "objective_of", "passes_of",
    "runs_of",
]  # fmt: skip

#: An encoder of this name is trained for a moment on `embedded/docs-text`, before all runs, in `<output>/encoder`.
EMBEDDED_MODEL = "embedded/modernbert-nano"
#: What stands for a protocol where labels are wrong as they come, and nobody knows how many.
AS_THEY_COME = "as-they-come"
METHODS = ["full", "lora"]
REGULARISERS = ["none", "l2-sp", "smart", "lnsr"]
#: Objectives of noisy runs by name: those on labels, and T that is learned; regularisers have a flag of their own.
_APART = ("regularised", "lgm")
LOSSES = [*(name for name in names_of_losses("labels") if name not in _APART), "estimated"]


@dataclass(frozen=True)
class Run:
    """One setting; `ratio` is None for labels whose rate is what it is; `protocol` is then "weak" or `AS_THEY_COME`."""

    ratio: float | None
    protocol: str
    loss: str
    method: str
    regulariser: str
    lgm: bool
    seed: int

    @property
    def labels(self) -> str:
        """Which labels it learns from, in a few letters."""
        if self.ratio is None:
            return self.protocol
        return f"r{self.ratio:.4g}-{self.protocol}" if self.ratio else "clean"

    @property
    def name(self) -> str:
        parts = [self.labels, self.loss, self.method]
        parts += [self.regulariser] * (self.regulariser != "none") + ["lgm"] * self.lgm
        return "-".join([*parts, f"seed{self.seed}"])

    @property
    def kind(self) -> str:
        """What a step of it takes the time of, see `hf_noise.studies.dry_run`."""
        return f"{self.method} {self.regulariser} {self.lgm}"

    @property
    def ignores(self) -> tuple[str, ...]:
        """Settings that its result does not depend on."""
        of_lora = ("lora_r", "lora_alpha", "lora_dropout", "lora_targets", "lora_learning_rate")
        ignored = ["learning_rate"] if self.method == "lora" else [*of_lora]
        ignored += [] if self.lgm else ["gamma", "lam"]
        ignored += [name.replace("-", "_") for name in REGULARISERS[1:] if name != self.regulariser]
        ignored += [] if self.regulariser == "smart" else ["smart_epsilon"]
        ignored += [] if self.loss == "estimated" else ["matrix_rate"]
        ignored += [] if self.loss == "co-teaching" else ["forget_rate"]
        ignored += [] if self.protocol == "weak" else ["weak_column"]
        return (*ignored, *(() if self.ratio else ("redraw", "pairs", "allow_adversarial")))


def runs_of(settings: Any) -> list[Run]:
    """The runs of a study.

    Of each method and seed: on right labels (ratio 0) and on each kind of wrong ones, plain cross-entropy with each
    regulariser, and with LGM; on wrong labels each other loss, without any. Where labels are taken as they come, on
    those alone.
    """
    noises: list[tuple[float | None, str]] = [(0.0, "none")] * (0.0 in settings.ratio)
    if settings.as_they_come:
        noises = [(None, AS_THEY_COME)]
    elif settings.weak_column is not None:
        noises.append((None, "weak"))
    else:
        noises += [(r, protocol) for protocol in settings.protocol for r in settings.ratio if r]
    runs = []
    for seed in settings.seed:
        for ratio, protocol in noises:
            for method in settings.method:
                plain = [(name, with_lgm) for with_lgm in [False] + [True] * settings.lgm
                         for name in settings.regulariser]  # fmt: skip
                if "nll" in settings.loss or ratio == 0:
                    runs += [Run(ratio, protocol, "nll", method, *one, seed) for one in plain]
                runs += [Run(ratio, protocol, loss, method, "none", False, seed)
                         for loss in settings.loss if loss != "nll" and ratio != 0]  # fmt: skip
    return list(dict.fromkeys(runs))


def objective_of(run: Run, settings: Any) -> Objective:
    """What a run minimises."""
    if run.loss == "estimated":
        rate = settings.lora_learning_rate if run.method == "lora" else settings.learning_rate
        base: Objective = CorrectedLabels("estimated", VolumePlan(matrix_rate=settings.matrix_rate / rate))
    elif run.lgm:
        base = objective_class("lgm", "labels")(gamma=settings.gamma, lam=settings.lam)
    else:
        kind = CrossEntropy if run.loss == "nll" else objective_class(run.loss, "labels")
        told = {"seed": run.seed} if "seed" in kind.__dataclass_fields__ else {}
        if run.loss == "co-teaching" and settings.forget_rate is not None:
            told["forget_rate"] = settings.forget_rate
        base = kind(**told)
    far = settings.smart_epsilon
    regulariser = {
        "l2-sp": {"l2_sp": L2SP(alpha=settings.l2_sp)},
        "smart": {"smart": SMART(weight=settings.smart, epsilon=far, sigma=far, step_size=100 * far)},
        "lnsr": {"lnsr": LNSR(weight=settings.lnsr)}, "none": None,
    }[run.regulariser]  # fmt: skip
    return base if regulariser is None else Regularised(base, **regulariser, seed=run.seed)


def passes_of(objective: Objective) -> int:
    """Passes forward and back through a network that a row of a step takes, at most: 1 of most, 2 of co-teaching, which
    trains two networks, 3 of SMART with one step of ascent, 2 of LNSR."""
    passes = 2 if isinstance(getattr(objective, "base", objective), CoTeaching) else 1
    if (smart := getattr(objective, "smart", None)) is not None:
        passes += smart.steps + 1
    return passes + (getattr(objective, "lnsr", None) is not None)
