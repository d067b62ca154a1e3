"""Table 4 of paper A: a cell is a rate of corruption and a size of batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hf_noise.reports.claims import Rows
from hf_noise.reports.record import RunRecord
from hf_noise.studies.gradient_coherence.study import Settings
from hf_noise.studies.reproduce.cells import Family, Part, decided, parsed
from hf_noise.studies.settings import parse
from hf_noise.studies.study import deciding

TASK = "gradient_coherence"


def cosines_and_lengths(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """All figures of a setting, by the names that the table has for it."""
    rows: dict[str, dict[str, dict[int, float]]] = {}
    for record in records:
        row = rows.setdefault(f"e{record.noise['error_rate']:g}-b{record.budget['batch_size']}", {})
        for name, told in record.metrics.items():
            ends = {f"{name}_{end}": told[end] for end in ("smallest", "largest") if told.get(end) is not None}
            for column, value in ({name: told["value"]} | ends).items():
                row.setdefault(column, {})[record.seed] = value
    return rows


class _Coherence(Family):
    readers = {"A.table4": cosines_and_lengths}

    def commands(self, flags: Sequence[str], output: Path, seeds: int | None) -> list[list[str]]:
        # One seed a command, whose rows are drawn by it.
        return [one for seed in range(1 if seeds is None else seeds)
                for one in super(_Coherence, self).commands([*flags, "--seed", str(seed)], output, None)]  # fmt: skip

    def settings(self, argv: Sequence[str]) -> Settings:
        return parsed(lambda flags: parse(Settings, flags, ""), argv)

    def cells(self, settings: Settings) -> Iterable[tuple[str, list[Part]]]:
        for cell in settings.cells:
            file = Path(settings.output) / cell.name / "record.json"
            claim = deciding(settings) | asdict(cell)
            yield cell.name, [Part(file, cell.name, TASK, claim, decided(settings))]

    def make(self, settings: Settings, name: str) -> None:
        from hf_noise.studies.gradient_coherence.run import load, measure

        cell = next(cell for cell in settings.cells if cell.name == name)
        # Rows are drawn for the largest batches; smaller ones have the first of them, also alone.
        alone = replace(settings, corruption=[cell.corruption], batch_size=[cell.batch_size])
        measure(alone, load(alone))


FAMILY = _Coherence()
