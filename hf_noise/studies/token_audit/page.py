"""An audit of tokens as one HTML page: the rate, and the worst rows with p(wrong) behind each token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hf_noise import __version__
from hf_noise.atomic import write_atomic
from hf_noise.audit.page_parts import percent
from hf_noise.audit.shown import readable, template
from hf_noise.reports.record import RunRecord
from hf_noise.studies.token_audit.report import SCORES, Found

__all__ = ["write_page"]

_ROWS, _TOKEN, _TITLE = 20, 60, 200
_FAINT = 0.02  # of p(wrong), below which a token has no background
_SCALES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def write_page(file: Path, found: Found, record: RunRecord, rows: int = _ROWS) -> Path:
    """Write the page; of the rows those are shown in which most tokens should be wrong.

    It loads nothing, needs no JavaScript and follows the light or dark setting of the reader.
    """
    rate, expected = found.facts["error_rate"], np.nansum(found.p_wrong, axis=1)
    order = np.argsort(-expected, kind="stable")[:rows]
    page = template("tokens.html", percent=percent).render(
        title=readable(f"Tokens of {record.data['source']}", _TITLE), rate=rate, how=rate["how"].split("; "),
        bar=_bar(rate), model=readable(str(record.model["name"]), _TITLE), n=found.p_wrong[:, 1:].size,
        rows=len(found.texts), kind=record.settings["kind"], particles=found.facts["particles"],
        doubted=int((found.p_wrong > 0.5).sum()), scores=_scores(record.metrics), version=__version__,
        truth=record.metrics.get("true_error_rate"),
        items=[_item(found, int(row), float(expected[row])) for row in order],
        parts=[(name, low, high) for name, (low, high) in rate["parts"].items()],
    )  # fmt: skip
    return write_atomic(file, page)


def _item(found: Found, row: int, expected: float) -> dict[str, Any]:
    tokens = []
    for position, text in enumerate(found.texts[row]):
        p = found.p_wrong[row, position]
        is_target = bool(np.isfinite(p))
        tokens.append({
            "text": readable(text, _TOKEN).replace("\r", " "), "p": float(p) if is_target else None,
            "shade": round(float(p), 3) if is_target and p >= _FAINT else None,
            "nll": float(found.nll[row, position]) if is_target else None,
            "is_wrong": found.is_wrong is not None and bool(found.is_wrong[row, position]) and is_target,
        })  # fmt: skip
    true = None if found.is_wrong is None else int(found.is_wrong[row, 1:].sum())
    return {"row": row, "expected": expected, "true": true, "n": len(tokens) - 1, "tokens": tokens}


def _scores(metrics: dict[str, dict[str, Any]]) -> list[tuple[str, float, float]]:
    return [(words, metrics[f"auroc_{name}"]["value"], metrics[f"average_precision_{name}"]["value"])
            for name, words in SCORES.items() if f"auroc_{name}" in metrics]  # fmt: skip


def _bar(rate: dict[str, Any]) -> dict[str, Any]:
    """Where the interval is drawn, in percent of the width, and the ticks of its axis."""
    scale = next((one for one in _SCALES if rate["high"] <= 0.95 * one), 1.0)
    low, at, high = (round(100 * rate[name] / scale, 2) for name in ("low", "value", "high"))
    ticks = [{"at": 25 * i, "text": f"{25 * scale * i:g}"} for i in range(5)]
    return {"left": low, "width": round(max(high - low, 0.4), 2), "at": at, "ticks": ticks}
