"""Bad names of builders, sources and tokenizers, and bad rows for what packs and reads them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bad_places as places
import datasets
import numpy as np
import torch
from bad_calls import Target
from bad_calls_data import RATIOS, is_held_out
from bad_readers import confirm, ints, number, same, text, whole
from bad_values import pick

import hf_noise
from hf_noise.data import held_out
from hf_noise.data.builder import first_sample_id
from hf_noise.data.builders.imagenet_noisy import imagenet_classes
from hf_noise.data.digits import digits, digits_files
from hf_noise.data.packing import PackedRows, Packing
from hf_noise.data.sources import find_source
from hf_noise.data.tokenization import find_tokenizer, tokenizer_identity, vocabulary_size

# ---- names of builders, configurations and settings


SETTINGS = {"seed": 1, "r": 0.5, "epoch": 0, "noisy_splits": (), "source_config": None}


def name_call(draw: np.random.Generator) -> dict[str, Any]:
    setting = pick(draw, *SETTINGS)
    builder = pick(draw, "docs-noisy", "noisy", "digits-noisy", "cifar100-noisy", "imagenet-noisy")
    name = "r0.5" if setting == "r" else pick(draw, *RATIOS)
    return {"path": f"hf_noise/{builder}", "name": name, "setting": setting, "_value": SETTINGS[setting]}


def built(path: Any, name: Any, setting: Any, _value: Any) -> tuple[str, float, Any] | None:
    """Class, rate and setting of a builder; names of other data sets are not ours to judge."""
    if isinstance(path, str) and not path.startswith("hf_noise/"):
        return None
    if not isinstance(setting, str):
        return None
    if not isinstance(path, str) or not isinstance(name, str | None):
        return hf_noise.load_dataset(path, name)
    pictures = {"source": next(iter(places.pictures(10)))}
    more = {
        "noisy": {"column": "tokens", "source": str(places.FOLDER / "tables")}, "digits-noisy": {},
        "docs-noisy": {"source": next(iter(places.texts())), "tokenizer": places.tokenizer()},
    }.get(path.removeprefix("hf_noise/"), pictures)  # fmt: skip
    builder = datasets.load_dataset_builder(path, name, cache_dir=places.CACHE, **{**more, setting: _value})
    return type(builder).__name__, builder.config.ratio, getattr(builder.config, setting, None)


def check_name(given: dict[str, Any], result: Any) -> None:
    if result is None:
        confirm(not str(given["path"]).startswith("hf_noise/") or not isinstance(given["setting"], str), "nothing")
        return
    words = text(given["path"]).removeprefix("hf_noise/").split("-")
    confirm(result[0] == "".join(word.capitalize() for word in words), "another builder")
    if given["_value"] is None:
        return  # to `datasets` as good as not given
    confirm(given["setting"] in SETTINGS and result[2] == given["_value"], "another setting")
    name = given["name"] or None
    confirm(result[1] == (0.5 if name is None and given["setting"] == "r" else RATIOS[text(name, *RATIOS)]), "rate")


UNKNOWN = (
    "classes", "ratio", "check", "data_files", "data_dir", "features", "revision", "version", "beta", "UNITS", "name_",
)  # fmt: skip

# ---- sources and tokenizers


def source_call(draw: np.random.Generator) -> dict[str, Any]:
    source = pick(draw, *places.texts(), *places.tables())
    files = [source] if Path(source).is_file() else source
    return {"source": pick(draw, source, Path(source), files, places.MEMORY["text"]), "config": None}


def found_source(**given: Any) -> tuple[str, int, str]:
    found = find_source(**given)
    return found.name, len(found.files), found.path


def check_source(given: dict[str, Any], result: tuple[str, int, str]) -> None:
    name, files, path = result
    source, known = given["source"], places.texts() | places.tables()
    if isinstance(source, datasets.Dataset):
        places.by_split(source, known)
        confirm((files, path, given["config"]) == (0, "", None) and source._fingerprint in name, "data in memory")
        return
    if isinstance(source, list | tuple):
        places.by_split(source, known)
        confirm(files == len(source) and given["config"] is None, "files")
        same(path, {".jsonl": "json", ".txt": "text", ".parquet": "parquet"}[Path(source[0]).suffix], "path")
        return
    confirm(isinstance(source, str | Path) and name == str(source), "no name")
    if name in known:
        confirm(files == (2 if Path(name).is_dir() else 1), f"{files} files")
        confirm(given["config"] is None or Path(name).is_dir(), "config")
        readers = {".jsonl": "json", ".txt": "text", ".parquet": "parquet", "": name}
        same(path, readers[Path(name).suffix], "path")
    else:  # taken for the id of a data set on the Hub, which is asked when it is read
        confirm(files == 0 and path == name and name.count("/") <= 1 and not name.startswith((".", "/", "~")), "an id")


def tokenizer_call(draw: np.random.Generator) -> dict[str, Any]:
    made = places.tokenizer()
    return {"tokenizer": pick(draw, made, places.TOKENIZER, Path(places.TOKENIZER))}


def tokenized(tokenizer: Any) -> tuple[list[int], int, str, str]:
    found = find_tokenizer(tokenizer)
    ids = found(places.DOCUMENTS[0])["input_ids"]
    same_identity = tokenizer_identity(found) == tokenizer_identity(places.tokenizer())
    return list(ids), vocabulary_size(found), found.eos_token, str(same_identity)


def check_tokenizer(given: dict[str, Any], result: Any) -> None:
    name = given["tokenizer"]
    confirm(name is places.tokenizer() or isinstance(name, str | Path) and str(name) == places.TOKENIZER, "no name")
    expected = ([*places.ids_of(places.DOCUMENTS[:1])][:-1], places.VOCABULARY, "<end>", "True")
    confirm(result == expected, f"{result}")


# ---- small functions


def check_digits(given: dict[str, Any], result: tuple[np.ndarray, np.ndarray, str]) -> None:
    from sklearn.datasets import load_digits

    split = text(given["split"], "train", "test")
    images, labels, file = result
    everything, seen, kept = load_digits(), [0] * 10, []
    for row, label in enumerate(everything.target):
        seen[label] += 1
        if (seen[label] % 5 == 0) == (split == "test"):
            kept.append(row)
    same(labels, everything.target[kept])
    same(images, np.floor(everything.images[kept] * 255 / 16 + 0.5))
    same(Path(file).name, f"{split}.parquet")


def both_digits(split: Any) -> tuple[np.ndarray, np.ndarray, str]:
    return (*digits(split), digits_files(split)[0])


def id_call(draw: np.random.Generator) -> dict[str, Any]:
    splits = pick(draw, [], ("train", "extra", "more"))
    return {"split": pick(draw, "train", "test", "extra"), "shard": pick(draw, 0, 5, 2**20 - 1), "splits": splits}


def check_id(given: dict[str, Any], result: int) -> None:
    split, splits = text(given["split"]), given["splits"]
    splits = [splits] if isinstance(splits, str) else splits
    confirm(isinstance(splits, list | tuple | set | dict | frozenset), "splits")
    usual = ["train", "validation", "test"]
    others = sorted({text(name) for name in [split, *splits]} - set(usual))
    confirm(len(others) <= 5, "too many splits")
    index = (usual + others).index(split)
    same(result, (index * 2**20 + whole(given["shard"], 0, 2**20 - 1)) * 2**40)


def check_held_out(given: dict[str, Any], result: Any) -> None:
    share = number(given["share"])
    confirm(0 <= share < 1, "share")
    confirm(result is is_held_out(text(given["text"]), share), "side")


def check_classes(given: dict[str, Any], result: np.ndarray) -> None:
    classes = whole(given["classes"])
    confirm(classes in (10, 100, 1000) and len(result) == classes, "classes")
    expected = {10: [0, 217, 482, 491, 497, 566, 569, 571, 574, 701], 100: range(0, 1000, 10), 1000: range(1000)}
    same(result, list(expected[classes]))


# ---- packing


def packing_call(draw: np.random.Generator) -> dict[str, Any]:
    batches = pick(draw, [places.DOCUMENTS[:3], places.OTHER], [[], places.OTHER], [["", *places.DOCUMENTS[:2]]])
    return {"tokenizer": places.tokenizer(), "block_size": pick(draw, 2, 5), "batches": batches}


def packed(tokenizer: Any, block_size: Any, batches: Any) -> tuple[np.ndarray, int, int, int]:
    packing = Packing(tokenizer, block_size)
    blocks = list(itertools.islice(packing.rows(batches), 100))
    rows = np.concatenate(blocks) if blocks else np.zeros((0, 0))
    return rows, packing.documents, packing.tokens, packing.dropped


def check_packed(given: dict[str, Any], result: Any) -> None:
    rows, documents, tokens, dropped = result
    size = whole(given["block_size"], 2)
    confirm(given["tokenizer"] is places.tokenizer(), "words")
    batches = given["batches"]
    if hasattr(batches, "__next__"):  # read, and gone
        return
    confirm(isinstance(batches, list | tuple | np.ndarray) or not len(batches), "batches")
    confirm(all(isinstance(batch, list | tuple) for batch in batches), "a batch")
    texts = [part for batch in batches for part in batch if part is not None and text(part)]
    ids = places.tokenizer()([str(part) for part in texts], add_special_tokens=False)["input_ids"] if texts else []
    flat = [token for part in ids for token in (*part, 0)]
    whole_rows = len(flat) // size
    expected = np.array(flat[: whole_rows * size]).reshape(whole_rows, size) if whole_rows else np.zeros((0, 0))
    same(rows, expected)
    same([documents, tokens, dropped], [len(texts), len(flat), len(flat) - whole_rows * size])


# ---- rows


def stored_rows(draw: np.random.Generator, **changes: Any) -> datasets.Dataset:
    rows = np.arange(20).reshape(5, 4)
    kind = pick(draw, datasets.List(datasets.Value("int32"), length=4), datasets.List(datasets.Value("int64")))
    columns = {"input_ids": rows.tolist(), "sample_id": [7, 9, 3, 1, 2**40]} | changes
    features = {"input_ids": kind, "sample_id": datasets.Value("int64")}
    features = {name: features.get(name) or datasets.Value("int64") for name in columns}
    made = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return pick(draw, lambda: made, lambda: made.select([4, 0, 1, 2, 3]).sort("sample_id"))()


def of(columns: Mapping[str, Any]) -> Any:
    return lambda: datasets.Dataset.from_dict(dict(columns))


IDS = {"sample_id": [1, 2]}
RIGHT = of({"input_ids": [[1], [2]], **IDS})
ODD = (
    of({"input_ids": [[1, 2], [3]], **IDS}), of({"input_ids": [[1, None], [3, 4]], **IDS}),
    of({"input_ids": [[1], [2]]}), of({"input_ids": [[1], [2]], **IDS}),
    of({"input_ids": [[0.5], [1.0]], **IDS}), of({"input_ids": [1, 2], **IDS}), of({"input_ids": ["a", "b"], **IDS}),
    of({"input_ids": [[1], [2]], "sample_id": [None, 2]}), of({"input_ids": [[1], [2]], "sample_id": ["a", "b"]}),
    of({"input_ids": [[1], [2]], "sample_id": [0.5, 1]}), of({"input_ids": [[1], None], **IDS}), of({}),
    of({"input_ids": [[], []], **IDS}), of({"input_ids": [[True], [False]], **IDS}),
    lambda: RIGHT().to_iterable_dataset(), lambda: datasets.DatasetDict({"train": RIGHT()}),
    lambda: RIGHT().select([]), lambda: RIGHT().with_format("torch"), lambda: RIGHT().select([1]),
)  # fmt: skip


def rows_call(draw: np.random.Generator) -> dict[str, Any]:
    indices = pick(draw, [0, 1, 2], [3, 0], [-1, 2, 2])
    index = pick(draw, 0, 4, -1, -5)
    return {"dataset": stored_rows(draw), "column": "input_ids", "index": index, "indices": indices}


def read_rows(dataset: Any, column: Any, index: Any, indices: Any) -> Any:
    rows = PackedRows(dataset, column)
    if not len(rows):
        return None
    try:
        one = rows[index]
        many = rows.__getitems__(indices)
    except IndexError as error:  # which ends a loop over rows
        return f"no such row: {error}"
    return len(rows), rows.block_size, one["input_ids"], one["sample_id"], many["input_ids"], many["sample_id"]


def whole_of(value: Any) -> int:
    """A position: arrays and tensors of one integer without axes are as good."""
    if isinstance(value, np.ndarray | torch.Tensor) and value.ndim == 0 and not isinstance(value, np.ma.MaskedArray):
        value = value.item()
    return whole(value)


def check_rows(given: dict[str, Any], result: Any) -> None:
    dataset, column = given["dataset"], text(given["column"])
    confirm(isinstance(dataset, datasets.Dataset), "no data set")
    rows, ids = dataset.with_format(None)[column], dataset.with_format(None)["sample_id"]
    if not len(rows):
        confirm(result is None, "rows of none")
        return
    rows, ids = ints([list(row) for row in rows], 2).tolist(), ints(list(ids), 1).tolist()
    confirm(not any(isinstance(value, bool) for row in dataset.with_format(None)[column] for value in row), "booleans")
    index, outside = whole_of(given["index"]), lambda i: not -len(rows) <= i < len(rows)
    if outside(index) or any(map(outside, indices := ints(given["indices"], 1).tolist())):
        confirm(isinstance(result, str), "a row outside")
        return
    confirm(isinstance(result, tuple), f"{result}")
    expected = (
        len(rows), len(rows[0]), rows[index], ids[index], [rows[i] for i in indices], [ids[i] for i in indices]
    )
    for found, wanted in zip(result, expected, strict=True):
        same(found, wanted)


WORDS = {
    "setting": ("setting", "means nothing", "classes"), "name": ("configuration", "how much noise"),
    "config": ("source_config", "source"), "dataset": ("column", "data set", "rows"), "batches": ("texts", "text"),
    "index": ("row", "rows"), "indices": ("rows",), "split": ("splits",), "splits": ("split",), "source": ("file",),
    "text": ("document",),
}  # fmt: skip

TARGETS = [
    Target("data.load_dataset.names", built, name_call, check_name, WORDS,
           {"setting": [lambda name=name: name for name in UNKNOWN]}),
    Target("data.find_source", found_source, source_call, check_source, WORDS),
    Target("data.find_tokenizer", tokenized, tokenizer_call, check_tokenizer, WORDS),
    Target("data.digits", both_digits, lambda draw: {"split": pick(draw, "train", "test")}, check_digits, WORDS,
           weight=0.3),
    Target("data.first_sample_id", first_sample_id, id_call, check_id, WORDS),
    Target("data.is_held_out", held_out.is_held_out,
           lambda draw: {"text": pick(draw, *places.DOCUMENTS), "share": pick(draw, 0.5, 0)}, check_held_out, WORDS),
    Target("data.imagenet_classes", lambda classes: np.array(imagenet_classes(classes)),
           lambda draw: {"classes": pick(draw, 10, 100, 1000)}, check_classes, WORDS, weight=0.5),
    Target("data.Packing.rows", packed, packing_call, check_packed, WORDS),
    Target("data.PackedRows", read_rows, rows_call, check_rows, WORDS, {"dataset": ODD}),
]  # fmt: skip
