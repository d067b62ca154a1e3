"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_noise.reports.markdown import text as plain
from hf_noise.reports.tables import fixed, pipe_table
from hf_noise.studies.report import parts
from hf_noise.studies.report.cells import Found
from hf_noise.studies.report.families import Curve
from hf_noise.studies.report.judged import measured_on
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.report.tables import claims_table, families_table, shown
from hf_noise.studies.reproduce.naming import few
from hf_noise.studies.reproduce.report import summary

__all__ = ["TITLE", "markdown"]

TITLE = "What wrong training data costs, and what wins it back"


def markdown(
    stored: Stored, lines: Sequence[Curve], found: Sequence[Found], scale: str, left_out: Sequence[str] = ()
) -> str:
    """All of it but the studies' figures; each table names its records, and the first one what it leaves out."""
    outcomes = [one.outcome for one in found]
    on = measured_on(outcomes)
    text = [
        f"# {TITLE}",
        f"From {len(stored.told)} records of runs; tables at {scale} scale.",
        *(["![How much worse each family gets with noise, and with its cure](overview.png)",
           families_table(lines, left_out=left_out)] if lines else map(plain, left_out)),
        "## Claims of the papers",
        f"{summary(outcomes)}.",
        claims_table(outcomes),
        *(_table(one, on) for one in found if one.cells or one.outcome.verdicts or one.left_out),
        "## Runs",
        _runs(stored),
    ]  # fmt: skip
    return "\n\n".join(text) + "\n"


def _table(found: Found, on: Mapping[str, Sequence[str]]) -> str:
    text = [f"## {found.table.id}: {found.table.title}"]
    if found.outcome.stand_in:
        text.append(f"Measured at {found.outcome.scale} scale on {plain('; '.join(found.outcome.stand_in))}.")
    if found.missing:
        text.append(f"Not measured: {plain('; '.join(found.missing))}.")
    text += map(plain, found.left_out)
    if found.cells:
        head = [found.table.key.replace("_", " "), "figure", "paper", "measured", "spread", "n", "records"]
        rows = [[cell.key, f"{cell.column}, {cell.unit}", cell.paper, cell.measured, cell.spread,
                 str(len(cell.values)), few(cell.places, 3) or fixed(None)] for cell in found.cells]  # fmt: skip
        text.append(pipe_table(head, rows, numeric=range(2, 6), show=shown, is_aligned=False))
    told = [f"- {one['id']}: {one['word']}. {one['says']}{'' if one['in_print'] else ' (not true in print)'}"
            f"{_elsewhere(one)} [{plain(one['statistic'])}]" for one in parts.claims_of(found, on)]  # fmt: skip
    return "\n\n".join([*text, *(["\n".join(told)] if told else [])])


def _elsewhere(claim: Mapping[str, Any]) -> str:
    return f" (measured on {plain(claim['elsewhere'])})" if claim["elsewhere"] else ""


def _runs(stored: Stored) -> str:
    head = ["records", "runs", "seeds", "recipe", "data", "took", "on", "versions"]
    rows = [[one["name"], str(one["runs"]), str(one["seeds"]), one["recipe"], one["data"], one["seconds"], one["on"],
             one["versions"]] for one in parts.studies(stored)]  # fmt: skip
    return pipe_table(head, rows, numeric=(1, 2), show=shown, is_aligned=False)
