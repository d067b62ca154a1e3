"""What an audit says of itself in words: a summary, one line, and what a user should know once rows were verified."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from hf_noise.audit.choose import warnings_of_rows
from hf_noise.audit.confusions import largest_confusions
from hf_noise.audit.measured import parts_of, told_parts
from hf_noise.audit.powered import Verified

if TYPE_CHECKING:
    from hf_noise.audit.label_audit import LabelAudit

__all__ = ["short_of", "summary_of", "warnings_after"]

_PERCENT, _WIDTH = 100, 120
#: Verified rows of a class below which T is told to be hardly theirs, and how many such classes are named.
_FEW, _NAMED = 5, 5


def summary_of(audit: LabelAudit, most: int) -> str:
    """See `LabelAudit.summary`."""
    how = told_parts(parts_of(audit.error_rate.how, audit.warnings))  # which the notes below say
    lines = [f"wrong labels: {audit.error_rate} of {len(audit):,} rows", f"how: {how}"]
    lines += [
        f"{audit.class_names[i]} labelled {audit.class_names[j]}: {_PERCENT * audit.transition[i, j]:.1f}% "
        f"[{_PERCENT * audit.transition_low[i, j]:.1f}, {_PERCENT * audit.transition_high[i, j]:.1f}] of its rows"
        for i, j, _ in largest_confusions(audit.transition, audit.prior, most)
    ]
    lines.append(f"rows to look at: {int(audit.flagged().sum()):,}, or {int(audit.flagged(0.1).sum()):,} of which a "
                 "tenth should be false alarms")  # fmt: skip
    lines += [f"note: {one}" for one in audit.warnings]
    wrap = textwrap.TextWrapper(_WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(wrap.fill, lines))


def short_of(audit: LabelAudit) -> str:
    """An audit in one line."""
    verified = "" if audit.verified_by is None else f", {audit.verified_by.answered} verified"
    told = f", {len(audit.warnings)} warning{'s' * (len(audit.warnings) > 1)}" if audit.warnings else ""
    return (f"LabelAudit({len(audit):,} rows, {len(audit.class_names)} classes, wrong labels: {audit.error_rate}"
            f"{verified}{told})")  # fmt: skip


def warnings_after(first: LabelAudit, found: Verified) -> tuple[str, ...]:
    """What to know of an audit whose rows were verified: what still stands on the classifier, and on how many rows."""
    kept = warnings_of_rows(first.warnings, found.transition, first.class_names)
    if found.answered == len(first):
        return ()
    seen = np.bincount(found.labels, minlength=len(first.class_names))
    few = [f"{name} ({rows})" for name, rows in zip(first.class_names, seen) if rows < _FEW]
    more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
    told = (
        "only the rate and the shares of true classes rest on the verified rows alone; T between classes, the "
        "suggested labels and p_wrong of rows that nobody looked at still lean on the classifier"
    )
    if few:
        told += (f", most of all T of classes with fewer than {_FEW} verified rows, where it is nearly what it was "
                 f"before: {', '.join(few[:_NAMED])}{more}")  # fmt: skip
    return (told, *kept)
