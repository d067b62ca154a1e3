"""Bad calls to what makes, reads and tokenises pairs, and to teachers at work."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Mapping
from typing import Any

import bad_places as places
import numpy as np
import torch
from bad_calls import Target
from bad_calls_teacher import decoding_of, make_decoding
from bad_readers import close, confirm, flag, number, same, text, whole
from bad_values import pick
from datasets import Dataset

from hf_noise.data.pair_tokens import pair_tokenizer, tokenize_pairs
from hf_noise.data.pairs_embedded import docs_pairs
from hf_noise.data.teacher_files import LoadedTeacher, load_teacher
from hf_noise.data.teacher_targets import teacher_nll, write_targets
from hf_noise.data.teacher_training import train_teacher
from hf_noise.models.seq2seq import encoder_decoder
from hf_noise.noise import Decoding

SPLITS, BYTES, LONGEST, WRITTEN = ("train", "validation", "test"), 256, 24, 4
NETWORK = {"layers": 1, "d_model": 8, "heads": 1, "feed_forward": 8, "positions": LONGEST}


def columns(draw: np.random.Generator, rows: int = 3) -> dict[str, list[str]]:
    def words() -> str:
        return " ".join(places.WORDS[i] for i in draw.integers(0, 8, draw.integers(1, 4)))

    return {"source": [words() for _ in range(rows)], "target": [words() for _ in range(rows)]}


def dataset_of(given: Any) -> Any:
    """A data set of these columns; what `datasets` makes none of, as it is."""
    try:
        return Dataset.from_dict(given)
    except Exception:  # noqa: BLE001
        return given


def texts_of(given: Any, *names: str) -> list[list[str]]:
    """Columns of text, as many in each."""
    confirm(isinstance(given, Mapping) and set(names) <= set(given), "no such columns")
    found = [[text(one) for one in Dataset.from_dict(given)[name][:]] for name in names]
    confirm(found[0], "no rows")
    return found


# ---- a tokenizer of pairs


def make_tokenizer(draw: np.random.Generator) -> dict[str, Any]:
    found = columns(draw, 6)
    rows = list(zip(found["source"], found["target"]))
    mappings = [{"source": source, "clean_target": target} for source, target in rows]
    return {"pairs": pick(draw, rows, mappings), "vocab_size": pick(draw, BYTES + 2, BYTES + 4)}


def tokenized(pairs: Any, vocab_size: Any) -> dict[str, Any]:
    """Size and special tokens of the tokenizer, and what comes back of texts."""
    made = pair_tokenizer(pairs, vocab_size)
    told = ["noise data", "ä 1", ""]
    rows = made(told).input_ids
    return {"size": len(made), "ends": [row[-1] for row in rows], "pad": made.pad_token_id,
            "texts": [made.decode(row, skip_special_tokens=True) for row in rows]}  # fmt: skip


def check_tokenizer(given: dict[str, Any], result: dict[str, Any]) -> None:
    confirm(isinstance(given["pairs"], list | tuple | np.ndarray), "no pairs")
    for pair in given["pairs"]:
        if isinstance(pair, Mapping):
            pair = (pair["source"], pair.get("clean_target", pair.get("target")))
        confirm(isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(one, str) for one in pair), "pair")
    size = result["size"] if given["vocab_size"] is None else whole(given["vocab_size"], BYTES + 2)
    same(result, {"size": size, "ends": [1, 1, 1], "pad": 0,
                  "texts": ["noise data", "ä 1", ""]})  # fmt: skip


# ---- pairs as tokens


def make_tokens(draw: np.random.Generator) -> dict[str, Any]:
    given = {"dataset": columns(draw), "max_source_tokens": pick(draw, None, 3, 9), "truncate": True,
             "max_target_tokens": pick(draw, None, 2, 9), "tokenizer": places.tokenizer()}  # fmt: skip
    always = ("dataset", "tokenizer", "truncate")
    return {name: given[name] for name in given if name in always or draw.random() < 0.7}


def as_tokens(dataset: Any, tokenizer: Any, **given: Any) -> dict[str, Any]:
    return tokenize_pairs(dataset_of(dataset), tokenizer, **given).to_dict()


def check_tokens(given: dict[str, Any], result: dict[str, Any]) -> None:
    confirm(given["tokenizer"] is places.tokenizer(), "another tokenizer")
    cut = flag(given["truncate"])
    found = dict(zip(("source", "target"), texts_of(given["dataset"], "source", "target")))
    kept = {name: Dataset.from_dict(given["dataset"])[name][:] for name in given["dataset"] if name in
            ("is_noisy", "sample_id", "teacher_nll")}  # fmt: skip
    expected = {"sample_id": list(range(len(found["source"]))), **kept}
    for name, column in (("source", "input_ids"), ("target", "labels")):
        limit = given.get(f"max_{name}_tokens")
        limit = math.inf if limit is None else whole(limit, 2)
        confirm(all(one.strip() for one in found[name]), "an empty text")
        rows = [[1 + places.WORDS.index(word) if word in places.WORDS else 0 for word in one.split()] + [0]
                for one in found[name]]  # fmt: skip
        confirm(cut or all(len(row) <= limit for row in rows), "too long")
        if any(0 in row[:-1] for row in rows):
            return  # what is no word has the token that ends a row
        expected[column] = [row if len(row) <= limit else [*row[: limit - 1], 0] for row in rows]
    confirm({name: list(map(list, rows)) if name in ("input_ids", "labels") else rows for name, rows in result.items()}
            == expected, "other tokens")  # fmt: skip


# ---- pairs that every Python brings along


def first_docs(**given: Any) -> dict[str, Any]:
    sources, targets = docs_pairs(**given)
    return {"n": [len(sources), len(targets)], "sources": sources[:2], "targets": targets[-2:]}


def check_docs(given: dict[str, Any], result: Any) -> None:
    import pyarrow.parquet as pq

    from hf_noise.data.pairs_embedded import docs_pairs_files

    table = pq.read_table(docs_pairs_files(text(given["split"], *SPLITS))[0])
    column = {"rich": "body", "sparse": "name"}[text(given["context"], "rich", "sparse")]
    confirm(list(result["sources"]) == table[column][:2].to_pylist(), "sources")
    confirm(list(result["targets"]) == table["target"][-2:].to_pylist(), "targets")
    same(result["n"], [len(table), len(table)])


# ---- a teacher and what it writes


@functools.cache
def teacher_folder() -> str:
    """A teacher of one layer, with the tokens of `columns` in bytes."""
    torch.manual_seed(0)
    words = pair_tokenizer([(one, one) for one in places.WORDS for _ in range(9)], BYTES + 10)
    model = encoder_decoder(len(words), pad_token=0, eos_token=1, **NETWORK).eval()
    with torch.no_grad():  # so that what it writes depends on its source
        for name, weight in model.named_parameters():
            weight.mul_(6 if weight.ndim > 1 and "shared" not in name else 1)
    folder = places.FOLDER / "teacher"
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


@functools.cache
def loaded() -> LoadedTeacher:
    return load_teacher(teacher_folder(), decoding=Decoding(max_new_tokens=WRITTEN))


@contextlib.contextmanager
def elsewhere() -> Any:
    """Where names that are none of a folder make one."""
    folder = places.FOLDER / "elsewhere"
    folder.mkdir(exist_ok=True)
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def make_written(draw: np.random.Generator) -> dict[str, Any]:
    given = {"dataset": columns(draw), "teacher": loaded(), "tokens_per_batch": pick(draw, 1, 60), "seed": 3,
             "max_source_tokens": pick(draw, None, LONGEST, 8), "truncate": True, "cache": None,
             "device": pick(draw, None, "cpu")}  # fmt: skip
    given["truncate"] = given["max_source_tokens"] == 8 or bool(draw.integers(2))
    return {name: given[name] for name in given if name in ("dataset", "teacher", "truncate", "max_source_tokens") or
            draw.random() < 0.5}  # fmt: skip


def make_nll(draw: np.random.Generator) -> dict[str, Any]:
    given = make_written(draw)
    given.pop("seed", None)
    return given | {"max_target_tokens": pick(draw, None, LONGEST), "truncate": True}


def worked(work: Any, dataset: Any, teacher: Any, **given: Any) -> Any:
    with elsewhere():
        return work(dataset_of(dataset), teacher, **given)


def tokens_of(given: Mapping[str, Any], name: str) -> list[list[int]]:
    """Rows of tokens as they are cut for the teacher."""
    column = texts_of(given["dataset"], "source", *(["target"] if name == "target" else []))[-1]
    limit = given.get(f"max_{name}_tokens")
    limit = LONGEST if limit is None else min(LONGEST, whole(limit, 2, 2**31))
    rows = [loaded().tokenizer(one).input_ids for one in column]
    confirm(all(one.strip() for one in column), "an empty text")
    confirm(flag(given.get("truncate", False)) or all(len(row) <= limit for row in rows), "too long")
    return [row if len(row) <= limit else [*row[: limit - 1], 1] for row in rows]


def check_call(given: Mapping[str, Any]) -> None:
    confirm(given["teacher"] is loaded(), "another teacher")
    whole(given.get("tokens_per_batch", 60), 1, 2**40)
    whole(given.get("seed", 3), 0, 2**63 - 1)
    cache, device = given.get("cache"), given.get("device")
    confirm(cache is None or (isinstance(cache, str) and cache), "no folder")
    confirm(device is None or torch.device(device).type == "cpu", "device")


def check_written(given: dict[str, Any], result: Any) -> None:
    check_call(given)
    expected = []
    for row in tokens_of(given, "source"):
        with torch.no_grad():
            made = loaded().model.generate(torch.tensor([row]), max_new_tokens=WRITTEN, do_sample=False)
        expected.append(loaded().tokenizer.decode(made[0], skip_special_tokens=True))
    confirm(list(result) == expected, f"{result}, not {expected}")


def check_teacher_nll(given: dict[str, Any], result: np.ndarray) -> None:
    check_call(given)
    expected = []
    for source, target in zip(tokens_of(given, "source"), tokens_of(given, "target"), strict=True):
        with torch.no_grad():
            loss = loaded().model(torch.tensor([source]), labels=torch.tensor([target])).loss
        expected.append(float(loss) * len(target))
    close(result, expected, 1e-4)


def make_loaded(draw: np.random.Generator) -> dict[str, Any]:
    given = {"name": teacher_folder(), "decoding": pick(draw, None, Decoding(**make_decoding(draw))),
             "tokenizer": pick(draw, None, loaded().tokenizer), "task": pick(draw, None, "rich")}  # fmt: skip
    return {name: given[name] for name in given if name == "name" or draw.random() < 0.7}


def identity_of(**given: Any) -> dict[str, Any]:
    found = load_teacher(**given)
    return {"name": found.identity.name, "decoding": vars(found.identity.decoding), "tokens": len(found.tokenizer)}


def check_loaded(given: dict[str, Any], result: dict[str, Any]) -> None:
    decoding, words = given.get("decoding"), given.get("tokenizer")
    confirm(decoding is None or isinstance(decoding, Decoding), "no decoding")
    confirm(words is None or words is loaded().tokenizer, "another tokenizer")
    confirm(given.get("task") is None or isinstance(given["task"], str), "no task")
    same(result, {"name": text(str(given["name"]), teacher_folder()), "tokens": BYTES + 10,
                  "decoding": decoding_of({} if decoding is None else vars(decoding))})  # fmt: skip


def make_training(draw: np.random.Generator) -> dict[str, Any]:
    given = {"pairs": columns(draw, 4), "batch_size": pick(draw, 2, 3), "learning_rate": pick(draw, 1e-3, 0.01),
             "seed": pick(draw, 0, 2**40), "task": pick(draw, None, "rich"), "max_source_tokens": pick(draw, None, 24),
             "truncate": True, "model": {**NETWORK, "dropout": pick(draw, 0, 0.1)},
             "tokenizer": loaded().tokenizer}  # fmt: skip
    return {name: given[name] for name in given if name in ("pairs", "tokenizer", "model") or draw.random() < 0.7}


def trained(pairs: Any, tokenizer: Any, **given: Any) -> dict[str, Any]:
    with elsewhere():
        identity = load_teacher(train_teacher(dataset_of(pairs), tokenizer, steps=1, **given)).identity
    return {"steps": identity.steps}


def check_training(given: dict[str, Any], result: dict[str, Any]) -> None:
    confirm(given["tokenizer"] is loaded().tokenizer and isinstance(given["model"], Mapping), "no network")
    for one in texts_of(given["pairs"], "source", "clean_target" if "clean_target" in given["pairs"] else "target"):
        confirm(all(part.strip() for part in one), "an empty text")
    whole(given.get("batch_size", 64), 1, 2**20)
    confirm(0 < number(given.get("learning_rate", 1e-4)) < math.inf, "rate")
    whole(given.get("seed", 0), 0, 2**63 - 1)
    confirm(given.get("task") is None or isinstance(given["task"], str), "task")
    flag(given.get("truncate", False))
    confirm(given.get("max_source_tokens") is None or whole(given["max_source_tokens"], 2), "limit")
    same(result, {"steps": 1})


ROW_WORDS = ("source", "target", "rows", "column", "pairs", "dataset", "pair", "text")
WORDS = {
    "dataset": ROW_WORDS, "pairs": ROW_WORDS, "teacher": ("teacher", "network"), "name": ("teacher",),
    "max_source_tokens": ("source",), "max_target_tokens": ("target",), "truncate": ("more than", "truncate"),
    "model": ("model", *NETWORK), "cache": ("folder", "cache"), "tokenizer": ("tokenizer",),
}  # fmt: skip

TARGETS = [
    Target("data.pair_tokenizer", tokenized, make_tokenizer, check_tokenizer, WORDS),
    Target("data.tokenize_pairs", as_tokens, make_tokens, check_tokens, WORDS),
    Target("data.docs_pairs", first_docs,
           lambda draw: {"split": pick(draw, *SPLITS), "context": pick(draw, "rich", "sparse")}, check_docs),
    Target("data.write_targets", functools.partial(worked, write_targets), make_written, check_written, WORDS),
    Target("data.teacher_nll", functools.partial(worked, teacher_nll), make_nll, check_teacher_nll, WORDS),
    Target("data.load_teacher", identity_of, make_loaded, check_loaded, WORDS),
    Target("data.train_teacher", trained, make_training, check_training, WORDS, weight=0.3),
]  # fmt: skip
