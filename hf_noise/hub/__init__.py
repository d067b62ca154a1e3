"""Record -> card, pushes to the Hub in one atomic commit each, and the noise read back from either."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any


def __getattr__(name: str) -> Any:
    """A module of this floor, loaded when it is used."""
    if name in (module.name for module in iter_modules(__path__)):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
