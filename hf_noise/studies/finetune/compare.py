"""Runs of a study of fine-tuning side by side: the same labels and method, by seed, each cure against cross-entropy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from hf_noise.analysis.paired import FEWEST_PAIRS, PairedTest, paired_test
from hf_noise.noise.block import is_unknown
from hf_noise.reports.checks import check_records
from hf_noise.reports.record import RunRecord
from hf_noise.reports.tables import seeds_told

__all__ = [
    "CLEAN", "PLAIN", "UNKNOWN", "Cell", "Group", "cells_of", "claims", "groups_of", "labels_of", "over_plain",
    "points", "test_labels", "values_of",
]  # fmt: skip

CLEAN, UNKNOWN = "right labels", "labels as they come"
_LOSSES = {
    "nll": "cross-entropy", "corrected": "corrected, T known", "estimated": "corrected, T learned", "gce": "GCE",
    "elr": "ELR", "co-teaching": "co-teaching",
}  # fmt: skip
_REGULARISERS = {"l2-sp": "L2-SP", "smart": "SMART", "lnsr": "LNSR"}


@dataclass(frozen=True)
class Group:
    """What cures are compared within: the same labels and the same weights trained."""

    labels: str
    method: str

    def __str__(self) -> str:
        return f"{self.labels}, {'LoRA' if self.method == 'lora' else 'all weights'}"


@dataclass(frozen=True)
class Cell:
    """One cure in a group."""

    loss: str
    regulariser: str = "none"
    lgm: bool = False

    @property
    def title(self) -> str:
        parts = [_LOSSES.get(self.loss, self.loss)]
        parts += [_REGULARISERS.get(self.regulariser, self.regulariser)] * (self.regulariser != "none")
        return " + ".join([*parts, *["LGM"] * self.lgm])


PLAIN = Cell("nll")


def labels_of(record: RunRecord) -> str:
    """Which labels a run learned from, with the share of wrong ones."""
    noise = record.noise
    if is_unknown(noise):
        return UNKNOWN
    if noise["error_rate"] == 0:
        return CLEAN
    kind = f"weak labels ({noise['name']})" if "name" in noise else str(noise.get("kind", noise["protocol"]))
    return f"{kind}, e = {noise['error_rate']:.2f}"


def test_labels(records: Sequence[RunRecord]) -> str:
    """What accuracy is measured on: where nobody knows which labels are wrong, those of tests are as given."""
    return "test labels as given" if any(is_unknown(record.noise) for record in records) else "right test labels"


def groups_of(records: Sequence[RunRecord]) -> dict[Group, dict[Cell, dict[int, RunRecord]]]:
    """Runs by group, cure and seed; right labels come first.

    Raises:
        ValueError: a record lacks what is compared, or is of another study.
        TypeError: these are no records.
    """
    check_records(
        records, numbers=("metrics.test_nll.value",),
        shares=("metrics.test_accuracy.value", "metrics.test_accuracy.low", "metrics.test_accuracy.high",
                "metrics.train_accuracy_trained_labels.value"),
        texts={"noise.protocol": None, "model.method": None, "loss.cure": None, "loss.regulariser": None},
    )  # fmt: skip
    check_records([record for record in records if not is_unknown(record.noise)],
                  shares=("noise.error_rate", "metrics.train_accuracy_clean_labels.value"))  # fmt: skip
    found: dict[Group, dict[Cell, dict[int, RunRecord]]] = defaultdict(lambda: defaultdict(dict))
    for record in sorted(records, key=lambda one: (one.noise.get("error_rate", 1.0), one.name)):
        loss = record.loss
        cell = Cell(loss["cure"], loss["regulariser"], bool(loss.get("lgm")))
        found[Group(labels_of(record), record.model["method"])][cell][record.seed] = record
    return {group: dict(cells) for group, cells in found.items()}


def cells_of(by_cell: Mapping[Cell, Mapping[int, RunRecord]]) -> list[Cell]:
    """Plain cross-entropy first, then the others, the most accurate first."""
    return sorted(by_cell, key=lambda cell: (cell != PLAIN, -mean(values_of(by_cell[cell], "test_accuracy"))))


def values_of(runs: Mapping[int, RunRecord], metric: str) -> list[float]:
    """A metric of each seed that has it."""
    return [record.metrics[metric]["value"] for record in runs.values() if metric in record.metrics]


def over_plain(by_cell: Mapping[Cell, Mapping[int, RunRecord]], cell: Cell) -> PairedTest | None:
    """Accuracy, in points, of a cure less that of plain cross-entropy, paired by seed; None without a pair."""
    ours, plain = by_cell[cell], by_cell.get(PLAIN, {})
    seeds = sorted(set(ours) & set(plain))
    if cell == PLAIN or not seeds:
        return None
    sides = ([100 * runs[seed].metrics["test_accuracy"]["value"] for seed in seeds] for runs in (ours, plain))
    return paired_test(*sides)


def claims(records: Sequence[RunRecord]) -> list[str]:
    """What the runs say of each cure, in words with their statistics."""
    groups = groups_of(records)
    said, tests, pairs = [], 0, set()
    for group, by_cell in groups.items():
        found = {cell: over_plain(by_cell, cell) for cell in cells_of(by_cell)}
        found = {cell: test for cell, test in found.items() if test is not None}
        if not found:
            continue
        tests += len(found)
        pairs |= {test.n for test in found.values()}
        apart = {cell for cell, test in found.items() if test.is_apart}
        better = [_told(cell, test) for cell, test in found.items() if cell in apart and test.mean > 0]
        worse = [_told(cell, test) for cell, test in found.items() if cell in apart and test.mean < 0]
        open_ = [_told(cell, test) for cell, test in found.items() if cell not in apart]
        line = f"{group}: "
        line += f"better than cross-entropy: {'; '.join(better)}. " if better else "no cure beats cross-entropy. "
        line += f"Worse: {'; '.join(worse)}. " if worse else ""
        line += f"Not told apart: {'; '.join(open_)}." if open_ else ""
        said.append(line.strip())
    if tests:
        said.append(
            f"Points of accuracy on {test_labels(records)} over cross-entropy, paired by seed: mean and 95% interval "
            f"of Student's t, {seeds_told(pairs)}; ± is the standard deviation over seeds. It says nothing of other "
            f"test rows. Each interval stands for itself: of {tests} comparisons {max(1, round(0.05 * tests))} may "
            f"come out apart by chance. Of fewer than {FEWEST_PAIRS} seeds nothing is told apart, nor where all seeds "
            "say the same to the last row."
        )  # fmt: skip
        said += _costs(groups)
    return said


def _costs(groups: Mapping[Group, Mapping[Cell, Mapping[int, RunRecord]]]) -> list[str]:
    """Which cures take more passes for a row than cross-entropy, as records say; nothing where none does."""
    found: dict[str, int] = {}
    for by_cell in groups.values():
        for cell, runs in by_cell.items():
            passes = max(record.loss.get("passes", 1) for record in runs.values())
            if passes > 1:
                found[cell.title] = passes
    if not found:
        return []
    told = ", ".join(f"{title} {passes}" for title, passes in found.items())
    return ["All runs take the same steps on as many rows, and not the same time: of each row, passes forward and back "
            f"through a network are {told}; 1 of the others."]  # fmt: skip


def points(test: PairedTest) -> str:
    """A mean difference and its interval, as +1.2 (-0.3 to +2.7)."""
    if test.low is None:
        return f"{_signed(test.mean)} ({'one seed' if test.n == 1 else 'all seeds alike'})"
    return f"{_signed(test.mean)} ({_signed(test.low)} to {_signed(test.high)})"


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}"  # + 0.0: never -0.0


def _told(cell: Cell, test: PairedTest) -> str:
    return f"{cell.title} {points(test)}"
