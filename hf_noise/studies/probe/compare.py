"""The records of a probe side by side: by head, labels and loss, each penalty over seeds against none."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hf_noise.analysis.paired import PairedTest, paired_test
from hf_noise.reports.checks import check_records
from hf_noise.reports.record import RunRecord
from hf_noise.studies.probe.study import HEADS, PENALTIES

__all__ = ["Cell", "Compared", "area_of", "compared", "points", "told"]

#: Penalties in the words of a table.
WORDS = {"none": "plain", "difference": "LGM", "norm": "norm only", "cosine": "cosine only", "l2": "L2 on outputs"}


@dataclass(frozen=True)
class Cell:
    """What the heads of a line have in common but for their penalty; `labels` as `Run.labels` has it."""

    head: str
    labels: str
    loss: str

    @property
    def is_clean(self) -> bool:
        return self.labels == "r0"

    @property
    def named(self) -> str:
        """As a claim says it."""
        how = ", corrected" if self.loss == "corrected" else ""
        return f"{self.head}, {'no noise added' if self.is_clean else self.labels}{how}"


def points(record: RunRecord) -> float:
    """Test accuracy in percent."""
    return 100 * record.metrics["test_accuracy"]["value"]


def area_of(record: RunRecord) -> float | None:
    """Correct area in percent; None where it was not looked at."""
    found = record.metrics.get("correct_area")
    return None if found is None else 100 * found["value"]


@dataclass(frozen=True, eq=False)
class Compared:
    """Records by cell, penalty and seed."""

    runs: dict[Cell, dict[str, dict[int, RunRecord]]]

    @property
    def penalties(self) -> list[str]:
        """Those that were fitted, in the order of a table."""
        there = {name for by_penalty in self.runs.values() for name in by_penalty}
        return [name for name in PENALTIES if name in there]

    def cells(self, *, losses: Sequence[str] = ("nll", "corrected")) -> list[Cell]:
        """By head, share of wrong labels and loss."""
        found = [cell for cell in self.runs if cell.loss in losses]
        return sorted(found, key=lambda one: (HEADS.index(one.head), self.wrong(one), one.labels, one.loss != "nll"))

    def wrong(self, cell: Cell) -> float:
        """Share of wrong labels that was realised, mean over seeds."""
        rates = [run.noise["realised"]["rate"] for run in self.runs[cell].get("none", {}).values()]
        return sum(rates) / len(rates) if rates else 0.0

    def values(self, cell: Cell, penalty: str, figure: Callable[[RunRecord], float | None] = points) -> list[float]:
        """A figure of each seed; empty where it was not measured."""
        found = [figure(run) for _, run in sorted(self.runs.get(cell, {}).get(penalty, {}).items())]
        return [] if None in found else found

    def against(
        self, ours: tuple[Cell, str], theirs: tuple[Cell, str],
        figure: Callable[[RunRecord], float | None] = points,
    ) -> PairedTest | None:  # fmt: skip
        """A figure of two kinds of heads, paired by seed; None where no seed has both."""
        one, other = (self.runs.get(cell, {}).get(penalty, {}) for cell, penalty in (ours, theirs))
        pairs = [(figure(one[seed]), figure(other[seed])) for seed in sorted(one.keys() & other.keys())]
        if not pairs or any(None in pair for pair in pairs):
            return None
        return paired_test(*map(list, zip(*pairs)))

    def over_rows(self, cell: Cell, penalty: str) -> tuple[float, float] | None:
        """95 % interval of the gain in points over test rows like these, of the heads of these seeds.

        Seeds share the test rows, so their variances are averaged and not divided by their number: it is no narrower
        than that of one seed. None where nothing was compared, and where all rows say the same: that is no certainty.
        """
        gains = [run.metrics["gain"] for run in self.runs.get(cell, {}).get(penalty, {}).values()
                 if "gain" in run.metrics]  # fmt: skip
        if not gains:
            return None
        mean = sum(one["value"] for one in gains) / len(gains)
        spread = [(one["only_this"] + one["only_plain"]) / one["n"] - one["value"] ** 2 for one in gains]
        if not sum(spread) > 0:
            return None
        half = 1.96 * math.sqrt(sum(spread) / len(spread) / gains[0]["n"])
        return 100 * (mean - half), 100 * (mean + half)


def told(found: PairedTest | None, digits: int = 2) -> str:
    """Such as `0.51 [0.20, 0.82]`; a dash where there is nothing."""
    if found is None:
        return "-"
    # + 0.0 makes 0 of -0, which rounding leaves of small negative numbers.
    low, mean, high = (None if one is None else round(one, digits) + 0.0 for one in (found.low, found.mean, found.high))
    ends = "" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{mean:+.{digits}f}{ends}"


def compared(records: Sequence[RunRecord]) -> Compared:
    """Sort records.

    Raises ValueError, TypeError: these are no records of probes, or of two studies, or two of one head and seed.
    """
    check_records(
        records, numbers=("noise.realised.rate",), shares=("metrics.test_accuracy.value",),
        texts={"loss.name": ("nll", "corrected"), "loss.penalty.name": tuple(WORDS), "model.head": HEADS,
               "data.labels": None, "data.source": None},
    )  # fmt: skip
    runs: dict[Cell, dict[str, dict[int, RunRecord]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        cell = Cell(record.model["head"], record.data["labels"], record.loss["name"])
        there = runs[cell][record.loss["penalty"]["name"]]
        if (other := there.setdefault(record.seed, record)) is not record:
            raise ValueError(f"the records {other.name!r} and {record.name!r} are of one head and seed; show one study "
                             "at a time")  # fmt: skip
        first = records[0]
        for name in ("source", "feature_keys", "test_rows"):
            if first.data.get(name) != record.data.get(name):
                raise ValueError(f"the records {first.name!r} and {record.name!r} are of two studies: their {name} "
                                 "differ")  # fmt: skip
    return Compared({cell: dict(by_penalty) for cell, by_penalty in runs.items()})
