"""Tables in Markdown, which also read well in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

__all__ = ["figure", "markdown_table", "percent"]


def figure(value: float | None, digits: int = 3) -> str:
    """A number with a fixed number of digits, or a dash where nothing was measured.

    Raises TypeError unless it is a real number, ValueError unless `digits` is an integer in [0, 17].
    """
    if value is not None:
        value = _number("value", value)
    if isinstance(digits, bool) or not isinstance(digits, int) or not 0 <= digits <= 17:
        raise ValueError(f"digits must be an integer in [0, 17], got {digits!r}")
    return "-" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """A share in [0, 1] in percent with one digit, or a dash where nothing was measured.

    Raises TypeError unless it is a real number, ValueError for one outside [0, 1]: a percentage is no share.
    """
    if share is None:
        return figure(None)
    number = _number("share", share)
    if number < 0 or number > 1:
        raise ValueError(f"share must lie in [0, 1], got {share!r}; it is no percentage")
    return figure(100 * number, 1)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table with aligned columns: the first one to the left, the others to the right.

    Pipes in cells are escaped, and line breaks become spaces, so that a name cannot break the table.

    Raises:
        TypeError: a cell is no text.
        ValueError: there is no column, or a row has another number of cells than the header.
    """
    header, *rows = ([_cell(cell) for cell in _cells(row)] for row in [header, *_cells(rows)])
    if not header:
        raise ValueError("header must name one column at least")
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells, the header {len(header)}: {row}")
    widths = [max(2, *(len(line[i]) for line in [header, *rows])) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths))]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * w if i == 0 else "-" * max(w - 1, 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(header), "|" + "|".join(f" {cell} " for cell in rule) + "|", *map(line, rows)])


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number or None, got {value!r} of type {type(value).__name__}")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} must be a number that a float can hold, got {value!r:.40}") from error


def _cells(row: Sequence[str]) -> Sequence[str]:
    if isinstance(row, str | bytes) or not isinstance(row, Sequence):
        raise TypeError(f"header and rows must be sequences of texts, got {row!r:.80}")
    return row


def _cell(cell: str) -> str:
    if not isinstance(cell, str):
        raise TypeError(f"a cell of header or rows must be a text, got {cell!r:.80} of type {type(cell).__name__}")
    return " ".join(cell.replace("|", "\\|").splitlines())
