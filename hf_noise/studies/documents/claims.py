"""What paper B claims of noise documents, each held against the records of a study, with its statistic.

A claim about a size is held against the threshold that stands in the file of the paper's table. It held or did not
where the whole 95 % interval over seeds says so, and is open where the interval says both, or seeds are too few; one
seed alone is told as such, and as of these test rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from hf_noise.reports.paper import published
from hf_noise.reports.record import RunRecord
from hf_noise.reports.tables import markdown_table
from hf_noise.reports.verdicts import Verdict, lies_in, of_test_rows, spread
from hf_noise.studies.documents.compare import UNIFORM, Compared, Setting, at_step, curve, value_of

__all__ = ["GAUSSIAN", "claims_table", "verdicts"]

GAUSSIAN = "gaussian-documents"
#: Where the paper's figures of losses along training stand.
_TABLES = {"causal_lm": "B.table8", "masked_lm": "B.table9"}


def verdicts(study: Compared, task: str) -> list[Verdict]:
    """Every claim that the runs of this study can be held against; `task` is "causal_lm" or "masked_lm".

    Of masked models the paper has table 9 alone. They are held against the directions of its figures, which are of
    GPT-2, too, and not against sizes: what they read at a masked position may be copied, also in noise.
    """
    found: list[Verdict] = []
    for setting in study.noisy("nll"):
        for judge in (_size, _less_at_equal_text, _falls, _positive_and_small, _table):
            found += judge(study, setting, task)
        if task == "masked_lm":
            continue
        if setting.protocol == UNIFORM:
            found += _slow(study, setting)
        if setting.protocol == GAUSSIAN:
            found += _against_uniform(study, setting)
    if task == "masked_lm":
        found = [replace(one, source=f"{one.source}, GPT-2") if "figure" in one.source else one for one in found]
    return of_test_rows(found)


def _high(claim: str) -> float:
    """Threshold of a claim that the verdicts here decide."""
    return next(one.high for one in published(claim.rpartition(".")[0]).claims if one.id == claim)


def claims_table(study: Compared, task: str) -> str:
    """`verdicts` in Markdown; a line that says so where there are none."""
    every = verdicts(study, task)
    if not every:
        return "no claim of paper B can be judged from these runs: it takes one without noise and one with, of a seed"
    rows = [[one.claim, one.source, one.statistic, one.word] for one in every]
    return markdown_table(["claim", "paper B", "measured", "verdict"], rows)


def _named(setting: Setting) -> str:
    return f"{setting.protocol.removesuffix('-documents')}, alpha = {setting.alpha:g}"


def _size(study: Compared, setting: Setting, task: str) -> Iterator[Verdict]:
    """The clean loss rises, and by no more than the paper's did."""
    rise = study.rise(setting)
    if rise is None or setting.protocol != UNIFORM or task != "causal_lm":
        return
    for test in (test for claim in published("B.text").claims for test in claim.again if setting.alpha in test["at"]):
        claim = f"{_named(setting)}: the clean loss rises, by at most {test['high']:g} %"
        yield Verdict(claim, "section 3.1", f"rise {rise.told(2, ' %')}", *lies_in(rise, test["low"], test["high"]))


def _less_at_equal_text(study: Compared, setting: Setting, task: str) -> Iterator[Verdict]:
    """At equal text the rise is smaller, over a run without noise that was planned for that text.

    Over the run of all steps, cut where it has seen as much, it would be whatever the noise costs: that loss still
    falls there. Where no shorter run was made there is no verdict. By how much it is smaller depends on the noise;
    whether it is, on the two runs without noise: the shorter one has to end higher.
    """
    steps, text = study.rise(setting), study.rise_over_shorter_run(setting)
    if steps is None or text is None or len(steps.values) != len(text.values):
        return
    smaller = spread([a - b for a, b in zip(steps.values, text.values, strict=True)])
    claim = f"{_named(setting)}: at equal text, over a run without noise planned for it, the rise is smaller"
    yield Verdict(claim, "figure 2c", f"rise {text.told(2, ' %')}, smaller by {smaller.told(2, ' points')}",
                  *lies_in(smaller, np.nextafter(0, 1)))  # fmt: skip


def _falls(study: Compared, setting: Setting, task: str) -> Iterator[Verdict]:
    """The clean loss falls throughout training."""
    runs = list(study.runs[setting].values())
    rises = [int((values[1:] > values[:-1]).sum()) for _, values in (curve(run) for run in runs)]
    points = [len(curve(run)[0]) - 1 for run in runs]
    if min(points) > 0:
        yield Verdict(f"{_named(setting)}: the clean loss falls throughout training", "figure 2a",
                      f"it rose in {sum(rises)} of {sum(points)} intervals", sum(rises) == 0, len(runs))  # fmt: skip


def _positive_and_small(study: Compared, setting: Setting, task: str) -> Iterator[Verdict]:
    """The rise is positive and much smaller than alpha; much is taken as a fifth, as the paper's largest is."""
    rise, high = study.rise(setting), _high("B.figure2.c2")
    if rise is not None:
        share = spread([value / (100 * setting.alpha) for value in rise.values])
        yield Verdict(f"{_named(setting)}: the rise is positive and at most {high:g} of alpha", "figure 2b",
                      f"rise / alpha = {share.told(3)}", *lies_in(share, 0, high))  # fmt: skip


def _table(study: Compared, setting: Setting, task: str) -> Iterator[Verdict]:
    """At three points of training noise raises the clean loss, and by no more than in the paper's table."""
    table = published(_TABLES[task])
    points = table.runs[0].reads["points"]
    for test in (test for claim in table.claims for test in claim.again):
        (column,) = test["columns"]
        rise = study.over_seeds(setting, _rise_at(points[column]))
        if rise is not None and setting == Setting(UNIFORM, test["to"], "nll"):
            yield Verdict(
                f"{_named(setting)}: after {100 * points[column]:g} % of training the clean loss is raised, by at most "
                f"{test['high']:g} %", table.id.removeprefix("B.").replace("table", "table "),
                f"rise {rise.told(2, ' %')}", *lies_in(rise, test["low"], test["high"]),
            )  # fmt: skip


def _rise_at(point: float) -> Callable:
    def rise(run, clean):
        values = [at_step(one, point * one.budget["steps"]) for one in (run, clean)]
        return None if None in values or not values[1] else 100 * (values[0] / values[1] - 1)

    return rise


def _slow(study: Compared, setting: Setting) -> Iterator[Verdict]:
    """In the last three quarters of training the loss on noise falls by less than a tenth of the clean loss's fall."""
    high = _high("B.figure3.c1")
    falls = [_falls_after(run, 0.25) for run in study.runs[setting].values()]
    if None not in falls:
        share = spread([noise / clean for noise, clean in falls])
        yield Verdict(f"{_named(setting)}: the loss on the noise trained on hardly falls after a quarter of training, "
                      f"at most {high:g} of the fall on text", "figure 3a",
                      f"fall on noise / fall on text = {share.told(3)}", *lies_in(share, high=high))  # fmt: skip


def _falls_after(run: RunRecord, point: float) -> tuple[float, float] | None:
    """How far the losses on noise and on text, both as trained on, fall after this share of training."""
    falls = []
    for name in ("noise_nll", "validation_nll"):
        trained = run.metrics.get(name, {}).get("train", {})
        steps, values = trained.get("steps", []), trained.get("values", [])
        start = point * run.budget["steps"]
        if not steps or not steps[0] <= start < steps[-1]:
            return None
        falls.append(float(np.interp(start, steps, values)) - values[-1])
    noise, text = falls
    return (noise, text) if text > 0 else None


def _against_uniform(study: Compared, setting: Setting) -> Iterator[Verdict]:
    """Gaussian noise is fitted to a lower loss than uniform noise, and costs less."""
    other = study.runs.get(Setting(UNIFORM, setting.alpha, "nll"), {})
    ours = study.runs[setting]
    seeds = sorted(set(other) & set(ours))
    for metric, source, claim in (
        ("noise_nll", "figure 3b", "is fitted to a lower loss than uniform noise"),
        ("validation_nll", "figure 3c", "costs less clean loss than uniform noise"),
    ):
        gaps = [value_of(other[seed], metric) - value_of(ours[seed], metric) for seed in seeds]
        if gaps:
            gap = spread(gaps)
            yield Verdict(f"{_named(setting)}: {claim}", source, f"{gap.told(4, ' nats')} below", *lies_in(gap, 0))
