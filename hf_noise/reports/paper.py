"""The papers' published figures as data: one JSON file per table in `paper_tables`."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

__all__ = ["paper_table", "paper_table_ids"]

_FOLDER = files("hf_noise.reports") / "paper_tables"


def paper_table_ids() -> list[str]:
    """Ids such as "A.table8", sorted."""
    return sorted(entry.name.removesuffix(".json") for entry in _FOLDER.iterdir() if entry.name.endswith(".json"))


def paper_table(table_id: str) -> dict[Any, dict[str, float]]:
    """Rows of a published table by the value of its key column (the noise ratio r, for instance).

    Raises:
        ValueError: there is no such table.
    """
    if not isinstance(table_id, str) or table_id not in paper_table_ids():
        raise ValueError(f"unknown table {table_id!r}; there are: {', '.join(paper_table_ids())}")
    table = json.loads((_FOLDER / f"{table_id}.json").read_text(encoding="utf-8"))
    return {row.pop(table["key"]): row for row in table["rows"]}
