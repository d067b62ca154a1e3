"""Rows that an audit cannot use: without a label, a text or an image, or of a class that is too rare for the folds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Image, Value

from hf_noise.audit.class_names import check_class_names
from hf_noise.data.backbones import prompt_fields
from hf_noise.data.reading import CorpusError
from hf_noise.studies.audit.study import Settings
from hf_noise.studies.chosen_rows import rows_asked_for
from hf_noise.studies.labelled_rows import selected

__all__ = ["check_classes", "check_whole", "usable_rows", "whole_numbers"]

_REMEDY = "--drop_unusable leaves such rows out"


def _rows_needed(settings: Settings) -> int:
    """Rows that each class has to be in."""
    return 2 if settings.probabilities or settings.probability_columns else settings.folds


def check_classes(settings: Settings, labels: np.ndarray, classes: list[str], named_in: str | None) -> None:
    """Raises CorpusError: classes are too few, too rare for the folds, or have names that only spaces tell apart.

    Args:
        labels: int64 [N] in [0, C).
        classes: their C names.
        named_in: the column that holds these names; None if it holds numbers.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if len(counts) < 2:
        raise CorpusError(f"all {len(labels)} rows are labelled {classes[0]!r}; labels can be wrong from two classes "
                          "on")  # fmt: skip
    rare, needed = int(counts.argmin()), _rows_needed(settings)
    if counts[rare] < needed:
        remedy = "" if needed == 2 or counts[rare] < 2 else f", or use --folds {counts[rare]}"
        raise CorpusError(
            f"class {classes[rare]!r} is in {counts[rare]} of {len(labels)} rows, and {needed} are needed, one for "
            f"each fold; leave that class out, as --drop_unusable does{remedy}"
        )
    if named_in is not None:
        try:
            check_class_names(classes, f"labels in {named_in!r}")
        except ValueError as error:
            raise CorpusError(f"{error}; write each class in one way") from None


def check_whole(table: Dataset, columns: list[str], text: str | None, image: str | None, source: str) -> None:
    """Raises CorpusError: a row has no label in one of these columns, no text or no image; or labels are floats."""
    for what, lacks in _lacking(table, columns, text, image).items():
        if lacks.any():
            raise CorpusError(f"{source}: {lacks.sum():,} of {len(table):,} rows have {what}, the first is row "
                              f"{int(lacks.argmax())}; {_REMEDY}")  # fmt: skip
    for name in columns:
        kind = table.features[name]
        if isinstance(kind, Value) and pa.types.is_floating(kind.pa_type):
            _refuse_measurements(table, name, source)
            raise CorpusError(
                f"column {name!r} of {source} holds numbers with a decimal point, as 1.0, and classes are words or "
                "whole numbers: write 1 for 1.0 (in pandas: astype('int64')), or give --drop_unusable, which takes "
                "whole numbers as they are"
            )


def _refuse_measurements(table: Dataset, name: str, source: str) -> None:
    values = selected(table, name).drop_null().to_numpy()
    if (broken := values[values % 1 != 0]).size:
        raise CorpusError(f"column {name!r} of {source} holds {broken[0]:g}: that is a measurement and no class; "
                          "choose another --column")  # fmt: skip


def whole_numbers(table: Dataset, columns: list[str], source: str) -> Dataset:
    """The table with floats in these columns as integers. Raises CorpusError: one of them is none."""
    for name in columns:
        kind = table.features[name]
        if isinstance(kind, Value) and pa.types.is_floating(kind.pa_type):
            _refuse_measurements(table, name, source)
            table = table.cast_column(name, Value("int64"))
    return table


def usable_rows(
    settings: Settings, table: Dataset, columns: list[str], text: str | None, image: str | None
) -> tuple[np.ndarray, list[str]]:
    """Numbers of the rows that can be audited, of so many as were asked for, and what was left out, in words."""
    notes, kept = [], np.ones(len(table), dtype=bool)
    for what, lacks in _lacking(table, columns, text, image).items():
        if left := int((kept & lacks).sum()):
            notes.append(f"{left:,} rows with {what} are left out")
        kept &= ~lacks
    rows = np.flatnonzero(kept)
    rows = rows[rows_asked_for(len(rows), settings.rows, "rows", "rows that can be used")]
    counts = pc.value_counts(selected(table, columns[0]).take(pa.array(rows))).to_pylist()
    rare = {one["values"]: one["counts"] for one in counts if one["counts"] < _rows_needed(settings)}
    if rare:
        told = ", ".join(_name(table, columns[0], value) for value in list(rare)[:5])
        notes.append(f"{sum(rare.values()):,} rows of {len(rare)} classes in fewer than {_rows_needed(settings)} rows "
                     f"each are left out: {told}{', ...' * (len(rare) > 5)}")  # fmt: skip
        values = selected(table, columns[0]).take(pa.array(rows))
        is_rare = pc.is_in(values, value_set=pa.array(list(rare), values.type)).to_numpy()
        rows = rows[~is_rare.astype(bool)]
    if not len(rows):
        raise CorpusError(f"{settings.source}: no row is left; {'; '.join(notes)}")
    return rows, notes


def _name(table: Dataset, column: str, value: object) -> str:
    kind = table.features[column]
    return kind.int2str(value) if hasattr(kind, "int2str") else str(value)


def _lacking(table: Dataset, columns: list[str], text: str | None, image: str | None) -> dict[str, np.ndarray]:
    """What may be missing, in words, and in which rows, bool [N]."""
    arrow = table.with_format("arrow")[:]
    found = {f"no label in {name!r}": _nulls(arrow[name]) for name in dict.fromkeys(columns)}
    for name in dict.fromkeys(prompt_fields(text) if text else ()):
        found[f"nothing in {name!r}"] = _nulls(arrow[name])
    if text is not None and not text.strip("{}").count("{") and prompt_fields(text) == [text[1:-1]]:
        name = text[1:-1]
        if isinstance(table.features[name], Value) and "string" in table.features[name].dtype:
            blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(arrow[name]), ""), False)
            found[f"a blank text in {name!r}"] = blank.to_numpy().astype(bool)
    if image is not None and isinstance(table.features[image], Image):
        parts = [_nulls(pc.struct_field(arrow[image], part)) for part in ("bytes", "path")]
        found[f"no image in {image!r}"] = _nulls(arrow[image]) | parts[0] & parts[1]
    return found


def _nulls(values: pa.ChunkedArray) -> np.ndarray:
    return values.is_null().to_numpy().astype(bool)
