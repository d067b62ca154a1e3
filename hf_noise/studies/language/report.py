"""Table and figure of a study of language models under token noise, from its records alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from hf_noise.metrics.words import METRICS
from hf_noise.reports.checks import check_records
from hf_noise.reports.figures import save_figure, start_figure, wrapped
from hf_noise.reports.paper import paper_table
from hf_noise.reports.record import RunRecord, is_number
from hf_noise.reports.tables import Column, Table, fixed, markdown_table, shown_table
from hf_noise.studies.compute import LABEL, compute_of, has_more_compute, with_most_compute
from hf_noise.studies.losses import names_of_losses, objective_class

__all__ = [
    "Line", "chosen", "gap_closed", "methods_table", "paper_figure", "runs_table", "show", "study_figure",
    "table_of_runs",
]  # fmt: skip

#: Which published figures a compute plan is to be compared with.
PAPER_FIGURES = {"steps": "A.figure1", "batch": "A.figure1", "table6": "A.figure1", "budget": "A.table8"}

METHODS = {
    "clean": "no noise",
    "clean_compute": LABEL,
    "plain": "plain",
    "posthoc": METRICS["validation_nll_posthoc"].label,
    "posthoc_estimated": METRICS["validation_nll_posthoc_estimated"].label,
    "known": "corrected, e known",
    "learned": "corrected, e learned",
    "estimated": "corrected, e estimated by ranks",
    "low": "corrected, r stated as half",
    "high": "corrected, r stated as double",
}


@dataclass(frozen=True)
class Line:
    """One setting of the study with its clean validation NLL, one value per seed."""

    method: str
    ratio: float
    plan: str
    nll: tuple[float, ...]
    #: Of a run without noise, the ratio whose steps and batch it got; None for its own.
    compute_of: float | None = None


#: The losses of `METHODS`: where a corrected one has its e from.
_SOURCES = ("known", "learned", "estimated", "assumed")


def _check(records: Sequence[RunRecord], numbers: Sequence[str] = ()) -> None:
    """Raise ValueError or TypeError unless these are records of runs of this study."""
    texts = {"loss.name": names_of_losses("tokens"), "budget.plan": None}
    check_records(records, numbers=("noise.ratio", *numbers), shares=("noise.error_rate",), texts=texts)
    told = [record for record in records if record.loss["name"] == "corrected"]
    check_records(told, shares=("loss.error_rate",), texts={"loss.source": _SOURCES})
    if certain := [record.name for record in records if record.noise["error_rate"] == 1]:
        raise ValueError(f"the record {certain[0]!r} has noise.error_rate = 1, and must have less")


def method_of(record: RunRecord) -> str:
    """Key into `METHODS` of a run, or the name of another loss, with its own parameter if that was tuned."""
    if record.loss["name"] not in ("nll", "corrected"):
        return record.loss["name"] + own_setting(record)
    if record.noise["error_rate"] == 0:
        return "clean_compute" if has_more_compute(record) else "clean"
    if record.loss["name"] == "nll":
        return "plain"
    if record.loss["source"] != "assumed":
        return record.loss["source"]
    return "low" if record.loss["error_rate"] < record.noise["error_rate"] else "high"


def own_setting(record: RunRecord) -> str:
    """The parameter that a loss of its own kind has, as `q = 0.7`; empty where it has none."""
    tuned, objective = objective_class(record.loss["name"], "tokens").tuned, record.loss.get("objective") or {}
    return f", {tuned[0]} = {objective[tuned[0]]:g}" if tuned and is_number(objective.get(tuned[0])) else ""


def chosen(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The records without those of losses whose own parameter another value is better for, by loss, ratio and plan.

    Better is the top-1 accuracy on noisy validation targets, the mean over seeds. Noise that is uniform takes the same
    share of it from every model, so that it ranks their accuracies as clean targets would, though not their NLL. The
    NLL of noisy targets would choose what predicts the noise.
    """
    by: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if (metric := record.metrics.get("noisy_validation_accuracy")) and own_setting(record):
            by[_group(record)][own_setting(record)].append(metric["value"])
    best = {group: max(found, key=lambda own: mean(found[own])) for group, found in by.items()}
    return [record for record in records if best.get(_group(record), own_setting(record)) == own_setting(record)]


def _group(record: RunRecord) -> tuple:
    return record.loss["name"], record.noise["ratio"], record.budget["plan"]


def title_of(method: str) -> str:
    """What a method is called beside others."""
    return METHODS.get(method, method)


def _order(line: Line) -> tuple[int, str]:
    """That of `METHODS`; other losses follow."""
    known = list(METHODS)
    return (known.index(line.method), "") if line.method in known else (len(known), line.method)


def is_of_the_paper(record: RunRecord) -> bool:
    """Whether data and scale are those of the published figures."""
    budget, data = record.budget, record.data
    of_data = (data.get("source"), data.get("block_size"), record.model.get("name"))
    return of_data == ("Skylion007/openwebtext", 1024, "gpt2") and (
        (budget.get("base_steps"), budget.get("base_batch_size")) == (600_000, 480)
    )


def paper_figure(plan: str, ratio: float, column: str) -> float | None:
    """The published figure for a plan and ratio, None where the paper has none."""
    return paper_table(PAPER_FIGURES[plan]).get(ratio, {}).get(column) if plan in PAPER_FIGURES else None


def lines(records: Sequence[RunRecord]) -> list[Line]:
    """Clean validation NLL by method, ratio and plan, with the post-hoc corrections as methods of their own.

    Raises:
        ValueError: a record lacks one of the figures, or is of another study.
        TypeError: these are no records.
    """
    _check(records, ["metrics.validation_nll.value"])
    found: dict[tuple[str, float, str, float | None], list[float]] = defaultdict(list)
    most = {id(record) for record in with_most_compute(records)}
    for record in sorted(chosen(records), key=lambda r: (r.seed, r.name)):
        if has_more_compute(record) and id(record) not in most:
            continue
        method, ratio, plan = method_of(record), record.noise["ratio"], record.budget["plan"]
        more = compute_of(record) if method == "clean_compute" else None
        of_plan = "any" if method == "clean" else plan
        found[method, ratio, of_plan, more].append(record.metrics["validation_nll"]["value"])
        for kind in ("posthoc", "posthoc_estimated"):
            if f"validation_nll_{kind}" in record.metrics:
                found[kind, ratio, plan, None].append(record.metrics[f"validation_nll_{kind}"]["value"])
    return [Line(*key, tuple(values), more) for (*key, more), values in found.items()]


def gap_closed(all_lines: Sequence[Line], line: Line) -> float | None:
    """Share of what the plain loss loses to noise that a method wins back; above 1 it beats training without noise.

    What is lost is told against the run without noise that got the same steps and batch, where there is one, else
    against that with the study's own.
    """
    equal = [x for x in all_lines if x.compute_of == line.ratio and x.plan == line.plan]
    clean = equal or [x for x in all_lines if x.method == "clean"]
    plain = [x for x in all_lines if x.method == "plain" and (x.ratio, x.plan) == (line.ratio, line.plan)]
    if not clean or not plain or line.method in ("clean", "clean_compute", "plain"):
        return None
    lost = mean(plain[0].nll) - mean(clean[0].nll)
    return (mean(plain[0].nll) - mean(line.nll)) / lost if lost > 0 else None


def show(records: Sequence[RunRecord], settings: Any, runs: Sequence[Any]) -> str:
    """The runs as far as there is room, the methods side by side, and where the whole table and the figure are."""
    output = Path(settings.output)
    figure = study_figure(records, output / "study.png")
    runs_as_shown = shown_table(table_of_runs(records).measured(), output / "study.md")
    return f"{runs_as_shown}\n\n{methods_table(records)}\n{told_of_gaps(lines(records))}\nfigure: {figure}"


#: A head for each column of the table of runs; the clean NLL, the noise and the steps are what a reader looks for.
_COLUMNS = (
    Column("run"), Column("r", 4), Column("e", 1), Column("e in the loss", 5, "e in loss"),
    Column(METRICS["error_rate_by_ranks"].heading, 6), Column("steps", 1), Column("batch", 2),
    Column(METRICS["train_nll_noisy"].heading, 3, "train NLL"), Column(METRICS["train_nll_clean"].heading, 7),
    Column(METRICS["train_nll_corrupted"].heading, 7), Column(METRICS["validation_nll"].heading),
    Column("floor -ln(1-e)", 8), Column("paper: train", 5), Column("paper: validation", 5),
)  # fmt: skip


def runs_table(records: Sequence[RunRecord]) -> str:
    """`table_of_runs` in Markdown."""
    return table_of_runs(records).markdown()


def table_of_runs(records: Sequence[RunRecord]) -> Table:
    """One line per run: rates, compute, NLL on noisy training targets and on clean validation text, paper beside.

    Raises ValueError or TypeError as `lines` does.
    """
    _check(records, ["budget.steps", "budget.batch_size"])
    ranked = [record for record in records if "error_rate_by_ranks" in record.metrics]
    check_records(ranked, numbers=[f"metrics.error_rate_by_ranks.{key}" for key in ("value", "low", "high")])
    measured = ("train_nll_noisy", "train_nll_clean", "train_nll_corrupted", "validation_nll")
    rows = []
    for record in records:
        r, e, budget = record.noise["ratio"], record.noise["error_rate"], record.budget
        values = [record.metrics.get(name, {}).get("value") for name in measured]
        paper = [None, None]
        if record.loss["name"] == "nll" and is_of_the_paper(record):
            paper = [paper_figure(budget["plan"], r, column) for column in ("train_nll", "validation_nll")]
        rows.append([
            record.name, f"{r:g}", fixed(e),
            fixed(record.loss["error_rate"] if record.loss["name"] == "corrected" else None),
            _interval(record.metrics.get("error_rate_by_ranks")), str(budget["steps"]), str(budget["batch_size"]),
            *map(fixed, [*values, -math.log1p(-e), *paper]),
        ])  # fmt: skip
    return Table(_COLUMNS, rows)


def _interval(metric: dict | None) -> str:
    return "-" if metric is None else f"{fixed(metric['value'])} [{fixed(metric['low'])}, {fixed(metric['high'])}]"


def methods_table(records: Sequence[RunRecord]) -> str:
    """One line per method, ratio and plan: clean validation NLL over seeds, and the share of the gap it closes."""
    every = lines(records)
    rows = []
    for line in sorted(every, key=lambda x: (x.plan != "any", x.plan, x.ratio, _order(x))):
        closed = gap_closed(every, line)
        rows.append([
            title_of(line.method), f"{line.ratio:g}", line.plan, fixed(mean(line.nll)),
            f"{fixed(min(line.nll))} to {fixed(max(line.nll))}", str(len(line.nll)),
            "-" if closed is None else f"{100 * closed:.0f}%",
        ])  # fmt: skip
    return markdown_table(["method", "r", "plan", "validation NLL", "range over seeds", "seeds", "gap closed"], rows)


def told_of_gaps(every: Sequence[Line]) -> str:
    """What the gaps are told against, where there are runs of more compute; empty elsewhere."""
    more = sorted({f"{line.compute_of:g}" for line in every if line.compute_of is not None})
    told = (
        f"gap closed: at r = {', '.join(more)} against the run without noise of the same compute, elsewhere against "
        "that of the study's own steps\n\n"
    )
    return told if more else ""


def study_figure(records: Sequence[RunRecord], path: str | Path) -> Path:
    """Draw the study as a PNG: NLL against r as in paper A, figure 1, and the cures side by side.

    Raises ValueError or TypeError as `lines` does.
    """
    check_records(records, texts={"budget.plan": PAPER_FIGURES})
    every = lines(records)
    plans = sorted({line.plan for line in every if line.plan != "any"}, key=list(PAPER_FIGURES).index)
    cured = {line.plan for line in every if line.method not in ("clean", "clean_compute", "plain")}
    panels = [plan for plan in plans if plan in cured]
    plt = start_figure()
    fig, axes = wrapped(plt, 1 + len(panels), height=4.6)
    _draw_disease(axes[0], records, every)
    for axis, plan in zip(axes[1:], panels):
        if axis is not axes[1]:
            axis.sharex(axes[1])
        _draw_cures(axis, every, plan)
    return save_figure(fig, path)


_LABEL = LABEL.replace(", ", ",\n")  # in two lines beside an axis
_UNIT = METRICS["validation_nll"].unit
_COLOURS = {"train": "#b2182b", "plain": "#2166ac", "known": "#1b7837", "floor": "#888888"}


def _draw_disease(axis, records: Sequence[RunRecord], every: Sequence[Line]) -> None:
    """NLL of noisy training targets and of clean validation text against r."""
    clean = [line for line in every if line.method == "clean"]
    noisy = {line.plan for line in every if line.ratio}
    plan = next((p for p in ("steps", "table6", "batch", "budget") if p in noisy), "steps")
    train = defaultdict(list)
    for record in records:
        if method_of(record) == "clean" or (method_of(record) == "plain" and record.budget["plan"] == plan):
            check_records([record], numbers=["metrics.train_nll_noisy.value"])
            train[record.noise["ratio"]].append(record.metrics["train_nll_noisy"]["value"])
    ratios = sorted(train)
    axis.plot(ratios, [mean(train[r]) for r in ratios], "s-", color=_COLOURS["train"], label="train NLL, noisy targets")
    for method, label in (("plain", "validation NLL, plain loss"), ("known", "validation NLL, corrected loss")):
        points = {x.ratio: mean(x.nll) for x in every if x.method == method and x.plan == plan}
        if points and clean:
            points[0.0] = mean(clean[0].nll)
        axis.plot(sorted(points), [points[r] for r in sorted(points)], "o-", color=_COLOURS[method], label=label)
    for line in every:
        if line.method == "clean_compute" and line.plan == plan:
            look = {"markerfacecolor": "none", "zorder": 3}
            axis.plot(0.0, mean(line.nll), "D", color="#000000", label=LABEL, **look)
    if clean and ratios:
        grid = [i * max(ratios) / 100 for i in range(101)]
        floor = [mean(clean[0].nll) + math.log1p(r) for r in grid]
        axis.plot(grid, floor, "--", color=_COLOURS["floor"], lw=1.2, label="no noise - ln(1 - e): calibration alone")
    axis.set(xlabel="noise ratio r (wrong targets per right one)", ylabel=f"NLL ({_UNIT})")
    axis.set_title(f"What wrong targets do (plan: {plan})", loc="left", fontweight="bold")
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.35 * (high - low))  # room for the legend
    axis.legend(frameon=False, fontsize=8.5, loc="upper left")


def _draw_cures(axis, every: Sequence[Line], plan: str) -> None:
    """Clean validation NLL of each method at the largest ratio of a plan, one dot per seed."""
    top = max(line.ratio for line in every if line.plan == plan)
    plain = [x for x in every if x.method == "clean" or (x.method == "clean_compute" and x.plan == plan)]
    shown = plain + [x for x in every if x.plan == plan and x.ratio == top]
    shown.sort(key=_order, reverse=True)
    for row, line in enumerate(shown):
        colour = "#000000" if line.method in ("clean", "clean_compute") else _COLOURS["known"]
        colour = _COLOURS["train"] if line.method == "plain" else colour
        axis.plot(line.nll, [row] * len(line.nll), "o", ms=5, color=colour, alpha=0.55)
        axis.plot(mean(line.nll), row, "|", ms=16, mew=2, color=colour)
        axis.annotate(
            fixed(mean(line.nll)), (mean(line.nll), row), (0, 9), textcoords="offset points", ha="center", fontsize=8
        )
    for line in shown:
        if line.method == "clean":
            axis.axvline(mean(line.nll), color="#000000", lw=0.8, ls=":")
    axis.set_yticks(range(len(shown)), [title_of(line.method).replace(LABEL, _LABEL) for line in shown])
    axis.set_ylim(-0.6, len(shown) - 0.2)
    axis.margins(x=0.12)
    axis.set_xlabel(f"clean validation NLL ({_UNIT})")
    axis.set_title(f"The cure at r = {top:g} (plan: {plan})", loc="left", fontweight="bold")
