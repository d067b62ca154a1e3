"""Which studies there are. A new one is a new folder with `__main__.py`; its `__init__.py` may say

- `COMMAND`, its name at `hf-noise`, else that of the folder; where there is a recipe, that of the recipe,
- `DEMO_MINUTES`, how long `--scale demo` takes on two cores,
- `IS_ALONE`, that it works in one process however many devices there are.
"""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import hf_noise.studies

__all__ = ["Entry", "UnknownStudyError", "catalogue", "find"]


@dataclass(frozen=True)
class Entry:
    """A study as it stands in the catalogue, of which nothing is loaded yet."""

    name: str
    package: str
    shows: str
    demo_minutes: float | None
    is_alone: bool


class UnknownStudyError(ValueError):
    """A name that no study has."""


def catalogue() -> dict[str, Entry]:
    """The studies by name, in its order."""
    found = {}
    for module in pkgutil.iter_modules(hf_noise.studies.__path__, f"{hf_noise.studies.__name__}."):
        if module.ispkg and find_spec(f"{module.name}.__main__"):
            package = import_module(module.name)
            name = getattr(package, "COMMAND", module.name.rpartition(".")[2]).replace("_", "-")
            shows = (package.__doc__ or "").strip().split("\n\n")[0]
            minutes, is_alone = getattr(package, "DEMO_MINUTES", None), getattr(package, "IS_ALONE", False)
            found[name] = Entry(name, module.name, " ".join(shows.split()), minutes, is_alone)
    return dict(sorted(found.items()))


def find(name: str, among: Iterable[Entry] | None = None) -> Entry:
    """The study of a name, which may be written with underscores, as its recipe's file, or be that of its folder.

    Raises UnknownStudyError: there is none, with the name that may have been meant.
    """
    known = {entry.name: entry for entry in (catalogue().values() if among is None else among)}
    asked = name.removesuffix(".py").replace("_", "-")
    folders = {entry.package.rpartition(".")[2].replace("_", "-"): entry for entry in known.values()}
    if asked in known:
        return known[asked]
    if asked in folders:
        return folders[asked]
    near = difflib.get_close_matches(asked, [*known, "list"], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UnknownStudyError(f"there is no study {name!r}; {hint}`hf-noise list` names them all")
