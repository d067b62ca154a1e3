"""Bad settings for `load_dataset("hf_noise/noisy")` of tokens and labels in tables: their rows, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bad_places as places
import bad_twins as twin
import datasets
import numpy as np
from bad_calls import Target
from bad_calls_data import (
    WORDS,
    as_named,
    as_tokens,
    check_columns,
    check_stated,
    common,
    first_id,
    load,
    rate,
    rates_of,
    some,
)
from bad_readers import confirm, flag, ints, number, text, whole
from bad_values import pick

from hf_noise.noise import HumanLabels, LabelFlips

# ---- tables


def table_sources() -> tuple[Any, ...]:
    one, folder, test = (str(places.FOLDER / name) for name in ("table-train.parquet", "tables", "table-test.parquet"))
    places.tables()
    train, other = places.MEMORY["train"], places.MEMORY["test"]
    return (
        one, folder, {"train": one}, {"train": one, "test": test}, [one], [one, test], train,
        datasets.DatasetDict({"train": train, "test": other}), {"train": [one], "test": other},
    )  # fmt: skip


def table_call(draw: np.random.Generator) -> dict[str, Any]:
    source, streaming = pick(draw, *table_sources()), bool(draw.random() < 0.3)
    has_test = isinstance(source, dict) and "test" in source or isinstance(source, str) and "tables" in source
    has_test = has_test or isinstance(source, list) and len(source) > 1
    column = pick(draw, "tokens", "labels", "kind", "word", "flag")
    given = {
        "_builder": "noisy", "_streaming": streaming, "source": source, "seed": pick(draw, 3, 2**63 - 1),
        "epoch": pick(draw, 0, 2), "noisy_splits": (), "column": column, **rate(draw),
    }  # fmt: skip
    if has_test:
        given["noisy_splits"] = pick(draw, (), ["test"], "test")
    elif draw.random() < 0.5:
        given |= pick(draw, {"test_fraction": 0.2}, {"test_fraction": 0, "validation_fraction": 0.3},
                      {"validation_fraction": 0.15, "noisy_splits": "validation"},
                      {"test_source": str(places.FOLDER / "table-test.parquet")})  # fmt: skip
    if column == "tokens":
        size = pick(draw, {"vocab_size": places.VOCABULARY}, {"tokenizer": places.tokenizer()})
        given |= {**size, "exclude_original": bool(draw.integers(2))}
    else:
        people = column in ("labels", "kind")
        protocol = pick(draw, None, "symmetric", "uniform_resample", "cyclic", "pairs", *(["human:people"] * people))
        pairs = {"pairs": {0: 1} if column == "flag" else {0: 1, 3: 2}} if protocol == "pairs" else {}
        given |= {"protocol": protocol, "allow_adversarial": True, "allow_missing_classes": True, **pairs}
        if draw.random() < 0.5:
            given["num_classes"] = classes_of(column)
        if protocol == "human:people":
            given = {name: value for name, value in given.items() if name not in ("r", "error_rate", "name")}
            named = {"protocol": None, "human_column": "human_people"}
            given |= {"noisy_splits": (), **pick(draw, {}, named, {"human_column": "human_people"})}
    always = (
        "source", "column", "name", "r", "error_rate", "vocab_size", "tokenizer", "num_classes", "protocol", "pairs",
        "allow_adversarial", "allow_missing_classes", "noisy_splits", "test_fraction", "validation_fraction",
        "test_source", "human_column",
    )  # fmt: skip
    return some(draw, given, always)


def classes_of(column: str) -> int:
    return 2 if column == "flag" else places.CLASSES


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
    "allow_missing_classes": False, "human_column": None,
}  # fmt: skip
SHARES = {"test": "test_fraction", "validation": "validation_fraction"}


def held_parts(given: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Split -> (columns, sample ids), and which of them are held out."""
    found = places.by_split(given["source"], known)
    if isinstance(given["source"], list | tuple):  # of which the names say the splits
        named = {split: [file for file in given["source"] if split in Path(file).stem] for split in ("train", "test")}
        if all(named.values()):
            found = {split: places.by_split(files, known)["train"] for split, files in named.items()}
    shares = {split: given.get(name) for split, name in SHARES.items()}
    shares = {split: 0.0 if share is None else number(share) for split, share in shares.items()}
    confirm(all(0 <= share < 1 for share in shares.values()) and sum(shares.values()) < 1, "shares")
    for split in SHARES:
        if (place := given.get(f"{split}_source")) is not None:
            confirm(split not in found and not shares[split], "two of one split")
            found[split] = places.of_split(split, place, known)
    held = {split for split, share in shares.items() if share}
    confirm(not held & set(found) and (not held or "train" in found), "two of one split")
    parts = {}
    for split in [*found, *held]:
        columns = found["train" if split in held else split]
        rows = range(len(columns["labels"]))
        if held and split in held | {"train"}:
            rows = [row for row in rows if side_of(row, **shares) == split]
        confirm(len(rows) or given["_streaming"], "an empty split")
        ids = [first_id("train" if split in held else split) + row for row in rows]
        parts[split] = {name: [values[row] for row in rows] for name, values in columns.items()}, ids
    return parts, held


def side_of(row: int, test: float, validation: float) -> str:
    unit = (twin.word_of(twin.key_of(0, 96, 0), row, 0) >> 11) / 2**53
    return "test" if unit < test else "validation" if unit >= 1 - validation else "train"


def check_table(given: dict[str, Any], result: dict[str, Any]) -> None:
    given = {"_streaming": False, **as_named(given)}
    if given.get("human_column") is not None and given.get("protocol") is None:
        given["protocol"] = f"human:{given['human_column']}"
    column = text(given["column"], "tokens", "labels", "kind", "human_people", "word", "flag")
    parts, held = held_parts(given, places.tables())
    noise = common(given, list(parts), *((0.0, 0.0) if is_human(given) else rates_of(given)))
    confirm(noise.error_rate == 0 and not is_human(given) or set(parts) & noise.noisy, "nothing is noisy")
    for name, default in (OF_LABELS if column == "tokens" else OF_TOKENS).items():
        confirm(given.get(name, default) == default, f"{name} means nothing")
    draw_rows = (token_rows if column == "tokens" else label_rows)(given, column, noise)
    confirm(set(result) == {*parts, "noise"} and not (is_human(given) and column == "human_people"), "splits")
    for split, (columns, sample) in parts.items():
        if not sample:
            continue
        rows = [list(row) if column == "tokens" else as_class(row) for row in columns[column]]
        if column != "tokens" and split not in held and not given.get("allow_missing_classes"):
            confirm(set(rows) == set(range(noise.num_classes)), "a class without a row")
        clean = [(value, False) for row in rows for value in (row if column == "tokens" else [row])]
        pairs = draw_rows(columns, rows, sample) if split in noise.noisy else clean
        pairs = iter(pairs)
        kept = [[next(pairs) for _ in row] if column == "tokens" else next(pairs) for row in rows]
        shown = places.padded if column == "tokens" else np.array
        first, second = (
            shown([[pair[at] for pair in row] if column == "tokens" else row[at] for row in kept]) for at in (0, 1)
        )
        others = {name: list(values) for name, values in columns.items() if name not in (column, "tokens")}
        if column != "tokens":
            others["tokens"] = places.padded(columns["tokens"]).tolist()
        check_columns(result[split], noisy=first, is_noisy=second.astype(int) if column == "tokens" else second,
                      clean=shown(rows), sample_id=sample)  # fmt: skip
        confirm(all(result[split][name].tolist() == values for name, values in others.items()), "other columns")
    if is_human(given):
        train = parts["train"][0]
        people = HumanLabels.from_columns(
            [as_class(row) for row in train[column]], train["human_people"], num_classes=places.CLASSES,
            name=given["protocol"].removeprefix("human:"),
        )
        confirm(result["noise"] == people.to_dict(), "other people")
        return
    check_stated(result["noise"], as_tokens(noise) if column == "tokens" else as_flips(noise), noise.epoch)


def as_class(label: Any) -> int:
    """The number of a word, a boolean or an integer."""
    return sorted(places.NUMERALS).index(label) if isinstance(label, str) else int(label)


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
    return isinstance(given.get("protocol"), str) and given["protocol"].startswith("human:")


def label_rows(given: Mapping[str, Any], column: str, noise: SimpleNamespace) -> Any:
    known, classes = classes_of(column), given.get("num_classes")
    noise.num_classes = known if classes is None else whole(classes, known, 2**20)
    confirm(column in ("labels", "human_people") or noise.num_classes == known, "classes")
    flag(given.get("allow_missing_classes", False))
    confirm(given.get("human_source") is None, "human_source")
    protocol = "symmetric" if given.get("protocol") is None else given["protocol"]
    if is_human(given):
        confirm(given.get("human_column") == "human_people" or protocol == "human:people", "no such people")
    else:
        text(protocol, "symmetric", "uniform_resample", "cyclic", "pairs")
        confirm(given.get("human_column") is None, "human_column")
    noise.allow_adversarial, pairs = flag(given.get("allow_adversarial", False)), given.get("pairs")
    confirm((protocol == "pairs") == (pairs is not None), "pairs")
    if is_human(given):
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


TARGETS = [Target("data.load_dataset.tables", load_table, table_call, check_table, WORDS, weight=2)]
