"""What noise costs each family of models, and what its cure wins back: by setting, error rate and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from hf_noise.noise.rates import error_rate
from hf_noise.reports.paper import paper_table
from hf_noise.reports.record import RunRecord
from hf_noise.reports.verdicts import Spread, spread
from hf_noise.studies.compute import has_more_compute
from hf_noise.studies.report.stored import Stored

__all__ = ["FAMILIES", "Curve", "Family", "Figure", "Setting", "curves"]


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
    usual: str
    settings: Sequence[Setting]


_UNIFORM, _FLIPS = {"noise.protocol": "uniform_tokens"}, {"noise.protocol": "label_flips"}
FAMILIES = (
    Family(
        "language model", "causal_lm", "validation_nll", "NLL", "nats per token", 1, 3, False,
        {"loss.name": "nll"}, "correction, e known", {"loss.name": "corrected", "loss.source": "known"},
        "gpt2-demo", [Setting("", _UNIFORM, _UNIFORM, ("A.figure1", "validation_nll"))],
    ),
    Family(
        "encoder-decoder", "seq2seq", "test_target_nll", "NLL", "nats per token", 1, 3, False,
        {"loss.cure": "nll"}, "training anew on the right pairs", {"loss.cure": "audited-learned"},
        "seq2seq-demo",
        [Setting("poor source", {"data.task": "sparse"}, {"data.task": "sparse"}, ("A.table10", "wmt_nll")),
         Setting("rich source", {"data.task": "rich"}, {"data.task": "rich"}, ("A.table10", "cnndm_nll"))],
    ),
    Family(
        "classifier", "image_classification", "test_accuracy", "accuracy", "%", 100, 1, True,
        {"loss.name": "nll"}, "correction through T", {"loss.name": "corrected", "loss.source": "known"},
        "classifier-demo",
        [Setting("labels at random", {**_FLIPS, "noise.kind": "symmetric"}, _FLIPS, ("A.table2", "cifar10")),
         Setting("labels of the next class", {**_FLIPS, "noise.kind": "cyclic"}, _FLIPS, ("A.table11", "cifar10"))],
    ),
    Family(
        "diffusion model", "class_conditional_generation", "label_consistency", "label consistency", "%", 100, 1, True,
        {"loss.name": "dsm"}, "TDSM", {"loss.name": "tdsm"}, "edm-demo",
        [Setting("", {**_FLIPS, "noise.kind": "symmetric"}, _FLIPS, ("A.table1", "cifar10_consistency"))],
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """What a record says: its metric in the family's unit, of how many, the ends of its interval, and its place."""

    value: float
    n: int
    place: str
    ends: tuple[float, float] | None = None


@dataclass(frozen=True)
class Curve:
    """Runs of one setting by error rate and seed.

    Attributes:
        study: folder of the records.
        plan: of compute, of the runs with noise.
        clean: without noise.
        equal: without noise, at the compute of the noisiest; empty where that is the same, or was not run.
        plain, cured: by error rate, from the smallest.
    """

    family: Family
    setting: Setting
    study: str
    plan: str
    clean: Mapping[int, Figure]
    equal: Mapping[int, Figure]
    plain: Mapping[float, Mapping[int, Figure]]
    cured: Mapping[float, Mapping[int, Figure]]

    @property
    def title(self) -> str:
        return ", ".join(filter(None, [self.family.name, self.setting.says]))

    @property
    def worst(self) -> float:
        """The largest error rate of the plain loss."""
        return max(self.plain)

    def cost(self, figures: Mapping[int, Figure]) -> Spread:
        """By how much percent runs are worse than those without noise, seed by seed."""
        seeds = sorted({*figures} & {*self.clean})
        sign = -1 if self.family.is_better_high else 1
        return spread([100 * sign * (figures[seed].value / self.clean[seed].value - 1) for seed in seeds])

    def costs(self, of: Mapping[float, Mapping[int, Figure]]) -> list[tuple[float, Spread]]:
        """The same of each error rate that has seeds in common with the runs without noise."""
        return [(rate, self.cost(figures)) for rate, figures in of.items() if {*figures} & {*self.clean}]

    @property
    def beside(self) -> Mapping[int, Figure]:
        """Runs without noise of the compute that the noisiest had."""
        return self.equal or self.clean

    @property
    def size(self) -> tuple[int, int]:
        """Units that a test averages over, the fewest of all runs, and seeds of the setting that has the fewest."""
        sets = [self.clean, *self.plain.values(), *self.cured.values()]
        return min(figure.n for of in sets for figure in of.values()), min(map(len, sets))

    def gap_closed(self) -> float | None:
        """Share of what the noisiest plain run loses that the cure wins back, beside no noise at the same compute.

        None where the cure was not run, or where the loss is no more than so few test units leave open.
        """
        plain, cured = self.plain[self.worst], self.cured.get(self.worst, {})
        if not cured or _overlap(plain, self.beside):
            return None
        of_plain, of_cured, best = (mean(one.value for one in of.values()) for of in (plain, cured, self.beside))
        return (of_plain - of_cured) / (of_plain - best)

    def of_paper(self) -> dict[float, float]:
        """What the paper prints, by error rate, in percent worse than without noise."""
        if self.setting.paper is None:
            return {}
        table, column = self.setting.paper
        rows = {ratio: row[column] for ratio, row in paper_table(table).items() if column in row}
        sign = -1 if self.family.is_better_high else 1
        return {error_rate(ratio): 100 * sign * (value / rows[0.0] - 1) for ratio, value in rows.items()}


def _overlap(some: Mapping[int, Figure], others: Mapping[int, Figure]) -> bool:
    """Whether single runs are within each other's intervals; of several seeds, whether their ranges are."""
    ends = [_ends([*of.values()]) for of in (some, others)]
    return ends[0][0] <= ends[1][1] and ends[1][0] <= ends[0][1]


def _ends(figures: Sequence[Figure]) -> tuple[float, float]:
    if len(figures) == 1 and figures[0].ends is not None:
        return figures[0].ends
    values = [one.value for one in figures]
    return min(values), max(values)


def curves(stored: Stored) -> list[Curve]:
    """The lines of the picture: of each family and setting the usual study, or else the one with most error rates."""
    found = []
    for family in FAMILIES:
        studies = stored.of_task(family.task)
        for setting in family.settings:
            every = [curve for study, records in studies.items()
                     if (curve := _curve(family, setting, study, records)) is not None]  # fmt: skip
            if every:
                found.append(max(every, key=lambda one: (one.study == family.usual, len(one.plain), len(one.clean))))
    return found


def _curve(family: Family, setting: Setting, study: str, records: Sequence[tuple[str, RunRecord]]) -> Curve | None:
    """What a study's records say of a setting; None without runs of the plain loss, or none without noise."""
    clean: dict[int, Figure] = {}
    more: dict[str, dict[float, dict[int, Figure]]] = {}
    plans: dict[str, dict[str, dict[float, dict[int, Figure]]]] = {}
    for place, record in records:
        if record.noise.get("error_rate") is None or family.metric not in record.metrics:
            continue
        rate, figure = record.noise["error_rate"], _figure(family, place, record)
        if rate == 0:
            if _has(record, {**setting.of_clean, **family.plain}):
                budget = record.budget
                others = more.setdefault(budget["plan"], {}).setdefault(budget["exposure"], {})
                (others if has_more_compute(record) else clean)[record.seed] = figure
            continue
        kind = next((name for name, of in (("plain", family.plain), ("cured", family.cured)) if _has(record, of)), None)
        if kind is not None and _has(record, setting.where):
            plan = record.budget["plan"]
            plans.setdefault(plan, {"plain": {}, "cured": {}})[kind].setdefault(rate, {})[record.seed] = figure
    plans = {plan: of for plan, of in plans.items() if of["plain"]}
    if not clean or not plans:
        return None
    plan = max(plans, key=lambda one: (len(plans[one]["plain"]), len(plans[one]["cured"])))
    by_rate = {kind: dict(sorted(of.items())) for kind, of in plans[plan].items()}
    of_plan = {exposure: of for exposure, of in more.get(plan, {}).items() if of}
    return Curve(family, setting, study, plan, clean, of_plan[max(of_plan)] if of_plan else {}, **by_rate)


def _figure(family: Family, place: str, record: RunRecord) -> Figure:
    told = record.metrics[family.metric]
    ends = (family.times * told["low"], family.times * told["high"]) if "low" in told and "high" in told else None
    return Figure(family.times * told["value"], told["n"], place, ends)


def _has(record: RunRecord, where: Mapping[str, Any]) -> bool:
    for place, wanted in where.items():
        part, key = place.split(".")
        if getattr(record, part).get(key) != wanted:
            return False
    return True
