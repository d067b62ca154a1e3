"""Whether a record was made with the settings that a part of a cell would be made with."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_noise.reports.secrets import portable

if TYPE_CHECKING:
    from hf_noise.studies.reproduce.cells import Part

__all__ = ["differing"]

#: Folder of the models that the study of backbones trains.
_MADE = "backbones"
#: What stands between the places that one setting names.
_PLACES = re.compile(r"[=,\"]")


def differing(part: Part, theirs: Mapping[str, Any], is_strict: bool = False) -> list[str]:
    """Names of the settings in which a record is not one of a part; one that it does not know was off then.

    Args:
        is_strict: whether what a setting names on this machine counts as another one, since records do not say what
            was in it.
    """
    def is_same(name: str, ours: Any) -> bool:
        return _same(part, name, ours, theirs[name], is_strict) if name in theirs else not ours

    return sorted(name for name, ours in part.settings.items() if not is_same(name, ours))


def _same(part: Part, name: str, ours: Any, theirs: Any, is_strict: bool) -> bool:
    if isinstance(ours, list | tuple):
        is_list = isinstance(theirs, list) and len(ours) == len(theirs)
        return is_list and all(_same(part, name, one, other, is_strict) for one, other in zip(ours, theirs))
    if isinstance(ours, str) and isinstance(theirs, str):
        if name == "model" and _is_made(part, Path(ours)):
            return Path(ours).name == Path(theirs).name
        if is_strict:
            return ours == theirs and (name.endswith("column") or not _names_local(ours))
        return theirs in (ours, portable(ours))  # records leave out folders of a machine
    return ours == theirs


def _is_made(part: Part, model: Path) -> bool:
    """Whether a study made a model itself, which lies in another output elsewhere."""
    return model.parent.name == _MADE and model.parent.parent in part.file.parents


def _names_local(text: str) -> bool:
    """Whether a setting names what is on this machine: a path or pattern, also of `name=train,test` or in JSON."""
    return any(map(_is_here, {text, *_PLACES.split(text)}))


def _is_here(name: str) -> bool:
    return os.path.exists(name) or (glob.has_magic(name) and any(glob.iglob(name, recursive=True)))
