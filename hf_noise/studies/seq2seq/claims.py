"""What paper A claims of teacher noise, and what a cure is to reach, each held against the records of a study.

A claim held or did not where the whole 95 % interval over seeds says so, and is open where the interval says both, or
seeds are too few; one seed alone is told as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

from hf_noise.reports.tables import markdown_table
from hf_noise.studies.documents.claims import Verdict, lies_in
from hf_noise.studies.documents.compare import Spread
from hf_noise.studies.seq2seq.compare import TITLES, Compared, Setting, clean_of
from hf_noise.studies.seq2seq.runs import ORACLE

__all__ = ["GOAL", "claims_table", "verdicts"]

#: Share of the gap that a cure is to close where the teacher's likelihood is known.
GOAL = 0.5
#: A baseline that leaves out less of the targets than this is the plain loss by another name.
_IDLE = 0.01
_BASELINES = ("truncated", "error-norm")
_UNKNOWN = ("mixture-learned", "mixture-unigram")


def verdicts(study: Compared) -> list[Verdict]:
    """Every claim that the runs of this study can be held against."""
    found = [one for task in study.tasks for one in _monotone(study, task)]
    for ratio in study.ratios("rich"):
        found += _richer(study, ratio)
    for ratio in study.cured:
        for task in study.tasks:
            found += [*_goal(study, task, ratio), *_over_baselines(study, task, ratio)]
    return found


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
    held, seeds = zip(*(lies_in(step, 0) for step in steps))
    told = ", ".join(step.told(3) for step in steps)
    yield Verdict(f"{task}: NLL rises at every step of e = {_grid(grid)}", "table 10", f"by {told} nats", _all(held),
                  min(seeds))  # fmt: skip


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
    """With the teacher's likelihood known, at least half of the gap is closed: to clean targets, which is the goal, and
    to the right pairs alone, as at a fixed budget who knows every wrong pair closes a part of it only."""
    ours = Setting(task, ratio, "mixture-teacher")
    for base, closed, gap, source in (
        (clean_of(task), study.gap_closed(ours), "the gap", "goal"),
        (Setting(task, ratio, ORACLE), study.of_oracle(ours), "what the right pairs alone close", "beside the goal"),
    ):
        claim = f"{task}, e = {ours.error_rate:.2g}: q known closes at least {100 * GOAL:g}% of {gap}"
        without, seeds = study.without_gap(ours, base)
        if closed is not None:
            yield Verdict(claim, source, f"{_percent(closed)} of it", *lies_in(closed, GOAL))  # fmt: skip
        elif without:
            yield Verdict(claim, source, f"no gap in {without} of {seeds} seeds, so no share of it", None, seeds)


def _over_baselines(study: Compared, task: str, ratio: float) -> Iterator[Verdict]:
    """With the teacher unknown, the mixture beats both baselines."""
    baselines = [study.best(task, ratio, cure) for cure in _BASELINES]
    for cure in _UNKNOWN:
        ours = Setting(task, ratio, cure)
        gains = [study.better_than(ours, other) for other in baselines]
        if None in gains:
            continue
        held, seeds = zip(*(lies_in(gain, 0) for gain in gains))
        told = ", ".join(f"{gain.told(3)} nats below {_named(study, other)}" for gain, other in zip(gains, baselines))
        name = TITLES[cure].removeprefix("sequence mixture, ")
        yield Verdict(f"{task}, e = {ours.error_rate:.2g}: {name} beats both baselines", "goal", told, _all(held),
                      min(seeds))  # fmt: skip


def _named(study: Compared, baseline: Setting) -> str:
    """A baseline, by how many values it was chosen from, and whether it did anything."""
    of = len(study.tried(baseline.task, baseline.ratio, baseline.cure))
    chosen = f", best of {of} on the test pairs" if of > 1 else ""
    dropped = study.dropped(baseline)
    idle = f", inactive: {100 * mean(dropped):.1f}% left out" if dropped and mean(dropped) < _IDLE else ""
    return f"{baseline.title}" + (f" ({(chosen + idle).removeprefix(', ')})" if chosen or idle else "")


def _all(held: Sequence[bool | None]) -> bool | None:
    """Whether all parts of a claim held; None if that is open."""
    return False if False in held else None if None in held else True


def _percent(share: Spread) -> str:
    ends = "" if share.interval is None else " [{:.0f}, {:.0f}]".format(*(100 * end for end in share.interval))
    return f"{100 * share.mean:.0f}{ends}%"
