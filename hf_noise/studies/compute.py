"""Runs without noise that get more compute than the study states for them, so that noise is not compared with less."""

from __future__ import annotations

from collections.abc import Sequence

from hf_noise.reports.record import RunRecord

__all__ = ["LABEL", "has_more_compute", "with_most_compute"]

LABEL = "no noise, compute of the noisiest"


def has_more_compute(record: RunRecord) -> bool:
    """Whether a run without noise got more steps or larger batches than the study's own without noise."""
    return record.noise.get("error_rate") == 0 and record.budget.get("exposure", 1.0) > 1.001


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
