"""Bad calls to what reads noise off labels and probabilities, and to the lists that follow from it."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, ints, number, reals, same
from bad_values import pick

from hf_noise.audit import choose_estimate, default_list, estimators, list_at_fdr

N, C = 18, 3


def make(draw: np.random.Generator) -> dict[str, Any]:
    labels = np.arange(N) % C
    p = draw.dirichlet(np.ones(C), N) * 0.4
    p[np.arange(N), np.where(draw.random(N) < 0.3, draw.integers(0, C, N), labels)] += 0.6
    p = p.astype(pick(draw, "float64", "float32", "float16"))
    return {
        "labels": pick(draw, np.asarray, np.ndarray.tolist, torch.as_tensor)(labels),
        "probabilities": pick(draw, np.asarray, np.ndarray.tolist, torch.as_tensor)(p),
    }


def read(given: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    y, p = ints(given["labels"], 1).astype(np.int64), reals(given["probabilities"], 2)
    confirm(p.shape[1] >= 2 and len(p) == len(y) and len(y) >= 2 * p.shape[1], "shapes")
    confirm(np.isfinite(p).all() and (p >= 0).all() and (np.abs(p.sum(1) - 1) <= 2.0001e-3).all(), "no distributions")
    confirm(set(y.tolist()) == set(range(p.shape[1])), "classes")
    return y, p / p.sum(1, keepdims=True)


@functools.cache
def words(name: str) -> tuple[str, str]:
    """Method and assumption, of a valid call."""
    found = getattr(estimators, name)(**make(np.random.default_rng(0)))
    return found.method, found.assumption


def check_estimate(name: str, given: dict[str, Any], found: Any) -> None:
    """The joint is what the posterior adds up to; posteriors are distributions, and the range holds the rate."""
    y, p = read(given)
    same((found.method, found.assumption), words(name))
    joint = reals(found.joint, 2)
    close(joint.sum(), 1, 1e-9)
    confirm(joint.shape == (p.shape[1],) * 2 and joint.min() >= 0, "joint")
    rate = 1 - np.trace(joint)
    low, high = found.range
    if name in ("agreement", "em_sharpness"):
        confirm(low <= rate + 1e-9 and rate - 1e-9 <= high, "range")
    else:
        close((low, high), (rate, rate), 1e-9)
    if name == "agreement":
        confirm(high >= (p.argmax(1) != y).mean() - 1e-9, "range")
    if name == "confident_joint":
        close(joint, joint_by_hand(y, p), 1e-9)
    if name == "anchor_points":
        close(joint.sum(1)[:, None] * rows_by_hand(p, 1 - 0.3 / p.shape[1]), joint, 1e-9)
    if name in ("confident_joint", "anchor_points"):
        confirm(found.posterior is None, "posterior")
        return
    posterior = reals(found.posterior, 2)
    close(posterior.sum(1), np.ones(len(y)), 1e-9)
    close(posterior.T @ np.eye(p.shape[1])[y] / len(y), joint, 1e-9)


def joint_by_hand(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    classes = p.shape[1]
    threshold = [np.mean([row[k] for row, label in zip(p, y) if label == k]) for k in range(classes)]
    counts = np.zeros((classes, classes))
    for row, label in zip(p, y):
        reached = [k for k in range(classes) if row[k] >= threshold[k] - 1e-6]
        if reached:
            counts[max(reached, key=lambda k: row[k]), label] += 1
    for k in range(classes):
        if counts[:, k].sum() == 0:
            counts[k, k] = 1
        counts[:, k] *= (y == k).sum() / counts[:, k].sum() / len(y)
    return counts


def rows_by_hand(p: np.ndarray, quantile: float) -> np.ndarray:
    place = round(quantile * (len(p) - 1))
    return np.stack([p[np.argpartition(p[:, k], place)[place]] for k in range(p.shape[1])])


def check_choice(given: dict[str, Any], found: Any) -> None:
    if (names := given["class_names"]) is not None:
        confirm(isinstance(names, list | tuple) and all(isinstance(one, str) for one in names), "names")
        apart = {" ".join(one.split()) for one in names}
        confirm(len(apart) == len(names) == C and all(apart) and "unsure" not in map(str.casefold, apart), "names")
    y, p = read(given)
    confidence = number(given["confidence"])
    confirm(0 < confidence < 1, "confidence")
    joint, rate = reals(found["joint"], 2), found["rate"]
    close(joint.sum(), 1, 1e-9)
    close((rate, found["p_wrong"].mean()), (1 - np.trace(joint),) * 2, 1e-9)
    confirm(0 <= found["low"] <= rate <= found["high"] <= 1, "interval")
    close(found["confidence"], confidence, 0)
    close(found["prior"], joint.sum(1), 1e-9)
    close(found["prior"][:, None] * found["transition"], joint, 1e-9)
    close(found["by_label"], joint.sum(0), 1e-9)
    confirm((found["transition_low"] <= found["transition"]).all(), "low")
    confirm((found["transition"] <= found["transition_high"]).all(), "high")
    same(found["suggested_wrong"], found["suggested"][found["p_wrong"] < 0.5] != y[found["p_wrong"] < 0.5])
    confirm(not np.any(found["suggested_wrong"]), "a right row gets another label")


def choose(**given: Any) -> dict[str, Any]:
    found = choose_estimate(**given)
    y, p_wrong = np.asarray(given["labels"]), found.p_wrong
    return {
        "rate": found.error_rate.value, "low": found.error_rate.low, "high": found.error_rate.high,
        "confidence": found.error_rate.confidence, "joint": found.joint, "prior": found.prior,
        "transition": found.transition, "transition_low": found.transition_low,
        "transition_high": found.transition_high, "p_wrong": p_wrong, "suggested": found.suggested,
        "by_label": np.bincount(y) / len(y), "suggested_wrong": (found.suggested != y)[p_wrong < 0.5],
    }  # fmt: skip


def make_choice(draw: np.random.Generator) -> dict[str, Any]:
    return {**make(draw), "confidence": 0.9, "class_names": pick(draw, None, ["a", "b", "c"])}


def make_list(draw: np.random.Generator) -> dict[str, Any]:
    p = draw.random(9)
    return {"p_wrong": pick(draw, p, p.tolist(), torch.from_numpy(p)), "fdr": pick(draw, 0.1, 0.3, 1)}


def shares(value: Any) -> np.ndarray:
    p = reals(value, 1)
    confirm(((p >= 0) & (p <= 1)).all(), "shares")
    return p


def check_fdr(given: dict[str, Any], found: Any) -> None:
    p, fdr = shares(given["p_wrong"]), number(given["fdr"])
    confirm(0 <= fdr <= 1, "fdr")
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))
    longest = max((k for k in range(1, len(p) + 1) if np.mean(1 - p[order[:k]]) <= fdr + 1e-12), default=0)
    same(found, np.isin(np.arange(len(p)), order[:longest]))


def check_default(given: dict[str, Any], found: Any) -> None:
    p = shares(given["p_wrong"])
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))
    scores = [2 * p[order[:k]].sum() / (k + p.sum()) if p.sum() > 0 else 0.0 for k in range(len(p) + 1)]
    k = int(np.sum(found))
    same(found, np.isin(np.arange(len(p)), order[:k]))
    close(scores[k], max(scores), 1e-12)


WORDS = {"probabilities": ("labels",), "labels": ("label", "rows"), "confidence": ("confidence",)}
TARGETS = [
    *(
        Target(f"audit.{name}", getattr(estimators, name), make, functools.partial(check_estimate, name), WORDS,
               weight=0.3)
        for name in ("agreement", "anchor_points", "confident_joint", "em_sharpness", "volume_minimisation")
    ),
    Target("audit.choose_estimate", choose, make_choice, check_choice,
           WORDS | {"class_names": ("class_names",)}, weight=0.5),
    Target("audit.default_list", default_list, lambda draw: {"p_wrong": make_list(draw)["p_wrong"]}, check_default,
           weight=0.5),
    Target("audit.list_at_fdr", list_at_fdr, make_list, check_fdr, weight=0.5),
]  # fmt: skip
