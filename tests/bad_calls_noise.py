"""Bad calls to the noises of tokens and documents, to rates and plans, and to what reads a noise from where it is stored."""

from __future__ import annotations

import json
import math
from typing import Any

import bad_twins as twin
import numpy as np
import torch
from bad_calls import Target, Unconfirmed, close, confirm, flag, ints, number, same, text, whole

from hf_noise.noise import (
    GaussianDocuments,
    HumanLabels,
    LabelFlips,
    Noise,
    Plan,
    RandomDocuments,
    UniformTokens,
    noise_from_description,
    noise_from_dict,
    plan_named,
    rates,
    realised_rate,
)
from hf_noise.noise.block import as_noise, noise_block, noise_sentence
from hf_noise.noise.normals_torch import log_normals, normals, uniforms
from hf_noise.noise.schedule import FixedBudget, ScaleBatch, ScaleSteps, Table6, Table7
from hf_noise.noise.tokens_torch import corrupt


def pick(draw: np.random.Generator, *values: Any) -> Any:
    return values[int(draw.integers(len(values)))]


def seed_of(draw: np.random.Generator) -> int:
    return pick(draw, 0, 1, 2**63 - 1)


# ---- tokens


def token_fields(draw: np.random.Generator) -> dict[str, Any]:
    given = pick(draw, {"ratio": 0.5}, {"ratio": 0}, {"error_rate": 0.9}, {"ratio": 1.0, "error_rate": 0.5})
    return {
        "ratio": None, "error_rate": None, **given, "vocab_size": pick(draw, 2, 11, 100, 2**20 + 3), "seed": seed_of(draw),
        "exclude_original": bool(draw.integers(2)), "redraw": pick(draw, "epoch", "never"),
    }  # fmt: skip


def check_token_fields(given: dict[str, Any], noise: Any) -> None:
    r, e = twin.rates_of(given["ratio"], given["error_rate"])
    exclude = flag(given["exclude_original"])
    twin.stored(
        noise, ratio=r, error_rate=e, vocab_size=whole(given["vocab_size"], 1 + exclude, 2**31),
        seed=whole(given["seed"], *twin.SEED), exclude_original=exclude, redraw=text(given["redraw"], "epoch", "never"),
    )  # fmt: skip
    close(noise.mixture_rate, e * noise.vocab_size / (noise.vocab_size - 1) if exclude else e)


def token_noise(draw: np.random.Generator) -> UniformTokens:
    return UniformTokens(**token_fields(draw))


def token_rows(draw: np.random.Generator, size: int, dtype: str = "int64") -> np.ndarray:
    """Tokens [2, 3] in [0, V), now and then with a -100."""
    rows = draw.integers(0, size, size=(2, 3)).astype(dtype)
    if draw.random() < 0.3:
        rows[0, 1] = -100
    return rows


def make_tokens(draw: np.random.Generator) -> dict[str, Any]:
    noise = token_noise(draw)
    convert = pick(draw, np.asarray, np.asarray, torch.as_tensor, np.ndarray.tolist)
    rows, sample = token_rows(draw, noise.vocab_size), draw.integers(0, 2**40, size=2)
    return {"_noise": noise, "tokens": convert(rows), "sample": convert(sample), "epoch": pick(draw, 0, 3)}


def check_tokens(given: dict[str, Any], result: Any) -> None:
    noise, values, sample = given["_noise"], ints(given["tokens"]), ints(given["sample"])
    twin.check_tokens(values, noise.vocab_size)
    twin.fits(given["tokens"], noise.vocab_size)
    rows, numbers = twin.rows_of(values, sample)
    twin.pair(noise, result, given["tokens"], twin.tokens(noise, rows, numbers, given["epoch"]), values.shape)


def make_flat(draw: np.random.Generator) -> dict[str, Any]:
    noise = token_noise(draw)
    lengths = pick(draw, [3, 0, 2], [4], [], [2, 2])
    values = draw.integers(0, noise.vocab_size, size=sum(lengths))
    sample = draw.integers(0, 99, size=len(lengths))
    return {"_noise": noise, "values": values, "lengths": np.array(lengths, dtype=int), "sample": sample, "epoch": 0}


def check_flat(given: dict[str, Any], result: Any) -> None:
    noise, lengths, sample = given["_noise"], ints(given["lengths"], 1).tolist(), ints(given["sample"], 1).tolist()
    values = ints(given["values"], 1)
    confirm(all(length >= 0 for length in lengths) and len(lengths) == len(sample), "lengths")
    confirm(sum(lengths) == values.size, "sum of lengths")
    twin.check_tokens(values, noise.vocab_size)
    twin.fits(given["values"], noise.vocab_size)
    ends = np.cumsum([0, *lengths]).tolist()
    rows = [values[start:stop].tolist() for start, stop in zip(ends, ends[1:])]
    expected = twin.tokens(noise, rows, sample, given["epoch"])
    twin.pair(noise, result, np.asarray(given["values"]), expected, values.shape)


def make_token_columns(draw: np.random.Generator) -> dict[str, Any]:
    noise = token_noise(draw)
    rows = [row.tolist()[:length] for row, length in zip(token_rows(draw, noise.vocab_size), (3, 1))]
    batch = {pick(draw, "labels", "input_ids"): rows, **pick(draw, {}, {"sample_id": [7, 8]}, {"text": ["a", "b"]})}
    return {"_noise": noise, "batch": batch, "indices": pick(draw, [0, 1], np.arange(2)), "epoch": 0}


def check_token_columns(given: dict[str, Any], result: Any) -> None:
    noise, batch = given["_noise"], given["batch"]
    confirm(isinstance(batch, dict), "no batch")
    column = batch.get("labels", batch.get("input_ids"))
    rows = [ints(row, 1).tolist() for row in column]
    sample = ints(batch.get("sample_id", given["indices"]), 1).tolist()
    confirm(len(sample) == len(rows), "samples")
    for row in rows:
        twin.check_tokens(np.array(row, dtype=object), noise.vocab_size)
    expected = iter(twin.tokens(noise, rows, sample, given["epoch"]))
    confirm(set(result) == {"labels", "clean_labels", "is_noisy", "sample_id"}, "columns")
    for row, clean, noisy, mask in zip(rows, *(result[name] for name in ("clean_labels", "labels", "is_noisy"))):
        pairs = [next(expected) for _ in row]
        confirm(list(noisy) == [value for value, _ in pairs] and list(mask) == [mark for _, mark in pairs], "noise")
        confirm(list(clean) == row, "clean")
    same(result["sample_id"], sample)


# ---- documents


def document_fields(draw: np.random.Generator) -> dict[str, Any]:
    vocabulary = pick(draw, 5, 120)
    shared = {
        "alpha": pick(draw, 0, 0.2, 0.75), "vocab_size": vocabulary, "seed": seed_of(draw), "exclude": pick(draw, None, -1, 3),
        "placement": pick(draw, "append", "interleave", "replace"),
    }  # fmt: skip
    if draw.random() < 0.5:
        boost = pick(draw, "none", "random", "low")
        sizes = {"n_boost": None, "boost_mass": None} if boost == "none" else {"n_boost": 2, "boost_mass": 0.3}
        return {"_cls": RandomDocuments, **shared, "boost": boost, **sizes}
    return {"_cls": GaussianDocuments, **shared, **pick(draw, {"mean": None, "std": None}, {"mean": 2, "std": 2.5})}


def check_document_fields(given: dict[str, Any], noise: Any) -> None:
    exclude, mass = given["exclude"], 0.0
    vocabulary = whole(given["vocab_size"], 1 if exclude is None else 2, 2**20)
    if exclude is not None:
        exclude = whole(exclude, -vocabulary, vocabulary - 1) % vocabulary
    alpha = number(given["alpha"])
    confirm(0 <= alpha < 1, "alpha")
    expected = {"alpha": alpha, "vocab_size": vocabulary, "seed": whole(given["seed"], *twin.SEED), "exclude": exclude}
    expected["placement"] = text(given["placement"], "append", "interleave", "replace")
    choices = [token for token in range(vocabulary) if token != exclude]
    p = np.zeros(vocabulary)
    if given["_cls"] is RandomDocuments:
        boost, n_boost, mass = text(given["boost"], "none", "random", "low"), given["n_boost"], given["boost_mass"]
        if boost == "none":
            n_boost, mass = whole(n_boost or 0, 0, 0), number(mass or 0.0)
            confirm(mass == 0 and not isinstance(given["n_boost"], bool | float), "boost without a kind")
            confirm(not isinstance(given["boost_mass"], bool), "a bool")
        else:
            n_boost = whole({"random": 100, "low": 1001}[boost] if n_boost is None else n_boost, 1, len(choices))
            mass = number(0.1 if mass is None else mass)
            confirm(0 < mass <= 1, "mass")
        p[choices] = (1 - mass) / len(choices)
        if n_boost:
            confirm(len(noise.boosted) == n_boost and set(noise.boosted.tolist()) <= set(choices), "boosted")
            p[noise.boosted] += mass / n_boost
        expected |= {"boost": boost, "n_boost": n_boost, "boost_mass": mass}
    else:
        mean = number((vocabulary - 1) / 2 if given["mean"] is None else given["mean"])
        std = number(500 * (vocabulary - 1) / 50256 if given["std"] is None else given["std"])
        confirm(0 <= mean <= vocabulary - 1 and 0 < std < math.inf, "mean or std")
        below = [(1 + math.erf((i + 0.5 - mean) / (std * math.sqrt(2)))) / 2 for i in range(vocabulary - 1)]
        p = np.maximum(np.diff([0.0, *below, 1.0]), 0)
        p[[token for token in range(vocabulary) if token not in choices]] = 0
        p /= p.sum()
        expected |= {"mean": mean, "std": std}
    twin.stored(noise, **expected)
    close(noise.probabilities(), p, 1e-12)
    close(noise.entropy, -(p[p > 0] * np.log(p[p > 0])).sum(), 1e-9)


def document_noise(draw: np.random.Generator, **changes: Any) -> Any:
    fields = document_fields(draw)
    return fields.pop("_cls")(**{**fields, **changes})


def make_rows(draw: np.random.Generator) -> dict[str, Any]:
    sample = pick(draw, 3, np.arange(2), torch.arange(3), [[0, 1], [2, 3]])
    return {"_noise": document_noise(draw), "sample": sample, "length": pick(draw, 0, 4)}


def check_rows(given: dict[str, Any], result: Any) -> None:
    sample, length = ints(given["sample"]), whole(given["length"], 0, 2**31)
    expected = [twin.document(given["_noise"], number, length) for number in sample.reshape(-1)]
    confirm(isinstance(result, torch.Tensor) == isinstance(given["sample"], torch.Tensor), "kind")
    same(result, np.array(expected, dtype=np.int64).reshape(*sample.shape, length))


def check_replaced(given: dict[str, Any], result: Any) -> None:
    sample = ints(given["sample"])
    expected = [twin.is_replaced(given["_noise"], number) for number in sample.reshape(-1)]
    confirm(np.asarray(result).reshape(-1).tolist() == expected and np.shape(result) == sample.shape, "which")


def check_order(given: dict[str, Any], result: Any) -> None:
    same(result, np.array(twin.order(given["_noise"], whole(given["n_clean"], 0)), dtype=np.int64))


def check_number(given: dict[str, Any], result: Any) -> None:
    noise, n_clean = given["_noise"], whole(given["n_clean"], 0)
    if noise.placement == "replace":
        confirm(n_clean < 10_000, "too many for a loop")
        same(result, sum(twin.is_replaced(noise, row) for row in range(n_clean)))
    else:
        same(result, round(noise.alpha / (1 - noise.alpha) * n_clean))


def make_documents(draw: np.random.Generator) -> dict[str, Any]:
    noise = document_noise(draw, placement="replace")
    convert = pick(draw, np.asarray, torch.as_tensor)
    rows = token_rows(draw, noise.vocab_size, pick(draw, "int64", "int32"))
    return {"_noise": noise, "tokens": convert(rows), "sample": convert(draw.integers(0, 99, size=2)), "epoch": 0}


def check_documents(given: dict[str, Any], result: Any) -> None:
    noise, values, sample = given["_noise"], ints(given["tokens"]), ints(given["sample"])
    twin.check_tokens(values, noise.vocab_size)
    twin.fits(given["tokens"], noise.vocab_size)
    twin.epoch_of(given["epoch"])
    rows, numbers = twin.rows_of(values, sample)
    expected = []
    for row, index in zip(rows, numbers):
        drawn = twin.document(noise, index, len(row)) if twin.is_replaced(noise, index) else None
        expected += [(old, False) if drawn is None or old == -100 else (drawn[i], True) for i, old in enumerate(row)]
    twin.pair(noise, result, given["tokens"], expected, values.shape)


def make_document_columns(draw: np.random.Generator) -> dict[str, Any]:
    noise = document_noise(draw, placement="replace")
    rows = [[1, 2, 3], [4]]
    batch = {"input_ids": rows, **pick(draw, {}, {"labels": [[1, -100, 3], [4]]}, {"sample_id": [5, 6]})}
    return {"_noise": noise, "batch": batch, "indices": pick(draw, [0, 1], np.arange(2))}


def check_document_columns(given: dict[str, Any], result: Any) -> None:
    noise, batch = given["_noise"], given["batch"]
    confirm(isinstance(batch, dict), "no batch")
    inputs = [ints(row, 1).tolist() for row in batch["input_ids"]]
    labels = [ints(row, 1).tolist() for row in batch.get("labels", batch["input_ids"])]
    sample = ints(batch.get("sample_id", given["indices"]), 1).tolist()
    confirm(len(inputs) == len(labels) == len(sample), "rows")
    for rows, name in ((inputs, "input_ids"), (labels, "labels")):
        for row, number_, noisy in zip(rows, sample, result[name]):
            twin.check_tokens(np.array(row, dtype=object), noise.vocab_size)
            drawn = twin.document(noise, number_, len(row)) if twin.is_replaced(noise, number_) else row
            confirm(list(noisy) == [old if old == -100 else new for old, new in zip(row, drawn)], name)
        confirm([list(row) for row in result[f"clean_{name}"]] == rows, f"clean_{name}")


# ---- rates and plans


def check_resolve(given: dict[str, Any], result: Any) -> None:
    with_floor = {name: value for name, value in given.items() if name in ("r", "e")}
    r, e = (None if value is None else number(value) for value in (with_floor["r"], with_floor["e"]))
    confirm(r is None or 0 <= r < math.inf, "r")
    confirm(e is None or 0 <= e < 1, "e")
    confirm(r is not None or e is not None, "no rate")
    e = r / (1 + r) if r is not None else e
    confirm(e < 1 and abs(result[1] - e) <= 1e-9 and abs(result[0] - result[1] / (1 - result[1])) <= 1e-6 * (1 + result[0]),
            "rates")  # fmt: skip


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
        reading = text(settings.pop("reading", "principle"), "principle", "as_printed") if name == "table7" else "principle"
        table = Table6.multipliers if name == "table6" else Table7.multipliers.get(classes, {})
        m = next((m for listed, m in table.items() if abs(listed - r) <= 1e-9), None)
        confirm(m is not None, "not in the table")
        near = {name: ((1 + r) / (m if reading == "principle" else m**2), m)}
    confirm(not settings and name in near, "other settings")
    by_steps, by_batch = near[name]
    confirm(abs(plan.steps - max(1, steps * by_steps)) <= 0.5 + 1e-9 * plan.steps, f"steps {plan.steps}")
    confirm(abs(plan.batch_size - max(1, batch * by_batch)) <= 0.5 + 1e-9 * plan.batch_size, f"batch {plan.batch_size}")
    check_plan_fields({"name": name, "ratio": r, "steps": plan.steps, "batch_size": plan.batch_size, "base_steps": steps,
                       "base_batch_size": batch}, plan)  # fmt: skip


PLAN = {"name": "steps", "ratio": 0.5, "steps": 15, "batch_size": 8, "base_steps": 10, "base_batch_size": 8}


def check_plan_fields(given: dict[str, Any], plan: Any) -> None:
    confirm(plan.name == text(given["name"]), "name")
    r = number(given["ratio"])
    confirm(0 <= r < math.inf and r / (1 + r) < 1, "ratio")
    sizes = {name: whole(given[name], 1) for name in PLAN if name not in ("name", "ratio")}
    for name, size in sizes.items():
        confirm(type(getattr(plan, name)) is int and getattr(plan, name) == size, name)
    close(plan.exposure, sizes["steps"] * sizes["batch_size"] / (1 + r) / sizes["base_steps"] / sizes["base_batch_size"])
    json.dumps(plan.to_dict(4))


def check_tokens_of_plan(given: dict[str, Any], result: Any) -> None:
    block = given["block_size"]
    if block is None:
        confirm("tokens" not in result, "tokens")
    else:
        same(result["tokens"], 120 * whole(block, 1))
        same(result["clean_tokens"], round(120 * block / 1.5))


# ---- stored noises


def check_mask(given: dict[str, Any], result: Any) -> None:
    values = np.asarray(given["is_noisy"].detach() if isinstance(given["is_noisy"], torch.Tensor) else given["is_noisy"])
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
                lambda _: HumanLabels.from_columns([0, 1, 1], [0, 0, 1], num_classes=2, name="worse"))(draw)  # fmt: skip


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
        if name == "matrix":
            close(stated, value)
        elif nearly and not isinstance(stated, bool) and not (isinstance(stated, int) and isinstance(value, float)):
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
        confirm(realised is None or (0 <= number(realised["rate"]) <= 1 and whole(realised["n"]) >= 0), "realised")
        check_config({"config": {name: value for name, value in noise.items() if name != "realised"}},
                     noise_from_dict(block["config"]))  # fmt: skip
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
        pairs = [(math.sqrt(-2 * math.log(((w >> 32) + 1) * 2.0**-32)), (w & twin.HALF) * 2 * math.pi * 2.0**-32) for w in row]
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


CONFIG = {"config": ("protocol", "noise", "version", "matrix", "mapping", "dictionary", "rows", "exclude", "T")}
SAMPLE = {"sample": ("sample", "sample ids", "samples"), "batch": ("column", "sample_id", "sample ids", "labels", "tokens", "token")}
COUNT = {"n_clean": ("number of clean rows",)}
TOKENS = {"tokens": ("token", "column"), "values": ("token", "tokens"), "lengths": ("rows",), "indices": ("sample_id", "sample ids"), **SAMPLE}
FIELDS = {"exclude": ("excluded",), "std": ("excluded",), "mean": ("excluded",)}

TARGETS = [
    Target("noise.UniformTokens", UniformTokens, token_fields, check_token_fields, {"ratio": ("amount of noise", "error_rate"),
           "error_rate": ("amount of noise",)}, weight=2),
    Target("noise.UniformTokens.__call__", lambda _noise, **given: _noise(**given), make_tokens, check_tokens, TOKENS, weight=3),
    Target("noise.UniformTokens.flat", lambda _noise, **given: _noise.flat(**given), make_flat, check_flat, TOKENS, weight=2),
    Target("noise.UniformTokens.columns", lambda _noise, **given: _noise.columns(**given), make_token_columns,
           check_token_columns, TOKENS, weight=2),
    Target("noise.tokens_torch.corrupt", lambda _noise, **given: corrupt(_noise, **given),
           lambda draw: {name: torch.as_tensor(value) if name in ("tokens", "sample") else value
                         for name, value in make_tokens(draw).items()},
           lambda given, result: check_tokens(given, result) if isinstance(given["tokens"], torch.Tensor) else confirm(0, ""),
           TOKENS),
    Target("noise.documents", lambda _cls, **given: _cls(**given), document_fields, check_document_fields, FIELDS, weight=3),
    Target("noise.documents.rows", lambda _noise, **given: _noise.rows(**given), make_rows, check_rows, SAMPLE, weight=2),
    Target("noise.documents.replaced", lambda _noise, **given: _noise.replaced(**given),
           lambda draw: {"_noise": document_noise(draw), "sample": np.arange(3)}, check_replaced, SAMPLE),
    Target("noise.documents.order", lambda _noise, **given: _noise.order(**given),
           lambda draw: {"_noise": document_noise(draw), "n_clean": pick(draw, 0, 7)}, check_order, COUNT),
    Target("noise.documents.number_of_noise_rows", lambda _noise, **given: _noise.number_of_noise_rows(**given),
           lambda draw: {"_noise": document_noise(draw), "n_clean": pick(draw, 0, 7)}, check_number, COUNT),
    Target("noise.documents.__call__", lambda _noise, **given: _noise(**given), make_documents, check_documents, TOKENS, weight=2),
    Target("noise.documents.columns", lambda _noise, **given: _noise.columns(**given), make_document_columns,
           check_document_columns, TOKENS),
    Target("noise.rates.error_rate", rates.error_rate, lambda draw: {"r": 0.5}, check_rate, {"r": ("ratio",)}, weight=0.3),
    Target("noise.rates.ratio", rates.ratio, lambda draw: {"e": 0.5}, check_rate, {"e": ("error_rate",)}, weight=0.3),
    Target("noise.rates.resolve", rates.resolve, lambda draw: {"r": pick(draw, 1, None), "e": 0.5}, check_resolve,
           {"r": ("ratio", "amount of noise"), "e": ("error_rate", "amount of noise")}),
    Target("noise.rates.training_length", rates.training_length, lambda draw: {"base": 600, "r": 0.5}, check_length,
           {"r": ("ratio",)}, weight=0.5),
    Target("noise.plan_named", lambda name, settings, ratio, **given: plan_named(name, **settings).plan(ratio, **given)
           if isinstance(settings, dict) and all(isinstance(key, str) for key in settings) else plan_named(name).plan(ratio, **given),
           make_plan, lambda given, plan: check_plan({**given, "settings": given["settings"] if isinstance(given["settings"], dict) and all(isinstance(key, str) for key in given["settings"]) else {}}, plan),
           {"name": ("compute plan", "table"), "settings": ("setting",)}, weight=2),
    Target("noise.Plan", Plan, lambda draw: dict(PLAN), check_plan_fields),
    Target("noise.Plan.to_dict", lambda block_size: Plan(**PLAN).to_dict(block_size), lambda draw: {"block_size": 64},
           check_tokens_of_plan, weight=0.3),
    Target("noise.realised_rate", realised_rate, lambda draw: {"is_noisy": pick(draw, np.eye(3, dtype=bool), [True, False],
           torch.tensor([True, False]), np.array([0, 1], dtype=np.uint8))}, check_mask, {"is_noisy": ("mask",)}),
    Target("noise.noise_from_dict", noise_from_dict, make_config, check_config, CONFIG, weight=4),
    Target("noise.block.as_noise", as_noise, lambda draw: {"noise": make_config(draw)["config"]},
           lambda given, noise: check_config({"config": given["noise"]}, noise), {"noise": CONFIG["config"]}),
    Target("noise.block.noise_block", noise_block, make_block, check_block, {"noise": (*CONFIG["config"], "realised")}, weight=2),
    Target("noise.noise_from_description", noise_from_description, make_description, check_description,
           {"description": ("protocol", "noise", "ratio")}, {"description": DESCRIPTIONS}),
    Target("noise.normals", normals, make_normals, check_normals, SAMPLE),
    Target("noise.uniforms", uniforms, make_normals, check_uniforms, SAMPLE),
    Target("noise.log_normals", log_normals, make_log_normals, check_log_normals, SAMPLE),
]  # fmt: skip
