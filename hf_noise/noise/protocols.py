"""Noise by the name that a configuration or a command line gives it: what each noise declares in `names`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from hf_noise.noise.base import Noise, Unit, known_noises
from hf_noise.noise.checks import check_choice

__all__ = ["check_fields", "find_protocol", "named_noise", "protocol_names"]


def protocol_names(*units: Unit) -> dict[str, type[Noise]]:
    """The names of all noises on these units, and whose they are."""
    return {name: noise for noise in known_noises() if noise.unit in units for name in noise.names}


def find_protocol(name: str, units: Iterable[Unit], also: str = "") -> tuple[str, type[Noise], Mapping[str, Any]]:
    """The name as it is written here, the noise, and the fields that the name stands for.

    "random_documents" is "random-documents", and "uniform-resample" is "uniform_resample".

    Raises ValueError for another name, with those that are known; `also` says which others are, in words.
    """
    known = protocol_names(*units)
    spelt = {_spelt(one): one for one in known}
    found = spelt.get(_spelt(name)) if isinstance(name, str) else None
    listed = f"one of {', '.join(known)}{', or ' + also if also else ''}"
    found = check_choice("protocol", name if found is None else found, known, listed)
    return found, known[found], known[found].names[found]


def named_noise(name: str, units: Iterable[Unit], **settings: Any) -> Noise:
    """The noise of a name with these settings, by the names of its fields.

    Raises:
        ValueError: another name, or a setting out of range.
        TypeError: a setting that this noise does not have, or one of another type.
    """
    _, noise, preset = find_protocol(name, units)
    check_fields(name, units, settings)
    return noise(**settings, **preset)


def check_fields(name: str, units: Iterable[Unit], settings: Iterable[str]) -> None:
    """Raise TypeError for a setting that the noise of this name does not have, or that its name says already."""
    _, noise, preset = find_protocol(name, units)
    known = [own.name for own in fields(noise) if own.name not in preset]
    if unknown := [setting for setting in settings if setting not in known]:
        raise TypeError(f"protocol {name!r} has no setting {', '.join(unknown)}; it takes {', '.join(known)}")


def _spelt(name: str) -> str:
    return name.replace("_", "-")
