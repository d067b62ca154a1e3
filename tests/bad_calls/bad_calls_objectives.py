"""Bad fields of objectives, bad dictionaries of them, and bad values of `loss=` for the trainers that take one."""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Mapping
from typing import Any

import bad_twins as twin
import numpy as np
import torch
from bad_calls import Target
from bad_calls_image_trainers import _classifier, _time_classifier, _unet, flips, images
from bad_calls_image_trainers import matrix as matrix_of_classes
from bad_calls_lgm import HEADS
from bad_calls_peers import PEERS
from bad_calls_trainers import CLASSES, TOKENS, T, _gpt2, token_rows, training_arguments
from bad_readers import close, confirm, flag, number, same, text, whole
from bad_values import pick

from hf_noise.noise import UniformTokens
from hf_noise.objectives import (
    DSM,
    NLL,
    TDSM,
    Corrected,
    CorrectedLabels,
    CrossEntropy,
    Objective,
    VolumePlan,
    objective_from_dict,
)
from hf_noise.trainers import CausalLMTrainer, EDMTrainer, ImageClassifierTrainer, TimeClassifierTrainer
from hf_noise.trainers.images import DeviceImages

# ---- the values themselves


def some_rate(draw: np.random.Generator) -> dict[str, Any]:
    return {"error_rate": pick(draw, "known", "learned", 0.3, 0.0)}


def some_plan(draw: np.random.Generator) -> dict[str, Any]:
    return {
        "phases": pick(draw, ((0.5, 1.0), (0.75, 0.1)), [[0.5, 1], [1.0, 0]]), "matrix_rate": pick(draw, 30.0, 1),
        "weight": pick(draw, 1e-4, 0), "initial_diagonal": pick(draw, None, 0.5),
    }  # fmt: skip


def some_matrix(draw: np.random.Generator) -> dict[str, Any]:
    transition = pick(draw, "known", "estimated", T, T.tolist(), torch.tensor(T))
    return {"transition": transition, "volume": pick(draw, None, VolumePlan(weight=0.5), VolumePlan.paper())}


def some_weights(draw: np.random.Generator) -> dict[str, Any]:
    return {
        "transition": pick(draw, None, T, T.tolist()), "weights": pick(draw, "bayes", "inverse"),
        "tau": pick(draw, 0.01, 0), "temperature": pick(draw, 1.0, 2), "renormalise": bool(draw.integers(2)),
        "grad_classes": pick(draw, "observed", "all"), "chunk": pick(draw, None, 4),
    }  # fmt: skip


def fields_of_rate(given: Mapping[str, Any]) -> dict[str, Any]:
    rate = given.get("error_rate", "known")
    if isinstance(rate, str):
        return {"error_rate": text(rate, "known", "learned")}
    confirm(0 <= number(rate) < 1, "rate outside [0, 1)")
    return {"error_rate": number(rate)}


def fields_of_plan(given: Mapping[str, Any]) -> dict[str, Any]:
    usual = {"phases": ((0.5, 1.0), (0.6, 0.1), (0.7, 0.01)), "matrix_rate": 30.0, "weight": 1e-4}
    given = {**usual, "initial_diagonal": None, **given}
    confirm(set(given) == {*usual, "initial_diagonal"}, "other fields")
    confirm(isinstance(given["phases"], list | tuple) and len(given["phases"]), "phases")
    confirm(all(isinstance(phase, list | tuple) and len(phase) == 2 for phase in given["phases"]), "a phase")
    phases = [[number(part) for part in phase] for phase in given["phases"]]
    shares = [0.0, *(share for share, _ in phases)]
    confirm(all(one < other for one, other in zip(shares, shares[1:])) and shares[-1] <= 1, "shares")
    positive = [*(factor for _, factor in phases), number(given["weight"])]
    confirm(all(0 <= value < math.inf for value in positive), "below 0")
    confirm(0 < number(given["matrix_rate"]) < math.inf, "matrix_rate")
    start = given["initial_diagonal"]
    confirm(start is None or 0 < number(start) < 1, "initial_diagonal")
    return {
        "phases": phases, "matrix_rate": number(given["matrix_rate"]), "weight": number(given["weight"]),
        "initial_diagonal": None if start is None else number(start),
    }  # fmt: skip


def fields_of_matrix(given: Mapping[str, Any]) -> dict[str, Any]:
    asked, volume = given.get("transition", "known"), given.get("volume")
    asked = text(asked, "known", "estimated") if isinstance(asked, str) else twin.matrix_of(asked).tolist()
    if volume is not None:
        volume = fields_of_plan(volume if isinstance(volume, Mapping) else plain(volume))
    return {"transition": asked, "volume": volume}


def fields_of_weights(given: Mapping[str, Any]) -> dict[str, Any]:
    usual = {
        "transition": None, "weights": "bayes", "tau": 0.01, "temperature": 1.0, "renormalise": False,
        "grad_classes": "observed", "chunk": None,
    }  # fmt: skip
    given = {**usual, **given}
    confirm(0 <= number(given["tau"]) < 1 and 0 < number(given["temperature"]) < math.inf, "range")
    return {
        "transition": None if given["transition"] is None else twin.matrix_of(given["transition"]).tolist(),
        "weights": text(given["weights"], "bayes", "inverse"), "tau": number(given["tau"]),
        "temperature": number(given["temperature"]), "renormalise": flag(given["renormalise"]),
        "grad_classes": text(given["grad_classes"], "observed", "all"),
        "chunk": None if given["chunk"] is None else whole(given["chunk"], 1, 2**31),
    }  # fmt: skip


def plain(plan: Any) -> dict[str, Any]:
    confirm(isinstance(plan, VolumePlan), "no plan")
    return {name: getattr(plan, name) for name in ("phases", "matrix_rate", "weight", "initial_diagonal")}


#: How each is drawn, and what its fields come out as; those without fields take none.
KINDS = {
    NLL: (lambda draw: {}, dict), Corrected: (some_rate, fields_of_rate), CrossEntropy: (lambda draw: {}, dict),
    CorrectedLabels: (some_matrix, fields_of_matrix), DSM: (lambda draw: {}, dict),
    TDSM: (some_weights, fields_of_weights), **PEERS, **HEADS,
}  # fmt: skip
BY_NAME = {(unit, cls.name): cls for cls in KINDS for unit in cls.units or (cls.unit,)}


def made(cls: type, **given: Any) -> dict[str, Any]:
    """The fields of what was made, if it comes back from JSON as the same value."""
    return told(cls(**given))


def told(objective: Any) -> dict[str, Any]:
    again = objective_from_dict(json.loads(json.dumps(objective.to_dict())))
    same_value = again == objective and hash(again) == hash(objective) and again.to_dict() == objective.to_dict()
    return {**json.loads(json.dumps(objective.to_dict())), "comes_back": same_value}


def check_told(cls: type, given: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    expected = {"unit": cls.unit, "name": cls.name, "comes_back": True, **KINDS[cls][1](given)}
    confirm(set(result) == set(expected), f"fields {sorted(result)}")
    for name, value in expected.items():
        if isinstance(value, list):
            close(result[name], value, 1e-9, name)
        else:
            confirm(type(result[name]) is type(value), f"{name} is {result[name]!r}")
            same_field(result[name], value, name)


def same_field(found: Any, expected: Any, name: str) -> None:
    if isinstance(expected, dict):
        confirm(set(found) == set(expected), name)
        for key, value in expected.items():
            same(found[key], value, key)
    else:
        same(found, expected, name)


def make_plan(**given: Any) -> dict[str, Any]:
    plan = VolumePlan(**given)
    last = plan.phases[-1][0]
    return {**plain(plan), "first": plan.factors(0.0), "after": plan.factors(last)}


def check_plan(given: dict[str, Any], result: dict[str, Any]) -> None:
    expected = fields_of_plan(given)
    first = expected["phases"][0][1]
    for name, value in (expected | {"first": [first, first], "after": [1.0, 0.0]}).items():
        same(result[name], value, name)


def config_call(draw: np.random.Generator) -> dict[str, Any]:
    cls = pick(draw, *KINDS)
    config = json.loads(json.dumps(cls(**KINDS[cls][0](draw)).to_dict()))
    optional = [name for name in config if name not in ("unit", "name") and draw.random() < 0.2]
    return {"config": {name: value for name, value in config.items() if name not in optional}}


def check_config(given: dict[str, Any], result: dict[str, Any]) -> None:
    config = given["config"]
    confirm(isinstance(config, Mapping), "no dictionary")
    cls = BY_NAME[text(config["unit"]), text(config["name"])]
    fields = {name: value for name, value in config.items() if name not in ("unit", "name")}
    confirm(set(fields) <= set(result), "unknown fields")
    check_told(cls, fields, result)


# ---- `loss=` of a trainer


ODD = (
    lambda: NLL(), lambda: CrossEntropy(), lambda: DSM(), lambda: TDSM(), lambda: Corrected("learned"),
    lambda: CorrectedLabels("estimated"), lambda: CorrectedLabels(T), lambda: TDSM, lambda: NLL, lambda: Objective,
    lambda: Objective(), lambda: NLL().to_dict(), lambda: Corrected(0.2), lambda: CorrectedLabels(np.eye(3)),
    lambda: TDSM(tau=0.5), lambda: TDSM(transition=np.eye(CLASSES)), lambda: VolumePlan(),
)  # fmt: skip
LOGITS = torch.linspace(-1, 2, 3 * CLASSES).reshape(3, CLASSES)
LABELS = torch.tensor([0, 3, 1])


def loss_of_tokens(draw: np.random.Generator) -> dict[str, Any]:
    loss = pick(draw, "nll", NLL(), "corrected", Corrected(), Corrected(0.3), Corrected("learned"))
    noise = UniformTokens(error_rate=0.4, vocab_size=TOKENS, seed=1)
    return {"loss": loss, "error_rate": "known", "_noise": noise}


def trained_on_tokens(loss: Any, error_rate: Any, _noise: Any) -> dict[str, Any]:
    trainer = CausalLMTrainer(
        copy.deepcopy(_gpt2()), training_arguments(), train_dataset=token_rows(np.random.default_rng(0)), noise=_noise,
        loss=loss, error_rate=error_rate,
    )  # fmt: skip
    with torch.no_grad():
        losses = trainer.objective(torch.tensor([0.1, 2.0, 5.0])).tolist()
    return {"told": told(trainer.loss), "losses": losses, "in_config": trainer.model.config.hf_noise_objective}


def check_on_tokens(given: dict[str, Any], result: dict[str, Any]) -> None:
    loss, rate, nll = given["loss"], given["error_rate"], torch.tensor([0.1, 2.0, 5.0]).double()
    is_short = isinstance(loss, str) and loss == "corrected"
    confirm(is_short or isinstance(rate, str) and rate == "known", "two rates")
    cls, fields = expected_loss(loss, "tokens", {"error_rate": rate} if is_short else {})
    check_told(cls, fields, result["told"])
    same_field({**result["in_config"], "comes_back": True}, result["told"], "config")
    if cls is Corrected:
        e = fields_of_rate(fields)["error_rate"]
        if e == "learned":
            return  # it starts elsewhere
        e = given["_noise"].error_rate if e == "known" else e
        nll = -torch.log((1 - e) * torch.exp(-nll) + e / TOKENS)
    close(result["losses"], nll.tolist(), 1e-5, "losses")


def expected_loss(loss: Any, unit: str, own: Mapping[str, Any]) -> tuple[type, dict[str, Any]]:
    """The class and fields that `loss=` means."""
    if isinstance(loss, str):
        return BY_NAME[unit, text(loss)], dict(own)
    confirm(type(loss) in KINDS and loss.unit == unit, "no objective on this unit")
    return type(loss), {name: value for name, value in loss.to_dict().items() if name not in ("unit", "name")}


def loss_of_labels(draw: np.random.Generator, learned: bool) -> dict[str, Any]:
    estimated = [CorrectedLabels("estimated", VolumePlan(weight=0.5))] if learned else []
    losses = ("nll", CrossEntropy(), "corrected", CorrectedLabels(), CorrectedLabels(T), *estimated)
    return {"loss": pick(draw, *losses), "_noise": flips(draw)}


def trained_on_labels(cls: type, loss: Any, _noise: Any) -> dict[str, Any]:
    if cls is TimeClassifierTrainer and loss is None:
        loss = "corrected"  # it says that transition= says it
    model = _classifier() if cls is ImageClassifierTrainer else _time_classifier()
    trainer = cls(copy.deepcopy(model), training_arguments(), train_dataset=pictures(), noise=_noise, loss=loss)
    with torch.no_grad():
        losses = trainer.objective(LOGITS, LABELS).tolist()
    return {"told": told(trainer.loss), "losses": losses, "source": trainer.objective.source}


@functools.cache
def pictures() -> DeviceImages:
    draw = np.random.default_rng(0)
    return DeviceImages(**next(rows for rows in iter(lambda: images(draw), None) if isinstance(rows, dict)))


def check_on_labels(learned: bool, given: dict[str, Any], result: dict[str, Any]) -> None:
    if learned and given["loss"] is None:
        given = {**given, "loss": "corrected"}
    cls, fields = expected_loss(given["loss"], "labels", {})
    check_told(cls, fields, result["told"])
    asked = fields.get("transition", "known")
    p, used, source = LOGITS.double().softmax(-1), None, "none"
    if cls is CorrectedLabels:
        source = asked if isinstance(asked, str) else "given"
        used = {"known": given["_noise"].transition, "given": asked}.get(source)
        used = None if used is None else matrix_of_classes(np.asarray(used).tolist())
    same(result["source"], source)
    if source != "estimated":
        p = p if used is None else p @ torch.as_tensor(np.array(used), dtype=torch.float64)
        close(result["losses"], (-torch.log(p[range(3), LABELS])).tolist(), 1e-4, "losses")


def loss_of_images(draw: np.random.Generator) -> dict[str, Any]:
    loss = pick(draw, "dsm", DSM(), "tdsm", TDSM(weights="inverse", tau=0.1), TDSM(weights="inverse", transition=T))
    is_plain = isinstance(loss, DSM) or loss == "dsm"
    return {"loss": loss, "_classifier": None if is_plain else copy.deepcopy(_time_classifier()), "_noise": flips(draw)}


def trained_on_images(loss: Any, _classifier: Any, _noise: Any) -> dict[str, Any]:
    own = {"weights": "inverse"} if isinstance(loss, str) and loss == "tdsm" else {}
    trainer = EDMTrainer(
        copy.deepcopy(_unet()), training_arguments(), train_dataset=pictures(), noise=_noise, loss=loss,
        classifier=_classifier, **own,
    )  # fmt: skip
    matrix = None if trainer.transition is None else trainer.transition.matrix.double().tolist()
    return {"told": told(trainer.loss), "transition": matrix}


def check_on_images(given: dict[str, Any], result: dict[str, Any]) -> None:
    cls, fields = expected_loss(given["loss"], "images", {})
    if isinstance(given["loss"], str) and cls is TDSM:
        fields = {"weights": "inverse"}
    check_told(cls, fields, result["told"])
    confirm(cls is TDSM or given["_classifier"] is None, "a classifier of no use")
    stated = fields.get("transition") if fields.get("transition") is not None else given["_noise"].transition
    used = matrix_of_classes(np.asarray(stated).tolist())
    if cls is DSM or np.array_equal(used, np.eye(CLASSES)):
        confirm(result["transition"] is None, "through nothing")
        return
    confirm(given["_classifier"] is not None and fields.get("weights") == "inverse", "no classifier of noisy labels")
    close(result["transition"], used, 1e-6, "transition")


WORDS = {
    "transition": ("transition matrix", "T"), "volume": ("initial_diagonal", "matrix_rate", "weight", "phases"),
    "phases": ("shares", "factors"), "config": ("objective", "dictionary", "transition", "volume", "error_rate",
    "weights", "tau", "temperature", "renormalise", "grad_classes", "chunk", "T", "phases", "matrix_rate", "weight",
    "initial_diagonal", "beta", "lam", "forget_rate", "warmup", "peer", "seed", "q", "smoothing",
    "fraction", "drops", "start", "memory", "threshold", "alpha",
    "noise", "gamma", "penalty", "gamma_relative"), "loss": ("transition", "weights", "classifier"),
}  # fmt: skip

TARGETS = [
    *(
        Target(f"objectives.{cls.__name__}", functools.partial(made, cls), KINDS[cls][0],
               functools.partial(check_told, cls), WORDS)
        for cls in (Corrected, CorrectedLabels, TDSM, *PEERS, *HEADS)
    ),
    Target("objectives.VolumePlan", make_plan, some_plan, check_plan, WORDS),
    Target("objectives.objective_from_dict", lambda config: told(objective_from_dict(config)), config_call,
           check_config, WORDS),
    Target("trainers.CausalLMTrainer.loss", trained_on_tokens, loss_of_tokens, check_on_tokens, WORDS, {"loss": ODD}),
    Target("trainers.ImageClassifierTrainer.loss", functools.partial(trained_on_labels, ImageClassifierTrainer),
           functools.partial(loss_of_labels, learned=False), functools.partial(check_on_labels, False), WORDS,
           {"loss": ODD}),
    Target("trainers.TimeClassifierTrainer.loss", functools.partial(trained_on_labels, TimeClassifierTrainer),
           functools.partial(loss_of_labels, learned=True), functools.partial(check_on_labels, True), WORDS,
           {"loss": ODD}),
    Target("trainers.EDMTrainer.loss", trained_on_images, loss_of_images, check_on_images, WORDS, {"loss": ODD}),
]  # fmt: skip
