"""Whether records have what a table or figure shows of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hf_noise.reports.record import RunRecord, is_number

__all__ = ["check_records"]


def check_records(
    records: Sequence[RunRecord],
    *,
    numbers: Sequence[str] = (),
    shares: Sequence[str] = (),
    texts: Mapping[str, Collection[str] | None] | None = None,
) -> None:
    """Raise unless these are records of runs that have all of this.

    Args:
        numbers: paths such as "metrics.test_nll.value" to finite numbers.
        shares: to numbers in [0, 1].
        texts: paths to texts, with what they may be; None for anything.

    Raises:
        TypeError: no sequence of `RunRecord`.
        ValueError: a record lacks one, or has something else in its place; it is named.
    """
    if isinstance(records, str | Mapping) or not isinstance(records, Sequence):
        raise TypeError(f"records must be a list of RunRecord, got {records!r:.80}")
    for record in records:
        if not isinstance(record, RunRecord):
            raise TypeError(f"records must be a list of RunRecord, got one of type {type(record).__name__}")
        for path in (*numbers, *shares):
            value = _at(record, path)
            if not is_number(value):
                raise _wrong(record, path, value, "a number")
            if path in shares and not 0 <= value <= 1:
                raise _wrong(record, path, value, "a share in [0, 1]")
        for path, allowed in (texts or {}).items():
            value = _at(record, path)
            if not isinstance(value, str) or allowed is not None and value not in allowed:
                raise _wrong(record, path, value, "a text" if allowed is None else f"one of {', '.join(allowed)}")


def _at(record: RunRecord, path: str) -> Any:
    field, *keys = path.split(".")
    value = getattr(record, field)
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            raise ValueError(
                f"the record {record.name!r} ({record.task}) has no {path}, which is shown here; leave out records of "
                "other tasks and recipes"
            )
        value = value[key]
    return value


def _wrong(record: RunRecord, path: str, value: Any, wanted: str) -> ValueError:
    return ValueError(f"the record {record.name!r} has {path} = {value!r:.80}, which must be {wanted}")
