"""Figures 7 and 9 of paper B, figure 3 of paper A, and its bound on the number of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hf_noise.analysis.information import (
    channel_information_loss,
    independence_point,
    pac_sample_bound,
    relative_information_loss,
)
from hf_noise.analysis.ntp_theory import REGIMES, Proposition1, proposition1
from hf_noise.noise import LabelFlips
from hf_noise.reports.figures import save_figure, start_figure
from hf_noise.studies.theory.pair import Pair

__all__ = ["CLASSES", "DELTA", "DIMENSIONS", "draw_figure_7", "draw_figure_9", "draw_figure_a3", "draw_pac"]

#: Numbers of classes of paper A's figure 3: up to the vocabulary of GPT-2.
CLASSES = (2, 10, 100, 1000, 50257)
#: Of the bound on samples: VC dimensions, small where much is given beside the target, and the probability to miss.
DIMENSIONS, DELTA = (10, 100, 1000, 10_000), 0.05
#: Noise ratios that paper A trains at.
RATIOS = np.array([0.1, 0.3, 0.5, 1.0])
_WIDTH = 8.6  # inches: two panels beside each other, read at about 900 pixels
_COLOURS = ("#2166ac", "#b2182b", "#1b7837", "#762a83", "#b35806")
_GREY = "#777777"
_REGIMES = dict(zip(REGIMES, ("#e8e8e8", "#a6cee3", "#b2df8a", "#fdd49e")))
#: Of the k at which eta = 0, the shares for which f is drawn.
_SHARES = (0.5, 0.65, 0.8, 1.2)


def draw_figure_7(found: Proposition1, pair: Pair | None, path: str | Path) -> Path:
    """k over training where there is a pair of runs, f(eps) for some k, and the regimes over alpha and k."""
    plt = start_figure()
    rows = [["f", "map"]] if pair is None else [["k", "k"], ["f", "map"]]
    fig, axes = plt.subplot_mosaic(rows, figsize=(_WIDTH, 3.9 * len(rows)), layout="constrained")
    fig.get_layout_engine().set(wspace=0.05, hspace=0.05)
    p_c, p_n = float(found.p_c.flat[0]), float(found.p_n.flat[0])
    alphas = found.alpha[:, 0]
    alpha = float(alphas[len(alphas) // 2]) if pair is None else pair.alpha
    if pair is not None:
        _draw_k(axes["k"], pair)
    _draw_f(axes["f"], p_c, p_n, alpha)
    _draw_map(axes["map"], p_c, p_n, found, pair)
    return save_figure(fig, path)


def _draw_k(axis: Any, pair: Pair) -> None:
    """k at each step, a gap where there is none, and the k below which following the noise would pay."""
    axis.set_yscale("log")
    k = np.where(pair.is_rate, pair.k, np.nan)
    axis.plot(pair.steps, k, "o-", ms=4, color=_COLOURS[0], label="k, measured")
    label = r"$\eta$ = 0: above, following the noise never pays"
    axis.plot(pair.steps, pair.pays_below, "--", color=_COLOURS[1], label=label)
    axis.axhline(1, color=_GREY, lw=0.8, ls=":")
    missing = int((~pair.is_rate).sum())
    if missing:
        n = len(pair.steps)
        axis.plot(pair.steps[~pair.is_rate], np.full(missing, 0.03), "x", ms=6, color=_GREY, clip_on=False,
                  transform=axis.get_xaxis_transform(), label=f"no rate, {missing} of {n} steps")  # fmt: skip
    axis.set(xlabel="training steps", ylabel="k (clean lost per noise gained)")
    axis.set_title(f"(a) The exchange rate over training, alpha = {pair.alpha:g}", loc="left", fontweight="bold")
    axis.legend(frameon=False, fontsize=9, loc="best")


def _draw_f(axis: Any, p_c: float, p_n: float, alpha: float) -> None:
    """f against eps for several k, with eta and the break-even."""
    even = alpha / (1 - alpha) * p_c / p_n if alpha else p_c / p_n
    chosen = [float(f"{share * even:.2g}") for share in _SHARES]
    found = proposition1(p_c, p_n, alpha, chosen)
    reach = min(1.15 * float(found.break_even.max() or 0.1 * p_c), 0.999 * p_c)
    eps = np.linspace(0, reach, 400)
    for k, colour in zip(chosen, _COLOURS):
        one = proposition1(p_c, p_n, alpha, k)
        axis.plot(eps, 1000 * one.f(eps), color=colour, label=f"k = {k:g}")
        if one.eta > 0:
            axis.plot(one.eta, 1000 * one.maximum, "o", ms=5, color=colour)
            if one.break_even < reach:
                axis.plot(one.break_even, 0, "s", ms=5, color=colour, zorder=3)
    if top := 1000 * float(found.maximum.max()):
        axis.set_ylim(-2 * top, 1.2 * top)
    axis.axhline(0, color=_GREY, lw=0.8)
    axis.set_xlabel(r"$\epsilon$, what $p_c$ loses (dot: $\eta$, square: break-even)")
    axis.set_ylabel(r"$f(\epsilon)$, thousandths of a nat")
    axis.set_title(f"(b) Mixed loss saved, alpha = {alpha:g}", loc="left", fontweight="bold")
    axis.locator_params(axis="x", nbins=5)
    axis.legend(frameon=False, fontsize=9, loc="lower left")


def _draw_map(axis: Any, p_c: float, p_n: float, found: Proposition1, pair: Pair | None) -> None:
    """Which statement holds where, over alpha and k; dots are the rows of the table, a diamond the pair's last k."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    points = [*found.k.flat, 0.5 * p_c / p_n, *(pair.k[-1:][pair.is_rate[-1:]] if pair else ())]
    k = np.logspace(max(np.log10(min(points)) - 0.4, -199), min(np.log10(max(points)) + 0.6, 199), 300)
    alpha = np.linspace(0, min(max(0.75, 1.1 * float(found.alpha.max())), 0.999), 300)
    regime = proposition1(p_c, p_n, alpha, k[:, None]).regime
    kinds = [name for name in REGIMES if (regime == name).any()]
    number = np.select([regime == name for name in kinds], range(len(kinds)))
    colours = ListedColormap([_REGIMES[name] for name in kinds])
    axis.pcolormesh(alpha, k, number, cmap=colours, vmin=-0.5, vmax=len(kinds) - 0.5, rasterized=True)
    axis.plot(found.alpha.ravel(), found.k.ravel(), ".", ms=5, color="black")
    if pair is not None and pair.is_rate[-1]:  # the map is of the last step's p_c
        axis.plot(pair.alpha, pair.k[-1], "D", ms=7, color=_COLOURS[0], label="measured, at the end")
    axis.set_yscale("log")
    axis.set(xlabel="share of noise alpha", ylabel="k")
    axis.set_title("(c) Which statement holds", loc="left", fontweight="bold")
    handles = [*(line for line in axis.lines if not line.get_label().startswith("_")),
               *(Patch(color=_REGIMES[name], label=name) for name in kinds)]  # fmt: skip
    axis.legend(
        handles=handles, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.45, -0.16), ncol=min(len(handles), 4),
        frameon=False, handlelength=1.2, columnspacing=1.0,
    )  # fmt: skip


def draw_figure_9(found: Proposition1, path: str | Path) -> Path:
    """The bilingual example: the mixed loss saved, and the loss in the language looked at."""
    plt = start_figure()
    fig, (left, right) = plt.subplots(1, 2, figsize=(_WIDTH, 3.9), layout="constrained")
    fig.get_layout_engine().set(wspace=0.06)
    eta = float(found.eta)
    eps, loss = np.linspace(0, 2.6 * eta, 300), -float(np.log(found.p_c))
    marks = {r"$\eta$": (eta, "o"), "break-even": (float(found.break_even), "s")}
    left.plot(eps, 1000 * found.f(eps), color=_COLOURS[0])
    right.plot(eps, loss + found.clean_loss_rise(eps), color=_COLOURS[0])
    for (name, (at, marker)), colour in zip(marks.items(), (_COLOURS[2], _COLOURS[1])):
        rise = float(found.clean_loss_rise(at))
        left.plot(at, 1000 * found.f(at), marker, ms=7, color=colour, label=name)
        right.plot(at, loss + rise, marker, ms=7, color=colour, label=f"{name}: +{rise:.3f}")
    left.axhline(0, color=_GREY, lw=0.8)
    left.axvline(2 * eta, color=_COLOURS[3], lw=1, ls=":", label=r"$2\eta$, the bound")
    double = float(found.clean_loss_rise(2 * eta))
    right.axvline(2 * eta, color=_COLOURS[3], lw=1, ls=":", label=rf"$2\eta$, the bound: +{double:.3f}")
    right.axhline(loss + 0.1, color=_GREY, lw=1, ls="--", label="+0.1, as the paper says")
    left.set(xlabel=r"$\epsilon$", ylabel=r"$f(\epsilon)$, thousandths of a nat")
    right.set(xlabel=r"$\epsilon$", ylabel="loss in language 1, nats per token")
    left.set_title("(a) Mixed loss saved", loc="left", fontweight="bold")
    right.set_title("(b) What language 1 pays", loc="left", fontweight="bold")
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=9, loc="best")
    told = f"alpha = {found.alpha:g}, k = {found.k:g}, losses {loss:g} and {-float(np.log(found.p_n)):g}"
    fig.suptitle(f"Two languages: {told}", x=0.01, ha="left", fontsize=10)
    return save_figure(fig, path)


def draw_figure_a3(path: str | Path) -> Path:
    """Relative information loss against the error rate, for several numbers of classes."""
    plt = start_figure()
    fig, axis = plt.subplots(figsize=(_WIDTH, 4.2), layout="constrained")
    p = np.linspace(0, 1, 1001)
    for n, colour in zip(CLASSES, _COLOURS):
        at = float(independence_point(n))
        axis.plot(p, relative_information_loss(p, n), color=colour, label=f"n = {n:,}")
        axis.plot(at, 1, "o", ms=5, color=colour, clip_on=False, zorder=3)
    axis.plot(p, p, ":", color=_GREY, label="n to infinity")
    rates = np.linspace(0, 0.999, 201)
    to_next = [LabelFlips.cyclic(error_rate=e, num_classes=10, allow_adversarial=True) for e in rates]
    loss = [channel_information_loss(one.transition) for one in to_next]
    axis.plot(rates, loss, "--", color=_COLOURS[1], label="n = 10, all to\nthe next class")
    axis.set(xlabel="error rate e", ylabel="share of the labels' information lost", xlim=(0, 1), ylim=(0, 1.02))
    axis.set_title("What noise takes (dots: labels say nothing)", loc="left", fontweight="bold")
    axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save_figure(fig, path)


def draw_pac(path: str | Path) -> Path:
    """The PAC bound on the number of samples, against the error to reach and against the share of wrong ones."""
    plt = start_figure()
    fig, (left, right) = plt.subplots(1, 2, figsize=(_WIDTH, 3.9), layout="constrained")
    fig.get_layout_engine().set(wspace=0.06)
    eps, e = np.logspace(-3, -0.5, 200), np.linspace(0, 0.9, 200)
    for d, colour in zip(DIMENSIONS, _COLOURS):
        left.plot(eps, pac_sample_bound(eps, DELTA, d), color=colour, label=f"d = {d:,}")
    left.set(xscale="log", yscale="log", xlabel=r"error to reach $\epsilon$", ylabel="clean samples, at $c_0$ = 1")
    left.set_title("(a) Less given, more samples", loc="left", fontweight="bold")
    left.legend(frameon=False, fontsize=9, loc="upper right", title="VC dimension", title_fontsize=9)
    clean = pac_sample_bound(0.1, DELTA, 100)
    right.plot(e, pac_sample_bound(0.1, DELTA, 100, error_rate=e) / clean, color=_COLOURS[0], label="1 / (1 - e)")
    label = "r = 0.1, 0.3, 0.5, 1: 1 + r times"
    right.plot(RATIOS / (1 + RATIOS), 1 + RATIOS, "o", ms=6, color=_COLOURS[1], label=label)
    right.set(xlabel="error rate e", ylabel="samples, of those without noise", xlim=(0, 0.9), ylim=(0, 10))
    right.set_title("(b) Wrong ones do not count", loc="left", fontweight="bold")
    right.legend(frameon=False, fontsize=9, loc="upper left")
    return save_figure(fig, path)
