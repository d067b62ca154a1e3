"""Clean accuracy of classifiers, judged by labels that are wrong themselves.

Three judges; the first that there is speaks:

1. clean test rows;
2. verified rows of a sample whose chances are known, with the audit's posterior to take chance out of them
   (prediction-powered inference): the interval rests on the draw, whatever the posterior is worth;
3. the given labels of rows that a classifier was not fitted on. Under class-conditional noise with a known T

       E[ T^-1[given, predicted] ] = p(predicted = true)

   so that the mean of T^-1[given, predicted] is unbiased for clean accuracy. T is known as well as the audit knows it:
   the interval spans the audit's interval of the rate, along T(s) = I + s (T - I), with sampling on top.

The audit's posterior alone is no honest judge: it was made of a classifier of the same features, and believes what that
one believes. Where the audit refutes class-conditional noise, the third judge says what always holds: accuracy differs
from agreement with the given labels by what those rows can make of it that matter most, as many as are wrong.

All intervals are of rows that could be drawn like these, so that those of verified rows add to their draw that the rows
they stand for are a sample themselves.

Source: Natarajan et al., "Learning with noisy labels", NeurIPS 2013, and Patrini et al., CVPR 2017 (the backward
correction); Angelopoulos et al., "Prediction-powered inference", Science 382 (2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from hf_noise.audit.powered import Verified
from hf_noise.audit.probe_runs import GAIN
from hf_noise.audit.stratified import powered_share
from hf_noise.metrics.intervals import wilson_interval

__all__ = ["ByGiven", "ByTest", "ByVerified", "Predicted", "Span"]

#: Places between the ends of the rate's interval at which T is tried, and the smallest singular value of a T that is
#: taken back: below it, what is known of T hardly decides anything.
_PLACES, _SINGULAR = 9, 0.05


class Span(NamedTuple):
    """An estimate with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Predicted:
    """First classes of rows, int64 [N], by heads of the large and of the small share of the others.

    What is judged is what a head of all rows would make of them, a little beyond the large share's; `gain` is how far,
    0 where the large share is all.
    """

    large: np.ndarray
    small: np.ndarray
    gain: float = GAIN

    def scored(self, table: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Score [n] of each row, where table[rows, c] is that of predicting class c."""
        of_large = table[rows, self.large]
        return of_large if not self.gain else (1 + self.gain) * of_large - self.gain * table[rows, self.small]


@dataclass(frozen=True, eq=False)
class ByTest:
    """Judged by clean labels, int64 [M], of rows that no head was fitted on; heads are of all rows."""

    labels: np.ndarray

    def accuracy(self, of: Predicted, confidence: float) -> Span:
        right = of.large == self.labels
        return Span(right.mean(), *map(float, wilson_interval(right.sum(), right.size, confidence)))

    def difference(self, of: Predicted, base: Predicted, confidence: float) -> Span:
        apart = (of.large == self.labels).astype(float) - (base.large == self.labels)
        half = _half(apart, confidence)
        return _clipped(apart.mean(), apart.mean() - half, apart.mean() + half, -1)


@dataclass(frozen=True, eq=False)
class ByVerified:
    """Judged by verified rows; `posterior` [N, C] is from before they were."""

    verified: Verified
    posterior: np.ndarray

    def accuracy(self, of: Predicted, confidence: float) -> Span:
        return self._span(*self._scored(of), (-of.gain, 1 + of.gain), confidence, 0)

    def difference(self, of: Predicted, base: Predicted, confidence: float) -> Span:
        (truth, said), (base_truth, base_said) = self._scored(of), self._scored(base)
        most = 1 + of.gain + base.gain
        return self._span(truth - base_truth, said - base_said, (-most, most), confidence, -1)

    def _scored(self, of: Predicted) -> tuple[np.ndarray, np.ndarray]:
        """Score of each verified row by its true class, and what the posterior expects of every row."""
        rows, true = self.verified.rows, self.verified.labels
        at = Predicted(of.large[rows], of.small[rows], of.gain)
        every = np.arange(len(self.posterior))
        return at.scored(np.eye(self.posterior.shape[1]), true), of.scored(self.posterior, every)

    def _span(
        self, truth: np.ndarray, said: np.ndarray, ends: tuple[float, float], confidence: float, least: int
    ) -> Span:
        """`powered_share` of what lies between these ends, as a share of their distance.

        That is of the rows at hand, which are a sample of those that could be drawn: its error is added in quadrature.
        """
        stratum, rows, (first, last) = self.verified.sample.stratum, self.verified.rows, ends
        truth, said = (truth - first) / (last - first), (said - first) / (last - first)
        sizes = self.verified.sample.sizes
        means = np.bincount(stratum, said) / sizes
        found = powered_share(truth, said[rows], means, stratum[rows], sizes, confidence)[:3]
        value, low, high = (first + (last - first) * float(one) for one in found)
        of_rows = _half((last - first) * truth, confidence, 1 / self.verified.sample.probability[rows], len(stratum))
        return _clipped(value, value - np.hypot(value - low, of_rows), value + np.hypot(high - value, of_rows), least)


@dataclass(frozen=True, eq=False)
class ByGiven:
    """Judged by given labels through every T that the audit leaves possible.

    Attributes:
        given: int64 [N].
        inverses: T^-1 [C, C] along the interval of the rate, the audit's own first; empty where T cannot be taken back,
            or the noise is not class-conditional.
        posterior: [N, C], which says where in the interval the value is, where there is no T^-1.
        rate: high end of the error rate.
    """

    given: np.ndarray
    inverses: tuple[np.ndarray, ...]
    posterior: np.ndarray
    rate: float

    @classmethod
    def along(
        cls, given: np.ndarray, transition: np.ndarray, prior: np.ndarray, rate: tuple[float, float],
        posterior: np.ndarray, everything: list[Predicted], confidence: float,
    ) -> ByGiven:  # fmt: skip
        """With the T between both ends of the rate under which no accuracy is beyond 1 by more than sampling."""
        away = transition - np.eye(len(transition))
        own = float(-prior @ np.diagonal(away))
        if own <= 0:  # no noise was found, and if there is some, nothing says where it goes
            away = (1 - np.eye(len(prior))) / (len(prior) - 1) - np.eye(len(prior))
            own = 1.0
            middle = 0.0
        else:
            middle = own
        inverses = []
        for at in (middle, *np.linspace(*rate, _PLACES)):
            tried = np.eye(len(prior)) + at / own * away
            if tried.min() < -1e-9 or np.linalg.svd(tried, compute_uv=False).min() < _SINGULAR:
                return cls(given, (), posterior, rate[1])
            inverses.append(np.linalg.inv(tried))
        possible = [inverses[0], *(inverse for inverse in inverses[1:] if all(
            (scores := of.scored(inverse, given)).mean() - _half(scores, confidence) <= 1 for of in everything))]
        return cls(given, tuple(possible), posterior, rate[1])

    def accuracy(self, of: Predicted, confidence: float) -> Span:
        if self.inverses:
            return self._over([of.scored(inverse, self.given) for inverse in self.inverses], confidence, 0)
        value = of.scored(self.posterior, np.arange(len(self.given))).mean()
        classes = np.eye(self.posterior.shape[1])
        return self._bounded(value, lambda true: of.scored(classes, true), confidence, 0)

    def difference(self, of: Predicted, base: Predicted, confidence: float) -> Span:
        if self.inverses:
            apart = [of.scored(inverse, self.given) - base.scored(inverse, self.given) for inverse in self.inverses]
            return self._over(apart, confidence, -1)
        every, classes = np.arange(len(self.given)), np.eye(self.posterior.shape[1])
        value = (of.scored(self.posterior, every) - base.scored(self.posterior, every)).mean()
        return self._bounded(
            value, lambda true: of.scored(classes, true) - base.scored(classes, true), confidence, -1
        )

    def _bounded(
        self, value: float, scored: Callable[[np.ndarray], np.ndarray], confidence: float, least: int
    ) -> Span:
        """All means that the scores of true classes can have, where a share `rate` of the given ones is wrong."""
        at = scored(self.given)
        low, high = at, at
        for true in range(self.posterior.shape[1]):
            score = scored(np.full_like(self.given, true))
            low, high = np.minimum(low, score), np.maximum(high, score)
        half = _half(at, confidence)
        down, up = _largest(at - low, self.rate), _largest(high - at, self.rate)
        return _clipped(value, at.mean() - down - half, at.mean() + up + half, least)

    @staticmethod
    def _over(scores: list[np.ndarray], confidence: float, least: int) -> Span:
        ends = [(one.mean() - half, one.mean() + half) for one in scores for half in [_half(one, confidence)]]
        return _clipped(scores[0].mean(), min(low for low, _ in ends), max(high for _, high in ends), least)


def _half(
    scores: np.ndarray, confidence: float, weights: np.ndarray | None = None, rows: int | None = None
) -> float:
    """Half an interval of their mean, of normal sums, as if one row at least were as far off as it can be.

    Of scores with weights that of the mean of so many `rows`, which they stand for.
    """
    rows = len(scores) if rows is None else rows
    spread = np.average((scores - np.average(scores, weights=weights)) ** 2, weights=weights)
    return float(-ndtri((1 - confidence) / 2) * np.sqrt(spread / rows + 1 / rows**2))


def _largest(values: np.ndarray, share: float) -> float:
    """Sum of the largest of them, a share of all in [0, 1], by the number of all."""
    down, count = -np.sort(-values), share * len(values)
    whole = int(count)
    return float((down[:whole].sum() + (count - whole) * down[whole : whole + 1].sum()) / len(values))


def _clipped(value: float, low: float, high: float, least: int) -> Span:
    low, high = float(np.clip(low, least, 1)), float(np.clip(high, least, 1))
    return Span(float(np.clip(value, low, high)), low, high)
