"""Bad calls to what compares heads: paired tests, planes around features, and the areas in them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, ints, number, reals, same, whole
from bad_values import pick
from scipy.stats import t

from hf_noise.analysis.paired import paired_test
from hf_noise.analysis.sensitivity import correct_area, slice_directions
from hf_noise.noise import counter

STREAM = 120


def kinds(draw: np.random.Generator, values: Any) -> Any:
    return pick(draw, np.asarray, np.ndarray.tolist, torch.as_tensor)(np.asarray(values))


def check_paired(given: dict[str, Any], found: Any) -> None:
    ours, theirs, confidence = reals(given["ours"], 1), reals(given["theirs"], 1), number(given["confidence"])
    for side in (ours, theirs):
        confirm(np.isfinite(side).all() and np.abs(side).max(initial=0) <= 1e100, "values")
    confirm(ours.shape == theirs.shape and len(ours) and 0 < confidence < 1, "shapes")
    gaps, n = ours - theirs, len(ours)
    mean = sum(gaps.tolist()) / n
    wins, losses = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
    same([found.n, found.wins, found.ties, found.losses], [n, wins, n - wins - losses, losses])
    close([found.mean, found.confidence], [mean, confidence], 1e-9)
    tails = sum(math.comb(wins + losses, k) for k in range(min(wins, losses) + 1)) / 2 ** (wins + losses - 1)
    close(found.sign_p, min(1.0, tails) if wins + losses else 1.0)
    if n > 16:
        confirm(found.permutation_p is None, "exact of many")
    else:
        slack = 1e-9 * np.abs(gaps).sum()
        far = sum(abs(np.dot(signs, gaps)) >= abs(gaps.sum()) - slack for signs in itertools.product((1, -1), repeat=n))
        close(found.permutation_p, far / 2**n)
    error = float(np.std(gaps, ddof=1)) / math.sqrt(n) if n > 1 else None
    # Differences that are equal but for rounding have no interval.
    apart = 0.0 if error is None else float(np.ptp(gaps)) / max(np.abs(ours).max(), np.abs(theirs).max(), 1e-300)
    confirm(not 0.9e-12 < apart < 1.1e-12, "at the edge")
    if apart < 1e-12 or error == 0:
        same([found.low, found.high, found.t_p], [None] * 3)
        return
    half = error * t.ppf((1 + confidence) / 2, n - 1)
    close([found.low, found.high], [mean - half, mean + half])
    close(found.t_p, 2 * t.cdf(-abs(mean / error), n - 1))


def planes(ids: np.ndarray, size: int, seed: int) -> np.ndarray:
    """As `slice_directions`, one number after the other."""
    found, key = [], counter.stream_key(seed, STREAM, 0)
    for one in ids.tolist():
        row = counter.mix(((one % 2**64) ^ key) + counter.GOLDEN)
        units = [(counter.mix(row + (k + 1) * counter.GOLDEN) >> 11) / 2**53 for k in range(4 * size)]
        normal = [math.sqrt(-2 * math.log(1 - a)) * math.cos(2 * math.pi * b) for a, b in zip(units[::2], units[1::2])]
        u, v = np.array(normal[:size]), np.array(normal[size:])
        u /= math.hypot(*u)
        v -= np.dot(u, v) * u
        found.append([u, v / math.hypot(*v)])
    return np.array(found).reshape(len(ids), 2, size)


def ids_of(value: Any) -> np.ndarray:
    found = ints(value, 1)
    confirm(all(-(2**63) <= one < 2**64 for one in found), "ids")
    return found


def check_directions(given: dict[str, Any], found: Any) -> None:
    ids = ids_of(given["sample"])
    size, seed = whole(given["size"], 2, 2**24), whole(given["seed"], 0, 2**63 - 1)
    confirm(size < 1000, "not looked at")
    close(found, planes(ids, size, seed), 1e-6)


def predict(features: np.ndarray) -> np.ndarray:
    return (features[:, 0] > 0).astype(np.int64) + (features[:, 1] > 1)


def check_area(given: dict[str, Any], found: Any) -> None:
    features, labels, reach = reals(given["features"], 2), ints(given["labels"], 1), number(given["reach"])
    steps, seed = whole(given["steps"], 3, 1023), whole(given["seed"], 0, 2**63 - 1)
    n, size = features.shape
    keep = whole(given["keep"], 0, n)
    confirm(n and size >= 2 and len(labels) == n and steps % 2 and 0 < reach <= 1e100, "ranges")
    confirm(np.isfinite(features).all() and np.abs(features).max() <= 1e100, "features")
    ids = np.arange(n) if given["sample"] is None else ids_of(given["sample"])
    confirm(len(ids) == n, "ids")
    offsets, middle = np.linspace(-reach, reach, steps), steps // 2
    close(found.offsets, offsets)
    confirm(list(found.predicted.shape) == [keep, steps, steps] and len(found.area) == n, "shapes")
    for row, (t_row, (u, v)) in enumerate(zip(features, planes(ids, size, seed))):
        grid = np.array([[predict((t_row + a * u + b * v)[None])[0] for b in offsets] for a in offsets])
        # Points on a boundary may fall on either side.
        confirm(abs((grid == labels[row]).mean() - found.area[row]) < 1.5 / steps**2, "area")
        same(bool(found.is_correct[row]), bool(grid[middle, middle] == labels[row]))
        if row < keep:
            confirm((grid != found.predicted[row]).sum() <= 0, "squares")


def make_area(draw: np.random.Generator) -> dict[str, Any]:
    return {
        "features": kinds(draw, draw.normal(size=(3, 3))), "labels": kinds(draw, draw.integers(0, 3, 3)),
        "reach": pick(draw, 1.0, 0.5), "steps": 5, "sample": pick(draw, None, [4, 0, 9]), "seed": 1,
        "keep": pick(draw, 1, 3),
    }  # fmt: skip


TARGETS = [
    Target("analysis.paired_test", paired_test,
           lambda draw: {"ours": kinds(draw, draw.normal(size=5).round(1)), "confidence": 0.95,
                         "theirs": kinds(draw, draw.normal(size=5).round(1))}, check_paired,
           {"ours": ("shapes",), "theirs": ("shapes",)}),
    Target("analysis.slice_directions", slice_directions,
           lambda draw: {"sample": kinds(draw, draw.integers(0, 99, 3)), "size": pick(draw, 2, 5), "seed": 3},
           check_directions),
    Target("analysis.correct_area", lambda **given: correct_area(predict, **given), make_area, check_area,
           {"sample": ("samples",), "labels": ("features",), "keep": ("samples",)}),
]  # fmt: skip
