"""The first picture: how much worse each family gets with wrong training data, and with its cure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from hf_noise.reports.figures import save_figure, start_figure
from hf_noise.reports.tables import seeds_told
from hf_noise.studies.report.efforts import explained
from hf_noise.studies.report.families import Curve

__all__ = ["COLOURS", "digest", "draw", "percent", "spaced"]

#: By family, on white; a family's second line is drawn with other marks.
COLOURS = {
    "language model": "#1f5fa8", "encoder-decoder": "#8a4fb0", "classifier": "#2b7a3f", "diffusion model": "#c2491d",
}  # fmt: skip
_MARKS = ("o", "s")
_APART = 6.4  # percent between names of lines
_WIDE = 170  # letters in a line below the picture


def percent(value: float) -> str:
    """A cost, with a digit below ten."""
    return f"{value:.1f} %" if abs(value) < 9.95 else f"{value:.0f} %"


def spaced(places: Sequence[float], least: float) -> list[float]:
    """The same places in the same order, moved up so that each two are at least so far apart."""
    moved = list(places)
    order = sorted(range(len(places)), key=lambda i: places[i])
    for below, above in zip(order, order[1:]):
        moved[above] = max(moved[above], moved[below] + least)
    return moved


def digest(curves: Sequence[Curve], left_out: Sequence[str] = ()) -> str:
    """16 hexadecimal digits of all that the picture shows, by which one knows whether it is of these records."""
    shown = [(one.title, one.source, one.size, one.family.cure, [
        [(rate, found.values) for rate, found in one.costs(of)] for of in (one.plain, one.cured)
    ], sorted(one.of_paper().items())) for one in curves]  # fmt: skip
    return hashlib.blake2s(repr((shown, [*explained(curves), *left_out])).encode(), digest_size=8).hexdigest()


def draw(curves: Sequence[Curve], path: Path, left_out: Sequence[str] = ()) -> Path:
    """Write the picture as a PNG, which carries the digest of its figures; sentences on what it lacks stand below."""
    plt = start_figure()
    fig, ax = plt.subplots(figsize=(9.6, 5.7), layout="constrained")
    ends, seen = [], []
    for one in curves:
        mark = _MARKS[seen.count(one.family.name) % len(_MARKS)]
        seen.append(one.family.name)
        colour = COLOURS[one.family.name]
        told = []
        for of, style in ((one.plain, "-"), (one.cured, "--")):
            if not (costs := one.costs(of)):
                continue
            rates, means = [0.0, *(rate for rate, _ in costs)], [0.0, *(found.mean for _, found in costs)]
            wide = [0.0, *(_half(found.interval) for _, found in costs)]
            ax.errorbar(rates, means, wide, color=colour, linestyle=style, marker=mark, markersize=5, capsize=2,
                        linewidth=1.8, elinewidth=1)  # fmt: skip
            told.append((rates[-1], means[-1]))
        ends.append((one, *told))  # the plain loss has runs at one error rate at least
        if of_paper := one.of_paper():
            last = max(of_paper)
            beside = last + 0.009 * (1 + seen[:-1].count(one.family.name))  # two of a family may be alike
            ax.plot(beside, of_paper[last], marker="D", color=colour, markerfacecolor="white", markersize=6,
                    linestyle="none", zorder=4)  # fmt: skip
    places = spaced([plain for _, (_, plain), *_ in ends], _APART)
    for y, (one, (x, plain), *cured) in zip(places, ends):
        below = [f"\n{percent(value)} with {one.family.cure}" for _, value in cured]
        ax.annotate(f"{one.title} ({one.family.label}): {percent(plain)}{''.join(below)}", (x + 0.028, y), va="center",
                    color=COLOURS[one.family.name], fontsize=8.5, linespacing=1.25)  # fmt: skip
    ax.plot([], [], color="#444", linestyle="-", label="trained on the noise as it is (bars: 95 % over seeds)")
    ax.plot([], [], color="#444", linestyle="--", label="with the cure of the family")
    ax.plot([], [], color="#444", marker="D", markerfacecolor="white", linestyle="none",
            label="the papers at e = 0.5, at their own scale")  # fmt: skip
    ax.axhline(0, color="#999", linewidth=0.8)
    ax.set_xlim(-0.01, max(x for _, (x, _), *_ in ends) + 0.3)
    ax.set_xticks([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    ax.spines["bottom"].set_bounds(0, 0.5)
    ax.set_xlabel("effective error rate e of the training data", x=0.32)
    said = " ".join([*explained(curves), *left_out])
    below = "\n".join(line for text in (said, _sizes(curves)) for line in wrap(text, _WIDE))
    fig.supxlabel(below, fontsize=7.5, color="#555", x=0.01, ha="left")
    ax.set_ylabel("worse than without noise, %")
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    return save_figure(fig, path, {"Description": digest(curves, left_out)})


def _sizes(curves: Sequence[Curve]) -> str:
    """Whose records these are, and of how many test units and seeds, the fewest of a study's lines."""
    sizes: dict[str, tuple[int, int]] = {}
    for one in curves:
        n, seeds = sizes.get(one.source, one.size)
        sizes[one.source] = min(n, one.size[0]), min(seeds, one.size[1])
    told = [f"{study} (n = {n:,}, {seeds_told([seeds])})" for study, (n, seeds) in sizes.items()]
    return f"records: {', '.join(told)}"


def _half(interval: tuple[float, float] | None) -> float:
    return 0.0 if interval is None else (interval[1] - interval[0]) / 2
