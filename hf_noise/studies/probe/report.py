"""Tables of a probe, from its records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from hf_noise.analysis.paired import PairedTest
from hf_noise.atomic import write_atomic
from hf_noise.reports.record import RunRecord
from hf_noise.reports.tables import markdown_table
from hf_noise.studies.probe.claims import LGM, claims_table
from hf_noise.studies.probe.compare import WORDS, Cell, Compared, area_of, compared, told
from hf_noise.studies.probe.pictures import study_figure

__all__ = ["accuracy_table", "area_table", "gain_table", "noise_table", "show"]


def show(records: Sequence[RunRecord], settings: Any, runs: Sequence[Any]) -> str:
    """All tables, the claims, and where the figure is."""
    output, study = Path(settings.output), compared(records)
    parts = [gain_table(study), accuracy_table(study), noise_table(study), area_table(study), claims_table(study)]
    said = "\n\n".join(part for part in (*parts, reading(study, records)) if part)
    write_atomic(output / "study.md", said + "\n")
    return f"{said}\n\nfigure: {study_figure(study, output)}\ntables: {output / 'study.md'}"


def reading(study: Compared, records: Sequence[RunRecord]) -> str:
    """How the figures came about, in words."""
    first = records[0]
    tried = {run.loss["penalty"]["name"]: run.budget["settings_tried"] for run in records}
    listed = ", ".join(f"{WORDS[name]} {tried[name]}" for name in WORDS if name in tried)
    seeds = max(len(by_seed) for by_penalty in study.runs.values() for by_seed in by_penalty.values())
    cut = first.data["at_limit"].get("test", 0)
    lines = [
        f"Accuracy in percent on {first.data['test_rows']:,} test rows, {seeds} seed{'s'[: seeds > 1]}; settings were "
        f"chosen on {first.data['validation_rows']:,} validation rows (labels as wrong as those of training) among: "
        f"{listed}. Differences are paired by seed: mean [95 % interval, Student's t]; p is that of all ways to swap "
        f"pairs, for {seeds} seeds at least {min(1.0, 2.0 ** (1 - seeds)):.3g}. Over rows: 95 % interval for other "
        "test rows. Of many comparisons one in twenty comes out apart by chance."
    ]
    if cut:
        lines.append(f"{cut:,} test texts fill the longest input of the network; most of them were cut.")
    return "\n".join(lines)


def gain_table(study: Compared) -> str:
    """LGM against no penalty: one line for each head, labels and loss. Empty without LGM."""
    rows = []
    for cell in study.cells():
        found = study.against((cell, LGM), (cell, "none"))
        if found is None:
            continue
        over = study.over_rows(cell, LGM)
        rows.append([
            *_named(study, cell), _spread(study.values(cell, "none")), _spread(study.values(cell, LGM)), told(found),
            f"{found.wins}-{found.ties}-{found.losses}", _p(found),
            "-" if over is None else f"[{over[0]:.2f}, {over[1]:.2f}]",
        ])  # fmt: skip
    heads = ["head", "wrong labels, %", "loss", "plain", "LGM", "gain, points", "won-tied-lost", "p", "over rows"]
    return markdown_table(heads, rows) if rows else ""


def accuracy_table(study: Compared) -> str:
    """All penalties side by side; empty where there is LGM alone."""
    others = [name for name in study.penalties if name != LGM]
    if not others:
        return ""
    names = ["none", *study.penalties]
    rows = [[*_named(study, cell), *(_spread(study.values(cell, name)) for name in names)] for cell in study.cells()]
    return markdown_table(["head", "wrong labels, %", "loss", *(WORDS[name] for name in names)], rows)


def noise_table(study: Compared) -> str:
    """What helps a head whose labels are wrong, in points over the plain one; empty without corrected heads."""
    rows = []
    for cell in study.cells(losses=("corrected",)):
        plain = Cell(cell.head, cell.labels, "nll")
        ways = [((plain, LGM), (plain, "none")), ((cell, "none"), (plain, "none")), ((cell, LGM), (plain, "none")),
                ((cell, LGM), (cell, "none"))]  # fmt: skip
        rows.append([*_named(study, cell)[:2], *(told(study.against(*way)) for way in ways)])
    heads = ["head", "wrong labels, %", "LGM over plain", "corrected over plain", "both over plain",
             "LGM beside corrected"]  # fmt: skip
    return markdown_table(heads, rows) if rows else ""


def area_table(study: Compared) -> str:
    """Correct areas in percent, and those of LGM against the others; empty where none was looked at."""
    rows = []
    for cell in study.cells(losses=("nll",)):
        names = [name for name in ("none", "l2", LGM) if study.values(cell, name, area_of)]
        if len(names) < 2:
            continue
        against = [study.against((cell, LGM), (cell, name), area_of) for name in ("none", "l2")]
        rows.append([
            *_named(study, cell)[:2], *(_spread(study.values(cell, name, area_of)) for name in ("none", "l2", LGM)),
            *map(told, against),
        ])  # fmt: skip
    heads = ["head", "wrong labels, %", "area, plain", "area, L2 on outputs", "area, LGM", "LGM over plain",
             "LGM over L2"]  # fmt: skip
    return markdown_table(heads, rows) if rows else ""


def _named(study: Compared, cell: Cell) -> list[str]:
    kind = "" if cell.is_clean else f" ({cell.labels.partition('-')[2] or cell.labels})"
    return [cell.head, f"{100 * study.wrong(cell):.1f}{kind}", "plain" if cell.loss == "nll" else "corrected"]


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _p(found: PairedTest) -> str:
    return "-" if found.permutation_p is None or found.n == 1 else f"{found.permutation_p:.3g}"
