"""Table of an evaluation of generated images: what a judge says of them, and how far they are from real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hf_noise.metrics import mixture_reference
from hf_noise.reports.checks import check_records
from hf_noise.reports.record import RunRecord, read_records
from hf_noise.reports.tables import figure, markdown_table, percent
from hf_noise.studies.diffusion.report import check_reference, clean_consistency, metric_names

__all__ = ["METRIC_KEYS", "REAL", "TASK", "evaluation_table"]

#: Nothing is trained here that could be published: records of this task have no model card.
TASK = "generation_evaluation"
#: Name of the real test images, which are measured as if they had been generated.
REAL = "real-test"
#: For what `hf_noise.metrics.metric_name` names, the key in a record: of Inception, and of any other features.
METRIC_KEYS = {
    "frechet": ("fid", "frechet_distance"), "classwise_frechet": ("cw_fid", "cw_frechet_distance"),
    "inception_score": ("inception_score", "judge_score"), "density": ("density", "density"),
    "coverage": ("coverage", "coverage"), "classwise_density": ("cw_density", "cw_density"),
    "classwise_coverage": ("cw_coverage", "cw_coverage"),
}  # fmt: skip


def show(settings: Any) -> str:
    """The table of all sets in the folder of an evaluation."""
    records = [record for record in read_records(settings.output) if isinstance(record, RunRecord)]
    return evaluation_table(records, reference=mixture_reference)


def evaluation_table(
    records: Sequence[RunRecord], reference: Callable[[float, float, int], float] | None = None
) -> str:
    """One line per set of images: consistency beside the judge's own accuracy and the reference line, distances, CAS.

    Args:
        records: of the task `TASK`, all of one evaluation; others are left out.
        reference: (consistency without noise, e, number of classes) -> that of a network that fits the labels exactly,
            for symmetric noise; consistency without noise is the mean over the sets that state e = 0.

    Raises:
        ValueError: a record lacks one of the figures.
        TypeError: these are no records, or the reference is no function.
    """
    check_reference(reference)
    check_records(records)
    records = [record for record in records if record.task == TASK]
    shares = [f"metrics.label_consistency.{key}" for key in ("value", "low", "high")]
    shares.append("metrics.judge_test_accuracy.value")
    check_records(records, numbers=["metrics.label_consistency.n"], shares=shares)
    check_records([record for record in records if "error_rate" in record.noise], shares=["noise.error_rate"])
    exact = [record for record in records if reference and record.noise.get("kind") == "symmetric"]
    check_records(exact, numbers=["data.classes"])
    a0 = clean_consistency(records)
    names = metric_names(records)
    shown = [key for pair in METRIC_KEYS.values() for key in dict.fromkeys(pair) if key in names]
    header = [
        "images", "e", "n", "judge on real test images, %", "consistency, %", "its 95% interval",
        "fits the labels exactly, %", *(names[key] for key in shown), names.get("cas", "CAS") + ", %",
    ]  # fmt: skip
    rows = []
    # The real images first, those of unknown noise last.
    for record in sorted(records, key=lambda record: (record.name != REAL, record.noise.get("error_rate", 1))):
        found, metrics = record.metrics["label_consistency"], record.metrics
        rate = record.noise.get("error_rate")
        exact = None
        if None not in (reference, a0, rate) and record.noise.get("kind") == "symmetric":
            exact = reference(a0, rate, record.data["classes"])
        rows.append([
            record.name, figure(rate), f"{found['n']:,}", percent(metrics["judge_test_accuracy"]["value"]),
            percent(found["value"]), f"{percent(found['low'])} to {percent(found['high'])}", percent(exact),
            *(figure(metrics.get(key, {}).get("value")) for key in shown),
            percent(metrics.get("cas", {}).get("value")),
        ])  # fmt: skip
    return markdown_table(header, rows)
