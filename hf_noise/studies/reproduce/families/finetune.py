"""Tables of fine-tuned encoders with regularisers and LGM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_noise.reports.claims import Rows
from hf_noise.reports.record import RunRecord
from hf_noise.studies.reproduce.cells import Trained

_NAMES = {"l2-sp": "L2-SP", "smart": "SMART", "lnsr": "LNSR"}


def by_regulariser(records: Sequence[RunRecord], reads: Mapping[str, Any]) -> Rows:
    """Test accuracy in percent on right labels, of each regulariser without LGM and with it; the column is told."""
    rows: dict[str, dict[str, dict[int, float]]] = {}
    for record in records:
        name = _NAMES.get(record.loss.get("regulariser", "none"))
        if name and record.noise["error_rate"] == 0:
            row = rows.setdefault(f"{name}{'+lgm' * bool(record.loss.get('lgm'))}", {})
            row.setdefault(reads["column"], {})[record.seed] = 100 * record.metrics["test_accuracy"]["value"]
    return rows


FAMILY = Trained("hf_noise.studies.finetune.study", readers={"B.table4": by_regulariser})
