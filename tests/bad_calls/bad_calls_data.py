"""Bad settings for `load_dataset("hf_noise/...")` of text, tokens and labels: the rows that they ask for, or an error.

Rows are made anew from what is known to be in the sources: documents are cut into blocks, noise is drawn word after
word (`bad_twins`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import bad_places as places
import bad_twins as twin
import numpy as np
from bad_calls import Target
from bad_readers import confirm, flag, ints, number, same, text, whole
from bad_values import pick

import hf_noise
from hf_noise.noise import HumanLabels, LabelFlips, UniformTokens, noise_from_description

NUMBERS = {"train": 0, "validation": 1, "test": 2}
RATIOS = {"r0.0": 0.0, "r0.1": 0.1, "r0.3": 0.3, "r0.5": 0.5, "r1.0": 1.0}
COLUMNS = ["input_ids", "labels", "clean_labels", "is_noisy", "sample_id"]


def some(draw: np.random.Generator, given: dict[str, Any], always: tuple[str, ...] = ()) -> dict[str, Any]:
    """Those that are always given, and some of the others."""
    return {name: given[name] for name in given if name in always or name.startswith("_") or draw.random() < 0.35}


def rate(draw: np.random.Generator) -> dict[str, Any]:
    named = pick(draw, {"name": "r0.5"}, {"name": "r1.0", "r": 1})
    return pick(draw, {"r": 0.5}, {"r": 1}, {"r": 0.0}, {"error_rate": 0.25}, named)


def load(_builder: str, names: list[str], _streaming: bool = False, **settings: Any) -> dict[str, Any]:
    """The rows of all splits, and the noise that they are said to have."""
    found = hf_noise.load_dataset(f"hf_noise/{_builder}", streaming=_streaming, cache_dir=places.CACHE, **settings)
    noise = noise_from_description(next(iter(found.values())).info.description)
    return {**places.loaded(found, names), "noise": noise.to_dict()}


# ---- what all have in common


def rates_of(given: Mapping[str, Any]) -> tuple[float, float]:
    """(r, e) of the settings, of which one says how much noise there is."""
    name, r, e = given.get("name") or None, given.get("r"), given.get("error_rate")  # as `datasets` takes ""
    confirm(name is None or name in RATIOS, "no configuration")
    if name is not None:
        confirm(e is None, "twice")
        r = RATIOS[name] if r is None else r
        confirm(number(r) == RATIOS[name], "another rate than the name's")
    confirm((r is None) != (e is None), "one rate")
    return twin.rates_of(r, e)


def common(given: Mapping[str, Any], splits: list[str], r: float, e: float) -> SimpleNamespace:
    """The noise of the settings, and which splits have it."""
    names = given.get("noisy_splits", ())
    names = {names} if isinstance(names, str) else names
    confirm(isinstance(names, list | tuple | set | frozenset), "noisy_splits")
    confirm(all(isinstance(name, str) and name in splits for name in names), "noisy_splits")
    confirm(given.get("source_config") is None, "source_config")
    epoch = whole(given.get("epoch", 0), 0, 2**63 - 1)
    return SimpleNamespace(
        ratio=r, error_rate=e, seed=whole(given.get("seed", 0), *twin.SEED), redraw="epoch", epoch=epoch,
        noisy={"train", *names},
    )  # fmt: skip


def first_id(split: str) -> int:
    """All sources here are one shard."""
    return NUMBERS[split] << 60


def check_stated(stated: dict[str, Any], noise: Any, epoch: int) -> None:
    """The noise is said to be this one, drawn never again where it was drawn for epoch 0."""
    noise = noise if epoch else dataclasses.replace(noise, redraw="never")
    expected = noise.to_dict()
    confirm(stated.keys() == expected.keys(), "other fields")
    for name, value in expected.items():
        near = isinstance(value, float) and math.isclose(stated[name], value, rel_tol=1e-12)
        confirm(near or stated[name] == value, f"{name} is said to be {stated[name]!r}, not {value!r}")


def as_tokens(noise: SimpleNamespace) -> UniformTokens:
    return UniformTokens(
        ratio=noise.ratio, vocab_size=noise.vocab_size, seed=noise.seed, exclude_original=noise.exclude_original
    )


def check_columns(found: Mapping[str, np.ndarray], **expected: Any) -> None:
    for name, values in expected.items():
        same(found[name], np.asarray(values), name)


# ---- text


def as_named(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that are None, which change nothing of a named configuration."""
    return {name: value for name, value in given.items() if value is not None or not given.get("name")}


def text_call(draw: np.random.Generator) -> dict[str, Any]:
    builder = pick(draw, "docs-noisy", "owt-noisy", "packed")
    source = pick(draw, *[name for name in places.texts() if "other" not in name])
    given = {
        "_builder": builder, "_streaming": bool(draw.random() < 0.3), "source": source, "block_size": pick(draw, 6, 8),
        "tokenizer": pick(draw, places.tokenizer(), places.TOKENIZER), "seed": pick(draw, 3, 2**63 - 1),
        "epoch": pick(draw, 0, 2), "exclude_original": bool(draw.integers(2)), "text_column": "text",
        "noisy_splits": pick(draw, (), ("validation",), "train"), "validation_fraction": pick(draw, 0, 0.3),
        "source_config": None,
    }  # fmt: skip
    if source.endswith(".txt"):
        given["documents"] = "paragraph"
    if draw.random() < 0.3:
        given = {**given, "validation_source": str(places.FOLDER / "other.jsonl"), "validation_fraction": None}
    given |= rate(draw) if builder != "packed" else {"r": 0.0}
    if "validation" in given["noisy_splits"] and not (given["validation_fraction"] or "both" in source):
        given["noisy_splits"] = ()
    validation = ("validation_fraction", "validation_source", "noisy_splits")
    return some(draw, given, ("source", "block_size", "tokenizer", "name", "r", "error_rate", *validation))


def load_text(**given: Any) -> dict[str, Any]:
    # What stands for the default takes seconds: it has tests of its own.
    given["tokenizer"] = places.tokenizer() if given["tokenizer"] is None else given["tokenizer"]
    if given["source"] is None and given["_builder"] == "docs-noisy":
        given["source"] = str(places.FOLDER / "lines.jsonl")
    return load(names=COLUMNS, **given)


def is_held_out(document: str, share: float) -> bool:
    return int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big") < share * 2**64


def documents_of(given: Mapping[str, Any]) -> dict[str, list[str]]:
    source = given["source"]
    if source is None and given["_builder"] == "docs-noisy":
        source = str(places.FOLDER / "lines.jsonl")
    confirm(not isinstance(source, Mapping), "one source")
    found = places.by_split(source, places.texts())
    share, other = given.get("validation_fraction"), given.get("validation_source")
    if share is not None:
        confirm(0 <= number(share) < 1, "share")
    if other is not None:
        confirm(not share, "two validations")
        there = places.by_split(other, places.texts())
        confirm("other" in str(other), "the same files")
        return {**found, "validation": there["train"]}
    share = 0.01 if share is None else number(share)
    if "validation" in found or not share:
        return found
    sides = {side: [d for d in found["train"] if is_held_out(d, share) == side] for side in (True, False)}
    return {"train": sides[False], "validation": sides[True]}


def check_text(given: dict[str, Any], result: dict[str, Any]) -> None:
    given = {"source": None, "tokenizer": None, **as_named(given)}
    confirm(given["tokenizer"] in (None, places.tokenizer()) or str(given["tokenizer"]) == places.TOKENIZER, "words")
    confirm(not isinstance(given["tokenizer"], bytes | list), "words")
    text(given.get("text_column", "text"), "text")
    documents = given.get("documents")
    confirm(documents is None or documents in ("file", "line", "paragraph"), "documents")
    if str(given["source"]).endswith(".txt") and documents != "paragraph":
        return  # one document, or one of each line: they have tests of their own
    size, documents = whole(given["block_size"], 2), documents_of(given)
    packed = given["_builder"] == "packed"
    r, e = twin.rates_of(0.0, None) if packed and {"r", "error_rate", "name"}.isdisjoint(given) else rates_of(given)
    confirm(not packed or (r == 0 and given.get("name") is None), "clean rows")
    noise = common(given, list(documents), r, e)
    noise.exclude_original, noise.vocab_size = flag(given.get("exclude_original", False)), places.VOCABULARY
    confirm(set(result) == {*documents, "noise"}, f"splits {sorted(result)}")
    for split, part in documents.items():
        ids = places.ids_of(part)
        rows = [ids[i : i + size] for i in range(0, len(ids) - size + 1, size)]
        sample = [first_id(split) + i for i in range(len(rows))]
        confirm(rows or given["_streaming"], "an empty split")
        expected = {"input_ids": rows, "sample_id": sample} if rows else {}
        if not packed and rows:
            pairs = twin.tokens(noise, rows, sample, noise.epoch)
            if split not in noise.noisy:
                pairs = [(token, False) for row in rows for token in row]
            drawn, marks = (np.array(part).reshape(-1, size) for part in zip(*pairs))
            expected |= {"labels": drawn, "clean_labels": rows, "is_noisy": marks.astype(int)}
        check_columns(result[split], **expected)
    check_stated(result["noise"], as_tokens(noise), noise.epoch)


# ---- tables


def table_call(draw: np.random.Generator) -> dict[str, Any]:
    one, folder, test = (str(places.FOLDER / name) for name in ("table-train.parquet", "tables", "table-test.parquet"))
    places.tables()
    source = pick(draw, one, folder, {"train": one}, {"train": one, "test": test})
    streaming = bool(draw.random() < 0.3)
    given = {
        "_builder": "noisy", "_streaming": streaming, "source": source, "seed": pick(draw, 3, 2**63 - 1),
        "epoch": pick(draw, 0, 2), "noisy_splits": (), "column": pick(draw, "tokens", "labels", "kind"), **rate(draw),
    }  # fmt: skip
    if "test" in source or source == folder:
        given["noisy_splits"] = pick(draw, (), ["test"], "test")
    if given["column"] == "tokens":
        size = pick(draw, {"vocab_size": places.VOCABULARY}, {"tokenizer": places.tokenizer()})
        given |= {**size, "exclude_original": bool(draw.integers(2))}
    else:
        protocol = pick(draw, None, "symmetric", "uniform_resample", "cyclic", "pairs", "human:people")
        pairs = {"pairs": {0: 1, 3: 2}} if protocol == "pairs" else {}
        given |= {"protocol": protocol, "allow_adversarial": True, "allow_missing_classes": False, **pairs}
        if given["column"] == "labels":
            given["num_classes"] = places.CLASSES
        if protocol == "human:people":
            given = {name: value for name, value in given.items() if name not in ("r", "error_rate", "name")}
            given["noisy_splits"] = ()
    always = (
        "source", "column", "name", "r", "error_rate", "vocab_size", "tokenizer", "num_classes", "protocol", "pairs",
        "allow_adversarial", "noisy_splits",
    )  # fmt: skip
    return some(draw, given, always)


def load_table(**given: Any) -> dict[str, Any]:
    column = given["column"] if isinstance(given["column"], str) else ""
    names = [*places.columns(0, 1), "sample_id", "is_noisy", f"clean_{column}"]
    found = load(names=names, **given)
    return {
        split: {"noisy" if name == column else "clean" if name.startswith("clean_") else name: values
                for name, values in part.items()} if split != "noise" else part
        for split, part in found.items()
    }  # fmt: skip


OF_TOKENS = {"vocab_size": None, "tokenizer": None, "exclude_original": False}
OF_LABELS = {
    "protocol": None, "num_classes": None, "pairs": None, "human_source": None, "allow_adversarial": False,
    "allow_missing_classes": False,
}  # fmt: skip


def check_table(given: dict[str, Any], result: dict[str, Any]) -> None:
    given = as_named(given)
    found = places.by_split(given["source"], places.tables())
    column = text(given["column"], "tokens", "labels", "kind", "human_people")
    noise = common(given, list(found), *((0.0, 0.0) if is_human(given) else rates_of(given)))
    confirm(noise.error_rate == 0 and not is_human(given) or set(found) & noise.noisy, "nothing is noisy")
    for name, default in (OF_LABELS if column == "tokens" else OF_TOKENS).items():
        confirm(given.get(name, default) == default, f"{name} means nothing")
    draw_rows = (token_rows if column == "tokens" else label_rows)(given, column, noise)
    confirm(set(result) == {*found, "noise"} and column != "human_people", f"splits {sorted(result)}")
    for split, columns in found.items():
        rows = [list(row) if column == "tokens" else int(row) for row in columns[column]]
        sample = [first_id(split) + i for i in range(len(rows))]
        clean = [(value, False) for row in rows for value in (row if column == "tokens" else [row])]
        pairs = draw_rows(columns, rows, sample) if split in noise.noisy else clean
        parts = iter(pairs)
        kept = [[next(parts) for _ in row] if column == "tokens" else next(parts) for row in rows]
        shown = places.padded if column == "tokens" else np.array
        first, second = (
            shown([[pair[at] for pair in row] if column == "tokens" else row[at] for row in kept]) for at in (0, 1)
        )
        others = {name: columns[name] for name in ("text", "share")}
        check_columns(result[split], noisy=first, is_noisy=second.astype(int) if column == "tokens" else second,
                      clean=shown(rows), sample_id=sample)  # fmt: skip
        confirm(all(result[split][name].tolist() == list(values) for name, values in others.items()), "other columns")
    if is_human(given):
        people = HumanLabels.from_columns(
            found["train"][column], found["train"]["human_people"], num_classes=places.CLASSES, name="people"
        )
        confirm(result["noise"] == people.to_dict(), "other people")
        return
    check_stated(result["noise"], as_tokens(noise) if column == "tokens" else as_flips(noise), noise.epoch)


def as_flips(noise: SimpleNamespace) -> LabelFlips:
    return LabelFlips(
        kind=noise.kind, ratio=noise.ratio, num_classes=noise.num_classes, seed=noise.seed, mapping=noise.mapping,
        allow_adversarial=noise.allow_adversarial,
    )  # fmt: skip


def token_rows(given: Mapping[str, Any], column: str, noise: SimpleNamespace) -> Any:
    tokenizer, size = given.get("tokenizer"), given.get("vocab_size")
    confirm((tokenizer is None) != (size is None), "one vocabulary")
    if tokenizer is not None:
        confirm(tokenizer is places.tokenizer() or str(tokenizer) == places.TOKENIZER, "words")
    noise.exclude_original = flag(given.get("exclude_original", False))
    noise.vocab_size = places.VOCABULARY if size is None else whole(size, places.VOCABULARY, 2**31)
    return lambda columns, rows, sample: twin.tokens(noise, rows, sample, noise.epoch)


def is_human(given: Mapping[str, Any]) -> bool:
    return isinstance(given.get("protocol"), str) and given["protocol"] == "human:people"


def label_rows(given: Mapping[str, Any], column: str, noise: SimpleNamespace) -> Any:
    classes = places.CLASSES if column == "kind" and given.get("num_classes") is None else given.get("num_classes")
    noise.num_classes = whole(classes, places.CLASSES, 2**20)
    confirm(column != "kind" or noise.num_classes == places.CLASSES, "classes")
    missing = flag(given.get("allow_missing_classes", False))
    confirm(missing or noise.num_classes == places.CLASSES, "a class without a row")
    confirm(given.get("human_source") is None, "human_source")
    protocol = "symmetric" if given.get("protocol") is None else given["protocol"]
    text(protocol, "symmetric", "uniform_resample", "cyclic", "pairs", "human:people")
    noise.allow_adversarial, pairs = flag(given.get("allow_adversarial", False)), given.get("pairs")
    confirm((protocol == "pairs") == (pairs is not None), "pairs")
    if protocol == "human:people":
        confirm(all(given.get(name) is None for name in ("r", "error_rate", "name")), "a rate of no use")
        confirm(noise.noisy == {"train"}, "only of the train split")
        return lambda columns, rows, sample: [(int(h), int(h) != c) for h, c in zip(columns["human_people"], rows)]
    noise.kind, noise.mapping = protocol, None
    if pairs is not None:
        found = ints(list(pairs.items()), 2).tolist() if isinstance(pairs, Mapping) else None
        confirm(found and all(0 <= i != j >= 0 and max(i, j) < noise.num_classes for i, j in found), "pairs")
        noise.mapping = tuple(map(tuple, found))
    limit = (noise.num_classes - 1) / noise.num_classes
    confirm(noise.allow_adversarial or noise.error_rate <= limit + 1e-9, "adversarial")
    return lambda columns, rows, sample: twin.labels(noise, rows, sample, noise.epoch)


SOURCE = ("source", "file", "folder", "data set", "shorter than one block")
RATE = ("rate", "amount of noise", "how much noise", "ratio")
WORDS = {
    "source": SOURCE, "validation_source": SOURCE, "error_rate": RATE, "r": (*RATE, "means r=", "error_rate"),
    "name": ("configuration", "how much noise"), "block_size": ("blocks",), "validation_fraction": ("validation",),
    "noisy_splits": ("splits",), "pairs": ("class", "mapping"), "num_classes": ("classes", "labels"),
    "vocab_size": ("token",), "protocol": ("pairs", "how much noise"), "text_column": ("column",),
    "allow_adversarial": ("adversarial",),
}  # fmt: skip

TARGETS = [
    Target("data.load_dataset.text", load_text, text_call, check_text, WORDS, weight=2),
    Target("data.load_dataset.tables", load_table, table_call, check_table, WORDS, weight=2),
]  # fmt: skip
