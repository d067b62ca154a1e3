"""Tables of encoder-decoders on a teacher's targets; of the paper's, translation has the poor source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_noise.reports.claims import Rows
from hf_noise.reports.record import RunRecord
from hf_noise.studies.reproduce.cells import Trained
from hf_noise.studies.seq2seq.compare import NLL, PAPER_COLUMNS, Compared, Setting, clean_of, compared, value_of


def _by_ratio(ending: str, figure: Callable[[RunRecord, RunRecord | None], float | None]) -> Callable[..., Rows]:
    """Rows by ratio of a figure of each task: of a run, and of the one without noise of its seed."""

    def read(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
        study: Compared = compared(records)
        rows: dict[float, dict[str, dict[int, float]]] = {}
        for task in study.tasks:
            column = PAPER_COLUMNS[task].replace("nll", ending)
            clean = study.runs.get(clean_of(task), {})
            for ratio in [0.0, *study.ratios(task)]:
                runs = study.runs.get(Setting(task, ratio), {})
                found = {seed: figure(run, clean.get(seed)) for seed, run in sorted(runs.items())}
                told = {seed: value for seed, value in found.items() if value is not None}
                rows.setdefault(ratio, {})[column] = told
        return rows

    return read


def _nll(run: RunRecord, clean: RunRecord | None) -> float | None:
    return value_of(run, NLL)


def _rise(run: RunRecord, clean: RunRecord | None) -> float | None:
    return None if clean is None else 100 * (value_of(run, NLL) / value_of(clean, NLL) - 1)


FAMILY = Trained(
    "hf_noise.studies.seq2seq.study",
    readers={"A.table10": _by_ratio("nll", _nll), "A.figure2": _by_ratio("rise", _rise)},
)  # fmt: skip
