"""Table beside paper A's, claims and figure of the gradient study, from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_noise.analysis.gradients import Estimate
from hf_noise.atomic import write_atomic
from hf_noise.metrics.words import METRICS
from hf_noise.reports.paper import paper_table
from hf_noise.reports.record import RunRecord, read_records
from hf_noise.reports.tables import Column, Table, fixed
from hf_noise.studies.gradient_coherence.claims import Found, Key, claims_table
from hf_noise.studies.gradient_coherence.pictures import draw

__all__ = ["coherence_table", "found_in", "is_comparable", "show"]

_TASK = "gradient_coherence"
_COSINES = ("clean_cosine", "corrupt_cosine", "cross_cosine")
_SUMS = ("clean_norm", "corrupt_norm", "snr")


def show(settings: Any) -> str:
    """Write table, claims and figure of all records below the output; returns what a terminal shows of them."""
    output = Path(settings.output)
    records = [one for one in read_records(output) if isinstance(one, RunRecord) and one.task == _TASK]
    found = found_in(records)
    alike = is_comparable(records)
    table, parts = coherence_table(found, alike).measured(), [claims_table(found), _note(records)]
    figure = draw(found, output / "study.png", is_comparable=alike)
    write_atomic(output / "study.md", "\n\n".join([table.markdown(), *parts]) + "\n")
    shown = "\n\n".join([table.fitted().markdown(), *parts])
    return f"{shown}\n\nfigure: {figure}\nall columns: {output / 'study.md'}"


def found_in(records: Sequence[RunRecord]) -> Found:
    """The estimates of each setting, by rate and batch; of several seeds those of the smallest."""
    made: dict[Key, Mapping[str, Estimate]] = {}
    for one in sorted(records, key=lambda one: (one.noise["error_rate"], one.budget["batch_size"], one.seed)):
        key = one.noise["error_rate"], one.budget["batch_size"]
        made.setdefault(key, {name: _estimate(told) for name, told in one.metrics.items()})
    return made


def _estimate(told: Mapping[str, Any]) -> Estimate:
    names = ("value", "low", "high", "n", "smallest", "largest")
    return Estimate(**{name: told.get(name) for name in names})


def is_comparable(records: Sequence[RunRecord]) -> bool:
    """Whether the gradients are of what the paper's are: a tied embedding at initialisation, corrupt by example."""
    return all(
        one.settings.get("unit", "example") == "example" and one.model.get("is_fresh")
        and one.model["gradients_of"] == ["transformer.wte.weight"] for one in records
    )  # fmt: skip


def coherence_table(found: Found, has_paper: bool = True) -> Table:
    """One line for each setting: cosines, lengths of sums, SNR, each beside the paper's where it is comparable."""
    columns = [Column("corrupt, %"), Column("batch")]
    for name in _COSINES:
        label = METRICS[name].label
        columns += [Column(f"{label} (95% interval)", 2 if name == "cross_cosine" else 0, label),
                    Column(f"{label}: smallest to largest", 9, "range"), Column("paper A", 6)]  # fmt: skip
    for name in _SUMS:
        label = METRICS[name].label
        columns += [Column(f"{label} (95% interval)", 0 if name == "snr" else 4, label),
                    Column("paper A", 1 if name == "snr" else 7)]  # fmt: skip
    paper, rows = paper_table("A.table4") if has_paper else {}, []
    for (rate, size), told in found.items():
        published = paper.get(f"e{rate:g}-b{size}", {})
        row = [f"{100 * rate:g}", str(size)]
        for name in _COSINES:
            one = told.get(name)
            span = "-" if one is None else f"{one.smallest:.3f} to {one.largest:.3f}"
            row += [_told(one, 3), span, fixed(published.get(name), 3)]
        for name in _SUMS:
            row += [_told(told.get(name), 2), fixed(published.get(name), 2)]
        rows.append(row)
    return Table(columns, rows)


def _told(one: Estimate | None, digits: int) -> str:
    if one is None or one.low is None:
        return fixed(None if one is None else one.value, digits)
    # No minus before a figure that is 0 as it is shown.
    value, low, high = (f"{round(number, digits) + 0.0:.{digits}f}" for number in (one.value, one.low, one.high))
    return f"{value} [{low}, {high}]"


def _note(records: Sequence[RunRecord]) -> str:
    """What has to be known to read the figures."""
    one = records[0]
    fresh = "at initialisation" if one.model.get("is_fresh") else "as it was loaded"
    unit = one.settings.get("unit", "example")
    what = ("An example is corrupt as a whole" if unit == "example" else "Single targets are corrupt, which splits the "
            "gradient of each example in two")  # fmt: skip
    seeds = sorted({record.seed for record in records})
    of_first = " Of several seeds the table shows the smallest of each line." if len(seeds) > 1 else ""
    counts = sorted({record.budget["batches"] for record in records})
    batches = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        f"Gradients of {', '.join(one.model['gradients_of'])} of {one.model['name']} {fresh}, {batches} batches of "
        f"each size, rows of {one.data['block_size']} tokens. {what}; a batch without corrupt ones counts with a sum "
        "of 0, as in the paper. SNR is the ratio of the mean lengths. Intervals are Student's t over batches: of this "
        f"model, on this text.{of_first} The paper's are GPT-2 124M on OpenWebText, T = 1024."
    )
