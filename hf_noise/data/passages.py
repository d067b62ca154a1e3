"""`embedded/docs-topics`: passages of `embedded/docs-text`, each with the module of the library that it is from.

A task for probes that every Python brings along: paragraphs of docstrings, and ten modules with many of them as
classes. Passages of one module are in both splits, no passage is in both.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path

from hf_noise.data.cache import build_once
from hf_noise.data.embedded import docs_text_files, docs_text_identity

__all__ = ["DOCS_TOPICS", "docs_topics_files", "docs_topics_identity"]

#: The name under which builders and recipes know these passages.
DOCS_TOPICS = "embedded/docs-topics"

# Raised whenever the same text would give other passages, classes or splits.
_DATA_VERSION = 1
_CLASSES = 10
_MOST_OF_A_CLASS = 250
_SHORTEST, _LONGEST = 120, 1000  # characters of a passage
_TEST_SHARE = 0.25
_SPLITS = ("train", "test")
_SALT = "topics"


def docs_topics_files(split: str = "train") -> list[str]:
    """The Parquet file (columns `text`, `label`) of one split, written on first use and kept in the cache.

    Raises:
        ValueError: there is no such split.
        FileNotFoundError: this Python comes without the sources of its standard library.
    """
    if not isinstance(split, str) or split not in _SPLITS:
        raise ValueError(f'{DOCS_TOPICS} has the splits "train" and "test", not {split!r}')
    folder = build_once(f"embedded/docs-topics-{_DATA_VERSION}-{docs_text_identity()}", _write)
    return [str(folder / f"{split}.parquet")]


def docs_topics_identity() -> str:
    """A hash that is equal exactly when all passages, classes and splits are equal."""
    return hashlib.sha256(f"{DOCS_TOPICS} {_DATA_VERSION} {docs_text_identity()}".encode()).hexdigest()[:16]


def _passages() -> dict[str, list[str]]:
    """Passages by module, those of the reference behind `help()` as one."""
    import pyarrow.parquet as pq

    found: dict[str, dict[str, None]] = defaultdict(dict)
    for split in ("train", "validation"):
        for file in docs_text_files(split):
            table = pq.read_table(file, columns=["name", "text"])
            for name, text in zip(table["name"].to_pylist(), table["text"].to_pylist()):
                module = name.partition("/")[0]
                module = "reference" if module == "pydoc_data.topics" else module.partition(".")[0]
                parts = (part.strip() for part in text.split("\n\n"))
                found[module].update(dict.fromkeys(one for one in parts if _SHORTEST <= len(one) <= _LONGEST))
    # A passage that two modules share tells neither.
    seen = defaultdict(int)
    for passages in found.values():
        for one in passages:
            seen[one] += 1
    return {module: [one for one in passages if seen[one] == 1] for module, passages in found.items()}


def _draw(text: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{_SALT}/{text}".encode()).digest()[:8], "big") / 2**64


def _write(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import ClassLabel, Features, Value

    by_module = sorted(_passages().items(), key=lambda item: (-len(item[1]), item[0]))[:_CLASSES]
    names = sorted(module for module, _ in by_module)
    schema = Features({"text": Value("string"), "label": ClassLabel(names=names)}).arrow_schema
    rows = [(one, names.index(module)) for module, passages in by_module
            for one in sorted(passages, key=_draw)[:_MOST_OF_A_CLASS]]  # fmt: skip
    # In an order without classes; which of them are for the test is another draw.
    rows.sort(key=lambda row: _draw(row[0]))
    for split in _SPLITS:
        kept = [row for row in rows if (_draw(f"test/{row[0]}") < _TEST_SHARE) == (split == "test")]
        texts, labels = zip(*kept, strict=True)
        pq.write_table(pa.table({"text": texts, "label": labels}, schema=schema), folder / f"{split}.parquet")
