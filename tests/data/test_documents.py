"""What is a document of a text file, and where a single one is cut for validation."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, load_dataset
from hypothesis import given
from hypothesis import strategies as st

from hf_noise.data import documents
from hf_noise.data.documents import Ending, Piece, find_ending, pieces_of_files
from hf_noise.data.embedded import embedded_tokenizer
from hf_noise.data.packing import PackedRows, Packing

BOOK = "".join(f"Chapter {n}\n\n" + "".join(f"line {i} of chapter {n}\n" for i in range(5)) + "\n\n" for n in range(30))


@pytest.fixture
def load(tmp_path):
    def load(split="train", **settings):
        defaults = {"source": str(tmp_path / "*.txt"), "block_size": 8, "validation_fraction": 0}
        defaults |= {"cache_dir": str(tmp_path / "cache")}
        return load_dataset("hf_noise/packed", split=split, **{**defaults, **settings})

    return load


def text_of(rows):
    return embedded_tokenizer().decode(np.concatenate(rows["input_ids"]).tolist())


def tables(text, size=7):
    lines = text.splitlines(keepends=True)
    return [pa.table({"text": lines[start : start + size]}) for start in range(0, len(lines), size)]


@pytest.mark.parametrize("ending", ["txt", "md", "txt.gz"])
def test_a_file_is_a_document(load, tmp_path, ending):
    for name in "ab":
        write = gzip.open if ending.endswith("gz") else open
        with write(tmp_path / f"{name}.{ending}", "wt") as stream:
            stream.write(f"{name}\n{BOOK}")
    text = text_of(load(source=str(tmp_path / f"*.{ending}")))
    whole = f"a\n{BOOK}<|endoftext|>b\n{BOOK}<|endoftext|>"
    assert whole.startswith(text) and len(whole) - len(text) < 40  # less than a row is dropped


@pytest.mark.parametrize(("kind", "count"), [("file", 2), ("line", 14), ("paragraph", 6)])
def test_what_a_document_is_can_be_said(load, tmp_path, kind, count):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name} 1\n\nline 1 of it\nline 2 of it\nthe third\n\n\nx\nline\nline")
    assert text_of(load(documents=kind, block_size=2)).count("<|endoftext|>") in (count, count - 1)
    assert load(documents=kind, streaming=True) is not None


def test_the_same_folder_in_memory_and_by_split(load, tmp_path):
    (tmp_path / "own").mkdir()
    texts = {"train": BOOK, "validation": BOOK[:300]}
    named = {split: str(tmp_path / "own" / f"{split}.txt") for split in texts}
    for split, text in texts.items():
        (tmp_path / "own" / f"{split}.txt").write_text(text)
    one = load(None, source=named)
    memory = DatasetDict({split: Dataset.from_dict({"text": [text]}) for split, text in texts.items()})
    two = load(None, source=memory)
    assert all(one[split].to_list() == two[split].to_list() for split in named)
    assert load(None, source=str(tmp_path / "own"))["validation"].to_list() == one["validation"].to_list()
    assert json.loads(two["train"].info.description.splitlines()[-1])["source"].startswith("{'train': a Dataset of 1 ")


def test_the_end_of_a_single_document_is_held_out(load, tmp_path):
    (tmp_path / "book.txt").write_text(BOOK)
    data = load(None, validation_fraction=0.2, block_size=4)
    start = next(i for i in range(round(0.8 * len(BOOK)), len(BOOK)) if BOOK[i - 2 : i] == "\n\n" and BOOK[i] != "\n")
    assert BOOK[:start].startswith(text_of(data["train"])) and len(text_of(data["train"])) > start - 20
    assert f"{BOOK[start:]}<|endoftext|>".startswith(text_of(data["validation"]))
    told = json.loads(data["train"].info.description.splitlines()[-1])["validation"]
    share = (len(BOOK) - start) / len(BOOK)
    assert told == f"the last {share:.1%} of the one document, from character {start} on, cut between paragraphs"
    stream = load("validation", validation_fraction=0.2, block_size=4, streaming=True)
    assert list(stream) == data["validation"].to_list()


@pytest.mark.parametrize(
    ("text", "start", "between"),
    [
        ("a b\n\nc d\n\ne f\n\ng h\n", 10, "paragraphs"), ("a b\nc d\ne f\ng h\n", 8, "lines"),
        ("aa bb cc dd ee ff", 9, "words"), ("a\n\nb\nc\nd\ne\n", 7, "lines"),
    ],
)  # fmt: skip
def test_where_a_document_is_cut(text, start, between):
    assert find_ending(tables(text, 2), len(text), 0.5, "here") == Ending(start, len(text), between)


def test_a_document_that_cannot_be_cut():
    with pytest.raises(ValueError, match="no paragraph, line or word after 90.0% of its 40 characters"):
        find_ending(tables("a" * 40), 40, 0.1, "here")


@given(st.lists(st.text("ab \n", max_size=30), min_size=1, max_size=4), st.integers(1, 9), st.integers(1, 5))
def test_pieces_are_the_files(texts, most, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "_MOST_TEXT", most)
        files = [(str(n), table) for n, text in enumerate(texts) for table in tables(text, size)]
        pieces = [piece for pieces in pieces_of_files(files) for piece in pieces]
    whole = "".join(piece if isinstance(piece, Piece) else f"{piece}|" for piece in pieces)
    assert whole == "".join(f"{text}|" for text in texts if text)


@given(st.text("ab \n", min_size=2, max_size=60), st.data())
def test_both_sides_of_a_document_are_all_of_it(text, data):
    ending = Ending(data.draw(st.integers(1, len(text) - 1)), len(text), "words")
    files = [("file", table) for table in tables(text, 3)]
    sides = ["".join(sum(pieces_of_files(files, ending, side), [])) for side in (False, True)]
    assert sides == [text[: ending.start], text[ending.start :]]


def test_a_piece_is_not_closed():
    tokenizer = embedded_tokenizer()
    packing = Packing(tokenizer, 2)
    ids = np.concatenate([row for block in packing.rows([[Piece("a b"), "c"], ["d e f"]]) for row in block])
    assert tokenizer.decode(ids).startswith("a bc<|endoftext|>d") and packing.documents == 2


def test_what_has_no_rows_says_what_to_do():
    rows = Dataset.from_dict({"input_ids": [[1, 2]], "sample_id": [0]})
    for wrong, message in [
        (rows.to_iterable_dataset(), "IterableDataset; a stream has no rows to look up: hand it to the trainer as it"),
        (DatasetDict(train=rows, test=rows), r"DatasetDict; choose one of its splits \(train, test\), as in Packed"),
        ([[1, 2]], r"got list; load one with hf_noise.load_dataset\(.*Dataset.from_dict"), (None, "got NoneType"),
    ]:
        with pytest.raises(TypeError, match=message):
            PackedRows(wrong)
