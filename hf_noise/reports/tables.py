"""Tables in Markdown, which also read well in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["figure", "markdown_table", "percent"]


def figure(value: float | None, digits: int = 3) -> str:
    """A number with a fixed number of digits, or a dash where nothing was measured."""
    return "-" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """A share in [0, 1] in percent with one digit, or a dash where nothing was measured."""
    return figure(None if share is None else 100 * share, 1)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table with aligned columns: the first one to the left, the others to the right.

    Raises:
        ValueError: a row has another number of cells than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells, the header {len(header)}: {row}")
    widths = [max(2, *(len(line[i]) for line in [header, *rows])) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths))]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * w if i == 0 else "-" * max(w - 1, 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(header), "|" + "|".join(f" {cell} " for cell in rule) + "|", *map(line, rows)])
