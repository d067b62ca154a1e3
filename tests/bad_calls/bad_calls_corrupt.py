"""Bad data sets, noises and columns for `corrupt`: rows whose noise is drawn word after word here, or an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import bad_places as places
import bad_twins as twin
import datasets
import numpy as np
from bad_calls import Target
from bad_calls_data import check_stated, some
from bad_readers import confirm, same, text, whole
from bad_values import pick

from hf_noise import corrupt
from hf_noise.noise import HumanLabels, LabelFlips, RandomDocuments, UniformTokens, noise_from_description

SIZE, CLASSES = 9, 4
NAMES = list("abcd")


def tokens_of(draw: np.random.Generator, rows: int, equal: bool) -> list[list[int]]:
    found = [draw.integers(0, SIZE, 3 if equal else 1 + i % 3).tolist() for i in range(rows)]
    if draw.random() < 0.3:
        found[0][0] = -100
    return found


def table(draw: np.random.Generator, rows: int = 6, first: int = 0) -> datasets.Dataset:
    """Tokens, labels and other columns, with sample ids or without, in one chunk or two."""
    equal = bool(draw.integers(2))
    columns = {
        "tokens": tokens_of(draw, rows, equal), "labels": draw.integers(0, CLASSES, rows).tolist(),
        "kind": draw.integers(0, CLASSES, rows).tolist(), "text": [f"row {i}" for i in range(rows)],
        "sample_id": [first + 7 * i % 11 for i in range(rows)],
    }  # fmt: skip
    token = pick(draw, "int32", "int64", "uint16")
    features = datasets.Features({
        "tokens": datasets.List(datasets.Value("int16" if token == "uint16" else token), length=3 if equal else -1),
        "labels": datasets.Value(pick(draw, "int64", "uint8", "int16")), "kind": datasets.ClassLabel(names=NAMES),
        "text": datasets.Value("string"), "sample_id": datasets.Value("int64"),
    })  # fmt: skip
    made = datasets.Dataset.from_dict(columns, features=features)
    two = datasets.concatenate_datasets([made.select(range(2)), made.select(range(2, rows))])
    part, without = made.select(range(1, rows)), made.remove_columns("sample_id")
    return pick(draw, made, without, two, part, made.with_format("numpy"))


def noise_of(draw: np.random.Generator, column: str) -> Any:
    seed, redraw = pick(draw, 0, 3, 2**63 - 1), pick(draw, "epoch", "never")
    if column == "tokens":
        return UniformTokens(ratio=pick(draw, 0.5, 1), vocab_size=SIZE, seed=seed, redraw=redraw)
    kind = pick(draw, "symmetric", "cyclic", "uniform_resample")
    return LabelFlips(kind=kind, error_rate=0.5, num_classes=CLASSES, seed=seed, redraw=redraw)


def call(draw: np.random.Generator, dataset: Any, always: tuple[str, ...] = ()) -> dict[str, Any]:
    column = pick(draw, "tokens", "labels", "kind")
    given = {
        "dataset": dataset, "noise": noise_of(draw, column), "column": column, "epoch": pick(draw, 0, 2),
        "sample_id": "sample_id", "batch_size": pick(draw, 1, 4, 1000), "noisy_splits": (),
    }  # fmt: skip
    return some(draw, given, ("dataset", "noise", "column", *always))


def one_call(draw: np.random.Generator) -> dict[str, Any]:
    given = call(draw, table(draw))
    given.pop("noisy_splits", None)
    return {**given, **({"num_proc": None} if draw.random() < 0.04 else {})}


def splits_call(draw: np.random.Generator) -> dict[str, Any]:
    first = table(draw)
    second = first.map(moved) if "sample_id" in first.features else first
    splits = datasets.DatasetDict({"train": first, "test": second})
    return call(draw, splits, ("noisy_splits",)) | {"noisy_splits": pick(draw, (), ("test",), ["test"], "test")}


def moved(row: dict[str, Any]) -> dict[str, Any]:
    return {"sample_id": row["sample_id"] + 1000}


def stream_call(draw: np.random.Generator) -> dict[str, Any]:
    made = table(draw)
    made = made if "sample_id" in made.features else made.add_column("sample_id", list(range(len(made))))
    given = call(draw, made.with_format(None).to_iterable_dataset())
    given.pop("noisy_splits", None)
    return given


# ---- results


def rows_of(part: Any) -> dict[str, np.ndarray]:
    part = part.with_format(None)
    is_stored = isinstance(part, datasets.Dataset)
    stored = part if is_stored else datasets.Dataset.from_list(list(part), features=part.features)
    return {
        name: places.padded(values) if values and isinstance(values[0], list) else np.array(values)
        for name in stored.column_names for values in [list(stored[name])]
    }  # fmt: skip


def corrupted(dataset: Any, **given: Any) -> dict[str, Any]:
    """Columns of all splits, their formats, and what is said of the noise."""
    found = corrupt(dataset, **given)
    parts = found if isinstance(found, Mapping) else {"": found}
    told = {name: part.info.description for name, part in parts.items()}
    stated = {name: noise_from_description(told[name]) for name in parts}
    lines = {name: json.loads(told[name].splitlines()[-1]) for name in parts if stated[name]}
    return {
        "columns": {name: rows_of(part) for name, part in parts.items()},
        "format": [part.format["type"] if isinstance(part, datasets.Dataset) else None for part in parts.values()],
        "noise": {name: noise.to_dict() for name, noise in stated.items() if noise},
        "epoch": {name: line["epoch"] for name, line in lines.items()},
        "realised": {name: line.get("realised", {}) for name, line in lines.items()},
    }  # fmt: skip


def expected(given: Mapping[str, Any], part: Any) -> dict[str, Any]:
    """The columns of one split that is corrupted."""
    column, ids, noise = text(given["column"]), text(given.get("sample_id", "sample_id")), given["noise"]
    confirm(ids != column, "one column for both")
    kind, feature = type(noise), part.features[column]
    confirm(kind in (UniformTokens, LabelFlips), "no noise for columns")
    rows = [row[column] for row in part.with_format(None)]
    is_tokens = isinstance(feature, datasets.List)
    confirm(is_tokens == (kind is UniformTokens), "noise of another kind")
    flat = [whole(value) for row in rows for value in (row if is_tokens else [row])]
    size = noise.vocab_size if is_tokens else noise.num_classes
    twin.check_tokens(np.array(flat, dtype=object), size)
    inner = (feature.feature if is_tokens else feature).dtype
    confirm(flat and size - 1 <= np.iinfo(inner).max, "dtype")
    if isinstance(feature, datasets.ClassLabel):
        confirm(feature.num_classes == size, "classes")
    there = ids in part.features
    confirm(there or isinstance(part, datasets.Dataset), "no ids")
    sample = [whole(row[ids]) for row in part.with_format(None)] if there else list(range(len(rows)))
    at_once = len(sample) if isinstance(part, datasets.Dataset) else given.get("batch_size", 1000)
    batches = [sample[i : i + at_once] for i in range(0, len(sample), at_once)]
    confirm(all(len(set(batch)) == len(batch) for batch in batches), "ids that repeat")
    draw = twin.tokens if is_tokens else twin.labels
    pairs = iter(draw(noise, rows if is_tokens else flat, sample, given.get("epoch", 0)))
    drawn = [[next(pairs) for _ in (row if is_tokens else [row])] for row in rows]
    shown = places.padded if is_tokens else lambda part: np.array([row[0] for row in part])
    noisy, mask = (shown([[pair[at] for pair in row] for row in drawn]) for at in (0, 1))
    clean = places.padded(rows) if is_tokens else np.array(rows)
    confirm(not {f"clean_{column}", "is_noisy"} & set(part.features), "corrupted already")
    return {column: noisy, f"clean_{column}": clean, "is_noisy": mask.astype(int) if is_tokens else mask, ids: sample}


def check(given: dict[str, Any], result: dict[str, Any]) -> None:
    dataset = given["dataset"]
    whole(given.get("batch_size", 1), 1, 2**63 - 1)
    if given.get("num_proc") is not None:
        whole(given["num_proc"], 1)
    epoch = whole(given.get("epoch", 0), 0, 2**63 - 1)
    confirm(isinstance(dataset, datasets.Dataset | datasets.IterableDataset | datasets.DatasetDict), "no data set")
    names = given.get("noisy_splits", ())
    names = {names} if isinstance(names, str) else names
    if isinstance(dataset, datasets.DatasetDict):
        confirm(isinstance(names, list | tuple | set | frozenset), "names")
        confirm(all(isinstance(name, str) and name in dataset for name in [*names, "train"]), "names")
        noisy = {"train", *names}
    else:
        confirm(isinstance(names, list | tuple | set | frozenset) and not names, "names")
        dataset, noisy = {"": dataset if dataset.features else dataset._resolve_features()}, {""}
    counts, all_ids = {}, []
    confirm(set(result["columns"]) == set(dataset), "splits")
    confirm(set(result["noise"]) == set(result["epoch"]) == noisy, "said of others")
    for name, part in dataset.items():
        found, wanted = result["columns"][name], expected(given, part) if name in noisy else {}
        others = [other for other in part.features if other not in wanted]
        confirm(set(found) == {*others, *wanted}, f"columns {sorted(found)}")
        plain = rows_of(part)
        for column in others:
            confirm(found[column].tolist() == plain[column].tolist(), "other columns")
        for column, values in wanted.items():
            same(found[column], np.asarray(values), column)
        if name in noisy:
            check_stated(result["noise"][name], given["noise"], epoch)
            same(result["epoch"][name], epoch)
            if given.get("sample_id", "sample_id") in part.features and isinstance(part, datasets.Dataset):
                all_ids += wanted[given.get("sample_id", "sample_id")]
            clean = wanted[f"clean_{given['column']}"]
            places_ = (clean != -100) & (clean != -1 if clean.ndim == 2 else True)
            counts[name or "train"] = (int((wanted["is_noisy"] == 1).sum()), int(places_.sum()))
    confirm(len(set(all_ids)) == len(all_ids), "ids that repeat in two splits")
    for name in noisy:
        stored = isinstance(dataset[name], datasets.Dataset)
        rates = {split: {"rate": n / of if of else 0.0, "n": of} for split, (n, of) in counts.items()} if stored else {}
        confirm(result["realised"][name] == rates, f"realised {result['realised'][name]}, not {rates}")
    formats = [part.format["type"] if isinstance(part, datasets.Dataset) else None for part in dataset.values()]
    confirm(result["format"] == formats, "another format")


def of(**columns: Any) -> datasets.Dataset:
    return datasets.Dataset.from_dict(columns)


LIST = {"tokens": [[1, 2], [3]], "labels": [1, 2], "kind": [0, 1]}
ODD = (
    lambda: of(**LIST), lambda: of(**LIST, sample_id=[1, 1]), lambda: of(**LIST, sample_id=[1, None]),
    lambda: of(**LIST, sample_id=["a", "b"]), lambda: of(**LIST, sample_id=[0.5, 1.0]),
    lambda: of(**LIST, clean_tokens=[1, 0], clean_labels=[1, 0], clean_kind=[1, 0]), lambda: of(**LIST).select([]),
    lambda: of(tokens=[[1, None], [2]], labels=[None, 1], kind=[1, None]), lambda: of(**LIST, is_noisy=[1, 0]),
    lambda: of(tokens=[[0.5], [1.0]], labels=[0.5, 1.0], kind=["a", "b"]),
    lambda: of(tokens=[[[1]], [[2]]], labels=[[1]] * 2), lambda: of(tokens=[[1], None], labels=[1, 2]),
    lambda: of(tokens=[[9], [1]], labels=[4, 0], kind=[-1, 0]), lambda: of(tokens=[[-1], [1]], labels=[-100, 0]),
    lambda: of(tokens=[[], []], labels=[True, False], kind=[False, True]), lambda: of(),
    lambda: of(**LIST).with_format("torch"), lambda: of(**LIST).with_format("pandas"),
    lambda: of(**LIST).with_format("numpy", columns=["labels"]), lambda: of(**LIST, sample_id=["ab", "cd"]),
    lambda: of(**LIST, sample_id=[1, 2]).to_iterable_dataset(), lambda: of(**LIST).to_iterable_dataset(),
    lambda: of(**LIST, sample_id=[2, 2]).to_iterable_dataset(), lambda: datasets.DatasetDict({"test": of(**LIST)}),
    lambda: of(**LIST, sample_id=[2, 3]).to_iterable_dataset().map(lambda row: row), lambda: datasets.DatasetDict(),
    lambda: datasets.DatasetDict({"train": of(**LIST, sample_id=[1, 2]), "test": of(**LIST, sample_id=[2, 3])}),
    lambda: datasets.DatasetDict({"train": of(**LIST), "test": of(**LIST)}), lambda: of(**LIST).data.table,
    lambda: of(labels=np.array([2**40, 1]), kind=[1, 0], tokens=[[2**40], [0]]), lambda: of(**LIST).shuffle(seed=0),
)  # fmt: skip
OTHER_NOISE = (
    lambda: LabelFlips.symmetric(ratio=0.5, num_classes=CLASSES), lambda: UniformTokens,
    lambda: LabelFlips.symmetric(ratio=0.5, num_classes=1000), lambda: LabelFlips.cyclic(ratio=0.5, num_classes=2),
    lambda: UniformTokens(ratio=0.5, vocab_size=2**31),
    lambda: UniformTokens(ratio=0.0, vocab_size=SIZE), lambda: RandomDocuments(alpha=0.5, vocab_size=SIZE),
    lambda: HumanLabels.from_columns([0, 1, 2], [0, 1, 1], num_classes=3, name="people"),
    lambda: LabelFlips.symmetric(ratio=0.5, num_classes=CLASSES).to_dict(),
)  # fmt: skip


WORDS = {
    "dataset": ("column", "data set", "split", "stream", "labels", "label", "token", "rows", "tokens"), "epoch": (),
    "noise": ("column", "labels", "classes", "tokens", "token"), "column": ("sample ids", "columns"),
    "sample_id": ("sample ids", "column"), "noisy_splits": ("split", "splits"),
}  # fmt: skip
EXTRA = {"dataset": ODD, "noise": OTHER_NOISE, "column": [lambda: "text", lambda: "sample_id", lambda: "kind"],
         "sample_id": [lambda: "labels", lambda: "text", lambda: "tokens", lambda: "index"]}  # fmt: skip

TARGETS = [
    Target("data.corrupt", corrupted, one_call, check, WORDS, EXTRA, weight=1.5),
    Target("data.corrupt.splits", corrupted, splits_call, check, WORDS, EXTRA),
    Target("data.corrupt.stream", corrupted, stream_call, check, WORDS, EXTRA),
]  # fmt: skip
