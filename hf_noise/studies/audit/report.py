"""What a terminal shows of an audit."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_noise.audit import LabelAudit, Plan
from hf_noise.audit.confusions import largest_confusions
from hf_noise.audit.measured import parts_of
from hf_noise.reports.tables import WIDEST, markdown_table
from hf_noise.studies.audit.judge import Judge
from hf_noise.studies.audit.training import Trained

__all__ = ["audit_text", "rows_table", "training_text", "transition_table", "truth_table"]

#: Classes up to which T is shown whole, and confusions and rows that are listed.
_WHOLE, _CONFUSIONS, _ROWS = 10, 10, 10
_NAME = 14  # letters of a class
_HALF_A_ROW = 0.5  # which rounds to one: fewer are no confusion
_PERCENT = 100


def audit_text(
    audit: LabelAudit, listed: np.ndarray, judged: str, texts: Sequence[str] | None, metrics: dict[str, dict[str, Any]]
) -> str:
    """The rate and what it stands on, T, the rows to look at, and the truth where it is known."""
    rate, n = audit.error_rate, len(audit)
    lines = [f"wrong labels: {rate} of {n:,} rows ({_PERCENT * rate.confidence:g}% interval)"]
    lines += [_wrapped(f"note: {one}", 2) for one in audit.warnings]
    lines += [_wrapped(f"judged by {judged}", 2), "how:"]
    lines += [_wrapped(f"  - {part}", 4) for part in parts_of(rate.how, audit.warnings)]
    parts = ["\n".join(lines), transition_table(audit), rows_table(audit, listed, texts)]
    if "true_error_rate" in metrics:
        parts.append(truth_table(metrics))
    return "\n\n".join(parts)


def transition_table(audit: LabelAudit) -> str:
    """T in percent where classes are few, else the most frequent confusions, with intervals."""
    names = [_short(name) for name in audit.class_names]
    if len(names) <= _WHOLE:
        cells = [[_percent(share) for share in row] for row in audit.transition]
        rows = [[name, *row] for name, row in zip(names, cells)]
        made = markdown_table(["true, in % as", *names], rows)
        if max(map(len, made.splitlines())) <= WIDEST:
            return made
    rows = []
    for i, j, share in largest_confusions(audit.transition, audit.prior, _CONFUSIONS, _HALF_A_ROW / len(audit)):
        low, high = audit.transition_low[i, j], audit.transition_high[i, j]
        rows.append([f"{names[i]} as {names[j]}", _percent(audit.transition[i, j]),
                     f"[{_percent(low)}, {_percent(high)}]", f"{share * len(audit):,.0f}"])  # fmt: skip
    if not rows:
        return "no class is taken for another in a row or more"
    return markdown_table(["labelled as another", "% of its rows", "interval", "rows"], rows)


def rows_table(audit: LabelAudit, listed: np.ndarray, texts: Sequence[str] | None) -> str:
    """The likeliest wrong rows of the list, and how long it is."""
    false = float((1 - audit.p_wrong[listed]).mean()) if listed.any() else 0.0
    told = f"{listed.sum():,} rows to look at, of which {_PERCENT * false:.0f}% should be false alarms"
    order = np.argsort(-audit.p_wrong, kind="stable")[:_ROWS]
    order = [row for row in order if listed[row]]
    if not order:
        return "no row is on the list: none is likely enough to be wrong"
    names = [_short(name) for name in audit.class_names]
    heads = ["row", "p wrong", "given", "suggested"]
    rows = [[str(row), f"{audit.p_wrong[row]:.3f}", names[audit.labels[row]], names[audit.suggested[row]]]
            for row in order]  # fmt: skip
    if texts is not None:
        room = max(20, WIDEST - max(map(len, markdown_table(heads, rows).splitlines())) - 3)
        rows = [[*cells, _cut(texts[row], room)] for cells, row in zip(rows, order)]
        heads.append("what it is")
    return f"{markdown_table(heads, rows)}\n{told}; the likeliest {len(rows)} above"


def truth_table(metrics: dict[str, dict[str, Any]]) -> str:
    """What was found beside what is true."""
    rate, true = metrics["error_rate"], metrics["true_error_rate"]
    within = "inside" if true["is_covered"] else "outside"
    rows = [["true rate, %", f"{_percent(true['value'])} ({within} the interval of {_percent(rate['value'])})"]]
    for name, words in (
        ("auroc", "AUROC of p_wrong"), ("average_precision", "average precision of p_wrong"),
        ("list_precision", "precision of the list"), ("list_recall", "recall of the list"),
        ("list_f1", "F1 of the list"), ("transition_l1", "L1 error per row of T"),
    ):  # fmt: skip
        if name in metrics:
            rows.append([words, f"{metrics[name]['value']:.3f}"])
    return markdown_table(["beside true labels", ""], rows)


def plan_text(plan: Plan) -> str:
    """The accuracy that a plan expects of each option, and which is best."""
    rows = []
    for one in plan.options:
        if one.accuracy is None:
            continue
        apart = one.difference
        gain = "-" if apart is None else f"{_signed(apart.value)} [{_signed(apart.low)}, {_signed(apart.high)}]"
        rows.append([one.name, str(one.accuracy), gain, f"{one.rows:,}"])
    table = markdown_table(["what to do", "clean accuracy, predicted", "beside given, points", "rows"], rows)
    does = [_wrapped(f"{one.name}: {one.does}", 2) for one in plan.options if one.accuracy is not None]
    return "\n".join([table, *does, _wrapped(plan.advice, 2)])


def training_text(trained: Sequence[Trained], judge: Judge) -> str:
    """Accuracy of each way, beside what was expected of it where a plan says."""
    has_plan = any(one.way.predicted is not None for one in trained)
    heads = ["trained on", "rows", "accuracy, %", "beside given, points", *["predicted, %"] * has_plan]
    rows = []
    for one in trained:
        found, apart = one.accuracy, one.beside
        gain = "-"
        if apart is not None:
            ends = "" if apart.low is None else f" [{_signed(apart.low)}, {_signed(apart.high)}]"
            gain = _signed(apart.mean) + ends
        cells = [one.way.name, f"{one.rows:,}",
                 f"{_percent(found['value'])} [{_percent(found['low'])}, {_percent(found['high'])}]", gain]  # fmt: skip
        expected = one.way.predicted
        rows.append(cells + ["-" if expected is None else str(expected)] * has_plan)
    begin = f"training, measured on {judge.words}"
    if judge.held.any():
        begin += f"; nothing is trained on these, which leaves {int((~judge.held).sum()):,} rows"
    if trained[0].chosen_by:
        begin += f"; of the rows to train on a tenth ({trained[0].chosen_by:,} as given) chooses ridge and epoch"
    said = [_wrapped(f"{one.way.name}: {one.way.does}", 2) for one in trained]
    said += ["gains are paired row by row, with intervals of 95%"]
    if not judge.is_clean:
        said.append("so this is no accuracy: a model that repeats wrong labels looks better here; give --test_source")
    return "\n".join([f"{_wrapped(begin, 2)}\n", markdown_table(heads, rows), *said])


def _signed(share: float) -> str:
    return f"{round(_PERCENT * share, 1) + 0.0:+.1f}"  # which makes 0 of -0


def _percent(share: float) -> str:
    return f"{_PERCENT * share:.1f}"


def _wrapped(text: str, indent: int) -> str:
    return textwrap.fill(text, WIDEST, subsequent_indent=" " * indent)


def _short(name: str) -> str:
    return _cut(name, _NAME)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
