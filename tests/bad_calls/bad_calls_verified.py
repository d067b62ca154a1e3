"""Bad calls to the sampling of rows to verify, and to what verified rows make of an audit."""

from __future__ import annotations

from typing import Any

import numpy as np
from bad_calls import Target
from bad_readers import close, confirm, flag, ints, reals, same, whole
from bad_values import pick

from hf_noise import audit


def shares_of(values: Any) -> np.ndarray:
    found = reals(values, 1)
    confirm(len(found) and ((found >= 0) & (found <= 1)).all(), "shares")
    return found


def mask_of(values: Any) -> list[bool]:
    values = values.tolist() if hasattr(values, "tolist") else values
    confirm(isinstance(values, list | tuple | range), "a mask")
    return [flag(v) if isinstance(v, bool | np.bool_) else bool(whole(v, 0, 1)) for v in values]


def make_sample(draw: np.random.Generator) -> dict[str, Any]:
    return {
        "p_wrong": pick(draw, np.asarray, np.ndarray.tolist)(draw.random(12).round(2)),
        "n": int(draw.integers(2, 13)),
        "given": draw.integers(0, 3, 12),
        "sample_ids": pick(draw, None, draw.permutation(50)[:12]),
        "seed": int(draw.integers(0, 9)),
    }


def check_sample(given: dict[str, Any], result: Any) -> None:
    rows = len(shares_of(given["p_wrong"]))
    n = whole(given["n"], 2, rows)
    same(result.seed, whole(given["seed"], 0, 2**63 - 1))
    if given["given"] is not None:
        classes = ints(given["given"], 1)
        confirm(len(classes) == rows and all(0 <= c < 2**63 - 1 for c in classes), "given")
    if given["sample_ids"] is not None:
        ids = ints(given["sample_ids"], 1).tolist()
        confirm(len(set(ids)) == len(ids) == rows and all(-(2**63) <= i < 2**63 for i in ids), "ids")
    drawn = ints(result.rows, 1).tolist()
    confirm(len(drawn) == len(set(drawn)) == n and set(drawn) <= set(range(rows)), "rows")
    same(result.stratum, [0] * rows)
    close(result.probability, [n / rows] * rows)


def make_rows(draw: np.random.Generator) -> dict[str, Any]:
    return {
        "p_wrong": draw.random(8), "rows": draw.permutation(8)[:4], "is_wrong": draw.random(4) < 0.5,
        "probability": draw.uniform(0.1, 1, 4), "given": None,
    }  # fmt: skip


def check_rows(given: dict[str, Any], result: Any) -> None:
    p, rows, is_wrong = shares_of(given["p_wrong"]), ints(given["rows"], 1).tolist(), mask_of(given["is_wrong"])
    confirm(len(set(rows)) == len(rows) == len(is_wrong) and all(0 <= row < len(p) for row in rows), "rows")
    if rows:
        chance = shares_of(given["probability"])
        confirm(len(chance) == len(rows) and (chance >= 1e-12).all(), "probability")
    found = shares_of(result)
    confirm(len(found) == len(p), "length")
    close(found[rows], is_wrong)
    classes = np.zeros(len(p)) if given["given"] is None else ints(given["given"], 1)
    confirm(len(classes) == len(p) and (classes >= 0).all(), "given")
    for one in np.unique(classes):
        others = np.setdiff1d(np.flatnonzero(classes == one), rows)
        order = others[np.argsort(p[others])]
        confirm((np.diff(found[order]) >= -1e-12).all(), "the order of rows")


TARGETS = [
    Target("audit.draw_sample", audit.draw_sample, make_sample, check_sample, {"given": ("classes",)}),
    Target("audit.recalibrated", audit.recalibrated, make_rows, check_rows, {"given": ("classes",)}),
]
