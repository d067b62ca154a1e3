"""What paper A claims of teacher noise, and what a cure is to reach, each held against the records of a study.

A claim held or did not where the whole 95 % interval over seeds says so, and is open where the interval says both, or
seeds are too few; one seed alone is told as such, and as of these test rows. Of several comparisons see
`hf_noise.reports.verdicts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean

from hf_noise.reports.tables import markdown_table
from hf_noise.reports.verdicts import Spread, Verdict, joined, lies_in, of_test_rows
from hf_noise.studies.seq2seq.compare import BASELINES, ORACLE, TITLES, Compared, Setting, clean_of

__all__ = ["GOAL", "claims_table", "verdicts"]

#: Share of the gap that a cure is to close where the teacher's likelihood is known.
GOAL = 0.5
#: A baseline that leaves out less of the targets than this is the plain loss by another name.
_IDLE = 0.01
_KNOWN = ("mixture-teacher", "audited-teacher")
_UNKNOWN = ("mixture-learned", "audited-learned", "mixture-unigram", "audited-unigram")


def verdicts(study: Compared) -> list[Verdict]:
    """Every claim that the runs of this study can be held against."""
    found = [one for task in study.tasks for one in _monotone(study, task)]
    for ratio in study.ratios("rich"):
        found += _richer(study, ratio)
    for ratio in study.cured:
        for task in study.tasks:
            found += [*_goal(study, task, ratio), *_over_baselines(study, task, ratio)]
    return of_test_rows(found)


def claims_table(study: Compared) -> str:
    """`verdicts` in Markdown; a line that says so where there are none."""
    rows = [[one.claim, one.source, one.statistic, one.word] for one in verdicts(study)]
    if not rows:
        return "no claim of paper A can be judged from these runs: it takes one without noise and one with, of a seed"
    return markdown_table(["claim", "of", "measured", "verdict"], rows)


def _monotone(study: Compared, task: str) -> Iterator[Verdict]:
    """The NLL rises at every step of the grid."""
    grid = [clean_of(task), *(Setting(task, ratio) for ratio in study.ratios(task))]
    steps = [study.over_seeds(lambda low, high: high - low, *pair) for pair in zip(grid, grid[1:])]
    if not steps or None in steps:
        return
    told = ", ".join(step.told(3) for step in steps)
    yield Verdict(f"{task}: NLL rises at every step of e = {_grid(grid)}", "table 10", f"by {told} nats",
                  *joined([lies_in(step, 0) for step in steps]))  # fmt: skip


def _grid(settings: list[Setting]) -> str:
    return ", ".join(f"{one.error_rate:.2g}" for one in settings)


def _richer(study: Compared, ratio: float) -> Iterator[Verdict]:
    """The rise is smaller where the source is rich, in percent of the clean NLL and in nats."""
    e = Setting("rich", ratio).error_rate
    same = ", same targets" if study.is_controlled else ""
    for is_relative, what, unit, digits, source in (
        (True, "relative", " points", 1, "figure 2, table 10"), (False, "absolute", " nats", 3, "table 10 (spec 4.2)")
    ):  # fmt: skip
        more = study.sparse_less_rich(ratio, is_relative=is_relative)
        if more is not None:
            yield Verdict(f"e = {e:.2g}: the {what} rise is smaller with the rich source{same}", source,
                          f"smaller by {more.told(digits, unit)}", *lies_in(more, 0))  # fmt: skip


def _goal(study: Compared, task: str, ratio: float) -> Iterator[Verdict]:
    """With the teacher's likelihood known, at least half of the gap is closed."""
    oracle = study.gap_closed(Setting(task, ratio, ORACLE))
    beside = "" if oracle is None else f"; the right pairs alone {_percent(oracle)}"
    for cure in _KNOWN:
        ours = Setting(task, ratio, cure)
        if not study.runs.get(ours):
            continue
        claim = f"{task}, e = {ours.error_rate:.2g}: {TITLES[cure]}, closes at least {100 * GOAL:g}% of the gap"
        closed = study.gap_closed(ours)
        if closed is None:
            yield Verdict(claim, "goal", "a seed loses nothing to the noise, or has no clean or plain run", None)
        else:
            yield Verdict(claim, "goal", f"{_percent(closed)} of the gap{beside}", *lies_in(closed, GOAL))
        if (share := study.of_oracle(ours)) is not None:  # at a fixed budget who knows every wrong pair closes a part
            yield Verdict(f"{claim.removesuffix('the gap')}what the right pairs alone close", "beside the goal",
                          f"{_percent(share)} of it", *lies_in(share, GOAL))  # fmt: skip


def _over_baselines(study: Compared, task: str, ratio: float) -> Iterator[Verdict]:
    """With the teacher unknown, the mixture beats both baselines."""
    best = [study.best(task, ratio, base) for base in BASELINES]
    for cure in _UNKNOWN:
        ours = Setting(task, ratio, cure)
        gains = [None if other is None else study.better_than(ours, other) for other, _ in best]
        if None in gains:
            continue
        names = [_named(study, other, tried) for other, tried in best]
        told = ", ".join(f"{gain.told(3)} nats below {name}" for gain, name in zip(gains, names))
        yield Verdict(f"{task}, e = {ours.error_rate:.2g}: {TITLES[cure]}, beats both baselines", "goal", told,
                      *joined([lies_in(gain, 0) for gain in gains]))  # fmt: skip


def _named(study: Compared, setting: Setting, tried: int) -> str:
    """A baseline, what was tried of it, and what it left out."""
    dropped = study.values(setting, "dropped_share")
    told = f", which left out {100 * mean(dropped):.2g}%" if dropped else ""
    told += " and is inactive" if dropped and mean(dropped) < _IDLE else ""
    best = f" (the best of {tried} on the test targets)" if tried > 1 else ""
    return f"{setting.title}{best}{told}"


def _percent(share: Spread) -> str:
    ends = "" if share.interval is None else " [{:.0f}, {:.0f}]".format(*(100 * end for end in share.interval))
    return f"{100 * share.mean:.0f}{ends}%"
