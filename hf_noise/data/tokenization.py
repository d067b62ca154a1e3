"""Which tokenizer a name means, and what identifies it in a cache key."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_noise.data.embedded import DEFAULT_VOCAB_SIZE, embedded_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["check_tokenizer", "find_tokenizer", "tokenizer_identity", "vocabulary_size"]

logger = logging.getLogger(__name__)

# Of a tokenizer's settings, those that only say where it was loaded from.
_ORIGIN = ("name_or_path", "is_local", "local_files_only", "_commit_hash")


def find_tokenizer(tokenizer: str | PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer that a name means.

    Args:
        tokenizer: "embedded" (2048 tokens), "embedded:4096" (any size), a folder with tokenizer files, the id of a
            model on the Hub, or a tokenizer object of transformers.

    Raises:
        ValueError: the name is not understood, or the tokenizer has no end-of-text token; of one that is given by name
            a separator is taken for it, such as BERT's [SEP].
        FileNotFoundError: a name that can only be a path, such as "./tokenizer", is not there; the Hub is not asked.
        OSError: the folder holds no tokenizer, or the Hub cannot be reached.
        TypeError: neither a name nor a tokenizer.
    """
    from transformers import AutoTokenizer

    if isinstance(tokenizer, Path):
        tokenizer = str(tokenizer)
    if isinstance(tokenizer, str):
        name = tokenizer
        place = Path(name).expanduser()
        is_there = os.path.exists(place)
        if name == "embedded" or name.startswith("embedded:") or (name.startswith("embedded/") and not is_there):
            tokenizer = embedded_tokenizer(_embedded_size(name))
        else:
            # Ids on the Hub are `name` or `namespace/name`; all else meant a local path.
            if not name.strip() or not is_there and (
                name.startswith(("/", ".", "~")) or name.count("/") > 1 or place.suffix == ".json"
            ):
                raise FileNotFoundError(
                    f"there is no folder tokenizer={name!r} (searched from {Path.cwd()}); give one with tokenizer "
                    'files, the id of a model on the Hub, or "embedded"'
                )
            try:
                tokenizer = AutoTokenizer.from_pretrained(str(place) if is_there else name)
            except Exception as error:  # of files that are cut: those of JSON, tokenizers and sentencepiece
                raise OSError(
                    f"the tokenizer {name!r} could not be loaded ({type(error).__name__}: {error}); without a network, "
                    'give tokenizer= a folder with tokenizer files, or "embedded"'
                ) from error
            # Of a folder with a config.json alone, transformers makes one that knows nothing.
            if len(tokenizer) <= len(tokenizer.all_special_ids):
                raise OSError(f"there is no tokenizer in {name!r}: what transformers makes of it knows no word; give "
                              "tokenizer= a folder with tokenizer files")  # fmt: skip
        if getattr(tokenizer, "eos_token_id", 0) is None and tokenizer.sep_token is not None:
            tokenizer.eos_token = tokenizer.sep_token  # that of BERT's: its texts end with [SEP]
    check_tokenizer(tokenizer)
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} has no end-of-text token to put between documents; "
            "set its eos_token"
        )
    return tokenizer


def check_tokenizer(tokenizer: Any) -> None:
    """Raise TypeError unless this is a tokenizer of transformers."""
    from transformers import PreTrainedTokenizerBase

    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise TypeError(f"tokenizer must be a name or a tokenizer of transformers, got {type(tokenizer).__name__}")


def _plain(backend: Any) -> Any:
    """The tokenizer without how its last call cut and padded, which each call says anew."""
    if backend.truncation is None and backend.padding is None:
        return backend
    plain = type(backend).from_str(backend.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash that is equal only when two tokenizers encode alike, wherever they came from.

    It is equal whenever they do for those of `tokenizers`; of others it also changes with settings that do not count.
    """
    check_tokenizer(tokenizer)
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    # Of a tokenizer without a backend the vocabulary is not all: merges and settings stand in its files.
    content = _plain(backend).to_str() if backend is not None else _files_of(tokenizer)
    kind = type(tokenizer)
    # One of transformers is its backend; another may do as it likes.
    own = "" if backend is not None and kind.__module__.startswith("transformers.") else _name_of(kind)
    return hashlib.sha256(f"{own} {tokenizer.eos_token_id} {content}".encode()).hexdigest()[:16]


def _files_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """All that `save_pretrained` writes of a tokenizer, but where it came from."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {file.name: file.read_bytes() for file in sorted(Path(folder).rglob("*")) if file.is_file()}
    if "tokenizer_config.json" in files:
        settings = json.loads(files["tokenizer_config.json"])
        settings = {key: value for key, value in settings.items() if key not in _ORIGIN}
        files["tokenizer_config.json"] = json.dumps(settings, sort_keys=True).encode()
    return repr([(name, hashlib.sha256(content).hexdigest()) for name, content in files.items()])


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """The largest id of a tokenizer plus one, added tokens included: as many rows as a model's embedding needs.

    `len(tokenizer)` counts the tokens, which is less where ids have gaps. Noise then also draws ids that no token
    has, which a warning says.
    """
    check_tokenizer(tokenizer)
    ids = set(tokenizer.get_vocab().values())
    size = max(ids) + 1
    if size > len(ids):
        logger.warning(
            "%d of the ids 0 to %d belong to no token of the tokenizer %r; noise draws from all %d",
            size - len(ids), size - 1, tokenizer.name_or_path, size,
        )
    return size


def _embedded_size(name: str) -> int:
    size = name.partition(":")[2]
    if name == "embedded":
        return DEFAULT_VOCAB_SIZE
    if not size.isdecimal():
        raise ValueError(f'an embedded tokenizer is named "embedded" or "embedded:<vocabulary size>", got {name!r}')
    return int(size)
