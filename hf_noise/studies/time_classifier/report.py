"""Table and figure of a study of classifiers of noisy images, from its records alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from hf_noise.metrics.words import METRICS
from hf_noise.noise import noise_from_dict
from hf_noise.reports.checks import check_records
from hf_noise.reports.figures import save_figure, start_figure
from hf_noise.reports.record import RunRecord
from hf_noise.reports.tables import Column, Table, fixed, percent, shown_table

__all__ = ["matrix_figure", "show", "table_of_runs", "true_transition", "used_transition"]

TASK = "noisy_classification"
_AT_SIGMA = "accuracy_sigma"
_LEARNED = {"estimated": "estimated", "anchor": "of anchor points"}
_SOURCES = {"none": "without T", "known": "T known", "human": "T counted in the labels", "estimated": "T estimated",
            "anchor": "T of anchor points"}  # fmt: skip
_COLOURS = {"none": "#b2182b", "known": "#1b7837", "human": "#1b7837", "estimated": "#2166ac", "anchor": "#e08214"}
_STYLES = ("-", "--", ":", "-.")


def show(records: Sequence[RunRecord], settings: Any, runs: Sequence[Any]) -> str:
    """The table as far as there is room, and where the whole one and the figure are."""
    output = Path(settings.output)
    table = shown_table(table_of_runs(records).measured(), output / "study.md")
    return f"{table}\n\nfigure: {matrix_figure(records, output / 'study.png')}"


def of_this_study(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Those of classifiers of noisy images. Raises ValueError: one lacks what is shown; TypeError: no records."""
    check_records(records)
    kept = [record for record in records if record.task == TASK]
    check_records(
        kept, numbers=["metrics.nll.value"], shares=["noise.error_rate", "metrics.accuracy.value"],
        texts={"loss.source": _SOURCES},
    )  # fmt: skip
    return kept


def levels_of(records: Sequence[RunRecord]) -> dict[float, str]:
    """Key of the accuracy at each noise level sigma, in their order."""
    keys = {key for record in records for key in record.metrics if key.startswith(_AT_SIGMA)}
    return dict(sorted((float(key.removeprefix(_AT_SIGMA)), key) for key in keys))


def table_of_runs(records: Sequence[RunRecord]) -> Table:
    """One line per run: the matrix against the true one, accuracy over all noise levels and at each.

    Raises ValueError or TypeError as `of_this_study`.
    """
    records = of_this_study(records)
    levels = levels_of(records)
    columns = [
        Column("run"), Column("e", 1), Column(METRICS["transition_mean_absolute_error"].heading, 2, "T: error"),
        Column("T: largest", 6), Column(METRICS["transition_worst_row"].heading, 3, "T: worst row"),
        Column(METRICS["nll"].heading, 4), Column(METRICS["accuracy"].heading),
        *(Column(f"at sigma {sigma:g}", 5, f"at {sigma:g}") for sigma in levels),
    ]  # fmt: skip
    rows = []
    for record in records:
        metrics = record.metrics
        error, worst = metrics.get("transition_mean_absolute_error", {}), metrics.get("transition_worst_row", {})
        rows.append([
            record.name, fixed(record.noise["error_rate"]), fixed(error.get("value"), 4),
            fixed(error.get("largest"), 4), fixed(worst.get("value"), 4), fixed(metrics["nll"]["value"]),
            *(percent(metrics.get(key, {}).get("value")) for key in ("accuracy", *levels.values())),
        ])  # fmt: skip
    return Table(columns, rows)


def true_transition(record: RunRecord) -> np.ndarray:
    """T [C, C] of the noise that a run was trained on. Raises ValueError: the record has noise of no labels."""
    noise = noise_from_dict({name: value for name, value in record.noise.items() if name != "realised"})
    if not hasattr(noise, "transition"):
        raise ValueError(f"the record {record.name!r} has noise of the protocol {noise.protocol}, which has no T")
    return np.asarray(noise.transition)


def used_transition(record: RunRecord) -> np.ndarray | None:
    """T [C, C] that a run was trained through, None for none."""
    found = record.model["config"].get("transition")
    return None if found is None else np.asarray(found, dtype=np.float64)


def name_of_noise(record: RunRecord) -> str:
    """What the labels are called, without their seed."""
    if "name" in record.noise:
        return f"labels of people ({record.noise['name']}), e = {record.noise['error_rate']:.2f}"
    return f"{record.noise.get('kind', record.noise['protocol'])}, e = {record.noise['error_rate']:.2f}"


def matrix_figure(records: Sequence[RunRecord], path: str | Path) -> Path:
    """Draw the study as a PNG: for each noise the true T beside those that were found, and accuracy against sigma.

    Raises ValueError or TypeError as `of_this_study`.
    """
    records = of_this_study(records)
    noises: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        noises[name_of_noise(record)].append(record)
    shown = {noise: _first_learned(group) for noise, group in noises.items()}
    columns = 1 + max((len(found) for found in shown.values()), default=0)
    plt = start_figure()
    fig = plt.figure(figsize=(4.9 + 2.6 * columns, max(3.9, 0.5 + 2.7 * len(noises))), layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=(2.6 * columns, 4.9))
    axes = left.subplots(max(1, len(noises)), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, (noise, group) in zip(axes, noises.items()):
        truth = true_transition(group[0])
        picture = _draw_matrix(row[0], truth, f"true T\n{noise}")
        for axis, record in zip(row[1:], shown[noise]):
            _draw_matrix(axis, used_transition(record), _title_of(record, group))
    if noises:
        left.colorbar(picture, ax=axes, shrink=0.6, pad=0.02, label="p(trained label | true label)")
    _draw_accuracy(right.subplots(), noises)
    return save_figure(fig, path)


def _first_learned(group: Sequence[RunRecord]) -> list[RunRecord]:
    """For each way to find T the run of the smallest seed; a T that was known is the true one."""
    found = {}
    for record in sorted(group, key=lambda record: record.seed):
        if record.loss["source"] in _LEARNED and used_transition(record) is not None:
            found.setdefault(record.loss["source"], record)
    return list(found.values())


def _title_of(record: RunRecord, group: Sequence[RunRecord]) -> str:
    alike = [one for one in group if one.loss["source"] == record.loss["source"]]
    seed = f", seed {record.seed}" if len(alike) > 1 else ""
    error = record.metrics.get("transition_mean_absolute_error", {}).get("value")
    return f"{_LEARNED[record.loss['source']]}{seed}\nmean error {fixed(error, 4)}"


def _draw_matrix(axis, matrix: np.ndarray, title: str):
    # The root of a share, so that a small one beside the diagonal is seen.
    picture = axis.imshow(matrix, cmap="viridis", norm=_root(), interpolation="nearest")
    axis.set_axis_on()
    axis.spines[:].set_visible(False)
    axis.set_title(title, fontsize=9)
    axis.set(xticks=[], yticks=[], xlabel="trained label", ylabel="true label")
    return picture


def _draw_accuracy(axis, noises: dict[str, list[RunRecord]]) -> None:
    """A line for each noise and source of T: the mean over seeds, with a dot for each seed."""
    records = [record for group in noises.values() for record in group]
    levels = levels_of(records)
    for style, (noise, group) in zip(_STYLES * len(noises), noises.items()):
        for source in dict.fromkeys(record.loss["source"] for record in group):
            ours = [record for record in group if record.loss["source"] == source]
            points = {
                sigma: [100 * record.metrics[key]["value"] for record in ours if key in record.metrics]
                for sigma, key in levels.items()
            }
            points = {sigma: values for sigma, values in points.items() if values}
            label = f"{_SOURCES[source]}, {noise}" if len(noises) > 1 else _SOURCES[source]
            look = {"color": _COLOURS[source], "ls": style, "lw": 1.6}
            axis.plot(list(points), [mean(values) for values in points.values()], label=label, **look)
            for sigma, values in points.items():
                axis.plot([sigma] * len(values), values, "o", ms=4, color=_COLOURS[source], alpha=0.5)
    if classes := {record.noise["num_classes"] for record in records if "num_classes" in record.noise}:
        axis.axhline(100 / max(classes), color="#888888", lw=1, ls=":", label="chance")
    if levels:
        axis.set_xscale("log")
        axis.set_xticks(list(levels), [f"{sigma:g}" for sigma in levels])
        axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set(xlabel="noise level sigma", ylabel=f"{METRICS['accuracy'].label} on clean test labels (%)")
    axis.set_title("Clean classes of noisy images", loc="left", fontweight="bold")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8.5, loc="best")


def _root():
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, vmin=0, vmax=1)
