"""Tables of a probe, from its records alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hf_noise.analysis.paired import PairedTest
from hf_noise.atomic import write_atomic
from hf_noise.data.passages import DOCS_TOPICS
from hf_noise.reports.record import RunRecord
from hf_noise.reports.tables import markdown_table, mean_sd
from hf_noise.studies.probe.claims import LGM, claims_table
from hf_noise.studies.probe.compare import WORDS, Cell, Compared, area_of, compared, told
from hf_noise.studies.probe.pictures import study_figure

__all__ = ["SAW_PASSAGES", "accuracy_table", "area_table", "gain_table", "noise_table", "reading", "show"]

SAW_PASSAGES = (
    "The network was pre-trained on these very passages, those of test rows among them, without their labels: new text "
    "is not what this measures."
)


def show(records: Sequence[RunRecord], settings: Any, runs: Sequence[Any]) -> str:
    """All tables, the claims, and where the figure is, of these runs; others in the folder may be of other settings."""
    names = {run.name for run in runs}
    here = [record for record in records if record.name in names]
    output, others, records = Path(settings.output), len(records) - len(here), here
    study = compared(records)
    parts = [gain_table(study), accuracy_table(study), noise_table(study), area_table(study), claims_table(study)]
    said = "\n\n".join(part for part in (*parts, reading(study, records)) if part)
    if others:
        said += f"\n{others} more record{'s'[: others > 1]} in {output}, not asked for by these settings: not shown."
    write_atomic(output / "study.md", said + "\n")
    return f"{said}\n\nfigure: {study_figure(study, output)}\ntables: {output / 'study.md'}"


def reading(study: Compared, records: Sequence[RunRecord]) -> str:
    """How the figures came about, in words."""
    first = records[0]
    each = [len(by_seed) for by_penalty in study.runs.values() for by_seed in by_penalty.values()]
    seeds = max(each)
    cut = first.data["at_limit"].get("test", 0)
    settled = _span(run.data["validation_rows"] for run in records)
    lines = [
        f"Accuracy in percent on {first.data['test_rows']:,} test rows, {_span(each)} seed{'s'[: seeds > 1]}, ± the "
        "standard deviation over them; plain is without a penalty, or without a correction. Settings were chosen on "
        f"{settled} validation rows (labels as wrong as those of training) among: {_tried(records)}. Differences are "
        f"paired by seed: mean [95 % interval, Student's t]; p is that of all ways to swap pairs, for {seeds} seeds at "
        f"least {min(1.0, 2.0 ** (1 - seeds)):.3g}. Over rows: 95 % interval for other test rows. Of many comparisons "
        "one in twenty comes out apart by chance."
    ]
    if any("correct_area" in run.metrics for run in records):
        lines.append("Area: of a square in a random plane around a test row, how much the head still gives the row's "
                     "right class.")  # fmt: skip
    if cut:
        lines.append(f"{cut:,} test texts fill the longest input of the network; most of them were cut.")
    # Of a GPT-2 that the study trains itself, on the text that the passages are of.
    is_given = any(map(first.settings.get, ("model", "features", "feature_column")))
    if first.data["source"] == DOCS_TOPICS and not is_given:
        lines.append(SAW_PASSAGES)
    return "\n".join(lines)


def _tried(records: Sequence[RunRecord]) -> str:
    """How many settings each penalty was chosen from, of each head where heads differ."""
    found: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for run in records:
        found[run.model["head"]][run.loss["penalty"]["name"]].add(run.budget["settings_tried"])
    said = {head: ", ".join(f"{WORDS[name]} {_span(tried[name])}" for name in WORDS if name in tried)
            for head, tried in found.items()}  # fmt: skip
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return "; ".join(f"{head} heads: {said[head]}" for head in sorted(said))


def _span(counts: Iterable[int]) -> str:
    """Such as `5`, or `3 to 5` where they differ."""
    low, *_, high = sorted(counts) * 2
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def gain_table(study: Compared) -> str:
    """LGM against no penalty: one line for each head, labels and loss. Empty without LGM."""
    rows = []
    for cell in study.cells():
        found = study.against((cell, LGM), (cell, "none"))
        if found is None:
            continue
        over = study.over_rows(cell, LGM)
        rows.append([
            *_named(study, cell), mean_sd(study.values(cell, "none"), 2), mean_sd(study.values(cell, LGM), 2),
            told(found), f"{found.wins}-{found.ties}-{found.losses}", _p(found),
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
    rows = [[*_named(study, cell), *(mean_sd(study.values(cell, name), 2) for name in names)] for cell in study.cells()]
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
            *_named(study, cell)[:2], *(mean_sd(study.values(cell, name, area_of), 2) for name in ("none", "l2", LGM)),
            *map(told, against),
        ])  # fmt: skip
    heads = ["head", "wrong labels, %", "area, plain", "area, L2 on outputs", "area, LGM", "LGM over plain",
             "LGM over L2"]  # fmt: skip
    return markdown_table(heads, rows) if rows else ""


def _named(study: Compared, cell: Cell) -> list[str]:
    kind = "" if cell.is_clean else f" ({cell.labels.partition('-')[2] or cell.labels})"
    return [cell.head, f"{100 * study.wrong(cell):.1f}{kind}", "plain" if cell.loss == "nll" else "corrected"]


def _p(found: PairedTest) -> str:
    return "-" if found.permutation_p is None or found.n == 1 else f"{found.permutation_p:.3g}"
