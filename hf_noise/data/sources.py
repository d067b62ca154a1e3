"""What a `source` names (embedded data, local files, a data set on the Hub), read through `datasets`.

A source is cut into shards by a rule that looks at its files alone. Row numbers, and with them sample ids and noise,
count within a shard, so they do not depend on the number of processes, on streaming or on the order of reading.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import ArrowBasedBuilder, Dataset, Features, IterableDataset, load_dataset_builder
from datasets.exceptions import DatasetNotFoundError

from hf_noise.data.hub_revision import hub_revision
from hf_noise.data.local_files import (
    IMAGE_FOLDER,
    IMAGES,
    TEXT,
    identity_of,
    local_files,
    reader_of,
    splits_of_folder,
    visible_files,
)
from hf_noise.data.packaged import DOCS_TEXT, PACKAGED
from hf_noise.data.reading import CorpusError, Shard, check_parquet, extension, file_names, unreadable_file
from hf_noise.data.source_names import SourceLike, check_source, source_name

__all__ = ["Source", "find_source", "find_splits", "source_identity"]

_SPLIT_WORD = re.compile(r"(?<![a-z0-9])(train(?:ing)?|test(?:ing)?|val(?:id(?:ation)?)?|dev)(?![a-z0-9])")
_SPLIT_WORDS = {"train": "train", "test": "test", "val": "validation", "dev": "validation"}
# Local files are put together, and Parquet is cut at row groups, into shards of about this size on disk: around a
# million tokens each, beside which the tokens dropped at the end of a shard (fewer than a row) do not count.
_SHARD_BYTES = 4 << 20


@dataclass(frozen=True)
class Source:
    """A corpus that has been found.

    Attributes:
        name: what the user called it.
        identity: changes when the content does (of files: path, size and time; of a data set on the Hub: its name and
            commit).
        path, options: how `datasets.load_dataset` is called for it.
        files: its local files, empty for a data set on the Hub.
        one_shard_a_file: the files were cut into shards when they were made.
        rows: those of a `datasets.Dataset`, which has no files of its own.
    """

    name: str
    identity: str
    path: str
    options: dict[str, Any]
    files: tuple[str, ...] = ()
    one_shard_a_file: bool = False
    rows: Dataset | None = None

    def splits(self) -> dict[str, IterableDataset]:
        """The splits as streams. Files and globs are one split, "train"; a folder may hold more, by its file names.

        Raises:
            CorpusError: a file cannot be read, or has no rows (where this is seen at once).
            ConnectionError: the data set is on the Hub, which cannot be reached.
            DatasetNotFoundError: there is no such data set.
        """
        if self.rows is not None:
            return {"train": self._stream_of_rows()}
        if self.is_columnar and not self.one_shard_a_file:
            check_parquet(self.files, self.options.get("columns"), self.name)
        try:
            builder = self._builder()
            found = self._streams(builder)
        except OSError as error:  # which every network error is, and DatasetNotFoundError too
            if self.files or isinstance(error, DatasetNotFoundError):
                raise
            raise ConnectionError(
                f"{self.name!r} is no local file or folder, and could not be read from the Hub "
                f"({type(error).__name__}: {error}); without a network, give source= a local file, glob or folder, "
                f'or source="{DOCS_TEXT}"'
            ) from error
        if isinstance(builder, ArrowBasedBuilder):
            # Its reader would cast each file to the columns of the first one, all of them; `Shard` does it by name.
            builder.info.features = None
        return found

    def _stream_of_rows(self) -> IterableDataset:
        if not len(self.rows):
            raise CorpusError(f"the source {self.name!r} is empty: it has no rows")
        table = self.rows.data.table  # of which `select` takes some rows
        size = table.nbytes * len(self.rows) / max(1, len(table))
        return self._as_many(min(len(self.rows), max(1, math.ceil(size / _SHARD_BYTES))))

    def _as_many(self, shards: int) -> IterableDataset:
        return self.rows.with_format(None).to_iterable_dataset(num_shards=shards)

    def _builder(self) -> Any:
        try:
            return load_dataset_builder(self.path, **self.options)
        except ValueError as error:
            if self.options.get("name") is None:
                raise
            raise ValueError(f"source_config={self.options['name']!r} of {self.name!r}: {error}") from error

    def _streams(self, builder: Any) -> dict[str, IterableDataset]:
        try:
            return dict(builder.as_streaming_dataset())
        except StopIteration as error:  # how the reader of JSON takes empty files
            raise CorpusError(f"the source {self.name!r} is empty: it has no rows") from error
        except Exception as error:  # what the first file, or the metadata of images, raises
            if isinstance(error, OSError) and not self.files:
                raise
            files = list(next(iter((builder.config.data_files or {}).values()), []))[:1]
            if self.is_image_folder:
                files = [file for file in visible_files(Path(self.name).expanduser()) if file.stem == "metadata"]
            raise unreadable_file(", ".join(map(str, files)), self.name, error) from error

    @property
    def is_local(self) -> bool:
        """Whether its rows are on this machine, so that they may be read more than once."""
        return bool(self.files) or self.rows is not None

    @property
    def is_text(self) -> bool:
        """Whether these are local files of plain text."""
        return bool(self.files) and extension(self.files[0]) in TEXT

    @property
    def is_columnar(self) -> bool:
        """Whether these are local files of which one column can be read without the others."""
        return bool(self.files) and all(file.endswith(".parquet") for file in self.files)

    @property
    def is_image_folder(self) -> bool:
        """Whether this is a local folder of images in one folder a class."""
        return self.path == IMAGE_FOLDER

    def narrowed(self, dataset: IterableDataset, columns: list[str]) -> IterableDataset:
        """One split without its other columns, where that spares reading them; else as it is.

        Raises:
            CorpusError: a file has no such column.
        """
        if self.rows is not None:
            return replace(self, rows=self.rows.select_columns(columns))._as_many(dataset.num_shards)
        if not self.is_columnar or self.one_shard_a_file or set(dataset.column_names) <= set(columns):
            return dataset
        return replace(self, options={**self.options, "columns": columns}).splits()[str(dataset.split)]

    def apart(self) -> list[Source]:
        """One source for each split that the names of its data files tell, because their columns may differ.

        Of a folder, these are the splits that `datasets` sees; of a glob, those that the file names hold as a word
        ("mnist-train.parquet", "mnist-test.parquet"). Other sources stay whole.
        """
        if not self.files or self.is_image_folder or self.one_shard_a_file:
            return [self]
        reader, _ = reader_of(self.files)
        options = {name: value for name, value in self.options.items() if name not in ("data_files", "name")}
        if "data_files" not in self.options:
            files = self._builder().config.data_files
        elif len(self.options["data_files"]) > 1:
            files = self.options["data_files"]
        elif len(files := _by_split(self.files)) == 1:
            return [self]
        return [
            replace(self, path=reader, options={"data_files": {split: list(part)}, **options}, files=tuple(part))
            for split, part in files.items()
        ]

    def shards(
        self, dataset: IterableDataset, shard_bytes: int | None = None, features: Features | None = None
    ) -> list[Shard]:
        """The shards of one split: neighbouring local files together, about 4 MiB; on the Hub, one shard per file.

        Local files that are larger are whole shards, but Parquet is cut at its row groups. `shard_bytes` is another
        size, for rows of which a shard drops none; `features` are the columns that are used, by default all.
        """
        files, count = file_names(dataset), dataset.num_shards
        if self.files and not self.one_shard_a_file and not self.is_image_folder:
            # All the pieces there are: row groups of Parquet.
            if self.is_columnar:
                dataset = dataset.reshard()
            size = sum(Path(file).stat().st_size for file in files)
            count = min(dataset.num_shards, max(1, math.ceil(size / (shard_bytes or _SHARD_BYTES))))
        elif self.rows is not None and shard_bytes:
            count = max(1, math.ceil(count * _SHARD_BYTES / shard_bytes))
        told = (self.name, features or dataset.features, files[0] if files else self.name)
        return [Shard(dataset.shard(num_shards=count, index=index), index, *told) for index in range(count)]


def find_splits(
    source: SourceLike | Mapping[str, SourceLike], config: str | None = None, documents: str | None = None
) -> dict[str, tuple[Source, IterableDataset]]:
    """The splits of a source, each with the source that it is read from; their columns may differ.

    Args:
        source: as for `find_source`; or `{split: source}`, where each source has that split or no other one (a list of
            files is read whole), such as a `DatasetDict`.
        config, documents: as for `find_source`.

    Raises:
        ValueError: a source of the mapping has several splits, and the one it is named for is not among them.
    """
    if not isinstance(source, Mapping):
        return _splits_of(find_source(source, config, documents))
    found = {}
    for split, part in _sources_of(source, config, documents).items():
        is_list = isinstance(source[split], list | tuple)
        there = {"train": (part, part.splits()["train"])} if is_list else _splits_of(part)
        if split not in there and len(there) > 1:
            raise ValueError(f"the source {part.name!r} for the split {split!r} has the splits {', '.join(there)}")
        found[split] = there[split] if split in there else next(iter(there.values()))
    return found


def _sources_of(source: Mapping[str, SourceLike], config: str | None, documents: str | None) -> dict[str, Source]:
    if not source or not all(isinstance(split, str) for split in source):
        told = source_name(source)
        raise ValueError(f'source={told} must name splits and where they are, as {{"train": ..., "test": ...}}')
    found = {split: _find(place, config, documents) for split, place in source.items()}
    _check_config(source, config, *found.values())
    return found


def _splits_of(source: Source) -> dict[str, tuple[Source, IterableDataset]]:
    return {split: (part, dataset) for part in source.apart() for split, dataset in part.splits().items()}


def source_identity(source: SourceLike | Mapping[str, SourceLike], config: str | None = None) -> str:
    """`Source.identity` of a source or of all sources of a mapping."""
    if not isinstance(source, Mapping):
        return find_source(source, config).identity
    return json.dumps({str(split): _find(source[split], config).identity for split in sorted(source, key=str)})


def find_source(source: SourceLike, config: str | None = None, documents: str | None = None) -> Source:
    """Find out what `source` names, without reading it.

    Args:
        source: "embedded/docs-text", "embedded/digits", "embedded/docs-topics" or "embedded/docs-pairs"; a local file,
            glob or folder (parquet, arrow, json, jsonl, csv, tsv, txt, md, each also compressed), or a list of files
            and globs; a folder of images (more of them than data files), in one folder a class; the id of a data set on
            the Hub; or a `datasets.Dataset`, whose fingerprint tells it from others in the cache. Links to files are
            followed, links to folders within a folder are refused.
        config: the configuration of a data set on the Hub that has several.
        documents: what a row of text files is, "file" (in lines), "line" or "paragraph"; by default paragraphs.

    Raises:
        FileNotFoundError: nothing is there, or a glob matches nothing.
        ValueError: files of a kind that cannot be read, or of several kinds, or an empty one; a folder that links to
            another, or that save_to_disk() wrote; a configuration of something that has none.
        TypeError: none of these.
    """
    _check_config(source, config, found := _find(source, config, documents))
    return found


def _check_config(source: Any, config: str | None, *found: Source) -> None:
    if config is not None and not any("name" in part.options for part in found):
        raise ValueError(
            f"source_config={config!r} means nothing for source={source_name(source)}, which has no configurations; "
            "leave it out"
        )


def _find(source: Any, config: str | None, documents: str | None = None) -> Source:
    if isinstance(source, Dataset):
        return Source(source_name(source), f"Dataset {source._fingerprint}", "", {}, rows=source)
    if isinstance(source, list | tuple):
        return _list_of_files(source, documents)
    if isinstance(source, Mapping):
        raise TypeError(f"source must be that of one split here, got {source!r:.80}; find_splits() takes several")
    check_source("source", source)
    name = str(source)
    if not name.strip():
        raise ValueError(f"source must name a file, a folder or a data set, got {name!r}")
    if name in PACKAGED:
        files, identity, splits = PACKAGED[name]
        by_split = {split: files(split) for split in splits}
        return Source(name, identity(), "parquet", {"data_files": by_split}, tuple(by_split["train"]), True)
    files = local_files(name)
    if not files and name.startswith("embedded/"):
        there = " and ".join(map(repr, PACKAGED))
        raise ValueError(f"there are no embedded data called {name!r}; this version has {there}")
    if not files:
        revision = hub_revision(name)
        pinned = {"revision": revision} if revision else {}
        return Source(name, f"{name} {config} {revision}", name, {"name": config, **pinned})
    folder = Path(name).expanduser()
    identity = identity_of(files, folder if folder.is_dir() else None)
    if folder.is_dir() and extension(files[0]) in IMAGES:
        return Source(name, identity, IMAGE_FOLDER, {"data_dir": str(folder.absolute())}, files)
    reader, options = reader_of(files, documents)
    _check_not_empty(files, name)
    if folder.is_dir() and any(extension(file) == ".md" for file in files):
        return Source(name, identity, reader, {"data_files": splits_of_folder(folder, files), **options}, files)
    if folder.is_dir():
        return Source(name, f"{identity} {config}", str(folder), options | {"name": config}, files)
    return Source(name, identity, reader, {"data_files": {"train": list(files)}, **options}, files)


def _list_of_files(places: Sequence[str | Path], documents: str | None) -> Source:
    """One source of several files and globs in their order."""
    name, files = source_name(list(map(str, places))), []
    for place in places:
        if not isinstance(place, str | Path) or not str(place).strip():
            raise TypeError(f"a list given as source must hold paths of files, got {place!r:.80} in it")
        found = () if str(place) in PACKAGED else local_files(str(place))
        if not found or Path(place).expanduser().is_dir():
            raise ValueError(
                f"{str(place)!r} in the list given as source is no file or glob; a folder, or a data set on the Hub, "
                "is a source of its own"
            )
        files.extend(found)
    if not files:
        raise ValueError("the list given as source is empty; name files in it")
    if twice := next((file for file in files if files.count(file) > 1), None):
        raise ValueError(f"the file {twice} comes twice in the list given as source; name it once")
    reader, options = reader_of(tuple(files), documents)
    _check_not_empty(files, name)
    identity, given = identity_of(tuple(files), None), {"data_files": {"train": files}, **options}
    return Source(name, identity, reader, given, tuple(files))


def _check_not_empty(files: Sequence[str], name: str) -> None:
    if empty := next((file for file in files if not Path(file).stat().st_size), None):
        raise CorpusError(f"the file {empty} of the source {name!r} is empty: it has no rows; leave it out")


def _by_split(files: tuple[str, ...]) -> dict[str, list[str]]:
    """The files by the split that their names tell, "train" for those that tell none."""
    found: dict[str, list[str]] = {}
    for file in files:
        word = _SPLIT_WORD.search(Path(file).name.lower())
        split = next(name for name in _SPLIT_WORDS if word[1].startswith(name)) if word else "train"
        found.setdefault(_SPLIT_WORDS[split], []).append(file)
    return found
