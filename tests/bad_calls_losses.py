"""Bad calls to the losses: tensors of other kinds and shapes, settings out of range."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import bad_twins as twin
import numpy as np
import torch
from bad_calls import Target, close, confirm, flag, ints, number, reals, text, whole

from hf_noise.losses import (
    LabelTransition,
    VolumeMinimisation,
    clean_posterior,
    corrected_nll,
    dsm_loss,
    edm_weight,
    label_nll,
    log_columns,
    mixture_posterior,
    posthoc_nll,
    shift_targets,
    tdsm_loss,
    token_nll,
    transition_aware_weights,
    transition_nll,
)

CLASSES = 3
T = [[0.7, 0.2, 0.1], [0.0, 0.8, 0.2], [0.25, 0.05, 0.7]]
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-4, torch.float16: 5e-2, torch.bfloat16: 0.3}


def pick(draw: np.random.Generator, *values: Any) -> Any:
    return values[int(draw.integers(len(values)))]


def normal(draw: np.random.Generator, *shape: int, dtype: Any = None) -> torch.Tensor:
    dtype = pick(draw, torch.float32, torch.float64) if dtype is None else dtype
    return torch.from_numpy(draw.normal(size=shape)).to(dtype)


def floats(values: Any, *shape: int | None) -> np.ndarray:
    """A floating-point tensor as float64, of this shape, None for any length."""
    confirm(isinstance(values, torch.Tensor) and values.is_floating_point(), "no floating-point tensor")
    confirm(not shape or len(shape) == values.ndim, f"shape {list(values.shape)}")
    confirm(all(want in (None, got) for want, got in zip(shape, values.shape)), f"shape {list(values.shape)}")
    return reals(values.double())


def labels_of(values: Any, shape: tuple[int, ...], classes: int | None = None) -> np.ndarray:
    """A tensor of integers in [0, C)."""
    confirm(isinstance(values, torch.Tensor), "no tensor")
    labels = ints(values)
    confirm(labels.shape == tuple(shape), f"shape {labels.shape}")
    confirm(classes is None or all(0 <= label < classes for label in labels.reshape(-1)), "a label outside")
    return labels.astype(np.int64) if classes is not None else labels


def near(given: dict[str, Any], found: torch.Tensor, expected: Any) -> None:
    """Confirm a tensor up to the rounding of the least precise one given; shapes alone where that may overflow."""
    expected = np.asarray(expected, dtype=np.float64)
    confirm(isinstance(found, torch.Tensor) and tuple(found.shape) == expected.shape, f"shape, not {expected.shape}")
    tensors = [value for value in given.values() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    every = [value for value in given.values() if isinstance(value, torch.Tensor)]
    for value in [*every, *(value for value in given.values() if isinstance(value, Real) and abs(value) < 1e300)]:
        size = np.abs(np.asarray(value.detach().double() if isinstance(value, torch.Tensor) else value, dtype=object).astype(np.float64))
        if (np.isfinite(size) & ((size > 1e4) | ((size > 0) & (size < 1e-4)))).any():
            return
    tolerance = max(TOLERANCE[tensor.dtype] for tensor in [found, *tensors])
    close(found, expected, tolerance)


def log_softmax(x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        z = x - x.max(-1, keepdims=True)
        return z - np.log(np.exp(z).sum(-1, keepdims=True))


def of_label(table: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.take_along_axis(table, labels[..., None], -1)[..., 0]


# ---- tokens


def make_rates(draw: np.random.Generator) -> dict[str, Any]:
    nll = normal(draw, *pick(draw, (5,), (2, 3), ())).abs()
    rate = pick(draw, 0, 0.3, torch.tensor([0.3]), torch.tensor(0.25, requires_grad=True), torch.full(nll.shape, 0.5))
    return {"nll": nll, "error_rate": rate, "vocab_size": pick(draw, 1, 10, 50257)}


def rate_of(given: dict[str, Any], nll: np.ndarray) -> np.ndarray:
    e = given["error_rate"]
    if not isinstance(e, torch.Tensor):
        e = number(e)
        confirm(0 <= e < 1, "error_rate")
        return np.float64(e)
    e = floats(e)
    confirm(e.size == 1 or e.shape == nll.shape, "shape of the rate")
    confirm(not ((e < 0) | (e > 1)).any(), "error_rate")
    return e.reshape(()) if e.size == 1 else e


def check_corrected(given: dict[str, Any], result: Any) -> None:
    nll, v = floats(given["nll"]), whole(given["vocab_size"], 1, 2**31)
    e = rate_of(given, nll)
    with np.errstate(all="ignore"):
        near(given, result, -np.logaddexp(np.log1p(-e) - nll, np.log(e) - math.log(v)) * np.ones(nll.shape))


def check_clean(given: dict[str, Any], result: Any, mixture: bool = False) -> None:
    nll, v = floats(given["nll"]), whole(given["vocab_size"], 1, 2**31)
    e = rate_of(given, nll)
    with np.errstate(all="ignore"):
        if mixture:
            expected = np.maximum(1 - e / v * np.exp(nll), 0)
        else:
            expected = np.where((e == 0) | (nll == -np.inf), 1, 1 / (1 + e / v / (1 - e) * np.exp(nll)))
    if isinstance(given["error_rate"], torch.Tensor) and not np.isfinite(nll).all():
        return  # 0 / 0 at e = 0
    expected = np.where(e == 0, 1, np.where(np.isnan(nll), np.nan, expected)) * np.ones(nll.shape)
    near(given, result, expected)


def make_posthoc(draw: np.random.Generator) -> dict[str, Any]:
    shape = pick(draw, (4,), (2, 2), ())
    return {
        "logits": normal(draw, *shape, 6), "targets": torch.from_numpy(np.asarray(draw.integers(0, 6, size=shape))),
        "error_rate": pick(draw, 0, 0.4), "vocab_size": pick(draw, None, 6, 4), "floor": pick(draw, 1 / 32, 0.5),
    }  # fmt: skip


def check_posthoc(given: dict[str, Any], result: Any) -> None:
    logits = floats(given["logits"])
    confirm(logits.ndim >= 1 and logits.shape[-1], "logits")
    targets = labels_of(given["targets"], logits.shape[:-1], logits.shape[-1])
    v = logits.shape[-1] if given["vocab_size"] is None else whole(given["vocab_size"], 1, logits.shape[-1])
    e, floor = number(given["error_rate"]), number(given["floor"])
    confirm(0 <= e < 1 and 0 < floor <= 1, "settings")
    log_q = log_softmax(logits)
    if e > 0:
        with np.errstate(all="ignore"):
            p = np.exp(log_q)
            p[..., :v] -= e / v
            p = np.maximum(p, e / v * floor)
            log_q = np.log(p / p.sum(-1, keepdims=True))
    near(given, result, -of_label(log_q, targets))


def check_shift(given: dict[str, Any], result: Any) -> None:
    confirm(isinstance(given["labels"], torch.Tensor), "no tensor")
    labels = ints(given["labels"], 2).tolist()
    confirm(result.dtype == torch.int64 and result.tolist() == [[*row[1:], -100][: len(row)] for row in labels], "targets")


def make_fused(draw: np.random.Generator) -> dict[str, Any]:
    return {"hidden": normal(draw, 2, 3, 4), "weight": normal(draw, 7, 4), "targets": torch.from_numpy(draw.integers(0, 7, (2, 3))),
            "bias": pick(draw, None, torch.zeros(7))}  # fmt: skip


# ---- labels


def make_labels(draw: np.random.Generator) -> dict[str, Any]:
    shape, dtype = pick(draw, (4,), (2, 2), ()), pick(draw, torch.float32, torch.float64)
    columns = pick(draw, None, log_columns(torch.tensor(T, dtype=torch.float64)).to(dtype))
    return {
        "logits": normal(draw, *shape, CLASSES, dtype=dtype),
        "labels": torch.from_numpy(np.asarray(draw.integers(0, CLASSES, size=shape))), "columns": columns,
        "smoothing": pick(draw, 0, 0.1),
    }  # fmt: skip


def check_label_nll(given: dict[str, Any], result: Any) -> None:
    logits = floats(given["logits"])
    confirm(logits.ndim and logits.shape[-1], "logits")
    classes = logits.shape[-1]
    labels, s = labels_of(given["labels"], logits.shape[:-1], classes), number(given["smoothing"])
    confirm(0 <= s < 1, "smoothing")
    columns = given["columns"]
    with np.errstate(all="ignore"):
        log_p = log_softmax(logits)
        if columns is not None:
            matrix = np.exp(floats(columns, classes, classes)).T
            log_p = np.log(np.exp(log_p) @ matrix)
            if s and np.isneginf(log_p).any():
                return  # kept above the smallest number of the dtype
        near(given, result, -(1 - s) * of_label(log_p, labels) - (s * log_p.mean(-1) if s else 0))


def check_transition_nll(given: dict[str, Any], result: Any) -> None:
    matrix = twin.matrix_of(given["transition"])
    confirm(isinstance(given["transition"], torch.Tensor), "no tensor")
    floats(given["transition"])
    with np.errstate(divide="ignore"):
        columns = torch.from_numpy(np.log(matrix.T))
    check_label_nll({**given, "columns": columns, "smoothing": 0}, result)


def check_columns(given: dict[str, Any], result: Any) -> None:
    floats(given["transition"])
    with np.errstate(divide="ignore"):
        near(given, result, np.log(twin.matrix_of(given["transition"]).T))


# ---- images


def make_images(draw: np.random.Generator) -> dict[str, Any]:
    dtype = pick(draw, torch.float32, torch.float64)
    shape = (2, *pick(draw, (3,), (1, 2, 2)))
    return {
        "returns": "right", "images": normal(draw, *shape, dtype=dtype), "sigma": normal(draw, 2, dtype=dtype).abs() + 0.1,
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
            w = {label: 1.0} if plain else {i: weights[b, i] for i in range(classes) if i == label or weights[b, i] > tau}
            total = sum(w.values()) if renormalise else 1
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
        "tau": pick(draw, 0, 0.01, 0.2), "renormalise": bool(draw.integers(2)), "grad_classes": pick(draw, "observed", "all"),
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
        "clean_posterior": None, "noisy_posterior": None, form: posterior.log() if logits else posterior, "logits": logits,
        "prior": pick(draw, None, [0.2, 0.3, 0.5]) if bare else None, "temperature": pick(draw, 1, 2.0),
        "clamp": bool(draw.integers(2)), "renormalise": bool(draw.integers(2)), "max_condition": pick(draw, 100.0, math.inf),
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
    if np.isfinite(expected).all():  # else the label is impossible to the last bit, which has tests of its own
        near({}, result, expected)


def check_label_transition(given: dict[str, Any], result: Any) -> None:
    matrix, prior = twin.matrix_of(given["transition"]), given["prior"]
    prior = twin.prior_of(prior, len(matrix))
    confirm(given["device"] == "cpu", "device")
    close(result.matrix, matrix)
    joint = prior * matrix.T
    with np.errstate(invalid="ignore"):
        total = joint.sum(1, keepdims=True)
        close(result.reverse, np.where(total > 0, joint / total, prior))


def check_volume(given: dict[str, Any], result: Any) -> None:
    classes, initial, diagonal = whole(given["num_classes"], 2, 2**15), given["initial"], given["initial_diagonal"]
    confirm(initial is None or diagonal is None, "two starts")
    if diagonal is None:
        initial = number(-2.0 if initial is None else initial)
        confirm(-100 <= initial <= 100, "initial")
        diagonal = 1 / (1 + (classes - 1) / (1 + math.exp(-initial)))
    confirm(1 / classes <= number(diagonal) <= 1, "diagonal")
    if classes < 1000:
        transition = result.transition
        close(transition.diagonal(), np.full(classes, float(diagonal)), 1e-5)
        close(transition.sum(1), np.ones(classes), 1e-5)
        confirm(math.isfinite(result.log_volume().item()), "volume")


def check_volume_loss(given: dict[str, Any], result: Any) -> None:
    logits = floats(given["logits"], None, CLASSES)
    labels = labels_of(given["labels"], (len(logits),), CLASSES)
    errors = 1 / (1 + math.exp(2))
    matrix = np.where(np.eye(CLASSES) > 0, 1, errors) / (1 + 2 * errors)
    with np.errstate(all="ignore"):
        near(given, result, -np.log((np.exp(log_softmax(logits)) * matrix[:, labels].T).sum(1) + 1e-12))


def call_dsm(returns: Any, **given: Any) -> Any:
    return dsm_loss(denoiser_of(returns), given.pop("images"), given.pop("sigma"), given.pop("noise"), given.pop("class_labels"),
                    **given)  # fmt: skip


def call_tdsm(returns: Any, **given: Any) -> Any:
    names = ("images", "sigma", "noise", "noisy_labels", "weights")
    return tdsm_loss(denoiser_of(returns), *(given.pop(name) for name in names), **given)


IMAGES = {"returns": ("denoiser",), "augment": ("denoiser",), "sigma": ("sigma",)}
RATES = {"error_rate": ("error_rate",)}
WEIGHTS = {"transition": ("transition matrix", "classes", "holds its prior"), "clean_posterior": ("posterior",),
           "noisy_posterior": ("posterior",), "noisy_labels": ("labels",), "logits": ("posterior",), "max_condition": ("condition number",)}
LOGITS = {"logits": ("transition", "classes")}  # fmt: skip

TARGETS = [
    Target("losses.edm_weight", edm_weight, lambda draw: {"sigma": normal(draw, 3).abs() + 0.1, "sigma_data": 0.5},
           lambda given, result: near(given, result, check_weight(given)), weight=0.5),
    Target("losses.dsm_loss", call_dsm, lambda draw: {**make_images(draw), "class_labels": pick(draw, None, torch.tensor([0, 2]))},
           check_dsm, IMAGES, {"returns": RETURNS}, weight=2),
    Target("losses.tdsm_loss", call_tdsm, make_tdsm, check_tdsm, IMAGES, {"returns": RETURNS}, weight=3),
    Target("losses.corrected_nll", lambda nll, **given: corrected_nll(nll, **given), make_rates, check_corrected, RATES),
    Target("losses.clean_posterior", lambda nll, **given: clean_posterior(nll, **given), make_rates, check_clean, RATES),
    Target("losses.mixture_posterior", lambda nll, **given: mixture_posterior(nll, **given), make_rates,
           lambda given, result: check_clean(given, result, mixture=True), RATES),
    Target("losses.posthoc_nll", lambda logits, targets, **given: posthoc_nll(logits, targets, **given), make_posthoc, check_posthoc,
           LOGITS, weight=2),
    Target("losses.shift_targets", shift_targets, lambda draw: {"labels": torch.from_numpy(draw.integers(0, 9, (2, 3)))}, check_shift),
    Target("losses.token_nll", token_nll, make_fused, lambda given, result: confirm(result.shape == given["targets"].shape, "shape"),
           {name: ("torch", "classes") for name in ("hidden", "weight", "targets", "bias")}),
    Target("losses.label_nll", label_nll, make_labels, check_label_nll, LOGITS, weight=2),
    Target("losses.transition_nll", transition_nll,
           lambda draw: {"logits": normal(draw, 4, 3), "labels": torch.tensor([0, 1, 2, 0]), "transition": torch.tensor(T)},
           check_transition_nll, LOGITS),
    Target("losses.log_columns", log_columns, lambda draw: {"transition": torch.tensor(T, dtype=torch.float64)}, check_columns),
    Target("losses.LabelTransition", LabelTransition,
           lambda draw: {"transition": pick(draw, T, np.array(T), torch.tensor(T, dtype=torch.float64)),
                         "prior": pick(draw, None, [0.2, 0.3, 0.5]), "device": "cpu"}, check_label_transition, weight=2),
    Target("losses.transition_aware_weights",
           lambda noisy_labels, transition, **given: transition_aware_weights(noisy_labels, transition, **given), make_weights,
           check_weights, WEIGHTS, weight=3),
    Target("losses.VolumeMinimisation", VolumeMinimisation,
           lambda draw: {"num_classes": pick(draw, 2, 10), "initial": None, "initial_diagonal": None,
                         **pick(draw, {}, {"initial": -1.0}, {"initial_diagonal": 0.6})}, check_volume, {"num_classes": ("classes",)}),
    Target("losses.VolumeMinimisation.forward", lambda **given: VolumeMinimisation(CLASSES)(**given),
           lambda draw: {"logits": normal(draw, 4, 3), "labels": torch.tensor([0, 1, 2, 0])}, check_volume_loss),
]  # fmt: skip


def check_weight(given: dict[str, Any]) -> np.ndarray:
    sigma, data = floats(given["sigma"]), number(given["sigma_data"])
    confirm(not (sigma <= 0).any() and 1e-6 <= data <= 1e6, "sigma")
    return (sigma**2 + data**2) / (sigma * data) ** 2
