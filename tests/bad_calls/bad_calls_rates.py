"""Bad calls to rates and plans, to what reads a noise from where it is stored, and to normal numbers."""

from __future__ import annotations

import json
import math
from typing import Any

import bad_twins as twin
import numpy as np
import torch
from bad_calls import Target
from bad_calls_tokens import SAMPLE, document_noise, seed_of, token_noise
from bad_readers import Unconfirmed, close, confirm, ints, number, same, text, whole
from bad_values import pick

from hf_noise.noise import (
    HumanLabels,
    LabelFlips,
    Noise,
    Plan,
    noise_from_description,
    noise_from_dict,
    plan_named,
    rates,
    realised_rate,
)
from hf_noise.noise.block import as_noise, noise_block, noise_sentence
from hf_noise.noise.normals_torch import log_normals, normals, uniforms
from hf_noise.noise.schedule import Table6, Table7

# ---- rates and plans


def check_resolve(given: dict[str, Any], result: Any) -> None:
    with_floor = {name: value for name, value in given.items() if name in ("r", "e")}
    r, e = (None if value is None else number(value) for value in (with_floor["r"], with_floor["e"]))
    confirm(r is None or 0 <= r < math.inf, "r")
    confirm(e is None or 0 <= e < 1, "e")
    confirm(r is not None or e is not None, "no rate")
    e = r / (1 + r) if r is not None else e
    confirm(e < 1 and abs(result[1] - e) <= 1e-9, "e")
    confirm(abs(result[0] - result[1] / (1 - result[1])) <= 1e-6 * (1 + result[0]), "r")


def check_rate(given: dict[str, Any], result: Any) -> None:
    [(name, value)] = given.items()
    value = number(value)
    confirm(0 <= value < (math.inf if name == "r" else 1), "range")
    close(result, value / (1 + value) if name == "r" else value / (1 - value), 1e-9)
    confirm(name == "e" or result < 1, "1")


def check_length(given: dict[str, Any], result: Any) -> None:
    base, r = whole(given["base"], 1), number(given["r"])
    confirm(0 <= r < math.inf, "r")
    confirm(abs(result[0] - base * (1 + r)) <= 0.5 + 1e-9 * base and abs(result[1] - r / (1 + r)) < 1e-12, "length")


def make_plan(draw: np.random.Generator) -> dict[str, Any]:
    name = pick(draw, "steps", "batch", "table6", "table7", "budget")
    settings = {"steps": {"batch_multiplier": 2}, "table7": {"classes": 100, "reading": "as_printed"}}.get(name, {})
    return {
        "name": name, "settings": settings, "ratio": pick(draw, 0, 0.1, 0.3, 0.5, 1.0), "steps": pick(draw, 1, 1000),
        "batch_size": pick(draw, 8, 480),
    }  # fmt: skip


def check_plan(given: dict[str, Any], plan: Any) -> None:
    name, settings, r = text(given["name"]), dict(given["settings"]), number(given["ratio"])
    steps, batch = whole(given["steps"], 1), whole(given["batch_size"], 1)
    confirm(0 <= r < math.inf, "ratio")
    near = {"steps": (1 + r, 1), "batch": (1, 1 + r), "budget": (1, 1)}
    if name == "steps":
        m = whole(settings.pop("batch_multiplier", 1), 1)
        near = {"steps": ((1 + r) / m, m)}
    elif name in ("table6", "table7"):
        classes = whole(settings.pop("classes", 1000)) if name == "table7" else None
        reading = (
            text(settings.pop("reading", "principle"), "principle", "as_printed") if name == "table7" else "principle"
        )
        table = Table6.multipliers if name == "table6" else Table7.multipliers.get(classes, {})
        m = next((m for listed, m in table.items() if abs(listed - r) <= 1e-9), None)
        confirm(m is not None, "not in the table")
        near = {name: ((1 + r) / (m if reading == "principle" else m**2), m)}
    confirm(not settings and name in near, "other settings")
    by_steps, by_batch = near[name]
    confirm(abs(plan.steps - max(1, steps * by_steps)) <= 0.5 + 1e-9 * plan.steps, f"steps {plan.steps}")
    confirm(abs(plan.batch_size - max(1, batch * by_batch)) <= 0.5 + 1e-9 * plan.batch_size, f"batch {plan.batch_size}")
    check_plan_fields({"name": name, "ratio": r, "steps": plan.steps, "batch_size": plan.batch_size,
            "base_steps": steps,
                       "base_batch_size": batch}, plan)  # fmt: skip


PLAN = {"name": "steps", "ratio": 0.5, "steps": 15, "batch_size": 8, "base_steps": 10, "base_batch_size": 8}


def check_plan_fields(given: dict[str, Any], plan: Any) -> None:
    confirm(plan.name == text(given["name"]), "name")
    r = number(given["ratio"])
    confirm(0 <= r < math.inf and r / (1 + r) < 1, "ratio")
    sizes = {name: whole(given[name], 1) for name in PLAN if name not in ("name", "ratio")}
    for name, size in sizes.items():
        confirm(type(getattr(plan, name)) is int and getattr(plan, name) == size, name)
    close(
        plan.exposure, sizes["steps"] * sizes["batch_size"] / (1 + r) / sizes["base_steps"] / sizes["base_batch_size"]
    )
    json.dumps(plan.to_dict(4))


def check_tokens_of_plan(given: dict[str, Any], result: Any) -> None:
    block = given["block_size"]
    names = {"plan": "name"} | {name: name for name in PLAN if name != "name"}
    confirm(all(result[name] == PLAN[of] for name, of in names.items()), "entries")
    numbers = [result[name] for name in ("error_rate", "batch_multiplier", "sequences", "exposure")]
    close(numbers, [1 / 3, 1, 120, 1], 1e-12)
    if block is None:
        confirm("tokens" not in result, "tokens")
    else:
        same(result["tokens"], 120 * whole(block, 1))
        same(result["clean_tokens"], round(120 * int(block) / 1.5))


# ---- stored noises


def check_mask(given: dict[str, Any], result: Any) -> None:
    values = np.asarray(
        given["is_noisy"].detach() if isinstance(given["is_noisy"], torch.Tensor) else given["is_noisy"]
    )
    if isinstance(given["is_noisy"], np.ma.MaskedArray) or values.dtype.kind not in "biu":
        raise Unconfirmed(f"no mask: {values.dtype}")
    flat = values.reshape(-1).tolist()
    confirm(flat and all(value in (0, 1) for value in flat), "no mask")
    same(result["n"], len(flat))
    close(result["rate"], sum(flat) / len(flat), 1e-12)


def any_noise(draw: np.random.Generator) -> Noise:
    return pick(draw, token_noise, document_noise, lambda _: LabelFlips.pairs({0: 1}, 0.3, num_classes=3),
                lambda _: LabelFlips.from_transition([[0.9, 0.1], [0.25, 0.75]]),
                lambda _: LabelFlips.symmetric(0.5, num_classes=10),
                lambda _: HumanLabels.from_columns([0, 1, 1], [0, 0, 1], num_classes=2,
                name="worse"))(draw)  # fmt: skip


def make_config(draw: np.random.Generator) -> dict[str, Any]:
    return {"config": json.loads(json.dumps(any_noise(draw).to_dict()))}


def check_config(given: dict[str, Any], noise: Any, config: Any = None) -> None:
    """It says of itself what it was told: every value that was given is there, as the same kind of JSON."""
    config = given["config"] if config is None else config
    confirm(isinstance(config, dict), "no dictionary")
    said = json.loads(json.dumps(noise.to_dict()))
    for name, value in config.items():
        if value is None:
            continue  # the default, which is then said
        stated = said.get(name, math.inf)
        value = _json(value)
        if name == "exclude" and isinstance(value, int):
            value %= said["vocab_size"]
        if name == "allow_adversarial" and value is True:
            continue  # said where it is needed alone
        nearly = isinstance(value, int | float) and not isinstance(value, bool) and isinstance(stated, int | float)
        if name == "mapping" and not isinstance(value, dict | list):
            value = [[0, 1]]  # read once, as it was made
        if name == "mapping":
            value = sorted(map(list, value.items() if isinstance(value, dict) else value))
        if name == "matrix" or nearly and not isinstance(stated,
                bool) and not (isinstance(stated, int) and isinstance(value, float)):
            close(stated, value)
        else:
            confirm(stated == value and type(stated) is type(value), f"{name} is {stated!r}, given {value!r}")
    twin.stored(noise)


def _json(value: Any) -> Any:
    """A value of a stored noise as JSON would hold it; what JSON cannot hold is read as what it is."""
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.tolist() if not isinstance(value, np.ma.MaskedArray) else _masked()
    if isinstance(value, memoryview | bytearray) or hasattr(value, "typecode"):
        return np.asarray(value).tolist()
    if isinstance(value, list | tuple):
        return [_json(entry) for entry in value]
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | float | dict) or value is None or hasattr(value, "__next__"):
        return value
    return number(value)


def _masked() -> None:
    raise Unconfirmed("a masked array")


def make_description(draw: np.random.Generator) -> dict[str, Any]:
    said = json.dumps({"noise": any_noise(draw).to_dict() | {"realised": {"rate": 0.3, "n": 9}}, "epoch": 0})
    return {"description": pick(draw, f"Some text.\n\n{said}\n", said, "Some text.", None)}


def check_description(given: dict[str, Any], result: Any) -> None:
    description = given["description"]
    last = "" if description is None else text(description).strip().splitlines()[-1:] or ""
    if not last or not last[0].startswith('{"noise"'):
        confirm(result is None, "a noise of nothing")
        return
    config = json.loads(last[0])["noise"]
    config.pop("realised", None)
    check_config({}, result, config)


DESCRIPTIONS = (
    lambda: '{"noise"', lambda: '{"noise": 1}', lambda: '{"noise": null}', lambda: '{"noise": {}}', lambda: "\n",
    lambda: '{"noise": {"protocol": "uniform_tokens", "version": 1, "ratio": NaN, "vocab_size": 5}}',
    lambda: '{"noise": ' + "[" * 100_000, lambda: '{"noise"}', lambda: '{"noise": {"protocol": 1e999}}',
)  # fmt: skip


def make_block(draw: np.random.Generator) -> dict[str, Any]:
    noise = any_noise(draw)
    return {"noise": pick(draw, noise, noise.to_dict() | {"realised": {"rate": 0.3, "n": 9}})}


def check_block(given: dict[str, Any], block: Any) -> None:
    noise = given["noise"]
    if isinstance(noise, dict):
        realised = noise.get("realised")
        confirm(realised is None or (0 <= number(realised["rate"]) <= 1 and whole(realised["n"]) >= 1), "realised")
        check_config({"config": {name: value for name, value in noise.items() if name != "realised"}},
                     noise_from_dict(block["config"]))  # fmt: skip
    config = as_noise(noise).to_dict()
    said = {"protocol": config["protocol"], "r": config.get("ratio"), "e": config.get("error_rate"),
            "alpha": config.get("alpha"), "seed": config.get("seed"), "config": config}  # fmt: skip
    if isinstance(noise, dict) and noise.get("realised") is not None:
        confirm({name: block["realised"][name] for name in ("rate", "n")} == {
            "rate": float(noise["realised"]["rate"]), "n": int(noise["realised"]["n"])}, "realised")  # fmt: skip
        said["realised"] = block["realised"]
    confirm(block == {name: value for name, value in said.items() if value is not None}, "block")
    sentence = noise_sentence(block)
    confirm(isinstance(sentence, str) and sentence.endswith("."), "sentence")


# ---- normal numbers


def make_normals(draw: np.random.Generator) -> dict[str, Any]:
    return {"seed": seed_of(draw), "stream": 84, "epoch": 0, "sample": torch.arange(3), "length": pick(draw, 0, 1, 4)}


def _words(given: dict[str, Any], length: int) -> list[list[int]]:
    key = twin.key_of(whole(given["seed"], *twin.SEED), whole(given["stream"]), twin.epoch_of(given["epoch"]))
    confirm(isinstance(given["sample"], torch.Tensor), "no tensor")
    return [[twin.word_of(key, sample, i) for i in range(length)] for sample in ints(given["sample"], 1)]


def check_uniforms(given: dict[str, Any], result: Any) -> None:
    length = whole(given["length"], 0)
    expected = [[(word >> 40) * 2.0**-24 for word in row] for row in _words(given, length)]
    close(result, np.array(expected).reshape(len(expected), length), 0)


def check_normals(given: dict[str, Any], result: Any) -> None:
    close(result, normal_numbers(given, whole(given["length"], 0)), 1e-3)  # the logarithm of a float32 near 1


def normal_numbers(given: dict[str, Any], length: int) -> np.ndarray:
    rows = []
    for row in _words(given, (length + 1) // 2):
        pairs = [
            (math.sqrt(-2 * math.log(((w >> 32) + 1) * 2.0**-32)), (w & twin.HALF) * 2 * math.pi * 2.0**-32)
            for w in row
        ]
        rows.append([r * f(angle) for r, angle in pairs for f in (math.cos, math.sin)][:length])
    return np.array(rows).reshape(len(rows), length)


def make_log_normals(draw: np.random.Generator) -> dict[str, Any]:
    given = make_normals(draw)
    del given["length"]
    return {**given, "mean": -1.2, "std": pick(draw, 0, 1.2)}


def check_log_normals(given: dict[str, Any], result: Any) -> None:
    mean, std = number(given["mean"]), number(given["std"])
    confirm(math.isfinite(mean) and 0 <= std < math.inf, "mean or std")
    whole(given["seed"], *twin.SEED)
    [*_] = _words(given, 1)
    if abs(mean) + 7 * std < 80:  # within float32
        drawn = normal_numbers(given, 1)
        close(torch.log(result), mean + std * drawn[:, 0], 1e-4 * max(1, std))

def call_plan(name: Any, settings: Any, ratio: Any, **given: Any) -> Any:
    return plan_named(name, **keywords(settings)).plan(ratio, **given)


def keywords(settings: Any) -> dict[str, Any]:
    """What Python would take after two stars; all else is no call at all."""
    return settings if isinstance(settings, dict) and all(isinstance(key, str) for key in settings) else {}


def make_mask(draw: np.random.Generator) -> dict[str, Any]:
    mask = np.array([[True, False], [False, True]])
    return {"is_noisy": pick(draw, mask, mask.tolist(), torch.as_tensor(mask), mask.astype(np.uint8))}


STORED = ("protocol", "noise", "version", "matrix", "mapping", "dictionary", "rows", "exclude", "T", "realised",
        "ratio")
WORDS = {
    **SAMPLE, "config": STORED, "noise": STORED, "description": STORED, "r": ("ratio", "amount of noise"),
    "e": ("error_rate", "amount of noise"), "name": ("compute plan", "table"), "settings": ("setting",),
    "is_noisy": ("mask",),
}  # fmt: skip

TARGETS = [
    Target("noise.rates.error_rate", rates.error_rate, lambda draw: {"r": 0.5}, check_rate, WORDS, weight=0.3),
    Target("noise.rates.ratio", rates.ratio, lambda draw: {"e": 0.5}, check_rate, WORDS, weight=0.3),
    Target("noise.rates.resolve", rates.resolve, lambda draw: {"r": pick(draw, 1, None), "e": 0.5}, check_resolve,
           WORDS),
    Target("noise.rates.training_length", rates.training_length, lambda draw: {"base": 600, "r": 0.5}, check_length,
           WORDS,
           weight=0.5),
    Target("noise.plan_named", call_plan, make_plan,
           lambda given, plan: check_plan(given | {"settings": keywords(given["settings"])}, plan), WORDS, weight=2),
    Target("noise.Plan", Plan, lambda draw: dict(PLAN), check_plan_fields, WORDS),
    Target("noise.Plan.to_dict", lambda block_size: Plan(**PLAN).to_dict(block_size), lambda draw: {"block_size": 64},
           check_tokens_of_plan, weight=0.3),
    Target("noise.realised_rate", realised_rate, make_mask, check_mask, WORDS),
    Target("noise.noise_from_dict", noise_from_dict, make_config, check_config, WORDS, weight=4),
    Target("noise.block.as_noise", as_noise, lambda draw: {"noise": make_config(draw)["config"]},
           lambda given, noise: check_config({"config": given["noise"]}, noise), WORDS),
    Target("noise.block.noise_block", noise_block, make_block, check_block, WORDS, weight=2),
    Target("noise.noise_from_description", noise_from_description, make_description, check_description, WORDS,
           {"description": DESCRIPTIONS}),
    Target("noise.normals", normals, make_normals, check_normals, WORDS),
    Target("noise.uniforms", uniforms, make_normals, check_uniforms, WORDS),
    Target("noise.log_normals", log_normals, make_log_normals, check_log_normals, WORDS),
]  # fmt: skip
