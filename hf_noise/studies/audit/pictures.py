"""The figure of an audit: T as a heat map, p(wrong) with the list's threshold, and the rate with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hf_noise.audit import LabelAudit
from hf_noise.reports.figures import save_figure, start_figure

__all__ = ["audit_figure"]

_RIGHT, _WRONG, _GREY = "#2166ac", "#b2182b", "#777777"
#: Classes up to which cells and axes of T are labelled.
_NAMED, _LETTERS = 20, 14


def audit_figure(audit: LabelAudit, listed: np.ndarray, path: Path, clean: np.ndarray | None = None) -> Path:
    """Draw the figure; `listed` is bool [N], `clean` true labels int64 [N] where they are known."""
    plt = start_figure()
    fig, axes = plt.subplots(1, 3, figsize=(14, 4.6), layout="constrained", width_ratios=[1.15, 1, 0.9])
    fig.get_layout_engine().set(wspace=0.05)
    _draw_transition(fig, axes[0], audit)
    _draw_doubt(axes[1], audit, listed, clean)
    _draw_rate(axes[2], audit, clean)
    return save_figure(fig, path)


def _draw_transition(fig: Any, axis: Any, audit: LabelAudit) -> None:
    """p(given | true) in percent; the diagonal is left pale, as what is wrong is beside it."""
    wrong = audit.transition.copy()
    np.fill_diagonal(wrong, np.nan)
    most = max(float(np.nanmax(wrong)), 0.01)
    image = axis.imshow(100 * wrong, cmap="Reds", vmin=0, vmax=100 * most)
    classes = len(audit.class_names)
    names = [name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}" for name in
             audit.class_names]  # fmt: skip
    if classes <= _NAMED:
        turned = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 2 else {}
        axis.set_xticks(range(classes), names, fontsize=9, **turned)
        axis.set_yticks(range(classes), names, fontsize=9)
        size = 9 if classes <= 10 else 6
        for i, j in np.ndindex(audit.transition.shape):
            share = audit.transition[i, j]
            if i == j or share >= 0.005:
                colour = _GREY if i == j else "white" if share > 0.6 * most else "black"
                axis.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=size, color=colour)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.set(xlabel="given label", ylabel="true class")
    axis.set_title("(a) Who is labelled as whom, % of a class", loc="left", fontweight="bold")
    fig.colorbar(image, ax=axis, shrink=0.8, label="% of the true class")


def _draw_doubt(axis: Any, audit: LabelAudit, listed: np.ndarray, clean: np.ndarray | None) -> None:
    bins = np.linspace(0, 1, 41)
    if clean is None:
        axis.hist(audit.p_wrong, bins, color=_GREY)
    else:
        is_wrong = clean != audit.labels
        for which, colour, label in ((~is_wrong, _RIGHT, "right in truth"), (is_wrong, _WRONG, "wrong in truth")):
            axis.hist(audit.p_wrong[which], bins, histtype="stepfilled", alpha=0.55, color=colour, label=label)
    if listed.any():
        threshold = float(audit.p_wrong[listed].min())
        axis.axvline(threshold, color="black", lw=1.2, ls="--", label=f"listed from {threshold:.2f}: {listed.sum():,}")
        axis.legend(loc="upper center", fontsize=9, edgecolor="none", framealpha=1)
    axis.set(yscale="symlog", xlim=(0, 1), xlabel="p(label is wrong)", ylabel="rows")
    low, high = axis.get_ylim()
    axis.set_ylim(0, high * 3)  # room for the legend
    axis.set_title("(b) Which rows are in doubt", loc="left", fontweight="bold")


def _draw_rate(axis: Any, audit: LabelAudit, clean: np.ndarray | None) -> None:
    """The rate with its interval, above what each estimator reads."""
    rate = audit.error_rate
    called = "verified rows" if audit.verified_by is not None else audit.estimate.chosen.method
    rows = [(called, rate.value, (rate.low, rate.high))]
    others = (audit.estimate.chosen,) * (audit.verified_by is not None) + audit.estimate.others
    rows += [(one.method, one.error_rate, None) for one in others]
    for place, (name, value, interval) in enumerate(rows):
        if interval is not None:
            axis.errorbar(100 * value, place, xerr=[[100 * (value - interval[0])], [100 * (interval[1] - value)]],
                          fmt="o", ms=8, capsize=5, lw=2, color=_WRONG)  # fmt: skip
            axis.annotate(str(rate), (100 * value, place), (0, 12), textcoords="offset points", ha="center",
                          fontsize=11, fontweight="bold", color=_WRONG, zorder=3,
                          bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip
        else:
            axis.plot(100 * value, place, "o", ms=6, mfc="white", color=_GREY)
        axis.annotate(name, (0, place), (4, -16), textcoords="offset points", fontsize=9, color=_GREY,
                      xycoords=axis.get_yaxis_transform())  # fmt: skip
    if clean is not None:
        true = 100 * float((clean != audit.labels).mean())
        axis.axvline(true, color="black", lw=1, ls=":", label=f"true: {true:.1f}%")
        axis.legend(frameon=False, loc="lower right", fontsize=9)
    ends = [100 * rate.high, *(100 * value for _, value, _ in rows)]
    axis.set(ylim=(len(rows) - 0.3, -0.7), xlim=(0, min(100, 1.15 * max(*ends, 1))), yticks=[])
    axis.set_xlabel("wrong labels, %")
    axis.spines["left"].set_visible(False)
    note = ", see note" if audit.warnings else ""
    axis.set_title(f"(c) The rate, {100 * rate.confidence:g}% interval{note}", loc="left", fontweight="bold")
