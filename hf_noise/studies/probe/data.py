"""Rows of a probe: labels of all splits in the same classes, and the features of each row, made or read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from hf_noise.data.backbones import image_contents, prompt_fields, text_contents
from hf_noise.data.feature_files import check_features, read_features, vectors_of
from hf_noise.data.features import extract_features
from hf_noise.data.held_rows import HeldRows, split_of
from hf_noise.data.reading import CorpusError
from hf_noise.studies.backbone import backbone_of
from hf_noise.studies.chosen_rows import rows_asked_for
from hf_noise.studies.hashes import hash_of
from hf_noise.studies.labelled_rows import SPLITS, found_splits, labels_together, read_table
from hf_noise.studies.probe.study import Settings

__all__ = ["PROMPTED", "ProbeData", "Rows", "extracted", "read_rows"]

#: The column of a table with what a network reads of texts.
PROMPTED = "text"


@dataclass(frozen=True, eq=False)
class Rows:
    """A split.

    Attributes:
        table: columns that features are made of, of texts `PROMPTED` alone; None where they come from a file.
        labels: int64 [N], as heads are trained and measured on.
        clean: true labels int64 [N], None where none are beside others.
        ids: int64 [N], numbers of the rows in their source, by which noise is drawn.
        features: float32 [N, d], None before they were made.
        at_limit: rows that fill the longest input of the network.
    """

    table: Dataset
    labels: np.ndarray
    clean: np.ndarray | None
    ids: np.ndarray
    features: np.ndarray | None = None
    at_limit: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Rows:
        """Some of the rows; features are made of them later."""
        clean = None if self.clean is None else self.clean[rows]
        return Rows(self.table.select(rows), self.labels[rows], clean, self.ids[rows])


@dataclass(frozen=True, eq=False)
class ProbeData:
    """The splits of a probe, "train", "test" and perhaps "validation", and what their features are of."""

    splits: dict[str, Rows]
    classes: list[str]
    source: str
    model: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)

    @property
    def train(self) -> Rows:
        return self.splits["train"]

    @property
    def test(self) -> Rows:
        return self.splits["test"]

    @property
    def validation(self) -> Rows | None:
        return self.splits.get("validation")

    def describe(self) -> list[str]:
        """What the rows are, for a dry run."""
        counts = ", ".join(f"{len(rows):,} {split}" for split, rows in self.splits.items())
        told = np.bincount(self.train.labels, minlength=len(self.classes)).tolist()
        shown = ", ".join(f"{name}: {n:,}" for name, n in list(zip(self.classes, told))[:20])
        lines = [f"rows of {self.source}: {counts}", f"{len(self.classes)} classes of training rows: {shown}"]
        if self.train.clean is not None:
            wrong = float((self.train.clean != self.train.labels).mean())
            lines.append(f"{100 * wrong:.1f} % of the training labels differ from the clean ones")
        return lines


def read_rows(settings: Settings) -> ProbeData:
    """All rows without features. Raises ValueError and OSError: the source, or a column of it, cannot be used."""
    found = found_splits(settings)
    columns = {split: _columns(settings, split) for split in found}
    tables = {split: read_table(*found[split], columns[split]) for split in found}
    read = tables
    if settings.reads_texts:
        read = {split: _prompted(table, settings.text_prompt, split) for split, table in tables.items()}
    labels, classes = _labels(settings, tables)
    splits = {}
    for split in (name for name in SPLITS if name in found):
        splits[split] = Rows(read[split], labels[split], labels.get(f"clean {split}"), np.arange(len(read[split])))
    if settings.features is not None:
        splits = _with_files(settings, splits)
    if "test" not in splits and settings.test_fraction:
        held = HeldRows(test=settings.test_fraction)
        train = splits["train"]
        for split in ("test", "train"):
            splits[split] = _part(train, np.flatnonzero(held.rows(split, train.ids)))
    source = str(settings.source)
    splits = {"train": split_of(splits, "train", source), **splits, "test": split_of(splits, "test", source)}
    for split in ("train", "test"):
        rows, flag = splits[split], f"{split}_rows"
        splits[split] = _part(rows, rows_asked_for(len(rows), getattr(settings, flag), flag))
    for split, rows in splits.items():
        if len(there := np.unique(rows.labels)) < 2:
            told = f"one class only, {classes[there[0]]!r}" if len(there) else "no rows"
            raise CorpusError(f"the {split} split of {source} holds {told}; a head needs two classes at least")
    if splits["test"].clean is not None:  # held out of rows whose true labels are known
        splits["test"] = _replaced(splits["test"], labels=splits["test"].clean)
    return ProbeData(splits, classes, source)


def extracted(data: ProbeData, settings: Settings, model: str | None) -> ProbeData:
    """The same with features, which all processes make together."""
    backbone = None if settings.reads_vectors else backbone_of(settings, model)
    splits, keys = {}, {}
    for split, rows in data.splits.items():
        if backbone is None:
            features = rows.features
            if features is None:
                column = settings.feature_column
                where = f"column {column!r} of the {split} split of {data.source}"
                # `data` of a table holds the rows that select() left out, too.
                vectors = rows.table.with_format("arrow")[:][column]
                features = check_features(where, vectors_of(vectors, where))
            splits[split], keys[split] = _replaced(rows, features=features), hash_of(features)
            continue
        contents = (rows.table[PROMPTED][:] if settings.reads_texts
                    else image_contents(rows.table, settings.image_column))  # fmt: skip
        found = extract_features(backbone, contents, batch_size=settings.extract_batch)
        splits[split] = _replaced(rows, features=found.features, at_limit=found.at_limit)
        keys[split] = found.key
    widths = {split: rows.features.shape[1] for split, rows in splits.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"features have different sizes: {widths}; all splits need those of one network")
    labels = {split: hash_of(rows.labels) for split, rows in splits.items()}
    told = {"name": settings.features or settings.feature_column or str(model), "features": widths["train"]}
    told |= {"backbone": None if backbone is None else backbone.identity}
    return ProbeData(splits, data.classes, data.source, told, {"feature_keys": keys, "label_keys": labels})


def _columns(settings: Settings, split: str) -> dict[str, str]:
    """Columns that are read of a split, and the flag that names each."""
    column, flag = _label_column(settings, split)
    wanted = {column: flag}
    if split != "test" and settings.clean_column is not None:
        wanted[settings.clean_column] = "clean_column"
    if settings.feature_column is not None:
        wanted[settings.feature_column] = "feature_column"
    elif settings.image_column is not None:
        wanted[settings.image_column] = "image_column"
    elif settings.features is None:
        flag = "prompt" if settings.prompt else "text_column"
        fields = prompt_fields(settings.prompt) if settings.prompt else [settings.text_column]
        wanted |= {name: flag for name in fields if name not in wanted}
    return wanted


def _prompted(table: Dataset, prompt: str, split: str) -> Dataset:
    """What is read of each row, in one column.

    Raises CorpusError: a row has no text, by its number in the source, which later is that of another row.
    """
    try:
        return Dataset.from_dict({PROMPTED: text_contents(table, prompt)})
    except ValueError as error:
        raise CorpusError(f"the {split} split: {error}") from error


def _label_column(settings: Settings, split: str) -> tuple[str, str]:
    """The column of labels of a split, and the flag that names it: test rows are measured on true ones."""
    for flag in ("test_column", "clean_column") if split == "test" else ():
        if (column := getattr(settings, flag)) is not None:
            return column, flag
    return settings.column, "column"


def _labels(settings: Settings, tables: Mapping[str, Dataset]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Labels of each split, clean ones as "clean <split>", in classes of all of them together."""
    columns, parts = {split: _label_column(settings, split)[0] for split in tables}, dict(tables)
    if settings.clean_column is not None:
        for split in (split for split in tables if split != "test"):
            columns[f"clean {split}"], parts[f"clean {split}"] = settings.clean_column, tables[split]
    return labels_together(parts, columns, str(settings.source), "every row needs a label, so drop those without")


def _with_files(settings: Settings, splits: Mapping[str, Rows]) -> dict[str, Rows]:
    """Splits with the features of their files, a row for each label."""
    found = {}
    for split, rows in splits.items():
        path = settings.features if split == "train" else getattr(settings, f"{split}_features")
        if path is None:
            raise ValueError(f"--features are of the training rows; the {split} rows need --{split}_features")
        features = read_features(path)
        if len(features) != len(rows):
            raise ValueError(
                f"{path} has features of {len(features)} rows, and {len(rows)} rows of the {split} split have labels; "
                "they have to be the same rows in the same order"
            )
        found[split] = _replaced(rows, features=features)
    return found


def _part(rows: Rows, places: np.ndarray) -> Rows:
    part = rows.take(places)
    return part if rows.features is None else _replaced(part, features=rows.features[places])


def _replaced(rows: Rows, **changes: Any) -> Rows:
    return Rows(**({name: getattr(rows, name) for name in Rows.__dataclass_fields__} | changes))
