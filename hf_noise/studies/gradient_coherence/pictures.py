"""Figure of the gradient study: cosines of pairs, lengths of sums, and their ratio, against the size of the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_noise.reports.figures import save_figure, start_figure
from hf_noise.reports.paper import paper_table
from hf_noise.studies.gradient_coherence.claims import Found, expected_length

__all__ = ["draw"]

_WIDTH = 8.6  # inches: two panels beside each other, read at about 900 pixels
_KINDS = {"clean_cosine": ("clean / clean", "#2166ac"), "corrupt_cosine": ("corrupt / corrupt", "#b2182b"),
          "cross_cosine": ("clean / corrupt", "#777777")}  # fmt: skip
_RATES = ("#1b7837", "#762a83", "#b35806", "#2166ac")
_STYLES = {"clean_norm": ("o", "-", "clean"), "corrupt_norm": ("s", "--", "corrupt")}


def draw(found: Found, path: str | Path, *, is_comparable: bool = True) -> Path:
    """Three panels; lines of (b) are what the cosines alone predict, with one length of a gradient each.

    The paper's figures stand beside where they are of the same thing (`is_comparable`) and of a size that was measured.
    """
    paper = paper_table("A.table4") if is_comparable else {}
    plt = start_figure()
    fig, axes = plt.subplot_mosaic([["cosine", "cosine"], ["sums", "snr"]], figsize=(_WIDTH, 7.0), layout="constrained")
    fig.get_layout_engine().set(wspace=0.05, hspace=0.06)
    rates, sizes = sorted({rate for rate, _ in found}), sorted({size for _, size in found})
    colours = {rate: _RATES[i % len(_RATES)] for i, rate in enumerate(rates)}
    _draw_cosines(axes["cosine"], found, paper)
    _draw_sums(axes["sums"], found, colours)
    _draw_snr(axes["snr"], found, colours, [row for row in paper.values() if row["batch"] in sizes])
    for name in ("sums", "snr"):
        axes[name].set_xlim(sizes[0] / 1.2, sizes[-1] * 1.2)  # of an empty panel, too
        axes[name].set_xscale("log", base=2)
        axes[name].set_xticks(sizes, map(str, sizes))
        axes[name].set_xlabel("examples in a batch")
    return save_figure(fig, path)


def _draw_cosines(axis: Any, found: Found, paper: Mapping[str, Mapping[str, float]]) -> None:
    """Of each setting the mean over pairs, with their range."""
    for shift, (name, (label, colour)) in zip((-0.22, 0, 0.22), _KINDS.items()):
        for at, ((rate, size), told) in enumerate(found.items()):
            if (one := told.get(name)) is None:
                continue
            ends = [one.smallest, one.largest]
            axis.plot([at + shift] * 2, ends, color=colour, lw=5, alpha=0.25, solid_capstyle="butt")
            axis.plot(at + shift, one.value, "o", ms=6, color=colour)
            if (published := paper.get(f"e{rate:g}-b{size}")) is not None:
                axis.plot(at + shift, published[name], "_", ms=15, mew=1.5, color="black")
        axis.plot([], [], "o", color=colour, label=label)
    axis.plot([], [], lw=5, alpha=0.25, color="#777777", label="all pairs")
    if any(f"e{rate:g}-b{size}" in paper for rate, size in found):
        axis.plot([], [], "_", ms=12, mew=1.5, color="black", label="paper A, GPT-2 124M")
    axis.axhline(0, color="#777777", lw=0.8)
    axis.set_xticks(range(len(found)), [f"{100 * rate:g}%\nbatch {size}" for rate, size in found])
    axis.set_ylabel("cosine of two gradients")
    axis.set_title("(a) Pairs of gradients within a batch", loc="left", fontweight="bold")
    axis.legend(frameon=False, fontsize=9, ncol=5, loc="upper center", bbox_to_anchor=(0.5, -0.16), columnspacing=1.2)


def _draw_sums(axis: Any, found: Found, colours: dict[float, str]) -> None:
    for rate, colour in colours.items():
        cells = {size: told for (one, size), told in found.items() if one == rate}
        for name, (marker, line, _) in _STYLES.items():
            share, key = (1 - rate, "clean_cosine") if name == "clean_norm" else (rate, "corrupt_cosine")
            there = {size: told for size, told in cells.items() if told[name].value > 0}  # the axis is logarithmic
            _points(axis, there, name, marker, colour)
            cosines = [told[key].value for told in cells.values() if key in told]
            if not cosines or not there:
                continue
            cosine = float(np.mean(cosines))
            shape = {size: expected_length(size, share, cosine) for size in there}
            unit = np.mean([told[name].value / shape[size] for size, told in there.items()])
            axis.plot(list(shape), [unit * value for value in shape.values()], line, color=colour, lw=1.2)
    for marker, line, label in _STYLES.values():
        axis.plot([], [], line, marker=marker, color="#777777", label=f"{label} sum")
    for rate, colour in colours.items():
        axis.plot([], [], "-", lw=4, color=colour, label=f"{100 * rate:g}% corrupt")
    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_ylabel("length of the sum of gradients")
    axis.set_title("(b) Sums (lines: as cosines predict)", loc="left", fontweight="bold")
    low, high = axis.get_ylim()
    axis.set_ylim(low, 2.2 * high)  # room for the legend
    axis.legend(frameon=False, fontsize=9, loc="upper left", ncol=2)


def _draw_snr(
    axis: Any, found: Found, colours: dict[float, str], paper: Sequence[Mapping[str, float]]
) -> None:
    for rate, colour in colours.items():
        cells = {size: told for (one, size), told in found.items() if one == rate and "snr" in told}
        if not cells:
            continue
        axis.plot(list(cells), [told["snr"].value for told in cells.values()], "-", color=colour, lw=1.2)
        _points(axis, cells, "snr", "o", colour)
        axis.plot([], [], "o-", color=colour, label=f"{100 * rate:g}% corrupt")
        published = {row["batch"]: row["snr"] for row in paper if row["corruption"] == rate}
        if published:
            axis.plot(list(published), list(published.values()), ":", marker="_", ms=12, mew=2, color=colour)
    if any(row["corruption"] in colours for row in paper):
        axis.plot([], [], ":", marker="_", ms=12, mew=2, color="#777777", label="paper A")
    axis.set_ylim(0, 1.35 * axis.get_ylim()[1])  # room for the legend
    axis.set_ylabel("clean sum / corrupt sum (SNR)")
    axis.set_title("(c) Signal to noise", loc="left", fontweight="bold")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=9, loc="upper left", ncol=2)


def _points(axis: Any, cells: dict, name: str, marker: str, colour: str) -> None:
    for size, told in cells.items():
        one = told[name]
        ends = None if one.low is None else [[max(one.value - one.low, 0)], [one.high - one.value]]
        axis.errorbar([size], [one.value], yerr=ends, fmt=marker, ms=5, color=colour, capsize=2)
