"""The figure of a study of teacher noise: what each task loses as e rises, and what cures make of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from hf_noise.noise import rates
from hf_noise.reports.figures import save_figure, start_figure
from hf_noise.reports.verdicts import Spread
from hf_noise.studies.seq2seq.compare import PLAIN, Compared, Setting, base_of, clean_of

__all__ = ["COLOURS", "study_figure"]

COLOURS = {"sparse": "#c8553d", "rich": "#2a6f97"}
_PAPER = {"sparse": "paper A: WMT14", "rich": "paper A: CNN/DailyMail"}
_CURES = {
    PLAIN: "#4d4d4d", "mixture-teacher": "#1b7837", "mixture-learned": "#5aae61", "mixture-unigram": "#a6dba0",
    "audited-teacher": "#00441b", "audited-learned": "#238b45", "truncated": "#b08bbb", "error-norm": "#d8a0c4",
    "oracle": "#2a6f97",
}  # fmt: skip
_OTHER, _FAINT, _GRID = "#8c510a", "#9a9a9a", "#e6e6e6"
_HEIGHT, _ROW, _FRAME = 3.7, 0.42, 1.15  # inches: of a curve's panel, of a loss, and around a panel of losses


def study_figure(study: Compared, path: str | Path) -> Path:
    """Draw the study as a PNG: the rise of the clean test NLL against e, relative (paper A, figure 2) and absolute, for
    both tasks; below, each loss at the rate of the cures. A dot is a seed, a line or bar the mean."""
    plt = start_figure()
    compared_to = [task for task in study.tasks if study.values(clean_of(task))]  # a rise is one over clean runs
    cured = [(task, ratio) for ratio in study.cured for task in compared_to if len(study.cures(task, ratio)) > 1]
    rows = [cured[start : start + 2] for start in range(0, len(cured), 2)]
    heights = [_HEIGHT] + [_FRAME + _ROW * max(len(study.cures(*one)) for one in row) for row in rows]
    fig = plt.figure(figsize=(11.2, sum(heights)), layout="constrained")
    # Each row by itself, so that the names of losses take no room from the curves.
    parts = fig.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axis, is_relative in zip(parts[0].subplots(1, 2), (True, False)):
        _curves(axis, study, is_relative=is_relative)
    for part, row in zip(parts[1:], rows):
        told: list[str] = []
        for axis, (task, ratio) in zip(part.subplots(1, len(row), sharex=True, squeeze=False)[0], row):
            names = [one.title.replace(", ", ",\n") for one in study.cures(task, ratio)]
            _losses(axis, study, task, ratio, [""] * len(names) if names == told else names)
            told = names
    return save_figure(fig, path)


def _curves(axis: Any, study: Compared, *, is_relative: bool) -> None:
    ends, has_paper = [], is_relative and any(map(study.published, study.tasks))
    for task in study.tasks:
        rise = study.relative_rise if is_relative else study.rise
        found = {ratio: rise(Setting(task, ratio)) for ratio in study.ratios(task)}
        found = {rates.error_rate(ratio): spread for ratio, spread in found.items() if spread is not None}
        if has_paper:
            _published(axis, task, study.published(task))
        if not found:
            continue
        colour, rates_ = COLOURS[task], [0.0, *found]
        means = [0.0, *(spread.mean for spread in found.values())]
        axis.plot(rates_, means, "-", color=colour, lw=2.4, zorder=3, label=f"{task} source")
        for e, spread in found.items():
            _seeds(axis, e, spread, colour)
        ends.append((means[-1], f"{task}\n{means[-1]:+.1f}%" if is_relative else f"{task}\n{means[-1]:+.3f}", colour))
    axis.axhline(0, color=_FAINT, lw=0.8, zorder=1)
    title = f"{'relative' if is_relative else 'absolute'} rise{', as in figure 2 of paper A' if has_paper else ''}"
    axis.set_title(title, loc="left", fontweight="bold")
    axis.set_ylabel("rise of test NLL, clean targets (%)" if is_relative else "rise of test NLL (nats per token)")
    axis.set_xlabel("share e of training targets that the teacher wrote")
    axis.grid(axis="y", color=_GRID, lw=0.7)
    axis.set_axisbelow(True)
    last = max((e for task in study.tasks for e in map(rates.error_rate, study.ratios(task))), default=0.5)
    axis.set_xlim(-0.015, last * 1.22)
    _name_ends(axis, last, ends)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8.5, loc="best")


def _seeds(axis: Any, e: float, spread: Spread, colour: str) -> None:
    axis.plot([e] * len(spread.values), spread.values, "o", color=colour, ms=6, alpha=0.55, mec="white", mew=0.6,
              zorder=4)  # fmt: skip


def _published(axis: Any, task: str, rises: Mapping[float, float]) -> None:
    points = sorted((rates.error_rate(ratio), rise) for ratio, rise in rises.items())
    if points:
        axis.plot(*zip(*points), "--", color=COLOURS[task], lw=1.1, alpha=0.6, marker=".", ms=4, label=_PAPER[task])


def _name_ends(axis: Any, last: float, ends: list[tuple[float, str, str]]) -> None:
    """Name curves at their ends, apart from each other."""
    low, high = axis.get_ylim()
    apart, placed, ends = 0.13 * (high - low), [], sorted(ends)
    for height, _, _ in ends:
        placed.append(height if not placed else max(height, placed[-1] + apart))
    if not ends:
        return
    # Neighbours make room for each other, below the title.
    up = mean(place - height for place, (height, *_) in zip(placed, ends))
    up = max(up, placed[-1] - high + 0.06 * (high - low))
    for place, (_, text, colour) in zip(placed, ends):
        axis.text(last * 1.035, place - up, text, color=colour, fontsize=9, fontweight="bold", va="center",
                  linespacing=1.1)  # fmt: skip


def _losses(axis: Any, study: Compared, task: str, ratio: float, names: list[str]) -> None:
    """Each loss of a task at a ratio: the rise over clean runs of each seed, and how much of the gap is closed."""
    settings = study.cures(task, ratio)
    plain = study.relative_rise(Setting(task, ratio))
    for place, setting in enumerate(settings):
        rise = study.relative_rise(setting)
        if rise is None:
            continue
        colour = _CURES.get(base_of(setting.cure), _OTHER)
        axis.barh(place, rise.mean, height=0.56, color=colour, alpha=0.28, lw=0)
        axis.plot(rise.values, [place] * len(rise.values), "o", color=colour, ms=6, mec="white", mew=0.6, zorder=4)
        axis.plot([rise.mean] * 2, [place - 0.28, place + 0.28], color=colour, lw=2.4, solid_capstyle="butt", zorder=3)
        closed = study.gap_closed(setting)
        told = f"{rise.mean:+.1f}%" if closed is None else f"{rise.mean:+.1f}%, gap closed {round(100 * closed.mean)}%"
        share = None if closed is None else study.of_oracle(setting)
        told += "" if share is None else f"\n{round(100 * share.mean)}% of what right pairs alone close"
        # In a column of their own: a bar may end on either side of the clean runs.
        axis.annotate(told, (1, place), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                      va="center", fontsize=8.5, color="#333333", annotation_clip=False)  # fmt: skip
    axis.axvline(0, color="#1a9850", lw=1.4, zorder=2)
    axis.annotate("clean targets", (0, 1), (3, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                  color="#1a9850", fontsize=8.5)  # fmt: skip
    if plain is not None:
        axis.axvline(plain.mean, color=_CURES[PLAIN], lw=1, ls=":", zorder=2)
    axis.set_yticks(range(len(settings)), names)
    axis.set_ylim(len(settings) - 0.4, -0.6)
    e = rates.error_rate(ratio)
    axis.set_title(f"{task} source, e = {e:.2g}", loc="left", fontweight="bold", color=COLOURS[task], pad=18)
    axis.set_xlabel(f"rise of test NLL (%) over {mean(study.values(clean_of(task))):.2f} nats of clean targets")
    axis.grid(axis="x", color=_GRID, lw=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
