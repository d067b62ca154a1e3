"""Table of a study of classifiers of noisy images, from its records alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_noise.reports.record import RunRecord
from hf_noise.reports.tables import figure, markdown_table


def show(records: Sequence[RunRecord], settings: Any, runs: Sequence[Any]) -> str:
    return table(records)


def table(records: Sequence[RunRecord]) -> str:
    """One line per run: the matrix against the true one, accuracy at every noise level."""
    records = [record for record in records if record.task == "noisy_classification"]
    levels = [name for name in records[0].metrics if name.startswith("accuracy_sigma")] if records else []
    header = ["run", "e", "T: mean error", "T: largest", "T: worst row (TV)", "NLL", "accuracy, %",
              *(f"at sigma {name.removeprefix('accuracy_sigma')}" for name in levels)]  # fmt: skip
    lines = []
    for record in records:
        metrics = record.metrics
        mean, worst = metrics.get("transition_mean_absolute_error", {}), metrics.get("transition_worst_row", {})
        lines.append([
            record.name, figure(record.noise["error_rate"]), figure(mean.get("value"), 4),
            figure(mean.get("largest"), 4), figure(worst.get("value"), 4), figure(metrics["nll"]["value"]),
            *(figure(100 * metrics[name]["value"], 1) for name in ("accuracy", *levels)),
        ])  # fmt: skip
    return markdown_table(header, lines)
