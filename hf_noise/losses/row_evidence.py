"""What tells rows of two writers apart: two normals of a score, and whether a model knows rows better than another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hf_noise.losses.checks import check_floats, check_real
from hf_noise.losses.truncated import ONE, PER_NAT, RecentLosses

__all__ = ["Overtaken", "RecentScores", "ScoreTable", "normal_posterior", "two_normals"]

#: Scores are nats a token in [-32, 32); a table of recent ones holds them as numbers in [0, 64).
LARGEST_SCORE = 32
#: A normal is no narrower than this, in nats: below, rounding would tell rows apart.
_NARROWEST = 0.02
#: Of EM, few on purpose: where the two groups overlap, the likelihood is highest with both means in one place, and many
#: rounds from quantiles end there and tell no rows apart.
_ROUNDS = 5
#: A share that is fitted is drawn to this one, as by half as many rows again: of two groups that overlap nothing else
#: keeps a few odd rows from being one of them, and all others the other.
EXPECTED_SHARE, _PRIOR = 0.3, 0.5
#: Parts of the scores at both ends that count as no further out.
_TAIL = 0.005


def two_normals(weights: Tensor, scores: Tensor, share: float | None) -> Tensor:
    """Fit two normals of one width to weighted scores by EM from quantiles, [4] float: share, means, deviation.

    One width for both keeps them in order: of two widths, the wider one takes both ends.

    Args:
        weights, scores: float [K], how many scores have this value, and the value.
        share: of the upper normal where it is known, in (0, 1); None fits it, with a prior of 0.3 that weighs half as
            much as the scores.

    Returns:
        The share of the upper normal, the means of the lower and of the upper one, their standard deviation.

    Raises:
        TypeError: weights or scores are not floating-point, or the share is no number.
        ValueError: shapes do not agree, or the share is out of its range.

    Source: Dempster, Laird and Rubin 1977; of losses of noisy rows Arazo et al., ICML 2019, and Li et al. (DivideMix),
        ICLR 2020.
    """
    for name, values in (("weights", weights), ("scores", scores)):
        check_floats(name, values)
    if weights.ndim != 1 or weights.shape != scores.shape:
        raise ValueError(f"weights and scores must be [K], got {list(weights.shape)} and {list(scores.shape)}")
    if share is not None:
        share = check_real("share", share, "(0, 1)", "it is that of the upper normal")
    total = weights.sum().clamp(min=1e-6)
    scores = scores.clamp(_quantile(weights, scores, _TAIL), _quantile(weights, scores, 1 - _TAIL))
    of_upper = torch.full_like(total, 0.5 if share is None else share)
    low, high = _quantile(weights, scores, (1 - of_upper) / 2), _quantile(weights, scores, 1 - of_upper / 2)
    width = ((high - low) / 2).clamp(min=_NARROWEST)
    for _ in range(_ROUNDS):
        upper = weights * normal_posterior(scores, torch.stack([of_upper, low, high, width]))
        lower, n = weights - upper, upper.sum()
        low = (lower * scores).sum() / (total - n).clamp(min=1e-6)
        high = (upper * scores).sum() / n.clamp(min=1e-6)
        squares = lower * (scores - low).square() + upper * (scores - high).square()
        width = (squares.sum() / total).sqrt().clamp(min=_NARROWEST)
        if share is None:
            of_upper = (n / total + EXPECTED_SHARE * _PRIOR) / (1 + _PRIOR)
    return torch.stack([of_upper, low, high, width])


def normal_posterior(scores: Tensor, normals: Tensor) -> Tensor:
    """Posterior that each score is of the upper normal, never falling as scores rise; `normals` as `two_normals`."""
    share, low, high, width = normals.unbind()
    log_odds = torch.log(share) - torch.log1p(-share)
    return torch.sigmoid(log_odds + (high - low) * (scores - (low + high) / 2) / width.square())


def _quantile(weights: Tensor, scores: Tensor, part: float | Tensor) -> Tensor:
    """The first score up to which `part` of the weight lies, of scores that rise."""
    below = weights.cumsum(0)
    place = torch.searchsorted(below, (below[-1] * part).reshape(1)).clamp(max=len(scores) - 1)
    return scores.take(place).reshape(())


class ScoreTable(RecentLosses):
    """The distribution of a score of recent rows.

    It takes in a step's scores when the step is over, of all processes at once, as `RecentLosses` does: within a step
    what follows from it is the same for all micro-batches and processes.

    Args:
        memory: steps in [1, 2^15]; a step's scores weigh 1 - 1 / memory times those of the next.

    Raises:
        TypeError, ValueError: a value is of another type, or out of its range.
    """

    def __init__(self, memory: int):
        super().__init__(memory)
        self.has_seen = False

    def add(self, scores: Tensor, is_row: Tensor) -> None:
        """Count scores [B] in nats a token of the rows that have a target."""
        self.observe(scores.detach() + LARGEST_SCORE, is_row, torch.zeros_like(is_row), is_row)

    def _take(self, recent: Tensor) -> None:
        super()._take(recent)
        self.has_seen = True

    def table(self) -> tuple[Tensor, Tensor]:
        """How many recent rows have a score, and the score, float [K] each, the scores rising."""
        dtype = torch.float32 if self.histogram.device.type == "mps" else torch.float64
        places = torch.arange(len(self.histogram), device=self.histogram.device, dtype=dtype)
        return self.histogram.to(dtype) / ONE, (places + 0.5) / PER_NAT - LARGEST_SCORE

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.has_seen = bool(self.histogram.any())


class RecentScores(ScoreTable):
    """Recent scores as two normals, the upper one of rows that another one wrote, fitted when a step begins.

    Args:
        memory: as for `ScoreTable`.
        share: of the upper normal where it is known, in (0, 1); None fits it.

    Attributes:
        normals: buffer float [4], see `two_normals`; 0 before the first fit.

    Raises:
        TypeError, ValueError: a value is of another type, or out of its range.
    """

    normals: Tensor

    def __init__(self, memory: int, share: float | None):
        super().__init__(memory)
        self.known = None if share is None else check_real("share", share, "(0, 1)", "it is that of the other's rows")
        self.register_buffer("normals", torch.zeros(4))
        self.is_fitted = False

    @torch.no_grad()
    def fit(self) -> None:
        """Fit the normals to what is known."""
        self.normals.copy_(two_normals(*self.table(), self.known))
        self.is_fitted = True

    def settled(self) -> bool:
        """Fit the normals, if there is anything to fit them to; whether there was."""
        if self.has_seen:
            self.fit()
        return self.has_seen

    @property
    def separation(self) -> Tensor:
        """How far apart the means are, in standard deviations, float []."""
        _, low, high, width = self.normals.unbind()
        return (high - low) / width

    def clean_posterior(self, scores: Tensor) -> Tensor:
        """p(row is clean) [B] of scores in nats a token, without gradient."""
        return 1 - normal_posterior(scores.detach(), self.normals.to(scores.dtype))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.is_fitted = bool(self.normals[3] > 0)


class Overtaken(ScoreTable):
    """Whether a model finds recent rows likelier than another writer does; once it does, it has done so for good.

    Until then the posterior of a row says how well it fits the other's habits, and rows that nobody knows yet, clean
    ones first, would never be learned.

    Args:
        memory: as for `ScoreTable`, of which it uses a fifth.

    Attributes:
        has_begun: buffer bool [].
    """

    has_begun: Tensor

    def __init__(self, memory: int):
        super().__init__(max(1, memory // 5))  # a mean takes fewer rows than a distribution
        self.register_buffer("has_begun", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def settled(self) -> bool:
        """Hold the mean of recent scores, NLL a token less the other's, against 0; whether there are any."""
        weights, scores = self.table()
        self.has_begun |= (weights * scores).sum() < 0
        return self.has_seen
