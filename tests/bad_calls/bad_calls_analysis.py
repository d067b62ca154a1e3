"""Bad calls to the analyses, to the small parts of trainers that compute, and to the tables of reports."""

from __future__ import annotations

import math
from typing import Any

import bad_twins as twin
import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, flag, ints, number, reals, text, whole
from bad_values import pick
from scipy.stats import beta

from hf_noise.analysis.error_rate import error_rate_from_ranks
from hf_noise.analysis.nll_floor import binary_entropy, calibration_floor, noisy_nll
from hf_noise.analysis.transition import anchor_transition, transition_error
from hf_noise.losses.learned_rate import LearnedErrorRate
from hf_noise.reports.tables import fixed, markdown_table, percent
from hf_noise.trainers.audit import posterior
from hf_noise.trainers.edm_augment import EDMAugment

T = [[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5]]


# ---- analyses


def rate(value: Any) -> float:
    e = number(value)
    confirm(0 <= e < 1, "rate")
    return e


def entropy(e: float) -> float:
    return 0.0 if e == 0 else -e * math.log(e) - (1 - e) * math.log(1 - e)


def check_noisy(given: dict[str, Any], result: Any) -> None:
    e, nll = rate(given["error_rate"]), number(given["clean_nll"])
    confirm(0 <= nll < math.inf, "nll")
    close(result, (1 - e) * nll + e * math.log(whole(given["vocab_size"], 1, 2**31)) + entropy(e), 1e-9)


def make_ranks(draw: np.random.Generator) -> dict[str, Any]:
    ranks = pick(draw, np.asarray, np.ndarray.tolist, torch.as_tensor)(
        draw.integers(0, 20, 200) * draw.integers(0, 2, 200)
    )
    return {"above": ranks, "vocab_size": 20, "confidence": 0.95, "cutoffs": pick(draw, 1, 50)}


def check_ranks(given: dict[str, Any], found: Any) -> None:
    above, v, confidence = ints(given["above"], 1), whole(given["vocab_size"], 2, 2**31), number(given["confidence"])
    whole(given["cutoffs"], 1)
    confirm(above.size and 0 <= above.min() <= above.max() < v and 0 < confidence < 1, "ranks")
    n = above.size
    places = np.linspace(v / 2, v * 0.98, given["cutoffs"]) if given["cutoffs"] < 10_000 else [v / 2]
    firsts = sorted({min(round(place), v - 1) for place in places.tolist()})
    if given["cutoffs"] >= 10_000:
        return
    shares = []
    for first in firsts:
        hits, width = sum(rank >= first for rank in above), 1 - first / v
        shares.append((hits / n / width, math.sqrt(max(hits, 1)) / n / width, hits, width))
    best = len(firsts) - 1  # the smallest of those from which on all intervals have a point in common
    while best and max(s - e for s, e, *_ in shares[best - 1 :]) <= min(s + e for s, e, *_ in shares[best - 1 :]):
        best -= 1
    share, _, hits, width = shares[best]
    tail = (1 - confidence) / 2
    low = beta.isf(1 - tail, hits, n - hits + 1) if hits else 0.0
    high = beta.isf(tail, hits + 1, n - hits) if hits < n else 1.0
    expected = [min(share, 1), min(low / width, 1), min(high / width, 1), firsts[best] / v, confidence]
    close([found.value, found.low, found.high, found.cutoff, found.confidence], expected, 1e-6)
    confirm(found.n == n, "n")


def check_error(given: dict[str, Any], found: Any) -> None:
    one, other = twin.matrix_of(given["estimated"]), twin.matrix_of(given["true"])
    confirm(one.shape == other.shape, "sizes")
    apart = np.abs(one - other)
    close(found.total_variation, apart.sum(1) / 2, 1e-9)
    close(
        [found.mean_absolute, found.largest, found.worst_row], [apart.mean(), apart.max(), apart.sum(1).max() / 2], 1e-9
    )


def make_anchors(draw: np.random.Generator) -> dict[str, Any]:
    p = draw.dirichlet(np.ones(3), 9).astype(pick(draw, "float64", "float32"))
    return {
        "noisy_posterior": pick(draw, np.asarray, np.ndarray.tolist, torch.as_tensor)(p),
        "quantile": pick(draw, 0.9, 1),
    }


def check_anchors(given: dict[str, Any], found: Any) -> None:
    p, quantile = reals(given["noisy_posterior"], 2), number(given["quantile"])
    confirm(len(p) >= 1 and p.shape[1] >= 2 and 0 < quantile <= 1, "shape")
    confirm((p >= 0).all() and (np.abs(p.sum(1) - 1) <= 1.0001e-4).all(), "no distributions")
    place = round(quantile * (len(p) - 1))
    for i in range(p.shape[1]):
        level = sorted(p[:, i])[place]
        rows = [row / row.sum() for row in p if row[i] == level]
        confirm(any(np.abs(row - found[i]).max() < 1e-9 for row in rows), f"row {i}")


# ---- parts of trainers


def make_posterior(draw: np.random.Generator) -> dict[str, Any]:
    nll = draw.exponential(3, 5).astype(pick(draw, "float32", "float64"))
    return {"nll": nll, "error_rate": pick(draw, 0, 0.3), "vocab_size": 100, "trained": pick(draw, "corrected", "nll")}


def check_posterior(given: dict[str, Any], found: Any) -> None:
    nll, e, v = reals(given["nll"]), rate(given["error_rate"]), whole(given["vocab_size"], 1, 2**31)
    with np.errstate(all="ignore"):
        ratio = e / v * np.exp(nll)
        expected = (
            np.maximum(1 - ratio, 0)
            if text(given["trained"], "corrected", "nll") == "nll"
            else 1 / (1 + ratio / (1 - e))
        )
    expected = np.ones(nll.shape) if e == 0 else np.where(np.isnan(nll), np.nan, expected)
    confirm(isinstance(found, np.ndarray) and found.shape == nll.shape, "shape")
    if (np.abs(nll[np.isfinite(nll)]) < 1e4).all():
        close(found, expected, 5e-2 if found.dtype == np.float16 else 1e-4)


def check_learned(given: dict[str, Any], found: Any) -> None:
    start = number(given["initial"])
    confirm(0 < start < 1, "start")
    value = found().item()
    confirm(0 < value < 1 and abs(value - start) < 1e-6, f"{value}")


FIELDS = {
    "probability": 0.5,
    "flip": True,
    "scale": 0.2,
    "rotation": 1.0,
    "stretch": 0.2,
    "shift": 0.125,
    "seed": 3,
    "turned": 0.5,
}


def check_augment(given: dict[str, Any], found: Any) -> None:
    shares = {name: number(given[name]) for name in ("probability", "rotation", "turned")}
    sizes = {name: number(given[name]) for name in ("scale", "stretch", "shift")}
    confirm(
        all(0 <= share <= 1 for share in shares.values()) and all(0 <= size < math.inf for size in sizes.values()),
        "range",
    )
    confirm(type(found.flip) is bool and found.flip == flag(given["flip"]), "flip")
    for name, value in (shares | sizes).items():
        confirm(type(getattr(found, name)) is float and getattr(found, name) == value, name)
    confirm(found.seed == whole(given["seed"], *twin.SEED), "seed")
    described, angle, axis = found.draw(torch.arange(200), 0)
    confirm(torch.isfinite(described).all() and (angle.abs() <= math.pi * shares["rotation"] + 1e-5).all(), "angles")
    confirm(found.flip or not described[:, :2].any(), "flips")
    if shares["turned"] == 0:
        confirm(set(axis.tolist()) <= {0.0, torch.tensor(math.pi / 2).item()}, "axes")
    if shares["probability"] == 0:
        confirm(not described[:, 1:].any(), "something was done")


def make_augmented(draw: np.random.Generator) -> dict[str, Any]:
    images = torch.from_numpy(draw.random((2, 1, 4, 4))).to(pick(draw, torch.float32, torch.float64))
    return {"images": images, "sample": torch.from_numpy(draw.integers(0, 99, 2)), "epoch": 0}


def check_augmented(given: dict[str, Any], found: Any) -> None:
    images = given["images"]
    confirm(isinstance(images, torch.Tensor) and images.is_floating_point() and images.ndim == 4, "images")
    sample = ints(given["sample"], 1)
    confirm(isinstance(given["sample"], torch.Tensor) and len(sample) == len(images), "sample")
    confirm(images.shape[2] == images.shape[3] and 0 not in images.shape[1:], "sides")
    twin.epoch_of(given["epoch"])
    moved, described = found
    confirm(
        moved.shape == images.shape and moved.dtype == images.dtype and described.shape == (len(images), 9), "shapes"
    )
    alone = [
        EDMAugment(seed=3)(images[i : i + 1], given["sample"][i : i + 1], given["epoch"]) for i in range(len(images))
    ]
    confirm(all(torch.equal(one[1][0], row) for one, row in zip(alone, described)), "depends on the batch")
    if torch.isfinite(images).all() and images.abs().max() < 1e3:
        close(moved.detach().double(), torch.cat([one[0] for one in alone] or [moved]).detach().double(), 1e-2)
        confirm(bool((moved.double().abs() <= images.double().abs().max() * 1.01).all()), "brighter")


# ---- tables


def check_fixed(given: dict[str, Any], found: Any) -> None:
    digits = whole(given["digits"], 0, 17)
    if given["value"] is None:
        confirm(found == "-", "dash")
        return
    value = number(given["value"])
    shown = float(found)
    confirm(math.isnan(value) and math.isnan(shown) or value == shown or abs(shown - value) <= 0.51 * 10.0**-digits
            + 1e-9 * abs(value), "figure")  # fmt: skip
    confirm(not math.isfinite(value) or len(found.partition(".")[2]) == digits, "digits")


def check_percent(given: dict[str, Any], found: Any) -> None:
    if given["share"] is None:
        confirm(found == "-", "dash")
        return
    share = number(given["share"])
    confirm(math.isnan(share) or 0 <= share <= 1, "share")
    close(float(found), 100 * share if not math.isnan(share) else math.nan, 0.051)


def make_table(draw: np.random.Generator) -> dict[str, Any]:
    return {"header": ["a", "bc"], "rows": pick(draw, [], [["1", "2"], ["x | y", "ä\nb"]])}


def check_table(given: dict[str, Any], found: Any) -> None:
    header, rows = list(given["header"]), [list(row) for row in given["rows"]]
    confirm(not isinstance(given["header"], str) and header and all(len(row) == len(header) for row in rows), "cells")
    for row in [header, *rows]:
        for cell in row:
            text(cell)
    lines = found.split("\n")
    confirm(len(lines) == len(rows) + 2 and len({len(line) for line in lines}) == 1, "lines")
    for line in lines:
        confirm(line.replace("\\|", "").count("|") == len(header) + 1, "columns")


WORDS = {
    "e": ("error_rate",), "above": ("ranks", "rank"), "vocab_size": ("ranks",), "initial": ("error_rate", "error rate"),
    "sample": ("sample ids",), "rows": ("row",), "header": ("row",),
    **dict.fromkeys(("estimated", "true"), ("transition matrix", "T", "estimate", "true matrix")),
}  # fmt: skip

TARGETS = [
    Target("analysis.calibration_floor", calibration_floor, lambda draw: {"error_rate": 0.3},
           lambda given, found: close(found, -math.log(1 - rate(given["error_rate"])), 1e-9), weight=0.5),
    Target("analysis.binary_entropy", binary_entropy, lambda draw: {"e": 0.3},
           lambda given, found: close(found, entropy(rate(given["e"])), 1e-9), WORDS, weight=0.5),
    Target("analysis.noisy_nll", noisy_nll, lambda draw: {"clean_nll": 3.0, "error_rate": 0.3, "vocab_size": 100},
           check_noisy),
    Target("analysis.error_rate_from_ranks", error_rate_from_ranks, make_ranks, check_ranks, WORDS, weight=2),
    Target("analysis.transition_error", transition_error, lambda draw: {"estimated": T, "true": np.eye(3)},
           check_error, WORDS),
    Target("analysis.anchor_transition", anchor_transition, make_anchors, check_anchors, weight=2),
    Target("trainers.audit.posterior", posterior, make_posterior, check_posterior),
    Target("trainers.LearnedErrorRate", LearnedErrorRate, lambda draw: {"initial": 0.1}, check_learned, WORDS,
           weight=0.5),
    Target("trainers.EDMAugment", EDMAugment, lambda draw: dict(FIELDS), check_augment, weight=2),
    Target("trainers.EDMAugment.__call__", lambda **given: EDMAugment(seed=3)(**given), make_augmented,
           check_augmented, WORDS),
    Target("reports.fixed", fixed, lambda draw: {"value": pick(draw, 0.5, None), "digits": pick(draw, 0, 3)},
           check_fixed,
           weight=0.5),
    Target("reports.percent", percent, lambda draw: {"share": pick(draw, 0.5, None)}, check_percent, weight=0.3),
    Target("reports.markdown_table", markdown_table, make_table, check_table, WORDS),
]  # fmt: skip
