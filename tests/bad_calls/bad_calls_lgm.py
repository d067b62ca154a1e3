"""Bad calls to Local Gradient Matching: the loss, the objective, heads fitted together, and scikit-learn's face."""

from __future__ import annotations

import math
from typing import Any

import bad_twins as twin
import numpy as np
import torch
from bad_calls import Target
from bad_calls_losses import floats, labels_of, log_softmax, normal
from bad_readers import close, confirm, flag, ints, number, reals, same, text, whole
from bad_values import pick
from torch import nn

from hf_noise.estimators.lgm import LGMClassifier
from hf_noise.losses import feature_scale, local_gradient_matching, log_columns
from hf_noise.models.probe import probe
from hf_noise.objectives import LGM
from hf_noise.trainers import HeadPlan, HeadSetting, fit_heads, head_grid

T = np.array([[0.7, 0.2, 0.1], [0.0, 0.8, 0.2], [0.25, 0.05, 0.7]])
COLUMNS = log_columns(torch.from_numpy(T))
KINDS = ("difference", "norm", "cosine")
HEAD = nn.Linear(2, 3)
HEAD.load_state_dict({"weight": torch.tensor([[0.2, -0.1], [0.0, 0.3], [-0.4, 0.1]]),
                      "bias": torch.tensor([0.1, 0.0, -0.1])})  # fmt: skip


def at_least_0(value: Any) -> float:
    x = number(value)
    confirm(0 <= x < math.inf, "range")
    return x


# ---- the loss


def make_matching(draw: np.random.Generator) -> dict[str, Any]:
    return {
        "features": normal(draw, 4, 2), "labels": torch.from_numpy(draw.integers(0, 3, 4)),
        "gamma": pick(draw, 0.1, 0, 1), "lam": pick(draw, 1.0, 0.15, 0), "noise": normal(draw, 4, 2),
        "sample_weight": pick(draw, None, torch.tensor([1.0, 0, 2, 0.5])), "columns": pick(draw, None, COLUMNS.float()),
        "penalty": pick(draw, *KINDS), "gamma_relative": bool(draw.integers(2)),
    }  # fmt: skip


def check_matching(given: dict[str, Any], result: Any) -> None:
    features, noise = floats(given["features"], None, 2), given["noise"]
    confirm(np.isfinite(features).all() and len(features), "features")
    labels = labels_of(given["labels"], (len(features),), 3)
    gamma, lam, kind = at_least_0(given["gamma"]), at_least_0(given["lam"]), text(given["penalty"], *KINDS)
    gamma *= features.std(0).mean() if flag(given["gamma_relative"]) else 1
    weights = given["sample_weight"]
    weights = np.ones(len(features)) if weights is None else floats(weights, len(features))
    confirm((weights >= 0).all() and np.isfinite(weights).all() and weights.any(), "weights")
    columns = given["columns"]
    matrix = np.eye(3) if columns is None else np.exp(floats(columns, 3, 3)).T
    if noise is None:
        confirm(result.penalty.item() >= 0, "below 0")
        return
    noise = floats(noise, *features.shape)
    w, b = (value.detach().double().numpy() for value in (HEAD.weight, HEAD.bias))
    gradients, losses = [], []
    with np.errstate(all="ignore"):
        for x in (features, features + gamma * noise):
            p = np.exp(log_softmax(x @ w.T + b))
            joint = p * matrix[:, labels].T
            said = joint.sum(1)
            losses.append(-np.log(said) @ weights / weights.sum())
            residual = (p - joint / said[:, None]) * weights[:, None] / weights.sum()
            gradients.append(np.concatenate([(residual.T @ x).ravel(), residual.sum(0)]))
        one, other = gradients
        lengths = [np.linalg.norm(one), np.linalg.norm(other)]
        expected = {"difference": np.linalg.norm(one - other), "norm": lengths[0],
                    "cosine": 1 - one @ other / max(lengths[0] * lengths[1], 1e-300)}[kind]  # fmt: skip
        tame = np.abs(features).max() < 50 and np.abs(gamma * noise).max() < 50 and (matrix <= 1 + 1e-6).all()
        if not tame or min(lengths) < 1e-3 or not np.isfinite([expected, losses[0]]).all() or weights.max() > 1e6:
            confirm(result.loss.shape == (), "shape")
            return
        tolerance = 0.1 if torch.finfo(given["features"].dtype).bits < 32 else 2e-3
        close(result.penalty.item(), expected, tolerance)
        close(result.cross_entropy.item(), losses[0], tolerance)
        close(result.loss.item(), losses[0] + lam * expected, tolerance * (1 + lam))


def check_scale(given: dict[str, Any], result: Any) -> None:
    features = floats(given["features"])
    confirm(features.ndim >= 2 and features.size, "features")
    with np.errstate(all="ignore"):
        expected = features.reshape(len(features), -1).std(0).mean()
    if np.isfinite(expected) and np.abs(features).max() < 1e4:
        close(result.item(), expected, 1e-1 if torch.finfo(given["features"].dtype).bits < 32 else 1e-3)


# ---- the objective


def some_lgm(draw: np.random.Generator) -> dict[str, Any]:
    return {"gamma": pick(draw, 0.01, 0, 1), "lam": pick(draw, 0.15, 0), "gamma_relative": bool(draw.integers(2)),
            "transition": pick(draw, None, "known", T, T.tolist()), "penalty": pick(draw, *KINDS),
            "seed": pick(draw, 0, 7)}  # fmt: skip


def fields_of_lgm(given: Any) -> dict[str, Any]:
    given = {"gamma": 0.01, "lam": 0.15, "gamma_relative": False, "transition": None, "penalty": "difference",
             "seed": 0, **given}  # fmt: skip
    asked = given["transition"]
    if asked is not None:
        asked = text(asked, "known") if isinstance(asked, str) else twin.matrix_of(asked).tolist()
    return {"gamma": at_least_0(given["gamma"]), "lam": at_least_0(given["lam"]), "transition": asked,
            "gamma_relative": flag(given["gamma_relative"]), "penalty": text(given["penalty"], *KINDS),
            "seed": whole(given["seed"], 0, 2**63 - 1)}  # fmt: skip


#: As `bad_calls_objectives.KINDS` has them.
HEADS = {LGM: (some_lgm, fields_of_lgm)}


# ---- heads


def make_setting(draw: np.random.Generator) -> dict[str, Any]:
    return {"learning_rate": pick(draw, 6e-4, 1), "weight_decay": pick(draw, 0.0, 0.1), "gamma": pick(draw, 0.01, 0),
            "lam": pick(draw, 0.15, 0), "batch_size": pick(draw, 1, 32), "seed": pick(draw, 0, 3)}  # fmt: skip


def check_setting(given: dict[str, Any], result: Any) -> None:
    expected = {name: at_least_0(given[name]) for name in ("learning_rate", "weight_decay", "gamma", "lam")}
    expected |= {"batch_size": whole(given["batch_size"], 1, 1 << 24), "seed": whole(given["seed"], 0, 2**63 - 1)}
    confirm(expected["learning_rate"] > 0, "no step")
    if result is not None:
        same({name: getattr(result, name) for name in given}, expected)


def make_plan(draw: np.random.Generator) -> dict[str, Any]:
    return {"head": "mlp", "hidden": pick(draw, None, 4), "bias": bool(draw.integers(2)), "epochs": pick(draw, 1, 10),
            "schedule": pick(draw, "constant", "cosine"), "patience": pick(draw, None, 3),
            "best_by": pick(draw, "nll", "accuracy"), "tolerance": pick(draw, 0.0, 0.1), "penalty": pick(draw, *KINDS),
            "gamma_relative": bool(draw.integers(2)), "transition": pick(draw, None, T, T.tolist()),
            "validation_is_noisy": bool(draw.integers(2))}  # fmt: skip


def check_plan(given: dict[str, Any], result: Any) -> None:
    expected = {
        "head": text(given["head"], "mlp", "linear"), "schedule": text(given["schedule"], "constant", "cosine"),
        "best_by": text(given["best_by"], "nll", "accuracy"), "penalty": text(given["penalty"], *KINDS),
        "tolerance": at_least_0(given["tolerance"]), "epochs": whole(given["epochs"], 1, 1 << 24),
        **{name: flag(given[name]) for name in ("bias", "gamma_relative", "validation_is_noisy")},
        **{name: None if given[name] is None else whole(given[name], 1, 1 << 24) for name in ("hidden", "patience")},
    }  # fmt: skip
    for name, value in expected.items():
        confirm(getattr(result, name) == value, name)
    if given["transition"] is None:
        confirm(result.transition is None, "a matrix from nowhere")
    else:
        close(result.transition, twin.matrix_of(given["transition"]))


def make_grid(draw: np.random.Generator) -> dict[str, Any]:
    return {"lam": pick(draw, 0.15, [0.0, 0.15], (0.1,), np.array([0.0, 0.3])), "seed": pick(draw, range(3), 1, [2, 5])}


def grid(**given: Any) -> list[tuple[float, int]]:
    return [(setting.lam, setting.seed) for setting in head_grid(**given)]


def check_grid(given: dict[str, Any], result: Any) -> None:
    axes = [list(value) if isinstance(value, list | tuple | range) or isinstance(value, np.ndarray) and value.ndim else
            [value] for value in given.values()]  # fmt: skip
    wanted = [(at_least_0(lam), whole(seed, 0, 2**63 - 1)) for lam in axes[0] for seed in axes[1]]
    confirm(wanted and result == wanted, "another grid")


def make_fit(draw: np.random.Generator) -> dict[str, Any]:
    features = draw.normal(size=(6, 2))
    narrow, tensor = features.astype(np.float32), torch.from_numpy(features)
    return {"features": pick(draw, features, narrow, tensor, features.tolist()),
            "labels": pick(draw, np.array([0, 1, 2, 0, 1, 2]), [0, 1, 0, 1, 1, 0]),
            "settings": pick(draw, [HeadSetting(lam=0.1), HeadSetting()], HeadSetting()),
            "validation": pick(draw, None, (features[:2], [0, 1])), "sample_ids": pick(draw, None, np.arange(6)),
            "sample_weight": pick(draw, None, np.ones(6), [1.0, 2, 1, 1, 1, 0]), "num_classes": pick(draw, None, 4)
            }  # fmt: skip


def rows_of(features: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    features, labels = reals(features, 2), ints(labels, 1)
    confirm(features.size and len(features) == len(labels), "counts")
    with np.errstate(over="ignore"):
        wide = np.asarray(features, dtype=np.float64)
    confirm(np.isfinite(wide).all() and min(labels) >= 0, "values")
    return wide, labels.astype(np.int64)


def check_fit(given: dict[str, Any], result: Any) -> None:
    features, labels = rows_of(given["features"], given["labels"])
    weights = np.ones(len(labels)) if given["sample_weight"] is None else reals(given["sample_weight"], 1)
    confirm(len(weights) == len(labels) and (weights >= 0).all() and np.isfinite(weights).all(), "weights")
    confirm(len(set(labels[weights > 0])) > 1, "one class")
    if given["sample_ids"] is not None:
        confirm(len(ints(given["sample_ids"], 1)) == len(labels), "ids")
    classes = 1 + max(labels)
    if given["validation"] is not None:
        confirm(isinstance(given["validation"], list | tuple) and len(given["validation"]) in (2, 3), "validation")
        held, of_held = rows_of(*given["validation"][:2])
        confirm(held.shape[1] == features.shape[1], "width")
        classes = max(classes, 1 + max(of_held))
    if given["num_classes"] is not None:
        confirm(classes <= whole(given["num_classes"], 2, 1 << 20), "classes")
        classes = int(given["num_classes"])
    settings = [given["settings"]] if isinstance(given["settings"], HeadSetting) else list(given["settings"])
    confirm(settings and all(isinstance(setting, HeadSetting) for setting in settings), "settings")
    weight, bias = (reals(result[name]) for name in ("weight", "bias"))
    confirm(weight.shape == (len(settings), classes, features.shape[1]), "shape")
    if np.abs(features).max() < 1e3:
        confirm((np.abs(weight) <= features.shape[1] ** -0.5 + 0.01).all(), "far from where it began")
        close(result["logits"], features @ weight.transpose(0, 2, 1) + bias[:, None], 1e-3)


def fit(**given: Any) -> dict[str, Any]:
    found = fit_heads(plan=HeadPlan(epochs=1), progress=False, **given)
    return {**found.parameters, "logits": found.logits(given["features"])}


# ---- scikit-learn's face, and heads by name


def make_classifier(draw: np.random.Generator) -> dict[str, Any]:
    return {"_rows": draw.normal(size=(8, 2)), "gamma": pick(draw, 0.01, 0), "lam": pick(draw, 0.15, 0),
            "batch_size": pick(draw, 2, 64), "learning_rate": pick(draw, 1e-3, 0.1)}  # fmt: skip


def classify(_rows: Any, **settings: Any) -> dict[str, Any]:
    """scikit-learn looks at the rows, in words of its own; `check_estimator` tries those."""
    found = LGMClassifier(epochs=1, random_state=0, **settings).fit(_rows, list("abababab"))
    return {"weight": found.coefs_[0], "bias": found.intercepts_[0], "decision": found.decision_function(_rows)}


def check_classifier(given: dict[str, Any], result: Any) -> None:
    check_setting({**given, "weight_decay": 0.0, "seed": 0}, None)
    logits = given["_rows"] @ reals(result["weight"], 2) + reals(result["bias"], 1)
    close(result["decision"], logits[:, 1] - logits[:, 0], 1e-9)


def make_probe(draw: np.random.Generator) -> dict[str, Any]:
    return {"name": "mlp", "num_features": pick(draw, 2, 8), "num_classes": 3, "hidden": pick(draw, None, 5),
            "bias": bool(draw.integers(2))}  # fmt: skip


def check_probe(given: dict[str, Any], result: Any) -> None:
    name = text(given["name"], "linear", "mlp")
    wide, classes = (whole(given[key], 1, 2**17) for key in ("num_features", "num_classes"))
    confirm(isinstance(given["bias"], bool), "bias")
    hidden = wide if given["hidden"] is None else whole(given["hidden"], 1, 2**17)
    confirm(name == "mlp" or given["hidden"] is None, "hidden units of a linear head")
    sizes = [(classes, wide)] if name == "linear" else [(hidden, wide), (classes, hidden)]
    confirm([tuple(value.shape) for value in result.parameters() if value.ndim == 2] == sizes, "sizes")


TARGETS = [
    Target("losses.local_gradient_matching", lambda **given: local_gradient_matching(HEAD, **given), make_matching,
           check_matching, {"labels": ("classes", "features"), "features": ("sample_weight", "noise")}, weight=3),
    Target("losses.feature_scale", feature_scale, lambda draw: {"features": normal(draw, 3, 2)}, check_scale),
    Target("trainers.HeadSetting", HeadSetting, make_setting, check_setting),
    Target("trainers.HeadPlan", HeadPlan, make_plan, check_plan, {"transition": ("T",)}),
    Target("trainers.head_grid", grid, make_grid, check_grid),
    Target("trainers.fit_heads", fit, make_fit, check_fit,
           {"settings": ("setting",), "sample_weight": ("labels",)}, weight=2),
    Target("estimators.LGMClassifier.fit", classify, make_classifier, check_classifier),
    Target("models.probe", probe, make_probe, check_probe),
]  # fmt: skip
