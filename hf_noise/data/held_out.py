"""What is held out for validation if a source has no such split: whole files of text, else documents by their text.

A text file is one work: its paragraphs speak of the same things in the same words, so that a model which was trained on
some of them has seen the others. Of several text files each is therefore on one side as a whole. A row of Parquet, JSON
or CSV is a work of its own, and a single text file can only be cut inside; there the documents are dealt out.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import fsspec

from hf_noise.data.reading import extension, unreadable_file
from hf_noise.noise.checks import check_real

__all__ = ["check_apart", "held_out_files", "is_held_out"]

logger = logging.getLogger(__name__)

_TEXT = {".txt", ".md"}
# What of a file decides its side. Copies are on one side, and so are files that only go on differently.
_HEAD = 64 << 10  # bytes


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
    """Those of several text files that are held out; None where documents are, because a file holds many.

    A local file's side follows from the hash of its first 64 KiB (read through its compression), not from its name or
    place, and does not change when other files come or go; that of a file on the Hub from its path in the repository.
    If the share is less than one file, it is the file whose hash is lowest, which a warning says.

    Raises:
        CorpusError: a file cannot be read.
        ValueError: all files would be held out, or all are copies of one.
    """
    if len(files) < 2 or not all(extension(file) in _TEXT for file in files):
        return None
    draws = {file: _draw(_head(file, source)) for file in files}
    held = {file for file, draw in draws.items() if draw < share * 2**64}
    too_few = not held
    if too_few:
        held = {file for file, draw in draws.items() if draw == min(draws.values())}
    if len(held) == len(files):
        raise ValueError(
            f"all {len(files)} text files of the source {source!r} are held out at validation_fraction={share:g} "
            "(files that begin alike are on one side); lower it, give validation_source=, or validation_fraction=0"
        )
    told = f"validation of {source!r}: {len(held)} of {len(files)} files, whole ({_bytes_of(held, files)})"
    if too_few:
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
