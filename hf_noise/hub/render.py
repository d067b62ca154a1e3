"""Figures and tables of a card, from the values of a record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from huggingface_hub.utils import validate_repo_id

from hf_noise.reports.markdown import table

_FILE_SUFFIX = re.compile(r"\.(parquet|arrow|json|jsonl|csv|tsv|txt|md|gz|zst|bz2|xz)$")


def template(name: str) -> str:
    """Text of a template that is shipped with the package."""
    text = (resources.files("hf_noise.hub") / "templates" / name).read_text(encoding="utf-8")
    return text + "\n"  # jinja2 takes the last line's end away, and a card is a text file


def number(value: Any) -> str:
    """`1,234,567` for counts, four decimals for measurements, three digits for the very large and small."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "none" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4f}".rstrip("0").rstrip(".") if value == round(value, 3) else f"{value:.4f}"
    return f"{value:.3g}"


def pairs(values: Mapping[str, Any]) -> str:
    """A two-column table of plain values; nested ones and None are left out."""
    rows = [(key.replace("_", " "), number(value)) for key, value in values.items() if _is_plain(value)]
    return table(("setting", "value"), rows)


def hub_id(source: Any) -> str | None:
    """`source` if it names a data set on the Hub (`owner/name`), None for files and embedded corpora.

    A record writes `./` before a local folder of this form.
    """
    if not isinstance(source, str) or source.count("/") != 1 or _FILE_SUFFIX.search(source):
        return None
    if source.startswith(("embedded/", "hf_noise/", ".", "~", "/")):
        return None
    try:
        validate_repo_id(source)
    except ValueError:  # HFValidationError: not the form of a repo id
        return None
    return source


def _is_plain(value: Any) -> bool:
    return value is not None and not isinstance(value, (dict, list))
