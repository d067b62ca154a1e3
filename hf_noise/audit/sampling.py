"""Which rows a person should look at: a stratified random sample, in which every row has a known chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_noise.audit.checks import shares
from hf_noise.metrics.checks import as_array
from hf_noise.metrics.labels import class_indices
from hf_noise.noise.checks import check_integer, check_seed
from hf_noise.noise.counter import row_keys

__all__ = ["Sample", "draw_sample"]

_TIES, _ORDER, _START = 176, 177, 178  # streams of the counter
#: One stratum for 25 rows past the first 50: of fewer rows, the spread within a stratum is hardly known.
_SHARE, _FIRST, _MOST_STRATA = 25, 50, 20
#: Added to p (1 - p) before the root: rows that the audit calls clean keep at least a third of the chance of the most
#: doubtful ones, since what it is sure of may be wrong, and only a look tells.
_FLOOR = 0.04


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows to verify, and how they were drawn.

    Attributes:
        rows: int64 [n], row numbers in the order in which to look at them: where one stops early, what was looked at is
            a sample of the same kind.
        stratum: int64 [N] of every row of the data, 0 .. H - 1; rows that the audit trusts come first.
        probability: float64 [N], each row's chance to be in the sample, > 0; its inverse is the weight of a drawn row.
        seed: of the draw.
    """

    rows: np.ndarray
    stratum: np.ndarray
    probability: np.ndarray
    seed: int

    @property
    def sizes(self) -> np.ndarray:
        """Rows of the data in each stratum, int64 [H]."""
        return np.bincount(self.stratum)

    def __len__(self) -> int:
        return len(self.rows)


def draw_sample(p_wrong: Any, n: int, *, given: Any = None, sample_ids: Any = None, seed: int = 0) -> Sample:
    """Draw n rows to verify, more of them where the audit is in doubt.

    Rows are sorted by `p_wrong` and cut into strata of equal sum of sqrt(p (1 - p) + 0.04), one for 25 rows past the
    first 50 and at most 20; each gets the same number of rows, which is Neyman's allocation with a floor. Within a
    stratum the rows of each given class are drawn in proportion (a systematic draw with a random start from rows in
    random order, sorted by class), so that no class is forgotten. Every row of a stratum has the same chance, exactly
    n_h / N_h.

    Args:
        p_wrong: float [N] in [0, 1], the audit's probability that a row's label is wrong. It decides how much a look
            teaches, never whether what is concluded from it holds.
        n: how many rows, 2 <= n <= N.
        given: given class of each row, integers [N] >= 0; by default classes play no part.
        sample_ids: integers [N], each row's own; by default 0 .. N - 1. The draw depends on these and not on the order
            of the rows.
        seed: of the draw, in [0, 2^63).

    Returns:
        A `Sample`.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: lengths differ, p_wrong lies outside [0, 1] or holds NaN, ids occur twice, or n is not in [2, N].

    >>> sample = draw_sample([0.01, 0.02, 0.5, 0.9, 0.97], 2)
    >>> len(sample), sample.probability.tolist()
    (2, [0.4, 0.4, 0.4, 0.4, 0.4])
    """
    return frame(p_wrong, n, given=given, sample_ids=sample_ids).draw(seed)


@dataclass(frozen=True, eq=False)
class Frame:
    """All that a draw needs besides its seed.

    Attributes:
        ids: int64 [N].
        classes: int64 [N], of the given labels.
        stratum: int64 [N].
        sizes, drawn: int64 [H], rows of each stratum in the data and in a sample.
    """

    ids: np.ndarray
    classes: np.ndarray
    stratum: np.ndarray
    sizes: np.ndarray
    drawn: np.ndarray

    def draw(self, seed: int) -> Sample:
        seed = check_seed(seed)
        # Rows of a class within a stratum stand together, in random order: one sort of words that begin with the group.
        groups = self.stratum * (self.classes.max() + 1) + self.classes
        bits = np.uint64(int(groups.max()).bit_length())
        words = row_keys(seed, _ORDER, 0, self.ids) >> bits
        if bits:
            words |= groups.astype(np.uint64) << (np.uint64(64) - bits)
        rows = np.argsort(words, kind="stable")[self._places(seed)]
        # Then all strata in turn: each row at (its number in a random order of its stratum + 1/2) / n_h.
        rows = rows[np.lexsort((row_keys(seed, _ORDER, 1, self.ids[rows]), self.stratum[rows]))]
        turn = np.concatenate([(np.arange(m) + 0.5) / m for m in self.drawn])
        rows = rows[np.lexsort((row_keys(seed, _ORDER, 2, self.ids[rows]), turn))]
        return Sample(rows, self.stratum, (self.drawn / self.sizes)[self.stratum], seed)

    def _places(self, seed: int) -> np.ndarray:
        """Places [n] in rows that are sorted by stratum: n_h of each N_h, evenly apart, from a random start.

        floor((k N_h + r) / n_h) with an integer r in [0, N_h): of the n_h N_h pairs (k, r) exactly n_h lead to each
        place, so that each has the chance n_h / N_h.
        """
        starts = row_keys(seed, _START, 0, np.arange(len(self.sizes))) % self.sizes.astype(np.uint64)
        begins = np.cumsum(self.sizes) - self.sizes
        each = zip(begins, self.sizes, self.drawn, starts.astype(np.int64))
        return np.concatenate([begin + (np.arange(m) * size + start) // m for begin, size, m, start in each])


def frame(p_wrong: Any, n: int, *, given: Any = None, sample_ids: Any = None) -> Frame:
    """What `draw_sample` draws from, for many draws; its arguments and errors."""
    p_wrong = shares("p_wrong", p_wrong)
    n, ids = check_sample_size(n, len(p_wrong)), _ids(sample_ids, len(p_wrong))
    classes = np.zeros(len(ids), np.int64) if given is None else class_indices("given", given, None)
    if len(classes) != len(ids):
        raise ValueError(f"given has {len(classes)} classes, and p_wrong {len(ids)} rows")
    classes = np.unique(classes, return_inverse=True)[1]
    stratum, drawn = _strata(p_wrong, ids, n)
    return Frame(ids, classes, stratum, np.bincount(stratum), drawn)


def check_sample_size(n: Any, rows: int) -> int:
    """`n` as an int, or an error unless 2 <= n <= rows."""
    number = check_integer("n", n)
    if not 2 <= number <= rows:
        raise ValueError(f"n must lie in [2, {rows}], got {number}; it counts rows to verify of those in p_wrong")
    return number


def _ids(sample_ids: Any, rows: int) -> np.ndarray:
    if sample_ids is None:
        return np.arange(rows)
    ids = as_array("sample_ids", sample_ids)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"sample_ids must be integers, got {ids.dtype}")
    if ids.shape != (rows,):
        raise ValueError(f"sample_ids must have the shape [{rows}] of p_wrong, got {list(ids.shape)}")
    if ids.dtype.kind == "u" and ids.max() > np.iinfo(np.int64).max:
        raise ValueError(f"sample_ids must be < 2^63, got {ids.max()}")
    ids = ids.astype(np.int64)
    kinds, counts = np.unique(ids, return_counts=True)
    if len(kinds) < rows:
        raise ValueError(f"sample_ids must differ, {kinds[counts.argmax()]} occurs {counts.max()} times")
    return ids


def _strata(p_wrong: np.ndarray, ids: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Stratum of every row, and how many to draw of each."""
    number = min(max((n - _FIRST) // _SHARE, 1), _MOST_STRATA)
    order = np.lexsort((row_keys(0, _TIES, 0, ids), p_wrong))
    spread = np.sqrt(p_wrong[order] * (1 - p_wrong[order]) + _FLOOR)
    # The middle of each row's own part: no rounding moves the last row past the last stratum.
    middle = (np.cumsum(spread) - spread / 2) / spread.sum()
    stratum = np.empty(len(ids), np.int64)
    stratum[order] = np.unique(np.minimum((middle * number).astype(np.int64), number - 1), return_inverse=True)[1]
    return stratum, _allocated(np.bincount(stratum), n)


def _allocated(sizes: np.ndarray, n: int) -> np.ndarray:
    """n in equal parts, none larger than its stratum, whose rest goes to the others; len(sizes) <= n <= sum."""
    drawn = np.zeros(len(sizes), np.int64)
    while left := n - drawn.sum():
        open_ = np.flatnonzero(drawn < sizes)
        part = np.full(len(open_), left // len(open_))
        part[: left % len(open_)] += 1
        drawn[open_] = np.minimum(drawn[open_] + part, sizes[open_])
    return drawn
