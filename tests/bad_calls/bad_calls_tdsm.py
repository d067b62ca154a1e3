"""Bad calls to the losses of denoisers, and to the weights of transition-aware matching."""

from __future__ import annotations

import math
from typing import Any

import bad_twins as twin
import numpy as np
import torch
from bad_calls import Target
from bad_calls_losses import CLASSES, T, floats, labels_of, log_softmax, near, normal, of_label
from bad_readers import close, confirm, flag, number, reals, text, whole
from bad_values import pick

from hf_noise.losses import LabelTransition, dsm_loss, edm_weight, tdsm_loss, transition_aware_weights

# ---- images


def make_images(draw: np.random.Generator) -> dict[str, Any]:
    dtype = pick(draw, torch.float32, torch.float64)
    shape = (2, *pick(draw, (3,), (1, 2, 2)))
    return {
        "returns": "right", "images": normal(draw, *shape, dtype=dtype),
        "sigma": normal(draw, 2, dtype=dtype).abs() + 0.1,
        "noise": normal(draw, *shape, dtype=dtype), "sigma_data": pick(draw, 0.5, 1),
        "augment": pick(draw, None, torch.ones(2, 1, dtype=dtype)),
    }  # fmt: skip


def denoiser_of(returns: Any) -> Any:
    """D = x / 2 + label / 10 + augment; or one that returns something else; or something that is no denoiser."""

    def denoise(x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None, augment: Any = None) -> Any:
        rest = [-1, *[1] * (x.ndim - 1)]
        found = x / 2 + (0 if labels is None else labels.reshape(rest) / 10)
        found = found + (0 if augment is None else augment.reshape(len(augment), -1)[:, :1].sum(1).reshape(rest))
        wrong = {"first": found[:1], "mean": found.mean(), "none": None, "more": found[None], "list": found.tolist()}
        return wrong.get(returns, found)

    return denoise if isinstance(returns, str) or callable(returns) else returns


RETURNS = tuple((lambda value=value: value) for value in ("first", "mean", "none", "more", "list", "", 1, None))


def image_parts(given: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    images = floats(given["images"])
    confirm(images.ndim >= 2 and 0 not in images.shape[1:], "images")
    sigma, noise = floats(given["sigma"], len(images)), floats(given["noise"], *images.shape)
    data = number(given["sigma_data"])
    confirm(not (sigma <= 0).any() and 1e-6 <= data <= 1e6, "sigma")
    returns = given["returns"]
    broken = {"mean", "none", "more", "list"} | ({"first"} if len(images) != 1 else set())
    confirm(isinstance(returns, str) and returns not in broken or callable(returns), "no right denoiser")
    return images, sigma.reshape(-1, *[1] * (images.ndim - 1)), noise, data


def told(given: dict[str, Any], batch: int) -> np.ndarray:
    augment = given["augment"]
    if augment is None:
        return np.zeros(batch)
    confirm(isinstance(augment, torch.Tensor) and augment.ndim >= 1 and len(augment) == batch, "augment")
    confirm(not augment.is_complex(), "complex")
    return reals(augment.double()).reshape(batch, -1 if augment.numel() else 0)[:, :1].sum(1)


def weighted(d: np.ndarray, images: np.ndarray, sigma: np.ndarray, data: float) -> np.ndarray:
    weight = (sigma**2 + data**2) / (sigma * data) ** 2
    return (weight * (d - images) ** 2).reshape(len(images), -1).mean(1) if len(images) else np.zeros(0)


def check_dsm(given: dict[str, Any], result: Any) -> None:
    images, sigma, noise, data = image_parts(given)
    labels = given["class_labels"]
    labels = np.zeros(len(images)) if labels is None else labels_of(labels, (len(images),)).astype(np.float64)
    rest = (-1, *[1] * (images.ndim - 1))
    with np.errstate(all="ignore"):
        d = (images + sigma * noise) / 2 + (labels / 10 + told(given, len(images))).reshape(rest)
        if np.abs(labels).max(initial=0) < 1000:
            near(given, result, weighted(d, images, sigma, data))


def check_tdsm(given: dict[str, Any], result: Any) -> None:
    images, sigma, noise, data = image_parts(given)
    weights = floats(given["weights"], len(images), None)
    classes = weights.shape[1]
    labels = labels_of(given["noisy_labels"], (len(images),), classes + 1)
    tau, renormalise = number(given["tau"]), flag(given["renormalise"])
    confirm(0 <= tau < 1, "tau")
    text(given["grad_classes"], "observed", "all")
    confirm(given["chunk"] is None or whole(given["chunk"], 1), "chunk")
    extra, x = told(given, len(images)), images + sigma * noise
    mixture = np.zeros(images.shape)
    with np.errstate(all="ignore"):
        for b, label in enumerate(labels):
            plain = label == classes
            w = (
                {label: 1.0}
                if plain
                else {i: weights[b, i] for i in range(classes) if i == label or weights[b, i] > tau}
            )
            total = (sum(w.values()) or 1) if renormalise else 1
            for i, share in w.items():
                mixture[b] += share / total * (x[b] / 2 + i / 10 + extra[b])
        if not np.isfinite(weights).all() or (np.abs(weights) > 1).any() or (np.abs(weights - tau) < 1e-3).any():
            confirm(tuple(result.shape) == (len(images),), "shape")
        else:
            near(given, result, weighted(mixture, images, sigma, data))


def make_tdsm(draw: np.random.Generator) -> dict[str, Any]:
    given = make_images(draw)
    weights = torch.from_numpy(draw.dirichlet(np.ones(CLASSES), 2)).to(given["images"].dtype)
    return {
        **given, "noisy_labels": torch.from_numpy(draw.integers(0, CLASSES + 1, 2)), "weights": weights,
        "tau": pick(draw, 0, 0.01, 0.2), "renormalise": bool(draw.integers(2)),
        "grad_classes": pick(draw, "observed", "all"),
        "chunk": pick(draw, None, 1, 3),
    }  # fmt: skip


# ---- weights


def make_weights(draw: np.random.Generator) -> dict[str, Any]:
    posterior = torch.from_numpy(draw.dirichlet(np.ones(CLASSES), 2)).to(pick(draw, torch.float32, torch.float64))
    logits = bool(draw.integers(2))
    form = pick(draw, "clean_posterior", "noisy_posterior")
    bare = draw.random() < 0.5
    return {
        "noisy_labels": torch.from_numpy(draw.integers(0, CLASSES, 2)), "transition": T if bare else LabelTransition(T),
        "clean_posterior": None, "noisy_posterior": None, form: posterior.log() if logits else posterior,
        "logits": logits,
        "prior": pick(draw, None, [0.2, 0.3, 0.5]) if bare else None, "temperature": pick(draw, 1, 2.0),
        "clamp": bool(draw.integers(2)), "renormalise": bool(draw.integers(2)),
        "max_condition": pick(draw, 100.0, math.inf),
    }  # fmt: skip


def check_weights(given: dict[str, Any], result: Any) -> None:
    posteriors = given["clean_posterior"], given["noisy_posterior"]
    confirm(sum(p is None for p in posteriors) == 1, "posteriors")
    matrix, prior = given["transition"], given["prior"]
    if isinstance(matrix, LabelTransition):
        confirm(prior is None, "two priors")
        matrix = matrix.matrix.numpy()
    matrix = twin.matrix_of(matrix)
    twin.prior_of(prior, len(matrix))
    p = floats(posteriors[0] if posteriors[1] is None else posteriors[1], None, len(matrix))
    labels = labels_of(given["noisy_labels"], (len(p),), len(matrix))
    confirm(number(given["max_condition"]) >= 1, "max_condition")
    logits, clamp, renormalise = flag(given["logits"]), flag(given["clamp"]), flag(given["renormalise"])
    temperature = number(given["temperature"])
    confirm(0 < temperature < math.inf, "temperature")
    confirm(logits or not ((p < 0) | (p > 1.01)).any(), "no probabilities")
    with np.errstate(all="ignore"):
        scaled = (p if logits else np.log(p)) / temperature
        if posteriors[0] is not None:
            joint = np.exp(log_softmax(scaled)) * matrix[:, labels].T
            expected = joint / joint.sum(1, keepdims=True)
        else:
            confirm(np.linalg.cond(matrix) <= given["max_condition"], "condition")
            q = np.exp(log_softmax(scaled)) if logits or temperature != 1 else p
            expected = matrix[:, labels].T * np.linalg.solve(matrix.T, q.T).T / of_label(q, labels)[:, None]
            expected = np.clip(expected, 0, 1) if clamp else expected
            expected = expected / expected.sum(1, keepdims=True) if renormalise else expected
    confirm(tuple(result.shape) == p.shape and not result.requires_grad, "shape")
    if posteriors[0] is None and (of_label(q, labels) < 1e-9).any():
        return  # as impossible, to the precision of the inverse
    if np.isfinite(expected).all():  # else the label is impossible to the last bit, which has tests of its own
        near({}, result, expected)

def check_label_transition(given: dict[str, Any], result: Any) -> None:
    matrix, prior = twin.matrix_of(given["transition"]), given["prior"]
    prior = twin.prior_of(prior, len(matrix))
    confirm(given["device"] == "cpu", "device")
    close(result.matrix, matrix)
    close(result.prior, prior)
    with np.errstate(divide="ignore"):
        close(result.log_columns, np.log(matrix.T), 1e-6)
    joint = prior * matrix.T
    with np.errstate(invalid="ignore"):
        total = joint.sum(1, keepdims=True)
        close(result.reverse, np.where(total > 0, joint / total, prior))

def check_weight(given: dict[str, Any]) -> np.ndarray:
    sigma, data = floats(given["sigma"]), number(given["sigma_data"])
    confirm(not (sigma <= 0).any() and 1e-6 <= data <= 1e6, "sigma")
    return (sigma**2 + data**2) / (sigma * data) ** 2

def call_dsm(returns: Any, **given: Any) -> Any:
    return dsm_loss(denoiser_of(returns), given.pop("images"), given.pop("sigma"), given.pop("noise"),
            given.pop("class_labels"),
                    **given)  # fmt: skip


def call_tdsm(returns: Any, **given: Any) -> Any:
    names = ("images", "sigma", "noise", "noisy_labels", "weights")
    return tdsm_loss(denoiser_of(returns), *(given.pop(name) for name in names), **given)

def make_transition(draw: np.random.Generator) -> dict[str, Any]:
    transition = pick(draw, T, np.array(T), torch.tensor(T, dtype=torch.float64))
    return {"transition": transition, "prior": pick(draw, None, [0.2, 0.3, 0.5]), "device": "cpu"}


WORDS = {
    "returns": ("denoiser",), "augment": ("denoiser",), "transition": ("transition matrix", "classes",
    "holds its prior"),
    "clean_posterior": ("posterior",), "noisy_posterior": ("posterior",), "noisy_labels": ("labels",),
    "logits": ("posterior",), "max_condition": ("condition number",),
}  # fmt: skip

TARGETS = [
    Target("losses.edm_weight", edm_weight, lambda draw: {"sigma": normal(draw, 3).abs() + 0.1, "sigma_data": 0.5},
           lambda given, result: near(given, result, check_weight(given)), weight=0.5),
    Target("losses.dsm_loss", call_dsm,
           lambda draw: make_images(draw) | {"class_labels": pick(draw, None, torch.tensor([0, 2]))},
           check_dsm, WORDS, {"returns": RETURNS}, weight=2),
    Target("losses.tdsm_loss", call_tdsm, make_tdsm, check_tdsm, WORDS, {"returns": RETURNS}, weight=3),
    Target("losses.LabelTransition", LabelTransition, make_transition, check_label_transition, WORDS, weight=2),
    Target("losses.transition_aware_weights",
           lambda noisy_labels, transition, **given: transition_aware_weights(noisy_labels, transition, **given),
           make_weights,
           check_weights, WORDS, weight=3),
]  # fmt: skip
