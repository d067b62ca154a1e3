"""What a flag's value may be: each setting says it in its type, and every study checks it when it reads its flags."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_noise.data.hook import builder_names

# Of what is counted: what follows from a count (steps times rows, for one) has to stay an exact float.
LARGEST = 2**40


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low`, or more than `above`, up to `high`, or less than `below`."""

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def fault(self, value: float) -> str | None:
        """What is wrong with a value."""
        if isinstance(value, float) and not math.isfinite(value):
            return f"must be finite and {self}, got {value}"
        if self.low <= value <= self.high and self.above < value < self.below:
            return None
        return f"must be {self}, got {value}"

    def __str__(self) -> str:
        bounds = ((">=", self.low), (">", self.above), ("<=", self.high), ("<", self.below))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if math.isfinite(bound))


class Repository:
    """The name of a repository on the Hub."""

    def fault(self, value: str) -> str | None:
        try:
            validate_repo_id(value)
        except HFValidationError as error:
            return f"takes owner/name, got {value!r}: {error}"
        return None


class Given:
    """A name or path of at least one letter."""

    def fault(self, value: str) -> str | None:
        return None if str(value).strip() else f"is empty ({value!r}); give a name or path, or leave the flag out"


class Folder:
    """A folder that can be made: no part of its path is longer than file systems take."""

    longest = 255

    def fault(self, value: str) -> str | None:
        too_long = [part for part in Path(value).parts if len(os.fsencode(part)) > self.longest]
        told = f"{too_long[0][:20]}... of {len(os.fsencode(too_long[0]))} bytes" if too_long else ""
        return f"takes names of at most {self.longest} bytes, got {told}" if too_long else Given().fault(value)


class Builder:
    """The name of a data set of hf_noise."""

    def fault(self, value: str) -> str | None:
        known = builder_names()
        return None if value in known else f"takes one of {', '.join(known)}, got {value!r}"


Count = Annotated[int, Range(1, LARGEST)]
CountOrNone = Annotated[int, Range(0, LARGEST)]
TwoOrMore = Annotated[int, Range(2, LARGEST)]
Seed = Annotated[int, Range(0, 2**32 - 1)]  # of all of a run; NumPy's old generator takes no more
SeedOfNoise = Annotated[int, Range(0, 2**63 - 1)]
Positive = Annotated[float, Range(above=0, high=LARGEST)]
NotNegative = Annotated[float, Range(0, LARGEST)]
FromOne = Annotated[float, Range(1)]
Share = Annotated[float, Range(0, 1)]
ShareBelowOne = Annotated[float, Range(0, below=1)]
ShareInside = Annotated[float, Range(above=0, below=1)]
Repo = Annotated[str, Repository()]
Name = Annotated[str, Given()]
Output = Annotated[str, Folder()]
DataName = Annotated[str, Builder()]


def fault_of(kind: Any, value: Any) -> str | None:
    """What is wrong with a value, or one of a list, by its type and the range beside it; None is what was not given."""
    if value is None:
        return None
    base, of_many = _base(kind)
    if of_many and not isinstance(value, list):
        return f"takes a list of {_CALLED[base]}, got {value!r:.80}"
    for one in value if of_many else [value]:
        if not _is_a(base, one):
            return f"takes {_CALLED[base] if of_many else _ONE[base]}, got {one!r:.80}"
        for limit in _limits(kind):
            if fault := limit.fault(one):
                return fault
    return None


_CALLED = {int: "integers", float: "numbers", str: "texts", bool: "True or False"}
_ONE = {int: "an integer", float: "a number", str: "a text", bool: "True or False"}


def _base(kind: Any) -> tuple[type, bool]:
    """What one value of a type is at bottom, and whether there are several: (int, True) of `list[Count] | None`."""
    if kind in _CALLED:
        return kind, False
    inner, of_many = _base(next(part for part in get_args(kind) if part is not type(None)))
    return inner, of_many or get_origin(kind) is list


def _is_a(base: type, value: Any) -> bool:
    if base in (int, float):
        return type(value) in (int, base)
    return isinstance(value, base)


def _limits(kind: Any) -> Iterator[Any]:
    """What is said beside a type, at any depth: of `list[Count] | None` the range of Count."""
    if get_origin(kind) is Annotated:
        yield from kind.__metadata__
    for part in get_args(kind):
        yield from _limits(part)
