"""The figure of a probe: what each penalty gains, how accuracy falls with wrong labels, and figure 6 of paper B."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from hf_noise.reports.figures import save_figure, start_figure
from hf_noise.studies.probe.claims import LGM
from hf_noise.studies.probe.compare import WORDS, Cell, Compared, area_of

__all__ = ["study_figure"]

COLOURS = {"none": "#555555", LGM: "#b2182b", "norm": "#b35806", "cosine": "#762a83", "l2": "#2166ac"}
SLICES = "slices.safetensors"
_SLICES_HEIGHT = 2.1  # inches
_SHOWN = 3  # squares of each penalty
_CLASSES = (
    "#8dd3c7", "#bebada", "#fb8072", "#80b1d3", "#fdb462", "#ffed6f", "#fccde5", "#bc80bd", "#ccebc5", "#d9d9d9"
)  # fmt: skip


def study_figure(study: Compared, output: str | Path) -> Path:
    """Draw `<output>/study.png`; squares around rows are shown where the folders of the heads are there."""
    plt = start_figure()
    slices = _slices(study, Path(output))
    has_noise = len({study.wrong(cell) for cell in study.cells(losses=("nll",))}) > 1
    has_area = any(study.values(cell, "none", area_of) for cell in study.cells())
    panels = ["gain", *(["noise"] if has_noise else []), *(["area"] if has_area else [])]
    cells = [cell for cell in study.cells() if cell in _with_penalty(study)]
    height = max(3.4, 0.5 * len(cells) + 1.2)
    ratios = [height] + [3.4] * (len(panels) > 1) + [_SLICES_HEIGHT] * bool(slices)
    fig = plt.figure(figsize=(11, sum(ratios)), layout="constrained")
    parts = fig.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    _draw_gains(parts[0].subplots(), study, cells)
    if len(panels) > 1:
        axes = np.atleast_1d(parts[1].subplots(1, len(panels) - 1))
        for axis, panel in zip(axes, panels[1:]):
            {"noise": _draw_noise, "area": _draw_areas}[panel](axis, study)
    if slices:
        _draw_slices(parts[-1], slices)
    return save_figure(fig, Path(output) / "study.png")


def _with_penalty(study: Compared) -> list[Cell]:
    return [cell for cell, by_penalty in study.runs.items() if set(by_penalty) - {"none"}]


def _draw_gains(axis: Any, study: Compared, cells: list[Cell]) -> None:
    """Points gained over no penalty, with 95 % intervals over seeds."""
    names = study.penalties
    for row, cell in enumerate(cells):
        for place, name in enumerate(names):
            found = study.against((cell, name), (cell, "none"))
            if found is None:
                continue
            y = row + 0.7 * ((place + 0.5) / len(names) - 0.5)
            if found.low is not None:
                axis.plot([found.low, found.high], [y, y], color=COLOURS[name], lw=1.6, solid_capstyle="butt")
            axis.plot(found.mean, y, "o", ms=5, color=COLOURS[name], label=WORDS[name] if row == 0 else None)
        if row % 2:
            axis.axhspan(row - 0.5, row + 0.5, color="#f4f4f4", zorder=0)
    axis.axvline(0, color="#777777", lw=0.9)
    axis.set_yticks(range(len(cells)), [_label(study, cell) for cell in cells])
    axis.set_ylim(len(cells) - 0.5, -0.5)
    axis.set_xlabel("test accuracy gained over no penalty, points (95 % interval over seeds)")
    axis.set_title("(a) What a penalty gains", loc="left", fontweight="bold")
    axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _label(study: Compared, cell: Cell) -> str:
    wrong = 100 * study.wrong(cell)
    labels = "labels as they are" if cell.is_clean else f"{wrong:.0f} % wrong ({cell.labels.partition('-')[2]})"
    return f"{cell.head}, {labels}{', corrected' if cell.loss == 'corrected' else ''}"


def _draw_noise(axis: Any, study: Compared) -> None:
    """Accuracy against the share of wrong labels, with and without LGM and correction."""
    ways = {("nll", "none"): ("-", "plain"), ("nll", LGM): ("-", "LGM"), ("corrected", "none"): ("--", "corrected"),
            ("corrected", LGM): ("--", "corrected + LGM")}  # fmt: skip
    heads = dict.fromkeys(cell.head for cell in study.cells())
    for head, marker in zip(heads, "os"):
        for (loss, penalty), (line, word) in ways.items():
            # Without noise there is nothing to correct: both lines begin at one point.
            cells = [cell for cell in study.cells() if cell.head == head and (cell.loss == loss or cell.is_clean)]
            points = sorted((100 * study.wrong(cell), mean(values)) for cell in cells
                            if (values := study.values(cell, penalty)))  # fmt: skip
            if points and (loss == "nll" or len(points) > 1):
                axis.plot(*zip(*points), line, marker=marker, ms=5, lw=1.4, color=COLOURS[penalty],
                          label=f"{head}, {word}")  # fmt: skip
    axis.set(xlabel="wrong labels, %", ylabel="test accuracy, %")
    axis.set_title("(b) What wrong labels cost", loc="left", fontweight="bold")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_areas(axis: Any, study: Compared) -> None:
    """Correct area of each head, a dot for each seed."""
    cells = [cell for cell in study.cells(losses=("nll",)) if study.values(cell, "none", area_of)]
    for row, cell in enumerate(cells):
        for place, name in enumerate(("none", "l2", LGM)):
            if values := study.values(cell, name, area_of):
                x = row + 0.24 * (place - 1)
                axis.plot([x] * len(values), values, "o", ms=4, alpha=0.5, color=COLOURS[name])
                axis.plot([x - 0.09, x + 0.09], [mean(values)] * 2, lw=2.4, color=COLOURS[name],
                          label=WORDS[name] if row == 0 else None)  # fmt: skip
    ticks = [f"{cell.head}\n{'as they are' if cell.is_clean else f'{100 * study.wrong(cell):.0f} % wrong'}"
             for cell in cells]  # fmt: skip
    axis.set_xticks(range(len(cells)), ticks)
    axis.set_ylabel("area predicted correctly, %")
    axis.set_title("(c) How far decisions hold", loc="left", fontweight="bold")
    axis.legend(frameon=False, fontsize=9)


def _slices(study: Compared, output: Path) -> dict[str, dict[str, np.ndarray]]:
    """Predicted classes around the first rows, of the first head that has them for LGM and none; empty else."""
    from safetensors.numpy import load_file

    for cell in study.cells(losses=("nll",)):
        found = {}
        for name in ("none", "l2", LGM):
            for run in study.runs[cell].get(name, {}).values():
                if (file := output / run.name / SLICES).is_file():
                    found[name] = load_file(file) | {"cell": np.array(_label(study, cell))}
        if {"none", LGM} <= set(found):
            return found
    return {}


def _draw_slices(part: Any, slices: dict[str, dict[str, np.ndarray]]) -> None:
    """Figure 6: squares around test rows, coloured by the class that is predicted, a line round the right one."""
    from matplotlib.colors import ListedColormap

    first = next(iter(slices.values()))
    rows = _telling(first)
    classes = max(int(one["predicted"].max()) for one in slices.values()) + 1
    colours = ListedColormap([_CLASSES[i % len(_CLASSES)] for i in range(classes)])
    axes = part.subplots(1, len(rows) * len(slices), squeeze=False)[0]
    part.suptitle(f"(d) Decisions in a random plane around {len(rows)} test rows ({first['cell']}); the line is round "
                  "the right class", x=0.01, ha="left", fontsize=10, fontweight="bold")  # fmt: skip
    for at, row in enumerate(rows):
        for place, (name, one) in enumerate(slices.items()):
            axis, offsets = axes[at * len(slices) + place], one["offsets"]
            axis.pcolormesh(offsets, offsets, one["predicted"][row].T, cmap=colours, vmin=-0.5, vmax=classes - 0.5,
                            rasterized=True)  # fmt: skip
            right = one["labels"][row] == one["predicted"][row].T
            if right.any() and not right.all():
                axis.contour(offsets, offsets, right, levels=[0.5], colors="black", linewidths=1.2)
            axis.plot(0, 0, "+", color="black", ms=7)
            axis.set_title(f"{WORDS[name]}\n{100 * right.mean():.0f} %", fontsize=9)
            axis.set(xticks=[], yticks=[], aspect="equal")


def _telling(plain: dict[str, np.ndarray]) -> list[int]:
    """Rows in whose square about half is right without a penalty: of all others there is less to see."""
    right = (plain["predicted"] == plain["labels"][:, None, None]).mean((1, 2))
    return sorted(np.argsort(np.abs(right - 0.5), kind="stable")[:_SHOWN].tolist())
