"""Losses by name, as flags of studies name them."""

from __future__ import annotations

from collections.abc import Sequence

from hf_noise.objectives import Objective, objectives
from hf_noise.studies.settings import SettingError

__all__ = ["check_losses", "names_of_losses", "objective_class"]


def names_of_losses(unit: str) -> list[str]:
    """Names of the objectives on "tokens", "labels" or "images"; a new one is known by its file."""
    return [objective.name for objective in objectives(unit)]


def check_losses(names: Sequence[str], unit: str) -> None:
    """Raises SettingError: a name that no objective on this unit has."""
    if unknown := sorted(set(names) - set(names_of_losses(unit))):
        raise SettingError(f"--loss takes {' and '.join(names_of_losses(unit))}, got {unknown[0]}")


def objective_class(name: str, unit: str) -> type[Objective]:
    """The objective of a name that `check_losses` let through."""
    return next(one for one in objectives(unit) if one.name == name)
