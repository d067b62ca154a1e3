"""What noise costs each family of models, and what its cure wins back: by setting, error rate and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from hf_noise.noise.rates import error_rate
from hf_noise.reports.paper import paper_table
from hf_noise.reports.verdicts import Spread, spread

__all__ = ["FAMILIES", "Curve", "Family", "Figure", "Seeds", "Setting", "common", "is_equal_compute", "rows_of"]


@dataclass(frozen=True)
class Setting:
    """One line of the picture: a kind of noise, or of source.

    Attributes:
        says: it beside the family's name; empty where there is but one.
        where: places in a record and what stands there, asked of runs with noise.
        of_clean: those that runs without noise are asked for, too.
        paper: a table with a row for each ratio, and its column.
    """

    says: str
    where: Mapping[str, Any]
    of_clean: Mapping[str, Any] = field(default_factory=dict)
    paper: tuple[str, str] | None = None


@dataclass(frozen=True)
class Family:
    """Models of one kind, and how their runs are read.

    Attributes:
        metric: of the records; `label` and `unit` say what it is, `times` makes the unit of it.
        is_better_high: whether more of it is better.
        cure, cured: what is shown beside the plain loss, in words and by places in a record.
        plain: the same of the plain loss.
        study: package of those that make the runs.
        usual: folder of the study that is shown where it is there.
    """

    name: str
    task: str
    metric: str
    label: str
    unit: str
    times: float
    digits: int
    is_better_high: bool
    plain: Mapping[str, Any]
    cure: str
    cured: Mapping[str, Any]
    study: str
    usual: str
    settings: Sequence[Setting]


_UNIFORM, _FLIPS = {"noise.protocol": "uniform_tokens"}, {"noise.protocol": "label_flips"}
FAMILIES = (
    Family(
        "language model", "causal_lm", "validation_nll", "NLL", "nats per token", 1, 3, False,
        {"loss.name": "nll"}, "correction, e known", {"loss.name": "corrected", "loss.source": "known"},
        "language", "gpt2-demo", [Setting("", _UNIFORM, _UNIFORM, ("A.figure1", "validation_nll"))],
    ),
    Family(
        "encoder-decoder", "seq2seq", "test_target_nll", "NLL", "nats per token", 1, 3, False,
        {"loss.cure": "nll"}, "training anew on the right pairs", {"loss.cure": "audited-learned"},
        "seq2seq", "seq2seq-demo",
        [Setting("poor source", {"data.task": "sparse"}, {"data.task": "sparse"}, ("A.table10", "wmt_nll")),
         Setting("rich source", {"data.task": "rich"}, {"data.task": "rich"}, ("A.table10", "cnndm_nll"))],
    ),
    Family(
        "classifier", "image_classification", "test_accuracy", "accuracy", "%", 100, 1, True,
        {"loss.name": "nll"}, "correction through T", {"loss.name": "corrected", "loss.source": "known"},
        "classifier", "classifier-demo",
        [Setting("labels at random", {**_FLIPS, "noise.kind": "symmetric"}, _FLIPS, ("A.table2", "cifar10")),
         Setting("labels of the next class", {**_FLIPS, "noise.kind": "cyclic"}, _FLIPS, ("A.table11", "cifar10"))],
    ),
    Family(
        "diffusion model", "class_conditional_generation", "label_consistency", "label consistency", "%", 100, 1, True,
        {"loss.name": "dsm"}, "TDSM", {"loss.name": "tdsm"}, "diffusion", "edm-demo",
        [Setting("", {**_FLIPS, "noise.kind": "symmetric"}, _FLIPS, ("A.table1", "cifar10_consistency"))],
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """What a record says: its metric in the family's unit, of how many, and what it was trained on.

    Attributes:
        place: of the record.
        ends: of the interval of the value.
        rows: that were trained on, each as often as it was.
        exposure: clean rows among them, in multiples of those of a run without noise.
        helper: what was trained besides, in words; `helped` the rows of that, None where the records do not say.
        seconds: that the whole run took by the clock, `on` what hardware.
    """

    value: float
    n: int
    place: str
    ends: tuple[float, float] | None
    rows: float
    exposure: float
    helper: str = ""
    helped: float | None = None
    seconds: float = 0.0
    on: Mapping[str, Any] = field(default_factory=dict)


#: One setting's figures by seed.
Seeds = Mapping[int, Figure]


@dataclass(frozen=True)
class Curve:
    """Runs of one setting by error rate and seed; those of one error rate are of the same seeds.

    Attributes:
        study: folder of the records.
        differs: settings by which they differ from others in the folder; empty where there are none.
        plan: of compute, of the runs with noise.
        clean: without noise.
        equal: without noise, at the compute of the noisiest; empty where that is the same, or was not run.
        plain, cured: by error rate, from the smallest; each seed has one without noise.
    """

    family: Family
    setting: Setting
    study: str
    differs: str
    plan: str
    clean: Seeds
    equal: Seeds
    plain: Mapping[float, Seeds]
    cured: Mapping[float, Seeds]

    @property
    def title(self) -> str:
        return ", ".join(filter(None, [self.family.name, self.setting.says]))

    @property
    def source(self) -> str:
        """The study, and which of its runs."""
        return f"{self.study} ({self.differs})" if self.differs else self.study

    @property
    def worst(self) -> float:
        """The largest error rate of the plain loss."""
        return max(self.plain)

    @property
    def at_worst(self) -> tuple[Seeds, Seeds, Seeds, Seeds]:
        """Without noise, the same at equal compute, plain and cured, of the seeds that the plain loss has there."""
        plain = self.plain[self.worst]
        return common(self.clean, plain)[0], common(self.equal, plain)[0], plain, self.cured.get(self.worst, {})

    @property
    def zeros(self) -> list[str]:
        """Places of records without noise whose value is 0, so that there is no percentage of it."""
        every = [*self.plain.values(), *self.cured.values()]
        return [one.place for seed, one in self.clean.items() if not one.value and any(seed in of for of in every)]

    def cost(self, figures: Seeds) -> Spread:
        """By how much percent runs are worse than those without noise, seed by seed."""
        sign = -1 if self.family.is_better_high else 1
        return spread([100 * sign * (one.value / self.clean[seed].value - 1) for seed, one in sorted(figures.items())])

    def costs(self, of: Mapping[float, Seeds]) -> list[tuple[float, Spread]]:
        """The same of each error rate."""
        return [(rate, self.cost(figures)) for rate, figures in of.items()]

    @property
    def size(self) -> tuple[int, int]:
        """Units that a test averages over, the fewest of all runs, and seeds of the setting that has the fewest."""
        sets = [self.clean, *self.plain.values(), *self.cured.values()]
        return min(figure.n for of in sets for figure in of.values()), min(map(len, sets))

    @property
    def gap(self) -> tuple[Seeds, Seeds, Seeds]:
        """Plain, cured and without noise at the largest error rate, of the seeds that all three have.

        The last are at the compute of the plain ones, where there are such; empty sets where no cure was run.
        """
        clean, equal, plain, cured = self.at_worst
        return common(plain, cured, equal if {*equal} & {*cured} else clean)

    def gap_closed(self) -> Spread | None:
        """Share of what the noisiest plain run loses that the cure wins back, beside no noise at the same compute.

        It is taken seed by seed.

        None where the cure was not run, or where the loss is no more than so few test units leave open.
        """
        plain, cured, beside = self.gap
        if not cured or _overlap(plain, beside):
            return None
        each = [[of[seed].value for of in (plain, cured, beside)] for seed in plain]
        return spread([(of_plain - of_cured) / (of_plain - best) for of_plain, of_cured, best in each])

    def of_paper(self) -> dict[float, float]:
        """What the paper prints, by error rate, in percent worse than without noise."""
        if self.setting.paper is None:
            return {}
        table, column = self.setting.paper
        rows = {ratio: row[column] for ratio, row in paper_table(table).items() if column in row}
        sign = -1 if self.family.is_better_high else 1
        return {error_rate(ratio): 100 * sign * (value / rows[0.0] - 1) for ratio, value in rows.items()}


def rows_of(figures: Seeds) -> float:
    """What runs of one setting were trained on, on the mean over seeds."""
    return mean(one.rows for one in figures.values())


def is_equal_compute(figures: Seeds, others: Seeds) -> bool:
    """Whether runs were trained on as many rows, but for what whole steps and batches make."""
    return abs(rows_of(figures) / rows_of(others) - 1) < 0.01


def common(*sets: Seeds) -> tuple[Seeds, ...]:
    """Figures of the seeds that all have, in their order."""
    seeds = sorted(set.intersection(*map(set, sets)))
    return tuple({seed: of[seed] for seed in seeds} for of in sets)


def _overlap(some: Seeds, others: Seeds) -> bool:
    """Whether single runs are within each other's intervals; of several seeds, whether their ranges are."""
    ends = [_ends([*of.values()]) for of in (some, others)]
    return ends[0][0] <= ends[1][1] and ends[1][0] <= ends[0][1]


def _ends(figures: Sequence[Figure]) -> tuple[float, float]:
    if len(figures) == 1 and figures[0].ends is not None:
        return figures[0].ends
    values = [one.value for one in figures]
    return min(values), max(values)
