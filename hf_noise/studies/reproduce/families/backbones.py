"""Table 1 of paper B: a cell is a model, or the heads on one model for one task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from hf_noise.reports.claims import Rows
from hf_noise.reports.paper import published
from hf_noise.reports.record import RunRecord
from hf_noise.studies.backbones.study import Settings, backbone_settings, probe_settings, tasks_of
from hf_noise.studies.documents.settings import DocumentRun, runs_of
from hf_noise.studies.probe.study import runs_of as heads_of
from hf_noise.studies.reproduce.cells import Family, Part, decided, parsed
from hf_noise.studies.reproduce.families.probe import accuracy, parts_of
from hf_noise.studies.reproduce.naming import few
from hf_noise.studies.settings import parse
from hf_noise.studies.study import identity

_HEADS = "heads-on-"
#: Source of a task, and the seed of a head.
_Head = tuple[str, int]
_MODELS = {"random-documents": "uniform", "gaussian-documents": "gaussian"}


def averages(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """Mean accuracy over tasks and heads in percent by seed of models, of each in the table with LGM and without.

    What differs between rows is the model: more heads on it say no more of the noise. A column is of the tasks and
    seeds of heads that all of its models have; see `uncounted` for the others.
    """
    found, rows = _by_model(records), defaultdict(dict)
    shared = _shared(found)
    for (row, column, seed), heads in found.items():
        if shared[column]:
            rows[row].setdefault(column, {})[seed] = mean(heads[head] for head in shared[column])
    return dict(rows)


def uncounted(records: Sequence[RunRecord]) -> list[str]:
    """In words, which heads are left out of a column's averages, since not all of its models have them."""
    found = _by_model(records)
    shared, others = _shared(found), defaultdict(list)
    for (row, column, seed), heads in found.items():
        others[column] += [f"{task} seed {of_head} on {row} seed {seed}"
                           for task, of_head in sorted({*heads} - {*shared[column]})]  # fmt: skip
    return [f"left out of {column} as heads that not every model has: {few(of)}" for column, of in others.items() if of]


def _by_model(records: Sequence[RunRecord]) -> dict[tuple[str, str, int], dict[_Head, float]]:
    """Accuracy of each head by row of the table, column and seed of the model."""
    keys, found = published("B.table1").keys, defaultdict(dict)
    for record in records:
        penalty = record.loss.get("penalty", {}).get("name")
        if record.task == "probe" and penalty in ("none", "difference"):
            model, _, seed = Path(record.settings["model"]).name.rpartition("-seed")
            row = f"{_row_of(model)}{'+lgm' * (penalty == 'difference')}"
            if row in keys:
                heads = found[row, f"avg_{record.model['head']}", int(seed)]
                heads[str(record.data["source"]), record.seed] = accuracy(record)
    return found


def _shared(found: Mapping[tuple[str, str, int], Mapping[_Head, float]]) -> dict[str, list[_Head]]:
    """Of each column, the heads that all of its models have."""
    by: dict[str, list[set[_Head]]] = defaultdict(list)
    for (_, column, _), heads in found.items():
        by[column].append({*heads})
    return {column: sorted(set.intersection(*sets)) for column, sets in by.items()}


def _row_of(model: str) -> str:
    """What the table calls a model, from the name of its run without the seed."""
    for protocol, kind in _MODELS.items():
        if model.startswith(f"{protocol}-a"):
            alpha = float(model.removeprefix(f"{protocol}-a").partition("-")[0])
            return f"{kind}_{100 * alpha:g}pct"
    return model


class _Backbones(Family):
    seeds = ("seed", "model_seed")
    readers = {"B.table1": averages}
    averaging = ("B.table1",)

    def uncounted(self, records: Sequence[RunRecord]) -> list[str]:
        return uncounted(records)

    def commands(self, flags: Sequence[str], output: Path, seeds: int | None) -> list[list[str]]:
        found = super().commands(flags, output, None)
        # What is repeated is the model; `--seed` is that of heads, of which a table has the mean.
        return found if seeds is None else [[*one, "--model_seed", *map(str, range(seeds))] for one in found]

    def settings(self, argv: Sequence[str]) -> Settings:
        return parsed(lambda flags: parse(Settings, flags, ""), argv)

    def cells(self, settings: Settings) -> Iterable[tuple[str, list[Part]]]:
        own = backbone_settings(settings)
        for run in runs_of(own):
            yield run.name, [_model_part(own, run)]
        for run, task in _pairs(settings):
            heads, model = probe_settings(settings, run.name, task), _model_part(own, run)
            parts = [replace(part, model=model) for part in parts_of(heads, heads_of(heads))]
            yield f"{_HEADS}{run.name}-{task.name}", parts

    def make(self, settings: Settings, name: str) -> None:
        from hf_noise.studies.documents.study import STUDY
        from hf_noise.studies.engine import train
        from hf_noise.studies.probe.run import work

        own = backbone_settings(settings)
        for run, task in _pairs(settings):
            if name == f"{_HEADS}{run.name}-{task.name}":
                if not _model_part(own, run).is_done:  # a record of elsewhere has no weights
                    self.make(settings, run.name)
                work(probe_settings(settings, run.name, task))
                return
        runs, plans, _ = STUDY.planned(own)
        at = [run.name for run in runs].index(name)
        train(STUDY, own, [runs[at]], [plans[at]])


def _model_part(settings: Any, run: DocumentRun) -> Part:
    file = Path(settings.output) / run.name / "record.json"
    return Part(file, run.name, "causal_lm", identity(settings, run), decided(settings))


def _pairs(settings: Settings) -> list[tuple[DocumentRun, Any]]:
    return [(run, task) for run in runs_of(backbone_settings(settings)) for task in tasks_of(settings)]


FAMILY = _Backbones()
