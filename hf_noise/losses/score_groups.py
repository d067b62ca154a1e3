"""Two groups of rows by a score that is a mean over tokens: fitted to all rows of a trained model and their lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hf_noise.losses.checks import check_real

__all__ = ["ScoreGroups", "score_groups"]

#: Degrees of freedom: of short rows a few lie so far out that normals would take them for a group.
_DEGREES = 5.0
#: Two groups leave a valley between them, this much lower than the lower of the two hills at least; a single group that
#: is skewed or has heavy tails is fitted by two as well, and there is none.
_VALLEY = 0.05
#: Of fewer rows nothing is told: two lines and a scale are fitted to any few points.
_FEWEST = 50
#: With fewer rows both means are the same at all lengths.
_FEWEST_FOR_SLOPES = 200
#: What odds begin with where two groups cannot be told apart: rows keep their order, and each is held for clean.
_NONE = 1e-9
#: Each group has a scale of its own where the valley is so deep, or where that explains so much more, in nats a row, as
#: of identical texts among others. Else it would rather take the other's rows: of groups that overlap a second scale
#: explained 0.00 to 0.02, and moved shares by 0.05 to 0.14.
_APART, _PLAINLY = 0.9, 0.03
#: Rows of much the same length say nothing of a slope: least squares adds so much to the variance of log n.
_AGAINST_SLOPES = 0.005
#: By how much the squared scale of a group may differ from the other's.
_RATIO = 100.0
#: Shares that a fit sets out from; of two writers nobody knows whose rows are more.
_STARTS = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
_ROUNDS, _TOLERANCE = 300, 1e-7
#: Rows that a fit looks at; more change its parameters by less than they mean.
_ROWS = 100_000
#: A group is no narrower than this, in nats: below, rounding would tell rows apart.
_NARROWEST = 0.02


@dataclass(frozen=True)
class ScoreGroups:
    """Two groups of scores s of rows with n tokens, each Student's t with 5 degrees of freedom around a line in log n.

    Attributes:
        share: of the upper group in (0, 1); 1e-9 where the groups cannot be told apart, so that rows keep their order.
        low, high: the two means for a row of `length` tokens, in nats per token.
        slopes: of the two means, per unit of log n.
        length: tokens, the geometric mean of the rows'.
        of_rows, of_tokens: rows of n tokens have the squared scale of_rows + of_tokens / n, times that of their group.
        scales: of the lower and the upper group, both 1 unless these stand plainly apart.
        doubt: why two groups cannot be told apart; None where they can.
    """

    share: float
    low: float
    high: float
    slopes: tuple[float, float]
    length: float
    of_rows: float
    of_tokens: float
    scales: tuple[float, float] = (1.0, 1.0)
    doubt: str | None = None

    def log_odds(self, scores: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Log-odds float64 [N] that rows are of the upper group, for a length never falling as scores rise.

        Far out, where t would call a row of either group, they stay as they are at their highest and lowest; at a
        length for which the upper mean is not above the lower, they are what the share says.
        """
        low, high = self._means(lengths)
        root = np.sqrt(self._scale(lengths))
        apart = np.maximum(high - low, 0) / root
        offset = np.clip((scores - low) / root, *self._turns(apart))
        return math.log(self.share) - math.log1p(-self.share) + self._ratio(offset, apart)

    def _ratio(self, offset: np.ndarray, apart: np.ndarray) -> np.ndarray:
        """Logarithm of the ratio of the densities, the upper one's above, in scales from the lower mean."""
        of_low, of_high = self.scales
        upper, lower = _log_density((offset - apart) ** 2 / of_high), _log_density(offset**2 / of_low)
        return upper - lower - math.log(of_high / of_low) / 2

    def _turns(self, apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Between which offsets from the lower mean the ratio rises, for means that are `apart` scales from each other.

        Found on a grid, as it is a cubic's for two scales, and a step of it within.
        """
        known = np.linspace(apart.min(), apart.max() + 1e-9, 65)
        along, step = np.linspace(-10, known[-1] + 10, 2001, retstep=True)
        ratio = self._ratio(along[:, None], known)
        first = along[np.where(along[:, None] <= known, ratio, math.inf).argmin(0)]
        last = along[np.where(along[:, None] >= 0, ratio, -math.inf).argmax(0)]
        return np.interp(apart, known, first) + step, np.interp(apart, known, last) - step

    @property
    def separation(self) -> float:
        """How far apart the means are, in scales of a row of `length` tokens."""
        return (self.high - self.low) / math.sqrt(self._scale(self.length))

    @property
    def valley(self) -> float:
        """How much lower the density is somewhere between the means than on the lower hill, in [0, 1).

        Of rows of `length` tokens; 0 where there is one hill.
        """
        along, scale = np.linspace(self.low, self.high, 201), self._scale(self.length)
        parts = zip((1 - self.share, self.share), (self.low, self.high), self.scales)
        density = sum(part * np.exp(_log_density((along - mean) ** 2 / (scale * own))) / math.sqrt(own)
                      for part, mean, own in parts)  # fmt: skip
        lowest = int(density.argmin())
        return 1 - float(density[lowest] / min(density[: lowest + 1].max(), density[lowest:].max()))

    def _scale(self, lengths: np.ndarray | float) -> Any:
        return self.of_rows + self.of_tokens / lengths

    def _means(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        beyond = np.log(lengths / self.length)
        return self.low + self.slopes[0] * beyond, self.high + self.slopes[1] * beyond


def score_groups(scores: np.ndarray, lengths: np.ndarray, share: float | None = None) -> ScoreGroups:
    """Fit two groups to the scores of all rows by EM from several starts; of those the likeliest.

    Scores of short rows scatter more, and some lie far out: so the groups know of lengths and have heavy tails. Both
    have one scale, unless they stand plainly apart. So the share is what it says where either writer's scores
    make one hill, of much the same width if they overlap, and no more skewed than t; rows of one writer that are of two
    kinds look like two writers.

    Where the share is not known, nothing is told apart if a second group explains too little (BIC), or if there is no
    valley between the two, of one scale or of two: a single skewed group is fitted by two as well. That says neither
    that there is one writer, nor that there are two.

    Args:
        scores: [N] finite, each a mean over the tokens of its row, in nats.
        lengths: [N] >= 1, how many tokens; a row without one has no score: leave it out.
        share: of the upper group where it is known, in (0, 1), and there are two groups then; None fits it.

    Raises:
        ValueError: no rows, shapes that do not agree, a score that is not finite, a length below 1, or a share out of
            its range.

    Source: EM for t of Peel and McLachlan, Statistics and Computing 2000; Schwarz 1978 for the number of groups.
    """
    scores, lengths = np.asarray(scores, dtype=np.float64), np.asarray(lengths, dtype=np.float64)
    if scores.ndim != 1 or scores.shape != lengths.shape or not len(scores):
        raise ValueError(f"scores and lengths must be [N] of at least one row, got {list(scores.shape)} and "
                         f"{list(lengths.shape)}")  # fmt: skip
    if not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite, got {scores[~np.isfinite(scores)][0]}")
    if not (lengths.min() >= 1 and np.isfinite(lengths).all()):
        raise ValueError(f"lengths must be finite and at least 1, got {lengths.min():g}; a row without a token has no "
                         "score")  # fmt: skip
    if share is not None:
        share = check_real("share", share, "(0, 1)", "it is that of the upper group")
    if len(scores) > _ROWS:
        chosen = np.random.default_rng(0).choice(len(scores), _ROWS, replace=False)
        scores, lengths = scores[chosen], lengths[chosen]
    likelihood, of_one_scale = _best(scores, lengths, share, has_own=False)
    of_two, of_two_scales = _best(scores, lengths, share, has_own=True)
    is_plain = min(of_one_scale.valley, of_two_scales.valley) > _APART or of_two - likelihood > _PLAINLY
    found = of_two_scales if is_plain else of_one_scale
    doubt = _doubt(scores, lengths, likelihood, (of_one_scale, of_two_scales), share)
    return found if doubt is None else replace(found, share=_NONE, doubt=doubt)


def _best(
    scores: np.ndarray, lengths: np.ndarray, share: float | None, *, has_own: bool
) -> tuple[float, ScoreGroups]:
    starts = _STARTS if share is None else (share,)
    return max((_fit(scores, lengths, start, share, has_own) for start in starts), key=lambda fit: fit[0])


def _doubt(
    scores: np.ndarray, lengths: np.ndarray, likelihood: float, found: Sequence[ScoreGroups], share: float | None
) -> str | None:
    """Why two groups cannot be told apart, in words that follow on "two groups cannot be told apart:"."""
    if len(scores) < _FEWEST:
        return f"{len(scores)} rows are too few, it takes {_FEWEST}"
    if not found[0].high > found[0].low:
        return "the rows that should be the other writer's have no higher scores"
    if share is not None:
        return None
    alone, _ = _fit(scores, lengths, 0.0, 0.0, has_own=False)
    if len(scores) * (likelihood - alone) < 1.5 * math.log(len(scores)):  # three numbers more
        return "a second one explains no more of the scores than chance would"
    if min(groups.valley for groups in found) < _VALLEY:
        return "the scores make one hill, of one writer or of two whose rows are too much alike"
    return None


def _fit(
    scores: np.ndarray, lengths: np.ndarray, start: float, share: float | None, has_own: bool
) -> tuple[float, ScoreGroups]:
    """Mean log-likelihood in nats, and the groups, from quantiles that go with a share of the upper one."""
    length = math.exp(np.log(lengths).mean())
    beyond = np.log(lengths / length) if len(scores) >= _FEWEST_FOR_SLOPES else np.zeros(len(scores))
    of_upper, before = start, -math.inf
    lines = [(float(level), 0.0) for level in np.quantile(scores, [(1 - start) / 2, 1 - start / 2])]
    spread = max(np.var(np.clip(scores, *np.quantile(scores, [0.05, 0.95]))) / 2, _NARROWEST**2)
    of_rows, of_tokens, own = spread / 2, spread * length / 2, (1.0, 1.0)
    for _ in range(_ROUNDS):
        scale = of_rows + of_tokens / lengths
        deviations = [(scores - level - slope * beyond) ** 2 / (scale * k) for (level, slope), k in zip(lines, own)]
        with np.errstate(divide="ignore"):
            logs = [np.log(part) + _log_density(squares) - np.log(scale * k) / 2
                    for part, squares, k in zip((1 - of_upper, of_upper), deviations, own)]  # fmt: skip
        whole = np.logaddexp(*logs)
        likelihood = float(whole.mean())
        if likelihood - before < _TOLERANCE:
            break
        before = likelihood
        posteriors = [np.exp(log - whole) for log in logs]
        if share is None:
            of_upper = float(np.clip(posteriors[1].mean(), 1e-6, 1 - 1e-6))
        # A row far out of both groups counts little: that makes the tails of t.
        weights = [p * (_DEGREES + 1) / (_DEGREES + squares) for p, squares in zip(posteriors, deviations)]
        lines = [_line(scores, beyond, w / (scale * k), line) for w, k, line in zip(weights, own, lines)]
        squares = [w * (scores - level - slope * beyond) ** 2 for w, (level, slope) in zip(weights, lines)]
        if has_own:
            own = _own_scales([(one / scale).sum() / max(p.sum(), 1e-9) for one, p in zip(squares, posteriors)],
                              of_upper)  # fmt: skip
        of_rows, of_tokens = _scales(sum(one / k for one, k in zip(squares, own)), lengths, scale)
    (low, of_low), (high, of_high) = lines
    if high < low and share is None:
        low, of_low, high, of_high, of_upper, own = high, of_high, low, of_low, 1 - of_upper, own[::-1]
    return likelihood, ScoreGroups(of_upper, low, high, (of_low, of_high), length, of_rows, of_tokens, own)


def _own_scales(found: Sequence[float], of_upper: float) -> tuple[float, float]:
    """Squared scales of the two groups beside that of all rows; their logarithms are 0 on average over rows."""
    ratio = math.log(min(max(found[1] / max(found[0], 1e-12), 1 / _RATIO), _RATIO))
    return math.exp(-of_upper * ratio), math.exp((1 - of_upper) * ratio)


def _log_density(squares: np.ndarray) -> np.ndarray:
    """Of t at z^2, but for what its degrees of freedom alone make."""
    return -(_DEGREES + 1) / 2 * np.log1p(squares / _DEGREES)


def _line(scores: np.ndarray, beyond: np.ndarray, weights: np.ndarray, before: tuple[float, float]) -> Any:
    """Level and slope by weighted least squares; as before where there is no weight."""
    total = weights.sum()
    if not total > 0:
        return before
    middle = (weights * beyond).sum() / total
    level = (weights * scores).sum() / total
    spread = (weights * (beyond - middle) ** 2).sum()
    slope = (weights * (beyond - middle) * scores).sum() / (spread + _AGAINST_SLOPES * total)
    return float(level - slope * middle), float(slope)


def _scales(deviations: np.ndarray, lengths: np.ndarray, scale: np.ndarray) -> tuple[float, float]:
    """`of_rows` and `of_tokens` by least squares of weighted squared deviations, neither below 0."""
    weights, per_token = 1 / scale**2, 1 / lengths
    a, b, c = weights.sum(), (weights * per_token).sum(), (weights * per_token**2).sum()
    x, y = (weights * deviations).sum(), (weights * deviations * per_token).sum()
    determinant = a * c - b * b
    if determinant > 1e-9 * a * c:  # else all rows are of one length
        of_rows, of_tokens = (c * x - b * y) / determinant, (a * y - b * x) / determinant
        if of_rows >= _NARROWEST**2 and of_tokens >= 0:
            return float(of_rows), float(of_tokens)
        if of_tokens < 0:
            return float(max(x / a, _NARROWEST**2)), 0.0
    return _NARROWEST**2, float(max((y - _NARROWEST**2 * b) / c, 0.0))
