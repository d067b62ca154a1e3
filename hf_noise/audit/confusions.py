"""Which classes are taken for which: the confusions that make most wrong labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Confusion", "largest_confusions"]


class Confusion(NamedTuple):
    """Rows truly of one class and labelled as another: class numbers, and their share of all rows."""

    true: int
    given: int
    share: float


def largest_confusions(transition: Any, prior: Any, most: int, least: float = 5e-4) -> list[Confusion]:
    """The most frequent confusions, the largest first; of equal ones the first cell of T.

    Args:
        transition: T [C, C], T[i, j] = p(given = j | true = i); also lists, as a record has them.
        prior: p(true = i), [C].
        most: how many at most.
        least: of all rows, the least share of one that is told.
    """
    wrong = np.asarray(transition, float) * np.asarray(prior, float)[:, None]
    np.fill_diagonal(wrong, -1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    cells = [Confusion(int(at) // len(wrong), int(at) % len(wrong), float(wrong.flat[at])) for at in order]
    return [cell for cell in cells if cell.share >= max(least, 0)]
