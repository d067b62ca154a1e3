"""Bad calls to the likelihoods: tensors of other kinds and shapes, settings out of range."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import bad_twins as twin
import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, ints, number, reals, whole
from bad_values import pick

from hf_noise.losses import (
    VolumeMinimisation,
    clean_posterior,
    corrected_nll,
    label_nll,
    log_columns,
    mixture_posterior,
    posthoc_nll,
    shift_targets,
    token_nll,
    transition_nll,
)

CLASSES = 3
T = [[0.7, 0.2, 0.1], [0.0, 0.8, 0.2], [0.25, 0.05, 0.7]]
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-4, torch.float16: 5e-2, torch.bfloat16: 0.3}

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
    for name, value in given.items():
        is_number = isinstance(value, Real) and name != "vocab_size" and abs(value) < 1e300
        if not isinstance(value, torch.Tensor) and not is_number:
            continue
        size = np.abs(
            np.asarray(value.detach().double() if isinstance(value, torch.Tensor) else value, dtype=object).astype(
                np.float64
            )
        )
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
    confirm(e.size == 1 or np.broadcast_shapes(e.shape, nll.shape) == nll.shape, "shape of the rate")
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
    confirm(
        result.dtype == torch.int64 and result.tolist() == [[*row[1:], -100][: len(row)] for row in labels], "targets"
    )


def make_fused(draw: np.random.Generator) -> dict[str, Any]:
    return {"hidden": normal(draw, 2, 3, 4), "weight": normal(draw, 7, 4),
            "targets": torch.from_numpy(draw.integers(0, 7, (2, 3))),
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
            if (matrix > 1 + 1e-6).any():
                confirm(result.shape == labels.shape, "shape")  # these are none, which a tensor does not say
                return
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

def check_fused(given: dict[str, Any], result: Any) -> None:
    hidden, weight = floats(given["hidden"]), floats(given["weight"], None, None)
    confirm(hidden.ndim >= 1 and hidden.shape[-1] == weight.shape[1], "hidden")
    targets, bias = ints(given["targets"]), given["bias"]
    confirm(targets.shape == hidden.shape[:-1] and all(t == -100 or 0 <= t < len(weight) for t in targets.flat),
            "targets")
    with np.errstate(all="ignore"):
        log_p = log_softmax(hidden @ weight.T + (0 if bias is None else floats(bias, len(weight))))
        left = targets == -100
        near(given, result, np.where(left, 0, -of_label(log_p, np.where(left, 0, targets).astype(np.int64))))


# ---- volume minimisation

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

def with_nll(loss: Any) -> Any:
    return lambda nll, **given: loss(nll, **given)


def make_start(draw: np.random.Generator) -> dict[str, Any]:
    start = pick(draw, {}, {"initial": -1.0}, {"initial_diagonal": 0.6})
    return {"num_classes": pick(draw, 2, 10), "initial": None, "initial_diagonal": None, **start}


def make_four(draw: np.random.Generator) -> dict[str, Any]:
    return {"logits": normal(draw, 4, CLASSES), "labels": torch.tensor([0, 1, 2, 0])}


LOGITS = {"logits": ("transition", "classes", "vocab_size"), "num_classes": ("classes",)}
FUSED = dict.fromkeys(("hidden", "weight", "targets", "bias"), ("torch", "classes"))

TARGETS = [
    Target("losses.corrected_nll", with_nll(corrected_nll), make_rates, check_corrected),
    Target("losses.clean_posterior", with_nll(clean_posterior), make_rates, check_clean),
    Target("losses.mixture_posterior", with_nll(mixture_posterior), make_rates,
           lambda given, result: check_clean(given, result, mixture=True)),
    Target("losses.posthoc_nll", lambda logits, targets, **given: posthoc_nll(logits, targets, **given), make_posthoc,
           check_posthoc, LOGITS, weight=2),
    Target("losses.shift_targets", shift_targets,
           lambda draw: {"labels": torch.from_numpy(draw.integers(0, 9, (2, 3)))},
           check_shift),
    Target("losses.token_nll", token_nll, make_fused, check_fused, FUSED),
    Target("losses.label_nll", label_nll, make_labels, check_label_nll, LOGITS, weight=2),
    Target("losses.transition_nll", transition_nll, lambda draw: make_four(draw) | {"transition": torch.tensor(T)},
           check_transition_nll, LOGITS),
    Target("losses.log_columns", log_columns, lambda draw: {"transition": torch.tensor(T, dtype=torch.float64)},
           check_columns),
    Target("losses.VolumeMinimisation", VolumeMinimisation, make_start, check_volume, LOGITS),
    Target("losses.VolumeMinimisation.forward", lambda **given: VolumeMinimisation(CLASSES)(**given), make_four,
           check_volume_loss),
]  # fmt: skip
