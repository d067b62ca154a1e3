"""Bad settings for `load_dataset("hf_noise/...")` of text: the rows that they ask for, or an error.

Rows are made anew from what is known to be in the sources: documents are cut into blocks, noise is drawn word after
word (`bad_twins`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bad_places as places
import bad_twins as twin
import datasets
import numpy as np
from bad_calls import Target
from bad_readers import confirm, flag, number, same, text, whole
from bad_values import pick

import hf_noise
from hf_noise.noise import UniformTokens, noise_from_description

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
    source = pick(draw, *[name for name in places.texts() if "other" not in name], *text_sources())
    given = {
        "_builder": builder, "_streaming": bool(draw.random() < 0.3), "source": source, "block_size": pick(draw, 6, 8),
        "tokenizer": pick(draw, places.tokenizer(), places.TOKENIZER), "seed": pick(draw, 3, 2**63 - 1),
        "epoch": pick(draw, 0, 2), "exclude_original": bool(draw.integers(2)), "text_column": "text",
        "noisy_splits": pick(draw, (), ("validation",), "train"), "validation_fraction": pick(draw, 0, 0.3),
        "source_config": None,
    }  # fmt: skip
    if is_plain(source):
        given["documents"] = "paragraph"
    has_validation = isinstance(source, dict) and "validation" in source or "both" in source
    if not (has_validation or isinstance(source, list) and len(source) > 1) and draw.random() < 0.3:
        given = {**given, "validation_source": str(places.FOLDER / "other.jsonl"), "validation_fraction": None}
    given |= rate(draw) if builder != "packed" else {"r": 0.0}
    if "validation" in given["noisy_splits"] and not (given["validation_fraction"] or has_validation):
        given["noisy_splits"] = ()
    validation = ("validation_fraction", "validation_source", "noisy_splits")
    return some(draw, given, ("source", "block_size", "tokenizer", "name", "r", "error_rate", *validation))


def text_sources() -> tuple[Any, ...]:
    """Lists of files, data in memory, one source for each split."""
    lines, other, plain = (str(places.FOLDER / name) for name in ("lines.jsonl", "other.jsonl", "plain.txt"))
    memory = places.MEMORY["text"]
    return (
        [lines], [lines, other], [plain], memory, {"train": lines, "validation": other},
        datasets.DatasetDict({"train": memory}), {"train": [lines], "validation": Path(other)},
    )  # fmt: skip


def files_of(source: Any) -> list[str]:
    if isinstance(source, Mapping | list | tuple):
        parts = source.values() if isinstance(source, Mapping) else source
        return [file for part in parts for file in files_of(part)]
    return [str(source)]


def is_plain(source: Any) -> bool:
    return any(file.endswith(".txt") for file in files_of(source))


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
    found = places.by_split(source, places.texts())
    share, other = given.get("validation_fraction"), given.get("validation_source")
    if share is not None:
        confirm(0 <= number(share) < 1, "share")
    found = {split: part for split, part in found.items() if split in NUMBERS}
    confirm("train" in found, "nothing to train on")
    if other is not None:
        confirm(not share, "two validations")
        there = places.by_split(other, places.texts())
        both = {place for place in files_of(source) if str(place) in files_of(other)}
        confirm(not both, "the same files")
        return {**found, "validation": there.get("validation", there["train"])}
    share = 0.01 if share is None else number(share)
    if "validation" in found or not share:
        return found
    if isinstance(source, list | tuple) and (files := held_files(list(map(str, source)), share)):
        parts = {
            side: [d for file in source if (str(file) in files) == side for d in places.texts()[str(file)]["train"]]
            for side in (True, False)
        }  # fmt: skip
        return {"train": parts[False], "validation": parts[True]}
    sides = {side: [d for d in found["train"] if is_held_out(d, share) == side] for side in (True, False)}
    return {"train": sides[False], "validation": sides[True]}


def held_files(files: list[str], share: float) -> set[str]:
    """Those of several files that are held out whole; none where documents are."""
    is_text = all(file.endswith(".txt") for file in files)
    if len(files) < 2 or not is_text and share * len(files) < 1:
        return set()
    draws = {file: hashlib.sha256(Path(file).read_bytes()[:65536]).digest()[:8] for file in files}
    held = {file for file in files if int.from_bytes(draws[file], "big") < share * 2**64}
    held = held or {file for file in files if draws[file] == min(draws.values())}
    confirm(len(held) < len(files) or not is_text, "all held out")
    return held if len(held) < len(files) else set()


def check_text(given: dict[str, Any], result: dict[str, Any]) -> None:
    given = {"source": None, "tokenizer": None, **as_named(given)}
    confirm(given["tokenizer"] in (None, places.tokenizer()) or str(given["tokenizer"]) == places.TOKENIZER, "words")
    confirm(not isinstance(given["tokenizer"], bytes | list), "words")
    text(given.get("text_column", "text"), "text")
    documents = given.get("documents")
    confirm(documents is None or is_plain(given["source"]) and documents in ("file", "line", "paragraph"), "documents")
    if is_plain(given["source"]) and documents != "paragraph":
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


SOURCE = ("source", "file", "folder", "data set", "shorter than one block")
RATE = ("rate", "amount of noise", "how much noise", "ratio")
WORDS = {
    "source": SOURCE, "validation_source": SOURCE, "error_rate": RATE, "r": (*RATE, "means r=", "error_rate"),
    "name": ("configuration", "how much noise"), "block_size": ("blocks",),
    "noisy_splits": ("splits",), "pairs": ("class", "mapping"), "num_classes": ("classes", "labels"),
    "vocab_size": ("token",), "protocol": ("pairs", "how much noise"), "text_column": ("column",),
    "allow_adversarial": ("adversarial",), "allow_missing_classes": ("missing", "classes"),
    "validation_fraction": ("validation",), "test_fraction": ("test",), "test_source": SOURCE,
    "human_column": ("human", "people", "column", "protocol"),
}  # fmt: skip

TARGETS = [
    Target("data.load_dataset.text", load_text, text_call, check_text, WORDS, weight=2),
]  # fmt: skip
