"""Names and values as text, code or table of a card: whatever they hold, they stay text.

Names come from users, columns and file systems: `<script>`, a backtick or the end of a fence in them must not become
part of the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from hf_noise.reports.tables import pipe_table

__all__ = ["Code", "code", "fenced", "quoted", "table", "text"]

_ESCAPED = re.compile(r"[\\`*\[\]|]|(?<!\w)_|_(?!\w)|~~|\$\$")
# What begins a line as a heading, a list or a rule, and the hashes that close a heading, before the sign itself.
_OF_LINES = re.compile(
    r"^(?=#{1,6}(?:\s|$))|^(?=[-+](?:\s|$))|^(?=[-=][-= ]*$)|^(\d{1,9})(?=[.)](?:\s|$))|(?<=\s)(?=#+$)"
)
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


class Code(str):
    """Text that a table shows as code."""


def text(value: object) -> str:
    """One line of plain text: no markup of Markdown or HTML in it has an effect."""
    line = "".join(_ENTITIES.get(letter, letter) for letter in _one_line(value))
    line = _ESCAPED.sub(lambda match: "".join(f"\\{letter}" for letter in match[0]), line)
    return _OF_LINES.sub(lambda match: f"{match[1] or ''}\\", line)


def code(value: object) -> str:
    """One line of code within text, between as many backticks as it needs."""
    line = _one_line(value)
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if not line or line[0] == "`" or line[-1] == "`" else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def fenced(language: str, lines: str) -> str:
    """A block of code, within a fence that none of its lines can close."""
    if not isinstance(lines, str) or not isinstance(language, str):
        raise TypeError(f"a fence holds text, got {lines!r:.80} in the language {language!r:.80}")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", lines)), default=0))
    return f"{fence}{language}\n{lines}\n{fence}"


def quoted(value: str) -> str:
    """A string as Python code, on one line."""
    if not isinstance(value, str):
        raise TypeError(f"a string must be quoted, got {value!r:.80} of type {type(value).__name__}")
    return json.dumps(value, ensure_ascii=False) if value.isprintable() else repr(str(value))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """A Markdown table of texts, of which those of type `Code` are shown as code; columns in `numeric` stand right."""

    def shown(cell: str) -> str:
        # Within code, a table's `|` cannot be told from an escaped one after a backslash.
        as_code = isinstance(cell, Code) and "\\" not in cell
        return code(cell).replace("|", "\\|") if as_code else text(cell)

    return pipe_table(header, rows, numeric=numeric, show=shown, is_aligned=False)


def _one_line(value: object) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)).split())
