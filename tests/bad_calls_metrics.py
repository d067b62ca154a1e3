"""Bad calls to the metrics of classifiers and of generated images, to their statistics and extractors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bad_calls import Target, close, confirm, ints, number, reals, same, text, whole
from torch import nn

from hf_noise import metrics
from hf_noise.metrics.audit import reliability
from hf_noise.metrics.features import FeatureStatistics

HERE = Path(__file__).parent


def pick(draw: np.random.Generator, *values: Any) -> Any:
    return values[int(draw.integers(len(values)))]


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
    from statistics import NormalDist

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


# ---- calibration


def make_logits(draw: np.random.Generator) -> dict[str, Any]:
    logits = draw.normal(size=(5, 3)).astype(pick(draw, "float32", "float64", "float16"))
    return {"logits": converted(draw, logits), "references": converted(draw, draw.integers(0, 3, 5)), "bins": pick(draw, 1, 15)}


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
    if not ties and (bins > 1000 or not (np.abs(p.max(1) * bins - np.round(p.max(1) * bins)) < 1e-6).any()) and bins < 1e6:
        close([result["ece"], result["accuracy"]], [error_of(p.max(1), right, bins), np.mean(right)], 1e-5)
    close([result["brier"], result["confidence"]], [brier, p.max(1).mean()], 1e-5)
    confirm(nll > 700 or abs(result["nll"] - nll) < 1e-5, "nll")
    same(result["n"], len(p))


def check_rows(given: dict[str, Any], rows: Any, n: int) -> None:
    confirm(sum(row["n"] for row in rows) == n and len(rows) <= whole(given["bins"], 1), "bins")
    confirm(all(0 <= row["stated"] <= 1 + 1e-9 and 0 <= row["observed"] <= 1 for row in rows), "shares")
    confirm([row["stated"] for row in rows] == sorted(row["stated"] for row in rows), "order")


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
        check_rows(given, result, len(clean))
        return
    confirm(any(clean) and any(noisy), "one kind")
    wins = [(a > b) + (a == b) / 2 for a, x in zip(stated, clean) if x for b, y in zip(stated, clean) if not y]
    brier = np.mean([(x - share) ** 2 for x, share in zip(clean, stated)])
    close([result["auroc"], result["brier"]], [np.mean(wins), brier], 1e-6)
    if whole(given["bins"], 1) < 1e6 and not (np.abs(stated * given["bins"] % 1) < 1e-6).any():
        close(result["ece"], error_of(stated, clean, given["bins"]), 1e-6)


# ---- features


def make_features(draw: np.random.Generator, n: int = 12, dim: int = 2) -> Any:
    return converted(draw, draw.normal(size=(n, dim)).astype(pick(draw, "float64", "float32")))


def features(values: Any, at_least: int = 1) -> np.ndarray:
    x = reals(values, 2)
    confirm(len(x) >= at_least and x.shape[1] >= 1 and np.isfinite(x).all() and (np.abs(x) <= 1e100).all(), "features")
    return x


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    a, b = np.atleast_2d(np.cov(x, rowvar=False)), np.atleast_2d(np.cov(y, rowvar=False))
    root = np.linalg.eigvals(a @ b)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b) - 2 * np.sqrt(np.maximum(root.real, 0)).sum())


def near_distance(found: float, x: np.ndarray, y: np.ndarray) -> None:
    size = max(np.abs(x).max(), np.abs(y).max(), 1.0)
    confirm(found >= 0 and abs(found - frechet(x, y)) <= 1e-6 * size**2, f"{found} is not {frechet(x, y)}")


def check_frechet(given: dict[str, Any], result: Any) -> None:
    x, y = features(given["features_a"], 2), features(given["features_b"], 2)
    confirm(x.shape[1] == y.shape[1], "dims")
    near_distance(result, x, y)


def make_classwise(draw: np.random.Generator, settings: dict[str, Any]) -> dict[str, Any]:
    labels = np.repeat([0, 4], 6)
    return {"real": make_features(draw), "real_labels": converted(draw, labels), "fake": make_features(draw),
            "fake_labels": converted(draw, labels[::-1].copy())} | settings  # fmt: skip


def of_classes(given: dict[str, Any], at_least: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    sides = []
    for side in ("real", "fake"):
        x, labels = features(given[side]), classes_of(given[f"{side}_labels"], None)
        confirm(len(x) == len(labels), "labels")
        sides.append({c: x[[label == c for label in labels]] for c in set(labels)})
    real, fake = sides
    confirm(set(real) == set(fake) and all(len(x) >= at_least for side in sides for x in side.values()), "classes")
    confirm(given["real"] is not None and len({x.shape[1] for side in sides for x in side.values()}) == 1, "dims")
    return {c: (real[c], fake[c]) for c in real}


def check_classwise_frechet(given: dict[str, Any], result: Any) -> None:
    parts = of_classes(given, 2)
    confirm(set(result["per_class"]) == set(parts), "classes")
    for c, (x, y) in parts.items():
        near_distance(result["per_class"][c], x, y)
    close(result["classwise_frechet"], np.mean(list(result["per_class"].values())))


def density(x: np.ndarray, y: np.ndarray, k: Any, ties: Any) -> tuple[float, float, bool]:
    """Density, coverage, and whether no point is near a rim."""
    k = whole(k, 1, len(x) - 1)
    text(ties, "count", "exclude")
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    radius = np.array([sorted(np.delete(row, i))[k - 1] for i, row in enumerate(d)])
    apart = np.linalg.norm(x[:, None] - y[None], axis=2)
    scale = 1e-9 * max(1.0, np.abs(x).max(), np.abs(y).max())
    inside = apart <= radius[:, None]
    return inside.sum() / (k * len(y)), inside.any(1).mean(), not (np.abs(apart - radius[:, None]) <= scale).any()


def check_density(given: dict[str, Any], result: Any) -> None:
    x, y = features(given["real"]), features(given["fake"])
    confirm(x.shape[1] == y.shape[1] and given["device"] == "cpu", "dims")
    confirm(given["chunk"] is None or whole(given["chunk"], 1), "chunk")
    dense, covered, clear = density(x, y, given["k"], given["ties"])
    if clear and max(np.abs(x).max(), np.abs(y).max()) < 1e70:
        close([result["density"], result["coverage"]], [dense, covered])
    same([result["k"], result["n_real"], result["n"]], [int(given["k"]), len(x), len(y)])


def check_classwise_density(given: dict[str, Any], result: Any) -> None:
    parts = of_classes(given, 1)
    confirm(given["device"] == "cpu", "device")
    for c, (x, y) in parts.items():
        dense, covered, clear = density(x, y, given["k"], given["ties"])
        if clear and max(np.abs(x).max(), np.abs(y).max()) < 1e70:
            close([result["per_class"][c]["density"], result["per_class"][c]["coverage"]], [dense, covered])


def check_score(given: dict[str, Any], result: Any) -> None:
    p = features(given["probabilities"])
    splits = whole(given["splits"], 1, len(p))
    confirm((p >= 0).all() and (np.abs(p.sum(1) - 1) <= 1.001e-3).all(), "no probabilities")
    p = p / p.sum(1, keepdims=True)
    scores = []
    for part in np.array_split(p, splits):
        marginal = part.mean(0)
        scores.append(math.exp(np.mean([kl_of(row, marginal) for row in part])))
    close([result["inception_score"], result["std"]], [np.mean(scores), np.std(scores)], 1e-6)


def check_mixture(given: dict[str, Any], result: Any) -> None:
    a, e = number(given["clean_consistency"]), number(given["error_rate"])
    confirm(0 <= a <= 1 and 0 <= e <= 1, "shares")
    close(result, (1 - e) * a + e * (1 - a) / (whole(given["num_classes"], 2, 2**20) - 1), 1e-9)


def check_statistics(given: dict[str, Any], result: FeatureStatistics) -> None:
    parts = [features(given[name]) for name in given if given[name] is not None]
    x = np.concatenate(parts) if parts else np.zeros((0, 1))
    confirm(len({part.shape[1] for part in parts}) <= 1 and result.n == len(x), "rows")
    if len(x):
        size = max(1.0, np.abs(x).max())
        close(result.mean / size, x.mean(0) / size, 1e-9)
        close(result.scatter / size**2 / len(x), (x - x.mean(0)).T @ (x - x.mean(0)) / size**2 / len(x), 1e-6)


def joined(features: Any, more: Any) -> FeatureStatistics:
    return FeatureStatistics(features).merge(FeatureStatistics().update(more))


def make_state(draw: np.random.Generator) -> dict[str, Any]:
    return {"state": FeatureStatistics(draw.normal(size=(5, 2))).state()}


def check_state(given: dict[str, Any], result: FeatureStatistics) -> None:
    state = given["state"]
    confirm(isinstance(state, dict), "no dictionary")
    n, mean, scatter = state["n"], reals(state["mean"], 1), reals(state["scatter"], 2)
    n = ints(n, 0).item()
    confirm(1 <= n <= 2**53 and mean.size and scatter.shape == (mean.size, mean.size), "shapes")
    confirm(np.isfinite(mean).all() and np.isfinite(scatter).all() and (scatter.diagonal() >= 0).all(), "numbers")
    confirm(np.allclose(scatter, scatter.T, atol=1e-5 * abs(scatter).max()), "not symmetric")
    same(result.n, n)
    close(result.mean, mean)
    close(result.scatter, scatter)


# ---- extractors


class Judge(nn.Module):
    """Three classes of 2 x 2 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return type("Output", (), {"logits": self.head(pixel_values.flatten(1))})


EXTRACTOR = metrics.judge_extractor(Judge(), name="j", mean=[0.5], std=[0.5])


def check_extracted(given: dict[str, Any], result: Any) -> None:
    images = given["images"]
    confirm(isinstance(images, torch.Tensor) and images.dtype == torch.uint8 and images.ndim == 4, "images")
    confirm(images.shape[1:] == (1, 2, 2) and len(images), "shape")
    whole(given["batch_size"], 1)
    confirm(isinstance(given["progress"], bool), "progress")
    close(result[0], (images.flatten(1).double().numpy() / 255 - 0.5) / 0.5, 1e-5)
    confirm(result[1].shape == (len(images), 3), "logits")


def check_judge(given: dict[str, Any], result: Any) -> None:
    mean, std = reals(given["mean"], 1), reals(given["std"], 1)
    confirm(mean.size and mean.shape == std.shape and np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all(), "mean")
    confirm(text(given["name"]) and given["name"] in result.name and given["device"] == "cpu", "name")


def check_name(given: dict[str, Any], result: Any) -> None:
    confirm(text(given["metric"]) in ("frechet", "density", "inception_score") and isinstance(given["extractor"], type(EXTRACTOR)), "")
    confirm("(j)" in result, "name")


def check_path(given: dict[str, Any], result: Any) -> None:
    [where] = given.values()
    confirm(where is None and result is None or where is not None and Path(where).is_file(), "path")


def make_compute(draw: np.random.Generator) -> dict[str, Any]:
    given = make_pairs(draw, "num_classes", "confidence")
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in given.items()}


def check_computed(given: dict[str, Any], result: Any) -> None:
    pairs = pairs_of({**given, **{name: _whole(given[name]) for name in ("predictions", "references")}})
    check_share("accuracy", [p == r for p, r in pairs], given, result)


def _whole(values: Any) -> list[int]:
    """evaluate takes whole floats for what they are, as its own metrics do, and True for 1."""
    return [int(value) if value == int(value) else value for value in reals(values, 1).tolist()]


PAIRS = {"predictions": ("predictions",), "references": ("references",), "true": ("true marginal", "classes")}
SIDES = {"real": ("real", "class", "one side"), "fake": ("fake", "generated", "one side"), "real_labels": ("class",), "fake_labels": ("class",),
         "k": ("k", "neighbours"), "features_a": ("one side",), "features_b": ("other",), "features": ("features",),
         "more": ("features",)}  # fmt: skip
STATE = {"state": ("n", "mean", "scatter", "statistics", "state", "missing")}
PATHS = tuple((lambda value=value: value) for value in (".", "a/b", "-a/b", "x" * 300, "a\0b", HERE, "../..", b"a", 3, HERE / "x.pth"))
EVALUATED = {name: ("predictions or references", "predictions", "references") for name in ("predictions", "references")}

TARGETS = [
    Target("metrics.accuracy", metrics.accuracy,
           lambda draw: make_pairs(draw, "confidence") | {"num_classes": pick(draw, None, 3)},
           lambda given, result: check_share("accuracy", [p == r for p, r in pairs_of(given)], given, result), PAIRS, weight=2),
    Target("metrics.per_class_accuracy", metrics.per_class_accuracy, lambda draw: make_pairs(draw, "num_classes", "confidence"),
           check_per_class, PAIRS),
    Target("metrics.successor_rate", metrics.successor_rate, lambda draw: make_pairs(draw, "num_classes", "confidence"),
           lambda given, result: check_share("successor_rate", [p == (r + 1) % given["num_classes"] for p, r in pairs_of(given)],
                                             given, result), PAIRS),
    Target("metrics.confusion", metrics.confusion, lambda draw: make_pairs(draw, "num_classes"), check_confusion, PAIRS),
    Target("metrics.label_consistency", metrics.label_consistency,
           lambda draw: {"labels" if name == "references" else name: value
                         for name, value in make_pairs(draw, "num_classes", "confidence").items()},
           check_consistency, {"labels": ("references", "labels")}),
    Target("metrics.wilson_interval", metrics.wilson_interval, make_interval, check_interval, {"n": ("successes",)}),
    Target("metrics.predicted_marginal", metrics.predicted_marginal,
           lambda draw: {name: value for name, value in make_pairs(draw, "num_classes").items() if name != "references"},
           lambda given, result: close(result[:5000], share_of(given["predictions"], whole(given["num_classes"], 2)))),
    Target("metrics.marginal_kl", metrics.marginal_kl, make_marginal,
           lambda given, result: close(result, kl_of(*marginals(given)[:2])), PAIRS),
    Target("metrics.marginal_tv", metrics.marginal_tv, make_marginal,
           lambda given, result: close(result, tv_of(*marginals(given)[:2])), PAIRS),
    Target("metrics.marginal_shift", metrics.marginal_shift, make_marginal, check_shift, PAIRS),
    Target("metrics.sampling_kl", metrics.sampling_kl, lambda draw: {"true": converted(draw, np.full(4, 0.25)), "n": 10},
           check_sampling(0), PAIRS),
    Target("metrics.sampling_tv", metrics.sampling_tv, lambda draw: {"true": converted(draw, np.full(4, 0.25)), "n": 10},
           check_sampling(1), PAIRS),
    Target("metrics.classifier_calibration", metrics.classifier_calibration, make_logits, check_calibration, weight=2),
    Target("metrics.classifier_reliability", metrics.classifier_reliability, make_logits,
           lambda given, rows: check_rows(given, rows, len(scored(given)[1]))),
    Target("metrics.audit_metrics", metrics.audit_metrics, make_audit, check_audit, {"clean_posterior": ("clean posterior",)}),
    Target("metrics.reliability", reliability, make_audit, check_audit, {"clean_posterior": ("clean posterior",)}),
    Target("metrics.frechet_distance", metrics.frechet_distance,
           lambda draw: {"features_a": make_features(draw), "features_b": make_features(draw)}, check_frechet, SIDES),
    Target("metrics.classwise_frechet", metrics.classwise_frechet, lambda draw: make_classwise(draw, {}), check_classwise_frechet, SIDES),
    Target("metrics.density_coverage", metrics.density_coverage,
           lambda draw: {"real": make_features(draw), "fake": make_features(draw, 7), "k": pick(draw, 1, 3), "device": "cpu",
                         "ties": pick(draw, "count", "exclude"), "chunk": pick(draw, None, 5)}, check_density, SIDES, weight=2),
    Target("metrics.classwise_density_coverage", metrics.classwise_density_coverage,
           lambda draw: make_classwise(draw, {"k": 2, "ties": "count", "device": "cpu"}), check_classwise_density, SIDES),
    Target("metrics.inception_score", metrics.inception_score,
           lambda draw: {"probabilities": converted(draw, draw.dirichlet(np.ones(3), 6)), "splits": pick(draw, 1, 3)}, check_score,
           {"probabilities": ("rows", "probabilities")}),
    Target("metrics.mixture_reference", metrics.mixture_reference,
           lambda draw: {"clean_consistency": 0.9, "error_rate": 0.5, "num_classes": 10}, check_mixture),
    Target("metrics.FeatureStatistics", joined,
           lambda draw: {"features": pick(draw, None, make_features(draw)), "more": make_features(draw, 3)}, check_statistics, SIDES),
    Target("metrics.FeatureStatistics.merge", lambda other: FeatureStatistics(np.eye(2)).merge(other),
           lambda draw: {"other": FeatureStatistics(np.eye(2))},
           lambda given, result: confirm(isinstance(given["other"], FeatureStatistics), "other"), weight=0.2),
    Target("metrics.FeatureStatistics.from_state", FeatureStatistics.from_state, make_state, check_state, STATE, weight=2),
    Target("metrics.FeatureStatistics.load", FeatureStatistics.load, lambda draw: {"path": __file__},
           lambda given, result: confirm(False, "no file of statistics"), {"path": ("file", "statistics")}, {"path": PATHS}, weight=0.3),
    Target("metrics.Extractor.__call__", lambda **given: EXTRACTOR(**given),
           lambda draw: {"images": torch.from_numpy(draw.integers(0, 256, (3, 1, 2, 2), dtype=np.uint8)), "batch_size": 2,
                         "progress": False}, check_extracted),
    Target("metrics.judge_extractor", lambda **given: metrics.judge_extractor(Judge(), **given),
           lambda draw: {"name": "j", "mean": [0.5], "std": [0.5], "device": "cpu"}, check_judge),
    Target("metrics.metric_name", metrics.metric_name,
           lambda draw: {"metric": pick(draw, "frechet", "density", "inception_score"), "extractor": EXTRACTOR}, check_name, weight=0.3),
    Target("metrics.find_inception_weights", metrics.find_inception_weights, lambda draw: {"where": None}, check_path,
           {"where": ("neither", "has none of", "Hub")}, {"where": PATHS}, weight=0.3),
    Target("metrics.inception_name", metrics.inception_name, lambda draw: {"path": __file__}, check_path,
           {"path": ("file",)}, {"path": PATHS}, weight=0.3),
    Target("metrics.weights_hash", metrics.weights_hash, lambda draw: {"network": Judge()},
           lambda given, result: confirm(isinstance(given["network"], nn.Module) and len(result) == 64, "hash"), weight=0.1),
    Target("metrics.AccuracyWithInterval", lambda **given: metrics.AccuracyWithInterval().compute(**given), make_compute,
           check_computed, EVALUATED, weight=0.1),
]  # fmt: skip
