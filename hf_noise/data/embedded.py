"""`embedded/docs-text`: English prose that every Python brings along, and a tokenizer trained on it.

The documents are the docstrings of the running Python's standard library, one document per module, and the language
reference behind `help()` (`pydoc_data.topics`): about 2 MB of real text without a download. Modules are parsed, never
imported. Another Python version holds slightly other text; the same version always gives the same documents.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

from hf_noise.data.byte_level_bpe import trained_bpe
from hf_noise.data.cache import build_once

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = [
    "DEFAULT_VOCAB_SIZE", "DOCS_TEXT", "END_OF_TEXT", "docs_text", "docs_text_files", "embedded_tokenizer",
    "library_fingerprint", "library_modules",
]  # fmt: skip

#: The name under which builders and recipes know this corpus.
DOCS_TEXT = "embedded/docs-text"
DEFAULT_VOCAB_SIZE = 2048
END_OF_TEXT = "<|endoftext|>"

# Raised whenever the same standard library would give other documents, splits or tokens.
_DATA_VERSION = 1
_VALIDATION_SHARE = 0.06  # of the documents, chosen by a hash of their names
# Of many salts, one with which the held-out documents also have this share of the characters, and as large a share of
# reference topics as the train split; with others a few long documents can tip it (Python 3.11).
_SPLIT_SALT = 275
_TRAIN_FILES = 4  # so that num_proc and workers have something to share
_SHORTEST = 200  # characters; shorter documents are mostly stubs
_LONG_PARAGRAPH = 80  # characters, from which on a repetition is dropped
_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib-dynload"}
_SMALLEST_VOCABULARY = 257  # 256 bytes and the end of text
_LARGEST_VOCABULARY = 1 << 20  # more than 2 MB of text have merges for


def docs_text(split: str = "train") -> list[str]:
    """The documents of one split, "train" or "validation", in their stored order."""
    import pyarrow.parquet as pq

    return [text for file in docs_text_files(split) for text in pq.read_table(file)["text"].to_pylist()]


def docs_text_files(split: str = "train") -> list[str]:
    """Parquet files (columns `name`, `text`) of one split, extracted on first use and kept in the cache.

    Raises:
        ValueError: there is no such split.
        FileNotFoundError: this Python comes without the sources of its standard library.
    """
    if not isinstance(split, str) or split not in ("train", "validation"):
        raise ValueError(f'{DOCS_TEXT} has the splits "train" and "validation", not {split!r}')
    folder = build_once(f"embedded/docs-text-{library_fingerprint()}", _write_documents)
    return [str(file) for file in sorted(folder.glob(f"{split}-*.parquet"))]


def docs_text_identity() -> str:
    """A hash of the corpus: equal exactly when all documents and their split are equal."""
    digest = hashlib.sha256(f"{DOCS_TEXT} {_DATA_VERSION}".encode())
    for split in ("train", "validation"):
        for text in docs_text(split):
            digest.update(hashlib.sha256(f"{split} {text}".encode()).digest())
    return digest.hexdigest()[:16]


def embedded_tokenizer(vocab_size: int = DEFAULT_VOCAB_SIZE) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the train split of `embedded/docs-text`; any text can be encoded.

    It is trained on first use (seconds) and cached; the same text and size always give the same tokenizer.

    Args:
        vocab_size: at least 257: the 256 bytes and `<|endoftext|>` (id 0), its only special token.

    Raises:
        ValueError: `vocab_size` is too small, or larger than the text has merges for.
    """
    from transformers import PreTrainedTokenizerFast

    if isinstance(vocab_size, bool) or not isinstance(vocab_size, Integral) or vocab_size < _SMALLEST_VOCABULARY:
        raise ValueError(
            f"vocab_size of the embedded tokenizer must be an integer >= {_SMALLEST_VOCABULARY} "
            f"(256 bytes and {END_OF_TEXT}), got {vocab_size!r}"
        )
    vocab_size = int(vocab_size)
    if vocab_size > _LARGEST_VOCABULARY:  # which its training would reserve memory for, and end the process
        raise ValueError(
            f"vocab_size={vocab_size} is more than {DOCS_TEXT} has merges for; give a tokenizer of your own"
        )
    texts = docs_text("train")
    key = hashlib.sha256(json.dumps([_DATA_VERSION, vocab_size, texts]).encode()).hexdigest()[:16]
    folder = build_once(
        f"embedded/bpe-{vocab_size}-{key}",
        lambda folder: (folder / "tokenizer.json").write_text(_train_bpe(texts, vocab_size), encoding="utf-8"),
    )
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, unk_token=END_OF_TEXT, clean_up_tokenization_spaces=False,
    )


def _train_bpe(texts: list[str], vocab_size: int) -> str:
    tokenizer = trained_bpe(texts, vocab_size, [END_OF_TEXT])
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(
            f"{DOCS_TEXT} yields at most {tokenizer.get_vocab_size()} tokens, vocab_size={vocab_size} is too large; "
            "give a tokenizer of your own with tokenizer="
        )
    return tokenizer.to_str(pretty=True)


def _library_folder() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _library_files() -> list[Path]:
    found = []
    for folder, folders, files in os.walk(_library_folder()):
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]  # site-packages can be huge
        found += [Path(folder, name) for name in files if name.endswith(".py")]
    return sorted(found, key=lambda file: file.parts)


def library_modules() -> Iterator[tuple[Path, ast.Module]]:
    """Every module of the standard library, parsed: its path in the library without a suffix, and its tree."""
    for file in _library_files():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the library's own sources, e.g. invalid escapes
                tree = ast.parse(file.read_bytes())
        except SyntaxError:
            continue  # templates and deliberately broken files are no modules
        yield file.relative_to(_library_folder()).with_suffix(""), tree


def library_fingerprint() -> str:
    """Names the installed standard library without reading it: its version and its files' sizes and times."""
    root = _library_folder()
    stats = [
        (file.relative_to(root).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in _library_files()
    ]
    return hashlib.sha256(json.dumps([_DATA_VERSION, _SPLIT_SALT, sys.version, stats]).encode()).hexdigest()[:16]


def _write_documents(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    splits: dict[str, list[tuple[str, str]]] = {"train": [], "validation": []}
    for name, text in _documents():
        splits["validation" if _in_validation(name) else "train"].append((name, text))
    if not splits["train"] or not splits["validation"]:
        raise FileNotFoundError(
            f"no docstrings were found under {_library_folder()}: this Python comes without the sources of its "
            "standard library; give a corpus of your own with source=path"
        )
    parts = {f"train-{i:05d}": splits["train"][i::_TRAIN_FILES] for i in range(_TRAIN_FILES)}
    for name, documents in {**parts, "validation-00000": splits["validation"]}.items():
        names, texts = zip(*documents, strict=True)
        pq.write_table(pa.table({"name": names, "text": texts}), folder / f"{name}.parquet")


def _in_validation(name: str) -> bool:
    """By name, not by position: a document keeps its side when others come or go with a Python release."""
    draw = int.from_bytes(hashlib.sha256(f"{_SPLIT_SALT}/{name}".encode()).digest()[:8], "big")
    return draw < _VALIDATION_SHARE * 2**64


def _documents() -> Iterator[tuple[str, str]]:
    """(name, text) of every module and topic, without repetitions, so that no passage is on both sides of the split."""
    seen: set[str] = set()
    for relative, tree in library_modules():
        pieces = _topics(tree) if relative.parts == ("pydoc_data", "topics") else {"": "\n\n".join(_docstrings(tree))}
        for topic, text in pieces.items():
            document = _without_repetitions(text, seen)
            if len(document) >= _SHORTEST:
                yield "/".join(filter(None, [".".join(relative.parts), topic])), document


def _without_repetitions(text: str, seen: set[str]) -> str:
    """The text without paragraphs that came before; short ones ("Return a string.") may repeat."""
    kept = [part for part in text.split("\n\n") if len(part) < _LONG_PARAGRAPH or part not in seen]
    seen.update(kept)
    return "\n\n".join(kept).strip()


def _docstrings(tree: ast.Module) -> list[str]:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docstrings = (ast.get_docstring(node, clean=True) for node in ast.walk(tree) if isinstance(node, kinds))
    return [text.strip() for text in docstrings if text and text.strip()]


def _topics(tree: ast.Module) -> dict[str, str]:
    """The dictionary that `pydoc_data/topics.py` assigns to `topics`: name -> text.

    Long topics first: short ones are often excerpts of them, and it is the excerpt that shall go.
    """
    for node in tree.body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", None) for target in node.targets] == ["topics"]:
            topics = {name: text.strip() for name, text in ast.literal_eval(node.value).items()}
            return dict(sorted(topics.items(), key=lambda item: (-len(item[1]), item[0])))
    return {}
