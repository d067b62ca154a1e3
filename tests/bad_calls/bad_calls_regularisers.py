"""Bad calls to regularisers of fine-tuning, and to the plans of their objective."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_calls_losses import floats, near, normal
from bad_calls_peers import inside
from bad_readers import confirm, number, whole
from bad_values import pick

from hf_noise.losses import l2_sp, lnsr, smart
from hf_noise.losses.l2_sp import low_rank_square
from hf_noise.objectives import L2SP, LNSR, SMART


def make_l2_sp(draw: np.random.Generator) -> dict[str, Any]:
    weights = [normal(draw, 2, 3), normal(draw, 4)]
    return {"weights": weights, "pretrained": [normal(draw, 2, 3), normal(draw, 4)],
            "head": pick(draw, [], [normal(draw, 3)]), "alpha": pick(draw, 0, 0.5),
            "beta": pick(draw, 0.0, 2)}  # fmt: skip


def check_l2_sp(given: dict[str, Any], result: Any) -> None:
    parts = {}
    for name in ("weights", "pretrained", "head"):
        confirm(isinstance(given[name], list | tuple), "no list")
        parts[name] = [floats(one) for one in given[name]]
    alpha, beta = (inside(given[name], 0, math.inf, "[)") for name in ("alpha", "beta"))
    confirm(len(parts["weights"]) == len(parts["pretrained"]) and parts["weights"] + parts["head"], "number")
    confirm(all(one.shape == two.shape for one, two in zip(parts["weights"], parts["pretrained"])), "shapes")
    with np.errstate(all="ignore"):
        moved = sum(((one - two) ** 2).sum() for one, two in zip(parts["weights"], parts["pretrained"]))
        near(given, result, np.asarray(alpha / 2 * moved + beta / 2 * sum((one**2).sum() for one in parts["head"])))


def make_product(draw: np.random.Generator) -> dict[str, Any]:
    return {"left": normal(draw, 4, 2), "right": normal(draw, 2, 3), "scale": pick(draw, 0.5, 2, -1.0)}


def check_product(given: dict[str, Any], result: Any) -> None:
    left, right, scale = floats(given["left"]), floats(given["right"]), number(given["scale"])
    confirm(left.ndim == right.ndim == 2 and left.shape[1] == right.shape[0] and math.isfinite(scale), "shapes")
    with np.errstate(all="ignore"):
        if np.isfinite(left).all() and np.isfinite(right).all():  # else inf - inf, in another order
            near(given, result, np.asarray(((scale * left @ right) ** 2).sum()))


def make_lnsr(draw: np.random.Generator) -> dict[str, Any]:
    layers = [lambda x: 2 * x, lambda x: x + 1]
    hidden = normal(draw, 2, 3, 4)
    return {"_layers": layers, "hidden": hidden, "noise": normal(draw, 2, 3, 4), "sigma": pick(draw, 0.05, 0, 1),
            "weights": pick(draw, None, [0.5, 2.0]),
            "mask": pick(draw, None, torch.ones(2, 3), hidden[..., 0] > 0)}  # fmt: skip


def check_lnsr(given: dict[str, Any], result: Any) -> None:
    hidden, noise, sigma = floats(given["hidden"]), floats(given["noise"]), inside(given["sigma"], 0, math.inf, "[)")
    confirm(hidden.ndim == 3 and hidden.shape == noise.shape, "shapes")
    layers, mask = given["_layers"], given["mask"]
    weights = [1 / len(layers)] * len(layers) if given["weights"] is None else given["weights"]
    confirm(isinstance(weights, list | tuple) and len(weights) == len(layers), "weights")
    confirm(tuple(result.shape) == (hidden.shape[0],), "one of each row")
    counted = np.ones(hidden.shape[:2])
    if mask is not None:
        confirm(isinstance(mask, torch.Tensor) and tuple(mask.shape) == hidden.shape[:2], "mask")
        counted = (mask != 0).numpy().astype(float)
    with np.errstate(all="ignore"):
        counted = counted / np.maximum(counted.sum(-1, keepdims=True), 1)
        size = (hidden**2).mean(-1)
        moved = 4 * sigma**2 * (size * counted).sum(-1)[:, None] * (noise**2).mean(-1)
        near(given, result, (moved * counted).sum(-1) * sum(map(number, weights)))


def make_smart(draw: np.random.Generator) -> dict[str, Any]:
    x = normal(draw, 3, 4)
    w = normal(draw, 4, 1).to(x.dtype)
    return {"_predict": lambda x: x.to(w.dtype).reshape(-1, 4) @ w, "embeddings": x, "logits": x @ w,
            "noise": normal(draw, 3, 4), "epsilon": pick(draw, 0.1, 1), "step_size": 1e3, "sigma": 1e-2,
            "steps": pick(draw, 1, 2), "divergence": "squared", "_weight": floats(w)}  # fmt: skip


def check_smart(given: dict[str, Any], result: Any) -> None:
    x, logits, noise = (floats(given[name]) for name in ("embeddings", "logits", "noise"))
    confirm(logits.ndim == 2 and x.ndim >= 2 and x.shape == noise.shape, "shapes")
    confirm(len(x) == len(logits) and given["divergence"] in ("squared", "symmetric_kl"), "rows")
    confirm(all(inside(given[name], 0, math.inf, "()") for name in ("epsilon", "step_size", "sigma")), "range")
    confirm(whole(given["steps"]) >= 1 and tuple(result.shape) == (len(x),), "steps")
    confirm(bool((result.isnan() | (result >= 0)).all()), "a distance")
    exact = all(given[name].element_size() > 2 for name in ("embeddings", "logits", "noise"))
    if given["divergence"] != "squared" or not exact or x.size != 4 * len(x) or not (noise != 0).all():
        return
    # Of a linear f whose steps are long enough, the farthest corner lies on the side on which the ascent begins.
    w = given["_weight"]
    epsilon, step_size, sigma = (float(given[name]) for name in ("epsilon", "step_size", "sigma"))
    begins = (x + sigma * noise).reshape(-1, 4) @ w - logits
    if step_size * np.abs(w).min() > 1e1 * epsilon and np.isfinite(begins).all():
        told = np.abs(begins[:, 0]) > 1e-4 * (1 + np.abs(logits[:, 0]))  # which does not hang on the last places
        corner = x.reshape(-1, 4) @ w - logits + np.sign(begins) * epsilon * np.abs(w).sum()
        near(given, result[torch.from_numpy(told)], corner[told, 0] ** 2)


def make_plan(kind: type) -> Any:
    fields = {
        L2SP: lambda draw: {"alpha": pick(draw, 0, 0.1), "beta": pick(draw, 0.5, 2)},
        SMART: lambda draw: {"weight": pick(draw, 1, 0.0), "epsilon": 1e-3, "step_size": 0.1, "sigma": 1, "steps": 2},
        LNSR: lambda draw: {"weight": pick(draw, 1, 0.0), "layer": pick(draw, 0, 3), "sigma": pick(draw, 0, 0.5)},
    }  # fmt: skip
    return fields[kind]


def check_plan(given: Mapping[str, Any], result: Any) -> None:
    for name, value in given.items():
        if name in ("steps", "layer"):
            confirm((1 if name == "steps" else 0) <= whole(value) == getattr(result, name), name)
        else:
            is_open = type(result) is SMART and name != "weight"
            confirm(inside(value, 0, math.inf, "()" if is_open else "[)") == getattr(result, name), name)


TARGETS = [
    Target("losses.l2_sp", l2_sp, make_l2_sp, check_l2_sp),
    Target("losses.low_rank_square", low_rank_square, make_product, check_product),
    # What is wrong in a function of the caller's own is told by that function.
    Target("losses.lnsr", lambda _layers, **given: lnsr(_layers, **given), make_lnsr, check_lnsr),
    Target("losses.smart", lambda _predict, _weight, **given: smart(_predict, **given), make_smart, check_smart),
    *(Target(f"objectives.{kind.__name__}", kind, make_plan(kind), check_plan) for kind in (L2SP, SMART, LNSR)),
]
