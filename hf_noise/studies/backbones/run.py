"""The work: all models, one after the other, then the heads on each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hf_noise.studies.backbones.study import Settings, backbone_settings, probe_settings, tasks_of
from hf_noise.studies.documents import study as documents
from hf_noise.studies.engine import train, world_of
from hf_noise.studies.probe.data import ProbeData
from hf_noise.studies.probe.run import checked, fit, prepared
from hf_noise.studies.probe.study import Settings as ProbeSettings
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
    args = world_of(settings)
    own, tasks = backbone_settings(settings), tasks_of(settings)
    runs, plans, _ = documents.STUDY.planned(own)
    for task in tasks:  # refuses now what would fail after hours of training
        checked(probe_settings(settings, runs[0].name, task))
    is_main = train(documents.STUDY, own, runs, plans)
    ready = features([probe_settings(settings, run.name, task) for run in runs for task in tasks], is_main)
    # One process fits all heads. Others would wait for the next features as long, and be given up after a while, so
    # that of several processes all features come first, and lie in memory.
    for job, data in ready if args.world_size == 1 else list(ready):
        if is_main:
            fit(job, data, args.device)
    return is_main


def features(jobs: Iterable[ProbeSettings], is_main: bool) -> Iterator[tuple[ProbeSettings, ProbeData | None]]:
    """Each job with its rows and features, which the main process keeps and all make together."""
    for job in jobs:
        data = prepared(job)
        yield job, data if is_main else None
