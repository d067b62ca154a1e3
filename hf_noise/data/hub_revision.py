"""Which commit a data set on the Hub is at, so that what was made of an older one is not taken for it."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import time
from pathlib import Path

from hf_noise.atomic import write_atomic
from hf_noise.data.cache import cache_root

__all__ = ["hub_revision"]

_PATIENCE = 10  # seconds for an answer
_TRUSTED = 60  # seconds for which an answer is not asked for again: one load looks several times
_CLIENTS = ("httpx", "httpx2")  # whose errors are no OSError; which one depends on the version of the Hub's library
_COMMIT = re.compile(r"[0-9a-f]{40}")


def hub_revision(name: str) -> str | None:
    """The commit of a data set on the Hub, 40 hexadecimal digits.

    If the Hub cannot be asked, it is the commit that was seen last on this machine, so that what was built is found
    again without a network; None if there is none. That a data set is not there is told when it is read.
    """
    return _asked(name, int(time.monotonic() // _TRUSTED))


@functools.lru_cache(maxsize=64)
def _asked(name: str, _minute: int) -> str | None:
    from huggingface_hub import HfApi, constants

    place = f"{os.environ.get('HF_ENDPOINT') or constants.ENDPOINT} {name}"
    file = cache_root() / "hub" / hashlib.sha256(place.encode()).hexdigest()[:16]
    try:
        commit = HfApi().dataset_info(name, timeout=_PATIENCE).sha
    except Exception as error:  # no network, no such data set, no name for one
        if not isinstance(error, OSError | ValueError) and type(error).__module__.split(".")[0] not in _CLIENTS:
            raise
        commit = None
    if commit is None:
        seen = file.read_text() if file.is_file() else ""
        return seen if _COMMIT.fullmatch(seen) else None
    _write(file, commit)
    return commit


def _write(file: Path, text: str) -> None:
    if file.is_file() and file.read_text() == text:
        return
    write_atomic(file, text)
