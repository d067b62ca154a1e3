"""Tables, claims and figure of a study of fine-tuning under wrong labels, from its records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from hf_noise.atomic import write_atomic
from hf_noise.data.passages import DOCS_TOPICS
from hf_noise.metrics.intervals import wilson_interval
from hf_noise.metrics.words import METRICS
from hf_noise.reports.figures import save_figure, start_figure
from hf_noise.reports.record import RunRecord
from hf_noise.reports.tables import Column, Table, fixed, mean_sd, percent
from hf_noise.studies.finetune.compare import (
    CLEAN,
    PLAIN,
    UNKNOWN,
    Cell,
    Group,
    cells_of,
    claims,
    groups_of,
    over_plain,
    points,
    test_labels,
    values_of,
)
from hf_noise.studies.finetune.runs import EMBEDDED_MODEL
from hf_noise.studies.probe.report import SAW_PASSAGES

__all__ = ["cure_table", "finetune_figure", "run_table", "saw_passages", "show"]

_COLUMNS = (
    Column("labels, weights"), Column("loss and regulariser"), Column("seeds", 4),
    Column(f"{METRICS['test_accuracy'].label}, %", 0, "accuracy, %"),
    Column("points over cross-entropy (95% interval)", 1, "over cross-entropy"), Column("p, sides swapped", 6, "p"),
    Column("test NLL", 2, "NLL"), Column("memorised, %", 3), Column("train: as trained, %", 7),
    Column("T: mean error", 5, "T: error"),
)  # fmt: skip


def show(records: Sequence[RunRecord], settings: Any, runs: Sequence[Any]) -> str:
    """The table of cures as far as there is room, the claims, and where all of it and the figure are."""
    output = Path(settings.output)
    records = [record for record in records if record.task == "text_classification"]
    table, said = cure_table(records), claims(records) + saw_passages(records)
    figure = finetune_figure(records, output / "study.png")
    parts = [table.markdown(), *said, run_table(records).markdown()]
    write_atomic(output / "study.md", "\n\n".join(parts) + "\n")
    shown = "\n\n".join([table.fitted().markdown(), *said])
    return f"{shown}\n\nfigure: {figure}\ntables, of each run too: {output / 'study.md'}"


def saw_passages(records: Sequence[RunRecord]) -> list[str]:
    """What has to be said of the encoder that the study trains itself, on the text that the embedded task is of."""
    told = {(record.settings.get("model"), record.settings.get("source")) for record in records}
    return [SAW_PASSAGES] if (EMBEDDED_MODEL, DOCS_TOPICS) in told else []


def cure_table(records: Sequence[RunRecord]) -> Table:
    """One line for each kind of labels, method and cure: means and spreads over seeds, and how far it is from
    cross-entropy.

    Raises ValueError or TypeError as `groups_of`.
    """
    rows = []
    for group, by_cell in groups_of(records).items():
        for cell in cells_of(by_cell):
            runs, test = by_cell[cell], over_plain(by_cell, cell)
            told = "-" if test is None else points(test)
            swapped = None if test is None or test.n == 1 else test.permutation_p
            rows.append([
                str(group), cell.title, str(len(runs)), mean_sd(values_of(runs, "test_accuracy"), 1, 100), told,
                fixed(swapped, 3), mean_sd(values_of(runs, "test_nll"), 3),
                mean_sd(values_of(runs, "memorised"), 1, 100),
                mean_sd(values_of(runs, "train_accuracy_trained_labels"), 1, 100),
                mean_sd(values_of(runs, "transition_mean_absolute_error"), 3),
            ])  # fmt: skip
    return Table(_COLUMNS, rows).measured()


def run_table(records: Sequence[RunRecord]) -> Table:
    """One line for each run, with the interval of its accuracy over test rows."""
    columns = [Column(name) for name in ("run", "wrong labels", "accuracy, %", "95% interval", "NLL", "memorised, %",
                                         "train: as trained, %", "train: right labels, %", "seconds")]  # fmt: skip
    rows = []
    for record in sorted(records, key=lambda one: one.name):
        found = {name: entry["value"] for name, entry in record.metrics.items()}
        test = record.metrics["test_accuracy"]
        rows.append([
            record.name, fixed(record.noise.get("realised", {}).get("rate")), percent(test["value"]),
            f"{percent(test['low'])} to {percent(test['high'])}", fixed(found["test_nll"]),
            percent(found.get("memorised")), percent(found["train_accuracy_trained_labels"]),
            percent(found.get("train_accuracy_clean_labels")), fixed(record.wall_seconds, 0),
        ])  # fmt: skip
    return Table(columns, rows).measured()


_COLOURS = {"nll": "#333333", "corrected": "#2166ac", "estimated": "#67a9cf", "gce": "#1b7837", "elr": "#e08214",
            "co-teaching": "#762a83"}  # fmt: skip
_REGULARISED, _OTHER = "#b2182b", "#8c510a"
_ROW, _FRAME = 0.34, 1.35  # inches of a line, and around a panel


def finetune_figure(records: Sequence[RunRecord], path: str | Path) -> Path:
    """Draw the study as a PNG: for each kind of wrong labels and method the accuracy of each cure, and how many of the
    wrong labels it has learned by heart. A dot is a seed, a bar their mean, and the light line the 95% interval of the
    mean accuracy over test rows (Wilson, as if all seeds erred on the same rows).

    Raises ValueError or TypeError as `groups_of`.
    """
    groups = groups_of(records)
    shown = {group: by_cell for group, by_cell in groups.items() if group.labels != CLEAN} or groups
    plt = start_figure()
    heights = [_FRAME + _ROW * len(by_cell) for by_cell in shown.values()]
    fig, axes = plt.subplots(
        len(shown), 2, figsize=(10.5, sum(heights)), layout="constrained", squeeze=False,
        gridspec_kw={"height_ratios": heights, "width_ratios": [3, 2]},
    )  # fmt: skip
    for (left, right), (group, by_cell) in zip(axes, shown.items()):
        _accuracies(left, group, by_cell, groups)
        _memories(right, group, by_cell)
    drawn = {label: line for left, _ in axes for line, label in zip(*left.get_legend_handles_labels())}
    fig.legend(drawn.values(), drawn.keys(), loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    return save_figure(fig, path)


def _accuracies(axis: Any, group: Group, by_cell: dict, groups: dict) -> None:
    _intervals(axis, by_cell)
    _dots(axis, by_cell, "test_accuracy", names=True)
    clean = groups.get(Group(CLEAN, group.method), {}).get(PLAIN)
    if clean and group.labels != CLEAN:
        axis.axvline(100 * mean(values_of(clean, "test_accuracy")), color="#1a9850", lw=1.2, ls="--",
                     label="cross-entropy on right labels")  # fmt: skip
    if plain := by_cell.get(PLAIN):
        axis.axvline(100 * mean(values_of(plain, "test_accuracy")), color=_COLOURS["nll"], lw=0.9, ls=":",
                     label="cross-entropy on these labels")  # fmt: skip
    axis.set_title(str(group), loc="left", fontweight="bold")
    records = [record for runs in by_cell.values() for record in runs.values()]
    rows = sorted({record.metrics["test_accuracy"]["n"] for record in records})
    axis.set_xlabel(f"accuracy on {test_labels(records)} (%), {' or '.join(f'{n:,}' for n in rows)} rows")


def _intervals(axis: Any, by_cell: dict) -> None:
    """How far the mean accuracy of each cure may be off for having been measured on so few test rows."""
    for place, cell in enumerate(cells_of(by_cell)):
        runs = by_cell[cell]
        rows = min(record.metrics["test_accuracy"]["n"] for record in runs.values())
        low, high = wilson_interval(round(mean(values_of(runs, "test_accuracy")) * rows), rows)
        axis.plot([100 * low, 100 * high], [place, place], color=_colour(cell), lw=5, alpha=0.18, zorder=1,
                  solid_capstyle="butt", label="95% interval over test rows" if place == 0 else None)  # fmt: skip


def _memories(axis: Any, group: Group, by_cell: dict) -> None:
    is_unknown = group.labels == UNKNOWN
    _dots(axis, by_cell, "train_accuracy_trained_labels" if is_unknown else "memorised", names=False)
    axis.set_xlim(-2, 102)
    axis.set_xlabel(f"{'' if is_unknown else 'wrong '}training labels given back (%)")


def _dots(axis: Any, by_cell: dict, metric: str, names: bool) -> None:
    cells = cells_of(by_cell)
    for place, cell in enumerate(cells):
        values = [100 * value for value in values_of(by_cell[cell], metric)]
        if not values:
            continue
        colour = _colour(cell)
        axis.plot(values, [place] * len(values), "o", color=colour, ms=5.5, alpha=0.55, mec="none")
        axis.plot([mean(values)] * 2, [place - 0.28, place + 0.28], color=colour, lw=2.4, solid_capstyle="butt")
    axis.set_yticks(range(len(cells)), [cell.title for cell in cells] if names else [""] * len(cells))
    axis.set_ylim(len(cells) - 0.4, -0.6)
    axis.grid(axis="x", color="#dddddd", lw=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)


def _colour(cell: Cell) -> str:
    if cell.regulariser != "none" or cell.lgm:
        return _REGULARISED
    return _COLOURS.get(cell.loss, _OTHER)
