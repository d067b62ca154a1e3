"""The figure of an audit of tokens: the rate with what it stands on, and p(clean) of all tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hf_noise.reports.figures import save_figure, start_figure
from hf_noise.studies.token_audit.report import Found, rate_words

__all__ = ["token_audit_figure"]

_RIGHT, _WRONG, _GREY = "#2166ac", "#b2182b", "#777777"


def token_audit_figure(found: Found, path: Path) -> Path:
    """Draw the figure."""
    plt = start_figure()
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=[1.1, 1])
    _draw_rate(axes[0], found)
    _draw_weights(axes[1], found)
    return save_figure(fig, path)


def _draw_rate(axis: Any, found: Found) -> None:
    """The interval, above what each estimator leaves open."""
    rate = found.facts["error_rate"]
    rows = [("e", rate["low"], rate["high"]), *((name, *ends) for name, ends in rate["parts"].items())]
    for place, (name, low, high) in enumerate(rows):
        colour, width = (_WRONG, 4) if place == 0 else (_GREY, 2)
        axis.plot([100 * low, 100 * high], [place, place], color=colour, lw=width, solid_capstyle="butt")
        axis.annotate(name if place else rate_words(rate), (0, place), (4, 7), textcoords="offset points",
                      fontsize=11 if place == 0 else 9, fontweight="bold" if place == 0 else None, color=colour,
                      xycoords=axis.get_yaxis_transform(), bbox={"fc": "white", "ec": "none", "pad": 0.5})  # fmt: skip
    axis.plot(100 * rate["value"], 0, "o", ms=8, color=_WRONG)
    if found.realised is not None:
        true = 100 * found.realised["rate"]
        axis.axvline(true, color="black", lw=1, ls=":", label=f"true: {true:.1f}%")
        axis.legend(frameon=False, loc="lower right", fontsize=9)
    widest = max([rate["high"], *(high for _, _, high in rows if high < 1)])
    axis.set(ylim=(len(rows) - 0.4, -0.8), xlim=(0, min(100, 130 * widest + 1)), yticks=[])
    axis.set_xlabel("replaced tokens, %")
    axis.spines["left"].set_visible(False)
    axis.set_title(f"(a) The rate, {100 * rate['confidence']:.0f}% interval", loc="left", fontweight="bold")


def _draw_weights(axis: Any, found: Found) -> None:
    bins, clean = np.linspace(0, 1, 41), 1 - found.p_wrong[:, 1:]
    if found.is_wrong is None:
        axis.hist(clean.ravel(), bins, color=_GREY)
    else:
        wrong = found.is_wrong[:, 1:]
        for which, colour, label in ((~wrong, _RIGHT, "right in truth"), (wrong, _WRONG, "wrong in truth")):
            axis.hist(clean[which], bins, histtype="stepfilled", alpha=0.55, color=colour, label=label)
        axis.legend(loc="upper center", fontsize=9, edgecolor="none", framealpha=1)
    axis.set(yscale="symlog", xlim=(0, 1), xlabel="p(clean) of a token", ylabel="tokens")
    axis.set_ylim(0, axis.get_ylim()[1] * 3)  # room for the legend
    axis.set_title("(b) Which tokens are in doubt", loc="left", fontweight="bold")
