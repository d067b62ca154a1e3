"""The work: all models, one after the other, then the heads on each."""

from __future__ import annotations

from collections.abc import Iterator

from hf_noise.studies.backbones.study import Settings, backbone_settings, probe_settings, tasks_of
from hf_noise.studies.documents import study as documents
from hf_noise.studies.engine import train, world_of
from hf_noise.studies.probe.run import checked
from hf_noise.studies.probe.run import work as probe
from hf_noise.studies.reading import is_elsewhere

__all__ = ["look", "work"]


def look(settings: Settings) -> Iterator[str]:
    """What a dry run shows: the models, and the rows of each task."""
    runs, plans, _ = documents.STUDY.planned(backbone_settings(settings))
    for run, plan in zip(runs, plans):
        yield f"model {run.name}: {plan.steps} steps of {plan.batch_size} rows"
    for task in tasks_of(settings):
        if is_elsewhere(task.source):
            yield f"task {task.name}: {task.source} on the Hub, which a run downloads"
            continue
        yield f"task {task.name}"
        yield from checked(probe_settings(settings, runs[0].name, task)).describe()


def work(settings: Settings) -> bool:
    """Make all that is not finished; returns whether this is the main process."""
    world_of(settings)
    own, tasks = backbone_settings(settings), tasks_of(settings)
    runs, plans, _ = documents.STUDY.planned(own)
    for task in tasks:  # refuses now what would fail after hours of training
        checked(probe_settings(settings, runs[0].name, task))
    is_main = train(documents.STUDY, own, runs, plans)
    for run in runs:
        for task in tasks:
            probe(probe_settings(settings, run.name, task))
    return is_main
