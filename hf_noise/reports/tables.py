"""Tables in Markdown, which also read well in a terminal: whole for a file, narrow for the screen."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from statistics import mean, stdev

from hf_noise.atomic import write_atomic

__all__ = [
    "Column", "Table", "fixed", "in_cell", "markdown_table", "mean_sd", "percent", "pipe_table", "seeds_told",
    "shown_table",
]  # fmt: skip

#: A table for the screen is never wider, so that it can be pasted into a mail or an issue.
WIDEST = 100


def fixed(value: float | None, digits: int = 3) -> str:
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
        return fixed(None)
    number = _number("share", share)
    if number < 0 or number > 1:
        raise ValueError(f"share must lie in [0, 1], got {share!r}; it is no percentage")
    return fixed(100 * number, 1)


def mean_sd(values: Sequence[float], digits: int, scale: float = 1) -> str:
    """The mean, with two values or more the standard deviation behind ±, and a dash for none."""
    if not values:
        return fixed(None)
    spread = f" ± {scale * stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * mean(values):.{digits}f}{spread}"


def seeds_told(counts: Iterable[int]) -> str:
    """How many seeds settings have, as `1 seed`, or `2 to 3 seeds` where they differ."""
    each = sorted(set(counts))
    return f"{each[0]} to {each[-1]} seeds" if len(each) > 1 else f"{each[0]} seed{'s'[: each[0] > 1]}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A pipe table with aligned columns: the first one to the left, the others to the right.

    Pipes in cells are escaped, and line breaks become spaces, so that a name cannot break the table.

    Raises:
        TypeError: a cell is no text.
        ValueError: there is no column, or a row has another number of cells than the header.
    """
    return pipe_table(header, rows, numeric=range(1, len(_cells(header))), show=in_cell, is_aligned=True)


def pipe_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numeric: Collection[int],
    show: Callable[[str], str],
    is_aligned: bool,
) -> str:
    """A pipe table; what the tables of reports and cards have in common.

    Args:
        numeric: the columns that stand to the right.
        show: writes a cell so that it cannot break the table.
        is_aligned: whether cells are filled up with spaces, so that columns stand in line in a terminal, too.

    Raises as `markdown_table`.
    """
    header, *rows = ([show(cell) for cell in _cells(row)] for row in [header, *_cells(rows)])
    if not header:
        raise ValueError("header must name one column at least")
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells, the header {len(header)}: {row}")
    widths = [max(2, *(len(line[i]) for line in [header, *rows])) if is_aligned else 0 for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(w) if i in numeric else cell.ljust(w) for i, (cell, w) in enumerate(zip(cells, widths))]
        return "| " + " | ".join(padded) + " |"

    if is_aligned:
        rule = [f" {'-' * (w - 1)}: " if i in numeric else f" {'-' * w} " for i, w in enumerate(widths)]
    else:
        rule = ["---:" if i in numeric else "---" for i in range(len(header))]
    return "\n".join([line(header), "|" + "|".join(rule) + "|", *map(line, rows)])


@dataclass(frozen=True)
class Column:
    """The head of a column, and how much it matters on a narrow screen.

    Attributes:
        heading: as in the whole table.
        priority: 0 always stays; of the others the largest number goes first.
        short: the heading where there is little room; by default the same.
    """

    heading: str
    priority: int = 0
    short: str = ""

    def __post_init__(self) -> None:
        for name in ("heading", "short"):
            in_cell(getattr(self, name))
        if isinstance(self.priority, bool) or not isinstance(self.priority, Integral) or self.priority < 0:
            raise ValueError(f"priority of the column {self.heading!r} must be an integer >= 0, got {self.priority!r}; "
                             "0 is for columns that always stay")  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Columns and rows of texts; a figure is shown whole or not at all.

    Raises ValueError: a row has another number of cells than there are columns, or there is no column.

    >>> table = Table([Column("run"), Column("epochs", priority=2), Column("NLL")], [["a", "40", "1.234"]])
    >>> print(table.fitted(20).markdown())
    | run |   NLL |
    | --- | ----: |
    | a   | 1.234 |
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        self.markdown()  # raises for cells that are no table

    def markdown(self) -> str:
        """All of it, by `markdown_table`."""
        return markdown_table([column.heading for column in self.columns], self.rows)

    def measured(self) -> Table:
        """Without the columns that have no figure in any row, as those of a paper on other data."""
        nothing = fixed(None)
        kept = [i for i in range(len(self.columns)) if not self.rows or any(row[i] != nothing for row in self.rows)]
        return self._only(kept)

    def fitted(self, width: int | None = None) -> Table:
        """The table made narrower until it fits: short headings first, then without the columns that matter least.

        Of two columns of the same priority the right one goes first. Columns of priority 0 stay, and the last one, so
        a table of long names may remain wider than the screen: no name and no figure is cut.

        Args:
            width: in characters, >= 1; by default that of the terminal, `WIDEST` at most.

        Raises ValueError: width is no integer >= 1.
        """
        width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns) if width is None else width
        if isinstance(width, bool) or not isinstance(width, Integral) or width < 1:
            raise ValueError(f"width must be an integer >= 1, got {width!r}; it is in characters")
        table = self
        if not table._fits(width):
            table = replace(table, columns=[replace(c, heading=c.short or c.heading) for c in table.columns])
        while not table._fits(width) and len(table.columns) > 1:
            priority, least = max((column.priority, i) for i, column in enumerate(table.columns))
            if priority == 0:
                break
            table = table._only([i for i in range(len(table.columns)) if i != least])
        return table

    def _fits(self, width: int) -> bool:
        return len(self.markdown().partition("\n")[0]) <= width

    def _only(self, kept: Sequence[int]) -> Table:
        return Table([self.columns[i] for i in kept], [[row[i] for i in kept] for row in self.rows])


def shown_table(table: Table, path: str | os.PathLike, width: int | None = None) -> str:
    """Write the whole table to a file; returns what the screen has room for, and says what it lacks.

    Args:
        table: of a study.
        path: such as "study.md" beside the figure; it appears whole or not at all.
        width: as of `Table.fitted`.

    Raises as `Table.fitted`, and OSError: the file cannot be written.
    """
    fitted = table.fitted(width)
    write_atomic(path, table.markdown() + "\n")
    if fitted == table:
        return fitted.markdown()
    n = len(table.columns) - len(fitted.columns)
    lacking = f"{n} more column{'s' * (n > 1)}" if n else "headings in full"
    return f"{fitted.markdown()}\n{lacking} in {os.fspath(path)}"


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


def in_cell(cell: str) -> str:
    """A text as it may stand in a table: pipes escaped, line breaks as spaces. Raises TypeError: it is no text."""
    if not isinstance(cell, str):
        raise TypeError(f"a cell of header or rows must be a text, got {cell!r:.80} of type {type(cell).__name__}")
    return " ".join(cell.replace("|", "\\|").splitlines())
