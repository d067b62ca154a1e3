"""Whether the columns of two files, splits or tables mean the same: their names, types and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from datasets import Features

__all__ = ["check_same_classes", "check_same_columns", "find_column", "fits"]


def check_same_classes(features: Mapping[str, Any], column: str, other: str, source: str) -> None:
    """Raise ValueError if two columns name their classes, and differently."""
    names = [getattr(features[name], "names", None) for name in (column, other)]
    if None not in names and names[0] != names[1]:
        raise ValueError(
            f"the columns {column!r} and {other!r} of {source!r} number their classes differently, so the same number "
            f"means two things: {names[0][:10]} and {names[1][:10]}; bring them into one order"
        )


def check_same_columns(found: Mapping[str, Features], source: str) -> None:
    """Raise ValueError unless all splits have the same columns, with the same types and classes; named by split.
    `source` stands in messages as it is."""
    first = next(iter(found))
    for split, features in found.items():
        told = f"the splits {first!r} and {split!r} of {source}"
        if odd := sorted(set(features) ^ set(found[first])):
            raise ValueError(
                f"{told} have different columns: {', '.join(map(repr, odd))} in one only; load them one by one"
            )
        for name, feature in features.items():
            other = found[first][name]
            names = [getattr(kind, "names", None) for kind in (other, feature)]
            if None not in names and names[0] != names[1]:
                raise ValueError(
                    f"{told} number the classes of column {name!r} differently, so the same number means two things: "
                    f"{names[0][:10]} and {names[1][:10]}; bring them into one order"
                )
            types = [kinds.arrow_schema.field(name).type for kinds in (features, found[first])]
            if not fits(*types):
                raise ValueError(f"{told} have different types in column {name!r}: {types[1]} and {types[0]}; "
                                 "load them one by one")  # fmt: skip


def find_column(there: Sequence[str], source: str, asked: str | None, usual: tuple[str, ...], option: str) -> str:
    """The column that was asked for, else the first of the usual ones; ValueError, which names `option`, if there is
    none."""
    for column in (asked,) if asked is not None else usual:
        if column in there:
            return column
    wanted = repr(asked) if asked is not None else " or ".join(map(repr, usual))
    raise ValueError(
        f"the source {source!r} has no column {wanted}; it has {', '.join(map(repr, there))}: choose one with {option}="
    )


def fits(kind: pa.DataType, target: pa.DataType) -> bool:
    """Whether values of one type mean the same as another; True where only a cast can tell."""
    there, wanted = _kind(kind), _kind(target)
    if None in (there, wanted) or there == "nulls" or (there, wanted) == ("integers", "floats"):
        return True
    return there.replace("nulls", wanted.split()[-1]) == wanted  # an empty list has no type of its own


def _kind(kind: pa.DataType) -> str | None:
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = _kind(kind.value_type)
        return inner and f"lists of {inner}"
    if types.is_string(kind) or types.is_large_string(kind):
        return "texts"
    tests = {"nulls": types.is_null, "booleans": types.is_boolean, "integers": types.is_integer,
             "floats": types.is_floating}  # fmt: skip
    return next((name for name, test in tests.items() if test(kind)), None)
