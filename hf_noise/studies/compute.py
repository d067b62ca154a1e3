"""Runs without noise that get more compute than the study states for them, so that noise is not compared with less."""

from __future__ import annotations

from collections.abc import Sequence

from hf_noise.reports.record import RunRecord

__all__ = ["LABEL", "compute_of", "has_more_compute", "with_most_compute"]

LABEL = "no noise, compute of the noisiest"


def has_more_compute(record: RunRecord) -> bool:
    """Whether a run without noise got the steps and batch of a noisy one instead of its own."""
    budget = record.budget
    return record.noise.get("error_rate") == 0 and ("compute_of" in budget or budget.get("exposure", 1.0) > 1.001)


def compute_of(record: RunRecord) -> float:
    """The ratio whose steps and batch such a run got."""
    return record.budget.get("compute_of", record.budget["exposure"] - 1)


def with_most_compute(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Of the runs without noise that got more compute, for each plan those that got the most.

    A study that was started again with a noisier run has others, too: those of less are not `LABEL`.
    """
    more = [record for record in records if has_more_compute(record)]
    most: dict[str, float] = {}
    for record in more:
        plan = record.budget["plan"]
        most[plan] = max(most.get(plan, 0.0), record.budget["exposure"])
    return [record for record in more if record.budget["exposure"] > most[record.budget["plan"]] - 0.001]
