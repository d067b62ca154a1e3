"""Bad calls to the noises of tokens and of documents."""

from __future__ import annotations

import math
from typing import Any

import bad_twins as twin
import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, flag, ints, number, same, text, whole
from bad_values import pick

from hf_noise.noise import GaussianDocuments, RandomDocuments, UniformTokens
from hf_noise.noise.tokens_torch import corrupt


def seed_of(draw: np.random.Generator) -> int:
    return pick(draw, 0, 1, 2**63 - 1)

# ---- tokens


def token_fields(draw: np.random.Generator) -> dict[str, Any]:
    given = pick(draw, {"ratio": 0.5}, {"ratio": 0}, {"error_rate": 0.9}, {"ratio": 1.0, "error_rate": 0.5})
    return {
        "ratio": None, "error_rate": None, **given, "vocab_size": pick(draw, 2, 11, 100, 2**20 + 3),
        "seed": seed_of(draw),
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
        "alpha": pick(draw, 0, 0.2, 0.75), "vocab_size": vocabulary, "seed": seed_of(draw),
        "exclude": pick(draw, None, -1, 3),
        "placement": pick(draw, "append", "interleave", "replace"),
    }  # fmt: skip
    if draw.random() < 0.5:
        boost = pick(draw, "none", "random", "low")
        sizes = {"n_boost": None, "boost_mass": None} if boost == "none" else {"n_boost": 2, "boost_mass": 0.3}
        return {"_cls": RandomDocuments, **shared, "boost": boost, **sizes}
    return {"_cls": GaussianDocuments, **shared, **pick(draw, {"mean": None, "std": None}, {"mean": 2, "std": 0.9})}


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
        sides = (mean + 0.5) / std, (vocabulary - 0.5 - mean) / std
        confirm(sum(math.erfc(side / math.sqrt(2)) / 2 for side in sides) <= 0.01, "wider than the vocabulary")
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

def method(name: str) -> Any:
    return lambda _noise, **given: getattr(_noise, name)(**given)


def make_tensors(draw: np.random.Generator) -> dict[str, Any]:
    given = make_tokens(draw)
    return given | {name: torch.as_tensor(given[name]) for name in ("tokens", "sample")}


def check_tensors(given: dict[str, Any], result: Any) -> None:
    confirm(isinstance(given["tokens"], torch.Tensor), "no tensor")
    check_tokens(given, result)


def with_documents(**given: Any) -> Any:
    return lambda draw: {"_noise": document_noise(draw), **{name: make(draw) for name, make in given.items()}}


SAMPLE = {"sample": ("sample", "sample ids", "samples")}
WORDS = {
    **SAMPLE, "tokens": ("token", "column"), "values": ("token", "tokens"), "lengths": ("rows",),
    "indices": ("sample_id", "sample ids"), "batch": ("column", "sample_id", "sample ids", "labels", "tokens", "token"),
    "ratio": ("amount of noise", "error_rate"), "error_rate": ("amount of noise",),
    "n_clean": ("number of clean rows",),
    "exclude": ("excluded",), "std": ("excluded",), "mean": ("excluded",),
}  # fmt: skip

TARGETS = [
    Target("noise.UniformTokens", UniformTokens, token_fields, check_token_fields, WORDS, weight=2),
    Target("noise.UniformTokens.__call__", method("__call__"), make_tokens, check_tokens, WORDS, weight=3),
    Target("noise.UniformTokens.flat", method("flat"), make_flat, check_flat, WORDS, weight=2),
    Target("noise.UniformTokens.columns", method("columns"), make_token_columns, check_token_columns, WORDS, weight=2),
    Target("noise.tokens_torch.corrupt", lambda _noise, **given: corrupt(_noise, **given), make_tensors, check_tensors,
           WORDS),
    Target("noise.documents", lambda _cls, **given: _cls(**given), document_fields, check_document_fields, WORDS,
           weight=3),
    Target("noise.documents.rows", method("rows"), make_rows, check_rows, WORDS, weight=2),
    Target("noise.documents.replaced", method("replaced"), with_documents(sample=lambda _: np.arange(3)),
           check_replaced, WORDS),
    Target("noise.documents.order", method("order"), with_documents(n_clean=lambda draw: pick(draw, 0, 7)),
           check_order, WORDS),
    Target("noise.documents.number_of_noise_rows", method("number_of_noise_rows"),
           with_documents(n_clean=lambda draw: pick(draw, 0, 7)), check_number, WORDS),
    Target("noise.documents.__call__", method("__call__"), make_documents, check_documents, WORDS, weight=2),
    Target("noise.documents.columns", method("columns"), make_document_columns, check_document_columns, WORDS),
]  # fmt: skip
