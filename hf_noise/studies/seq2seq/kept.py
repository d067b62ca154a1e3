"""The pairs that a run is trained on where these are not all: the right ones, or those that an audit calls right."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from hf_noise.studies.engine import Job
from hf_noise.studies.seq2seq.runs import Run
from hf_noise.trainers.sequence_audit import doubt_of

__all__ = ["AUDIT", "check_audits", "kept_pairs", "told_of"]

logger = logging.getLogger(__name__)

#: What a run of a mixture leaves in its folder, see `hf_noise.trainers.sequence_audit.audit_sequences`.
AUDIT = "audit.parquet"


def kept_pairs(job: Job, ids: np.ndarray, is_noisy: np.ndarray) -> np.ndarray | None:
    """Which of the pairs a run is trained on, bool [N] as their ids and mask are; None for all of them.

    All are kept of an audit that tells no pairs apart. Raises ValueError: it is of other pairs, or calls none right.
    """
    run = job.run
    if run.loss == "oracle":
        return ~is_noisy
    if run.loss != "audited" or job.is_trial:
        return None
    file = job.folder.parent / run.audit / AUDIT
    audit = pq.read_table(file, columns=["sample_id", "p_clean"])
    if not np.array_equal(audit["sample_id"].to_numpy(), ids):
        raise ValueError(f"{file} is of other pairs than those of {run.name}; remove the folder of that run")
    if (doubt := doubt_of(file)) is not None:
        logger.warning("%s is trained on all pairs: %s", run.name, doubt)
        return np.ones(len(ids), dtype=bool)
    kept = audit["p_clean"].to_numpy() >= 0.5
    if not kept.any():
        raise ValueError(f"{file} calls none of {len(kept):,} pairs right, so that there is nothing to train on")
    return kept


def check_audits(settings: Any, runs: Sequence[Run]) -> None:
    """Raise ValueError: a mixture that is finished has left no audit for a run that is trained by it."""
    for run in runs:
        folder = Path(settings.output) / run.audit
        if run.loss == "audited" and (folder / "record.json").exists() and not (folder / AUDIT).is_file():
            raise ValueError(f"{folder} is finished and has no {AUDIT}, which says what pairs {run.name} is trained "
                             "on; remove that folder, so that it is made again")  # fmt: skip


def told_of(run: Run, kept: np.ndarray) -> str:
    """Which pairs a run was trained on, in words."""
    if run.loss == "audited" and kept.all():
        return f"all pairs, as the audit of {run.audit} finds none that are another's; the counted rate is theirs"
    whose = "that are right" if run.loss == "oracle" else f"that the audit of {run.audit} calls right"
    return f"the pairs {whose}, {100 * kept.mean():.3g}% of all, which the counted rate is of"
