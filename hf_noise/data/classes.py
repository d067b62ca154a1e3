"""Which classes a column of labels has: words, booleans and integers become numbers 0 .. C - 1, the same everywhere.

Classes are those of all splits and files together, so that a word which stands in the test split alone is one too, and
no number depends on what is read first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Features, Value

from hf_noise.data.reading import CorpusError

__all__ = ["Classes", "classes_of", "is_label_kind", "needs_values", "one_column"]

_BOOLEANS = ("false", "true")
# More words than this, and more than half as many as rows, are no classes: a column of texts, or of names.
_MANY_WORDS = 100


@dataclass(frozen=True)
class Classes:
    """The classes of a column.

    Attributes:
        size: their number, C.
        names: of each, in the order of the numbers; None where the labels are plain integers.
        is_words: the column holds the names themselves, sorted.
    """

    size: int
    names: tuple[str, ...] | None = None
    is_words: bool = False

    def numbers(self, table: pa.Table, column: str, where: str | None = None) -> np.ndarray:
        """A column as int64 [n], the number of each row's class; `where` names its file, as for `one_column`.

        Raises:
            CorpusError: it holds nulls, a word that is no class, or neither words, booleans nor integers.
        """
        values = table[column]
        if not self.is_words or values.null_count or not _is_text(values.type):
            return one_column(table, column, where)
        numbers = pc.index_in(values, pa.array(self.names, values.type))
        if unknown := numbers.null_count:
            word = values[pc.index(numbers.is_null(), True).as_py()].as_py()
            raise CorpusError(
                f"column {column!r} holds {word!r}, which is none of the {self.size} classes "
                f"({', '.join(self.names[:5])}{', ...' if self.size > 5 else ''}), in {unknown} row(s)"
                + (f" (in {where})" if where else "")
            )
        return numbers.to_numpy().astype(np.int64, copy=False)

    def feature(self) -> ClassLabel:
        """The feature of a column that holds the numbers."""
        return ClassLabel(num_classes=self.size) if self.names is None else ClassLabel(names=list(self.names))


def one_column(table: pa.Table, column: str, where: str | None = None) -> np.ndarray:
    """A column of integers or booleans as int64 [n]; CorpusError if it holds nulls, or others. `where` names its file.
    """
    there = f" (in {where})" if where else ""
    if nulls := table[column].null_count:
        raise CorpusError(
            f"column {column!r} holds {nulls} null(s); every row needs a label, so drop those without{there}"
        )
    kind = table[column].type
    if not pa.types.is_integer(kind) and not pa.types.is_boolean(kind):
        raise CorpusError(f"column {column!r} holds {kind}, no labels; give integers or a ClassLabel{there}")
    return table[column].to_numpy().astype(np.int64, copy=False)


def is_label_kind(kind: Any) -> bool:
    """Whether a feature can hold labels: a `ClassLabel`, integers, booleans or words."""
    return isinstance(kind, ClassLabel) or isinstance(kind, Value) and (
        pa.types.is_integer(kind.pa_type) or pa.types.is_boolean(kind.pa_type) or _is_text(kind.pa_type)
    )


def needs_values(kinds: Iterable[Any], size: int | None) -> bool:
    """Whether the classes of columns of these kinds are known only once all labels were read; `size` is C if given."""
    kinds = list(kinds)
    if any(isinstance(kind, ClassLabel) for kind in kinds):
        return False
    return size is None and not any(pa.types.is_boolean(kind.pa_type) for kind in kinds) or any(
        _is_text(kind.pa_type) for kind in kinds
    )


def classes_of(
    features: Mapping[str, Features], columns: Mapping[str, str], values: Mapping[str, pa.ChunkedArray], source: str,
    option: str, size: int | None = None, usual: int | None = None,
) -> Classes:  # fmt: skip
    """The classes of a column of labels, of all splits together.

    Args:
        features: of each split.
        columns: the column of labels in each split.
        values: all labels of each split, where `needs_values`; else they are not looked at.
        source: what to call the source in messages, as it stands in them.
        option: the argument that chooses another column.
        size: C, if it is known; labels that are integers are then 0 .. C - 1.
        usual: C of integers that are not 0 .. k - 1 of another number k.

    Raises:
        ValueError: a column holds no labels, or the splits hold different kinds or name their classes differently.
        CorpusError: integers have a gap or are below 0, words are empty or are too many to be classes, there is one
            class only.
    """
    kinds = {split: features[split][column] for split, column in columns.items()}
    for split, kind in kinds.items():
        if not is_label_kind(kind):
            raise ValueError(
                f"column {columns[split]!r} holds {kind}, no class labels; give words, booleans, integers or a "
                f"ClassLabel, or choose another column with {option}="
            )
    named = {split: list(kind.names) for split, kind in kinds.items() if isinstance(kind, ClassLabel)}
    first = next(iter(named), None)
    for split, names in named.items():
        if names != named[first]:
            raise ValueError(
                f"the splits {first!r} and {split!r} of {source} name their classes differently (they number the "
                f"classes of column {columns[split]!r} differently), so the same number may mean two things: "
                f"{named[first][:10]} and {names[:10]}; bring them into one order"
            )
    what = {split: _what(kind) for split, kind in kinds.items()}
    if named:
        is_words = "words" in what.values()
        if "booleans" in what.values():
            raise ValueError(f"the splits of {source} hold labels of several kinds: {what}; bring them into one")
        return _of_size(Classes(len(named[first]), tuple(named[first]), is_words), size, source)
    if len(set(what.values())) > 1:
        raise ValueError(f"the splits of {source} hold labels of several kinds: {what}; bring them into one")
    where = f"column {next(iter(columns.values()))!r} of {source}"
    if "booleans" in what.values():
        return _of_size(Classes(2, _BOOLEANS), size, source)
    if "words" in what.values():
        return _of_size(_of_words(values, where, option), size, source)
    return _of_integers(values, where, usual) if size is None else Classes(size)


def _of_size(classes: Classes, size: int | None, source: str) -> Classes:
    if size is not None and classes.size != size:
        raise ValueError(f"the labels of {source} have {classes.size} classes, not {size}")
    return classes


def _of_words(values: Mapping[str, pa.ChunkedArray], where: str, option: str) -> Classes:
    words = sorted({word for column in values.values() for word in pc.unique(column).to_pylist() if word is not None})
    rows = sum(len(column) for column in values.values())
    if empty := [word for word in words if not word.strip()]:
        raise CorpusError(f"{where} holds the label {empty[0]!r}; every row needs a label, so drop those without")
    if len(words) > max(_MANY_WORDS, rows / 2):
        raise CorpusError(
            f"{where} holds {len(words)} different texts in {rows} rows, no class labels; choose another column with "
            f"{option}="
        )
    return _several(Classes(len(words), tuple(words), True), where)


def _of_integers(values: Mapping[str, pa.ChunkedArray], where: str, usual: int | None) -> Classes:
    there = np.unique(np.concatenate([pc.unique(column).to_numpy() for column in values.values()]))
    missing = np.setdiff1d(np.arange(min(int(there[-1]), there.size)), there)
    if usual is not None and (there[0] < 0 or missing.size or there.size in (1, usual)):
        return Classes(usual)
    if there[0] < 0:
        raise CorpusError(
            f"{where} holds the label {there[0]}, and classes are numbered from 0; rows without a label (-1 on the "
            "Hub) have to go"
        )
    if missing.size:
        raise CorpusError(
            f"{where} holds labels from {there[0]} to {there[-1]}, but no {missing[0]}: integers without names are "
            "0, 1, 2, ... without a gap; number them anew, or write them as words"
        )
    return _several(Classes(there.size, tuple(map(str, there.tolist()))), where)


def _several(classes: Classes, where: str) -> Classes:
    if classes.size < 2:
        raise CorpusError(f"{where} holds one class only, {classes.names[0]!r}; labels can be wrong from two on")
    return classes


def _what(kind: Any) -> str:
    if isinstance(kind, ClassLabel) or pa.types.is_integer(kind.pa_type):
        return "integers"
    return "booleans" if pa.types.is_boolean(kind.pa_type) else "words"


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
