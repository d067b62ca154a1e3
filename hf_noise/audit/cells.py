"""The transition matrix of a data set's labels from verified rows, with an interval for every cell.

A few hundred rows leave most of C (C - 1) kinds of mistake unseen. What is between the classes is therefore taken from
the posterior of all rows, at the error rate that verified rows show in each stratum, and each cell's share is that
times an unknown factor. The factors' spread is fitted to the verified mistakes (a gamma mixture of Poisson counts), and
a wider one that they leave possible is allowed for: where mistakes fall as the posterior says, intervals are short, and
where it is worth little they are wide.

Ends allow for mistakes of which the posterior says nothing. The value does so only in cells in which one was found: of
a class of which no row was looked at, T is what the posterior makes it, and not a share of what is thought possible.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import gammaln
from scipy.stats import gamma

__all__ = ["Cells", "transition_cells"]

#: Part of a stratum's mistakes that may be in any cell, each alike: the posterior rules none out. Of a class of 30 rows
#: that is a large part, so that its ends are wide, and it is not what T says of it.
_ANYWHERE = 0.1
#: Shapes of the factors' gamma distribution that are tried, from a factor of 10 either way to agreement within a tenth.
_SHAPES = np.geomspace(0.05, 100, 64)
#: Shapes of a log likelihood less than this below the best one's (a standard error) are possible as well.
_POSSIBLE = 0.5


class Cells(NamedTuple):
    """T[i, j] = p(given = j | true = i) and its intervals, float64 [C, C] each; rows of `value` sum to 1.

    And the share of rows that are truly of each class, float64 [C], as T and the given labels have it.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    prior: np.ndarray


def transition_cells(
    true: np.ndarray,
    given: np.ndarray,
    stratum: np.ndarray,
    sizes: np.ndarray,
    expected: np.ndarray,
    given_counts: np.ndarray,
    rate: tuple[float, float, float],
    confidence: float = 0.95,
) -> Cells:
    """Estimate T with an interval for each cell.

    Args:
        true, given, stratum: integers [n] of verified rows.
        sizes: integers [H], all rows of each stratum.
        expected: float [H, C, C], rows of stratum h with the given label j that are of class i by the posterior
            (`expected_cells`).
        given_counts: integers [C], rows of each given label.
        rate: share of wrong labels with its interval, as found by `powered_share`.
        confidence: of each cell's interval. It is meant to hold for that share of cells, on average over the cells, if
            factors scatter as a gamma distribution says; of cells that are rare in truth it holds nearly always, and of
            the large ones less often where mistakes are few and all in a few cells. A cell in which no verified row
            fell has the lower end 0.

    Source: Robbins, "An empirical Bayes approach to statistics" (1956), and Morris, "Parametric empirical Bayes
    inference: theory and applications" (JASA 1983), for intervals that hold on average over many like cells.
    """
    classes, total = len(given_counts), sizes.sum()
    if len(true) == total:  # every row was looked at
        joint = np.zeros((classes, classes))
        np.add.at(joint, (true, given), 1)
        known = _of_classes(joint)
        return Cells(known, known, known, joint.sum(1) / total)
    off = ~np.eye(classes, dtype=bool)
    possible, counted = _guesses(true, given, stratum, sizes, expected * off, _ANYWHERE)
    believed, alone = _guesses(true, given, stratum, sizes, expected * off, 0.0)
    found = np.zeros((classes, classes))
    np.add.at(found, (true, given), true != given)
    shape, widest = _fitted_shapes(found[off], counted[off])
    factor, columns = (shape + found) / (shape + counted), given_counts / total
    joint = _joint(np.where(found > 0, possible * factor, believed * shape / (shape + alone)), rate[0], columns)
    prior, value = joint.sum(1), _of_classes(joint)
    middle = _of_classes(_joint(possible * factor, rate[0], columns))
    # The rate's own uncertainty is common to all cells; half its relative width is about two standard deviations.
    common = ((rate[2] - rate[1]) / 4 / rate[0]) ** 2 if rate[0] > 0 else 1.0
    tail = (1 - confidence) / 2
    # A few dozen mistakes hardly tell how far factors scatter: each end is the farther one of both shapes.
    ends = []
    for each in (shape, widest):
        spread = 1 / (1 / (each + found) + common)
        of_shape = middle * ((each + found) / (each + counted) / factor)
        ends.append([gamma.ppf(share, spread) * of_shape / spread for share in (tail, 1 - tail)])
    low, high = np.minimum(ends[0][0], ends[1][0]), np.maximum(ends[0][1], ends[1][1])
    low = np.where(found > 0, low, 0.0)
    # The diagonal: 1 less the sum of a row's mistakes, whose own factor is fitted in the same way.
    by_class, mistakes = found.sum(1), (middle * off).sum(1)
    row_shape = _fitted_shapes(by_class, (counted * off).sum(1))[0]
    spread = 1 / (1 / (row_shape + by_class) + common)
    few, many = (gamma.ppf(share, spread) * mistakes / spread for share in (tail, 1 - tail))
    few = np.where(by_class > 0, few, 0.0)
    low, high = (np.where(off, ends, 1 - of_row[:, None]) for ends, of_row in ((low, many), (high, few)))
    value = value if rate[0] > 0 else np.eye(classes)
    return Cells(value, np.clip(np.minimum(low, value), 0, 1), np.clip(np.maximum(high, value), 0, 1), prior)


def expected_cells(posterior: np.ndarray, given: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """Sums of the posterior [N, C] over rows of each stratum and given label, float64 [H, C, C] as [h, true, given]."""
    strata, classes = stratum.max() + 1, posterior.shape[1]
    group = stratum * classes + given
    sums = [np.bincount(group, posterior[:, i], minlength=strata * classes) for i in range(classes)]
    return np.stack(sums).reshape(classes, strata, classes).swapaxes(0, 1)


def _joint(wrong: np.ndarray, rate: float, columns: np.ndarray) -> np.ndarray:
    """Shares of all rows [true, given], of mistakes that sum to the rate and shares of given labels."""
    if rate > 0:  # else no wrong row was found, and intervals reach to what one more row might have shown
        wrong = wrong * (rate / max(wrong.sum(), 1e-300))
    # A row's right ones are what is left of its given label; mistakes cannot be more than all rows of it.
    wrong = wrong * np.minimum(1, columns / np.maximum(wrong.sum(0), 1e-300))
    return wrong + np.diag(columns - wrong.sum(0))


def _of_classes(joint: np.ndarray) -> np.ndarray:
    """Each row by its sum; the unit row where there is nothing."""
    total = joint.sum(1, keepdims=True)
    return np.where(total > 0, joint / np.where(total > 0, total, 1), np.eye(len(joint)))


def _guesses(true, given, stratum, sizes, expected, anywhere: float) -> tuple[np.ndarray, np.ndarray]:
    """Each cell's share of all rows before its own factor, and how many verified rows it lets one expect.

    A part `anywhere` of the mistakes is spread evenly over all cells.
    """
    strata, classes = len(sizes), expected.shape[1]
    n, wrong = (np.bincount(stratum, weight, strata) for weight in (None, true != given))
    mistakes = expected.sum((1, 2))
    # As if one more row had been looked at, which is as wrong as the posterior says.
    rate = (wrong + np.clip(mistakes / sizes, 1e-6, 1)) / (n + 1)
    even = (1 - np.eye(classes)) / (classes * (classes - 1))
    shape = (1 - anywhere) * expected / np.maximum(mistakes, 1e-300)[:, None, None] + anywhere * even
    weights = np.stack([rate * sizes / sizes.sum(), rate * n])
    return tuple(np.tensordot(weights, shape, 1))


def _fitted_shapes(found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Shape of the factors' gamma distribution, of mean 1, under which the counts are likeliest; near 1 if few.

    And the smallest one, of the widest factors, that is possible as well.
    """
    shape = _SHAPES[:, None]
    expected = np.maximum(expected, 1e-12)
    likelihood = (
        gammaln(found + shape) - gammaln(shape) + shape * np.log(shape / (shape + expected))
        + found * np.log(expected / (shape + expected))
    ).sum(1) - 0.1 * np.log(_SHAPES) ** 2  # fmt: skip
    best = int(np.argmax(likelihood))
    return float(_SHAPES[best]), float(_SHAPES[np.argmax(likelihood > likelihood[best] - _POSSIBLE)])
