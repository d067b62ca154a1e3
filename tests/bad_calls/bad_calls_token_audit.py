"""Bad calls to what reads a rate off targets, to the laws of replacements, and to labels that carry weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, ints, number, reals, same
from bad_values import pick

from hf_noise.analysis.token_rate import rate_from_mixture, rate_from_tails
from hf_noise.trainers.token_laws import token_law
from hf_noise.trainers.token_weights import weighted_labels

N = 60


def make_tails(draw: np.random.Generator) -> dict[str, Any]:
    tail = np.where(draw.random(N) < 0.3, draw.random(N), draw.random(N) * 0.1)
    as_given = pick(draw, np.asarray, np.ndarray.tolist, torch.as_tensor)
    return {"tail": as_given(tail), "entropy": as_given(draw.random(N)), "row": as_given(np.arange(N) // 12),
            "confidence": 0.9}  # fmt: skip


def ends(function: Any) -> Any:
    def call(**given: Any) -> dict[str, Any]:
        found = function(**given)
        return {"value": found.value, "low": found.low, "high": found.high, "n": found.n,
                "confidence": found.confidence}  # fmt: skip

    return call


def check_ends(function: Any, arrays: dict[str, np.ndarray], confidence: float, found: dict[str, Any]) -> None:
    """The same as of plain arrays, and in order."""
    confirm(0 < confidence < 1, "confidence")
    confirm(0 <= found["low"] <= found["value"] <= found["high"] <= 1, "order")
    twin = ends(function)(**arrays, confidence=confidence)
    close(list(found.values()), list(twin.values()), 1e-9)


def check_tails(given: dict[str, Any], found: dict[str, Any]) -> None:
    tail, entropy, row = reals(given["tail"], 1), reals(given["entropy"], 1), ints(given["row"], 1)
    confirm(len(tail) == len(entropy) == len(row) >= 50, "lengths")
    confirm(((tail >= 0) & (tail <= 1)).all() and np.isfinite(entropy).all(), "values")
    arrays = {"tail": tail, "entropy": entropy, "row": row.astype(np.int64)}
    check_ends(rate_from_tails, arrays, number(given["confidence"]), found)


def make_fit(draw: np.random.Generator) -> dict[str, Any]:
    noise = np.full(N, -3.0)
    clean = -draw.exponential(2, (N, 3))
    as_given = pick(draw, np.asarray, np.ndarray.tolist, torch.as_tensor)
    return {"log_clean": as_given(clean), "log_noise": as_given(noise), "row": as_given(np.arange(N) // 12),
            "confidence": 0.9}  # fmt: skip


def check_fit(given: dict[str, Any], found: dict[str, Any]) -> None:
    clean, noise, row = reals(given["log_clean"], 2), reals(given["log_noise"], 1), ints(given["row"], 1)
    confirm(clean.size > 0 and len(clean) == len(noise) == len(row), "lengths")
    confirm(not np.isnan(clean).any() and not np.isnan(noise).any(), "NaN")
    confirm(np.isfinite(np.maximum(clean.max(1), noise)).all(), "impossible")
    confirm(clean.max() < np.inf and noise.max() < np.inf, "infinite")
    arrays = {"log_clean": clean, "log_noise": noise, "row": row.astype(np.int64)}
    check_ends(rate_from_mixture, arrays, number(given["confidence"]), found)


def make_law(draw: np.random.Generator) -> dict[str, Any]:
    p = draw.dirichlet(np.ones(5))
    return {"kind": pick(draw, p, p.tolist(), torch.from_numpy(p), "uniform"), "vocab_size": 5}


def probabilities(kind: Any, vocab_size: int) -> np.ndarray:
    return token_law(kind, vocab_size).probabilities


def check_law(given: dict[str, Any], found: np.ndarray) -> None:
    size = int(ints(given["vocab_size"], 0))
    if isinstance(given["kind"], str):
        confirm(given["kind"] == "uniform" and 2 <= size <= 1 << 31, "word")
        close(found, np.full(size, 1 / size), 1e-12)
        return
    p = reals(given["kind"], 1)
    confirm(len(p) == size >= 2 and (p >= 0).all() and abs(p.sum() - 1) <= 1.001e-3, "probabilities")
    close(found, p / p.sum(), 1e-9)


def make_labels(draw: np.random.Generator) -> dict[str, Any]:
    labels = draw.integers(0, 99, (2, 4))
    labels[0, 0] = -100
    as_given = pick(draw, np.asarray, np.ndarray.tolist, torch.as_tensor)
    return {"labels": as_given(labels), "weights": as_given(draw.random((2, 4)))}


def check_labels(given: dict[str, Any], found: np.ndarray) -> None:
    labels, weights = ints(given["labels"]).astype(np.int64), reals(given["weights"])
    confirm(labels.shape == weights.shape and ((weights >= 0) & (weights <= 1)).all(), "weights")
    confirm((((labels >= 0) & (labels <= 1 << 31)) | (labels == -100)).all(), "labels")
    steps = np.round(weights * (1 << 16)).astype(np.int64)
    same(found, np.where(labels < 0, -100, ((steps + 1) << 32) + labels))


WORDS = {"log_clean": ("log_clean", "[n, K]"), "entropy": ("entropy",), "row": ("row",), "confidence": ("confidence",)}
TARGETS = [
    Target("token_audit.rate_from_tails", ends(rate_from_tails), make_tails, check_tails, WORDS, weight=0.4),
    Target("token_audit.rate_from_mixture", ends(rate_from_mixture), make_fit, check_fit, WORDS, weight=0.3),
    Target("token_audit.token_law", probabilities, make_law, check_law, {"vocab_size": ("vocab_size", "kind")},
           weight=0.4),
    Target("token_audit.weighted_labels", weighted_labels, make_labels, check_labels, weight=0.4),
]  # fmt: skip
