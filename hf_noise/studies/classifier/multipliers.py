"""The advised batch against batches that were tried, from the records of a study: table, figure and verdict."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean, mean
from typing import Any

from hf_noise.analysis.advice import BatchAdvice, advise_batch, nearest_factor
from hf_noise.analysis.noise_scale import NoiseScale
from hf_noise.analysis.paired import FEWEST_PAIRS
from hf_noise.reports.figures import save_figure, start_figure
from hf_noise.reports.record import RunRecord, command_line, now, versions, write_atomic
from hf_noise.reports.tables import Column, Table, fixed, percent, shown_table
from hf_noise.reports.verdicts import Spread, lies_in, spread

__all__ = ["Advised", "advice_figure", "advised", "show_advice", "table_of_multipliers"]

#: Of a run, what advice is made of: weights change most at first, and an interval takes them for nearly the same.
WINDOW = "last half of the steps"
#: Of the best accuracy, what the advised batch is to reach.
WITHIN = 0.01


@dataclass(frozen=True)
class Advised:
    """What was advised at one ratio, and what was tried.

    Attributes:
        ratio: r.
        advice: of each seed, from its run with the batch of the run without noise.
        accuracies: batch multiplier -> test accuracy of each seed, of those that all multipliers have; NLL likewise.
        steps: optimiser steps by multiplier.
        window: of the run, what the advice was measured in.
    """

    ratio: float
    advice: dict[int, BatchAdvice]
    accuracies: dict[float, dict[int, float]]
    nlls: dict[float, dict[int, float]]
    steps: dict[float, int]
    window: str

    @property
    def multiplier(self) -> float:
        """The geometric mean of the advice over seeds."""
        return geometric_mean(one.multiplier for one in self.advice.values())

    @property
    def choice(self) -> float:
        """The tried multiplier that is nearest to it."""
        return nearest_factor(self.multiplier, list(self.accuracies))

    @property
    def best(self) -> float:
        """The one with the best mean accuracy."""
        return max(sorted(self.accuracies), key=lambda one: mean(self.accuracies[one].values()))

    @property
    def lacks(self) -> Spread:
        """What the advised one lacks of the best, in percent of the best, seed by seed."""
        tried, best = self.accuracies[self.choice], self.accuracies[self.best]
        return spread([100 * (1 - tried[seed] / best[seed]) for seed in sorted(best)])

    @property
    def behind(self) -> float:
        """Share of the best accuracy that the advised one lacks, the mean over seeds."""
        return self.lacks.mean / 100

    @property
    def held(self) -> bool | None:
        """Whether the advised one is within `WITHIN` of the best; None where seeds are too few or disagree."""
        lacks = self.lacks
        if len(lacks.values) < FEWEST_PAIRS:
            return None
        return self.choice == self.best or lies_in(lacks, high=100 * WITHIN).held

    def told(self) -> str:
        """In words, with the verdict."""
        ends = [f"{one.multiplier:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in self.advice.values()]
        first, seeds = next(iter(self.advice.values())), len(self.lacks.values)
        limit = f"within {100 * WITHIN:g}% of the best"
        verdict = {True: f"The advised one is {limit}", False: f"The advised one is not {limit}",
                   None: f"Whether the advised one is {limit} is open"}[self.held]  # fmt: skip
        return (
            f"r = {self.ratio:g}: advised {self.multiplier:.2f} times the batch (as for {first.optimizer}, of the "
            f"{self.window}; by seed {', '.join(ends)}), of those tried {self.choice:g}; best mean accuracy at "
            f"{self.best:g}. {verdict}: {self.lacks.told(2, '%')} behind ({seeds} seed{'s' * (seeds > 1)})"
        )


def advised(records: Sequence[RunRecord]) -> list[Advised]:
    """What these runs say of advice, by ratio; none where nothing was measured, or no larger batch was tried."""
    tried: dict[float, list[RunRecord]] = defaultdict(list)
    for record in filter(_is_tried, records):
        tried[record.noise["ratio"]].append(record)
    found = []
    for ratio, runs in sorted(tried.items()):
        measured = sorted((run for run in runs if "gradient_snr" in run.metrics), key=lambda run: run.seed)
        seeds = _common_seeds(runs)
        if not measured or not seeds or len({run.budget["batch_multiplier"] for run in runs}) < 2:
            continue
        by = {name: defaultdict(dict) for name in ("test_accuracy", "test_nll")}
        for run in runs:
            for name, values in by.items() if run.seed in seeds else ():
                values[run.budget["batch_multiplier"]][run.seed] = run.metrics[name]["value"]
        found.append(Advised(
            ratio, {one.seed: _advice(one, ratio) for one in measured}, dict(by["test_accuracy"]),
            dict(by["test_nll"]), {run.budget["batch_multiplier"]: run.budget["steps"] for run in runs},
            measured[0].metrics["gradient_snr"].get("window", "whole run"),
        ))  # fmt: skip
    return found


def _is_tried(record: RunRecord) -> bool:
    """Whether it is of a batch multiplier at equal clean exposure."""
    is_plain = record.loss["name"] == "nll" and record.budget["plan"].startswith("steps")
    return record.noise.get("kind") == "symmetric" and record.noise["error_rate"] > 0 and is_plain


def _common_seeds(runs: Sequence[RunRecord]) -> set[int]:
    """Seeds that were trained with every multiplier: of others the means would not be of the same runs."""
    by: dict[float, set[int]] = defaultdict(set)
    for run in runs:
        by[run.budget["batch_multiplier"]].add(run.seed)
    return set.intersection(*by.values())


def _advice(record: RunRecord, ratio: float) -> BatchAdvice:
    snr, scale = record.metrics["gradient_snr"], record.metrics.get("gradient_noise_scale", {})
    low = record.metrics.get("gradient_noise_scale_low", {}).get("value", 0.0)
    noise_scale = NoiseScale(  # infinite where no signal could be told from noise
        scale.get("value", math.inf), low, scale.get("high", math.inf), signal=math.nan, variance=math.nan,
        n=scale.get("n", 0), confidence=0.95,
    )  # fmt: skip
    settings = record.settings
    # Where the learning rate grows with the batch, steps of SGD along the signal are no shorter either.
    is_plain_sgd = settings.get("optimizer") == "sgd" and not settings.get("scale_learning_rate")
    return advise_batch(
        ratio, snr=snr["value"], batch_size=snr["batch_size"], snr_ratio=snr["ratio"], noise_scale=noise_scale,
        noise_scale_ratio=ratio, snr_interval=(snr["low"], snr.get("high", math.inf)),
        optimizer="sgd" if is_plain_sgd else "adam",
    )  # fmt: skip


_COLUMNS = (
    Column("r"), Column("batch multiplier", 0, "batch, x"), Column("steps", 2),
    Column("accuracy, clean test labels (%)", 0, "accuracy, %"), Column("range over seeds", 1, "range"),
    Column("test NLL, nats", 2, "NLL"), Column("seeds", 3), Column("behind the best, %", 0, "behind, %"),
    Column("advised"),
)  # fmt: skip


def table_of_multipliers(found: Sequence[Advised]) -> Table:
    """One line per ratio and batch multiplier."""
    rows = []
    for one in found:
        best = mean(one.accuracies[one.best].values())
        for multiplier, by_seed in sorted(one.accuracies.items()):
            values = list(by_seed.values())
            rows.append([
                f"{one.ratio:g}", f"{multiplier:g}", str(one.steps[multiplier]), percent(mean(values)),
                f"{percent(min(values))} to {percent(max(values))}", fixed(mean(one.nlls[multiplier].values())),
                str(len(values)), fixed(100 * (1 - mean(values) / best), 2),
                f"yes ({one.multiplier:.2f})" if multiplier == one.choice else "",
            ])  # fmt: skip
    return Table(_COLUMNS, rows)


_COLOURS = ("#2166ac", "#b2182b", "#1b7837", "#762a83")


def advice_figure(found: Sequence[Advised], path: str | Path) -> Path:
    """Accuracy against the batch multiplier, with the advice and its interval as a band."""
    plt = start_figure()
    fig, axis = plt.subplots(figsize=(7.2, 4.4), layout="constrained")
    for one, colour in zip(found, _COLOURS * len(found)):
        multipliers = sorted(one.accuracies)
        low, high = (end(getattr(a, name) for a in one.advice.values()) for end, name in ((min, "low"), (max, "high")))
        axis.axvspan(low, min(high, 2 * multipliers[-1]), color=colour, alpha=0.1, lw=0)
        told = f"advised at r = {one.ratio:g}: {one.multiplier:.2f} (band: intervals of all seeds)"
        axis.axvline(one.multiplier, color=colour, ls="--", lw=1.2, label=told)
        means = [100 * mean(one.accuracies[m].values()) for m in multipliers]
        axis.plot(multipliers, means, "o-", color=colour, lw=1.6, label=f"r = {one.ratio:g}, mean over seeds")
        for m in multipliers:
            values = [100 * value for value in one.accuracies[m].values()]
            axis.plot([m] * len(values), values, ".", color=colour, alpha=0.45)
        axis.axhspan((1 - WITHIN) * max(means), max(means), color="#888888", alpha=0.15, lw=0,
                     label=f"within {100 * WITHIN:g}% of the best")  # fmt: skip
    tried = sorted({m for one in found for m in one.accuracies})
    axis.set_xscale("log", base=2)
    axis.set_xticks(tried, [f"{m:g}" for m in tried])
    axis.set_xlim(tried[0] / 1.3, tried[-1] * 1.3)
    axis.set(xlabel="batch over that of the run without noise, equal clean exposure",
             ylabel="accuracy, clean test labels (%)")  # fmt: skip
    axis.set_title("How large a batch under wrong labels", loc="left", fontweight="bold")
    fig.legend(frameon=False, fontsize=8.5, loc="outside lower center", ncol=2)
    return save_figure(fig, path)


def show_advice(records: Sequence[RunRecord], output: Path) -> str:
    """Table, verdicts and files of the advice; says what is missing where there is none."""
    found = advised(records)
    if not found:
        return f"no advice: {_missing(records)}"
    table = shown_table(table_of_multipliers(found), output / "advice.md")
    values = {
        "within": WITHIN, "ratios": [_plain(one) for one in found], "command": command_line(), "versions": versions(),
        "created": now(),
    }  # fmt: skip
    file = write_atomic(output / "advice.json", json.dumps(values, indent=2, allow_nan=False) + "\n")
    figure = advice_figure(found, output / "advice.png")
    return "\n".join([table, "", *(one.told() for one in found), "", f"figure: {figure}", f"values: {file}"])


def _missing(records: Sequence[RunRecord]) -> str:
    """What advice lacks in these runs."""
    tried = [one for one in records if _is_tried(one)]
    usual = [one for one in tried if one.budget["plan"] == "steps"]
    if not usual:
        return "there is no run under symmetric noise with the plain loss and the plan steps, which is watched"
    if not any("gradient_snr" in one.metrics for one in usual):
        return (f"{', '.join(one.name for one in usual)}: no SNR was measured. A run is watched with --advise, before "
                "it is trained and for a few steps at least; train it anew in another --output")  # fmt: skip
    if len({one.budget["batch_multiplier"] for one in tried}) < 2:
        return "no larger batches were tried (--plan steps steps-x2 steps-x4)"
    return "no seed was trained with every batch multiplier of one ratio; give all plans the same --seed"


def _plain(one: Advised) -> dict[str, Any]:
    advice = {seed: {name: value if isinstance(value, str) or math.isfinite(value) else None
                     for name, value in asdict(found).items()} for seed, found in one.advice.items()}  # fmt: skip
    told = {
        "ratio": one.ratio, "advice": advice, "multiplier": one.multiplier, "choice": one.choice, "best": one.best,
        "behind": one.behind, "held": one.held, "window": one.window, "told": one.told(), "steps": one.steps,
    }  # fmt: skip
    return told | {"test_accuracy": one.accuracies, "test_nll": one.nlls}
