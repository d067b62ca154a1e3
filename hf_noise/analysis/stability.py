"""How much the loss of a fixed model scatters between macro-batches, against their size (paper A, table 5).

A macro-batch is all that one optimiser step sees: micro-batch x accumulation x devices. Of B rows that have nothing to
do with each other, the mean loss has the variance of one row's loss over B, so that its standard deviation falls with
the exponent -1/2. Rows that resemble their neighbours, as in one document, average out less: the exponent is above
-1/2, or the spread above that of as many independent rows. A lower spread of a noisier model is no sign of stability:
targets that are drawn at random cost about the same in every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import fdtrc

from hf_noise.analysis.checks import integers_in
from hf_noise.noise.arrays import real_numbers
from hf_noise.noise.checks import check_choice, check_count, check_epoch, check_real, check_seed

__all__ = ["INDEPENDENT", "ORDERS", "Exponent", "MacroBatchLosses", "macro_batch_losses"]

#: The exponent of rows that have nothing to do with each other.
INDEPENDENT = -0.5
ORDERS = ("shuffled", "stored")
#: Macro-batches below which their spread says little of its own size.
FEWEST = 10
_FEWEST_RESAMPLES = 100
# Share of the largest loss below which a spread is rounding.
_ROUNDING = 1e-12
_AT_ONCE = 1 << 20  # losses that a bootstrap holds
_LARGEST = 1e100


@dataclass(frozen=True)
class Exponent:
    """The slope of log(standard deviation) against log(size), by least squares, with its bootstrap interval.

    An end is infinite where too many resamples had no spread at all, as those of a loss that hardly ever differs.
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95

    @property
    def agrees(self) -> bool:
        """Whether the interval holds the -1/2 of independence."""
        return self.low <= INDEPENDENT <= self.high


@dataclass(frozen=True, eq=False)
class MacroBatchLosses:
    """Losses of K macro-batches of each of S sizes.

    Attributes:
        sizes: rows per macro-batch, int64 [S].
        losses: mean loss of each macro-batch, over all of its units, float64 [S, K].
        row_std: standard deviation of one row's contribution: what independent rows would make sqrt(size) times less.
        rows_read: rows that were looked at, those of all sizes together.
        passes: how often the data were begun; each pass has noise of its own.
        order: "shuffled" or "stored".
    """

    sizes: np.ndarray
    losses: np.ndarray = field(repr=False)
    row_std: float
    rows_read: int
    passes: int
    order: str

    @property
    def mean(self) -> np.ndarray:
        """Over the macro-batches of each size, float64 [S]."""
        return self.losses.mean(axis=1)

    @property
    def std(self) -> np.ndarray:
        """Over the macro-batches of each size, K - 1 in the denominator, float64 [S]."""
        return self.losses.std(axis=1, ddof=1)

    @property
    def worth(self) -> np.ndarray:
        """Independent rows that a macro-batch of each size averages like, float64 [S]; inf where there is no spread."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.std > 0, (self.row_std / self.std) ** 2, np.inf)

    def exponent(self, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Exponent:
        """How the standard deviation falls with the size, with a percentile bootstrap over the macro-batches.

        The macro-batches of every size are drawn anew with replacement, as if they were independent.

        Args:
            confidence: of the interval, in (0, 1).
            resamples: of the bootstrap, in [100, 2^16].
            seed: of the bootstrap.

        Raises:
            TypeError: a setting is no number.
            ValueError: there is one size alone, or the losses of a size are all equal; or a setting is out of range.
        """
        confidence = check_real("confidence", confidence)
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}; 0.95 is usual")
        resamples = check_count("resamples", resamples, _FEWEST_RESAMPLES, 16, "1000 and more are usual")
        draw, std = np.random.default_rng(check_seed(seed)), self.std
        if len(self.sizes) < 2:
            raise ValueError(f"sizes holds {self.sizes[0]} alone; an exponent takes macro-batches of two sizes or more")
        floor = _ROUNDING * np.abs(self.losses).max()
        if (std <= floor).any():
            raise ValueError(f"losses of macro-batches of {self.sizes[std <= floor][0]} rows do not differ, so that "
                             "their spread has no exponent")  # fmt: skip
        x = np.log(self.sizes) - np.log(self.sizes).mean()
        weights = x / (x @ x)
        slopes = np.zeros(resamples)
        for weight, losses in zip(weights, self.losses):
            slopes += weight * _log(_resampled_std(losses, resamples, draw), floor)
        tail = (1 - confidence) / 2
        low = np.quantile(np.nan_to_num(slopes, nan=-np.inf), tail, method="lower")
        high = np.quantile(np.nan_to_num(slopes, nan=np.inf), 1 - tail, method="higher")
        return Exponent(float(weights @ np.log(std)), float(low), float(high), confidence)

    def same_mean_p(self) -> float:
        """p of all sizes having one mean loss, by Welch's F of their means; small where the mean moves with size.

        1.0 of one size, and where no size has any spread. Sizes without any beside others that have some are left out.

        Source: Welch, "On the comparison of several mean values" (Biometrika, 1951).
        """
        n = self.losses.shape[1]
        variance = self.std**2 / n
        kept = variance > (_ROUNDING * np.abs(self.losses).max()) ** 2
        if (k := int(kept.sum())) < 2:
            return 1.0
        weights, mean = 1 / variance[kept], self.mean[kept]
        between = float((weights * (mean - np.average(mean, weights=weights)) ** 2).sum()) / (k - 1)
        uncertain = float(((1 - weights / weights.sum()) ** 2).sum()) / (n - 1)
        statistic = between / (1 + 2 * (k - 2) / (k * k - 1) * uncertain)
        return float(fdtrc(k - 1, (k * k - 1) / (3 * uncertain), statistic))


def macro_batch_losses(
    row_losses: Any,
    sizes: Any,
    *,
    num_rows: int | None = None,
    num_batches: int = 200,
    order: str = "shuffled",
    seed: int = 0,
    epoch: int = 0,
    batch_size: int = 32,
) -> MacroBatchLosses:
    """Mean losses of `num_batches` macro-batches of each size, of a model that stays as it is.

    Rows come as they come in training: one pass over the data after the other, each with noise of its own. The stream
    is cut into macro-batches of the first size, then of the next, so that no row stands twice in one pass. Held are the
    order of a pass and the sums of each macro-batch, never the rows.

    Where nothing redraws the losses, macro-batches of B among N rows scatter less by up to sqrt(1 - B / N), because a
    pass is shared out whole.

    Args:
        row_losses: `row_losses(rows, epoch)`, with rows int64 [b] in [0, num_rows) and the epoch whose noise they have,
            returns losses [b], or sums of losses [b] and the number of units (tokens, say) behind each [b]; for causal
            language models see `hf_noise.trainers.row_losses.RowLosses`. Or losses [N] that nothing redraws.
        sizes: rows per macro-batch, integers [S] that rise, each in [1, num_rows].
        num_rows: N >= 2 of the data; by default `len(row_losses)`.
        num_batches: macro-batches of each size, in [10, 2^16].
        order: "shuffled", another order in every pass; or "stored", as the rows lie, neighbours together.
        seed: of the orders.
        epoch: of the first pass; each further one adds 1. Take one that training did not reach, to see fresh noise.
        batch_size: rows per call, in [1, 2^31]; what is returned does not depend on it.

    Raises:
        TypeError: `row_losses` is neither numbers nor callable; sizes are no integers; a setting is of another type.
        ValueError: a setting is out of its range; losses are NaN or infinite, or of another shape than the rows; a
            macro-batch has no unit at all.

    Source: paper A, table 5.

    >>> losses = np.random.default_rng(0).normal(2.8, 0.4, 50_000)
    >>> found = macro_batch_losses(losses, [4, 8, 16, 32])
    >>> exponent = found.exponent()
    >>> round(exponent.value, 2), exponent.agrees
    (-0.54, True)
    """
    look, num_rows = _source(row_losses, num_rows)
    sizes = _sizes(sizes, num_rows)
    num_batches = check_count("num_batches", num_batches, FEWEST, 16, "of fewer the spread says little; 200 are usual")
    order = check_choice("order", order, ORDERS)
    seed, epoch = check_seed(seed), check_epoch(epoch)
    batch_size = check_count("batch_size", batch_size, 1, 31)
    stops = np.cumsum(np.repeat(sizes, num_batches))  # where each macro-batch ends in the stream
    sums, units = np.zeros(len(stops)), np.zeros(len(stops))
    spread = _Spread()
    for start, rows, number in _stream(int(stops[-1]), num_rows, order, seed, batch_size):
        loss, count = _looked_at(look, rows, check_epoch(epoch + number))
        batch = np.searchsorted(stops, np.arange(start, start + len(rows)), side="right")
        # One row after the other, so that sums do not depend on how many come at once.
        np.add.at(sums, batch, loss)
        np.add.at(units, batch, count)
        spread.add(loss, count)
    if not units.all():
        size = np.repeat(sizes, num_batches)[units == 0][0]
        raise ValueError(f"row_losses gave no unit in all of a macro-batch of {size} rows; leave out rows without a "
                         "target")  # fmt: skip
    losses = (sums / units).reshape(len(sizes), num_batches)
    passes = -(-int(stops[-1]) // num_rows)
    return MacroBatchLosses(sizes, losses, spread.std(), int(stops[-1]), passes, order)


def _source(row_losses: Any, num_rows: Any) -> tuple[Callable[[np.ndarray, int], Any], int]:
    """What gives the losses of rows, and how many rows there are."""
    if num_rows is not None:
        num_rows = check_count("num_rows", num_rows, 2, 40)
    if callable(row_losses):
        if num_rows is None and not hasattr(row_losses, "__len__"):
            raise ValueError("num_rows is missing: how many rows there are, which row_losses does not say itself")
        return row_losses, num_rows or check_count("the number of rows of row_losses", len(row_losses), 2, 40)
    losses = real_numbers("row_losses", row_losses)
    if losses.ndim != 1 or len(losses) < 2:
        raise ValueError(f"row_losses must be losses [N] of two rows at least, or a function, got shape "
                         f"{list(losses.shape)}")  # fmt: skip
    if num_rows not in (None, len(losses)):
        raise ValueError(f"num_rows is {num_rows}, and row_losses has {len(losses)} of them; leave it out")
    return lambda rows, epoch: losses[rows], len(losses)


def _sizes(sizes: Any, num_rows: int) -> np.ndarray:
    told = f"there are {num_rows} rows, and none stands twice in a macro-batch"
    found = np.atleast_1d(integers_in("sizes", sizes, 1, num_rows, remedy=told)).astype(np.int64)
    if found.ndim != 1 or not found.size or (np.diff(found) <= 0).any():
        raise ValueError(f"sizes must be integers [S] that rise, got {found.tolist()!r:.80}")
    return found


def _stream(total: int, num_rows: int, order: str, seed: int, batch_size: int) -> Iterator[tuple[int, np.ndarray, int]]:
    """Place in the stream, numbers of rows, and the pass that they belong to, up to `batch_size` rows at a time."""
    for number, first in enumerate(range(0, total, num_rows)):
        shuffled = np.random.default_rng([seed, number]).permutation(num_rows) if order == "shuffled" else None
        end = min(num_rows, total - first)
        for start in range(0, end, batch_size):
            places = np.arange(start, min(start + batch_size, end))
            yield first + start, places if shuffled is None else shuffled[places], number


def _looked_at(look: Callable[[np.ndarray, int], Any], rows: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of losses and numbers of units of some rows, float64 [b] each."""
    found = look(rows, epoch)
    sums, units = found if isinstance(found, tuple) and len(found) == 2 else (found, np.ones(len(rows)))
    sums, units = real_numbers("what row_losses returned", sums), real_numbers("the units of row_losses", units)
    if sums.shape != rows.shape or units.shape != rows.shape:
        raise ValueError(f"row_losses must return losses [b], or sums [b] and units [b], of {len(rows)} rows, got "
                         f"shapes {list(sums.shape)} and {list(units.shape)}")  # fmt: skip
    is_bad = ~((np.abs(sums) <= _LARGEST) & (units >= 0) & (units <= _LARGEST))
    if is_bad.any():
        at = int(is_bad.argmax())
        raise ValueError(f"row_losses gave {sums[at]} for {units[at]:g} units of row {rows[at]}; losses are finite and "
                         "units are counted from 0 on")  # fmt: skip
    return sums, units


class _Spread:
    """The spread of single rows, from sums that are taken one row after the other."""

    def __init__(self) -> None:
        self.sums, self.near = np.zeros(6), None

    def add(self, loss: np.ndarray, units: np.ndarray) -> None:
        if self.near is None:  # a loss near which deviations are small, so that their squares can be added
            self.near = loss[0] / units[0] if units[0] else 0.0
        off = loss - self.near * units
        terms = np.stack([np.ones_like(off), units, off, off * off, off * units, units * units])
        for at, term in enumerate(terms):
            np.add.at(self.sums, np.full(term.shape, at), term)

    def std(self) -> float:
        """sqrt of the variance of (loss - mean units) / (mean units), which is that of the loss if units are equal."""
        rows, units, off, off2, both, units2 = self.sums
        shift = off / units
        square = max(off2 - 2 * shift * both + shift * shift * units2, 0.0)
        return float(np.sqrt(square / (rows - 1)) / (units / rows))


def _resampled_std(losses: np.ndarray, resamples: int, draw: np.random.Generator) -> np.ndarray:
    """Standard deviations [R] of losses [K] drawn anew."""
    n, centred = len(losses), losses - losses.mean()
    step = max(1, _AT_ONCE // n)
    counts = [min(step, resamples - start) for start in range(0, resamples, step)]
    return np.concatenate([centred[draw.integers(n, size=(count, n))].std(axis=1, ddof=1) for count in counts])


def _log(std: np.ndarray, floor: float) -> np.ndarray:
    """Logarithms; NaN where there is no spread but rounding."""
    return np.where(std > floor, np.log(np.maximum(std, np.finfo(float).tiny)), np.nan)
