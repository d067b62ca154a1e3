"""What a `source` names (embedded data, local files, a data set on the Hub), read through `datasets`.

A source is cut into shards by a rule that looks at its files alone. Row numbers, and with them sample ids and noise,
count within a shard, so they do not depend on the number of processes, on streaming or on the order of reading.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Features, IterableDataset, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetNotFoundError

from hf_noise.data.digits import DIGITS, digits_files, digits_identity
from hf_noise.data.embedded import DOCS_TEXT, docs_text_files, docs_text_identity

__all__ = ["Shard", "Source", "check_column", "find_source", "find_splits", "source_identity", "with_features"]

# Extensions and the reader of `datasets` for each; a compression suffix may follow.
_READERS = {
    ".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".tsv": "csv",
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".txt": "text", ".md": "text",
}
_COMPRESSIONS = {".gz", ".bz2", ".xz", ".zst"}
# Read by `imagefolder`, which takes the class of an image from the name of its folder.
_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_IMAGE_FOLDER = "imagefolder"
_SPLIT_WORD = re.compile(r"(?<![a-z0-9])(train(?:ing)?|test(?:ing)?|val(?:id(?:ation)?)?|dev)(?![a-z0-9])")
_SPLIT_WORDS = {"train": "train", "test": "test", "val": "validation", "dev": "validation"}
# What a reader is told. Text: blocks between blank lines are documents, which reads any size in constant memory.
_PARAGRAPHS = {"sample_by": "paragraph"}
_OPTIONS = {".txt": _PARAGRAPHS, ".md": _PARAGRAPHS, ".tsv": {"sep": "\t"}}
# What lies beside the data of a published folder and tells of them.
_ABOUT_DATA = {"README.md", "LICENSE.md", "LICENSE.txt", "record.json", "dataset_info.json", "dataset_infos.json"}
# Local files are put together, and Parquet is cut at row groups, into shards of about this size on disk: around a
# million tokens each, beside which the tokens dropped at the end of a shard (fewer than a row) do not count.
_SHARD_BYTES = 4 << 20


@dataclass(frozen=True)
class Shard:
    """One piece of a source: shard `index` of its split, read in order and in constant memory."""

    dataset: IterableDataset
    index: int

    def tables(self, batch_size: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows as Arrow tables of `batch_size` rows (the last one smaller)."""
        dataset = self.dataset if columns is None else self.dataset.select_columns(columns)
        yield from dataset.with_format("arrow").iter(batch_size=batch_size)


@dataclass(frozen=True)
class Source:
    """A corpus that has been found.

    Attributes:
        name: what the user called it.
        identity: changes when the content does (of files: path, size and time; of a data set on the Hub: its name).
        path, options: how `datasets.load_dataset` is called for it.
        files: its local files, empty for a data set on the Hub.
        one_shard_a_file: the files were cut into shards when they were made.
    """

    name: str
    identity: str
    path: str
    options: dict[str, Any]
    files: tuple[str, ...] = ()
    one_shard_a_file: bool = False

    def splits(self) -> dict[str, IterableDataset]:
        """The splits as streams. Files and globs are one split, "train"; a folder may hold more, by its file names.

        Raises:
            ValueError: the source is empty (where this is seen at once).
            ConnectionError: the data set is on the Hub, which cannot be reached.
            DatasetNotFoundError: there is no such data set.
        """
        try:
            return dict(load_dataset(self.path, streaming=True, **self.options))
        except StopIteration as error:  # how the reader of JSON takes an empty file
            raise ValueError(f"the source {self.name!r} is empty: it has no rows") from error
        except OSError as error:  # which every network error is, and DatasetNotFoundError too
            if self.files or isinstance(error, DatasetNotFoundError):
                raise
            raise ConnectionError(
                f"{self.name!r} is no local file or folder, and could not be read from the Hub "
                f"({type(error).__name__}: {error}); without a network, give source= a local file, glob or folder, "
                f'or source="{DOCS_TEXT}"'
            ) from error

    @property
    def is_columnar(self) -> bool:
        """Whether these are local files of which one column can be read without the others."""
        return bool(self.files) and all(file.endswith(".parquet") for file in self.files)

    @property
    def is_image_folder(self) -> bool:
        """Whether this is a local folder of images in one folder a class."""
        return self.path == _IMAGE_FOLDER

    def only(self, columns: list[str]) -> Source:
        """The same source without its other columns, where that spares reading them; else as it is."""
        return replace(self, options={**self.options, "columns": columns}) if self.is_columnar else self

    def apart(self) -> list[Source]:
        """One source for each split that the names of its data files tell, because their columns may differ.

        Of a folder, these are the splits that `datasets` sees; of a glob, those that the file names hold as a word
        ("mnist-train.parquet", "mnist-test.parquet"). Other sources stay whole.
        """
        if not self.files or self.is_image_folder or self.one_shard_a_file:
            return [self]
        reader, options = _reader_of(self.files)
        if "data_files" not in self.options:
            files = load_dataset_builder(self.path, **self.options).config.data_files
        elif len(files := _by_split(self.files)) == 1:
            return [self]
        return [
            replace(self, path=reader, options={"data_files": {split: list(part)}, **options}, files=tuple(part))
            for split, part in files.items()
        ]

    def shards(self, dataset: IterableDataset, shard_bytes: int | None = None) -> list[Shard]:
        """The shards of one split: neighbouring local files together, about 4 MiB; on the Hub, one shard per file.

        Local files that are larger are whole shards, but Parquet is cut at its row groups. `shard_bytes` is another
        size, for rows of which a shard drops none.
        """
        count = dataset.num_shards
        if self.files and not self.one_shard_a_file and not self.is_image_folder:
            # All the pieces there are; one a row group needs datasets 5.0 (before, it was one a file here too).
            if self.is_columnar:
                dataset = dataset.reshard()
            files = load_dataset_builder(self.path, **self.options).config.data_files[str(dataset.split)]
            size = sum(Path(file).stat().st_size for file in files)
            count = min(dataset.num_shards, max(1, math.ceil(size / (shard_bytes or _SHARD_BYTES))))
        return [Shard(dataset.shard(num_shards=count, index=index), index) for index in range(count)]


def find_splits(
    source: str | Path | Mapping[str, str | Path], config: str | None = None
) -> dict[str, tuple[Source, IterableDataset]]:
    """The splits of a source, each with the source that it is read from; their columns may differ.

    Args:
        source: as for `find_source`; or `{split: source}`, where each source has that split or no other one.
        config: as for `find_source`.

    Raises:
        ValueError: a source of the mapping has several splits, and the one it is named for is not among them.
    """
    if not isinstance(source, Mapping):
        parts = find_source(source, config).apart()
        return {split: (part, dataset) for part in parts for split, dataset in part.splits().items()}
    found = {}
    for split, name in source.items():
        there = find_splits(name, config)
        if split not in there and len(there) > 1:
            raise ValueError(f"the source {str(name)!r} for the split {split!r} has the splits {', '.join(there)}")
        found[split] = there[split] if split in there else next(iter(there.values()))
    return found


def source_identity(source: str | Path | Mapping[str, str | Path], config: str | None = None) -> str:
    """`Source.identity` of a source or of all sources of a mapping."""
    if not isinstance(source, Mapping):
        return find_source(source, config).identity
    return json.dumps({split: find_source(source[split], config).identity for split in sorted(source)})


def find_source(source: str | Path, config: str | None = None) -> Source:
    """Find out what `source` names, without reading it.

    Args:
        source: "embedded/docs-text" or "embedded/digits"; a local file, glob or folder (parquet, arrow, json, jsonl,
            csv, tsv, txt, md, each also compressed); a folder of images (more of them than data files), in one folder a
            class; or the id of a data set on the Hub. In a text file, blank lines part documents.
        config: the configuration of a data set on the Hub that has several.

    Raises:
        FileNotFoundError: nothing is there, or a glob matches nothing.
        ValueError: files of a kind that cannot be read, or of several kinds.
    """
    name = str(source)
    if name == DOCS_TEXT:
        files = {split: docs_text_files(split) for split in ("train", "validation")}
        options = {"data_files": files}
        return Source(name, docs_text_identity(), "parquet", options, tuple(files["train"]), one_shard_a_file=True)
    if name == DIGITS:
        files = {split: digits_files(split) for split in ("train", "test")}
        options = {"data_files": files}
        return Source(name, digits_identity(), "parquet", options, tuple(files["train"]), one_shard_a_file=True)
    if name.startswith("embedded/"):
        raise ValueError(f"there are no embedded data called {name!r}; this version has {DOCS_TEXT!r} and {DIGITS!r}")
    files = _local_files(name)
    if not files:
        return Source(name, f"{name} {config}", name, {"name": config})
    stats = [(str(Path(file).absolute()), Path(file).stat().st_size, Path(file).stat().st_mtime_ns) for file in files]
    identity = hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:16]
    folder = Path(name).expanduser()
    if folder.is_dir() and _extension(files[0]) in _IMAGES:
        return Source(name, identity, _IMAGE_FOLDER, {"data_dir": str(folder.absolute())}, files)
    reader, options = _reader_of(files)
    if folder.is_dir():
        return Source(name, f"{identity} {config}", str(folder), options | {"name": config}, files)
    return Source(name, identity, reader, {"data_files": {"train": list(files)}, **options}, files)


def _local_files(name: str) -> tuple[str, ...]:
    """The local files that `name` means, none if it can only be the id of a data set on the Hub."""
    path = Path(name).expanduser()
    if path.is_file():
        return (str(path),)
    if path.is_dir():
        found = (file for file in path.rglob("*") if _extension(file) in _READERS.keys() | _IMAGES and file.is_file())
        data, images = [], []
        for file in found:
            if file.name not in _ABOUT_DATA and not any(part.startswith(".") for part in file.relative_to(path).parts):
                (images if _extension(file) in _IMAGES else data).append(str(file))
        files = tuple(sorted(images if len(images) > len(data) else data))
        if not files:
            raise FileNotFoundError(f"the folder source={name!r} holds no data files ({', '.join(_READERS)}) or images")
        return files
    if glob.has_magic(name):
        files = tuple(sorted(file for file in glob.glob(str(path), recursive=True) if Path(file).is_file()))
        if not files:
            raise FileNotFoundError(f"no file matches source={name!r} (searched from {Path.cwd()})")
        return files
    # Ids on the Hub are `name` or `namespace/name`; all else, and whatever ends like a data file, meant a local path.
    if name.startswith(("/", ".", "~")) or name.count("/") > 1 or _extension(name) in _READERS:
        raise FileNotFoundError(f"there is no file or folder source={name!r} (searched from {Path.cwd()})")
    return ()


def _reader_of(files: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """The reader of `datasets` for these files and what it is told."""
    kinds = {_extension(file): file for file in files}
    for extension, file in kinds.items():
        if extension not in _READERS:
            raise ValueError(f"{file!r} is of no known kind; readable are {', '.join(_READERS)}, also compressed")
    if len({(_READERS[extension], *_OPTIONS.get(extension, {})) for extension in kinds}) > 1:
        raise ValueError(f"files of several kinds ({', '.join(sorted(kinds))}) are no one source; choose by a glob")
    extension = next(iter(kinds))
    return _READERS[extension], _OPTIONS.get(extension, {})


def _by_split(files: tuple[str, ...]) -> dict[str, list[str]]:
    """The files by the split that their names tell, "train" for those that tell none."""
    found: dict[str, list[str]] = {}
    for file in files:
        word = _SPLIT_WORD.search(Path(file).name.lower())
        split = next(name for name in _SPLIT_WORDS if word[1].startswith(name)) if word else "train"
        found.setdefault(_SPLIT_WORDS[split], []).append(file)
    return found


def _extension(file: str | Path) -> str:
    suffixes = [suffix.lower() for suffix in Path(file).suffixes]
    while suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def with_features(dataset: IterableDataset) -> IterableDataset:
    """The stream with known column types, inferred from its first rows for formats without a schema.

    Raises:
        ValueError: the stream is empty.
    """
    if dataset.features is not None:
        return dataset
    first = next(dataset.with_format("arrow").iter(batch_size=100), None)
    if first is None:
        raise ValueError("the stream is empty: it has no rows")
    return dataset.cast(Features.from_arrow_schema(first.schema))


def check_column(dataset: IterableDataset, column: str, source: str, option: str) -> None:
    """Raise ValueError unless the source has this column; `option` is the argument that chooses another."""
    # Readers of JSON or CSV only see their columns when they read.
    names = dataset.column_names or list(next(iter(dataset), {}))
    if not names:
        raise ValueError(f"the source {source!r} is empty: it has no rows")
    if column not in names:
        raise ValueError(
            f"the source {source!r} has no column {column!r}; it has {', '.join(map(repr, names))}: "
            f"choose one with {option}="
        )
