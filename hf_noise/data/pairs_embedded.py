"""`embedded/docs-pairs`: the first sentences of docstrings, each with what follows it and with the name it is of.

Two tasks of sequence to sequence that every Python brings along, with the same targets: the rest of a docstring -> its
first sentence (a rich source), and a qualified name -> the same sentence (a sparse one). The rows of both are the same.
Modules of the standard library are parsed, never imported; another Python version holds slightly other pairs.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from hf_noise.data.cache import build_once
from hf_noise.data.embedded import library_fingerprint, library_modules

__all__ = ["CONTEXTS", "DOCS_PAIRS", "docs_pairs", "docs_pairs_files", "docs_pairs_identity"]

#: The name under which builders and recipes know these pairs.
DOCS_PAIRS = "embedded/docs-pairs"
#: The column that is the source in each task.
CONTEXTS = {"rich": "body", "sparse": "name"}

# Raised whenever the same standard library would give other pairs or splits.
_DATA_VERSION = 1
_SPLITS = {"train": 0.84, "validation": 0.08, "test": 0.08}
_SALT = "pairs"
_TARGET, _BODY = (15, 200), (30, 2000)  # characters
_SENTENCE_ENDS = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!vs\.)(?<!cf\.)(?<=[.!?])\s+(?=[A-Z\"'`(\[])")
_HasDocstring = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_CODE = re.compile(r"->|=>|>>>|__doc__|^\W|^[\w.]+\(")  # signatures and examples, which are no sentences


def docs_pairs(split: str = "train", context: str = "rich") -> tuple[list[str], list[str]]:
    """(sources, targets) of one split, in their stored order; the targets of both contexts are the same.

    Args:
        split: "train", "validation" or "test".
        context: "rich", the docstring without its first sentence; or "sparse", the bare qualified name.
    """
    import pyarrow.parquet as pq

    if not isinstance(context, str) or context not in CONTEXTS:
        raise ValueError(f'context must be "rich" or "sparse", got {context!r}')
    (file,) = docs_pairs_files(split)
    table = pq.read_table(file, columns=[CONTEXTS[context], "target"])
    return table[0].to_pylist(), table[1].to_pylist()


def docs_pairs_files(split: str = "train") -> list[str]:
    """The Parquet file (columns `name`, `body`, `target`) of one split, written on first use and kept in the cache.

    Raises:
        ValueError: there is no such split.
        FileNotFoundError: this Python comes without the sources of its standard library.
    """
    if not isinstance(split, str) or split not in _SPLITS:
        raise ValueError(f"{DOCS_PAIRS} has the splits {', '.join(map(repr, _SPLITS))}, not {split!r}")
    return [str(_folder() / f"{split}.parquet")]


def docs_pairs_identity() -> str:
    """A hash that is equal exactly when all pairs and their split are equal."""
    import pyarrow.parquet as pq

    digest = hashlib.sha256(f"{DOCS_PAIRS} {_DATA_VERSION}".encode())
    for split in _SPLITS:
        (file,) = docs_pairs_files(split)
        digest.update(repr(pq.read_table(file).to_pydict()).encode())
    return digest.hexdigest()[:16]


def _folder() -> Path:
    return build_once(f"embedded/docs-pairs-{_DATA_VERSION}-{library_fingerprint()}", _write)


def _write(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: dict[str, list[tuple[str, str, str]]] = {split: [] for split in _SPLITS}
    for row in sorted(_pairs(), key=lambda row: _draw(f"order/{row[2]}")):
        rows[_split_of(row[2])].append(row)
    if not all(rows.values()):
        raise FileNotFoundError(
            "no docstrings were found: this Python comes without the sources of its standard library; give pairs of "
            "your own with source=path"
        )
    for split, found in rows.items():
        columns = dict(zip(("name", "body", "target"), zip(*found, strict=True), strict=True))
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")


def _draw(text: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{_SALT}/{text}".encode()).digest()[:8], "big") / 2**64


def _split_of(target: str) -> str:
    """By the target, not by position: a pair keeps its side when others come or go with a Python release."""
    draw = _draw(f"split/{target}")
    return "test" if draw < _SPLITS["test"] else "validation" if draw >= 1 - _SPLITS["validation"] else "train"


def _pairs() -> Iterator[tuple[str, str, str]]:
    """(name, body, target); no name, body or target comes twice, so that no pair is on both sides of a split."""
    seen: set[str] = set()
    for path, tree in library_modules():
        parts = path.parts[:-1] if path.name == "__init__" else path.parts
        for name, docstring in _named_docstrings(tree, ".".join(parts)):
            target, body = _halves(docstring)
            if not (_fits(target, _TARGET) and _fits(body, _BODY)) or _CODE.search(target):
                continue
            if not seen & {name, body, target.lower()}:
                yield name, body, target
            seen |= {name, body, target.lower()}


def _fits(text: str, limits: tuple[int, int]) -> bool:
    return limits[0] <= len(text) <= limits[1]


def _named_docstrings(node: _HasDocstring, name: str) -> Iterator[tuple[str, str]]:
    """Qualified names of a module, its classes, functions and methods, each with its docstring."""
    docstring = ast.get_docstring(node, clean=True)
    if docstring:
        yield name, docstring
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _HasDocstring):
            yield from _named_docstrings(child, f"{name}.{child.name}")


def _halves(docstring: str) -> tuple[str, str]:
    """The first sentence on one line, and what follows it."""
    first, _, rest = docstring.strip().partition("\n\n")
    sentence, *more = _SENTENCE_ENDS.split(" ".join(first.split()), maxsplit=1)
    return sentence, "\n\n".join([*more, rest]).strip()
