"""The tables that README shows, from records: families, the claims of each paper table, which recipe shows which."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from statistics import mean, stdev

from hf_noise.reports.markdown import text
from hf_noise.reports.paper import Claim, paper_table_ids, published
from hf_noise.reports.tables import fixed, in_cell, pipe_table, seeds_told
from hf_noise.reports.verdicts import KINDS, kind_of
from hf_noise.studies.report.efforts import effort, explained
from hf_noise.studies.report.families import Curve, Seeds
from hf_noise.studies.report.judged import MEANINGS, measured_on, shared
from hf_noise.studies.reproduce.report import DECIDED, tally
from hf_noise.studies.reproduce.rows import Outcome, claims_asked

__all__ = ["GAP", "claims_table", "families_table", "recipes_table", "shown", "told", "told_gap", "told_seeds"]

#: Studies under the command of another one.
_COMMANDS = {"documents": "language"}
#: What the column of that name shows.
GAP = "Gap closed: mean of the seeds' own shares, in brackets its 95 % interval over seeds."


def families_table(curves: Sequence[Curve], folder: str | None = None, left_out: Sequence[str] = ()) -> str:
    """A row for each family and setting, at the largest error rate of its plain loss; records are links to a folder.

    Below stands what the runs were trained on, what intervals are of, and sentences on what was left out.
    """
    head = ["model", "measured", "no noise", "no noise, same compute", "noise, plain", "with the cure", "gap closed",
            "cure", "clean data", "compute", "n", "seeds", "record"]  # fmt: skip
    rows = []
    for one in curves:
        clean, equal, plain, cured = one.at_worst
        trained = effort(one)
        record = shown(one.study) if folder is None else f"[{shown(one.study)}]({folder}/{one.study})"
        cells = [
            one.title, f"{one.family.label}, {one.family.unit}", told(one, clean), told(one, equal),
            f"{told(one, plain)} (e = {one.worst:.2g})", told(one, cured), told_gap(one), one.family.cure,
            f"{trained.clean:.2g} ×", trained.told, f"{one.size[0]:,}", told_seeds(one),
        ]  # fmt: skip
        rows.append([*map(shown, cells), " ".join(filter(None, [record, one.differs and shown(f"({one.differs})")]))])
    table = pipe_table(head, rows, numeric=(*range(2, 7), 8, 10, 11), show=str, is_aligned=False)
    closed = [one.gap_closed() for one in curves]
    of_seeds = [GAP] if any(one is not None and one.interval for one in closed) else []
    return "\n\n".join([table, " ".join([*explained(curves), *of_seeds, *map(text, left_out)])])


def shown(cell: str) -> str:
    """A cell of a table that stays text, whatever a record says."""
    return cell if cell == fixed(None) else text(cell)


def told_seeds(curve: Curve) -> str:
    """How many the sets of a row have, as `3`, or `1 to 3`."""
    return seeds_told(len(of) for of in curve.at_worst if of).partition(" seed")[0]


def told(curve: Curve, figures: Seeds) -> str:
    """Mean and standard deviation over seeds, a dash for none."""
    values = [one.value for one in figures.values()]
    if not values:
        return fixed(None)
    spread = f" ± {stdev(values):.{curve.family.digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{curve.family.digits}f}{spread}"


def told_gap(curve: Curve) -> str:
    """Share of the gap that is closed in percent, with its interval over seeds, and those where the row has more.

    A dash where there is no gap, or no cure was run.
    """
    closed, (used, *_), all_of = curve.gap_closed(), curve.gap, curve.plain[curve.worst]
    fewer = f" ({seeds_told([len(used)])})" if len(used) < len(all_of) else ""
    if closed is None:
        return fixed(None)
    ends = "" if closed.interval is None else " [{:.0f}, {:.0f}]".format(*(100 * end for end in closed.interval))
    return f"{100 * closed.mean:.0f} %{ends}{fewer}"


def claims_table(found: Sequence[Outcome]) -> str:
    """Of each paper table: claims that this scale is asked for, how many were decided, and how they came out.

    Of those decided, some are computed, by one seed alone, or by a part of the table; what did not hold is told, with
    what stood in for the paper's data. Tables of which nothing was decided share a row; the last row is of all. Claims
    that only runs of the paper's own size could decide count at that scale alone. Below stands what columns mean, and
    which tables share their runs.
    """
    head = ["table", "claims", "decided", "computed", "held", "did not", "open", "not measured", "by reading",
            "of one seed", "of a part", "which did not"]  # fmt: skip
    measured = measured_on(found)
    rows, total, undecided, without = [], Counter(), Counter(), []
    for one in found:
        if not (asked := claims_asked(one.table, one.scale)):
            continue
        count = tally(one)
        total += count
        if not any(count[kind] for kind in DECIDED):
            undecided += count
            without.append(one.table.id)
            continue
        fell = [claim for claim in asked if kind_of(one.verdicts[claim.id].word) == "not held"]
        rows.append([one.table.id, *_counts(count), _which(fell, measured) or fixed(None)])
    if without:
        rows.append([", ".join(without), *_counts(undecided), fixed(None)])
    rows.append(["all", *_counts(total), fixed(None)])
    table = pipe_table(head, rows, numeric=range(1, 11), show=shown, is_aligned=False)
    return "\n\n".join([table, " ".join([MEANINGS, *shared(found)])])


def _which(claims: Sequence[Claim], measured: Mapping[str, Sequence[str]]) -> str:
    """Claims with what each was measured on, which is told once of those that follow each other."""
    told, before = [], ""
    for claim in claims:
        on = "; ".join(measured[claim.id])
        where = f" (measured on {on})" if on != before else " (on the same)" if on else ""
        told.append(f"{claim.id.rpartition('.')[2]}{where if on else ''}: {claim.says}")
        before = on
    return "; ".join(told)


def _counts(count: Counter[str]) -> list[str]:
    every, decided = (sum(count[kind] for kind in kinds) for kinds in (KINDS, DECIDED))
    unmeasured = count["not measured"] - count["reading"]
    told = [count[kind] for kind in ("held", "not held", "open")]
    limits = [count[name] for name in ("reading", "one", "part")]
    return [*map(str, (every, decided, count["computed"], *told, unmeasured, *limits))]


def recipes_table(recipes: Path) -> str:
    """Each recipe, what it shows, and the papers' tables that its study measures."""
    tables: dict[str, list[str]] = {}
    for name in paper_table_ids():
        for runs in published(name).runs:
            of_study = tables.setdefault(_COMMANDS.get(runs.study, runs.study), [])
            if name not in of_study:
                of_study.append(name)
    rows = []
    for file in sorted(recipes.glob("*.py")):
        study = _study_of(file)
        says = (import_module(f"hf_noise.studies.{study}").__doc__ or "").strip().partition("\n")[0].rstrip(".")
        rows.append([f"[{file.name}](recipes/{file.name})", says, ", ".join(tables.get(study, [])) or fixed(None)])
    return pipe_table(["recipe", "what it is", "tables and figures of the papers"], rows, numeric=(), show=in_cell,
                      is_aligned=False)  # fmt: skip


def _study_of(recipe: Path) -> str:
    """The study that a recipe is a door of."""
    for node in ast.parse(recipe.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.endswith(".study"):
            return node.module.removeprefix("hf_noise.studies.").removesuffix(".study")
    raise ValueError(f"{recipe} opens on no study; a recipe imports main of hf_noise.studies.NAME.study")
