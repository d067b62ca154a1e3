"""Pairs of source and target as tokens: a tokenizer of their own, and columns that a trainer on pairs takes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_noise.data.byte_level_bpe import trained_bpe
from hf_noise.data.tokenization import check_tokenizer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

__all__ = ["pair_tokenizer", "tokenize_pairs"]

logger = logging.getLogger(__name__)

_PAD, _EOS = "<pad>", "</s>"
_BYTES, _LARGEST = 256, 1 << 21
#: Tokens of paper A.
_USUAL = 32_000
#: Columns of text -> columns of tokens.
_TOKEN_COLUMNS = {"source": "input_ids", "target": "labels", "clean_target": "clean_labels"}
#: Columns that are kept as they are.
_KEPT = ("is_noisy", "sample_id", "teacher_nll")


def pair_tokenizer(pairs: Iterable[Any], vocab_size: int | None = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE that is trained on the sources and the clean targets of a task (paper A: 32,000 tokens).

    Any text has tokens, so none is unknown. Ids 0 and 1 are `<pad>` and `</s>`, which stands at the end of all that is
    encoded, source or target.

    Args:
        pairs: rows with `source` and `target`, of which `clean_target` is read where there is one; or (source, target).
        vocab_size: number of tokens, the two special ones and 256 bytes included; None for 32,000, or as many as these
            texts yield where that is fewer.

    Raises:
        ValueError: vocab_size is below 258, above 2^21, or more than these texts yield.
        TypeError: vocab_size is no whole number, or a pair is none.
    """
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    smallest, asked = _BYTES + 2, vocab_size
    vocab_size = _USUAL if asked is None else asked
    if isinstance(vocab_size, bool) or not isinstance(vocab_size, int | np.integer):
        raise TypeError(f"vocab_size must be a whole number of tokens, got {vocab_size!r:.80}")
    if vocab_size < smallest:
        raise ValueError(f"vocab_size must be at least {smallest}, 256 bytes and two special tokens, got {vocab_size}")
    if vocab_size > _LARGEST:  # room for all is taken at once, and what does not get it is the end of the process
        raise ValueError(f"vocab_size must be at most {_LARGEST} tokens, got {vocab_size}")
    is_scalar = getattr(pairs, "ndim", 1) == 0  # of NumPy or torch, which say that they can be iterated
    if isinstance(pairs, str | bytes | Mapping) or not isinstance(pairs, Iterable) or is_scalar:
        raise TypeError(f"pairs must be rows with source and target, got {pairs!r:.80}")
    tokenizer = trained_bpe(_texts(pairs), int(vocab_size), [_PAD, _EOS])
    if asked is not None and tokenizer.get_vocab_size() != asked:
        raise ValueError(f"these pairs yield at most {tokenizer.get_vocab_size()} tokens, vocab_size={vocab_size} is "
                         "too large; ask for fewer, or give more pairs")  # fmt: skip
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_EOS}", pair=f"$A {_EOS} $B {_EOS}", special_tokens=[(_EOS, tokenizer.token_to_id(_EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_EOS, clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def _texts(pairs: Iterable[Any]) -> Iterator[str]:
    for i, pair in enumerate(pairs):
        if isinstance(pair, Mapping):
            texts = [pair.get("source"), pair.get("clean_target", pair.get("target"))]
        elif isinstance(pair, tuple | list) and len(pair) == 2:
            texts = list(pair)
        else:
            raise TypeError(f"pair {i} must be a row with source and target, or (source, target), got {pair!r:.80}")
        for name, text in zip(("source", "target"), texts, strict=True):
            if not isinstance(text, str):
                there = f" (it has {', '.join(map(str, pair))}; rename one)" if isinstance(pair, Mapping) else ""
                raise TypeError(f"pair {i} has no text as its {name}, got {text!r:.80}{there}")
            yield text


def tokenize_pairs(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_source_tokens: int | None = None,
    max_target_tokens: int | None = None,
    truncate: bool = False,
) -> Dataset:
    """Pairs of texts -> `input_ids`, `labels` (and `clean_labels`) as lists of tokens, each with its end token.

    Args:
        dataset: rows with `source` and `target`, and any of `clean_target`, `is_noisy`, `sample_id`, `teacher_nll`.
            Ids that are missing are the numbers of the rows. Where a row has `target_ids`, these are its `labels` as
            they are, with the end token or, if the teacher was cut, without (see `written_rows`); they have to be of
            this tokenizer.
        tokenizer: of the model that is trained; it needs an end token.
        max_source_tokens, max_target_tokens: the longest that may be, end token included; None for any length.
        truncate: cut what is longer, in front of the end token; the share is logged.

    Raises:
        ValueError: texts are empty, or longer than they may be and not to be cut; they are counted, and the first one
            is named. Only what a teacher wrote may be empty. Or the tokenizer has no end token.
        TypeError: the rows are no `datasets.Dataset`, or a limit is no whole number >= 2.
    """
    from datasets import Dataset

    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset must be a datasets.Dataset with source and target, got {type(dataset).__name__}")
    check_tokenizer(tokenizer)
    if not len(dataset):
        raise ValueError("dataset is empty, there are no pairs to make tokens of")
    if missing := [name for name in ("source", "target") if name not in dataset.column_names]:
        raise ValueError(f"the rows have no column {missing[0]}, they have: {', '.join(dataset.column_names)}; rename "
                         "one: dataset.rename_column(...)")  # fmt: skip
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if end is None:
        raise ValueError(f"the tokenizer {tokenizer.name_or_path!r} has no end token, which tells a decoder to stop; "
                         "set its eos_token")  # fmt: skip
    limits = {"source": max_source_tokens, "target": max_target_tokens, "clean_target": max_target_tokens}
    for name, limit in limits.items():
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 2):
            raise TypeError(f"max_{name}_tokens must be a whole number >= 2, or None, got {limit!r:.80}")
    if not isinstance(truncate, bool):
        raise TypeError(f"truncate must be True or False, got {truncate!r:.80}")
    if "sample_id" not in dataset.column_names:
        dataset = dataset.add_column("sample_id", np.arange(len(dataset)))
    limits = {name: limit for name, limit in limits.items() if name in dataset.column_names}
    encode = _Encode(tokenizer, end, limits, *_written_around(tokenizer, end))
    tokens = dataset.map(encode, batched=True, remove_columns=[
        name for name in dataset.column_names if name not in _KEPT
    ])  # fmt: skip
    _check_whole(tokens, encode, truncate)
    return tokens.remove_columns([name for name in tokens.column_names if name.startswith("_")])


@dataclass(frozen=True)
class _Encode:
    """Columns of text -> columns of tokens, and of each text, in `_<column>`, how many it had: 0 for an empty one; in
    `_special_<column>`, whether it has an end or padding of its own, as pieces of T5 or mBART may be spelled like one.
    """

    tokenizer: Any
    end: int
    limits: Mapping[str, int | None]
    writes_end: Mapping[str, bool]
    own: Mapping[str, Mapping[int, int]]

    def __call__(self, batch: Mapping[str, list]) -> dict[str, list]:
        made, chosen = {}, batch.get("target_ids")
        for name, limit in self.limits.items():
            texts = batch[name]
            if wrong := [i for i, text in enumerate(texts) if not isinstance(text, str)]:
                raise ValueError(f"{name} of the row with sample_id {batch['sample_id'][wrong[0]]} is no text: "
                                 f"{texts[wrong[0]]!r:.80}, and {len(wrong) - 1} more of {len(texts)}; leave such rows "
                                 f"out: dataset.filter(lambda row: isinstance(row[{name!r}], str))")  # fmt: skip
            rows = self._encoded(texts, name, None)
            lengths = [len(row) if text.strip() else 0 for row, text in zip(rows, texts)]
            special = [any(row.count(token) > n for token, n in self.own[name].items()) for row in rows]
            if limit is not None and (long := [i for i, row in enumerate(rows) if len(row) > limit]):
                for i, row in zip(long, self._encoded([texts[i] for i in long], name, limit)):
                    rows[i] = row
            if name == "target" and chosen is not None:
                self._take_chosen(batch, rows, lengths)
                special = [one and ids is None for one, ids in zip(special, chosen)]
            made |= {_TOKEN_COLUMNS[name]: rows, f"_{name}": lengths, f"_special_{name}": special}
        return made

    def _take_chosen(self, batch: Mapping[str, list], rows: list[list[int]], lengths: list[int]) -> None:
        """Put the tokens that a teacher chose in the place of those that its text has."""
        for i, ids in enumerate(batch["target_ids"]):
            if ids is None:
                continue
            if not ids or min(ids) < 0:
                raise ValueError(f"target_ids of the row with sample_id {batch['sample_id'][i]} must be tokens, at "
                                 f"least one, or None; got {ids!r:.80}")  # fmt: skip
            rows[i], lengths[i] = ids[: self.limits["target"]], len(ids)

    def _encoded(self, texts: list[str], name: str, limit: int | None) -> list[list[int]]:
        """As the tokenizer writes a source or a target, with an end token that it may lack.

        A text that speaks of "</s>" has these letters and no end in its middle.
        """
        options = {"truncation": limit is not None, "max_length": limit, "verbose": False, "split_special_tokens": True}
        if name == "source":
            rows = self.tokenizer(texts, **options).input_ids
        else:
            rows = self.tokenizer(text_target=texts, **options).input_ids
        if self.writes_end[name]:
            return rows
        return [[*row[: None if limit is None else limit - 1], self.end] for row in rows]


def _written_around(tokenizer: Any, end: int) -> tuple[dict[str, bool], dict[str, dict[int, int]]]:
    """Whether the tokenizer ends a source or a target itself, with the end token, behind which mBART has a language;
    and how many ends and paddings a row has that holds no other."""
    source, target = (rows.input_ids[0] for rows in (tokenizer([""]), tokenizer(text_target=[""])))
    rows = {"source": source, "target": target, "clean_target": target}
    writes_end = {name: end in row[-2:] for name, row in rows.items()}
    special = {end, end if tokenizer.pad_token_id is None else tokenizer.pad_token_id}
    own = {name: {token: row.count(token) for token in special} for name, row in rows.items()}
    for name, counts in own.items():
        counts[end] += not writes_end[name]
    return writes_end, own


def _check_whole(tokens: Dataset, encode: _Encode, truncate: bool) -> None:
    """Refuse empty texts and such as are too long, by their number and the first of them; log what was cut."""
    counted = [name for name in tokens.column_names if name == "sample_id" or name.startswith("_")]
    counted = tokens.select_columns(counted).with_format("arrow")[:]  # row by row they cost more than a teacher
    ids = counted["sample_id"].to_numpy()
    is_written = np.zeros(len(tokens), dtype=bool)  # by a teacher, which may have ended at once
    if "is_noisy" in tokens.column_names and len(tokens) and not isinstance(tokens[0]["is_noisy"], list):
        is_written = np.asarray(tokens["is_noisy"][:], dtype=bool)
    for name, limit in encode.limits.items():
        lengths = counted[f"_{name}"].to_numpy()
        empty = (lengths == 0) & ~is_written if name == "target" else lengths == 0
        if empty.any():
            raise ValueError(f"{int(empty.sum())} of {len(tokens)} rows have an empty {name}, the first is sample_id "
                             f"{ids[empty][0]}; filter(lambda row: row[{name!r}].strip()) leaves them out")  # fmt: skip
        special = counted[f"_special_{name}"].to_numpy()
        if special.any():
            raise ValueError(f"{int(special.sum())} of {len(tokens)} rows have a {name} whose letters this tokenizer "
                             f"takes for its own end or padding, the first is sample_id {ids[special][0]}; write "
                             f"them in another way, or leave such rows out")  # fmt: skip
        over = np.zeros(len(tokens), dtype=bool) if limit is None else lengths > limit
        if not over.any():
            continue
        told = f"{int(over.sum())} of {len(tokens)} rows ({over.mean():.2%}) have a {name} of more than {limit} tokens"
        if not truncate:
            raise ValueError(f"{told}, the longest {lengths.max()} (sample_id {ids[lengths.argmax()]}); truncate=True "
                             "cuts them, or leave them out")  # fmt: skip
        logger.warning("%s and were cut there; the longest has %d", told, lengths.max())
