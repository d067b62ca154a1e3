"""The files that a local source means, the reader of `datasets` for them, and what of them names a cache folder."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from datasets.data_files import DataFilesDict, get_data_patterns

from hf_noise.data.documents import reading_options
from hf_noise.data.reading import extension

__all__ = ["IMAGE_FOLDER", "IMAGES", "TEXT", "identity_of", "local_files", "reader_of", "splits_of_folder",
           "visible_files"]  # fmt: skip

# Extensions and the reader of `datasets` for each; a compression suffix may follow.
_READERS = {
    ".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".tsv": "csv",
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".txt": "text", ".md": "text",
}
TEXT = {kind for kind, reader in _READERS.items() if reader == "text"}
# Read by `imagefolder`, which takes the class of an image from the name of its folder.
IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
IMAGE_FOLDER = "imagefolder"
# What a reader is told. Text of which nothing is said: blocks between blank lines are rows.
_PARAGRAPHS = {"sample_by": "paragraph"}
_OPTIONS = {".txt": _PARAGRAPHS, ".md": _PARAGRAPHS, ".tsv": {"sep": "\t"}}
# What lies beside the data of a published folder and tells of them.
_ABOUT_DATA = {"README.md", "LICENSE.md", "LICENSE.txt", "record.json", "dataset_info.json", "dataset_infos.json"}
# What `save_to_disk` writes beside the rows: of a Dataset, and of a DatasetDict.
_SAVED = ("state.json", "dataset_dict.json")
# What `datasets` reads in a folder besides: splits, configurations and types of columns.
_CARD = "README.md"
_SETTINGS = (_CARD, ".huggingface.yaml", "dataset_infos.json")


def local_files(name: str) -> tuple[str, ...]:
    """The local files that `name` means, none if it can only be the id of a data set on the Hub."""
    path = Path(name).expanduser()
    if os.path.isfile(path):  # False, too, for names that no path can have
        return (str(path),)
    if os.path.isdir(path):
        data, images = [], []
        for file in visible_files(path):
            if extension(file) in _READERS.keys() | IMAGES:
                (images if extension(file) in IMAGES else data).append(str(file))
        files = tuple(sorted(images if len(images) > len(data) else data))
        if not files:
            raise FileNotFoundError(f"the folder source={name!r} holds no data files ({', '.join(_READERS)}) or images")
        return files
    if glob.has_magic(name):
        found = glob.glob(str(path), recursive=True)
        files = tuple(sorted(file for file in found if _is_file(file)))
        if odd := next((file for file in found if Path(file).is_dir() and extension(file) in _READERS), None):
            raise ValueError(f"source={name!r} matches the folder {odd}; name its files too, as with {odd}/*")
        if not files:
            raise FileNotFoundError(f"no file matches source={name!r} (searched from {Path.cwd()})")
        return files
    # Ids on the Hub are `name` or `namespace/name`; all else, and whatever ends like a data file, meant a local path.
    if name.startswith(("/", ".", "~")) or name.count("/") > 1 or extension(name) in _READERS:
        raise FileNotFoundError(f"there is no file or folder source={name!r} (searched from {Path.cwd()})")
    return ()


def visible_files(folder: Path) -> list[Path]:
    """The files of a folder, at any depth, but those that only tell of them.

    ValueError for a link to a folder: neither this nor `datasets` follows it, so its rows would lack in silence.
    """
    files = []
    for file in folder.rglob("*"):
        if file.name in _ABOUT_DATA or any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue
        if os.path.islink(file) and os.path.isdir(file):
            raise ValueError(
                f"{file} is a link to the folder {os.readlink(file)!r}, whose files would be left out; put the folder "
                "itself in its place, or remove the link"
            )
        if _is_file(file):
            files.append(file)
    return files


def splits_of_folder(folder: Path, files: tuple[str, ...]) -> dict[str, list[str]]:
    """The files of a folder by the splits that `datasets` sees in their names and folders.

    It finds them itself where it is given the folder, but takes notes in Markdown for something else than text.
    """
    place = str(folder.absolute())
    try:
        found = DataFilesDict.from_patterns(get_data_patterns(place), place)
    except FileNotFoundError:
        return {"train": list(files)}
    wanted = {str(Path(file).absolute()): file for file in files}
    splits = {str(split): [wanted[file] for file in part if file in wanted] for split, part in found.items()}
    return {split: part for split, part in splits.items() if part}


def _is_file(path: str | Path) -> bool:
    """Whether this is a file; FileNotFoundError for a link that leads nowhere, whose rows would lack in silence."""
    if os.path.islink(path) and not os.path.exists(path):
        raise FileNotFoundError(f"{path} is a link to {os.readlink(path)!r}, which is not there; mend or remove it")
    return os.path.isfile(path)


def identity_of(files: tuple[str, ...], folder: Path | None) -> str:
    """A hash of all that shapes the rows: paths, sizes and times of the files, and what a folder says of itself."""
    if folder is not None and extension(files[0]) in IMAGES:
        # Labels may stand in metadata.csv, .jsonl or .parquet, and images in archives.
        files = tuple(sorted(map(str, visible_files(folder))))
    stats = [(str(Path(file).absolute()), Path(file).stat().st_size, Path(file).stat().st_mtime_ns) for file in files]
    settings = [_settings_of(folder / name) for name in _SETTINGS] if folder is not None else []
    return hashlib.sha256(json.dumps([stats, settings]).encode()).hexdigest()[:16]


def _settings_of(file: Path) -> str:
    """What a file beside the data tells `datasets`: all of it, but of a card the YAML block."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    if file.name != _CARD:
        return text
    return text.split("\n---", 1)[0] if text.startswith("---") else ""


def reader_of(files: tuple[str, ...], documents: str | None = None) -> tuple[str, dict[str, Any]]:
    """The reader of `datasets` for these files and what it is told; `documents` is what those of text files are."""
    kinds = {extension(file): file for file in files}
    if saved := next((file for file in files if Path(file).name in _SAVED), None):
        folder = Path(saved).parent
        below = folder / ("train" if Path(saved).name == _SAVED[1] else "") / "*.arrow"
        raise ValueError(
            f"{saved} says that save_to_disk() wrote this folder; give the rows of one split, source='{below}', or "
            f"hand datasets.load_from_disk({str(folder)!r}) to hf_noise.corrupt()"
        )
    for kind, file in kinds.items():
        if kind not in _READERS:
            raise ValueError(f"{file!r} is of no known kind; readable are {', '.join(_READERS)}, also compressed")
    if len({(_READERS[kind], *_OPTIONS.get(kind, {})) for kind in kinds}) > 1:
        raise ValueError(f"files of several kinds ({', '.join(sorted(kinds))}) are no one source; choose by a glob")
    kind = next(iter(kinds))
    if _READERS[kind] == "text" and documents is not None:
        return "text", reading_options(documents)
    return _READERS[kind], _OPTIONS.get(kind, {})
