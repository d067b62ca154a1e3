"""Tables of heads on frozen features: a cell is a kind of head with its labels and loss, all seeds and penalties."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_noise.reports.claims import Rows
from hf_noise.reports.record import RunRecord
from hf_noise.reports.verdicts import Verdict
from hf_noise.studies.probe.study import Run, Settings, runs_of
from hf_noise.studies.reproduce.cells import Family, Part, decided, parsed
from hf_noise.studies.settings import parse
from hf_noise.studies.study import identity

__all__ = ["FAMILY", "accuracy", "parts_of"]

_NAMES = {"difference": "lgm"}


def accuracy(record: RunRecord) -> float:
    """In percent."""
    return 100 * record.metrics["test_accuracy"]["value"]


def by_penalty(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """Accuracy in percent, of each penalty and head."""
    return _by(records, lambda record: _NAMES.get(name := record.loss["penalty"]["name"], name), accuracy)


def of_strength(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """Accuracy with LGM in percent, of each head; the row is told."""
    lgm = [record for record in records if record.loss["penalty"]["name"] == "difference"]
    return _by(lgm, lambda record: reads["row_is"], accuracy)


def areas(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """Correct area in percent, of each penalty and head."""
    looked = [record for record in records if "correct_area" in record.metrics]
    return _by(looked, lambda record: _NAMES.get(name := record.loss["penalty"]["name"], name),
               lambda record: 100 * record.metrics["correct_area"]["value"])  # fmt: skip


def _by(records: Sequence[RunRecord], row_of: Any, figure: Any) -> Rows:
    rows: dict[Any, dict[str, dict[int, float]]] = {}
    for record in records:
        rows.setdefault(row_of(record), {}).setdefault(record.model["head"], {})[record.seed] = figure(record)
    return rows


class _Probe(Family):
    readers = {"B.table5": by_penalty, "B.table6": of_strength, "B.figure6": areas}

    def settings(self, argv: Sequence[str]) -> Settings:
        return parsed(lambda flags: parse(Settings, flags, ""), argv)

    def cells(self, settings: Settings) -> Iterable[tuple[str, list[Part]]]:
        groups: dict[str, list[Run]] = {}
        for run in runs_of(settings):
            groups.setdefault(f"{run.head}-{run.labels}-{run.loss}", []).append(run)
        yield from ((name, parts_of(settings, runs)) for name, runs in groups.items())

    def make(self, settings: Settings, name: str) -> None:
        from hf_noise.studies.probe.run import work

        run = next(run for run in runs_of(settings) if f"{run.head}-{run.labels}-{run.loss}" == name)
        work(replace(
            settings, head=[run.head], ratio=[] if run.ratio is None else [run.ratio],
            protocol=[run.protocol] if run.ratio else settings.protocol, corrected=run.loss == "corrected",
        ))  # fmt: skip

    def verdicts(self, records: Sequence[RunRecord]) -> list[Verdict]:
        from hf_noise.studies.probe.claims import verdicts
        from hf_noise.studies.probe.compare import compared

        return verdicts(compared(records)) if records else []


def parts_of(settings: Settings, runs: Sequence[Run]) -> list[Part]:
    """Records of heads, as far as they are known without the rows."""
    return [Part(Path(settings.output) / run.name / "record.json", run.name, "probe", identity(settings, run),
                 decided(settings)) for run in runs]  # fmt: skip


FAMILY = _Probe()
