"""Table and figure of a study of generated images under label noise, from its records and a few of its images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_noise.metrics import mixture_reference
from hf_noise.metrics.words import FEATURE_METRICS, METRICS
from hf_noise.reports.checks import check_records
from hf_noise.reports.figures import save_figure, start_figure
from hf_noise.reports.paper import paper_table
from hf_noise.reports.record import RunRecord
from hf_noise.reports.tables import Column, Table, fixed, markdown_table, percent, shown_table
from hf_noise.reports.verdicts import spread
from hf_noise.studies.compute import LABEL, has_more_compute

__all__ = [
    "SAMPLES_FILE", "clean_consistency", "consistency_table", "generation_figure", "generation_table",
    "paper_consistency", "table_of_runs",
]  # fmt: skip

#: Arrays `images` uint8 [N, H, W, channels] and `labels` [N] beside a record: some images of each class.
SAMPLES_FILE = "samples.npz"
_LOSSES = {"dsm": "DSM", "tdsm": "TDSM"}
_SHOWN_PER_CLASS = 4
_DISTANCES = FEATURE_METRICS["frechet"].keys + FEATURE_METRICS["classwise_frechet"].keys
_SHOWN = ("noise.error_rate", *(f"metrics.label_consistency.{key}" for key in ("value", "low", "high")))


def show(records: Sequence[RunRecord], settings: Any, runs: Sequence[Any]) -> str:
    """The table of these runs as far as there is room, and where the whole one and the figure are."""
    output = Path(settings.output)
    known = {record.name: record for record in records}
    records, folders = [known[run.name] for run in runs], [output / run.name for run in runs]
    table = shown_table(table_of_runs(records, mixture_reference).measured(), output / "study.md")
    # Columns of further seeds would show the same once more.
    first, of_first = zip(*(pair for pair in zip(records, folders) if pair[0].seed == records[0].seed))
    return f"{table}\n\nfigure: {generation_figure(first, of_first, output / 'study.png')}"


def check_reference(reference: object) -> None:
    """Raise TypeError unless this is a function, or None."""
    if reference is not None and not callable(reference):
        raise TypeError(f"reference must be a function of consistency, e and number of classes, got {reference!r:.80}")


def is_of_the_paper(record: RunRecord) -> bool:
    """Whether all of the data were trained on, by the network and for the epochs of the published figures."""
    budget = record.budget
    took = budget.get("base_steps", 0) * budget.get("base_batch_size", 0) / record.data.get("train_rows", 1)
    is_whole = record.settings.get("train_rows") is None and not has_more_compute(record)
    return is_whole and record.model.get("name") == "edm-cifar" and abs(took - 300) <= 3


def paper_consistency(record: RunRecord) -> float | None:
    """The label consistency, in percent, of A.table1; None where the papers have none."""
    data = str(record.data["builder"]).removeprefix("hf_noise/").removesuffix("-noisy")
    if record.loss["name"] != "dsm" or record.noise.get("kind") != "symmetric" or not is_of_the_paper(record):
        return None
    return paper_table("A.table1").get(record.noise.get("ratio"), {}).get(f"{data}_consistency")


def clean_consistency(records: Sequence[RunRecord]) -> float | None:
    """Mean label consistency of the runs without noise; ValueError for records that have none."""
    check_records(records, shares=("metrics.label_consistency.value",))
    clean = [one for one in records if one.noise.get("error_rate") == 0 and not has_more_compute(one)]
    found = [record.metrics["label_consistency"]["value"] for record in clean]
    return float(np.mean(found)) if found else None


def metric_names(records: Sequence[RunRecord]) -> dict[str, str]:
    """What metrics are called that bring a name of their own; ValueError if it is no text."""
    names = {}
    for record in records:
        for key in (key for key, metric in record.metrics.items() if "name" in metric):
            check_records([record], texts={f"metrics.{key}.name": None})
            names[key] = record.metrics[key]["name"]
    return names


def distance_columns(keys: Sequence[str], names: Mapping[str, str]) -> list[Column]:
    """A head for each metric that brings a name of its own; where there is little room, its key in words.

    Frechet distances stay longest.
    """
    words = {key: key.removesuffix("_distance").replace("_", " ").replace("frechet", "Frechet") for key in keys}
    return [
        Column(names[key], 3 if key in _DISTANCES else 6, words[key] if len(words[key]) < len(names[key]) else "")
        for key in keys
    ]


def generation_table(
    records: Sequence[RunRecord], reference: Callable[[float, float, int], float] | None = None
) -> str:
    """`table_of_runs` in Markdown."""
    return table_of_runs(records, reference).markdown()


def table_of_runs(
    records: Sequence[RunRecord], reference: Callable[[float, float, int], float] | None = None
) -> Table:
    """One line per run: rates, compute, consistency beside the judge's own accuracy, distances.

    Args:
        records: of the task "class_conditional_generation".
        reference: (consistency without noise, e, number of classes) -> that of a network that fits the labels exactly,
            for symmetric noise; under other noise the mistakes of the judge are not alike for all classes.

    Raises:
        ValueError: a record lacks one of the figures, or is of another task.
        TypeError: these are no records, or the reference is no function.
    """
    check_reference(reference)
    check_records(
        records, texts={"loss.name": None, "data.builder": None},
        numbers=("budget.epochs", "metrics.test_loss.value", *(("data.classes",) if reference else ())),
        shares=(*_SHOWN, "noise.realised.rate", "metrics.judge_test_accuracy.value"),
    )  # fmt: skip
    a0 = clean_consistency(records)
    names = metric_names(records)
    columns = [
        Column("run"), Column("loss", 6), Column("e", 1), Column("wrong labels", 8, "wrong"), Column("epochs", 4),
        Column(METRICS["label_consistency"].heading), Column("its 95% interval", 2, "95% interval"),
        Column("fits the labels exactly, %", 5, "exact fit, %"),
        Column(METRICS["judge_test_accuracy"].heading, 6, "judge, %"), *distance_columns(list(names), names),
        Column(METRICS["test_loss"].heading, 7, "test loss"), Column("paper: consistency, %", 1, "paper, %"),
    ]  # fmt: skip
    rows = []
    for record in records:
        metrics, noise = record.metrics, record.noise
        found = metrics["label_consistency"]
        exact = None
        if reference is not None and a0 is not None and noise.get("kind") == "symmetric":
            exact = reference(a0, noise["error_rate"], record.data["classes"])
        rows.append([
            record.name, _LOSSES.get(record.loss["name"], record.loss["name"]), fixed(noise["error_rate"]),
            fixed(noise["realised"]["rate"]), fixed(record.budget["epochs"], 1), percent(found["value"]),
            f"{percent(found['low'])} to {percent(found['high'])}", percent(exact),
            percent(metrics["judge_test_accuracy"]["value"]),
            *(fixed(metrics.get(key, {}).get("value")) for key in names), fixed(metrics["test_loss"]["value"], 4),
            fixed(paper_consistency(record), 2),
        ])  # fmt: skip
    return Table(columns, rows)


def title_of(record: RunRecord, rate: str) -> str:
    """What a run is called beside others."""
    loss = _LOSSES.get(record.loss["name"], record.loss["name"])
    return f"{LABEL}, {loss}" if has_more_compute(record) else f"e = {rate}, {loss}"


def consistency_table(records: Sequence[RunRecord]) -> str:
    """The short form: what was trained on, label consistency, and both Frechet distances; a row for each setting.

    The interval is over images where there is one seed. Of several there are means, and an interval over seeds.

    Raises ValueError or TypeError as `generation_table` does.
    """
    check_records(records, texts={"loss.name": None}, shares=_SHOWN)
    names = metric_names(records)
    distances = [key for key in _DISTANCES if key in names]
    settings: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        title = title_of(record, fixed(record.noise["error_rate"]))
        settings.setdefault((title, str(record.noise.get("kind"))), []).append(record)
    several = any(len(of) > 1 for of in settings.values())
    rows = []
    for (title, _), of in settings.items():
        means = {key: spread([one.metrics[key]["value"] for one in of if key in one.metrics])
                 for key in ("label_consistency", *distances)}  # fmt: skip
        found = means["label_consistency"]
        low, high = found.interval or [of[0].metrics["label_consistency"][end] for end in ("low", "high")]
        told = "-" if len(of) > 1 and found.interval is None else f"{percent(low)} to {percent(high)}"
        rows.append([title, percent(found.mean), told, *[str(len(of))] * several,
                     *(fixed(means[key].mean if means[key].values else None, 2) for key in distances)])  # fmt: skip
    header = ["wrong labels and loss", METRICS["label_consistency"].heading, "its 95% interval", *["seeds"] * several]
    return markdown_table([*header, *(names[key] for key in distances)], rows)


def generation_figure(records: Sequence[RunRecord], folders: Sequence[str | Path], path: str | Path) -> Path:
    """Draw the images of a study as a PNG: a row for each class that was asked for, a column for each run.

    Args:
        records: one for each column.
        folders: of these runs, each with a `samples.npz`.

    Raises ValueError or TypeError as `generation_table` does.
    """
    check_records(records, texts={"loss.name": None}, shares=_SHOWN)
    plt = start_figure()
    columns = []
    for folder in folders:
        with np.load(Path(folder) / SAMPLES_FILE, allow_pickle=False) as kept:
            columns.append((kept["images"], kept["labels"]))
    classes = np.unique(np.concatenate([labels for _, labels in columns]))
    # A record names the classes that were asked for; without one name for each row, rows keep their numbers.
    named = list(records[0].metrics["label_consistency"].get("per_class", ()))
    names = named if len(named) == len(classes) else list(map(str, classes))
    shape = (len(classes), len(columns))
    size = (1.5 + 1.9 * shape[1], 0.9 + 0.52 * shape[0])
    fig, axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    for column, (record, (images, labels)) in enumerate(zip(records, columns, strict=True)):
        found = record.metrics["label_consistency"]
        title = title_of(record, f"{record.noise['error_rate']:.2f}").replace(LABEL, "no noise,\nmore compute")
        axes[0, column].set_title(f"{title}\n{percent(found['value'])}% as asked for", fontsize=9)
        for row, label in enumerate(classes):
            axis = axes[row, column]
            shown = images[labels == label][:_SHOWN_PER_CLASS]
            if len(shown):
                framed = np.pad(shown, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=255)
                strip = np.concatenate(list(framed), axis=1)
                picture = strip.squeeze(-1) if strip.shape[-1] == 1 else strip
                # Pixels as they are, which also makes a third of the file.
                axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if column == 0:
                axis.set_ylabel(names[row], rotation=0, ha="right", va="center")
    fig.supylabel("class asked for", fontsize=10)
    return save_figure(fig, path)
