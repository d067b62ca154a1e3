"""What paper B claims of Local Gradient Matching, each held against the records of a probe, with its statistic.

A claim held or did not where the whole 95 % interval over seeds says so, and is open where it says both, or seeds are
too few. Where the interval over test rows does not say so too, or there is none, it is told of these test rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hf_noise.analysis.paired import PairedTest
from hf_noise.reports.tables import markdown_table
from hf_noise.reports.verdicts import Verdict
from hf_noise.studies.probe.compare import Cell, Compared, area_of, points, told

__all__ = ["claims_table", "verdicts"]

LGM = "difference"


def verdicts(study: Compared) -> list[Verdict]:
    """Every claim that these heads can be held against; those on wrong labels are this project's own questions."""
    found: list[Verdict] = []
    for cell in study.cells():
        if cell.loss == "nll":
            source = "table 1" if cell.is_clean else "ours"
            found += _larger(study, f"{cell.named}: LGM raises accuracy", source, (cell, LGM), (cell, "none"))
        else:
            plain = Cell(cell.head, cell.labels, "nll")
            found += _larger(study, f"{cell.named}: LGM raises accuracy beside it", "ours", (cell, LGM), (cell, "none"))
            found += _larger(study, f"{cell.named}: beats LGM without correction", "ours", (cell, "none"), (plain, LGM))
    for cell in study.cells(losses=("nll",)):
        if cell.is_clean:
            for other, word in (("norm", "the norm alone"), ("cosine", "the cosine alone")):
                claim = f"{cell.named}: LGM beats penalising {word}"
                found += _larger(study, claim, "table 5", (cell, LGM), (cell, other))
        for other, word in (("none", "no penalty"), ("l2", "L2 on outputs")):
            claim = f"{cell.named}: decisions hold over a larger area than with {word}"
            found += _larger(study, claim, "figure 6", (cell, LGM), (cell, other), area_of)
    return found


def _larger(
    study: Compared, claim: str, source: str, ours: tuple[Cell, str], theirs: tuple[Cell, str],
    figure: Callable = points,
) -> Iterator[Verdict]:  # fmt: skip
    found = study.against(ours, theirs, figure)
    if found is None:
        return
    exact = "" if found.permutation_p is None or found.n == 1 else f", exact p = {found.permutation_p:.3g}"
    seeds = f", {found.wins} of {found.n} seeds" if found.n > 1 else ""
    # Rows are compared with those of the head without a penalty only.
    is_gain = figure is points and (ours[0], "none") == theirs
    over, held = study.over_rows(*ours) if is_gain else None, _held(found)
    rows = "" if over is None else f", over rows [{over[0]:.2f}, {over[1]:.2f}]"
    agrees = over is not None and (over[0] > 0 if held else over[1] <= 0)
    p = found.t_p if held is False else 1.0
    yield Verdict(claim, source, f"{told(found)} points{seeds}{exact}{rows}", held, found.n, p, on_rows=not agrees)


def _held(found: PairedTest) -> bool | None:
    """Whether ours is larger; one seed is read by its sign, and told as such."""
    if found.wins == found.losses == 0:
        return False
    return found.mean > 0 if found.n == 1 or found.is_apart else None


def claims_table(study: Compared) -> str:
    """`verdicts` in Markdown; a line that says so where there are none."""
    every = verdicts(study)
    if not every:
        return "no claim can be judged from these heads: it takes some with LGM and some without, of one seed"
    return markdown_table(
        ["claim", "paper B", "measured", "verdict"], [[one.claim, one.source, one.statistic, one.word] for one in every]
    )
