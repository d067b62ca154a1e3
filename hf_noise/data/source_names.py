"""What `source=` takes, and how messages call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

__all__ = ["SOURCES", "SourceLike", "check_source", "source_name"]

#: What `source=` takes for one split, or for all that it holds.
SourceLike = str | Path | Sequence[str | Path] | Dataset
#: The same in words.
SOURCES = "a path or a name, a list of paths, a datasets.Dataset, or one of these for each split, {split: source}"

_LONGEST = 200  # characters of a source in a message


def source_name(source: Any) -> str:
    """What a source is called in messages and descriptions: as it was given, data in memory by their fingerprint."""
    if isinstance(source, Dataset):
        return f"a Dataset of {len(source)} rows with the fingerprint {source._fingerprint}"
    if isinstance(source, Mapping):
        return f"{{{', '.join(f'{split!r}: {source_name(part)}' for split, part in source.items())}}}"
    told = repr(str(source) if isinstance(source, Path) else source)
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]}..."


def check_source(field: str, source: Any) -> None:
    """Raise TypeError unless this can be a source."""
    if isinstance(source, Mapping):
        for part in source.values():
            if isinstance(part, Mapping):
                raise TypeError(f"{field} must be {SOURCES}, got a dictionary in a dictionary")
            check_source(field, part)
    elif not isinstance(source, str | Path | list | tuple | Dataset):
        stream = "; of a stream, hf_noise.corrupt() takes one" if type(source).__name__ == "IterableDataset" else ""
        raise TypeError(f"{field} must be {SOURCES}, got {source!r:.80} of type {type(source).__name__}{stream}")
