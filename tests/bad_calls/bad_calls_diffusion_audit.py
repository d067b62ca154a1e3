"""Bad calls to the posterior of a classifier of noisy images, as audits take it."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, ints, number, reals, whole
from bad_values import pick

from hf_noise.audit import cross_fitted_posterior, fit_time_classifier, time_posterior
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise.normals_torch import normals

N, C, SIZE = 12, 3, 4


@functools.cache
def network() -> TimeDependentClassifier:
    torch.manual_seed(0)
    return TimeDependentClassifier(C, SIZE, 1, "cnn-digits").eval()


def posterior(images: Any, trained_on: Any, **options: Any) -> np.ndarray:
    """By the network above."""
    return time_posterior(network(), images, trained_on=trained_on, **options)


def cross_fitted(images: Any, labels: Any, **options: Any) -> np.ndarray:
    """The same network for every fold."""
    return cross_fitted_posterior(images, labels, fit=lambda rows: network(), **options)


def pixels(draw: np.random.Generator) -> Any:
    images = draw.integers(0, 256, (N, 1, SIZE, SIZE)).astype(np.uint8)
    return pick(draw, images, torch.from_numpy(images))


def make(draw: np.random.Generator) -> dict[str, Any]:
    ids = draw.permutation(50)[:N]
    return {
        "images": pixels(draw), "trained_on": pick(draw, (), [], np.arange(60, 70)),
        "sigmas": pick(draw, (0.1,), [0.05, 0.4], np.array([0.2, 0.3])), "draws": int(draw.integers(1, 3)),
        "sample_ids": pick(draw, None, ids, ids.tolist()), "seed": int(draw.integers(0, 100)),
    }  # fmt: skip


def make_folds(draw: np.random.Generator) -> dict[str, Any]:
    labels = draw.permutation(np.arange(N) % C)
    return {
        "images": pixels(draw), "labels": pick(draw, labels, labels.tolist(), torch.from_numpy(labels)),
        "folds": pick(draw, 2, 3), "sigmas": (0.1, 0.2), "draws": 1, "seed": int(draw.integers(0, 100)),
    }  # fmt: skip


def read_images(value: Any) -> torch.Tensor:
    array = np.asarray(value)
    confirm(array.dtype == np.uint8 and array.ndim == 4 and len(array), "images")
    confirm(array.shape[1:] == (1, SIZE, SIZE), "shape")
    return torch.from_numpy(array.astype(np.float32)) / 127.5 - 1


def by_hand(given: dict[str, Any], ids: list[int]) -> np.ndarray:
    """A loop over rows, levels and draws."""
    clean, draws, seed = read_images(given["images"]), whole(given["draws"]), whole(given["seed"])
    levels = [number(level) for level in given["sigmas"]]
    confirm(levels and all(-1.2 - 3.601 <= math.log(level) <= -1.2 + 3.601 for level in levels), "levels")
    confirm(1 <= draws <= 1 << 10 and 0 <= seed < 1 << 63, "draws")
    confirm(len(ids) == len(clean) and all(0 <= one < 1 << 63 for one in ids), "ids")
    found = np.zeros((len(clean), C))
    for row, (image, one) in enumerate(zip(clean, ids)):
        for draw in range(draws):
            noise = normals(seed, 180, draw, torch.tensor([one]), SIZE**2).view(1, 1, SIZE, SIZE)
            for level in levels:
                with torch.no_grad():
                    logits = network()(image[None] + level * noise, torch.tensor(level, dtype=torch.float32))
                found[row] += logits[0].double().softmax(-1).numpy()
    return found / draws / len(levels)


def check(given: dict[str, Any], result: Any) -> None:
    ids = range(len(given["images"])) if given["sample_ids"] is None else ints(given["sample_ids"], 1).tolist()
    if len(given["trained_on"]):
        confirm(all(0 <= one < 1 << 63 for one in ints(given["trained_on"], 1).tolist()), "trained_on")
    close(reals(result, 2), by_hand(given, list(ids)), 1e-5)


def check_folds(given: dict[str, Any], result: Any) -> None:
    labels, folds = ints(given["labels"], 1), whole(given["folds"])
    confirm(set(labels.tolist()) == set(range(C)) and len(labels) == len(given["images"]), "labels")
    confirm(2 <= folds <= np.bincount(labels.astype(np.int64)).min(), "folds")
    close(reals(result, 2), by_hand(given, list(range(len(labels)))), 1e-5)


def make_fit(draw: np.random.Generator) -> dict[str, Any]:
    made = make_folds(draw)
    return {
        "images": made["images"], "labels": made["labels"], "batch_size": pick(draw, 4, 100), "learning_rate": 1e-3,
        "sample_ids": pick(draw, None, draw.permutation(50)[:N]), "architecture": pick(draw, None, "cnn-digits"),
        "seed": made["seed"],
    }  # fmt: skip


def check_fit(given: dict[str, Any], result: Any) -> None:
    labels, rate = ints(given["labels"], 1), number(given["learning_rate"])
    read_images(given["images"])
    confirm(set(labels.tolist()) == set(range(C)) and len(labels) == len(given["images"]), "labels")
    confirm(0 < rate < math.inf and 1 <= whole(given["batch_size"]) <= 1 << 20, "numbers")
    confirm(0 <= whole(given["seed"]) < 1 << 63 and given["architecture"] in (None, "cnn-digits"), "settings")
    if given["sample_ids"] is not None:
        ids = ints(given["sample_ids"], 1).tolist()
        confirm(len(ids) == len(labels) and all(0 <= one < 1 << 63 for one in ids), "ids")
    confirm(result.config.num_classes == C and result.predicts == "noisy" and not result.training, "classifier")
    confirm(all(parameter.isfinite().all() for parameter in result.parameters()), "weights")


WORDS = {"images": ("image", "noisy_images", "features"), "sigmas": ("sigmas",), "labels": ("label", "classes"),
         "folds": ("folds",)}  # fmt: skip
TARGETS = [
    Target("audit.time_posterior", posterior, make, check, WORDS, weight=0.5),
    Target("audit.cross_fitted_posterior", cross_fitted, make_folds, check_folds, WORDS, weight=0.5),
    Target("audit.fit_time_classifier", functools.partial(fit_time_classifier, epochs=1), make_fit, check_fit, WORDS,
           weight=0.1),
]
