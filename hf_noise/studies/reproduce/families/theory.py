"""What theory gives: figures that are computed, and one cell of seconds that draws them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_noise.analysis.information import relative_information_loss
from hf_noise.analysis.ntp_theory import bilingual
from hf_noise.reports.claims import Rows
from hf_noise.reports.paper import published
from hf_noise.reports.record import RunRecord
from hf_noise.studies.reproduce.cells import Family, Part, parsed
from hf_noise.studies.settings import parse


def information(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """The loss of information at the printed error rates, for each number of classes."""
    table = published("A.figure3")
    return {p: {name: {0: float(relative_information_loss(p, int(name.removeprefix("n"))))} for name in table.columns}
            for p in table.keys}  # fmt: skip


def two_languages(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """What following the noise does to both losses, at the printed multiples of eta."""
    found, rows = bilingual(), {}
    for times in published("B.figure9").keys:
        eps = times * found.eta
        rows[times] = {"loss_c_rise": {0: float(found.clean_loss_rise(eps))},
                       "loss_n_drop": {0: float(found.noise_loss_drop(eps))}}  # fmt: skip
    return rows


class _Theory(Family):
    readers = {"A.figure3": information, "B.figure9": two_languages}

    def commands(self, flags: Sequence[str], output: Path, seeds: int | None) -> list[list[str]]:
        return super().commands(flags, output, None)  # nothing is drawn

    def settings(self, argv: Sequence[str]) -> Any:
        from hf_noise.studies.theory.study import Settings

        return parsed(lambda flags: parse(Settings, flags, ""), argv)

    def cells(self, settings: Any) -> Iterable[tuple[str, list[Part]]]:
        yield "values", [Part(Path(settings.output) / "theory.json", "values", "theory")]

    def make(self, settings: Any, name: str) -> None:
        from hf_noise.studies.theory.report import show

        print(show(settings, None))


FAMILY = _Theory()
