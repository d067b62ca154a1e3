"""What is held out for validation if a source has no such split: whole files, else documents by their text.

A file is often one work: its paragraphs speak of the same things in the same words, so that a model that was trained
on some of them has seen the others. Of several files each is therefore on one side as a whole. A single file can only
be cut inside: by its documents, or, where it is one, before its last part (`hf_noise.data.documents`). So are several
files of rows (Parquet, JSON, CSV, Arrow) where the share is less than one of them: eight shards of a crawl, whose rows
are works of their own, do not give an eighth away for one percent. A warning says so, because a file of rows may as
well be one book; text files are then held out whole, at least one.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fsspec

from hf_noise.data.documents import Ending
from hf_noise.data.reading import extension, unreadable_file
from hf_noise.noise.checks import check_real

__all__ = ["Side", "check_apart", "held_out_files", "is_held_out"]

logger = logging.getLogger(__name__)

_TEXT = {".txt", ".md"}
# What of a file decides its side. Copies are on one side, and so are files that only go on differently.
_HEAD = 64 << 10  # bytes


@dataclass(frozen=True)
class Side:
    """What of a source is in a split: all of it, or one side of what is cut in two.

    Attributes:
        held_out: whether this is the side for validation; None for all.
        files: those that are held out, if whole files are.
        ending: of a single document, where validation begins.
    """

    held_out: bool | None = None
    files: frozenset[str] | None = None
    ending: Ending | None = None


def is_held_out(text: str, share: float) -> bool:
    """Whether a document is held out, by a hash of its text: equal documents are on one side; `share` is in [0, 1)."""
    if not isinstance(text, str):
        raise TypeError(f"text must be that of a document, got {text!r:.80} of type {type(text).__name__}")
    if type(share) is not float:
        share = check_real("share", share)
    if not 0 <= share < 1:
        raise ValueError(f"share must lie in [0, 1), got {share}")
    return _draw(text.encode()) < share * 2**64


def held_out_files(files: Sequence[str], share: float, source: str) -> frozenset[str] | None:
    """Those of several files that are held out; None where documents are: of a single file, and of files of rows of
    which `share` is less than one or takes all, which a warning says.

    A local file's side follows from the hash of its first 64 KiB (read through its compression), not from its name or
    place, and does not change when other files come or go; that of a file on the Hub from its path in the repository.
    If none is drawn, it is the file whose hash is lowest; of text files a warning says so.

    Raises:
        CorpusError: a file cannot be read.
        ValueError: all text files would be held out, or all are copies of one.
    """
    if len(files) < 2:
        return None
    is_text = all(extension(file) in _TEXT for file in files)
    if not is_text and share * len(files) < 1:
        _warn_of_rows(files, share, source, "is less than one")
        return None
    draws = {file: _draw(_head(file, source)) for file in files}
    held = {file for file, draw in draws.items() if draw < share * 2**64}
    too_few = not held
    if too_few:
        held = {file for file, draw in draws.items() if draw == min(draws.values())}
    if len(held) == len(files) and not is_text:
        _warn_of_rows(files, share, source, "takes all")
        return None
    if len(held) == len(files):
        raise ValueError(
            f"all {len(files)} text files of the source {source!r} are held out at validation_fraction={share:g} "
            "(files that begin alike are on one side); lower it, or give validation_source="
        )
    told = f"validation of {source!r}: {len(held)} of {len(files)} files, whole ({_bytes_of(held, files)})"
    if too_few and is_text:
        named = ", ".join(sorted(Path(file).name for file in held)[:3])
        logger.warning(
            "%s: %s; validation_fraction=%g of %d files is less than one - choose another, or validation_source=",
            told, named, share, len(files),
        )
    else:
        logger.info("%s", told)
    return frozenset(held)


def check_apart(train: Sequence[str], validation: Sequence[str], source: str, other: str) -> None:
    """Raise ValueError if a local file is read for both splits."""
    both = {str(Path(file).resolve()) for file in train} & {str(Path(file).resolve()) for file in validation}
    if both:
        raise ValueError(
            f"{min(both)} is in source={source!r} and in validation_source={other!r}, and no file is for both training "
            "and validation; leave it out of one"
        )


def _warn_of_rows(files: Sequence[str], share: float, source: str, why: str) -> None:
    logger.warning(
        "validation of %r: documents of all %d files, because validation_fraction=%g of them %s; if each file is one "
        "work, whole files are held out from %.2g on, or give validation_source=",
        source, len(files), share, why, 1 / len(files),
    )


def _draw(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")


def _head(file: str, source: str) -> bytes:
    if "://" in file:  # hf://datasets/owner/name@revision/path; reading each would be a request
        place, _, path = file.partition("@")
        return f"{place}/{path.partition('/')[2]}".encode()
    try:
        with fsspec.open(file, "rb", compression="infer") as stream:
            return stream.read(_HEAD)
    except Exception as error:  # those of gzip, lzma, bz2 and zstandard
        raise unreadable_file(file, source, error) from error


def _bytes_of(held: set[str], files: Sequence[str]) -> str:
    if any("://" in file for file in files):
        return "their sizes are not known"
    sizes = {file: Path(file).stat().st_size for file in files}
    return f"{sum(sizes[file] for file in held) / max(1, sum(sizes.values())):.1%} of the bytes"
