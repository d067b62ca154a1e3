"""Bad calls to the metrics of classifiers: shares with intervals, and marginals."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, ints, number, reals, same, whole
from bad_values import pick

from hf_noise import metrics


def converted(draw: np.random.Generator, values: np.ndarray) -> Any:
    return pick(draw, np.asarray, np.ndarray.tolist, torch.as_tensor)(values)

# ---- predicted classes


def make_pairs(draw: np.random.Generator, *more: str) -> dict[str, Any]:
    pairs = draw.integers(0, 3, (2, 6))
    settings = {"num_classes": pick(draw, 3, 10), "confidence": pick(draw, 0.95, 0.5)}
    return {"predictions": converted(draw, pairs[0]), "references": converted(draw, pairs[1])} | {
        name: settings[name] for name in more
    }


def classes_of(values: Any, classes: Any) -> list[int]:
    classes = math.inf if classes is None else whole(classes, 2, 2**20)
    found = ints(values, 1).tolist()
    confirm(found and all(0 <= value < min(classes, 2**63 - 1) for value in found), "classes")
    return found


def pairs_of(given: dict[str, Any], labels: str = "references") -> list[tuple[int, int]]:
    classes = given.get("num_classes")
    one, other = classes_of(given["predictions"], classes), classes_of(given[labels], classes)
    confirm(len(one) == len(other), "lengths")
    return list(zip(one, other))


def wilson(k: float, n: float, confidence: Any) -> tuple[float, float]:
    """By bisection: the shares p for which |k - n p| is z standard deviations."""
    c = number(confidence)
    confirm(0 < c < 1, "confidence")
    if n == 0:
        return math.nan, math.nan
    low, high = 0.0, 1.0
    z = NormalDist().inv_cdf((1 + c) / 2)

    def root(low: float, high: float, rising: bool) -> float:
        for _ in range(80):
            p = (low + high) / 2
            inside = (k - n * p) ** 2 <= z * z * n * p * (1 - p)
            low, high = (p, high) if inside != rising else (low, p)
        return (low + high) / 2

    return (0.0 if k == 0 else root(low, k / n, True)), (1.0 if k == n else root(k / n, high, False))


def check_share(name: str, hits: list[bool], given: dict[str, Any], result: Any) -> None:
    low, high = wilson(sum(hits), len(hits), given["confidence"])
    same(set(result) == {name, "low", "high", "n"}, True, "keys")
    close([result[name], result["low"], result["high"]], [sum(hits) / len(hits), low, high], 1e-6)
    same(result["n"], len(hits))


def check_by_class(name: str, pairs: list[tuple[int, int]], given: dict[str, Any], result: Any) -> None:
    for c in range(whole(given["num_classes"])):
        hits = [p == r for p, r in pairs if r == c]
        low, high = wilson(sum(hits), len(hits), given["confidence"])
        share = sum(hits) / len(hits) if hits else math.nan
        if c < 50 or hits:
            close([result[name][c], result["low"][c], result["high"][c]], [share, low, high], 1e-6)
            same(result["n"][c], len(hits))


def check_per_class(given: dict[str, Any], result: Any) -> None:
    pairs = pairs_of(given)
    check_by_class("accuracy", pairs, given, result)
    same(result["missing"], given["num_classes"] - len({r for _, r in pairs}))


def check_consistency(given: dict[str, Any], result: Any) -> None:
    pairs = pairs_of(given, "labels")
    overall = {name: value for name, value in result.items() if name != "per_class"}
    check_share("label_consistency", [p == r for p, r in pairs], given, overall)
    check_by_class("label_consistency", pairs, given, result["per_class"])


def check_confusion(given: dict[str, Any], result: Any) -> None:
    pairs, classes = pairs_of(given), given["num_classes"]
    confirm(result.shape == (classes, classes) and result.sum() == len(pairs), "shape")
    confirm(all(result[r, p] == pairs.count((p, r)) for p, r in pairs), "counts")


def make_interval(draw: np.random.Generator) -> dict[str, Any]:
    shape = pick(draw, (), (3,), (2, 1))
    n = draw.integers(0, 9, shape)
    return {"successes": np.minimum(draw.integers(0, 9, shape), n), "n": n, "confidence": 0.95}


def check_interval(given: dict[str, Any], result: Any) -> None:
    k, n = reals(given["successes"]), reals(given["n"])
    k, n = np.broadcast_arrays(k, n)
    expected = []
    for a, b in zip(k.reshape(-1), n.reshape(-1)):
        confirm(0 <= a <= b < math.inf and a == int(a) and b == int(b), "counts")
        expected.append(wilson(a, b, given["confidence"]))
    number(given["confidence"])
    low, high = np.array(expected).reshape(-1, 2).T
    if not (n > 1e6).any():
        close(result[0], low.reshape(k.shape), 1e-6)
        close(result[1], high.reshape(k.shape), 1e-6)


# ---- marginals


def make_marginal(draw: np.random.Generator) -> dict[str, Any]:
    given = make_pairs(draw, "num_classes")
    if draw.random() < 0.5:
        classes = given["num_classes"]
        return {**given, "references": None, "true": converted(draw, np.full(classes, 1 / classes))}
    return {**given, "true": None}


def share_of(values: Any, classes: int) -> np.ndarray:
    found = classes_of(values, classes)
    return np.array([found.count(c) / len(found) for c in range(min(classes, 5000))])


def true_of(true: Any, tolerance: float = 1e-5) -> np.ndarray:
    p = reals(true, 1)
    confirm(p.size >= 2 and (p >= 0).all() and abs(p.sum() - 1) <= tolerance, "no distribution")
    return p / p.sum()


def marginals(given: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, int]:
    classes = whole(given["num_classes"], 2)
    confirm((given["references"] is None) != (given["true"] is None), "two truths")
    predicted = share_of(given["predictions"], classes)
    if given["true"] is None:
        pairs_of(given)
        return predicted, share_of(given["references"], classes), len(ints(given["predictions"]))
    true = true_of(given["true"])
    confirm(len(true) == classes, "classes")
    return predicted, true, len(ints(given["predictions"]))


def kl_of(p: np.ndarray, q: np.ndarray) -> float:
    total = sum(math.inf if b == 0 else a * math.log(a / b) for a, b in zip(p, q) if a > 0)
    return max(0.0, total)


def tv_of(p: np.ndarray, q: np.ndarray) -> float:
    return float(np.abs(p - q).sum() / 2)


def sampling(p: np.ndarray, n: int) -> tuple[float, float]:
    return ((p > 0).sum() - 1) / (2 * n), float(np.sqrt(p * (1 - p) / (2 * np.pi * n)).sum())


def check_shift(given: dict[str, Any], result: Any) -> None:
    p, q, n = marginals(given)
    kl, tv = sampling(q, n)
    found = [result[name] for name in ("marginal_kl", "sampling_kl", "marginal_tv", "sampling_tv", "n")]
    close(found, [kl_of(p, q), kl, tv_of(p, q), tv, n])


def check_sampling(which: int) -> Any:
    return lambda given, result: close(result, sampling(true_of(given["true"]), whole(given["n"], 1))[which], 1e-9)


def evaluated(metric: Any) -> Any:
    return lambda **given: metric().compute(**given)


def listed(make: Any) -> Any:
    """As evaluate is mostly called: with lists."""
    return lambda draw: {
        name: value.tolist() if hasattr(value, "tolist") else value for name, value in make(draw).items()
    }


def as_read(given: dict[str, Any]) -> dict[str, Any]:
    """evaluate takes whole floats for what they are, as its own metrics do, and True for 1."""
    given = {n: v.tolist() if isinstance(v, np.ndarray) and v.dtype == object else v for n, v in given.items()}
    wholes = {name: reals(given[name], 1).tolist() for name in ("predictions", "references")}
    return given | {name: [int(x) if x == int(x) else x for x in values] for name, values in wholes.items()}


def check_evaluated_shift(given: dict[str, Any], result: Any) -> None:
    p, q, n = marginals(as_read(given) | {"true": None})
    close([result["marginal_kl"], result["sampling_kl"], result["n"]], [kl_of(p, q), sampling(q, n)[0], n])


def make_all(*names: str) -> Any:
    return lambda draw: make_pairs(draw, *names)


def renamed(given: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if name == old else name: value for name, value in given.items()}


def check_accuracy(given: dict[str, Any], result: Any) -> None:
    check_share("accuracy", [p == r for p, r in pairs_of(given)], given, result)


def check_successor(given: dict[str, Any], result: Any) -> None:
    hits = [p == (r + 1) % given["num_classes"] for p, r in pairs_of(given)]
    check_share("successor_rate", hits, given, result)


def make_predicted(draw: np.random.Generator) -> dict[str, Any]:
    return {name: value for name, value in make_pairs(draw, "num_classes").items() if name != "references"}


def make_true(draw: np.random.Generator) -> dict[str, Any]:
    return {"true": converted(draw, np.full(4, 0.25)), "n": 10}


TAKEN = ("predictions or references", "predictions", "references", "logits")
WORDS = {
    "predictions": TAKEN, "references": (*TAKEN, "true marginal"), "labels": TAKEN,
    "true": ("true marginal", "classes"),
    "n": ("successes",), "logits": ("references",), "clean_posterior": ("clean posterior",),
}  # fmt: skip
BOTH = ("num_classes", "confidence")

TARGETS = [
    Target("metrics.accuracy", metrics.accuracy, lambda draw: make_pairs(draw,
           "confidence") | {"num_classes": pick(draw, None, 3)},
           check_accuracy, WORDS, weight=2),
    Target("metrics.per_class_accuracy", metrics.per_class_accuracy, make_all(*BOTH), check_per_class, WORDS),
    Target("metrics.successor_rate", metrics.successor_rate, make_all(*BOTH), check_successor, WORDS),
    Target("metrics.confusion", metrics.confusion, make_all("num_classes"), check_confusion, WORDS),
    Target("metrics.label_consistency", metrics.label_consistency,
           lambda draw: renamed(make_pairs(draw, *BOTH), "references", "labels"), check_consistency, WORDS),
    Target("metrics.wilson_interval", metrics.wilson_interval, make_interval, check_interval, WORDS),
    Target("metrics.predicted_marginal", metrics.predicted_marginal, make_predicted,
           lambda given, result: close(result[:5000], share_of(given["predictions"], whole(given["num_classes"], 2)))),
    Target("metrics.marginal_kl", metrics.marginal_kl, make_marginal,
           lambda given, result: close(result, kl_of(*marginals(given)[:2])), WORDS),
    Target("metrics.marginal_tv", metrics.marginal_tv, make_marginal,
           lambda given, result: close(result, tv_of(*marginals(given)[:2])), WORDS),
    Target("metrics.marginal_shift", metrics.marginal_shift, make_marginal, check_shift, WORDS),
    Target("metrics.sampling_kl", metrics.sampling_kl, make_true, check_sampling(0), WORDS),
    Target("metrics.sampling_tv", metrics.sampling_tv, make_true, check_sampling(1), WORDS),
    Target("metrics.AccuracyWithInterval", evaluated(metrics.AccuracyWithInterval), listed(make_all(*BOTH)),
           lambda given, result: check_accuracy(as_read(given), result), WORDS, weight=0.05),
    Target("metrics.PerClassAccuracy", evaluated(metrics.PerClassAccuracy), listed(make_all(*BOTH)),
           lambda given, result: check_per_class(as_read(given), result), WORDS, weight=0.05),
    Target("metrics.MarginalKL", evaluated(metrics.MarginalKL), listed(make_all("num_classes")), check_evaluated_shift,
           WORDS,
           weight=0.05),
]  # fmt: skip
