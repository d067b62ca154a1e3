"""Table 5 of paper A: a cell is a model, trained and then looked at in macro-batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_noise.reports.claims import Rows
from hf_noise.reports.paper import published
from hf_noise.reports.record import RunRecord
from hf_noise.studies.reproduce.cells import Family, Part, decided, parsed
from hf_noise.studies.settings import parse
from hf_noise.studies.stability.study import Settings, models_of
from hf_noise.studies.study import deciding

TASK, MEASURED = "loss_stability", "measured"  # as hf_noise.studies.stability.run, which takes torch, has them


def by_size(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """Mean and scatter (nats / 1000) by the printed sizes: those measured are as many times their smallest."""
    keys = published("A.table5").keys
    rows: dict[int, dict[str, dict[int, float]]] = {key: {} for key in keys}
    for record in records:
        kind = {0.0: "clean", 0.5: "noisy"}.get(record.noise["error_rate"])
        mean, std = (record.metrics[f"macro_batch_{what}"] for what in ("mean", "std"))
        for at, size in enumerate(std["sizes"]):
            key = keys[0] * size // std["sizes"][0]
            if kind and key in rows and record.budget["order"] == "shuffled":
                rows[key].setdefault(f"{kind}_mean", {})[record.seed] = mean["values"][at]
                rows[key].setdefault(f"{kind}_std", {})[record.seed] = 1000 * std["values"][at]
    return rows


class _Stability(Family):
    readers = {"A.table5": by_size}

    def settings(self, argv: Sequence[str]) -> Settings:
        return parsed(lambda flags: parse(Settings, flags, ""), argv)

    def cells(self, settings: Settings) -> Iterable[tuple[str, list[Part]]]:
        for run in _runs(settings):
            file = Path(settings.output) / MEASURED / run.name / "record.json"
            claim = deciding(settings) | {"seed": run.seed}
            yield run.name, [Part(file, run.name, TASK, claim, decided(settings))]

    def make(self, settings: Settings, name: str) -> None:
        from hf_noise.studies.stability.run import measure

        run = next(run for run in _runs(settings) if run.name == name)
        measure(replace(settings, ratio=[run.ratio], seed=[run.seed]))


def _runs(settings: Settings) -> list[Any]:
    from hf_noise.studies.language.study import runs_of

    return runs_of(models_of(settings))


FAMILY = _Stability()
