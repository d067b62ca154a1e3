"""Table 1 of paper B: a cell is a model, or the heads on one model for one task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from hf_noise.reports.claims import Rows
from hf_noise.reports.record import RunRecord
from hf_noise.studies.backbones.study import Settings, backbone_settings, probe_settings, tasks_of
from hf_noise.studies.documents.settings import DocumentRun, runs_of
from hf_noise.studies.probe.study import runs_of as heads_of
from hf_noise.studies.reproduce.cells import Family, Part, decided, parsed
from hf_noise.studies.reproduce.families.probe import accuracy, parts_of
from hf_noise.studies.settings import parse
from hf_noise.studies.study import identity

_HEADS = "heads-on-"
_MODELS = {"random-documents": "uniform", "gaussian-documents": "gaussian"}


def averages(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """Mean accuracy over tasks in percent, of each model with LGM and without, and kind of head."""
    found: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    for record in records:
        penalty = record.loss.get("penalty", {}).get("name")
        if record.task == "probe" and penalty in ("none", "difference"):
            row = f"{_row_of(Path(record.settings['model']).name)}{'+lgm' * (penalty == 'difference')}"
            tasks = found.setdefault((row, f"avg_{record.model['head']}"), {}).setdefault(record.seed, {})
            tasks[str(record.data["source"])] = accuracy(record)
    rows: dict[str, dict[str, dict[int, float]]] = {}
    for (row, column), seeds in found.items():
        rows.setdefault(row, {})[column] = {seed: mean(tasks.values()) for seed, tasks in seeds.items()}
    return rows


def _row_of(model: str) -> str:
    """What the table calls the model of a run, from the run's name."""
    for protocol, kind in _MODELS.items():
        if model.startswith(f"{protocol}-a"):
            alpha = float(model.removeprefix(f"{protocol}-a").partition("-")[0])
            return f"{kind}_{100 * alpha:g}pct"
    return "clean" if model.startswith("clean-seed") else model


class _Backbones(Family):
    readers = {"B.table1": averages}

    def settings(self, argv: Sequence[str]) -> Settings:
        return parsed(lambda flags: parse(Settings, flags, ""), argv)

    def cells(self, settings: Settings) -> Iterable[tuple[str, list[Part]]]:
        own = backbone_settings(settings)
        for run in runs_of(own):
            file = Path(own.output) / run.name / "record.json"
            yield run.name, [Part(file, run.name, "causal_lm", identity(own, run), decided(own))]
        for run, task in _pairs(settings):
            heads = probe_settings(settings, run.name, task)
            yield f"{_HEADS}{run.name}-{task.name}", parts_of(heads, heads_of(heads))

    def make(self, settings: Settings, name: str) -> None:
        from hf_noise.studies.documents.study import STUDY
        from hf_noise.studies.engine import train
        from hf_noise.studies.probe.run import work

        for run, task in _pairs(settings):
            if name == f"{_HEADS}{run.name}-{task.name}":
                work(probe_settings(settings, run.name, task))
                return
        own = backbone_settings(settings)
        runs, plans, _ = STUDY.planned(own)
        at = [run.name for run in runs].index(name)
        train(STUDY, own, [runs[at]], [plans[at]])


def _pairs(settings: Settings) -> list[tuple[DocumentRun, Any]]:
    return [(run, task) for run in runs_of(backbone_settings(settings)) for task in tasks_of(settings)]


FAMILY = _Backbones()
