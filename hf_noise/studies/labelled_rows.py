"""Rows with a label each, as studies of heads and of fine-tuning read them from any source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetInfo, Features, IterableDataset

from hf_noise.data.classes import Classes, classes_of
from hf_noise.data.reading import CorpusError, check_column, with_features
from hf_noise.data.sources import Source, find_splits
from hf_noise.studies.reading import source_of

__all__ = ["SPLITS", "class_numbers", "found_splits", "labels_together", "read_table", "refuse_nulls", "selected"]

SPLITS = ("train", "validation", "test")
_BATCH = 1000  # rows that are read at a time


def found_splits(settings: Any) -> dict[str, tuple[Source, IterableDataset]]:
    """The splits of the source, with those that have a source of their own."""
    source, own = source_of(settings.source), {}
    for split in ("test", "validation"):
        if (place := getattr(settings, f"{split}_source")) is not None:
            own[split] = source_of(place)
    if isinstance(source, Mapping):
        found = find_splits({**source, **own})
    else:
        found = {**find_splits(source), **(find_splits(own) if own else {})}
    return {split: found[split] for split in SPLITS if split in found}


def read_table(source: Source, dataset: IterableDataset, columns: Mapping[str, str]) -> Dataset:
    """Some columns of a split, in memory."""
    dataset = with_features(dataset, source.name)
    for column, flag in columns.items():
        check_column(dataset, column, source.name, flag)
    names = list(columns)
    features = Features({name: dataset.features[name] for name in names})
    shards = source.shards(source.narrowed(dataset, names), features=features)
    tables = [table for shard in shards for table in shard.tables(_BATCH, names)]
    if not sum(map(len, tables)):
        raise CorpusError(f"the source {source.name!r} is empty: it has no rows")
    return Dataset(pa.concat_tables(tables), info=DatasetInfo(features=features))


def selected(table: Dataset, column: str) -> pa.ChunkedArray:
    """A column of the rows that a table has; `table.data` holds those as well that were not selected."""
    return table.select_columns(column).with_format("arrow")[:][column]


def refuse_nulls(table: Dataset, column: str, split: str, needs: str) -> None:
    """Raise CorpusError if a column holds nulls, with their number and the first one's row; `needs` ends the message.
    """
    values = selected(table, column)
    if values.null_count:
        first = pc.index(values.is_null(), True).as_py()
        raise CorpusError(f"column {column!r} holds {values.null_count} null(s) in the {split} split, the first in row "
                          f"{first}; {needs}")  # fmt: skip


def class_numbers(classes: Classes, table: Dataset, column: str, split: str) -> np.ndarray:
    """Labels of a split as numbers of its classes, int64 [N]. Raises CorpusError: a row has none of them."""
    table = pa.table({column: selected(table, column)})
    numbers = np.array(classes.numbers(table, column, f"the {split} split"))  # Arrow's cannot be written
    wrong = (numbers < 0) | (numbers >= classes.size)
    if wrong.any():
        raise CorpusError(f"column {column!r} holds {numbers[wrong][0]} in {wrong.sum()} row(s) of the {split} split, "
                          f"which is none of the {classes.size} classes; leave rows without a label out")  # fmt: skip
    return numbers


def labels_together(
    parts: Mapping[str, Dataset], columns: Mapping[str, str], source: str, needs: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Labels of each part as numbers int64 [N] of the classes of all of them, and the names of these.

    Raises CorpusError: a label is missing, and `needs` ends the message; or the columns do not go together.
    """
    for name, part in parts.items():
        refuse_nulls(part, columns[name], name, needs)
    features = {name: part.features for name, part in parts.items()}
    values = {name: selected(part, columns[name]) for name, part in parts.items()}
    found = classes_of(features, columns, values, source, "column")
    labels = {name: class_numbers(found, part, columns[name], name) for name, part in parts.items()}
    return labels, list(found.names or map(str, range(found.size)))
