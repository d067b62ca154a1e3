"""Names of what is many: the first of them, and how many more there are."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["few"]


def few(names: Sequence[str], most: int = 4) -> str:
    """The first names, such as `a, b and 3 more`; all of them where they are no more than `most`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
