"""Rows of tokens that are audited, and noise that is hidden in them to see what an audit finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import hf_noise
from hf_noise.data.held_rows import split_of
from hf_noise.data.packing import PackedRows
from hf_noise.noise import RandomDocuments, UniformTokens, rates
from hf_noise.noise.block import UNKNOWN_NOISE
from hf_noise.studies.reading import source_of
from hf_noise.studies.token_audit.study import Settings
from hf_noise.trainers.token_laws import Confusions, look_alikes, token_law

__all__ = ["Hidden", "drawn_rows", "hide", "kind_of", "pieces"]

_ANY_SHARE = 0.5  # of a noise of documents of which the law alone counts


@dataclass(frozen=True)
class Hidden:
    """Rows as they are audited.

    Attributes:
        tokens: int64 [N, L].
        clean: the same before noise was hidden in them, None where none was.
        is_replaced: bool [N, L], what was drawn anew, be it by itself; None likewise.
        told: the entry `noise` of a record.
    """

    tokens: np.ndarray
    clean: np.ndarray | None
    is_replaced: np.ndarray | None
    told: dict[str, Any]


def drawn_rows(settings: Settings, tokenizer: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Tokens int64 [N, L] of rows drawn without replacement, their ids int64 [N], and how many there are in all.

    Raises ValueError: the text has fewer than two rows, or no such split.
    """
    options = {name: getattr(settings, name) for name in ("text_column", "documents")}
    splits = hf_noise.load_dataset(
        "hf_noise/packed", source=source_of(settings.source), tokenizer=tokenizer, block_size=settings.block_size,
        validation_fraction=None if settings.split == "validation" else 0.0,
        **{name: value for name, value in options.items() if value is not None},
    )  # fmt: skip
    rows = PackedRows(split_of(splits, settings.split, settings.source))
    if len(rows) < 2:
        raise ValueError(f"--source {settings.source} has {len(rows)} row of {settings.block_size} tokens, an audit "
                         "needs two; give more text, or a smaller --block_size")  # fmt: skip
    order = np.random.default_rng(settings.seed).permutation(len(rows))[: settings.rows]
    taken = rows.__getitems__(np.sort(order).tolist())
    return np.asarray(taken["input_ids"], dtype=np.int64), np.asarray(taken["sample_id"]), len(rows)


def kind_of(settings: Settings, tokenizer: Any, vocab_size: int) -> Any:
    """What `audit_tokens` takes for the kind of noise."""
    if settings.kind == "look-alikes":
        return look_alikes(tokenizer.get_vocab(), vocab_size)
    if settings.kind == "documents":
        return RandomDocuments(alpha=_ANY_SHARE, vocab_size=vocab_size)
    return settings.kind


def hide(settings: Settings, clean: np.ndarray, ids: np.ndarray, tokenizer: Any, vocab_size: int) -> Hidden:
    """Rows with noise of the kind and ratio of the settings in them, drawn by the seed; as they are without a ratio."""
    if not settings.ratio:
        return Hidden(clean, None, None, UNKNOWN_NOISE)
    rate, seed = rates.error_rate(settings.ratio), settings.seed
    if settings.kind == "uniform":
        noise = UniformTokens(ratio=settings.ratio, vocab_size=vocab_size, seed=seed)
        tokens, is_replaced = noise(clean, sample=ids)
        told = noise.to_dict()
    elif settings.kind == "documents":
        noise = RandomDocuments(alpha=rate, vocab_size=vocab_size, seed=seed, placement="replace")
        tokens, is_replaced = noise(clean, sample=np.arange(len(clean)))
        is_replaced, told = np.broadcast_to(np.reshape(is_replaced, (len(clean), -1)), clean.shape), noise.to_dict()
    else:
        tokens, is_replaced = _by_law(settings, clean, rate, tokenizer, vocab_size)
        told = {"protocol": settings.kind, "ratio": settings.ratio, "error_rate": rate, "seed": seed}
    # Of targets: the first token of a row is none.
    realised = {"rate": float(is_replaced[:, 1:].mean()), "n": int(is_replaced[:, 1:].size)}
    return Hidden(tokens.astype(np.int64), clean, np.asarray(is_replaced), told | {"realised": realised})


def _by_law(
    settings: Settings, clean: np.ndarray, rate: float, tokenizer: Any, vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens drawn from the law of the kind at that rate, and which were."""
    counts = np.bincount(clean.ravel(), minlength=vocab_size)
    law = token_law(kind_of(settings, tokenizer, vocab_size), vocab_size, counts)
    draw = np.random.default_rng(settings.seed)
    is_replaced, tokens = draw.random(clean.shape) < rate, clean.copy()
    if not isinstance(law, Confusions):
        tokens[is_replaced] = draw.choice(vocab_size, size=is_replaced.sum(), p=law.probabilities)
        return tokens, is_replaced
    for place in zip(*np.nonzero(is_replaced)):
        span = slice(*law.matrix.indptr[clean[place] : clean[place] + 2])
        tokens[place] = draw.choice(law.matrix.indices[span], p=law.matrix.data[span])
    return tokens, is_replaced


def pieces(tokenizer: Any, tokens: np.ndarray) -> list[list[str]]:
    """The text of each token alone; bytes that are no whole character are U+FFFD."""
    known = {}
    for token in np.unique(tokens).tolist():
        text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
        # A token of sentencepiece loses the space before it where it stands alone.
        is_word = str(tokenizer.convert_ids_to_tokens(token)).startswith("\N{LOWER ONE EIGHTH BLOCK}")
        known[token] = f" {text}" if is_word and not text.startswith(" ") else text
    return [[known[token] for token in row] for row in tokens.tolist()]
