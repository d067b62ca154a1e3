"""The figures that the page of an audit shows, as plain values that a template puts in place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_noise.audit.confusions import largest_confusions
from hf_noise.audit.shown import readable

if TYPE_CHECKING:
    from hf_noise.audit.label_audit import LabelAudit

__all__ = [
    "answer", "by_class", "cell", "confusions", "estimators", "heat_map", "histogram", "kept_word", "percent",
    "probability",
]  # fmt: skip

_MOST_CELLS, _MOST_CONFUSIONS = 12, 10
_SHORT = 16  # characters of a name in a table of all pairs
_BINS = 25
#: An interval whose ends differ by this factor, and by this share of the rows, is told in the place of the estimate.
_APART, _APART_ROWS = 3.0, 0.05
_SCALES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def percent(share: float) -> str:
    """A share in percent, without the sign: one digit, two where it is below 1%."""
    return f"{100 * share:.{2 if share < 0.01 else 1}f}" if 0 < share < 1 else f"{100 * share:g}"


def cell(share: float) -> str:
    """The same for the narrow cells of a table."""
    return "0" if share < 0.0005 else f"{100 * share:.{1 if share < 0.0995 else 0}f}"


def probability(p: float) -> str:
    """With its sign, and with as many digits as tell it from 1, three at most."""
    if p == 1:
        return "= 1"
    return "> 0.999" if p > 0.999 else f"= {p:.{3 if p > 0.99 else 2}f}"


def answer(audit: LabelAudit) -> dict[str, Any]:
    """The rate, its interval in shares and rows, where a bar draws them in percent of its width, and what it stands on.

    `kind` is "nothing" where the interval is all of [0, 1], "range" where it is so wide that the estimate alone would
    mislead, "value" otherwise.
    """
    rate, rows = audit.error_rate, len(audit)
    is_wide = rate.high > _APART * rate.low and rate.high - rate.low > _APART_ROWS
    kind = "nothing" if (rate.low, rate.high) == (0, 1) else "range" if is_wide else "value"
    return {
        "kind": kind, "value": rate.value, "low": rate.low, "high": rate.high,
        "confidence": f"{100 * rate.confidence:g}",
        "rows": [round(rows * share) for share in (rate.value, rate.low, rate.high)],
        "bar": _bar(rate.value, rate.low, rate.high, _scale(rate.high)), "assumes": _assumption(audit),
    }  # fmt: skip


def _assumption(audit: LabelAudit) -> str:
    """What has to hold; of verified rows it stands in how their rate is known."""
    if audit.verified_by is None:
        return audit.estimate.chosen.assumption
    return audit.error_rate.how.partition("it assumes that ")[2] or audit.error_rate.how


def _scale(most: float) -> float:
    """The least end of an axis that a share fits on with some room."""
    return next((scale for scale in _SCALES if most <= 0.95 * scale), 1.0)


def _bar(value: float, low: float, high: float, scale: float) -> dict[str, Any]:
    """Where an interval is drawn, in percent of the width, and the axis's ticks."""
    at = [round(100 * share / scale, 2) for share in (low, value, high)]
    ticks = [{"at": 25 * i, "text": f"{25 * scale * i:g}"} for i in range(5)]
    return {"left": at[0], "width": round(max(at[2] - at[0], 0.4), 2), "at": at[1], "ticks": ticks}


def heat_map(audit: LabelAudit, names: list[str]) -> list[dict[str, Any]] | None:
    """T row by row, its cells with their intervals and how strongly they are coloured; None of many classes."""
    classes = len(audit.class_names)
    if classes > _MOST_CELLS:
        return None
    wrong = audit.transition[~np.eye(classes, dtype=bool)].max()
    return [
        {"name": name, "short": readable(name, _SHORT), "cells": [
            {"is_right": i == j, "given": names[j], "value": audit.transition[i, j],
             "low": audit.transition_low[i, j], "high": audit.transition_high[i, j],
             "shade": round(0.45 * float(audit.transition[i, j] / (1 if i == j else max(wrong, 0.01))), 3)}
            for j in range(classes)
        ]}
        for i, name in enumerate(names)
    ]  # fmt: skip


def confusions(audit: LabelAudit) -> list[dict[str, Any]]:
    """The confusions that make most wrong labels, the most frequent first."""
    largest = largest_confusions(audit.transition, audit.prior, _MOST_CONFUSIONS)
    scale = _scale(max((float(audit.transition_high[one.true, one.given]) for one in largest), default=1))
    found = []
    for i, j, share in largest:
        value, low, high = (float(of[i, j]) for of in (audit.transition, audit.transition_low, audit.transition_high))
        found.append({
            "true": i, "given": j, "value": value, "low": low, "high": high, "rows": round(len(audit) * share),
            "bar": _bar(value, low, high, scale),
        })  # fmt: skip
    return found


def histogram(p_wrong: np.ndarray, listed: np.ndarray) -> dict[str, Any]:
    """Bars of p_wrong, heights by log(1 + rows), in percent of width and height; what is listed is a part of its own.

    The list is the rows of the largest p_wrong, so that a line divides it from the others.
    """
    edges = np.linspace(0, 1, _BINS + 1)
    counts, kept = np.histogram(p_wrong, edges)[0], np.histogram(p_wrong[listed], edges)[0]
    top = math.log1p(max(int(counts.max()), 1)) * 1.04
    threshold = float(p_wrong[listed].min()) if listed.any() else None

    def height(rows: int) -> float:
        return round(100 * math.log1p(rows) / top, 2)

    bars, width = [], 100 / _BINS
    for i, (count, inside) in enumerate(zip(counts.tolist(), kept.tolist())):
        left, right = width * i, width * (i + 1)
        cut = right if not inside else left if inside == count else min(max(100 * threshold, left), right)
        parts = [(left, cut, False), (cut, right, True)]
        bars += [
            {"x": round(start, 2), "width": round(end - start - 0.35 * (end == right), 2), "height": height(count),
             "is_listed": is_listed, "rows": count, "of": f"{edges[i]:.2f} to {edges[i + 1]:.2f}"}
            for start, end, is_listed in parts if count and end - start > 0.4
        ]  # fmt: skip
    ticks = [{"y": round(100 - height(10**power), 2), "text": f"{10**power:,}"}
             for power in range(8) if 10**power <= max(int(counts.max()), 1)]  # fmt: skip
    quarters = np.histogram(p_wrong, [0, 0.25, 0.5, 0.75, 1])[0].tolist()
    return {"bars": bars, "ticks": ticks, "threshold": threshold, "quarters": quarters}


def by_class(audit: LabelAudit, listed: np.ndarray) -> list[dict[str, Any]]:
    """Of the rows that are labelled as each class: how many, the share expected wrong, how many are listed.

    And how many of all rows are truly of it.
    """
    classes = len(audit.class_names)
    rows = np.bincount(audit.labels, minlength=classes)
    wrong = np.bincount(audit.labels, audit.p_wrong, minlength=classes) / np.maximum(rows, 1)
    kept = np.bincount(audit.labels[listed], minlength=classes)
    scale = _scale(float(wrong.max()))
    return [
        {"rows": int(rows[i]), "wrong": float(wrong[i]), "listed": int(kept[i]),
         "truly": round(len(audit) * float(audit.prior[i])), "width": round(100 * min(float(wrong[i]) / scale, 1), 1)}
        for i in range(classes)
    ]  # fmt: skip


def estimators(audit: LabelAudit) -> list[dict[str, Any]]:
    """What each estimator reads, that of the verified rows first, then the one that speaks without them."""
    first = audit.estimate
    read = [(of.method, of.error_rate, *of.range, of.assumption) for of in (first.chosen, *first.others)]
    if audit.verified_by is not None:
        rate = audit.error_rate
        read.insert(0, ("verified rows", rate.value, rate.low, rate.high, _assumption(audit)))
    scale = _scale(max(high for *_, high, _ in read))
    return [
        {"method": method, "value": value, "low": min(low, value), "high": max(high, value), "assumes": assumes,
         "is_chosen": place == 0, "bar": _bar(value, min(low, value), max(high, value), scale)}
        for place, (method, value, low, high, assumes) in enumerate(read)
    ]  # fmt: skip


def kept_word(audit: LabelAudit, listed: np.ndarray, clean: np.ndarray) -> dict[str, Any]:
    """How the audit does against labels that are known to be true."""
    is_wrong = clean != audit.labels
    place = np.minimum((audit.p_wrong * 5).astype(np.int64), 4)
    rows = np.bincount(place, minlength=5)
    told, true = (np.bincount(place, of, minlength=5) / np.maximum(rows, 1) for of in (audit.p_wrong, is_wrong))
    rate = float(is_wrong.mean())
    return {
        "rate": rate, "rows": int(is_wrong.sum()), "is_inside": audit.error_rate.low <= rate <= audit.error_rate.high,
        "listed": int(listed.sum()), "hits": int(is_wrong[listed].sum()),
        "bins": [
            {"of": f"{i / 5:.1f} to {(i + 1) / 5:.1f}", "rows": int(rows[i]), "told": float(told[i]),
             "true": float(true[i])}
            for i in range(5) if rows[i]
        ],
    }  # fmt: skip
