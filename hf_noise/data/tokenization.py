"""Which tokenizer a name means, and what identifies it in a cache key."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_noise.data.embedded import DEFAULT_VOCAB_SIZE, embedded_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["find_tokenizer", "tokenizer_identity", "vocabulary_size"]

logger = logging.getLogger(__name__)


def find_tokenizer(tokenizer: str | PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer that a name means.

    Args:
        tokenizer: "embedded" (2048 tokens), "embedded:4096" (any size), a folder with tokenizer files, the id of a
            model on the Hub, or a tokenizer object of transformers.

    Raises:
        ValueError: the name is not understood, or the tokenizer has no end-of-text token.
        OSError: no such folder, or the Hub cannot be reached.
        TypeError: neither a name nor a tokenizer.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    if isinstance(tokenizer, Path):
        tokenizer = str(tokenizer)
    if isinstance(tokenizer, str):
        name = tokenizer
        if name == "embedded" or name.startswith("embedded:"):
            tokenizer = embedded_tokenizer(_embedded_size(name))
        else:
            try:
                tokenizer = AutoTokenizer.from_pretrained(str(Path(name).expanduser()) if _is_path(name) else name)
            except (OSError, ValueError) as error:
                raise OSError(
                    f"the tokenizer {name!r} could not be loaded ({type(error).__name__}: {error}); without a network, "
                    'give tokenizer= a folder with tokenizer files, or "embedded"'
                ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise TypeError(
            f"tokenizer must be a name or a tokenizer of transformers, got {type(tokenizer).__name__}"
        )
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} has no end-of-text token to put between documents; "
            "set its eos_token"
        )
    return tokenizer


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash that is equal exactly when two tokenizers encode alike, wherever they came from."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    text = f"{type(tokenizer).__name__ if backend is None else ''} {tokenizer.eos_token_id} {content}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """The largest id of a tokenizer plus one, added tokens included: as many rows as a model's embedding needs.

    `len(tokenizer)` counts the tokens, which is less where ids have gaps. Noise then also draws ids that no token
    has, which a warning says.
    """
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


def _is_path(name: str) -> bool:
    return name.startswith(("~", ".", "/")) or Path(name).exists()
