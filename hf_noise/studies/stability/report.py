"""Table, claims and figure of macro-batch losses, from the records of the measurements alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import chdtri

from hf_noise.reports.checks import check_records
from hf_noise.reports.figures import save_figure, start_figure
from hf_noise.reports.paper import paper_table
from hf_noise.reports.record import RunRecord, read_records
from hf_noise.reports.tables import Column, Table, shown_table
from hf_noise.studies.stability.claims import claims_table, labels_of, pairs_of, predicted_std
from hf_noise.studies.stability.run import MEASURED, TASK
from hf_noise.studies.stability.study import Settings

__all__ = ["show", "stability_figure", "table_of_sizes"]

_COLUMNS = (
    Column("model"), Column("e", 2), Column("rows"), Column("mean, nats", 0),
    Column("spread, nats / 1000", 0, "spread / 1000"), Column("of independent rows", 3, "independent"),
    Column("worth, independent rows", 4, "worth"), Column("paper: mean", 5), Column("paper: spread", 5),
)  # fmt: skip
_COLOURS = ("#2166ac", "#b2182b", "#1b7837", "#762a83", "#b35806", "#777777")
_GREY = "#777777"


def measurements(output: str | Path) -> list[RunRecord]:
    """The records of a study's measurements, those with less noise first. Raises ValueError: a figure is missing."""
    found = [one for one in read_records(Path(output) / MEASURED) if isinstance(one, RunRecord) and one.task == TASK]
    names = ("macro_batch_mean", "macro_batch_std", "loss_exponent")
    check_records(found, numbers=[f"metrics.{name}.value" for name in names], shares=("noise.error_rate",))
    return sorted(found, key=lambda one: (one.budget["order"], one.noise["error_rate"], one.seed, one.name))


def show(settings: Settings) -> str:
    """The table of sizes, the claims, and where the figure is."""
    output, records = Path(settings.output), measurements(settings.output)
    figure = stability_figure(records, output / "stability.png")
    table = shown_table(table_of_sizes(records).measured(), output / "stability.md")
    return f"{table}\n\n{claims_table(records)}\n\nfigure: {figure}\nrecords: {output / MEASURED}"


def table_of_sizes(records: Sequence[RunRecord]) -> Table:
    """One line for each model and size; the spread in thousandths of a nat, the paper's beside it."""
    rows, paper = [], paper_table("A.table5")
    for record in records:
        mean, std = record.metrics["macro_batch_mean"], record.metrics["macro_batch_std"]
        kind = {0.0: "clean", 0.5: "noisy"}.get(record.noise["error_rate"])
        for at, size in enumerate(std["sizes"]):
            theirs = paper.get(size, {}) if is_of_the_paper(record) else {}
            of_paper = [theirs.get(f"{kind}_{what}") for what in ("mean", "std")]
            rows.append([
                record.name, f"{record.noise['error_rate']:.3g}", str(size), f"{mean['values'][at]:.4f}",
                f"{1000 * std['values'][at]:.2f}", f"{1000 * std['independent'][at]:.2f}",
                f"{std['worth'][at]:.1f}", *("-" if value is None else f"{value:g}" for value in of_paper),
            ])  # fmt: skip
    return Table(_COLUMNS, rows)


def is_of_the_paper(record: RunRecord) -> bool:
    """Whether text and rows are those of table 5."""
    return (record.data.get("source"), record.data.get("block_size")) == ("Skylion007/openwebtext", 1024)


def stability_figure(records: Sequence[RunRecord], path: str | Path) -> Path:
    """The spread against the size on two logarithmic axes, and the losses that it is of."""
    plt = start_figure()
    from matplotlib.ticker import LogLocator

    fig, (left, right) = plt.subplots(1, 2, figsize=(11.2, 4.4), layout="constrained", width_ratios=[1, 1.1])
    fig.get_layout_engine().set(wspace=0.06)
    labels, colours = labels_of(records), _cycled(records)
    for record in records:
        _draw_spread(left, record, labels[record.name], colours[record.name])
    _draw_predicted(left, records, colours)
    sizes = sorted({size for record in records for size in record.metrics["macro_batch_std"]["sizes"]})
    left.plot([], [], ":", color=_GREY, label="of independent rows, exponent -1/2")
    left.set(xscale="log", yscale="log", xlabel="rows of a macro-batch", ylabel="standard deviation, nats / 1000")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.set_title("(a) Larger macro-batches scatter less", loc="left", fontweight="bold")
    _draw_losses(right, records, labels, colours)
    for axis in (left, right):
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.minorticks_off()
    left.plot([], [], "|", ms=9, color=_GREY, label="bars: 95% intervals")
    low, high = left.get_ylim()
    left.set_ylim(low, high * (high / low) ** (0.12 * len(left.get_legend_handles_labels()[1])))  # room for the legend
    left.legend(frameon=False, fontsize=9, loc="upper right")
    return save_figure(fig, path)


def _cycled(records: Sequence[RunRecord]) -> dict[str, str]:
    return {record.name: _COLOURS[at % len(_COLOURS)] for at, record in enumerate(records)}


def _draw_predicted(axis: Any, records: Sequence[RunRecord], colours: Mapping[str, str]) -> None:
    """What the spread of each noisy model is to be by arithmetic."""
    told = "from the clean model, by arithmetic"
    for clean, noisy in pairs_of(records):
        if (expected := predicted_std(clean, noisy)) is not None:
            sizes = noisy.metrics["macro_batch_std"]["sizes"]
            axis.plot(sizes, 1000 * expected, "x", ms=8, mew=2, color=colours[noisy.name], label=told)
            told = None


def _draw_spread(axis: Any, record: RunRecord, called: str, colour: str) -> None:
    """Standard deviations with their 95 % intervals, those of independent rows dotted."""
    std, found = record.metrics["macro_batch_std"], record.metrics["loss_exponent"]
    values, free = 1000 * np.array(std["values"]), std["n"] - 1
    # Of normal losses: (n - 1) s^2 / sigma^2 is chi-square; chdtri counts from above.
    ends = [values * np.sqrt(free / chdtri(free, tail)) for tail in (0.025, 0.975)]
    label = f"{called}: exponent {found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
    axis.errorbar(std["sizes"], values, [values - ends[0], ends[1] - values], fmt="o-", ms=5, capsize=3, color=colour,
                  label=label)  # fmt: skip
    axis.plot(std["sizes"], 1000 * np.array(std["independent"]), ":", color=colour)


def _draw_losses(
    axis: Any, records: Sequence[RunRecord], labels: Mapping[str, str], colours: Mapping[str, str]
) -> None:
    """Every macro-batch as a dot, as far from the model's mean as it is; models side by side."""
    draw = np.random.default_rng(0)
    shift = 2 ** np.linspace(-0.22, 0.22, len(records)) if len(records) > 1 else [1.0]
    for record, aside in zip(records, shift):
        colour = colours[record.name]
        mean, std = record.metrics["macro_batch_mean"], record.metrics["macro_batch_std"]
        losses = np.array(mean["losses"])
        middle = losses.mean()
        for size, of_size, spread in zip(mean["sizes"], losses, std["values"]):
            places = size * aside * 2 ** draw.uniform(-0.08, 0.08, len(of_size))
            axis.plot(places, 1000 * (of_size - middle), ".", ms=3.5, alpha=0.5, color=colour, mec="none")
            off = 1000 * (of_size.mean() - middle)
            axis.errorbar(size * aside, off, 1000 * spread, fmt="_", ms=9, color=colour, elinewidth=1.6, capsize=4)
        axis.plot([], [], "o", ms=5, color=colour, label=f"{labels[record.name]}: mean {middle:.3f} nats")
    axis.axhline(0, color=_GREY, lw=0.8)
    axis.set(xscale="log", xlabel="rows of a macro-batch", ylabel="loss above the model's mean, nats / 1000")
    axis.set_title("(b) Each macro-batch: the mean stays (bars: 1 sd)", loc="left", fontweight="bold")
    axis.legend(frameon=False, fontsize=9, loc="upper right")
