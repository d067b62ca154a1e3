"""The table of label audits beside cleanlab, from what `benchmarks/label_audit.py` kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hf_noise.reports.tables import markdown_table

__all__ = ["BENCHMARK", "audits_table"]

#: Below the folder of results.
BENCHMARK = "label_audit.json"
_HEADER = ["labels and classifier", "wrong, %", "audit reads, %", "error of the rate, points (cleanlab's)",
           "L1 per row of T (cleanlab's)", "AUROC (held to)", "F1 of the list (cleanlab's best filter)"]  # fmt: skip


def audits_table(results: Path) -> str:
    """Each set of labels and probabilities on a line, with the rate, its interval, and what cleanlab makes of the same.

    Raises:
        FileNotFoundError: there is no record of the benchmark.
        ValueError: it is none, or of a run without cleanlab.
    """
    record = json.loads((results / BENCHMARK).read_text(encoding="utf-8"))
    found = {row["what"]: row for row in record["rows"]}
    try:
        return markdown_table(_HEADER, [_line(name, found) for name in record["settings"]["sets"]])
    except (KeyError, StopIteration) as error:
        raise ValueError(f"{results / BENCHMARK} lacks {error}; run benchmarks/label_audit.py where cleanlab is "
                         "installed") from error  # fmt: skip


def _line(name: str, found: dict[str, dict[str, Any]]) -> list[str]:
    def of(start: str) -> dict[str, Any]:
        return next(row for what, row in found.items() if what.startswith(f"{name}: {start}"))

    def beside(start: str, digits: int, scale: float = 1) -> str:
        row = of(start)
        theirs = float(row["bar"].split()[-1])
        ours = f"{scale * row['figure']:.{digits}f} ({scale * theirs:.{digits}f})"
        return ours if row["passed"] else f"{ours}, missed"

    low, high = (100 * float(end) for end in re.findall(r"\[(.*), (.*)\]", of("rate,")["text"])[0])
    missed = "" if of("interval holds the rate")["passed"] else ", missed"
    true, read = (100 * of(what)["figure"] for what in ("true rate", "rate,"))
    return [
        name, f"{true:.1f}", f"{read:.1f} [{low:.1f}, {high:.1f}]{missed}",
        beside("error of the rate", 1, 100), beside("T, L1 per row", 3), beside("AUROC", 3),
        beside("F1 of the list, against", 3),
    ]  # fmt: skip
