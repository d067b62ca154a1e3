"""What is read from a folder or the Hub by a name that a user gives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_noise.studies.settings import SettingError

__all__ = [
    "check_judge", "check_readable", "find_judge", "is_elsewhere", "may_be_read", "reading", "source_of",
    "tokenizer_of_model", "within_positions",
]  # fmt: skip


def check_readable(flag: str, name: str | None) -> None:
    """Raises SettingError: this is no folder and cannot be a repository either."""
    if name is not None and not may_be_read(name):
        raise SettingError(
            f"--{flag} {name}: there is no such folder; give that of a checkpoint, or owner/name on the Hub"
        )


def check_judge(name: str | None) -> None:
    """Raises SettingError: there is no judge in this folder, or nothing of this name can be on the Hub."""
    check_readable("judge", name)
    try:
        find_judge(name or "")
    except FileNotFoundError as error:
        raise SettingError(str(error)) from None


def find_judge(name: str) -> str:
    """The folder of a judge: this one, or that of the judge inside a study's folder.

    Raises FileNotFoundError: there are several, or none; it says where it looked.
    """
    folder = Path(name)
    if not name or not folder.is_dir() or (folder / "config.json").is_file():
        return name
    within = [path.parent for where in ("judge/*", "*") for path in sorted(folder.glob(f"{where}/config.json"))]
    within = [path for path in within if path.name.startswith("r0-seed")]
    if len(within) != 1:
        there = ", ".join(path.name for path in within or sorted(folder.iterdir())) or "nothing"
        raise FileNotFoundError(
            f"--judge {name} is no checkpoint, and not the folder of a study with one judge (found {there}); name the "
            f"judge's own folder, such as {folder / 'judge' / 'r0-seed0'}"
        )
    return str(within[0])


def tokenizer_of_model(model: str, known: int, given: str, tokenizer: Any) -> None:
    """Raises SettingError where the ids of a tokenizer are not those that a checkpoint was trained with.

    Args:
        model: the checkpoint.
        known: tokens that it has embeddings of.
        given: the tokenizer's name.
        tokenizer: what it means.
    """
    from hf_noise.data.tokenization import find_tokenizer, tokenizer_identity, vocabulary_size

    size = vocabulary_size(tokenizer)
    if known < size:
        raise SettingError(f"--tokenizer {given} has {size} tokens, --model {model} knows {known}; give the tokenizer "
                           "of the model")  # fmt: skip
    if given == model:
        return
    try:
        own = find_tokenizer(model)
    except (OSError, ValueError):  # it brings none; rows of its embedding may be padded to a round number
        if size < 0.9 * known:
            raise SettingError(f"--tokenizer {given} has {size} tokens, --model {model} knows {known}: its ids are "
                               "others; give the tokenizer that it was trained with") from None  # fmt: skip
        return
    if tokenizer_identity(own) != tokenizer_identity(tokenizer):
        raise SettingError(f"--tokenizer {given} is not that of --model {model}, to which its ids mean other tokens; "
                           f"leave it out, or give --tokenizer {model}")  # fmt: skip


def within_positions(name: str, model: Any, block_size: int) -> None:
    """Raises SettingError where rows have more tokens than a checkpoint has positions for."""
    from hf_noise.trainers.networks import longest_input

    longest = longest_input(model)
    if longest is not None and block_size > longest:
        raise SettingError(f"--block_size {block_size}: {name} has positions for {longest} tokens; give that or less")


def source_of(text: str | None) -> Any:
    """A source of data from a flag: a path, glob or name, or `{"train": path, "test": path}` as JSON."""
    if text is None or not text.lstrip().startswith("{"):
        return text
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise SettingError(f"{text} is no JSON ({error}); a source of several splits is "
                           """'{"train": "a.csv", "test": "b.csv"}'""") from None  # fmt: skip


def is_elsewhere(source: Any) -> bool:
    """Whether a source of data is neither embedded nor a file, folder or glob of this machine, so of the Hub.

    Raises FileNotFoundError or what `local_files` does: it is neither here nor can be a name on the Hub.
    """
    from hf_noise.data.local_files import local_files  # which loads `datasets`

    source = source_of(source) if isinstance(source, str) else source
    if not isinstance(source, str):
        return isinstance(source, Mapping) and any(map(is_elsewhere, source.values()))
    return not (source.startswith("embedded/") or local_files(source))


def may_be_read(name: str) -> bool:
    """Whether this is a folder, or can be a repository on the Hub."""
    if Path(name).is_dir():
        return True
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


@contextmanager
def reading(what: str, name: str) -> Iterator[None]:
    """Say which model could not be read, and that its name was taken for one on the Hub if it is no folder."""
    try:
        yield
    except OSError as error:
        place = "cannot be read" if Path(name).is_dir() else "is no folder here and cannot be read from the Hub"
        raise OSError(f"{what} {name} {place}: {error}") from error
