"""Pairs of texts from any source: two columns, also inside others, checked and in memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features, IterableDataset

from hf_noise.data.added import MASK
from hf_noise.data.kinds import SAMPLE_ID, holds_labels
from hf_noise.data.reading import CorpusError, source_features
from hf_noise.data.sample_ids import sample_ids
from hf_noise.data.sources import Source

__all__ = ["check_pairs_filled", "read_pairs"]

logger = logging.getLogger(__name__)

_BATCH = 1000  # rows
_NAMED = 3  # rows in a message


def read_pairs(source: Source, dataset: IterableDataset, columns: Sequence[str]) -> pa.Table:
    """One split as `source` and `target`, large strings; and `sample_id`, int64, where it has its own.

    Args:
        source, dataset: of the split.
        columns: the names of both; "translation.en" is the field `en` of a column `translation`, unless there is a
            column of that name.

    Raises:
        ValueError: the source has no such column, with those that it has.
        CorpusError: a column holds no texts, or a file cannot be read.
    """
    features = source_features(dataset, source.name)
    paths = [_path(name, features, source.name) for name in columns]
    own = SAMPLE_ID in features and holds_labels(features[SAMPLE_ID])
    if MASK in features:
        logger.warning("the column %r of %r is not read: all targets are taken for clean, and a teacher's are put in "
                       "their place; to train on them as they are, give the rows to tokenize_pairs()",
                       MASK, source.name)  # fmt: skip
    tops = list(dict.fromkeys([path[0] for path in paths] + [SAMPLE_ID] * own))
    kept = Features({name: features[name] for name in tops})
    shards = source.shards(source.narrowed(dataset, tops), features=kept)
    read: list[pa.Table] = []
    for shard in shards:
        for table in shard.tables(_BATCH, tops):
            texts = [_texts(table, path, source.name) for path in paths]
            ids = {SAMPLE_ID: sample_ids(table[SAMPLE_ID], SAMPLE_ID)} if own else {}
            read.append(pa.table({"source": texts[0], "target": texts[1], **ids}))
    return pa.concat_tables(read)


def _path(name: str, features: Features, source: str) -> list[str]:
    """The column, and the fields in it, that a name with dots means."""
    path, inside = ([name], features) if name in features else (name.split("."), features)
    for depth, part in enumerate(path):
        fields = inside.arrow_schema if isinstance(inside, Features) else inside
        names = fields.names if isinstance(fields, pa.Schema) else [field.name for field in fields]
        if part not in names:
            there = ", ".join(repr(".".join([*path[:depth], one])) for one in names)
            raise ValueError(f"the source {source!r} has no column {name!r}; it has {there}: choose both with columns=")
        kind = fields.field(part).type
        if depth + 1 < len(path) and not pa.types.is_struct(kind):
            raise ValueError(f"column {part!r} of the source {source!r} holds {kind}, which has no fields: {name!r}")
        inside = kind
    return path


def _texts(table: pa.Table, path: Sequence[str], source: str) -> pa.ChunkedArray:
    column = table[path[0]]
    for field in path[1:]:
        column = pc.struct_field(column, field)
    if pa.types.is_null(column.type):
        return column.cast(pa.large_string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise CorpusError(f"column {'.'.join(path)!r} of {source!r} holds {column.type}, not text; choose both with "
                          "columns=")  # fmt: skip
    return column.cast(pa.large_string())


def check_pairs_filled(pairs: pa.Table, columns: Sequence[str], where: str, called: str, names: np.ndarray) -> None:
    """Raise CorpusError if a source or target is missing or empty, with their number and the first of them.

    Args:
        called, names: what each row is named by, and its name [N], as the owner of the source finds it there.
    """
    for name, column in zip(("source", "target"), columns, strict=True):
        empty = pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(pairs[name])), 0), True)
        rows = np.flatnonzero(empty.to_numpy())
        if rows.size:
            named = ", ".join(map(str, names[rows[:_NAMED]])) + (", ..." if rows.size > _NAMED else "")
            many = f"{called}{'s' * (rows.size > 1)}"
            raise CorpusError(
                f"{rows.size} of {len(pairs)} rows of {where} have an empty {name} (column {column!r}, {many} {named})"
                f"; leave them out, such as with dataset.filter(), and give what is left as source="
            )
