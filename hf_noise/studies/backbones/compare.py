"""The heads of a study by model, task, kind and seed, from the records that it wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hf_noise.reports.record import RunRecord, read_records
from hf_noise.reports.verdicts import Spread, spread
from hf_noise.studies.backbones.study import Settings, backbone_settings, tasks_of
from hf_noise.studies.documents import study as documents
from hf_noise.studies.documents.settings import DocumentRun

__all__ = ["LGM", "PLAIN", "Backbone", "Heads", "read_heads"]

PLAIN, LGM = "none", "difference"


@dataclass(frozen=True)
class Backbone:
    """What the models of one noise have in common."""

    protocol: str
    alpha: float

    @property
    def label(self) -> str:
        return f"{self.protocol.removesuffix('-documents')} {self.alpha:g}" if self.alpha else "no noise"


@dataclass(frozen=True)
class Heads:
    """Test accuracies in percent, `values[backbone, task, head, penalty][model seed, head seed]`, and clean NLLs."""

    values: Mapping[tuple[Backbone, str, str, str], Mapping[tuple[int, int], float]]
    nll: Mapping[Backbone, Spread]
    backbones: Sequence[Backbone]
    tasks: Sequence[str]
    kinds: Sequence[str]

    def accuracy(self, backbone: Backbone, task: str | None, head: str, penalty: str) -> Spread:
        """Over seeds of heads, of one task or of the mean over tasks."""
        return spread(list(self.by_seed(backbone, task, head, penalty).values()))

    def by_seed(self, backbone: Backbone, task: str | None, head: str, penalty: str) -> dict[int, float]:
        """Mean over models and tasks for each seed of heads."""
        tasks = self.tasks if task is None else [task]
        cells = [self.values[backbone, one, head, penalty] for one in tasks]
        seeds = sorted({seed for cell in cells for _, seed in cell})
        return {seed: _mean([value for cell in cells for (_, own), value in cell.items() if own == seed])
                for seed in seeds}  # fmt: skip

    def by_model(self, backbone: Backbone, head: str, penalty: str) -> dict[int, float]:
        """Mean over tasks and seeds of heads for each model."""
        cells = [self.values[backbone, task, head, penalty] for task in self.tasks]
        models = sorted({model for cell in cells for model, _ in cell})
        return {model: _mean([value for cell in cells for (own, _), value in cell.items() if own == model])
                for model in models}  # fmt: skip

    def gain(self, backbone: Backbone, task: str | None, head: str) -> Spread:
        """Points that LGM adds, paired by seed."""
        plain, ours = (self.by_seed(backbone, task, head, penalty) for penalty in (PLAIN, LGM))
        return spread([ours[seed] - plain[seed] for seed in plain])

    def over_clean(self, backbone: Backbone, head: str) -> Spread:
        """Points that features are better than those of models without noise, paired by seed of models, plain.

        What has noise or not is the model: more heads on it say no more of the noise.
        """
        clean = next(one for one in self.backbones if not one.alpha)
        ours, theirs = (self.by_model(one, head, PLAIN) for one in (backbone, clean))
        return spread([ours[seed] - theirs[seed] for seed in theirs])

    def mean_gain(self, head: str) -> Spread:
        """Points that LGM adds on the mean over all models and tasks, paired by seed."""
        cells = [self.gain(one, None, head).values for one in self.backbones]
        return spread([_mean(of_seed) for of_seed in zip(*cells, strict=True)])

    def raised(self, head: str) -> tuple[int, int]:
        """Cells of model and task that LGM raises on the mean over seeds, and how many there are."""
        gains = [self.gain(one, task, head).mean for one in self.backbones for task in self.tasks]
        return sum(gain > 0 for gain in gains), len(gains)


def read_heads(settings: Settings) -> Heads:
    """What the runs of these settings wrote.

    Raises FileNotFoundError: a record is missing; the same command makes it.
    """
    runs, tasks = documents.STUDY.planned(backbone_settings(settings))[0], [task.name for task in tasks_of(settings)]
    values: dict[tuple[Backbone, str, str, str], dict[tuple[int, int], float]] = {}
    nll: dict[Backbone, list[float]] = {}
    for run in runs:
        backbone = _backbone(run)
        told = _record(Path(settings.output) / "backbones" / run.name)
        nll.setdefault(backbone, []).append(told.metrics["validation_nll"]["value"])
        for task in tasks:
            for record in read_records(Path(settings.output) / "heads" / run.name / task):
                head, penalty = record.model["head"], record.loss["penalty"]["name"]
                if head in settings.head and record.seed in settings.seed:
                    cell = values.setdefault((backbone, task, head, penalty), {})
                    cell[run.seed, record.seed] = 100 * record.metrics["test_accuracy"]["value"]
    missing = [
        (one.label, task, head) for one in nll for task in tasks for head in settings.head for penalty in (PLAIN, LGM)
        if len(values.get((one, task, head, penalty), {})) != len(settings.seed) * len(settings.model_seed)
    ]  # fmt: skip
    if missing:
        raise FileNotFoundError(f"{settings.output} lacks records of {', '.join(missing[0])}; run the command again")
    return Heads(values, {one: spread(found) for one, found in nll.items()}, list(nll), tasks, settings.head)


def _backbone(run: DocumentRun) -> Backbone:
    return Backbone(run.protocol, run.alpha)


def _record(folder: Path) -> RunRecord:
    return RunRecord.from_json((folder / "record.json").read_text(encoding="utf-8"))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
