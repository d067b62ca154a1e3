"""Validation holds whole files where there are enough, else documents; nothing is on both sides."""

from __future__ import annotations

import gzip
import hashlib
import json
import re

import pytest
from datasets import Dataset, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.data import sources
from hf_noise.data.embedded import embedded_tokenizer
from hf_noise.data.held_out import check_apart, held_out_files, is_held_out

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def name_of(number):
    """A word of letters, found in no other number's: `xaax`, `xabx`, ..."""
    return f"x{LETTERS[number // 26]}{LETTERS[number % 26]}x"


def paragraphs(number, count=4):
    return "\n\n".join(f"{name_of(number)} paragraph {i} of this file" for i in range(count))


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, "wt") if file.suffix == ".gz" else file.open("w") as stream:
        stream.write(text)


@pytest.fixture
def sides(tmp_path):
    """The numbers of the files whose words are in each split."""
    tokenizer = embedded_tokenizer()

    def sides(source, files, streaming=False, **options):
        options = {"block_size": 4, "validation_fraction": 0.3, **options}
        data = load_dataset(
            "hf_noise/packed", source=str(source), cache_dir=str(tmp_path / "cache"), streaming=streaming, **options
        )
        texts = {split: tokenizer.decode([n for row in rows for n in row["input_ids"]]) for split, rows in data.items()}
        return [{i for i in range(files) if name_of(i) in texts[split]} for split in ("train", "validation")]

    return sides


@pytest.mark.parametrize(("streaming", "one_shard"), [(False, True), (True, False)])
@pytest.mark.parametrize(
    ("place", "source"),
    [("{}.txt", ""), ("{}.txt", "/*.txt"), ("deep/{}/a.md", ""), ("{}.txt.gz", ""), ("deep/{}.txt", "/**/*.txt")],
)
def test_no_text_file_is_on_both_sides(tmp_path, sides, monkeypatch, place, source, one_shard, streaming):
    if not one_shard:
        monkeypatch.setattr(sources, "_SHARD_BYTES", 1)
    for number in range(40):
        write(tmp_path / "own" / place.format(number), paragraphs(number))
    train, validation = sides(f"{tmp_path}/own{source}", 40, streaming)
    assert not train & validation and len(train | validation) == 40
    # By the hash of their content alone: the same files wherever they lie and whatever they are called.
    draw = lambda number: int(hashlib.sha256(paragraphs(number).encode()).hexdigest()[:16], 16)  # noqa: E731
    assert validation == {number for number in range(40) if draw(number) < 0.3 * 2**64}


def test_noise_and_processes_change_nothing(tmp_path, sides, monkeypatch):
    monkeypatch.setattr(sources, "_SHARD_BYTES", 1)
    for number in range(20):
        write(tmp_path / "own" / f"{number}.txt", paragraphs(number))
    one = sides(tmp_path / "own", 20)
    assert sides(tmp_path / "own", 20, num_proc=2) == one and all(one)
    noisy = load_dataset("hf_noise/owt-noisy", source=str(tmp_path / "own"), block_size=4, validation_fraction=0.3, r=1)
    plain = load_dataset("hf_noise/packed", source=str(tmp_path / "own"), block_size=4, validation_fraction=0.3)
    assert all(noisy[split]["clean_labels"][:] == plain[split]["input_ids"][:] for split in plain)


def test_copies_of_a_file_are_on_one_side(tmp_path, sides):
    for number in range(10):
        for copy in range(3):
            write(tmp_path / "own" / f"{copy}-{number}.txt", paragraphs(number))
    for number in range(10, 20):
        write(tmp_path / "own" / f"{number}.txt", paragraphs(number))
    train, validation = sides(tmp_path / "own", 20)
    assert not train & validation and len(train | validation) == 20 and validation & set(range(10))


def test_less_than_one_file_is_one_file_and_a_warning(tmp_path, sides, caplog):
    for number in range(5):
        write(tmp_path / "own" / f"{number}.txt", paragraphs(number, 9))
    train, validation = sides(tmp_path / "own", 5, validation_fraction=None)  # 1% by default
    (held,) = validation
    assert train == set(range(5)) - validation
    (told,) = (record.getMessage() for record in caplog.records if "less than one" in record.getMessage())
    assert f"1 of 5 files, whole (20.0% of the bytes): {held}.txt; validation_fraction=0.01 of 5 files" in told


def test_a_single_text_file_is_cut_inside(tmp_path, sides):
    write(tmp_path / "own.txt", "\n\n".join(f"{name_of(n)} is a document of its own" for n in range(60)))
    for streaming in (False, True):
        train, validation = sides(tmp_path / "own.txt", 60, streaming)
        assert train == set(range(42)) and validation == set(range(42, 60))  # the last 30%, between paragraphs
        train, validation = sides(tmp_path / "own.txt", 60, streaming, documents="paragraph")
        assert not train & validation and train and validation
        assert validation == {n for n in range(60) if is_held_out(f"{name_of(n)} is a document of its own", 0.3)}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_rows_are_dealt_out_by_their_text_and_equal_ones_are_on_one_side(tmp_path, sides, kind):
    texts = [f"{name_of(number)} is a document of its own" for number in range(40)]
    for part in range(3):  # each document is in all three files
        rows = Dataset.from_dict({"text": texts[part:] + texts[:part]})
        (tmp_path / "own").mkdir(exist_ok=True)
        getattr(rows, f"to_{kind.removesuffix('l')}")(tmp_path / "own" / f"{part}.{kind}")
    train, validation = sides(tmp_path / "own", 40)
    assert not train & validation and validation == {n for n, text in enumerate(texts) if is_held_out(text, 0.3)}


def test_a_file_of_the_validation_source_is_in_no_other(tmp_path):
    for number in range(3):
        write(tmp_path / "own" / f"{number}.txt", paragraphs(number, 20))
    options = {"block_size": 4, "cache_dir": str(tmp_path / "cache")}
    (tmp_path / "link.txt").symlink_to(tmp_path / "own" / "1.txt")
    both = r"own/\d.txt is in source=.* and in validation_source=.*leave it out of one"
    for other in ("own/1.txt", "own/*.txt", "own", "link.txt"):
        with pytest.raises(ValueError, match=both):
            load_dataset("hf_noise/packed", source=str(tmp_path / "own"), validation_source=str(tmp_path / other),
                         **options)  # fmt: skip
    rows = load_dataset("hf_noise/packed", source=str(tmp_path / "own" / "[02].txt"),
                        validation_source=str(tmp_path / "own" / "1.txt"), **options)  # fmt: skip
    assert rows["validation"].num_rows


@pytest.mark.parametrize("streaming", [False, True])
def test_a_test_split_is_read_whole_beside_held_out_files(tmp_path, streaming):
    for number in range(6):
        write(tmp_path / "own" / ("train" if number < 5 else "test") / f"{number}.txt", paragraphs(number))
    data = load_dataset("hf_noise/packed", source=str(tmp_path / "own"), block_size=4, validation_fraction=0.3,
                        cache_dir=str(tmp_path / "cache"), streaming=streaming)  # fmt: skip
    tokens = [n for row in data["test"] for n in row["input_ids"]]
    assert list(data) == ["train", "validation", "test"]
    assert embedded_tokenizer().decode(tokens).startswith(f"{name_of(5)} paragraph 0")


def test_a_split_without_text_is_called_so(tmp_path):
    for split, text in {"train": paragraphs(0, 30), "test": " \n\n"}.items():
        Dataset.from_dict({"text": [text.strip()] * 20}).to_parquet(tmp_path / "own" / f"{split}.parquet")
    with pytest.raises(ValueError, match="the test split of .* has no document with any text; give more text"):
        load_dataset("hf_noise/packed", source=str(tmp_path / "own"), block_size=4, validation_fraction=0)


def test_splits_of_a_folder_stay_as_they_are(tmp_path, sides):
    for number in range(6):
        write(tmp_path / "own" / ("train" if number < 4 else "validation") / f"{number}.txt", paragraphs(number))
    assert sides(tmp_path / "own", 6) == [{0, 1, 2, 3}, {4, 5}]


def files_of(folder, contents):
    files = []
    for number, content in enumerate(contents):
        (folder / f"{number}.txt").write_text(content)
        files.append(str(folder / f"{number}.txt"))
    return files


@given(contents=st.lists(st.text("ab", max_size=3), min_size=2, max_size=12), share=st.floats(0.001, 0.999))
@settings(max_examples=60, deadline=None)
def test_any_files(tmp_path_factory, contents, share):
    files = files_of(tmp_path_factory.mktemp("files"), contents)
    try:
        held = held_out_files(files, share, "here")
    except ValueError as error:
        assert "text files of the source 'here' are held out" in str(error)
        draws = [int(hashlib.sha256(content.encode()).hexdigest()[:16], 16) / 2**64 for content in contents]
        assert len(set(contents)) == 1 or max(draws) < share
        return
    assert 0 < len(held) < len(files)
    sides = {content: {file in held for file, other in zip(files, contents, strict=True) if other == content}
             for content in contents}  # fmt: skip
    assert all(len(side) == 1 for side in sides.values())
    # More files are held out of a larger share, and the same ones.
    assert share < 0.5 or held_out_files(files, share / 2, "here") <= held or len(held) == 1


def test_files_that_go_on_differently_are_on_one_side(tmp_path):
    head = "the same beginning " * 4000  # 76 kB
    files = files_of(tmp_path, [head + "a", head + "b", "another"])
    held = held_out_files(files, 0.5, "here")
    assert (files[0] in held) == (files[1] in held)


def test_files_on_the_hub_are_dealt_out_by_their_paths():
    url = "hf://datasets/owner/name@{}/data/{}.txt"
    first, later = (
        [url.format(revision, number) for number in range(50)] for revision in ("a" * 40, "b" * 40)
    )
    sides = [[file in held_out_files(files, 0.3, "owner/name") for file in files] for files in (first, later)]
    assert sides[0] == sides[1] and 5 < sum(sides[0]) < 26  # 4.6 standard errors: one false alarm in 10^5


@pytest.mark.parametrize(
    ("files", "share"), [(["a.txt"], 0.5), ([], 0.5), (["a.jsonl", "b.jsonl"], 0.49), (["a.txt", "b.parquet"], 0.1)]
)
def test_others_are_dealt_out_by_document(files, share, caplog):
    assert held_out_files(files, share, "here") is None
    assert ("of them is less than one" in caplog.text) == (len(files) > 1)


def test_files_of_rows_that_would_all_be_held_out_are_dealt_out_by_document(tmp_path, caplog):
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("text\nthe same")
    assert held_out_files([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")], 0.999, "here") is None
    assert "documents of all 2 files, because validation_fraction=0.999 of them takes all" in caplog.text


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_no_file_of_rows_is_on_both_sides_if_there_are_enough(tmp_path, sides, kind, streaming, caplog):
    (tmp_path / "own").mkdir()
    for number in range(12):  # a book each
        rows = Dataset.from_dict({"text": [f"{name_of(number)} is page {page} of this book" for page in range(9)]})
        file = tmp_path / "own" / f"{number}.{kind}"
        getattr(rows, f"to_{kind.removesuffix('l')}")(file, **({"batch_size": 2} if kind == "parquet" else {}))
    train, validation = sides(tmp_path / "own", 12, streaming)
    assert not train & validation and len(train | validation) == 12 and validation
    assert "less than one" not in caplog.text
    train, validation = sides(tmp_path / "own", 12, streaming, validation_fraction=0.08)
    assert train == set(range(12)) and train & validation
    assert "documents of all 12 files, because validation_fraction=0.08 of them is less than one" in caplog.text
    assert "whole files are held out from 0.083 on" in caplog.text


@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl", "parquet"])
def test_few_rows_of_validation_are_told_of(tmp_path, sides, kind, caplog):
    texts = [f"{name_of(number)} is a document of its own" for number in range(40)]
    if kind == "txt":
        write(tmp_path / "own.txt", "\n\n".join(texts))
    else:
        getattr(Dataset.from_dict({"text": texts}), f"to_{kind.removesuffix('l')}")(tmp_path / f"own.{kind}")
    sides(tmp_path / f"own.{kind}", 40, block_size=8, validation_fraction=0.1)
    assert re.search(r"validation of .*: [1-9] rows? of 8 tokens held out at .*=0.1, too few to measure", caplog.text)
    caplog.clear()
    sides(tmp_path / f"own.{kind}", 40, validation_fraction=0.5)
    assert "too few" not in caplog.text


def test_apart(tmp_path):
    a, b = files_of(tmp_path, ["a", "b"])
    check_apart([a], [b], "x", "y")
    check_apart([], [b], "x", "y")
    with pytest.raises(ValueError, match="0.txt is in source='x' and in validation_source='y'"):
        check_apart([a, b], [a], "x", "y")


def test_a_broken_archive_is_named(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(b"no archive")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"text"))
    with pytest.raises(ValueError, match="a.txt.gz of the source 'here' cannot be read .BadGzipFile"):
        held_out_files([str(tmp_path / "a.txt.gz"), str(tmp_path / "b.txt.gz")], 0.5, "here")


def test_the_source_says_which_side_in_every_description(tmp_path):
    """Held-out files change rows, so they are in no cache of another share."""
    for number in range(9):
        write(tmp_path / "own" / f"{number}.txt", paragraphs(number, 9))
    options = {"source": str(tmp_path / "own"), "block_size": 4, "cache_dir": str(tmp_path / "cache")}
    some, more = (load_dataset("hf_noise/packed", validation_fraction=share, **options) for share in (0.2, 0.6))
    assert some["validation"].num_rows < more["validation"].num_rows
    assert json.loads(some["train"].info.description.splitlines()[-1])["realised"]["validation"]["rate"] == 0
