"""Rows of an audit: labels in classes 0 .. C - 1, what is seen of a row, and true labels where a user has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Image, Value

from hf_noise.data.backbones import prompt_fields, text_contents
from hf_noise.data.classes import is_label_kind
from hf_noise.data.reading import CorpusError, with_features
from hf_noise.data.sources import Source, find_splits
from hf_noise.noise import LabelFlips, realised_rate
from hf_noise.studies.audit.study import Settings
from hf_noise.studies.audit.usable import check_classes, check_whole, usable_rows, whole_numbers
from hf_noise.studies.chosen_rows import rows_asked_for
from hf_noise.studies.hashes import hash_of
from hf_noise.studies.labelled_rows import labels_together, read_table, selected
from hf_noise.studies.reading import source_of

__all__ = ["AuditData", "Part", "read_data"]

#: Columns that the audit adds.
_OURS = ("p_wrong", "suggested")
#: A column that nobody named is one of labels if it has so many values at most, and each so many rows on average.
_MOST_GUESSED, _ROWS_EACH = 200, 5


@dataclass(frozen=True, eq=False)
class Part:
    """Rows with a label each: `table` with all columns, and `labels`, int64 [N] in [0, C)."""

    table: Dataset
    labels: np.ndarray

    def __post_init__(self) -> None:
        if len(self.table) != len(self.labels):
            raise ValueError(f"{len(self.labels)} labels of {len(self.table)} rows")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class AuditData:
    """What is audited.

    Attributes:
        rows: the table with the labels under audit in the column `column`, and these as numbers.
        chosen: numbers of these rows in their split.
        rows_of_split: how many rows that has.
        clean: true labels int64 [N], -1 for a class that no given label has; None where nobody knows.
        test: rows with clean labels, -1 for a class that no given label has; None for none.
        classes: names of the classes that given labels have.
        text: the prompt that a text is read by, or None.
        image: the column of images, or None.
        noise: that was hidden in the labels, with the realised rate; None for none.
        notes: what a user should know of the reading, in words.
    """

    rows: Part
    chosen: np.ndarray
    rows_of_split: int
    column: str
    classes: list[str]
    source: str
    split: str
    clean: np.ndarray | None = None
    test: Part | None = None
    text: str | None = None
    image: str | None = None
    noise: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def identity(self) -> dict[str, str]:
        """What the rows are, by content of the labels and of all else by the source's own mark."""
        return {"labels": hash_of(self.rows.labels), "chosen": hash_of(self.chosen)}

    @property
    def is_words(self) -> bool:
        """Whether the column holds the names of the classes themselves."""
        return is_text(self.rows.table, self.column)

    @property
    def first_text(self) -> str | None:
        """The column of texts, the first one of a prompt."""
        return prompt_fields(self.text)[0] if self.text else None

    def seen_by(self, way: str) -> bool:
        """Whether texts or images are what rows are judged by."""
        return way not in ("features", "probabilities")

    def texts(self, part: Part | None = None) -> list[str]:
        """What is read of each row. Raises CorpusError: a text is blank."""
        try:
            return text_contents((part or self.rows).table, self.text)
        except ValueError as error:
            raise CorpusError(f"{self.source}: {error}") from error

    def shown(self) -> list[str] | None:
        """What a list shows of each row: its text, or the name of its image's file where it has one."""
        if self.text is not None:
            return [" ".join(one.split()) for one in self.texts()]
        if self.image is None:
            return None
        # Through Arrow: the bytes of the images stay where they are.
        paths = pc.struct_field(self.rows.table.with_format("arrow")[:][self.image], "path").to_pylist()
        return [str(Path(*Path(one).parts[-2:])) for one in paths] if all(paths) else None

    def describe(self) -> list[str]:
        """What the rows are, for a dry run."""
        counts = np.bincount(self.rows.labels, minlength=len(self.classes)).tolist()
        shown = ", ".join(f"{name}: {n:,}" for name, n in list(zip(self.classes, counts))[:20])
        seen = f"texts by {self.text!r}" if self.text else f"images of {self.image!r}" if self.image else "no column"
        lines = [f"{len(self.rows):,} rows of {self.source}, split {self.split}: labels of {self.column!r}, {seen}",
                 f"{len(self.classes)} classes: {shown}"]  # fmt: skip
        if self.text:
            lines.append(f"first text: {self.texts()[0]!r:.160}")
        if self.noise is not None:
            lines.append(f"hidden noise: {self.noise['kind']}, {100 * self.noise['realised']['rate']:.1f}% of the "
                         "labels, which count as right otherwise")  # fmt: skip
        if self.test is not None:
            lines.append(f"{len(self.test):,} test rows")
        return lines + self.notes


def read_data(settings: Settings) -> AuditData:
    """All rows. Raises ValueError and OSError: the source, or a column of it, cannot be used."""
    split, found = _split_of(settings)
    source = str(settings.source)
    table = _table(*found, _named(settings))
    if taken := [name for name in _OURS if name in table.column_names]:
        raise CorpusError(f"{source} has a column {taken[0]!r}, which the audit adds; rename it, or give the data from "
                          "before an earlier audit")  # fmt: skip
    text, image = _seen(settings, table)
    column = settings.column or _guessed_labels(settings, table, text, image)
    test = None
    if settings.test_source is not None:
        own = _test_of(settings, split)
        there = with_features(own[1], own[0].name).features
        wanted = settings.test_column or (settings.clean_column if settings.clean_column in there else column)
        test = _table(*own, {wanted: "test_column"}), wanted
    all_rows, notes, columns = len(table), [], [column, *filter(None, [settings.clean_column])]
    if settings.drop_unusable:
        table = whole_numbers(table, columns, source)
        chosen, notes = usable_rows(settings, table, columns, text, image)
        table = table.select(chosen)
        places = np.arange(len(chosen))
    else:
        check_whole(table, columns, text, image, source)
        chosen = places = rows_asked_for(all_rows, settings.rows, "rows")
    labels, clean, of_test, classes = _labels(settings, table, column, test, split)
    data = AuditData(
        Part(table, labels), chosen, all_rows, column, classes, source, split, clean, text=text, image=image,
        notes=notes,
    )  # fmt: skip
    data = _narrowed(data, None if test is None else Part(test[0], of_test), places)
    data = _hidden(settings, data) if settings.ratio else data
    check_classes(settings, data.rows.labels, data.classes, data.column if data.is_words else None)
    return data


def _split_of(settings: Settings) -> tuple[str, tuple[Source, Any]]:
    """The split that is audited, and where it is."""
    found = _splits(settings.source)
    if settings.split is None and ("train" in found or len(found) == 1):
        split = "train" if "train" in found else next(iter(found))
        return split, found[split]
    if settings.split not in found:
        told = "which is audited?" if settings.split is None else f"none is called {settings.split!r}."
        raise CorpusError(f"{settings.source} has the splits {', '.join(found)}; {told} Choose one with --split")
    return settings.split, found[settings.split]


def _test_of(settings: Settings, audited: str) -> tuple[Source, Any]:
    """The test split, or all of a source without splits. Raises CorpusError: its place is that of the rows under audit.

    Copies of audited rows in other places are found by what they hold, see `hf_noise.studies.audit.judge`.
    """
    is_same = _place(settings.test_source) == _place(settings.source)
    if is_same and (audited == "test" or "test" not in _splits(settings.source)):
        raise CorpusError(f"--test_source {settings.test_source} names the rows under audit, split {audited}: a model "
                          "is measured on rows that it was not trained on; name others, or leave it out")  # fmt: skip
    return find_splits({"test": source_of(settings.test_source)})["test"]


def _place(source: str) -> str:
    """A name that is the same for each way to write a path."""
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() else source


def _splits(source: str) -> dict[str, Any]:
    return find_splits(source_of(source))


def _named(settings: Settings) -> dict[str, str]:
    """Columns that a user has named, and the flag of each."""
    flags = ("column", "clean_column", "text_column", "image_column", "feature_column")
    named = {getattr(settings, flag): flag for flag in flags if getattr(settings, flag) is not None}
    named |= dict.fromkeys(settings.probability_columns, "probability_columns")
    return dict.fromkeys(prompt_fields(settings.prompt) if settings.prompt else [], "prompt") | named


def _table(source: Source, dataset: Any, named: Mapping[str, str]) -> Dataset:
    """All columns of a split; those that are named have to be there."""
    dataset = with_features(dataset, source.name)
    others = {name: "column" for name in dataset.features if name not in named}
    return read_table(source, dataset, dict(named) | others).select_columns(list(dataset.features))


def _seen(settings: Settings, table: Dataset) -> tuple[str | None, str | None]:
    """The prompt of texts and the column of images, one of them at most; guessed where only one can be meant."""
    if settings.prompt:
        return settings.prompt, None
    for name, kind, what in ((settings.text_column, Value, "texts"), (settings.image_column, Image, "images")):
        of = table.features.get(name)
        if name is not None and (not isinstance(of, kind) or kind is Value and not is_text(table, name)):
            raise CorpusError(f"column {name!r} of {settings.source} holds {of}, no {what}")
    if settings.text_column or settings.image_column:
        return settings.text_column and f"{{{settings.text_column}}}", settings.image_column
    images = [name for name, of in table.features.items() if isinstance(of, Image)]
    texts = [name for name in table.column_names if is_text(table, name)
             and name not in (settings.column, settings.clean_column) and _has_words(table, name)]  # fmt: skip
    texts = ["text"] if "text" in texts else texts
    if len(images) + len(texts) == 1:
        return (f"{{{texts[0]}}}", None) if texts else (None, images[0])
    has_own = settings.features or settings.feature_column or settings.probabilities or settings.probability_columns
    if has_own:  # what is seen is shown beside a row, and not needed
        return None, images[0] if len(images) == 1 else None
    if images or texts:
        told = ", ".join(map(repr, [*images, *texts]))
        raise CorpusError(f"{settings.source} has the columns {told}, and one of them is judged; choose with "
                          "--text_column or --image_column, or several texts with --prompt")
    named = settings.column
    if named in table.column_names and is_text(table, named) and _has_words(table, named):
        raise CorpusError(f"--column {named} holds texts of several words, and {settings.source} no other "
                          "texts or images: it is for labels; name the texts with --text_column")  # fmt: skip
    raise CorpusError(
        f"{settings.source} has neither texts of several words nor images, only "
        f"{', '.join(map(repr, table.column_names))}: name a column with --text_column, or give vectors of the rows "
        "with --features or --feature_column, or out-of-fold --probabilities"
    )


def is_text(table: Dataset, name: str) -> bool:
    """Whether a column holds texts."""
    return isinstance(of := table.features[name], Value) and "string" in of.dtype


def _has_words(table: Dataset, name: str) -> bool:
    """Whether most rows of a column of texts have several words, as names and keys do not."""
    several = pc.sum(pc.match_substring_regex(selected(table, name), r"\S\s+\S")).as_py() or 0
    return name == "text" or several > len(table) / 2


def _is_class_like(table: Dataset, name: str) -> bool:
    """Whether a column may hold labels: few values, each in several rows."""
    kind = table.features[name]
    if isinstance(kind, ClassLabel):
        return True
    if not is_label_kind(kind):
        return False
    distinct = len(pc.unique(selected(table, name).drop_null()))
    return 2 <= distinct <= min(_MOST_GUESSED, len(table) / _ROWS_EACH)


def _guessed_labels(settings: Settings, table: Dataset, text: str | None, image: str | None) -> str:
    used = {settings.clean_column, image, *(prompt_fields(text) if text else ()), *settings.probability_columns}
    able = [name for name in table.column_names if name not in used and _is_class_like(table, name)]
    if len(able) == 1:
        return able[0]
    told = f"{', '.join(map(repr, able))} can be" if able else "none looks like one with few values, each in many rows"
    raise CorpusError(f"which column of {settings.source} holds the labels? Of {', '.join(table.column_names)} {told}; "
                      "name it with --column")  # fmt: skip


def _labels(settings: Settings, table: Dataset, column: str, test: tuple[Dataset, str] | None, split: str) -> tuple:
    """Labels under audit, true ones and those of the test in classes of all of them, and the names of these."""
    parts, columns = {split: table}, {split: column}
    if settings.clean_column is not None:
        parts[f"clean {split}"], columns[f"clean {split}"] = table, settings.clean_column
    if test is not None:
        parts["clean test"], columns["clean test"] = test
    needs = "leave rows without a label out of the audit"
    labels, names = labels_together(parts, columns, str(settings.source), needs)
    return labels[split], labels.get(f"clean {split}"), labels.get("clean test"), names


def _narrowed(data: AuditData, test: Part | None, places: np.ndarray) -> AuditData:
    """Some of the rows, and the classes that their given labels have; the others are told of."""
    table, labels = data.rows.table.select(places), data.rows.labels[places]
    there = np.unique(labels)
    clean = None if data.clean is None else data.clean[places]
    if len(there) == len(data.classes):
        return replace(data, rows=Part(table, labels), clean=clean, test=test)
    absent = [name for number, name in enumerate(data.classes) if number not in there]
    numbers = np.full(len(data.classes), -1)
    numbers[there] = np.arange(len(there))
    if test is not None:
        test = Part(test.table, numbers[test.labels])
    note = f"no row is labelled {', '.join(absent[:5])}: {len(absent)} class(es) are left out of the audit"
    classes = [data.classes[number] for number in there]
    labels, clean = numbers[labels], None if clean is None else numbers[clean]
    rows = Part(_relabelled(table, data.column, labels, classes), labels)
    return replace(data, rows=rows, clean=clean, test=test, classes=classes, notes=[*data.notes, note])


def _hidden(settings: Settings, data: AuditData) -> AuditData:
    """The same rows with noise in their labels, which until now count as right.

    Raises ValueError: the classes cannot have such noise.
    """
    noise = LabelFlips.named(
        settings.protocol, ratio=settings.ratio, num_classes=len(data.classes), seed=settings.seed, redraw="never"
    )
    noisy, is_wrong = noise(data.rows.labels, sample=data.chosen, epoch=0)
    told = noise.to_dict() | {"realised": realised_rate(is_wrong)}
    table = _relabelled(data.rows.table, data.column, noisy, data.classes)
    return replace(data, rows=Part(table, noisy), clean=data.rows.labels, noise=told)


def _relabelled(table: Dataset, column: str, labels: np.ndarray, classes: list[str]) -> Dataset:
    """The table with other labels in a column, in its place."""
    order = table.column_names
    made = table.remove_columns(column).add_column(column, labels, feature=ClassLabel(names=classes))
    return made.select_columns(order)
