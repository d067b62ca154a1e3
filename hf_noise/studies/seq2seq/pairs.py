"""The pairs of each task: texts of any source, then tokens; and what a teacher wrote for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from transformers import AutoTokenizer

import hf_noise
from hf_noise.data.held_rows import split_of
from hf_noise.data.pair_tokens import pair_tokenizer
from hf_noise.data.teacher_parts import digest_of_texts
from hf_noise.noise import NoisyTeacher
from hf_noise.noise.teacher import Teacher
from hf_noise.reports.provenance import portable
from hf_noise.studies.chosen_rows import rows_asked_for
from hf_noise.studies.reading import reading, source_of

__all__ = ["Pairs", "Written", "have_same_targets", "noisy_rows", "read_task", "tokenizers_of"]


_WORDS = {
    "hf_noise/wmt14-noisy": "translation, en -> de",
    "hf_noise/cnn-dailymail-noisy": "summary, article -> highlights",
}


@dataclass(eq=False)
class Pairs:
    """The clean pairs of a task.

    Attributes:
        name: what the source is called.
        columns: of source and target.
        train, test: texts, with `source`, `target` and `sample_id`.
        train_tokens, test_tokens: the same as `input_ids`, `labels` and `sample_id`; test pairs from short to long.
        limits: of tokens, as `tokenize_pairs` takes them.
        cut, targets_cut: shares of the training sources and targets that were cut.
    """

    task: str
    name: str
    columns: tuple[str, str]
    train: Dataset
    test: Dataset
    tokenizer: Any = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    train_tokens: Dataset | None = None
    test_tokens: Dataset | None = None
    cut: float = 0.0
    targets_cut: float = 0.0

    @cached_property
    def mean_tokens(self) -> float:
        """Of a training pair, source and target."""
        return sum(mean_length(self.train_tokens, name) for name in ("input_ids", "labels"))

    @property
    def words(self) -> str:
        """What a teacher of it is trained for, in the words of the builders of noisy pairs, which then take it."""
        return _WORDS.get(self.name, f"{self.name}, {' -> '.join(self.columns)}")

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest training pair, where the teacher wrote the longest target that may be."""
        return int(lengths(self.train_tokens, "input_ids").max()) + self.limits["max_target_tokens"]

    @cached_property
    def targets(self) -> str:
        """A hash of all targets, equal for tasks that differ in their sources alone."""
        return digest_of_texts(self.train["target"], self.test["target"])[:16]

    def described(self) -> list[str]:
        """What the data are, for a dry run."""
        first, tokens = self.train[0], ""
        if self.train_tokens is not None:
            source, target = (mean_length(self.train_tokens, name) for name in ("input_ids", "labels"))
            tokens = (f"; vocabulary of {len(self.tokenizer):,} tokens, {source:.0f} of a source and {target:.0f} of a "
                      f"target on average, {100 * self.cut:.1f}% of the sources and {100 * self.targets_cut:.1f}% of "
                      "the targets cut")  # fmt: skip
        return [
            f"{self.task}: {len(self.train):,} pairs to train on, {len(self.test):,} to test on, of {self.name}"
            f"{tokens}",
            f"first pair: {first['source'][:100]!r} -> {first['target'][:100]!r}",
        ]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Written:
    """What a teacher wrote for the sources of a task, and how likely it finds what is there.

    Attributes:
        teacher: which one it is.
        train: tokens of the targets that it wrote, `labels`, one row for each training pair.
        test: `input_ids` and `labels` of what it wrote for the test sources, from short to long.
        nll: float32 [N] of each training target, clean and written, in nats; None where no run needs them.
        has_same_tokens: whether its tokenizer is that of the models; else q is of the texts, in its own tokens.
        test_nll: nats of all clean test targets together; None where its tokens are not those of the models.
    """

    teacher: Teacher
    train: Dataset
    test: Dataset
    nll: tuple[np.ndarray, np.ndarray] | None
    test_nll: float | None
    has_same_tokens: bool = True


def read_task(settings: Any, task: str) -> Pairs:
    """The texts of a task. Raises ValueError and OSError: the source, or a column of it, cannot be used."""
    place = settings.place(task)
    source, own = source_of(place.source), source_of(place.test_source)
    options: dict[str, Any] = {"r": 0}
    if isinstance(source, str) and source.startswith("hf_noise/"):
        path = source
    else:
        path, options["columns"] = "hf_noise/noisy", (place.source_column, place.target_column)
        if own is not None:
            source = {**(source if isinstance(source, Mapping) else {"train": source}), "test": own}
        options["source"] = source
    if settings.test_fraction is not None:
        options["test_fraction"] = settings.test_fraction
    try:
        splits = hf_noise.load_dataset(path, **options)
    except ValueError as error:
        if "columns=" not in str(error):
            raise
        told = str(error).replace("columns=", "--source_column and --target_column")
        raise ValueError(told) from error
    name, columns = portable(place.source), ["source", "target", "sample_id"]
    train, test = (
        rows.select(rows_asked_for(len(rows), getattr(settings, flag), flag, "pairs")).select_columns(columns)
        for rows, flag in ((split_of(splits, split, name), f"{split}_rows") for split in ("train", "test"))
    )
    return Pairs(task, name, (place.source_column, place.target_column), train, test)


def tokenizers_of(settings: Any, tasks: Sequence[Pairs]) -> dict[str, Any]:
    """A tokenizer of each task: the model's own, else a BPE of its pairs, or of all where the targets are the same.

    NLL in nats per token are of like tokens then, and what two tasks lose can be compared.
    """
    if settings.model is not None:
        with reading("the tokenizer of", settings.model):
            tokenizer = AutoTokenizer.from_pretrained(settings.model, trust_remote_code=False)
        return {one.task: tokenizer for one in tasks}
    groups = [list(tasks)] if have_same_targets(tasks) else [[one] for one in tasks]
    found = {}
    for group in groups:
        rows = [row for one in group for row in zip(one.train["source"], one.train["target"])]
        found |= dict.fromkeys((one.task for one in group), pair_tokenizer(rows, settings.vocab_size))
    return found


def have_same_targets(tasks: Collection[Pairs]) -> bool:
    """Whether several tasks differ in their sources alone: they then share one tokenizer, and their NLL are of it."""
    return len(tasks) > 1 and len({one.targets for one in tasks}) == 1


def limits_of(settings: Any, task: str) -> dict[str, Any]:
    return {"max_source_tokens": settings.place(task).max_source_tokens,
            "max_target_tokens": settings.max_target_tokens, "truncate": settings.truncate}  # fmt: skip


def ids_of(rows: Dataset) -> np.ndarray:
    """Sample ids, int64 [N]."""
    return _column(rows, "sample_id").to_numpy()


def lengths(rows: Dataset, column: str) -> np.ndarray:
    """Tokens of each row, int64 [N]."""
    return pc.list_value_length(_column(rows, column)).to_numpy().astype(np.int64)


def mean_length(rows: Dataset, column: str) -> float:
    return float(lengths(rows, column).mean())


def by_length(rows: Dataset) -> Dataset:
    """Rows from the shortest to the longest, which wastes little on padding."""
    return rows.select(np.argsort(lengths(rows, "input_ids") + lengths(rows, "labels"), kind="stable"))


def noisy_rows(pairs: Pairs, written: Written, noise: NoisyTeacher) -> Dataset:
    """Training rows under a noise: `labels` with the teacher's in place of some, beside `clean_labels` and the mask."""
    clean, n = pairs.train_tokens, len(pairs.train_tokens)
    is_noisy = noise.is_noisy(ids_of(clean))
    labels = pa.chunked_array([*_column(clean, "labels").chunks, *_column(written.train, "labels").chunks])
    table = {
        "input_ids": _column(clean, "input_ids"), "clean_labels": _column(clean, "labels"),
        "labels": labels.take(pa.array(np.arange(n) + n * is_noisy)), "is_noisy": pa.array(is_noisy),
        "sample_id": _column(clean, "sample_id"),
    }  # fmt: skip
    if written.nll is not None:
        table["teacher_nll"] = pa.array(np.where(is_noisy, *written.nll[::-1]))
    return Dataset(pa.table(table))


def _column(rows: Dataset, name: str) -> pa.ChunkedArray:
    return rows.with_format("arrow")[:][name]
