"""Files among many: what is wrong with one is named by its file, and columns that are not used do not matter."""

from __future__ import annotations

import gzip
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.data import labels, reading, sources
from hf_noise.data.builder import CorpusError
from hf_noise.data.builders import noisy
from hf_noise.data.columns import check_same_columns, fits
from hf_noise.data.reading import Shard, check_column, source_features, tables_of_files, with_features
from hf_noise.data.sources import find_source, find_splits

TEXT = [f"some words of document {i}" for i in range(12)]
LABELS = [i % 3 for i in range(12)]


def write(kind, file, **columns):
    """A file of these columns; returns its path."""
    rows = Dataset.from_dict(columns or {"text": TEXT, "label": LABELS})
    if kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "csv":
        rows.to_csv(file)
    elif kind == "parquet":
        rows.to_parquet(file)
    elif kind == "arrow":
        with pa.ipc.new_stream(str(file), rows.data.table.schema) as stream:
            stream.write_table(rows.data.table)
    elif kind == "txt.gz":
        with gzip.open(file, "wt") as stream:
            stream.write("\n\n".join(TEXT))
    else:
        file.write_text("\n\n".join(TEXT))
    return file


def cut(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


#: kind of file, what to do with one among four, what the error says besides its name
BROKEN = [
    ("parquet", cut, "cannot be read .ArrowInvalid: Parquet magic bytes"),
    ("arrow", cut, "cannot be read .(ArrowInvalid|OSError): Expected to"),
    ("jsonl", cut, "cannot be read .ArrowInvalid: JSON parse error"),
    ("txt.gz", cut, "cannot be read .EOFError: Compressed file ended"),
    ("txt.gz", lambda file: file.write_bytes(b"no archive"), "cannot be read .BadGzipFile"),
    ("txt", lambda file: file.write_bytes(b"caf\xe9 " * 9), "UnicodeDecodeError.*; save it as UTF-8"),
    ("csv", lambda file: file.write_bytes(b"text,label\ncaf\xe9,1\n"), "UnicodeDecodeError.*; save it as UTF-8"),
    ("jsonl", lambda file: file.write_bytes(b'{"text": "caf\xe9", "label": 1}\n'), "Invalid UTF8.*; save it as UTF-8"),
    ("txt", lambda file: file.write_text("text", encoding="utf-16-le"), "null characters, as binary files and UTF-16"),
    ("csv", lambda file: file.write_text("text,label\na,1\nb,2,3\n"), "ParserError.*2 fields in line 3, saw 3"),
    ("csv", lambda file: file.write_text("text,label\na,1,9\nb,2,9\n"), "lines have more fields than its first"),
    ("csv", lambda file: file.write_text("text,label\n"), "is empty: it has no rows; leave it out"),
    ("jsonl", lambda file: file.write_text("\n"), "is empty: it has no rows; leave it out"),
    ("jsonl", lambda file: file.write_text("5\n"), "cannot be read"),
    *((kind, lambda file: file.write_bytes(b""), "is empty: it has no rows; leave it out")
      for kind in ("parquet", "arrow", "jsonl", "csv", "txt", "txt.gz")),
    ("parquet", lambda file: write("parquet", file, text=[], label=[]), "is empty: it has no rows"),
    *((kind, lambda file, kind=kind: write(kind, file, words=TEXT), "has no column 'text'.*; it has 'words'")
      for kind in ("parquet", "arrow", "jsonl", "csv")),
    *((kind, lambda file, kind=kind: write(kind, file, text=LABELS), "holds int64, and string in .*f0.*same types")
      for kind in ("parquet", "arrow", "jsonl", "csv")),
    ("parquet", lambda file: write("parquet", file, text=[["a"]] * 3), "holds list<element: string>, and string in"),
]  # fmt: skip


@pytest.mark.parametrize("one_shard", [True, False])
@pytest.mark.parametrize(("kind", "damage", "message"), BROKEN)
def test_the_broken_one_among_many_is_named(tmp_path, monkeypatch, kind, damage, message, one_shard):
    if not one_shard:
        monkeypatch.setattr(sources, "_SHARD_BYTES", 1)
    files = [write(kind, tmp_path / f"f{number}.{kind}") for number in range(4)]
    damage(files[2])
    with pytest.raises(CorpusError, match=rf"(?s){files[2].name} .*{message}"):
        source = find_source(str(tmp_path / f"*.{kind}"))
        dataset = source.narrowed(source.splits()["train"], ["text"])
        for shard in source.shards(dataset, features=Features({"text": Value("string")})):
            list(shard.tables(5, ["text"]))


@pytest.mark.parametrize("num_proc", [None, 2])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("builder", ["packed", "noisy"])
def test_builders_name_it_in_every_process(tmp_path, monkeypatch, builder, streaming, num_proc):
    monkeypatch.setattr(sources, "_SHARD_BYTES", 1)
    monkeypatch.setattr(labels, "SHARD_BYTES", 1)
    monkeypatch.setattr(noisy, "SHARD_BYTES", 1)
    files = [write("jsonl", tmp_path / f"f{number}.jsonl") for number in range(4)]
    with files[2].open("a") as stream:
        stream.write('{"text": "half a li')
    options = {"column": "label", "num_classes": 3, "r": 0.5} if builder == "noisy" else {"block_size": 8}
    if builder == "packed":
        options["validation_fraction"] = 0
    with pytest.raises(CorpusError, match=r"f2.jsonl .*cannot be read"):
        list(load_dataset(
            f"hf_noise/{builder}", source=str(tmp_path / "*.jsonl"), split="train", streaming=streaming,
            num_proc=None if streaming else num_proc, cache_dir=str(tmp_path / "cache"), **options,
        ))  # fmt: skip
    assert not [*tmp_path.rglob("dataset_info.json"), *tmp_path.rglob("*.incomplete")]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "arrow"])
@pytest.mark.parametrize("num_proc", [None, 2])
def test_text_files_need_no_other_column_than_the_text(tmp_path, monkeypatch, kind, num_proc):
    monkeypatch.setattr(sources, "_SHARD_BYTES", 1)
    others = [{}, {"url": ["u"] * 12}, {"label": ["a"] * 12}, {"url": [1.5] * 12, "n": [None] * 12}]
    for number, columns in enumerate(others):
        write(kind, tmp_path / f"f{number}.{kind}", text=TEXT, **columns)
    options = {"block_size": 8, "validation_fraction": 0, "split": "train", "num_proc": num_proc}
    made = load_dataset("hf_noise/packed", source=str(tmp_path / "*"), cache_dir=str(tmp_path / "cache"), **options)
    for number in range(4):
        (tmp_path / f"f{number}.{kind}").rename(tmp_path / f"f{number}.old")
        write(kind, tmp_path / f"f{number}.{kind}", text=TEXT)
    plain = load_dataset(
        "hf_noise/packed", source=str(tmp_path / f"*.{kind}"), cache_dir=str(tmp_path / "cache"), **options
    )
    assert made["input_ids"][:] == plain["input_ids"][:] and made["sample_id"][:] == plain["sample_id"][:]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "arrow"])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"url": ["u"] * 12}, "f1.* has the column 'url', which .*f0.* has not; give files of the same columns"),
        ({"label": None}, "f1.* has no column 'label'.*; it has 'text'"),
        ({"label": [0.5] * 12}, "column 'label' of the file .*f1.* holds double, and int64 in .*f0"),
        ({"label": ["a"] * 12}, "column 'label' of the file .*f1.* holds (large_)?string, and int64 in .*f0"),
        ({"label": [True] * 12}, "column 'label' of the file .*f1.* holds bool, and int64 in .*f0"),
    ],
)
def test_where_all_columns_are_kept_they_have_to_be_the_same(tmp_path, kind, columns, message):
    write(kind, tmp_path / f"f0.{kind}")
    given = {"text": TEXT, "label": LABELS} | columns
    write(kind, tmp_path / f"f1.{kind}", **{name: values for name, values in given.items() if values is not None})
    ((source, dataset),) = find_splits(str(tmp_path / f"*.{kind}")).values()
    with pytest.raises(ValueError, match=message):
        load_dataset("hf_noise/noisy", source=str(tmp_path / f"*.{kind}"), column="label", num_classes=3, r=1,
                     cache_dir=str(tmp_path / "cache"))  # fmt: skip
    assert list(with_features(dataset, source.name).features) == ["text", "label"]


def test_lines_of_json_may_leave_out_what_they_do_not_have(tmp_path):
    write("jsonl", tmp_path / "f0.jsonl", text=TEXT, label=LABELS)
    write("jsonl", tmp_path / "f1.jsonl", label=LABELS)
    rows = load_dataset("hf_noise/noisy", source=str(tmp_path / "*.jsonl"), column="label", num_classes=3, r=1,
                        split="train", cache_dir=str(tmp_path / "cache"))  # fmt: skip
    assert rows["text"][:] == TEXT + [None] * 12 and rows["clean_label"][:] == LABELS * 2


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("column", ["label", "other"])
def test_files_that_number_their_classes_differently(tmp_path, kind, column):
    (folder := tmp_path / "own").mkdir()
    for number, names in enumerate((["ant", "bee", "cat"], ["cat", "bee", "ant"])):
        classes = {"label": ["ant", "bee", "cat"], "other": ["x", "y", "z"]} | {column: names}
        kinds = Features({name: ClassLabel(names=given) for name, given in classes.items()})
        rows = Dataset.from_dict({name: [0, 1, 2] for name in classes}, features=kinds)
        if kind == "parquet":
            rows.to_parquet(folder / f"train-{number}.parquet")
        else:
            with pa.ipc.new_stream(str(folder / f"train-{number}.arrow"), rows.features.arrow_schema) as stream:
                stream.write_table(rows.data.table)
    for streaming in (False, True):
        with pytest.raises(CorpusError, match=rf"train-0.*train-1.*number the classes of column '{column}' diff"):
            list(load_dataset("hf_noise/noisy", source=str(folder), column="label", r=0.5, split="train",
                              streaming=streaming, cache_dir=str(tmp_path / "cache")))  # fmt: skip


def features(**columns):
    return Features({name: Value(kind) if isinstance(kind, str) else kind for name, kind in columns.items()})


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (features(x="int64"), features(x="int64", y="string"), "different columns: 'y' in one only"),
        (features(x="int64"), features(x="string"), "different types in column 'x': int64 and string"),
        (features(x="int64"), features(x=List(Value("int64"))), "different types in column 'x'"),
        (features(x=ClassLabel(names=["a", "b"])), features(x=ClassLabel(names=["b", "a"])), "number .*'x' diff"),
        (features(x="int64"), features(x="int8"), None),
        (features(x="float32"), features(x="null"), None),
        (features(x=ClassLabel(names=["a"])), features(x="int64"), None),
    ],
)
def test_splits_have_the_same_columns(train, test, message):
    if message is None:
        check_same_columns({"train": train, "test": test}, "'here'")
        return
    with pytest.raises(ValueError, match=f"the splits 'train' and 'test' of 'here' .*{message}"):
        check_same_columns({"train": train, "test": test}, "'here'")


KINDS = [pa.int8(), pa.uint64(), pa.float32(), pa.bool_(), pa.string(), pa.large_string(), pa.null()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_types_that_mean_the_same(kind, target):
    groups = [{0, 1}, {2}, {3}, {4, 5}, {6}]
    group, wanted = (next(g for g in groups if KINDS.index(t) in g) for t in (kind, target))
    expected = group == wanted or group == {6} or (group, wanted) == ({0, 1}, {2})
    assert fits(kind, target) == expected
    # An empty list has no type; a value is never a list.
    assert fits(pa.list_(kind), pa.large_list(target)) == (group == wanted or group == {6})
    assert not fits(pa.list_(pa.int8()), pa.int8()) and not fits(pa.int8(), pa.list_(pa.int8()))


def test_widths_are_those_of_the_first_file_or_the_value_is_named(tmp_path):
    write("parquet", tmp_path / "f0.parquet", n=[1, 2])
    pq.write_table(pa.table({"n": pa.array([3, 4], pa.int8())}), tmp_path / "f1.parquet")
    ((source, dataset),) = find_splits(str(tmp_path / "*.parquet")).values()
    (shard,) = source.shards(dataset)
    assert [table["n"].type for table in shard.tables(2)] == [pa.int64()] * 2
    assert [table["n"].to_pylist() for table in shard.tables(3)] == [[1, 2, 3], [4]]
    pq.write_table(pa.table({"n": pa.array([2**63], pa.uint64())}), tmp_path / "f1.parquet")
    with pytest.raises(CorpusError, match="column 'n' of the file .*f1.parquet .*not in range"):
        list(shard.tables(3))


@given(sizes=st.lists(st.integers(0, 9), max_size=8), batch_size=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_batches_hold_all_rows_in_their_order(sizes, batch_size):
    ends = np.cumsum([0, *sizes])
    tables = [pa.table({"n": np.arange(*pair)}) for pair in zip(ends, ends[1:], strict=False)]
    batches = list(reading._in_batches(iter(tables), batch_size))
    assert [n for batch in batches for n in batch["n"].to_pylist()] == list(range(ends[-1]))
    assert all(len(batch) == batch_size for batch in batches[:-1]) and all(len(batch) for batch in batches)


def test_two_readers_of_one_shard_do_not_meet(tmp_path):
    for number in range(3):
        write("jsonl", tmp_path / f"f{number}.jsonl", n=[number])
    source = find_source(str(tmp_path / "*.jsonl"))
    dataset = source.splits()["train"]
    first, second = tables_of_files(dataset, "x"), tables_of_files(dataset, "x")
    names = [(os.path.basename(a), os.path.basename(b)) for (a, _), (b, _) in zip(first, second, strict=True)]
    assert names == [(f"f{number}.jsonl",) * 2 for number in range(3)]


def test_rows_of_some_files_alone(tmp_path):
    for number in range(3):
        write("jsonl", tmp_path / f"f{number}.jsonl", n=[number, number])
    source = find_source(str(tmp_path / "*.jsonl"))
    (shard,) = source.shards(source.splits()["train"])
    read = lambda wanted: [n for table in shard.tables(9, ["n"], wanted) for n in table["n"].to_pylist()]  # noqa: E731
    assert read(lambda file: "f1" not in file) == [0, 0, 2, 2] and read(lambda file: False) == []


def test_columns_of_a_source_of_several_files(tmp_path):
    for number in range(2):
        write("csv", tmp_path / f"f{number}.csv")
    dataset = find_source(str(tmp_path / "*.csv")).splits()["train"]
    assert list(source_features(dataset, "here")) == ["text", "label"]
    with pytest.raises(ValueError, match=r"no column 'words'.*one with text_column= .its first file is .*f0.csv"):
        check_column(dataset, "words", "here", "text_column")


def test_a_shard_without_known_columns_is_read_as_it_is(tmp_path):
    write("csv", tmp_path / "a.csv")
    write("csv", tmp_path / "b.csv", text=TEXT, more=LABELS)
    dataset = find_source(str(tmp_path / "*.csv")).splits()["train"]
    tables = list(Shard(dataset, 0).tables(100))
    assert [table.column_names for table in tables] == [["text", "label"], ["text", "more"]]
