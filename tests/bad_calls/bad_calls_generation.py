"""Bad calls to the metrics of generated images, to their statistics and to the extractors of features."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_calls_metrics import classes_of, converted, kl_of
from bad_readers import close, confirm, ints, number, reals, same, text, whole
from bad_values import pick
from torch import nn

from hf_noise import metrics
from hf_noise.metrics.features import FeatureStatistics

HERE = Path(__file__).parent

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
    sizes = {c: len(x) for c, (x, _) in parts.items()}, {c: len(y) for c, (_, y) in parts.items()}
    confirm((result["n_real"], result["n_fake"], result["n"]) == (*sizes, sum(sizes[1].values())), "sizes")


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
        same([result["per_class"][c][name] for name in ("k", "n_real", "n")], [int(given["k"]), len(x), len(y)])
    for name in ("density", "coverage"):
        close(result[f"classwise_{name}"], np.mean([found[name] for found in result["per_class"].values()]))
    same([result["k"], result["n"]], [int(given["k"]), sum(len(y) for _, y in parts.values())])


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
    same([result["splits"], result["n"]], [splits, len(p)])


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
        self.config = SimpleNamespace(num_labels=3, image_size=2)

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.head(pixel_values.flatten(1)))


EXTRACTOR = metrics.judge_extractor(Judge(), name="j", mean=[0.5], std=[0.5])


def check_extracted(given: dict[str, Any], result: Any) -> None:
    images = given["images"]
    confirm(isinstance(images, torch.Tensor) and images.dtype == torch.uint8 and images.ndim == 4, "images")
    confirm(images.shape[1:] == (1, 2, 2) and len(images), "shape")
    whole(given["batch_size"], 1)
    confirm(isinstance(given["progress"], bool), "progress")
    close(result[0], (images.flatten(1).double().numpy() / 255 - 0.5) / 0.5, 1e-5)
    head = EXTRACTOR._network.head
    close(result[1], result[0].double().numpy() @ head.weight.detach().double().numpy().T + head.bias.tolist(), 1e-4)


def check_judge(given: dict[str, Any], result: Any) -> None:
    mean, std = reals(given["mean"], 1), reals(given["std"], 1)
    confirm(
        mean.size
        and mean.shape == std.shape
        and np.isfinite(mean).all()
        and np.isfinite(std).all()
        and (std > 0).all(),
        "mean",
    )
    confirm(text(given["name"]) and given["name"] in result.name and given["device"] == "cpu", "name")


def check_name(given: dict[str, Any], result: Any) -> None:
    confirm(
        text(given["metric"]) in ("frechet", "density", "inception_score")
        and isinstance(given["extractor"], type(EXTRACTOR)),
        "",
    )
    features = {"frechet": "Frechet distance", "density": "density"}.get(given["metric"])
    of_features = f"{features} in judge features (j)"
    confirm(result == ("score exp(KL) of the judge's classes (j)" if features is None else of_features), "name")


def check_path(given: dict[str, Any], result: Any) -> None:
    [where] = given.values()
    confirm(where is None and result is None or where is not None and Path(where).is_file(), "path")

def make_compute(draw: np.random.Generator) -> dict[str, Any]:
    return {"predictions": draw.normal(size=(12, 2)).tolist(), "real": make_features(draw)}


def check_computed(given: dict[str, Any], result: Any) -> None:
    check_frechet({"features_a": given["real"], "features_b": given["predictions"]}, result["frechet_distance"])
    same(result["n"], len(given["predictions"]))


def make_density(draw: np.random.Generator) -> dict[str, Any]:
    settings = {"ties": pick(draw, "count", "exclude"), "chunk": pick(draw, None, 5), "device": "cpu"}
    return {"real": make_features(draw), "fake": make_features(draw, 7), "k": pick(draw, 1, 3), **settings}


def make_extracted(draw: np.random.Generator) -> dict[str, Any]:
    images = torch.from_numpy(draw.integers(0, 256, (3, 1, 2, 2), dtype=np.uint8))
    return {"images": images, "batch_size": 2, "progress": False}


def make_named(draw: np.random.Generator) -> dict[str, Any]:
    return {"metric": pick(draw, "frechet", "density", "inception_score"), "extractor": EXTRACTOR}


def check_hash(given: dict[str, Any], result: Any) -> None:
    confirm(isinstance(given["network"], nn.Module) and len(result) == 64, "hash")


def never(given: dict[str, Any], result: Any) -> None:
    confirm(False, "nothing of these is right")


FILES = ("file", "statistics", "neither", "has none of", "Hub")
WORDS = {
    "real": ("class", "one side"), "fake": ("class", "generated", "one side"), "real_labels": ("class",),
    "fake_labels": ("class",), "k": ("neighbours",), "features_a": ("one side",), "features_b": ("other",),
    "more": ("features",), "predictions": ("predictions or references", "one side", "features"),
    "state": ("n", "mean", "scatter", "statistics", "missing"), "probabilities": ("rows",),
    "path": FILES, "where": FILES,
}  # fmt: skip
PATHS = tuple(
    (lambda value=value: value)
    for value in (".", "a/b", "-a/b", "x" * 300, "a\0b", HERE, "../..", b"a", 3, HERE / "x.pth")
)

TARGETS = [
    Target("metrics.frechet_distance", metrics.frechet_distance,
           lambda draw: {"features_a": make_features(draw), "features_b": make_features(draw)}, check_frechet, WORDS),
    Target("metrics.classwise_frechet", metrics.classwise_frechet, lambda draw: make_classwise(draw, {}),
           check_classwise_frechet, WORDS),
    Target("metrics.density_coverage", metrics.density_coverage, make_density, check_density, WORDS, weight=2),
    Target("metrics.classwise_density_coverage", metrics.classwise_density_coverage,
           lambda draw: make_classwise(draw, {"k": 2, "ties": "count", "device": "cpu"}), check_classwise_density,
           WORDS),
    Target("metrics.inception_score", metrics.inception_score,
           lambda draw: {"probabilities": converted(draw, draw.dirichlet(np.ones(3), 6)), "splits": pick(draw, 1, 3)},
           check_score, WORDS),
    Target("metrics.mixture_reference", metrics.mixture_reference,
           lambda draw: {"clean_consistency": 0.9, "error_rate": 0.5, "num_classes": 10}, check_mixture),
    Target("metrics.FeatureStatistics", joined,
           lambda draw: {"features": pick(draw, None, make_features(draw)), "more": make_features(draw, 3)},
           check_statistics,
           WORDS),
    Target("metrics.FeatureStatistics.merge", lambda other: FeatureStatistics(np.eye(2)).merge(other),
           lambda draw: {"other": FeatureStatistics(np.eye(2))},
           lambda given, result: confirm(isinstance(given["other"], FeatureStatistics), "other"), weight=0.2),
    Target("metrics.FeatureStatistics.from_state", FeatureStatistics.from_state, make_state, check_state, WORDS,
           weight=2),
    Target("metrics.FeatureStatistics.load", FeatureStatistics.load, lambda draw: {"path": __file__}, never, WORDS,
           {"path": PATHS}, weight=0.3),
    Target("metrics.Extractor.__call__", lambda **given: EXTRACTOR(**given), make_extracted, check_extracted),
    Target("metrics.judge_extractor", lambda **given: metrics.judge_extractor(Judge(), **given),
           lambda draw: {"name": "j", "mean": [0.5], "std": [0.5], "device": "cpu"}, check_judge),
    Target("metrics.FrechetDistance", lambda **given: metrics.FrechetDistance().compute(**given), make_compute,
           check_computed, WORDS, weight=0.1),
    Target("metrics.metric_name", metrics.metric_name, make_named, check_name, weight=0.3),
    Target("metrics.find_inception_weights", metrics.find_inception_weights, lambda draw: {"where": None}, check_path,
           WORDS,
           {"where": PATHS}, weight=0.3),
    Target("metrics.inception_name", metrics.inception_name, lambda draw: {"path": __file__}, check_path, WORDS,
           {"path": PATHS}, weight=0.3),
    Target("metrics.weights_hash", metrics.weights_hash, lambda draw: {"network": Judge()}, check_hash, weight=0.1),
]  # fmt: skip
