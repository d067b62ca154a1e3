"""How right an audit is, where the truth is known; and what a record says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_noise.audit import LabelAudit
from hf_noise.studies.audit.judge import Judge
from hf_noise.studies.audit.training import Trained

__all__ = ["against_truth", "metrics_of"]


def against_truth(audit: LabelAudit, listed: np.ndarray, clean: np.ndarray) -> dict[str, dict[str, Any]]:
    """Rate, ranking, list and T beside true labels int64 [N], -1 for a class that no given label has.

    Ranking and list are left out where all labels are right, or all wrong.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    is_wrong, n = clean != audit.labels, len(audit)
    rate = float(is_wrong.mean())
    found = {"true_error_rate": {"value": rate, "n": n, "is_covered": audit.error_rate.low <= rate
                                 <= audit.error_rate.high}}  # fmt: skip
    if 0 < rate < 1:
        found["auroc"] = {"value": float(roc_auc_score(is_wrong, audit.p_wrong)), "n": n}
        found["average_precision"] = {"value": float(average_precision_score(is_wrong, audit.p_wrong)), "n": n}
        hits = int((listed & is_wrong).sum())
        if listed.any():
            found["list_precision"] = {"value": hits / int(listed.sum()), "n": int(listed.sum())}
        found["list_recall"] = {"value": hits / int(is_wrong.sum()), "n": int(is_wrong.sum())}
        found["list_f1"] = {"value": 2 * hits / int(listed.sum() + is_wrong.sum()), "n": n}
    known = clean >= 0
    classes = len(audit.class_names)
    counts = np.bincount(clean[known] * classes + audit.labels[known], minlength=classes**2).reshape(classes, classes)
    there = counts.sum(axis=1) > 0
    if there.any():
        true = counts[there] / counts[there].sum(axis=1, keepdims=True)
        apart = np.abs(audit.transition[there] - true).sum(axis=1)
        found["transition_l1"] = {"value": float(apart.mean()), "n": int(there.sum())}
    return found


def metrics_of(
    audit: LabelAudit, listed: np.ndarray, clean: np.ndarray | None, trained: Sequence[Trained], judge: Judge | None
) -> dict[str, dict[str, Any]]:
    """All figures of an audit, each with the number of rows behind it."""
    rate = audit.error_rate
    found: dict[str, dict[str, Any]] = {
        "error_rate": {
            "value": rate.value, "n": len(audit), "low": rate.low, "high": rate.high, "confidence": rate.confidence,
            "how": rate.how, "verified": None if audit.verified_by is None else audit.verified_by.answered,
        },
        "listed": {"value": float(listed.mean()), "n": len(audit), "rows": int(listed.sum())},
    }  # fmt: skip
    if clean is not None:
        found |= against_truth(audit, listed, clean)
    kind = "test_accuracy" if judge is not None and judge.is_clean else "given_label_accuracy"
    for one in trained:
        expected = one.way.predicted
        told = {} if expected is None else {
            "predicted": {"value": expected.value, "low": expected.low, "high": expected.high, "how": expected.how}}
        found[f"{kind}_{one.way.name}"] = one.accuracy | {"trained_on": one.rows, "chosen_by": one.chosen_by} | told
    return found
