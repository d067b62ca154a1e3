"""`--list`: every table, what there is of it, what it would take, and why some cannot be made."""

from __future__ import annotations

from collections.abc import Sequence

from hf_noise.reports.tables import in_cell, pipe_table
from hf_noise.studies.reproduce.board import counted, in_words
from hf_noise.studies.reproduce.flags import COMPUTED
from hf_noise.studies.reproduce.plan import Asked, Planned, is_there, lanes
from hf_noise.studies.reproduce.rows import claims_asked

__all__ = ["listing", "status"]

_WIDEST = 52  # letters of a title


def listing(plans: Sequence[Planned], asked: Asked) -> str:
    """Ids with status and cost, the reasons of those that have no runs, and what all of it would take."""
    rows = [[plan.table.id, _short(plan.table.title), status(plan, asked), str(len(plan.every) or "-"),
             _cost(plan, asked), str(len(claims_asked(plan.table, asked.scale)) or "-")] for plan in plans]  # fmt: skip
    head = ["id", "title", f"at {asked.scale} scale", "cells", "takes", "claims"]
    reasons = [f"- {plan.table.id}: {'; '.join(plan.missing)}" for plan in plans if plan.missing]
    parts = [pipe_table(head, rows, numeric=(3, 5), show=in_cell, is_aligned=True)]
    if reasons:
        parts.append("What is not measured at this scale, and why:\n" + "\n".join(reasons))
    every = [cell for lane in lanes(plans) for cell in lane]
    to_run = [cell for cell in every if not is_there(cell, asked)]
    seconds = [asked.kept.seconds(cell, asked.scale) for cell in to_run]
    known = [one for one in seconds if one is not None]
    told = f", {in_words(sum(known))} of one process by the records of before" if known else ""
    unknown = f", and {len(seconds) - len(known)} of unknown cost" if len(known) < len(seconds) else ""
    kept = sum(asked.kept.covers(cell) for cell in to_run)
    reused = f"; of these --reuse takes {kept} from records" if kept and not asked.reuses else ""
    parts.append(f"{counted(len(every))} in all, each made once; to run: {len(seconds)}{told}{unknown}{reused}")
    return "\n\n".join(parts)


def status(plan: Planned, asked: Asked) -> str:
    """What there is of a table, in a few words."""
    cells, kind = plan.every, plan.table.kind
    if not cells:
        is_judged = kind == "facts" and not plan.table.not_built
        return "by other tables" if is_judged else kind if kind != "measured" else "not built"
    here = sum(cell.is_done for cell in cells)
    kept = sum(not cell.is_done and asked.kept.covers(cell) for cell in cells)
    if here == len(cells):
        return "measured here"
    parts = [f"{here} of {len(cells)} measured here"] * (here > 0)
    parts += [("" if kept == len(cells) else f"{kept} of {len(cells)} ") + "in records"] * (kept > 0)
    return ", ".join(parts) or "to run"


def _cost(plan: Planned, asked: Asked) -> str:
    """Of all its cells, from what they took where they were made before."""
    seconds = [asked.kept.seconds(cell, asked.scale) for cell in plan.every]
    known = [one for one in seconds if one is not None]
    if not known:
        return "seconds" if plan.every and all(cell.study == COMPUTED for cell in plan.every) else "?" * bool(seconds)
    is_exact = all(asked.kept.covers(cell) for cell in plan.every)
    return f"{'' if is_exact else 'about '}{in_words(sum(known))}"


def _short(title: str) -> str:
    return title if len(title) <= _WIDEST else f"{title[: _WIDEST - 3].rstrip()}..."
