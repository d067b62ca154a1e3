"""Bad calls to the calibration of classifiers and of clean posteriors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_calls_metrics import WORDS, as_read, classes_of, converted, evaluated, listed, renamed
from bad_readers import close, confirm, reals, same, whole
from bad_values import pick

from hf_noise import metrics
from hf_noise.metrics.audit import reliability


def make_logits(draw: np.random.Generator) -> dict[str, Any]:
    logits = draw.normal(size=(5, 3)).astype(pick(draw, "float32", "float64", "float16"))
    return {
        "logits": converted(draw, logits),
        "references": converted(draw, draw.integers(0, 3, 5)),
        "bins": pick(draw, 1, 15),
    }


def scored(given: dict[str, Any]) -> tuple[np.ndarray, list[int], int]:
    logits = reals(given["logits"], 2)
    confirm(logits.shape[1] >= 2 and np.isfinite(logits.max(1)).all() and not np.isnan(logits).any(), "logits")
    references = classes_of(given["references"], logits.shape[1])
    confirm(len(references) == len(logits), "lengths")
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True), references, whole(given["bins"], 1)


def error_of(stated: np.ndarray, happened: list[bool], bins: int) -> float:
    inside: dict[int, list[int]] = {}
    for i, share in enumerate(stated):
        inside.setdefault(min(int(share * bins), bins - 1), []).append(i)
    gaps = (abs(np.mean(stated[rows]) - np.mean([happened[i] for i in rows])) * len(rows) for rows in inside.values())
    return float(sum(gaps) / len(stated))


def check_calibration(given: dict[str, Any], result: Any) -> None:
    p, references, bins = scored(given)
    right = [int(row.argmax()) == reference for row, reference in zip(p, references)]
    of_reference = np.array([row[reference] for row, reference in zip(p, references)])
    with np.errstate(divide="ignore"):
        nll = -np.log(of_reference).mean()
    brier = np.mean([sum((x - (i == r)) ** 2 for i, x in enumerate(row)) for row, r in zip(p, references)])
    ties = any((np.abs(row - row.max()) < 1e-7).sum() > 1 for row in p)
    if (
        not ties
        and (bins > 1000 or not (np.abs(p.max(1) * bins - np.round(p.max(1) * bins)) < 1e-6).any())
        and bins < 1e6
    ):
        close([result["ece"], result["accuracy"]], [error_of(p.max(1), right, bins), np.mean(right)], 1e-5)
    close([result["brier"], result["confidence"]], [brier, p.max(1).mean()], 1e-5)
    confirm(nll > 700 or abs(result["nll"] - nll) < 1e-5, "nll")
    same(result["n"], len(p))


def check_rows(bins: Any, rows: Any, stated: np.ndarray, happened: list[bool]) -> None:
    bins = whole(bins, 1)
    confirm(sum(row["n"] for row in rows) == len(stated), "n")
    if bins > 1e6 or (np.abs(stated * bins - np.round(stated * bins)) < 1e-4).any() and bins > 1:
        return  # on an edge
    inside: dict[int, list[int]] = {}
    for i, share in enumerate(stated):
        inside.setdefault(min(int(share * bins), bins - 1), []).append(i)
    expected = [inside[i] for i in sorted(inside)]
    confirm(len(rows) == len(expected), "bins")
    for row, at in zip(rows, expected):
        found = [np.mean(stated[at]), np.mean([happened[i] for i in at]), len(at)]
        close([row["stated"], row["observed"], row["n"]], found, 1e-3)


def check_reliability(given: dict[str, Any], rows: Any) -> None:
    p, references, bins = scored(given)
    logits = reals(given["logits"])
    check_rows(bins, rows, p.max(1), [int(row.argmax()) == reference for row, reference in zip(logits, references)])


def make_audit(draw: np.random.Generator) -> dict[str, Any]:
    mask = np.array([True, False, True, False, False])
    is_noisy = pick(draw, mask, mask.tolist(), mask.astype(np.uint8), torch.as_tensor(mask))
    return {"clean_posterior": converted(draw, draw.random(5)), "is_noisy": is_noisy, "bins": pick(draw, 1, 10)}


def mask_of(values: Any) -> list[bool]:
    confirm(not isinstance(values, np.ma.MaskedArray), "masked")
    array = np.asarray(values.detach() if isinstance(values, torch.Tensor) else values)
    confirm(array.dtype.kind in "biu" and array.ndim == 1 and set(array.tolist()) <= {0, 1}, f"mask of {array.dtype}")
    return [bool(value) for value in array]


def check_audit(given: dict[str, Any], result: Any) -> None:
    stated, noisy = reals(given["clean_posterior"], 1), mask_of(given["is_noisy"])
    confirm(len(noisy) == len(stated) > 0 and (stated >= 0).all() and (stated <= 1).all(), "posterior")
    clean = [not mark for mark in noisy]
    if isinstance(result, list):
        check_rows(given["bins"], result, stated, clean)
        return
    confirm(any(clean) and any(noisy), "one kind")
    wins = [(a > b) + (a == b) / 2 for a, x in zip(stated, clean) if x for b, y in zip(stated, clean) if not y]
    brier = np.mean([(x - share) ** 2 for x, share in zip(clean, stated)])
    close([result["auroc"], result["brier"]], [np.mean(wins), brier], 1e-6)
    if whole(given["bins"], 1) < 1e6 and not (np.abs(stated * given["bins"] % 1) < 1e-6).any():
        close(result["ece"], error_of(stated, clean, given["bins"]), 1e-6)


def check_evaluated_calibration(given: dict[str, Any], result: Any) -> None:
    references = as_read({"predictions": [0], "references": given["references"]})["references"]
    check_calibration({"logits": given["predictions"], "references": references, "bins": given["bins"]}, result)


TARGETS = [
    Target("metrics.classifier_calibration", metrics.classifier_calibration, make_logits, check_calibration, WORDS,
           weight=2),
    Target("metrics.classifier_reliability", metrics.classifier_reliability, make_logits,
           check_reliability, WORDS),
    Target("metrics.audit_metrics", metrics.audit_metrics, make_audit, check_audit, WORDS),
    Target("metrics.reliability", reliability, make_audit, check_audit, WORDS),
    Target("metrics.Calibration", evaluated(metrics.Calibration),
           listed(lambda draw: renamed(make_logits(draw), "logits", "predictions")), check_evaluated_calibration, WORDS,
           weight=0.05),
]  # fmt: skip
