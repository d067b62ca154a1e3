"""What studies of noise documents share, of causal and of masked models: settings, runs, and their compute."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from hf_noise.noise import rates
from hf_noise.noise.protocols import protocol_names
from hf_noise.noise.schedule import FixedBudget, Plan
from hf_noise.studies.ranges import Count, NotNegative, Positive, ShareBelowOne
from hf_noise.studies.settings import SettingError, TrainingSettings, setting
from hf_noise.studies.text_settings import TextSettings

__all__ = ["CURES", "PLACEMENTS", "DocumentRun", "DocumentSettings", "corpora_of", "plan_of", "runs_of"]

PLACEMENTS = ["append", "interleave"]
#: Where the loss that weighs rows has alpha from.
CURES = ["known", "learned"]


@dataclass
class DocumentSettings(TextSettings, TrainingSettings):
    """Settings of a study of noise documents; a subclass adds the model."""

    one_or_more: ClassVar = ("seed", "protocol", "alpha")

    protocol: list[str] = setting(
        ["random-documents"], f"documents of noise: {', '.join(protocol_names('documents'))}",
        group="noise and loss", choices=[*protocol_names("documents")], in_result=False,
    )  # fmt: skip
    alpha: list[ShareBelowOne] = setting(
        None, "shares of noise in the mixture; a run without noise is made too", group="noise and loss",
        in_result=False,
    )  # fmt: skip
    placement: str = setting(
        "append", "noise after the text, as in paper B, or among it", group="noise and loss", choices=PLACEMENTS
    )
    cure: list[str] | None = setting(
        None, "runs with the mixture's likelihood, alpha known or learned; without a value none (default: learned, "
        "none of a stream)",
        group="noise and loss", choices=CURES, in_result=False,
    )  # fmt: skip
    equal_clean: bool = setting(
        True, "a run without noise too that sees as much text as the noisiest", group="noise and loss",
        in_result=False,
    )  # fmt: skip
    steps: Count = setting(None, "optimiser steps of each run")
    learning_rate: Positive = setting(None, "peak; cosine to a tenth")
    warmup: NotNegative = setting(None, "steps, or below 1 a share of them")
    weight_decay: NotNegative = setting(0.1, "on matrices only")
    eval: list[str] = setting(
        [], "other clean text, measured along training: name=source, or name:column=source", group="measurement"
    )
    eval_rows: Count = setting(1024, "rows of each of those, at most, spread over all of it", group="measurement")
    evaluations: Count = setting(12, "how often all held-out rows are measured in a run", group="measurement")
    noise_rows: Count = setting(64, "held-out rows of noise", group="measurement")
    score_rows: Count = setting(512, "training rows among which those of noise are to be found", group="measurement")

    def complete(self) -> None:
        self.complete_text()
        if self.cure is None:
            self.cure = [] if self.streaming else ["learned"]
        corpora_of(self)
        if self.streaming and self.placement == "append":
            raise SettingError("--streaming reads rows in order, and --placement append has all noise after the text: "
                               "add --placement interleave")  # fmt: skip
        if self.streaming and self.cure:
            raise SettingError("--cure: the rows that are found are read again in order; with --streaming leave it out")
        if len(set(self.alpha)) < len(self.alpha) or len(set(self.protocol)) < len(self.protocol):
            raise SettingError("--alpha and --protocol: each value once")


@dataclass(frozen=True)
class DocumentRun:
    """One setting. `loss` is "nll", or where the mixture's likelihood has alpha from. `clean_of` is the alpha whose
    text a run without noise sees as much of, None for all of its own.
    """

    protocol: str
    alpha: float
    loss: str
    seed: int
    clean_of: float | None = None

    @property
    def ratio(self) -> float:
        return rates.ratio(self.alpha)

    @property
    def name(self) -> str:
        if self.clean_of is not None:
            return f"clean-text-of-a{self.clean_of:g}-seed{self.seed}"
        if self.alpha == 0:
            return f"clean-seed{self.seed}"
        how = self.loss if self.loss == "nll" else f"mixture-{self.loss}"
        return f"{self.protocol}-a{self.alpha:g}-{how}-seed{self.seed}"


def runs_of(settings: DocumentSettings) -> list[DocumentRun]:
    """The runs of a study; without noise one for each seed, and one that sees as much text as the noisiest."""
    runs, alphas = [], sorted(alpha for alpha in settings.alpha if alpha)
    for seed in settings.seed:
        runs.append(DocumentRun("none", 0.0, "nll", seed))
        if settings.equal_clean and alphas:
            runs.append(DocumentRun("none", 0.0, "nll", seed, clean_of=alphas[-1]))
        runs += [
            DocumentRun(protocol, alpha, loss, seed)
            for protocol in settings.protocol for alpha in alphas for loss in ("nll", *dict.fromkeys(settings.cure))
        ]  # fmt: skip
    return runs


def plan_of(settings: DocumentSettings, run: DocumentRun, rows: int | None) -> Plan:
    """Steps and batch of a run: the same for all, but for the one that sees less text."""
    plan = FixedBudget().plan(run.ratio, steps=settings.steps, batch_size=settings.batch_size)
    if run.clean_of is None:
        return plan
    return replace(plan, steps=max(1, round(settings.steps * (1 - run.clean_of))))


def corpora_of(settings: DocumentSettings) -> dict[str, tuple[str, str | None]]:
    """Source of each of `--eval` by name, and the column of its text where that is said.

    Raises SettingError: a name that is none, or stands twice, or is taken.
    """
    found: dict[str, tuple[str, str | None]] = {}
    for one in settings.eval:
        named, given, source = one.partition("=")
        name, has_column, column = named.partition(":")
        if not given or not source or not name.isidentifier() or bool(has_column) != bool(column):
            raise SettingError(f"--eval takes name=source, such as wiki=wiki.parquet, got {one!r:.80}")
        if name in found or name in ("validation", "noise"):
            raise SettingError(f"--eval {name}: the name is taken; give each corpus one of its own")
        found[name] = source, column or None
    return found
