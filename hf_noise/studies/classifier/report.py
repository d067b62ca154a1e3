"""Table and figure of a study of classifiers under label noise, from its records alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from hf_noise.metrics.words import METRICS
from hf_noise.reports.checks import check_records
from hf_noise.reports.figures import save_figure, start_figure
from hf_noise.reports.paper import paper_table
from hf_noise.reports.record import RunRecord
from hf_noise.reports.tables import Column, Table, fixed, markdown_table, percent, shown_table
from hf_noise.studies.classifier.multipliers import show_advice
from hf_noise.studies.compute import LABEL, has_more_compute, with_most_compute
from hf_noise.studies.losses import names_of_losses

__all__ = ["Curve", "accuracy_table", "curves", "label_figure", "label_table", "paper_accuracy", "show",
           "table_of_runs"]  # fmt: skip

#: Which published table a data set and protocol are to be compared with, and its column.
PAPER_FIGURES = {
    ("cifar10", "symmetric"): ("A.table2", "cifar10"),
    ("cifar100", "symmetric"): ("A.table2", "cifar100"),
    ("cifar10", "cyclic"): ("A.table11", "cifar10"),
    ("cifar100", "cyclic"): ("A.table11", "cifar100"),
    ("imagenet10", "symmetric"): ("A.table3", "imagenet10"),
    ("imagenet100", "symmetric"): ("A.table3", "imagenet100"),
    ("imagenet1000", "symmetric"): ("A.table3", "imagenet1000"),
    ("imagenet1000-budget", "symmetric"): ("A.table9", "test_accuracy"),
}
LOSSES = {"nll": "cross-entropy", "corrected": "corrected through T"}
CLEAN = "none"


@dataclass(frozen=True)
class Curve:
    """One protocol, loss and compute plan: e -> values of a metric, one per seed; the runs without noise at 0."""

    protocol: str
    loss: str
    plan: str
    points: dict[float, tuple[float, ...]]


def title_of(loss: str) -> str:
    """What a loss is called beside others."""
    return LOSSES.get(loss, loss)


def _texts() -> dict[str, list[str] | None]:
    return {"loss.name": names_of_losses("labels"), "budget.plan": None}


def protocol_of(record: RunRecord) -> str:
    """Kind of the noise: "symmetric", "cyclic", ..., "human:<name>", or "none"."""
    noise = record.noise
    if noise["error_rate"] == 0:
        return CLEAN
    if "kind" not in noise and "name" not in noise:
        raise ValueError(f"the record {record.name!r} has noise without kind and name, so it is not noise of labels")
    return str(noise["kind"]) if "kind" in noise else f"human:{noise['name']}"


#: Network and epochs without noise of the published figures, by builder.
PAPER_SCALE = {
    "hf_noise/cifar10-noisy": ("resnet18-cifar", 200), "hf_noise/cifar100-noisy": ("resnet18-cifar", 200),
    "hf_noise/imagenet-noisy": ("vit_base_patch16_224", 300),
}  # fmt: skip


def is_of_the_paper(record: RunRecord) -> bool:
    """Whether all of the data were trained on, by the network and for the epochs of the published figures."""
    network, epochs = PAPER_SCALE.get(record.data["builder"], (None, 0))
    budget = record.budget
    took = budget.get("base_steps", 0) * budget.get("base_batch_size", 0) / record.data.get("train_rows", 1)
    is_whole = record.settings.get("train_rows") is None
    return record.model.get("name") == network and is_whole and abs(took - epochs) <= 0.01 * epochs


def paper_accuracy(record: RunRecord, protocol: str | None = None) -> float | None:
    """The published test accuracy, in percent, of a run with the plain loss; None where the papers have none."""
    if record.loss["name"] != "nll" or record.noise.get("ratio") is None or has_more_compute(record):
        return None
    if not is_of_the_paper(record):
        return None
    data = str(record.data["builder"]).removeprefix("hf_noise/").removesuffix("-noisy")
    data += str(record.data["classes"]) if data == "imagenet" else ""
    data += "-budget" if data == "imagenet1000" and record.budget["plan"] == "budget" else ""
    protocol = protocol or protocol_of(record)
    if record.budget["plan"] == "budget" and not data.endswith("-budget") and protocol != CLEAN:
        return None  # of constant clean exposure
    found = PAPER_FIGURES.get((data, "symmetric" if protocol == CLEAN else protocol))
    return None if found is None else paper_table(found[0]).get(record.noise["ratio"], {}).get(found[1])


def show(records: Sequence[RunRecord], settings: Any, runs: Sequence[Any]) -> str:
    """The table as far as there is room, and where the whole one and the figure are."""
    output = Path(settings.output)
    figure = label_figure(records, output / "study.png")
    shown = f"{shown_table(table_of_runs(records), output / 'study.md')}\n\nfigure: {figure}"
    is_watched = settings.advise or any("gradient_snr" in record.metrics for record in records)
    return f"{shown}\n\n{show_advice(records, output)}" if is_watched else shown


def _column(metric: str, priority: int, short: str = "") -> Column:
    return Column(METRICS[metric].heading, priority, short)


#: A head for each column of the table of runs; accuracy with its interval and the noise are what a reader looks for.
_COLUMNS = (
    Column("run"), Column("e", 1), Column("wrong labels", 8, "wrong"), Column("epochs", 3),
    _column("test_accuracy", 0, "accuracy, %"), Column("its 95% interval", 1, "95% interval"), _column("test_nll", 2),
    _column("test_ece", 5), _column("successor_rate", 6, "y + 1, %"),
    _column("train_accuracy_trained_labels", 7, "as trained, %"),
    _column("train_accuracy_clean_labels", 7, "train: clean, %"), _column("memorised", 4),
    _column("marginal_kl", 6, "KL"), Column("its sampling level", 9, "sampling"), _column("marginal_tv", 8),
    Column("paper: accuracy, %", 1, "paper, %"), Column("paper: KL", 9), Column("paper: TV", 9),
)  # fmt: skip


def label_table(records: Sequence[RunRecord]) -> str:
    """`table_of_runs` in Markdown."""
    return table_of_runs(records).markdown()


def table_of_runs(records: Sequence[RunRecord]) -> Table:
    """One line per run: rates, compute, accuracy on test and training images, the marginal of the predictions.

    A column that no run has a figure for is left out, such as those of the papers for data that they do not have.

    Raises:
        ValueError: a record lacks one of the figures, or is of another study.
        TypeError: these are no records.
    """
    check_records(
        records, texts=_texts() | {"data.builder": None},
        numbers=(
            "budget.epochs", "metrics.test_nll.value", "metrics.test_ece.value", "metrics.marginal_kl.value",
            "metrics.marginal_kl.of_sampling_alone", "metrics.marginal_tv.value",
        ),
        shares=(
            "noise.error_rate", "noise.realised.rate", "metrics.test_accuracy.value", "metrics.test_accuracy.low",
            "metrics.test_accuracy.high",
        ),
    )  # fmt: skip
    rows = []
    for record in records:
        metrics = record.metrics
        test, kl = metrics["test_accuracy"], metrics["marginal_kl"]
        shares = ("successor_rate", "train_accuracy_trained_labels", "train_accuracy_clean_labels", "memorised")
        successor, trained, clean, memorised = (percent(metrics.get(name, {}).get("value")) for name in shares)
        rows.append([
            record.name, fixed(record.noise["error_rate"]), fixed(record.noise["realised"]["rate"]),
            fixed(record.budget["epochs"], 1), percent(test["value"]),
            f"{percent(test['low'])} to {percent(test['high'])}", fixed(metrics["test_nll"]["value"]),
            fixed(metrics["test_ece"]["value"]), successor, trained, clean, memorised, fixed(kl["value"], 5),
            fixed(kl["of_sampling_alone"], 5), fixed(metrics["marginal_tv"]["value"], 4),
            fixed(paper_accuracy(record), 2), *_paper_marginal(record),
        ])  # fmt: skip
    return Table(_COLUMNS, rows).measured()


def accuracy_table(records: Sequence[RunRecord]) -> str:
    """Test accuracy in percent: a line per protocol, loss and plan, a column per e; the mean over seeds."""
    drawn = curves(records, "test_accuracy")
    drawn_plans = {curve.plan for curve in drawn}
    more = _of_more_compute(records, "test_accuracy", is_named=len(drawn_plans) > 1)
    rates = sorted({rate for curve in drawn for rate in curve.points} | ({0.0} if more else set()))
    plans = len(drawn_plans) > 1
    rows = [
        [f"{curve.protocol}, {title_of(curve.loss)}" + (f", {curve.plan}" if plans else "")]
        + [percent(mean(curve.points[rate]) if rate in curve.points else None) for rate in rates]
        for curve in drawn
    ]
    rows[:0] = [[label, percent(mean(values)), *[percent(None)] * (len(rates) - 1)] for label, values in more]
    return markdown_table(["labels and loss", *(f"e = {fixed(rate)}" for rate in rates)], rows)


def curves(records: Sequence[RunRecord], metric: str) -> list[Curve]:
    """The curves of a metric, in the order in which protocols and losses first occur.

    Raises:
        ValueError: a record lacks the metric, or is of another study.
        TypeError: these are no records, or the metric has no name.
    """
    if not isinstance(metric, str):
        raise TypeError(f"metric must be the name of one, got {metric!r:.80}")
    check_records(records, texts=_texts(), numbers=(f"metrics.{metric}.value",), shares=("noise.error_rate",))
    found: dict[tuple[str, str, str], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    clean: dict[float, list[float]] = defaultdict(list)
    for record in records:
        if has_more_compute(record):
            continue
        value, rate = record.metrics[metric]["value"], record.noise["error_rate"]
        protocol = protocol_of(record)
        key = (protocol, record.loss["name"], record.budget["plan"])
        (clean if protocol == CLEAN else found[key])[rate].append(value)
    return [
        Curve(*key, {rate: tuple(values) for rate, values in sorted({**clean, **points}.items())})
        for key, points in found.items()
    ]


def _of_more_compute(
    records: Sequence[RunRecord], metric: str, is_named: bool = False
) -> list[tuple[str, list[float]]]:
    """Label and values of a metric of the runs without noise that got more compute, for each plan."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in with_most_compute(records):
        found[record.budget["plan"]].append(record.metrics[metric]["value"])
    is_named = is_named or len(found) > 1
    return [(f"{LABEL}, {plan}" if is_named else LABEL, values) for plan, values in found.items()]


_COLOURS = {"symmetric": "#2166ac", "cyclic": "#b2182b", "pairs": "#1b7837", "uniform_resample": "#762a83"}
_OTHER = "#e08214"


def label_figure(records: Sequence[RunRecord], path: str | Path) -> Path:
    """Draw the study as a PNG: accuracy and the KL divergence of predicted labels against e.

    Raises ValueError or TypeError as `curves` does.
    """
    check_records(records, numbers=["metrics.marginal_kl.of_sampling_alone"])
    plt = start_figure()
    fig, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.8), layout="constrained")
    for axis, metric, scale in ((left, "test_accuracy", 100), (right, "marginal_kl", 1)):
        drawn = curves(records, metric)
        plans = list(dict.fromkeys(curve.plan for curve in drawn if not curve.protocol.startswith("human:")))
        for curve in drawn:
            note = f", {curve.plan}" if len(plans) > 1 else ""
            alpha = 1 / (1 + plans.index(curve.plan)) if curve.plan in plans else 1.0
            _draw(axis, curve, scale, note, alpha)
        _draw_more_compute(axis, records, metric, scale)
    _draw_paper(left, records)
    left.set(ylabel=f"{METRICS['test_accuracy'].label} (%)")
    left.set_title("What wrong labels do to accuracy", loc="left", fontweight="bold")
    levels = {record.metrics["marginal_kl"]["of_sampling_alone"] for record in records}
    for level in levels:
        right.axhline(level, color="#888888", lw=1, ls=":", label="expected of random draws alone")
    right.set_yscale("symlog", linthresh=max(levels, default=1e-4))
    right.set_ylim(bottom=0)
    kl = METRICS["marginal_kl"]
    right.set_ylabel(f"{kl.name} ({kl.unit})", fontsize=8.5)
    right.set_title("... and to the marginal of the predictions", loc="left", fontweight="bold")
    for axis in (left, right):
        axis.set_xlabel("error rate e = r / (1 + r)")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8.5, loc="best")
    return save_figure(fig, path)


def _draw(axis, curve: Curve, scale: float, note: str, alpha: float) -> None:
    colour = _COLOURS.get(curve.protocol, _OTHER)
    style, face = {"nll": ("o-", colour), "corrected": ("s--", "white")}.get(curve.loss, ("^-.", "white"))
    label = f"{curve.protocol}, {title_of(curve.loss)}{note}"
    means = [scale * mean(values) for values in curve.points.values()]
    look = {"color": colour, "markerfacecolor": face, "lw": 1.6, "ms": 5.5, "alpha": alpha}
    axis.plot(list(curve.points), means, style, label=label, **look)
    for rate, values in curve.points.items():
        if len(values) > 1:
            axis.plot([rate] * len(values), [scale * value for value in values], ".", color=colour, alpha=0.4)


def _draw_more_compute(axis, records: Sequence[RunRecord], metric: str, scale: float) -> None:
    """Markers of their own, which no curve goes through: the curves start at the runs with the study's own compute."""
    for (label, values), marker in zip(_of_more_compute(records, metric), "DPX*"):
        look = {"markerfacecolor": "none", "ms": 7, "zorder": 3, "clip_on": False}
        axis.plot(0.0, scale * mean(values), marker, color="#000000", label=label, **look)


def _draw_paper(axis, records: Sequence[RunRecord]) -> None:
    for protocol in dict.fromkeys(protocol_of(record) for record in records):
        shown = [record for record in records if protocol_of(record) in (protocol, CLEAN)]
        published = ((record.noise["error_rate"], paper_accuracy(record, protocol)) for record in shown)
        points = sorted({rate: value for rate, value in published if value is not None}.items())
        if len(points) > 1 and protocol != CLEAN:
            axis.plot(*zip(*points), ":", color=_COLOURS.get(protocol, _OTHER), lw=1.2, label=f"{protocol}, paper")


def _paper_marginal(record: RunRecord) -> tuple[str, str]:
    """KL and TV of A.table13: CIFAR-10, symmetric noise, plain loss."""
    fits = (record.data["builder"], record.loss["name"]) == ("hf_noise/cifar10-noisy", "nll")
    fits = fits and is_of_the_paper(record) and not has_more_compute(record)
    fits = fits and protocol_of(record) in (CLEAN, "symmetric") and record.budget["plan"] != "budget"
    published = paper_table("A.table13").get(record.noise.get("ratio"), {}) if fits else {}
    return fixed(published.get("kl"), 5), fixed(published.get("tv"), 4)
