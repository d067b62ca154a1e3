"""Files read one after the other, through the readers of `datasets`, so that whatever is wrong is named by its file.

The readers cast every file to the columns of the first one and fail, without a name, where those differ; here they give
each file as it is, and `Shard` takes the columns that are used.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features, IterableDataset
from datasets.exceptions import DatasetGenerationError
from datasets.table import cast_array_to_feature

from hf_noise.data.columns import fits

__all__ = [
    "CorpusError",
    "Shard",
    "check_column",
    "check_parquet",
    "extension",
    "file_names",
    "first_of",
    "source_features",
    "tables_of_files",
    "unreadable_file",
    "with_features",
]

_COMPRESSIONS = {".gz", ".bz2", ".xz", ".zst"}
_TEXT, _JSON, _CSV = {".txt", ".md"}, {".json", ".jsonl", ".ndjson"}, {".csv", ".tsv"}
_BATCH = 1000  # rows of a reader that makes rows, not tables
_NULL = re.compile(b"\0")
# What pandas calls a column that has values and no name.
_NAMELESS = "__index_level_0__"


class CorpusError(DatasetGenerationError, ValueError):
    """A source that cannot be used. `datasets` passes its own class of errors on without wrapping it in another."""


@dataclass(frozen=True)
class Shard:
    """One piece of a source: shard `index` of its split, read in order and in constant memory.

    Attributes:
        dataset: its files, or row groups of Parquet.
        index: its number in the split.
        source: what the user called the source.
        features: the columns of the split, which all its files have to have; None takes each as it is.
        first: the file that the features are from.
    """

    dataset: IterableDataset
    index: int
    source: str = ""
    features: Features | None = None
    first: str = "the first file"

    def tables(
        self, batch_size: int, columns: Sequence[str] | None = None, wanted: Callable[[str], bool] | None = None
    ) -> Iterator[pa.Table]:
        """The rows as Arrow tables of `batch_size` rows (the last one smaller); see `files` for the errors.

        `wanted` says which files to take the rows of; by default all.
        """
        if wanted is None:
            return _in_batches((table for _, table in self.files(columns)), batch_size)
        if not any(map(wanted, file_names(self.dataset))):
            return iter(())
        return _in_batches((table for file, table in self.files(columns) if wanted(file)), batch_size)

    def files(self, columns: Sequence[str] | None = None) -> Iterator[tuple[str, pa.Table]]:
        """`(file, some of its rows)`, in order. Only `columns` are looked at, in that order; None means all.

        Raises:
            CorpusError: a file cannot be read or has no rows, lacks a column or (if all are looked at) has one more, or
                one of another type, or it numbers the same classes differently.
        """
        features = self.features
        if features is not None and columns is not None:
            features = Features({name: features[name] for name in columns})
        before, had = None, set()
        for file, table in tables_of_files(self.dataset, self.source):
            if file != before:
                before, had = file, set()
                self._check_columns(table, features, columns, file)
            if columns is not None:
                had.update(table.column_names)
                self._check_lacking(table.column_names, columns, file, had)
                table = table.select([name for name in columns if name in table.column_names])
            elif features is not None and extension(file) not in _JSON:  # whose lines leave out what they do not have
                self._check_lacking(table.column_names, features, file)
            try:
                table.validate(full=True)  # texts that are none are seen here, by name, and not when they are used
            except pa.ArrowInvalid as error:
                raise unreadable_file(file, self.source, error) from error
            yield file, table if features is None else self._fit(table, features, file)

    def _check_lacking(
        self, names: Sequence[str], wanted: Iterable[str], file: str, had: Collection[str] = ()
    ) -> None:
        """Raise CorpusError if a file has not all columns, in its first rows (`had`: in those before)."""
        for column in wanted:
            if column not in names and column not in had:
                why = f", which {self.first} has" if file != self.first else ""
                raise _lacks(file, self.source, column, names, why)

    def _check_columns(
        self, table: pa.Table, features: Features | None, columns: Sequence[str] | None, file: str
    ) -> None:
        """Names of columns and of classes, which are the same in all rows of a file."""
        if features is None:
            return
        there = set(table.column_names)
        if columns is None and (more := sorted(there - set(features))):
            raise CorpusError(
                f"the file {file} of the source {self.source!r} has the column {more[0]!r}, which {self.first} has "
                "not; give files of the same columns"
            )
        own = Features.from_arrow_schema(table.schema) if b"huggingface" in (table.schema.metadata or {}) else {}
        for name, feature in features.items():
            names = getattr(own.get(name), "names", None)
            if isinstance(feature, ClassLabel) and names is not None and names != feature.names:
                raise CorpusError(
                    f"the files {self.first} and {file} of the source {self.source!r} number the classes of column "
                    f"{name!r} differently, so the same number means two things: {feature.names[:10]} and "
                    f"{names[:10]}; bring them into one order"
                )

    def _fit(self, table: pa.Table, features: Features, file: str) -> pa.Table:
        schema = features.arrow_schema
        if table.schema.equals(schema):
            return table
        columns = []
        for name, feature in features.items():
            if name in table.column_names:
                columns.append(self._cast(table[name], name, feature, schema.field(name).type, file))
            else:  # left out by some lines of JSON
                columns.append(pa.nulls(len(table), schema.field(name).type))
        return pa.table(columns, schema=schema)

    def _cast(
        self, column: pa.ChunkedArray, name: str, feature: Any, target: pa.DataType, file: str
    ) -> pa.ChunkedArray:
        if column.type == target:
            return column
        wanted = feature if isinstance(feature, ClassLabel) else target
        told = f"column {name!r} of the file {file} of the source {self.source!r} holds {column.type}, and {wanted} in "
        told += self.first
        if not isinstance(feature, ClassLabel) and not fits(column.type, target):
            missing = pa.types.is_floating(column.type) and extension(file) in _CSV
            why = " (a value that is missing turns the integers of CSV into floats)" if missing else ""
            raise CorpusError(f"{told}; give all files the same types{why}")
        try:
            chunks = [cast_array_to_feature(chunk, feature, allow_primitive_to_str=False) for chunk in column.chunks]
            return pa.chunked_array(chunks, target)
        except (TypeError, ValueError, pa.ArrowException) as error:
            raise CorpusError(f"{told}: {error}") from error


def tables_of_files(dataset: IterableDataset, source: str) -> Iterator[tuple[str, pa.Table]]:
    """`(file, a table of it)` for all files of a stream that a reader of `datasets` made, as the reader gives them.

    Raises:
        CorpusError: a file cannot be read, or has no rows.
    """
    # A copy, because it counts where it is.
    rows = copy.copy(dataset._ex_iterable)
    if not hasattr(rows, "kwargs") or rows.iter_arrow is None:  # of a folder of images, files are rows
        try:
            for table in dataset.with_format("arrow").iter(batch_size=_BATCH):
                yield source, table
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
            raise unreadable_file(None, source, error) from error
        return
    files = file_names(dataset) or [f"number {index}" for index in range(rows.num_shards)]
    counts = dict.fromkeys(files, 0)
    state = rows._init_state_dict()
    tables = iter(rows.iter_arrow())
    while True:
        try:
            _, table = next(tables)
        except StopIteration:
            break
        except (ConnectionError, TimeoutError, MemoryError):
            raise
        except Exception as error:  # readers raise those of pandas, Arrow, zlib, lzma, codecs and more
            file = files[state["shard_idx"]]
            if isinstance(error, OSError) and "://" in file:  # the network's, which says nothing of the file
                raise
            raise unreadable_file(file, source, error) from error
        file = files[state["shard_idx"]]
        counts[file] += len(table)
        if _NAMELESS in table.column_names and extension(file) in _CSV:  # elsewhere an index of pandas
            raise unreadable_file(file, source, ValueError("its lines have more fields than its first line has names"))
        if extension(file) in _TEXT and any(_NULL.search(chunk.buffers()[-1] or b"") for chunk in table[0].chunks):
            raise unreadable_file(file, source, ValueError("it holds null characters, as binary files and UTF-16 do"))
        yield file, table
    empty = [file for file, count in counts.items() if not count]
    if empty and "row_groups_list" not in rows.kwargs:  # of which one may be empty; see `check_parquet`
        raise CorpusError(f"the file {empty[0]} of the source {source!r} is empty: it has no rows; leave it out")


def unreadable_file(file: str | None, source: str, error: Exception) -> CorpusError:
    """The error that names a file of a source which cannot be read."""
    what = f"the file {file} of the source {source!r}" if file else f"the source {source!r}"
    encoded = isinstance(error, UnicodeError) or "UTF8" in str(error)
    remedy = "; save it as UTF-8" if encoded else "; mend it, or leave it out"
    return CorpusError(f"{what} cannot be read ({type(error).__name__}: {str(error).strip()}){remedy}")


def check_parquet(files: Iterable[str], columns: Sequence[str] | None, source: str) -> None:
    """Raise CorpusError unless the footers of all files can be read, name some rows and have these columns."""
    for file in files:
        try:
            with pq.ParquetFile(file) as parquet:
                rows, names = parquet.metadata.num_rows, parquet.schema_arrow.names
        except (OSError, ValueError, pa.ArrowException) as error:
            raise unreadable_file(file, source, error) from error
        if not rows:
            raise CorpusError(f"the file {file} of the source {source!r} is empty: it has no rows; leave it out")
        for column in columns or ():
            if column not in names:
                raise _lacks(file, source, column, names)


def file_names(dataset: IterableDataset) -> list[str]:
    """The file of each shard of a stream that a reader of `datasets` made; none where it does not say."""
    kwargs = getattr(dataset._ex_iterable, "kwargs", {})
    names = kwargs.get("base_files") or kwargs.get("files") or []
    return list(names) if all(isinstance(name, str) for name in names) else []


def source_features(dataset: IterableDataset, source: str) -> Features:
    """The columns of a stream, read from its first rows for formats without a schema.

    Raises:
        CorpusError: the first file cannot be read, or has no rows.
    """
    if dataset.features:  # none of blank lines
        return dataset.features
    for _, table in tables_of_files(dataset, source):
        if len(table):
            return Features.from_arrow_schema(table.schema)
    raise CorpusError(f"the source {source!r} is empty: it has no rows")


def with_features(dataset: IterableDataset, source: str) -> IterableDataset:
    """The stream with known columns, see `source_features`."""
    return dataset if dataset.features else dataset.cast(source_features(dataset, source))


def check_column(dataset: IterableDataset, column: str, source: str, option: str) -> None:
    """Raise ValueError unless the source has this column; `option` is the argument that chooses another."""
    names = source_features(dataset, source)
    if column not in names:
        raise ValueError(
            f"the source {source!r} has no column {column!r}; it has {', '.join(map(repr, names))}: "
            f"choose one with {option}={first_of(dataset)}"
        )


def first_of(dataset: IterableDataset) -> str:
    """Which file the columns are those of, in words, where a source has several; else nothing."""
    files = file_names(dataset)
    return f" (its first file is {files[0]})" if len(files) > 1 else ""


def extension(file: str | Path) -> str:
    """The extension that says what a file holds, in small letters, before that of a compression."""
    suffixes = [suffix.lower() for suffix in Path(file).suffixes]
    while suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _lacks(file: str, source: str, column: str, names: Iterable[str], why: str = "") -> CorpusError:
    there = ", ".join(map(repr, names))
    return CorpusError(f"the file {file} of the source {source!r} has no column {column!r}{why}; it has {there}")


def _in_batches(tables: Iterable[pa.Table], batch_size: int) -> Iterator[pa.Table]:
    """The same rows in tables of `batch_size`; a shorter one where the columns change, and at the end."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        if waiting and not table.schema.equals(waiting[0].schema):
            yield pa.concat_tables(waiting)
            waiting, rows = [], 0
        while rows + len(table) >= batch_size:
            waiting.append(table.slice(0, batch_size - rows))
            table = table.slice(batch_size - rows)
            yield pa.concat_tables(waiting)
            waiting, rows = [], 0
        if len(table):
            waiting.append(table)
            rows += len(table)
    if waiting:
        yield pa.concat_tables(waiting)


