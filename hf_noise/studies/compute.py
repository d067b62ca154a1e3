"""Runs without noise that get more compute than the study states for them, so that noise is not compared with less."""

from __future__ import annotations

from hf_noise.reports.record import RunRecord

__all__ = ["LABEL", "has_more_compute"]

LABEL = "no noise, compute of the noisiest"


def has_more_compute(record: RunRecord) -> bool:
    """Whether a run without noise got more steps or larger batches than the study's own without noise."""
    return record.noise["error_rate"] == 0 and record.budget.get("exposure", 1.0) > 1.001
