"""Texts with a label each, of any source: rows in the same classes in all splits, then tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Features, Value

from hf_noise.data.classes import Classes, classes_of
from hf_noise.data.held_rows import HeldRows, split_of
from hf_noise.data.reading import CorpusError
from hf_noise.noise import HumanLabels
from hf_noise.studies.chosen_rows import rows_asked_for
from hf_noise.studies.labelled_rows import class_numbers, found_splits, read_table, refuse_nulls, selected

__all__ = ["LabelledTexts", "Split", "read_rows"]


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a split.

    Attributes:
        texts: one list of texts, or two of pairs.
        labels: int64 [N], true ones.
        ids: int64 [N], numbers of the rows in their source, by which noise is drawn.
        weak: int64 [N] weak labels, None for none.
    """

    texts: list[list[str]]
    labels: np.ndarray
    ids: np.ndarray
    weak: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: np.ndarray) -> Split:
        """Some of the rows, in this order."""
        texts = [[one[i] for i in places] for one in self.texts]
        return Split(texts, self.labels[places], self.ids[places], None if self.weak is None else self.weak[places])

    def tokenised(
        self, tokenizer: Any, max_length: int, classes: list[str], is_weak: bool = False, split: str = "train"
    ) -> Dataset:
        """Columns of the tokenizer, `label`, `sample_id`, and for weak labels `clean_label` and `is_noisy`.

        Raises CorpusError: a text has no tokens, of which a network makes NaN.
        """
        columns = dict(tokenizer(*self.texts, truncation=True, max_length=max_length))
        if none := [row for row, tokens in zip(self.ids, columns["input_ids"]) if not len(tokens)]:
            raise CorpusError(f"the text of row {none[0]} of the {split} split has no token of this model's tokenizer"
                              f"{_more(none)}; leave out such rows")  # fmt: skip
        kind = ClassLabel(names=classes)
        columns |= {"label": self.weak if is_weak else self.labels, "sample_id": self.ids}
        kinds = {"label": kind, "sample_id": Value("int64")}
        if is_weak:
            columns |= {"clean_label": self.labels, "is_noisy": self.weak != self.labels}
            kinds |= {"clean_label": kind, "is_noisy": Value("bool")}
        rows = Dataset.from_dict(columns)
        return rows.cast(Features({**rows.features, **kinds}))


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """The splits of a study, its classes, and the noise of weak labels, None without any."""

    train: Split
    test: Split
    validation: Split | None
    classes: list[str]
    source: str
    weak_noise: HumanLabels | None = None

    def described(self) -> list[str]:
        """What the data are, for a dry run."""
        counts = np.bincount(self.train.labels, minlength=len(self.classes)).tolist()
        shown = ", ".join(f"{name}: {n:,}" for name, n in list(zip(self.classes, counts))[:20])
        validation = "" if self.validation is None else f", {len(self.validation):,} to validate on"
        lines = [f"{len(self.train):,} texts to train on{validation}, {len(self.test):,} to test on, of {self.source}",
                 f"{len(self.classes)} classes: {shown}",
                 f"first text: {' | '.join(one[0] for one in self.train.texts)[:160]!r}, "
                 f"{self.classes[self.train.labels[0]]}"]  # fmt: skip
        if self.weak_noise is not None:
            lines.append(f"weak labels: {100 * self.weak_noise.error_rate:.1f}% of them differ from the true ones")
        return lines


def read_rows(settings: Any) -> LabelledTexts:
    """All rows. Raises ValueError and OSError: the source, or a column of it, cannot be used."""
    found = found_splits(settings)
    tables = {split: read_table(*found[split], _columns(settings, split)) for split in found}
    source = str(settings.source)
    split_of(tables, "train", source)  # first, as without it nothing else is of use
    for split, table in tables.items():
        refuse_nulls(table, settings.column, split, "every row needs a label, so drop those without")
    features = {split: table.features for split, table in tables.items()}
    values = {split: selected(table, settings.column) for split, table in tables.items()}
    known = classes_of(features, dict.fromkeys(tables, settings.column), values, source, "column")
    splits = {split: _split(settings, table, known, split) for split, table in tables.items()}
    if "test" not in splits and settings.test_fraction:
        train, held = splits["train"], HeldRows(test=settings.test_fraction)
        for split in ("test", "train"):
            splits[split] = train.take(np.flatnonzero(held.rows(split, train.ids)))
    split_of(splits, "test", source)
    classes = list(known.names or map(str, range(known.size)))
    for split in ("train", "test"):
        flag = f"{split}_rows"
        splits[split] = splits[split].take(rows_asked_for(len(splits[split]), getattr(settings, flag), flag))
    _check_classes(splits["train"], classes, source)
    train = splits["train"]
    weak = None if train.weak is None else HumanLabels.from_columns(
        train.labels, train.weak, num_classes=len(classes), name=settings.weak_column
    )  # fmt: skip
    return LabelledTexts(train, splits["test"], splits.get("validation"), classes, source, weak)


def _columns(settings: Any, split: str) -> dict[str, str]:
    """Columns that are read of a split, and the flag that names each."""
    wanted = {**dict.fromkeys(settings.text_column, "text_column"), settings.column: "column"}
    if settings.weak_column is not None and split == "train":
        wanted[settings.weak_column] = "weak_column"
    return wanted


def _split(settings: Any, table: Dataset, classes: Classes, split: str) -> Split:
    texts = [_texts(table, column, split) for column in settings.text_column]
    if blank := [row for row, parts in enumerate(zip(*texts)) if not any(map(str.strip, parts))]:
        raise CorpusError(f"the text of row {blank[0]} of the {split} split is blank{_more(blank)}; leave such rows "
                          "out")  # fmt: skip
    weak = None
    if settings.weak_column in table.column_names and split == "train":
        weak = _weak(table, settings.weak_column, classes)
    return Split(texts, class_numbers(classes, table, settings.column, split), np.arange(len(table)), weak)


def _more(rows: list[int]) -> str:
    return f", and that of {len(rows) - 1:,} more" if len(rows) > 1 else ""


def _texts(table: Dataset, column: str, split: str) -> list[str]:
    values = selected(table, column)
    kind = values.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise CorpusError(f"column {column!r} holds {kind}, no texts; name the column with --text_column")
    refuse_nulls(table, column, split, "every row needs a text, so drop those without")
    return values.to_pylist()


def _weak(table: Dataset, column: str, classes: Classes) -> np.ndarray:
    """Weak labels in the classes of the true ones, by their names where both have names."""
    kind, values, names = table.features[column], selected(table, column), classes.names
    refuse_nulls(table, column, "train", "rows that no rule labels have to go")
    own = list(kind.names) if isinstance(kind, ClassLabel) else None
    if own is None and (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        own = sorted(pc.unique(values).to_pylist())
        values = pc.index_in(values, pa.array(own, values.type))
    if own is not None:
        if names is None or (others := sorted(set(own) - set(names))):
            known = ", ".join((names or [f"0 to {classes.size - 1}"])[:10])
            other = (own if names is None else others)[0]
            raise CorpusError(f"--weak_column {column} has the class {other!r}{_where(values, own.index(other))}, the "
                              f"true labels have {known}; weak labels have to be of the same classes")  # fmt: skip
        numbers = np.array(values.to_numpy(), dtype=np.int64)
        if numbers.min() < 0:
            raise CorpusError(f"column {column!r} holds {(numbers < 0).sum()} row(s) without a weak label; they have "
                              "to go")  # fmt: skip
        return np.array([names.index(name) for name in own])[numbers]
    return class_numbers(classes, table, column, "train")


def _where(numbers: pa.ChunkedArray, number: int) -> str:
    """In how many rows a weak class stands, which may be a name that no row has."""
    is_there = pc.equal(numbers, number)
    rows = pc.sum(is_there).as_py() or 0
    return f" in {rows:,} row(s), the first row {pc.index(is_there, True).as_py()}" if rows else " (in no row)"


def _check_classes(train: Split, classes: list[str], source: str) -> None:
    absent = np.setdiff1d(np.arange(len(classes)), train.labels)
    if absent.size:
        raise CorpusError(f"no training row of {source} has the class {classes[absent[0]]!r}; take more rows, or leave "
                          "that class out")  # fmt: skip
