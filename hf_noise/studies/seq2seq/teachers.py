"""The teacher of each task, and what it writes: once, before all runs, and for all of them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from hf_noise.data.pair_fit import check_fit
from hf_noise.data.pair_tokens import tokenize_pairs
from hf_noise.data.teacher_files import load_teacher
from hf_noise.data.teacher_targets import check_pairs_of, teacher_nll, written_rows
from hf_noise.data.teacher_training import train_teacher
from hf_noise.data.tokenization import tokenizer_identity
from hf_noise.models.loading import load_whole
from hf_noise.models.seq2seq import check_encoder_decoder
from hf_noise.noise.teacher import Decoding, Teacher
from hf_noise.studies.reading import reading
from hf_noise.studies.seq2seq.pairs import Pairs, Written, by_length, lengths, limits_of
from hf_noise.studies.seq2seq.runs import Run
from hf_noise.trainers.seq2seq_batches import check_special_tokens

__all__ = ["check_model", "decoding_of", "has_same_tokens", "network_of", "no_teacher", "pretrained", "with_tokens",
           "writes"]  # fmt: skip


def writes(settings: Any, pairs: Pairs, runs: Sequence[Run]) -> Written:
    """Train the teacher of a task, or read the one that is given, and let it write; what is done is not done again.

    All processes together.

    Raises:
        ValueError, OSError: it is no encoder-decoder, cannot be read, or the folder holds what another one wrote.
    """
    limits, folder = pairs.limits, Path(settings.output) / "teacher" / f"{pairs.task}-targets"
    told = {name: limits[name] for name in ("max_source_tokens", "truncate")}
    if not int(os.environ.get("RANK", 0)):
        print(f"[teacher] {pairs.task}: what it writes for {len(pairs.train) + len(pairs.test):,} sources, once",
              file=sys.stderr, flush=True)  # fmt: skip
    with told_before():
        loaded = load_teacher(_teacher(settings, pairs), decoding=decoding_of(settings), task=pairs.words)
        of_train, of_test = (
            _as_pairs(rows, written_rows(rows, loaded, cache=folder / split, **told))
            for split, rows in (("train", pairs.train), ("test", pairs.test))
        )
        is_same = tokenizer_identity(loaded.tokenizer) == tokenizer_identity(pairs.tokenizer)
        needs_nll = any(run.other == "teacher" for run in runs if run.task == pairs.task)
        rows = {"clean": pairs.train, "written": of_train} if needs_nll else {}
        nll = {name: teacher_nll(one, loaded, cache=folder / f"{name}-nll", **limits)
               for name, one in (rows | {"test": pairs.test}).items()}  # fmt: skip
    if not is_same:  # then the text is all that both have
        of_train, of_test = (rows.remove_columns("target_ids") for rows in (of_train, of_test))
    return Written(
        loaded.identity, tokenize_pairs(of_train, pairs.tokenizer, **limits),
        by_length(tokenize_pairs(of_test, pairs.tokenizer, **limits)).remove_columns("is_noisy"),
        (nll["clean"], nll["written"]) if needs_nll else None,
        float(nll["test"].sum(dtype=np.float64)) if is_same else None,
        is_same,
    )  # fmt: skip


@contextmanager
def told_before() -> Iterator[None]:
    """Without bars, and without telling again what was cut when these pairs were read."""
    tokens, has_bars = logging.getLogger("hf_noise.data.pair_tokens"), not are_progress_bars_disabled()
    level = tokens.level
    tokens.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        yield
    finally:
        tokens.setLevel(level)
        if has_bars:
            enable_progress_bars()


def no_teacher(pairs: Pairs) -> Written:
    """What stands for a teacher where nothing is trained: it writes what is there."""
    teacher = Teacher(name="none", sha256="0" * 64)
    ones = np.ones(len(pairs.train), dtype=np.float32)
    return Written(teacher, pairs.train_tokens, pairs.test_tokens, (ones, ones), 1.0)


def _teacher(settings: Any, pairs: Pairs) -> str:
    if (given := settings.place(pairs.task).teacher) is not None:
        return given
    return train_teacher(
        pairs.train, pairs.tokenizer, steps=settings.teacher_steps, task=pairs.words,
        model=network_of(settings, pairs.task) if settings.model is None else pretrained(settings.model),
        output=Path(settings.output) / "teacher" / pairs.task, batch_size=settings.batch_size,
        learning_rate=settings.learning_rate, **pairs.limits,
    )  # fmt: skip


def network_of(settings: Any, task: str) -> dict[str, Any]:
    """A model from scratch, with positions for the longest source or target."""
    network = {name: getattr(settings, name) for name in ("layers", "d_model", "heads", "feed_forward", "dropout")}
    return network | {"positions": max(settings.place(task).max_source_tokens, settings.max_target_tokens)}


def has_same_tokens(settings: Any, pairs: Pairs) -> bool:
    """Look at the teacher that is given for a task as if it were to write now; True where one is trained.

    Returns:
        Whether its tokens are those of the models.

    Raises:
        ValueError, OSError: it cannot be read, is of another task, or cannot take these pairs; what `writes` refuses.
    """
    if (given := settings.place(pairs.task).teacher) is None:
        return True
    loaded = load_teacher(given, decoding=decoding_of(settings), task=pairs.words)
    with told_before():
        for rows in (pairs.train, pairs.test):
            check_pairs_of(rows, loaded, **pairs.limits)
    return tokenizer_identity(loaded.tokenizer) == tokenizer_identity(pairs.tokenizer)


def check_model(name: str, pairs: Pairs, model: Any) -> None:
    """Refuse pairs that the model to train on has no positions or tokens for, or a model without special tokens.

    Raises ValueError: as `check_fit` and `Seq2SeqTrainer` do.
    """
    try:
        check_special_tokens(model)
        for rows in (pairs.train_tokens, pairs.test_tokens):
            check_fit(rows, model)
    except ValueError as error:
        raise ValueError(f"--model {name}, {pairs.task} task: {error}") from error


def pretrained(name: str) -> Any:
    """An encoder-decoder; safetensors only, all weights or none, and no code of its repository is run.

    Raises:
        ValueError: it is none, or not whole.
        OSError: it cannot be read.
    """
    with reading("the model", name):
        try:
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        except (KeyError, ValueError) as error:  # of a kind that this transformers does not know
            raise OSError(error) from error
        check_encoder_decoder(config, f"--model {name}")
        return load_whole(AutoModelForSeq2SeqLM.from_pretrained, name, use_safetensors=True, trust_remote_code=False)


def decoding_of(settings: Any) -> Decoding:
    """How a teacher writes. Raises ValueError: it cannot write so many tokens."""
    return Decoding(method=settings.decoding, max_new_tokens=settings.max_new_tokens)


def _as_pairs(rows: Dataset, written: Dataset) -> Dataset:
    columns = {"source": rows["source"][:], "target": written["target"][:], "target_ids": written["target_ids"][:],
               "is_noisy": [True] * len(rows), "sample_id": rows["sample_id"][:]}  # fmt: skip
    return Dataset.from_dict(columns)


def with_tokens(settings: Any, pairs: Pairs, tokenizer: Any) -> Pairs:
    """The pairs with their tokens. Raises ValueError: texts are empty, or too long and not to be cut."""
    limits = limits_of(settings, pairs.task)
    train = tokenize_pairs(pairs.train, tokenizer, **limits)
    return replace(
        pairs, tokenizer=tokenizer, limits=limits, train_tokens=train,
        test_tokens=by_length(tokenize_pairs(pairs.test, tokenizer, **limits)),
        cut=_cut(pairs, tokenizer, train, "source"), targets_cut=_cut(pairs, tokenizer, train, "target"),
    )  # fmt: skip


def _cut(pairs: Pairs, tokenizer: Any, tokens: Dataset, side: str) -> float:
    """Share of the training texts of a side that lost tokens; those that just fit are as long, and lost none."""
    column = {"source": "input_ids", "target": "labels"}[side]
    full = np.flatnonzero(lengths(tokens, column) >= (longest := lengths(tokens, column).max()))
    with told_before():
        whole = tokenize_pairs(pairs.train.select(full), tokenizer)
    return float((lengths(whole, column) > longest).sum()) / len(tokens)
