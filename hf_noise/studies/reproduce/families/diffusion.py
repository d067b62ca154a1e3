"""Tables of diffusion models on wrong labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_noise.metrics.words import FEATURE_METRICS
from hf_noise.reports.claims import Rows
from hf_noise.reports.record import RunRecord
from hf_noise.studies.compute import has_more_compute
from hf_noise.studies.reproduce.cells import Trained

#: Columns, the keys of their metric in a record, and their unit.
_COLUMNS = {
    "fid": (FEATURE_METRICS["frechet"].keys, 1), "cw_fid": (FEATURE_METRICS["classwise_frechet"].keys, 1),
    "consistency": (("label_consistency",), 100),
}  # fmt: skip


def by_loss(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """Runs on clean labels beside both losses at the largest ratio."""
    noisiest = max((one.noise.get("ratio") or 0 for one in records), default=0)
    rows: dict[str, dict[str, dict[int, float]]] = {"clean": {}, "dsm": {}, "tdsm": {}}
    for record in records:
        ratio = record.noise.get("ratio")
        name = "clean" if ratio == 0 else record.loss["name"]
        if has_more_compute(record) or ratio not in (0, noisiest):
            continue
        for column, (keys, times) in _COLUMNS.items():
            value = next((record.metrics[key]["value"] for key in keys if key in record.metrics), None)
            if value is not None:
                rows[name].setdefault(column, {})[record.seed] = times * value
    return rows


FAMILY = Trained("hf_noise.studies.diffusion.study", readers={"C.text": by_loss})
