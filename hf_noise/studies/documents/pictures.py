"""The panels of the figure of noise documents, each drawn from a `Compared` study on an axis of matplotlib."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_noise.reports.verdicts import spread
from hf_noise.studies.documents.compare import Compared, Setting, curve, value_of

__all__ = ["PANELS", "Panel"]

_INK = "#222222"
_COLOURS = {"random": "#2166ac", "gaussian": "#b2182b", "boosted": "#1b7837", "low": "#e08214"}
_STYLES = ("-", "--", ":", "-.")
CURED = "#1b7837"


@dataclass(frozen=True)
class Panel:
    """What is drawn, and whether a study has it."""

    draw: Callable[[Any, Compared], None]
    fits: Callable[[Compared], bool] = lambda study: True


def _name(setting: Setting) -> str:
    return setting.protocol.removesuffix("-documents")


def _look(study: Compared, setting: Setting) -> dict[str, Any]:
    """The colour of a protocol; among its alphas the line is the fuller the less noise there is."""
    alphas = sorted({one.alpha for one in study.noisy("nll")}, reverse=True)
    style = _STYLES[min(alphas.index(setting.alpha), len(_STYLES) - 1)]
    return {"color": _COLOURS[_name(setting)], "ls": style, "lw": 1.4}


def _label(setting: Setting) -> str:
    return f"{_name(setting)}, alpha = {setting.alpha:g}"


def _mean_curve(runs: Any, metric: str = "validation_nll") -> tuple[np.ndarray, np.ndarray]:
    found = [curve(run, metric) for run in runs]
    steps = found[0][0]
    return steps, np.mean([np.interp(steps, *one) for one in found], axis=0)


def _title(axis: Any, text: str) -> None:
    axis.set_title(text, loc="left", fontweight="bold", fontsize=10.5)


def _curves(axis: Any, study: Compared) -> None:
    """Clean validation NLL along training, of the seeds that all settings have."""
    every = [study.clean, *(study.runs[setting] for setting in study.noisy("nll"))]
    shared = set.intersection(*map(set, every))

    def mean_of(runs: dict[int, Any]) -> tuple[np.ndarray, np.ndarray]:
        return _mean_curve([run for seed, run in runs.items() if seed in shared or not shared])

    axis.plot(*mean_of(study.clean), color=_INK, lw=1.8, label="no noise")
    for setting in study.noisy("nll"):
        axis.plot(*mean_of(study.runs[setting]), **_look(study, setting), label=_label(setting))
    axis.set(xlabel="step", ylabel=f"{study.loss} on clean text (nats)")
    axis.legend(frameon=False, fontsize=8)
    _title(axis, "Clean loss under noise documents")


def _differences(axis: Any, study: Compared, *, at_equal_text: bool) -> None:
    """Rise of the clean NLL over the run without noise, at each step or at equal text."""
    for setting in study.noisy("nll"):
        rises = []
        for seed, run in study.runs[setting].items():
            if seed not in study.clean:
                continue
            (steps, values), (clean_steps, clean) = curve(run), curve(study.clean[seed])
            at = steps * (1 - setting.alpha) if at_equal_text else steps
            kept = at >= clean_steps[0]
            steps, base = steps[kept], np.interp(at[kept], clean_steps, clean)
            rises.append(100 * (values[kept] / base - 1))
        if rises:
            axis.plot(steps, np.mean(rises, axis=0), "o", ms=3, **_look(study, setting), label=_label(setting))
    axis.axhline(0, color=_INK, lw=0.8)
    where = "at equal text" if at_equal_text else "at equal steps"
    axis.set(xlabel="step", ylabel=f"rise of the clean {study.loss}, %")
    axis.legend(frameon=False, fontsize=8)
    _title(axis, f"What the noise costs, {where}")


def _on_noise(axis: Any, study: Compared) -> None:
    """NLL on held-out noise along training, with the entropy that it tends to."""
    entropies: dict[str, float] = {}
    for setting in study.noisy("nll"):
        runs = list(study.runs[setting].values())
        axis.plot(*_mean_curve(runs, "noise_nll"), **_look(study, setting), label=_label(setting))
        entropies[_name(setting)] = runs[0].metrics["noise_nll"]["entropy"]
    for name, entropy in entropies.items():
        axis.axhline(entropy, color=_COLOURS[name], lw=0.8, alpha=0.6)
        axis.annotate(f"entropy {entropy:.2f}", (1, entropy), (-2, -10), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", fontsize=8, color=_COLOURS[name])  # fmt: skip
    axis.set(xlabel="step", ylabel=f"{study.loss} on held-out noise (nats)")
    axis.legend(frameon=False, fontsize=8)
    axis.margins(y=0.15)
    _title(axis, "The noise itself")


def _other_corpora(axis: Any, study: Compared) -> None:
    """Rise of the NLL on other corpora, a dot for each seed."""
    names, settings = _corpora(study), study.noisy("nll")
    for column, key in enumerate(names):
        for place, setting in enumerate(settings):
            found = study.rise(setting, key)
            if found is None:
                continue
            x = column + (place - (len(settings) - 1) / 2) * 0.8 / len(settings)
            look = _look(study, setting)
            axis.plot([x] * len(found.values), found.values, "o", ms=3, color=look["color"], alpha=0.5)
            axis.bar(x, found.mean, 0.7 / len(settings), color=look["color"], alpha=0.25 + 0.5 * setting.alpha / 0.2,
                     label=_label(setting) if column == 0 else None)  # fmt: skip
    axis.axhline(0, color=_INK, lw=0.8)
    axis.set_xticks(range(len(names)), [key.removeprefix("nll_") for key in names])
    axis.set_ylabel(f"rise of the {study.loss}, %")
    axis.legend(frameon=False, fontsize=8)
    _title(axis, "Other corpora (at equal steps)")


def _corpora(study: Compared) -> list[str]:
    first = next(iter(study.clean.values()), None)
    return [key for key in (first.metrics if first else ()) if key.startswith("nll_")]


def _cures(axis: Any, study: Compared) -> None:
    """Rise of the clean NLL with the plain loss and with the mixture's likelihood, a dot for each seed."""
    settings = study.noisy()[::-1]
    for row, setting in enumerate(settings):
        found = study.rise(setting)
        if found is None:
            continue
        colour = _COLOURS[_name(setting)] if setting.loss == "nll" else CURED
        axis.plot(found.values, [row] * len(found.values), "o", ms=4, color=colour, alpha=0.55)
        axis.plot(found.mean, row, "|", ms=14, mew=2, color=colour)
    for rise in _shorter(study):
        axis.axvline(rise, color=_INK, lw=0.8, ls=":")
        axis.annotate("less text, no noise", (rise, 1), (-3, -2), xycoords=("data", "axes fraction"),
                      textcoords="offset points", ha="right", va="top", rotation=90, fontsize=7.5)  # fmt: skip
    axis.axvline(0, color=_INK, lw=0.8)
    names = [f"{_name(s)} {s.alpha:g}\n{'plain' if s.loss == 'nll' else f'mixture, {s.loss}'}" for s in settings]
    axis.set_yticks(range(len(settings)), names, fontsize=8)
    axis.set_xlabel(f"rise of the clean {study.loss} over no noise, %")
    _title(axis, "Plain loss and the mixture's likelihood")


def _shorter(study: Compared) -> list[float]:
    """Rise of the runs without noise that saw less text."""
    found = []
    for setting, runs in study.runs.items():
        pairs = [(runs[seed], study.clean[seed]) for seed in runs if setting.clean_of and seed in study.clean]
        if pairs:
            found.append(spread([100 * (value_of(a) / value_of(b) - 1) for a, b in pairs]).mean)
    return found


#: In the order of the figure.
PANELS = (
    Panel(_curves),
    Panel(lambda axis, study: _differences(axis, study, at_equal_text=False), lambda study: bool(study.noisy("nll"))),
    Panel(lambda axis, study: _differences(axis, study, at_equal_text=True), lambda study: bool(study.noisy("nll"))),
    Panel(_on_noise, lambda study: bool(study.noisy("nll"))),
    Panel(_cures, lambda study: any(one.loss != "nll" for one in study.noisy())),
    Panel(_other_corpora, lambda study: bool(_corpora(study)) and bool(study.noisy("nll"))),
)
