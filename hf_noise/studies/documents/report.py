"""Tables and figure of a study of noise documents, from its records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_noise.atomic import write_atomic
from hf_noise.metrics.words import METRICS
from hf_noise.reports.figures import save_figure, start_figure, wrapped
from hf_noise.reports.record import RunRecord
from hf_noise.reports.tables import fixed, markdown_table
from hf_noise.reports.verdicts import Spread, spread
from hf_noise.studies.documents.claims import claims_table
from hf_noise.studies.documents.compare import Compared, Setting, compared, curve, value_of
from hf_noise.studies.documents.pictures import PANELS

__all__ = ["corpora_table", "cure_table", "settings_table", "show", "study_figure"]


READING = (
    "[low, high]: 95 % interval of a mean over seeds (Student's t). A rise is over the run without noise of the same "
    "seed, at equal steps; at equal text over that run at (1 - alpha) of its steps. Means are over the seeds that a "
    "setting has; all runs in the folder are shown."
)


def show(records: Sequence[RunRecord], settings: Any, runs: Sequence[Any]) -> str:
    """The settings side by side, other corpora, the cure, the paper's claims, and where the figure is."""
    output, study = Path(settings.output), compared(records)
    parts = [settings_table(study), corpora_table(study), cure_table(study), claims_table(study, study.task)]
    told = "\n\n".join(part for part in (*parts, READING) if part)
    write_atomic(output / "study.md", told + "\n")
    return f"{told}\n\nfigure: {study_figure(records, output / 'study.png')}\ntables: {output / 'study.md'}"


def settings_table(study: Compared) -> str:
    """One line per setting with the plain loss: the clean NLL, its rise, and the NLL on the noise itself."""
    rows = [_clean_row(study, one) for one in study.runs if one.is_clean]
    for one in study.noisy("nll"):
        noise = spread([value_of(run, "noise_nll") for run in study.runs[one].values()])
        entropy = next(iter(study.runs[one].values())).metrics["noise_nll"]["entropy"]
        rows.append([
            one.protocol, f"{one.alpha:g}", _nll(study, one), _told(study.rise(one)),
            _told(study.rise_at_equal_text(one)), _told(study.rise_over_shorter_run(one)), noise.told(3),
            fixed(entropy), str(len(study.runs[one])),
        ])  # fmt: skip
    heads = [
        "noise", "alpha", _heading(study), "rise, %", "rise at equal text, %",
        "rise over a run of that text, %", METRICS["noise_nll"].heading, "its entropy", "seeds",
    ]  # fmt: skip
    return markdown_table(heads, rows)


def _heading(study: Compared) -> str:
    return METRICS["validation_nll"].heading if study.task == "causal_lm" else f"{study.loss}, clean"


def _clean_row(study: Compared, one: Setting) -> list[str]:
    name = "none" if one.clean_of is None else f"none, {1 - one.clean_of:g} of the steps"
    return [name, "0", _nll(study, one), *["-"] * 5, str(len(study.runs[one]))]


def corpora_table(study: Compared) -> str:
    """Rise of the NLL on other corpora over the run without noise, in percent; empty where there are none."""
    first = next(iter(study.clean.values()), None)
    names = [key for key in (first.metrics if first else ()) if key.startswith("nll_")]
    if not names:
        return ""
    rows = [["none", "0", *(f"{_over(study, key):.3f} nats" for key in names)]]
    for one in study.noisy("nll"):
        rows.append([one.protocol, f"{one.alpha:g}", *(_told(study.rise(one, key)) for key in names)])
    return markdown_table(["noise", "alpha", *(f"{key.removeprefix('nll_')}: rise, %" for key in names)], rows)


def _over(study: Compared, key: str) -> float:
    return spread([value_of(run, key) for run in study.clean.values()]).mean


def cure_table(study: Compared) -> str:
    """The mixture's likelihood beside the plain one; empty where none was trained."""
    rows = []
    for one in study.noisy():
        plain = study.runs.get(Setting(one.protocol, one.alpha, "nll"), {})
        runs = study.runs[one]
        found = [value_of(run, "row_auroc") for run in runs.values()]
        auroc = fixed(spread(found).mean, 4) if None not in found else "-"
        won = [100 * (value_of(plain[s]) - value_of(runs[s])) / value_of(plain[s]) for s in runs if s in plain]
        is_plain = one.loss == "nll"
        rows.append([
            one.protocol, f"{one.alpha:g}", "plain" if is_plain else f"mixture, alpha {one.loss}", _nll(study, one),
            "-" if is_plain or not won else spread(won).told(2), auroc, _learned(study, one), str(len(runs)),
        ])  # fmt: skip
    if all(one.loss == "nll" for one in study.noisy()):
        return ""
    heads = ["noise", "alpha", "loss", _heading(study), "won over plain, %",
             METRICS["row_auroc"].heading, "alpha in the loss; from rows", "seeds"]  # fmt: skip
    return markdown_table(heads, rows)


def _learned(study: Compared, one: Setting) -> str:
    """Mean over seeds: in the loss at the end; then estimated from rows, with what all intervals span."""
    found = [run.metrics.get("learned_alpha") for run in study.runs[one].values()]
    if None in found:
        return "-"
    in_loss, value = (spread([each[key] for each in found]).mean for key in ("in_loss", "value"))
    low, high = min(each["low"] for each in found), max(each["high"] for each in found)
    return f"{in_loss:.3f}; {value:.3f} [{low:.3f}, {high:.3f}]"


def _nll(study: Compared, one: Setting) -> str:
    return spread([value_of(run) for run in study.runs[one].values()]).told(4)


def _told(found: Spread | None) -> str:
    return "-" if found is None else found.told(2)


def study_figure(records: Sequence[RunRecord], path: str | Path) -> Path:
    """Draw the study as a PNG: figures 2 to 4 of paper B, and the cure beside them.

    Raises ValueError or TypeError as `compared` does.
    """
    study = compared(records)
    if not any(curve(run)[0].size for run in study.clean.values()):
        raise ValueError("records have no curve of validation_nll, its steps and values; make the runs again")
    panels = [panel for panel in PANELS if panel.fits(study)]
    plt = start_figure()
    fig, axes = wrapped(plt, len(panels))
    for axis, panel in zip(axes, panels, strict=True):
        panel.draw(axis, study)
    return save_figure(fig, path)
