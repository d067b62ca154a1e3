"""Small sources of data for bad calls: files of text, tokens, labels and pictures, and what is in them.

Files are written when they are first asked for, into a folder that goes with the process.
"""

from __future__ import annotations

import functools
import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
from bad_readers import confirm, text
from transformers import PreTrainedTokenizerFast

datasets.disable_progress_bars()
_FOLDER = tempfile.TemporaryDirectory(prefix="hf_noise-bad-calls-")
FOLDER = Path(_FOLDER.name)
CACHE = str(FOLDER / "cache")

WORDS = ["noise", "data", "model", "token", "label", "clean", "wrong", "rate"]
#: Documents of 5 words; each is one word longer with the end of text.
DOCUMENTS = [" ".join(WORDS[(i * j + i) % 8] for j in range(5)) for i in range(1, 17)]
OTHER = ["rate rate noise noise", "clean wrong label data token"]
CLASSES = 4
NUMERALS = ["zero", "one", "two", "three"]  # as classes in the order of the alphabet


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; 0 is the end of text."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    ids = {word: i for i, word in enumerate(["<end>", *WORDS])}
    words = Tokenizer(models.WordLevel(ids, unk_token="<end>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")
    made.save_pretrained(FOLDER / "tokenizer")
    return made


TOKENIZER = str(FOLDER / "tokenizer")
VOCABULARY = 1 + len(WORDS)


def ids_of(documents: list[str]) -> list[int]:
    return [i for document in documents for i in (*(1 + WORDS.index(word) for word in document.split()), 0)]


def png(number: int, side: int = 2) -> bytes:
    """A grey picture whose first pixel is `number`."""
    pixels = np.zeros((side, side), dtype=np.uint8)
    pixels[0, 0] = number
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _lines(name: str, documents: list[str]) -> Path:
    file = FOLDER / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"text": document, "n": 1}) + "\n" for document in documents))
    return file


@functools.cache
def texts() -> dict[str, dict[str, list[str]]]:
    """Source of text -> split -> documents."""
    lines, table, plain = _lines("lines.jsonl", DOCUMENTS), FOLDER / "table.parquet", FOLDER / "plain.txt"
    pq.write_table(pa.table({"text": DOCUMENTS, "n": range(len(DOCUMENTS))}), table, row_group_size=5)
    plain.write_text("\n\n".join(DOCUMENTS))
    _lines("both/train.jsonl", DOCUMENTS)
    _lines("both/validation.jsonl", OTHER)
    _lines("other.jsonl", OTHER)
    remember("text", datasets.Dataset.from_dict({"text": DOCUMENTS}), {"train": DOCUMENTS})
    return {
        str(lines): {"train": DOCUMENTS}, str(table): {"train": DOCUMENTS}, str(plain): {"train": DOCUMENTS},
        str(FOLDER / "both"): {"train": DOCUMENTS, "validation": OTHER}, str(FOLDER / "other.jsonl"): {"train": OTHER},
    }  # fmt: skip


def columns(seed: int, rows: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    labels = np.arange(rows) % CLASSES
    return {
        "tokens": [draw.integers(0, VOCABULARY, 1 + i % 3).tolist() for i in range(rows)],
        "labels": labels, "kind": labels, "human_people": np.where(np.arange(rows) % 5, labels, (labels + 1) % CLASSES),
        "text": [f"row {i}" for i in range(rows)], "share": draw.random(rows),
        "word": np.array(NUMERALS)[labels], "flag": labels % 2 == 1,
    }  # fmt: skip


@functools.cache
def tables() -> dict[str, dict[str, dict[str, Any]]]:
    """Source of a table -> split -> columns."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    features = datasets.Features({
        "tokens": datasets.List(datasets.Value("int32")), "labels": datasets.Value("int16"),
        "kind": datasets.ClassLabel(names=list("abcd")), "human_people": datasets.Value("int16"),
        "text": datasets.Value("string"), "share": datasets.Value("float64"), "word": datasets.Value("string"),
        "flag": datasets.Value("bool"),
    })  # fmt: skip
    for split, rows in (("train", 12), ("test", 8)):
        given = columns(rows, rows)
        for name in (f"table-{split}.parquet", f"tables/{split}.parquet"):
            (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(given).cast(features.arrow_schema), FOLDER / name)
        found[str(FOLDER / f"table-{split}.parquet")] = {"train": given}
        found.setdefault(str(FOLDER / "tables"), {})[split] = given
    for split, given in found[str(FOLDER / "tables")].items():
        remember(split, datasets.Dataset.from_dict(given, features=features), {"train": given})
    return found


#: Data sets in memory, by name; and what is in each, by its fingerprint.
MEMORY: dict[str, datasets.Dataset] = {}
_IN_MEMORY: dict[str, Any] = {}


def remember(name: str, made: datasets.Dataset, content: Any) -> None:
    MEMORY[name], _IN_MEMORY[made._fingerprint] = made, content


@functools.cache
def pictures(classes: int, named: bool = False) -> dict[str, np.ndarray]:
    """Source of pictures -> their labels; the pictures are 0, 1, ..."""
    found = {}
    for split in ("train", "test"):
        labels = np.arange(2 * classes if classes < 50 else classes) % classes
        labels = labels if split == "train" else labels[::-1].copy()
        kind = datasets.ClassLabel(names=[f"c{i}" for i in range(classes)]) if named else datasets.Value("int64")
        images = [{"bytes": png(i), "path": None} for i in range(len(labels))]
        features = datasets.Features({"image": datasets.Image(), "label": kind, "other": datasets.Value("int64")})
        table = pa.table({"image": images, "label": labels, "other": labels})
        file = FOLDER / f"pictures-{classes}-{named}-{split}.parquet"
        pq.write_table(table.cast(features.arrow_schema), file)
        found[str(file)] = labels
    return found


def by_split(source: Any, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a source, or one for each split, holds."""
    if isinstance(source, Mapping):
        confirm(source, "no splits")
        return {text(split): of_split(split, part, known) for split, part in source.items()}
    if isinstance(source, datasets.Dataset):
        confirm(source._fingerprint in _IN_MEMORY, "another data set")
        return dict(_IN_MEMORY[source._fingerprint])
    if isinstance(source, list | tuple):
        confirm(source and len(set(map(str, source))) == len(source), "no files, or one twice")
        parts = [by_split(file, known) for file in source if isinstance(file, str | Path)]
        confirm(len(parts) == len(source) and not any(Path(file).is_dir() for file in source), "no files")
        confirm(len({Path(file).suffix for file in source}) == 1, "files of several kinds")
        return {"train": together([part["train"] for part in parts])}
    confirm(isinstance(source, str | Path) and str(source) in known, f"{source!r:.80} is no source")
    return dict(known[str(source)])


def of_split(split: str, source: Any, known: Mapping[str, Mapping[str, Any]]) -> Any:
    """That split of a source, or the only one that it has."""
    confirm(not isinstance(source, Mapping), "splits in splits")
    there = by_split(source, known)
    confirm(split in there or len(there) == 1, f"several splits, and no {split}")
    return there[split] if split in there else next(iter(there.values()))


def together(parts: list[Any]) -> Any:
    """What several files hold, one after another: documents, labels or columns."""
    if isinstance(parts[0], dict):
        return {name: together([part[name] for part in parts]) for name in parts[0]}
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return [row for part in parts for row in part]


def loaded(data: Mapping[str, Any], names: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Some columns of all splits, stored or streamed, as arrays; rows of lists are padded with -1."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for split, rows in data.items():
        read = rows[:] if isinstance(rows, datasets.Dataset) else _transposed(list(rows))
        found[split] = {name: _array(read[name]) for name in names if name in read}
    return found


def _transposed(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _array(values: Any) -> np.ndarray:
    values = list(values)
    if values and isinstance(values[0], PIL.Image.Image):
        return np.array([np.asarray(picture).flat[0] for picture in values])
    if values and isinstance(values[0], list):
        return padded(values)
    return np.array(values)


def padded(rows: list[list[Any]]) -> np.ndarray:
    rows = [[] if row is None else row for row in rows]
    longest = max(map(len, rows), default=0)
    return np.array([[*map(int, row), *[-1] * (longest - len(row))] for row in rows]).reshape(len(rows), longest)
