"""Names of classes: texts that a person, a sheet and a spreadsheet tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["UNSURE", "check_class_names", "listed"]

UNSURE = "unsure"  # what a sheet calls a row left open


def check_class_names(names: Any, what: str = "class_names") -> list[str]:
    """The names with single spaces, as a sheet has them, or an error that calls them `what`.

    Raises:
        TypeError: they are no sequence of texts.
        ValueError: there are fewer than two, one is empty or "unsure", or two differ by their spaces at most.
    """
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{what} must be a sequence of str, got {names!r:.80}")
    names = [" ".join(name.split()) for name in names]
    if len(names) < 2 or not all(names):
        raise ValueError(f"{what} must be 2 texts or more, none of them empty, got {listed(names)}")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{what} must differ, got {listed(twice)} twice; spaces do not tell them apart")
    if any(name.casefold() == UNSURE for name in names):
        raise ValueError(
            f"{what} must not hold {UNSURE!r}, which the sheet of rows to verify calls a row left open; rename that "
            "class"
        )
    return names


def listed(names: Sequence[str]) -> str:
    """Names in quotes, the first twenty and how many more there are."""
    shown = ", ".join(f"{name!r:.60}" for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
