"""Rows that are held out for validation and test where a source has no such splits, and what to say where none is.

Which rows is a pure function of the row's number in the source: the same for every noise, rate, seed and epoch, so that
no run is measured on what another one has seen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hf_noise.data.reading import CorpusError
from hf_noise.noise import counter
from hf_noise.noise.checks import check_real

__all__ = ["HeldRows", "MissingSplitError", "check_share", "split_of"]

_SHARES = ("validation", "test")


class MissingSplitError(CorpusError):
    """A source without a split that is needed.

    Attributes:
        split: the one that is not there.
        splits: those that are.
        source: what the source is called.
    """

    def __init__(self, split: str, splits: Collection[str], source: str) -> None:
        self.split, self.splits, self.source = split, tuple(splits), source
        remedy = f"name one with {split}_source=, or hold out a share with {split}_fraction=0.1"
        if split == "train":
            remedy = 'say which of its files are to train on, as in source={"train": ...}'
        super().__init__(f"no {split} split in {source} (splits: {', '.join(splits) or 'none'}): {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        return MissingSplitError, (self.split, self.splits, self.source)


def split_of(splits: Mapping[str, Any], split: str, source: str, *others: str) -> Any:
    """One split of a data set, or the first of some others that is there; MissingSplitError if there is none."""
    for name in (split, *others):
        if name in splits:
            return splits[name]
    raise MissingSplitError(split, splits, source)


def check_share(name: str, share: Any) -> float | None:
    """A share of rows to hold out as a float in [0, 1), None if it is not given; TypeError or ValueError for others."""
    if share is None:
        return None
    share = check_real(name, share)
    if not 0 <= share < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {share!r}; it is the share of the rows that is held out")
    return share


@dataclass(frozen=True)
class HeldRows:
    """Shares of the rows of a train split that are held out.

    Args:
        validation, test: in [0, 1), together below 1; 0 for none.
    """

    stream: ClassVar[int] = 96

    validation: float = 0.0
    test: float = 0.0

    def __post_init__(self) -> None:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation_fraction={self.validation:g} and test_fraction={self.test:g} leave nothing to train on; "
                "together they have to be below 1"
            )

    def __bool__(self) -> bool:
        return bool(self.validation or self.test)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are held out."""
        return tuple(split for split in _SHARES if getattr(self, split))

    def origin(self, split: str) -> str:
        """The split of the source that a split is read from."""
        return "train" if split in self.splits else split

    def rows(self, split: str, ids: np.ndarray) -> np.ndarray | None:
        """Which of the rows with these numbers, int64 [n], are in a split: bool [n], or None for all of them."""
        if not self or self.origin(split) != "train":
            return None
        drawn = counter.units(counter.row_keys(0, self.stream, 0, ids)[:, None], counter.weyl(1))[:, 0]
        # From both ends, so that neither share moves the rows of the other.
        of_test, of_validation = drawn < self.test, drawn >= 1 - self.validation
        return {"test": of_test, "validation": of_validation}.get(split, ~(of_test | of_validation))
