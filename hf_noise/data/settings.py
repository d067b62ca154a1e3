"""Checks of the settings of builders that need no data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from numbers import Integral
from typing import Any

from datasets import BuilderConfig

from hf_noise.data.source_names import check_source
from hf_noise.noise.checks import check_count, check_flag

__all__ = ["check_flags", "check_keywords", "check_name", "check_names", "check_pairs", "check_places",
           "check_settings", "check_sizes", "names_of"]  # fmt: skip


def check_settings(builder: str, config: type, settings: Iterable[str]) -> None:
    """Raise TypeError for the name of a setting that a builder's class of configurations does not have."""
    inherited = {field.name for field in fields(BuilderConfig)}
    known = [field.name for field in fields(config) if field.name not in inherited]
    if unknown := [setting for setting in settings if setting not in known]:
        raise TypeError(f"{builder} has no setting {', '.join(map(repr, unknown))}; it takes {', '.join(known)}")


def check_name(builder: str, name: Any, names: Sequence[str]) -> None:
    """Raise ValueError unless a builder has this configuration, or its name is None."""
    if name is not None and not (isinstance(name, str) and name in (names or ["default"])):
        there = ", ".join(names) or "none"
        raise ValueError(f"configuration {name!r} not found; {builder} has {there}; settings such as r= need no name")


def check_names(config: Any, *fields: str) -> None:
    """Raise TypeError unless these settings are texts, or None."""
    for field in fields:
        if (value := getattr(config, field)) is not None and not isinstance(value, str):
            raise TypeError(f"{field} must be a name, got {value!r} of type {type(value).__name__}")


def check_flags(config: Any, *fields: str) -> None:
    """Make booleans of these settings, or raise TypeError: they are True or False, NumPy's too."""
    for field in fields:
        setattr(config, field, check_flag(field, getattr(config, field)))


def check_keywords(given: Any) -> dict[str, Any] | None:
    """`protocol_kwargs` as a dictionary, None for none; TypeError unless it maps names to settings."""
    if given is None:
        return None
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise TypeError(f'protocol_kwargs must be settings by name, such as {{"boost_mass": 0.2}}, got {given!r:.80}')
    return dict(given)


def check_places(config: Any, *fields: str) -> None:
    """Raise TypeError unless these settings can be sources, or None."""
    for field in fields:
        if (value := getattr(config, field)) is not None:
            check_source(field, value)


def check_sizes(config: Any, **bits: int) -> None:
    """Make integers of these settings where they are given, or raise: TypeError for others, ValueError for those
    outside [0, 2^bits], where the noise may want more."""
    for field, most in bits.items():
        if (value := getattr(config, field)) is not None:
            setattr(config, field, check_count(field, value, 0, most))


def check_pairs(pairs: Any) -> dict[int, int]:
    """`pairs` as a dictionary of ints, or a TypeError unless it maps classes to classes, by their numbers."""
    classes = [*pairs, *pairs.values()] if isinstance(pairs, Mapping) else []
    if not classes or not all(isinstance(number, Integral) and not isinstance(number, bool) for number in classes):
        raise TypeError(f"pairs must be a dictionary of classes by their numbers, such as {{3: 5}}, got {pairs!r:.80}")
    return {int(source): int(target) for source, target in pairs.items()}


def names_of(field: str, names: Any) -> set[str]:
    """One name, or several, as a set; TypeError for anything else."""
    several = {names} if isinstance(names, str) else names
    if not isinstance(several, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in several):
        raise TypeError(f'{field} must be names of splits, such as ("validation",), got {names!r:.80}')
    return set(several)
