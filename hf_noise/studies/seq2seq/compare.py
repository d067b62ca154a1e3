"""Runs of a study of teacher noise side by side: what each task loses to it, and what each cure wins back, by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from hf_noise.data.pairs_embedded import DOCS_PAIRS
from hf_noise.noise import rates
from hf_noise.reports.checks import check_records
from hf_noise.reports.paper import paper_table
from hf_noise.reports.record import RunRecord
from hf_noise.reports.verdicts import Spread, spread
from hf_noise.studies.seq2seq.runs import TASKS

__all__ = [
    "BASELINES", "NLL", "ORACLE", "PAPER_COLUMNS", "TITLES", "Compared", "Setting", "base_of", "clean_of",
    "compared", "paper_rise", "value_of",
]  # fmt: skip

#: The metric that all of it is about.
NLL = "test_target_nll"
PLAIN = "nll"
TITLES = {
    "nll": "plain NLL", "mixture-teacher": "sequence mixture, q of the teacher",
    "mixture-learned": "sequence mixture, q learned", "mixture-unigram": "sequence mixture, q unigram",
    "audited-teacher": "trained anew on its right pairs, q of the teacher",
    "audited-learned": "trained anew on its right pairs, q learned",
    "audited-unigram": "trained anew on its right pairs, q unigram",
    "truncated": "loss truncation", "error-norm": "error norm truncation", "gce": "GCE",
    "oracle": "the right pairs alone",
}  # fmt: skip
#: Whose runs have a strength, see `base_of`.
BASELINES = ("truncated", "error-norm")
#: Trained on the pairs that are right, which only one who made the noise knows.
ORACLE = "oracle"
#: The paper's tasks.
PAPER_COLUMNS = {"sparse": "wmt_nll", "rich": "cnndm_nll"}
#: Where the pairs come from that its figures are shown beside: its own, and embedded ones, which stand for them.
_OF_PAPER = {"hf_noise/wmt14-noisy", "hf_noise/cnn-dailymail-noisy", "hf_noise/docs-pairs-noisy", DOCS_PAIRS}


@dataclass(frozen=True)
class Setting:
    """What the runs of a line have in common."""

    task: str
    ratio: float
    cure: str = PLAIN

    @property
    def error_rate(self) -> float:
        return rates.error_rate(self.ratio)

    @property
    def title(self) -> str:
        if self.ratio == 0:
            return "clean targets"
        base = base_of(self.cure)
        title = TITLES.get(base, base)
        return title if base == self.cure else f"{title}, {self.cure.removeprefix(base + '-')}"


def base_of(cure: str) -> str:
    """A cure without its strength: "truncated" of "truncated-0.3"."""
    return next((base for base in BASELINES if cure.startswith(f"{base}-")), cure)


def clean_of(task: str) -> Setting:
    """The runs without noise of a task."""
    return Setting(task, 0.0)


@dataclass(frozen=True)
class Compared:
    """The records of a study by setting and seed."""

    runs: Mapping[Setting, Mapping[int, RunRecord]]

    @property
    def tasks(self) -> list[str]:
        return [task for task in TASKS if any(one.task == task for one in self.runs)]

    def ratios(self, task: str, cure: str = PLAIN) -> list[float]:
        """Of noisy runs, from the smallest."""
        return sorted(one.ratio for one in self.runs if (one.task, one.cure) == (task, cure) and one.ratio)

    def cures(self, task: str, ratio: float) -> list[Setting]:
        """All losses at a ratio, the plain one first."""
        there = [one for one in self.runs if (one.task, one.ratio) == (task, ratio)]
        order = {cure: place for place, cure in enumerate(TITLES)}
        return sorted(there, key=lambda one: (order.get(base_of(one.cure), len(order)), one.cure))

    def best(self, task: str, ratio: float, base: str) -> tuple[Setting | None, int]:
        """That of a baseline's strengths with the lowest NLL of clean test targets, and of how many."""
        tried = [one for one in self.cures(task, ratio) if base_of(one.cure) == base]
        return min(tried, key=lambda one: mean(self.values(one)), default=None), len(tried)

    @property
    def cured(self) -> list[float]:
        """Ratios at which a task has another loss than the plain one."""
        return sorted({one.ratio for one in self.runs if one.cure != PLAIN})

    def values(self, setting: Setting, metric: str = NLL) -> list[float]:
        """A metric of each seed that has it."""
        found = [value_of(run, metric) for _, run in sorted(self.runs.get(setting, {}).items())]
        return [value for value in found if value is not None]

    def over_seeds(self, figure: Callable[..., float | None], *settings: Setting) -> Spread | None:
        """A figure of the test NLLs of some settings, by seed; None where no seed has it of all."""
        runs = [self.runs.get(setting, {}) for setting in settings]
        seeds = sorted(set.intersection(*map(set, runs)))
        found = [figure(*(value_of(one[seed], NLL) for one in runs)) for seed in seeds]
        found = [value for value in found if value is not None]
        return spread(found) if found else None

    def rise(self, setting: Setting) -> Spread | None:
        """Over the clean run of the same seed, in nats per token."""
        return self.over_seeds(lambda one, clean: one - clean, setting, clean_of(setting.task))

    def relative_rise(self, setting: Setting) -> Spread | None:
        """The same in percent of the clean run's."""
        return self.over_seeds(_percent, setting, clean_of(setting.task))

    def sparse_less_rich(self, ratio: float, *, is_relative: bool) -> Spread | None:
        """By how much the rise with the sparse source is the larger one, by seed."""

        def more(sparse: float, sparse_clean: float, rich: float, rich_clean: float) -> float:
            rise = _percent if is_relative else lambda one, clean: one - clean
            return rise(sparse, sparse_clean) - rise(rich, rich_clean)

        settings = [one for task in TASKS for one in (Setting(task, ratio), clean_of(task))]
        return self.over_seeds(more, *settings)

    def gap_closed(self, setting: Setting) -> Spread | None:
        """Share of what the plain loss loses to the noise that a cure wins back, by seed; above 1 it beats clean runs.

        None for the plain loss, and where a seed loses nothing: of no gap there is no share.
        """
        plain = Setting(setting.task, setting.ratio)
        if setting == plain or setting.ratio == 0:
            return None
        lost = self.over_seeds(lambda _, plain, clean: plain - clean, setting, plain, clean_of(setting.task))
        if lost is None or min(lost.values) <= 0:
            return None
        return self.over_seeds(
            lambda one, plain, clean: (plain - one) / (plain - clean), setting, plain, clean_of(setting.task)
        )

    def of_oracle(self, setting: Setting) -> Spread | None:
        """Share of what the right pairs alone win back that a cure does, by seed; above 1 it beats who knows the mask.

        None for them and for the plain loss, and where they win nothing in a seed.
        """
        plain, right = replace(setting, cure=PLAIN), replace(setting, cure=ORACLE)
        won = self.over_seeds(lambda _, one, best: one - best, setting, plain, right)
        if setting in (plain, right) or won is None or min(won.values) <= 0:
            return None
        return self.over_seeds(lambda ours, one, best: (one - ours) / (one - best), setting, plain, right)

    def better_than(self, ours: Setting, theirs: Setting) -> Spread | None:
        """By how many nats per token a setting's test NLL is below another's, by seed."""
        return self.over_seeds(lambda one, other: other - one, ours, theirs)

    def published(self, task: str) -> dict[float, float]:
        """`paper_rise` where a task's pairs are the paper's or stand for them, embedded; of others it says nothing."""
        sources = {run.data.get("source") for one, found in self.runs.items() if one.task == task
                   for run in found.values()}  # fmt: skip
        return paper_rise(task) if sources and sources <= _OF_PAPER else {}

    @property
    def is_controlled(self) -> bool:
        """Whether both tasks have the same targets, in the same tokens."""
        told = {tuple(run.data.get(name) for name in ("targets", "tokenizer"))
                for runs in self.runs.values() for run in runs.values()}  # fmt: skip
        return len(self.tasks) == 2 and len(told) == 1 and None not in next(iter(told))


def compared(records: Sequence[RunRecord]) -> Compared:
    """Sort records by setting and seed.

    Raises:
        ValueError, TypeError: these are no records of runs of this study, or of two, or two of one setting and seed.
    """
    check_records(
        records, numbers=("noise.ratio", f"metrics.{NLL}.value", "budget.steps"), shares=("noise.error_rate",),
        texts={"data.task": TASKS, "loss.cure": None},
    )  # fmt: skip
    runs: dict[Setting, dict[int, RunRecord]] = defaultdict(dict)
    for record in records:
        setting = Setting(record.data["task"], record.noise["ratio"], record.loss["cure"])
        if (other := runs[setting].setdefault(record.seed, record)) is not record:
            raise ValueError(
                f"the records {other.name!r} and {record.name!r} are both of {setting.task}, r = {setting.ratio:g}, "
                f"{setting.cure}, seed {record.seed}; show one study at a time"
            )
        first = next(one for one in records if one.data["task"] == setting.task)
        if fault := _differs(first, record):
            raise ValueError(f"the records {first.name!r} and {record.name!r} are of two studies: {fault}")
    return Compared(dict(runs))


def _differs(one: RunRecord, other: RunRecord) -> str | None:
    """In which of the things that all runs of a task share two records differ."""
    alike = [("model", "name"), ("model", "parameters"), ("data", "source"), ("data", "targets"), ("budget", "steps"),
             ("data", "teacher")]  # fmt: skip
    for place, name in alike:
        a, b = (getattr(run, place).get(name) for run in (one, other))
        if a != b:
            return f"{place}.{name} is {a!r:.80} and {b!r:.80}"
    return None


def value_of(record: RunRecord, metric: str) -> float | None:
    return record.metrics.get(metric, {}).get("value")


def paper_rise(task: str) -> dict[float, float]:
    """Relative rise in percent by ratio, of the paper's sparse and rich task (table 10 and figure 2)."""
    column = PAPER_COLUMNS[task]
    table: Mapping[Any, Mapping[str, float]] = paper_table("A.table10")
    return {ratio: _percent(row[column], table[0.0][column]) for ratio, row in table.items()}


def _percent(value: float, base: float) -> float:
    return 100 * (value / base - 1)
