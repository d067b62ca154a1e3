"""Tables and figures of language models among noise documents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_noise.reports.claims import Rows
from hf_noise.reports.record import RunRecord
from hf_noise.reports.verdicts import Verdict
from hf_noise.studies.documents.claims import GAUSSIAN, verdicts
from hf_noise.studies.documents.compare import UNIFORM, Compared, Setting, at_step, compared, value_of
from hf_noise.studies.reproduce.cells import Trained

__all__ = ["FAMILY", "along_training"]

CLEAN = Setting("none", 0.0, "nll")


def rise(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """By how many percent the loss on clean text is above that without noise, by alpha."""
    study, rows = compared(records), {}
    for setting in study.noisy("nll"):
        if setting.protocol == UNIFORM:
            runs = study.runs[setting]
            found = {seed: 100 * (value_of(runs[seed]) / value_of(study.clean[seed]) - 1)
                     for seed in sorted(runs) if seed in study.clean}  # fmt: skip
            rows[setting.alpha] = {"loss_rise": found}
    return rows


def by_noise(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """Losses on text and on the noise trained on, without noise and with each kind, at one alpha."""
    study, rows = compared(records), {}
    for name, setting in (("none", CLEAN), ("uniform", Setting(UNIFORM, 0.05, "nll")),
                          ("gaussian", Setting(GAUSSIAN, 0.05, "nll"))):  # fmt: skip
        runs = study.runs.get(setting, {})
        rows[name] = {metric: _values(runs, metric) for metric in ("validation_nll", "noise_nll")}
    return rows


def _values(runs: Mapping[int, RunRecord], metric: str) -> dict[int, float]:
    return {seed: value for seed, run in runs.items() if (value := value_of(run, metric)) is not None}


def along_training(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """The loss on clean text after shares of training, by alpha; the columns and their shares are told."""
    study, rows = compared(records), defaultdict(dict)
    for setting in (CLEAN, *study.noisy("nll")):
        if (runs := study.runs.get(setting)) and setting.protocol in ("none", UNIFORM):
            for column, point in reads["points"].items():
                values = {seed: at_step(run, point * run.budget["steps"]) for seed, run in runs.items()}
                told = {seed: value for seed, value in values.items() if value is not None}
                rows[setting.alpha][column] = told
    return dict(rows)


def exchange_rate(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """Smallest and median k of Proposition 1 along training, by alpha: 0 where the clean loss was no higher."""
    from hf_noise.studies.theory.pair import pair_of
    from hf_noise.studies.theory.study import Settings

    study, rows = compared(records), defaultdict(lambda: defaultdict(dict))
    for setting in study.noisy("nll"):
        for seed, run in study.runs[setting].items():
            if setting.protocol == UNIFORM and seed in study.clean:
                k = pair_of(study.clean[seed], run, Settings().early).k
                if (k := k[~np.isnan(k)]).size:  # elsewhere the noise is known no better than at first: no rate
                    rows[setting.alpha]["k_smallest"][seed] = float(max(0.0, k.min()))
                    rows[setting.alpha]["k_median"][seed] = float(max(0.0, np.median(k)))
    return {alpha: dict(columns) for alpha, columns in rows.items()}


def _verdicts(records: Sequence[RunRecord]) -> list[Verdict]:
    study: Compared = compared(records)
    return verdicts(study, study.task)


FAMILY = Trained(
    "hf_noise.studies.documents.study", verdicts=_verdicts,
    readers={"rise": rise, "B.figure3": by_noise, "B.figure7": exchange_rate, "B.table8": along_training},
)  # fmt: skip
