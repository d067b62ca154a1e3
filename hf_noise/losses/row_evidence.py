"""What tells rows of two writers apart when neither likelihood can be trusted as it is: two normals of a score."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from hf_noise.losses.checks import check_count, check_floats, check_real
from hf_noise.losses.truncated import ONE, PER_NAT, RecentLosses

__all__ = ["RecentScores", "RowEvidence", "normal_posterior", "two_normals"]

#: Scores are nats a token in [-32, 32); a table of recent ones holds them as numbers in [0, 64).
LARGEST_SCORE = 32
#: Two normals are no narrower than this, in nats: below, rounding would tell rows apart.
_NARROWEST = 0.02
_FIRST, _LATER = 60, 2  # rounds of EM on a table, from quantiles and from where the step before ended


def two_normals(weights: Tensor, scores: Tensor, normals: Tensor, rounds: int, share: float | None) -> Tensor:
    """Fit a mixture of two normals to weighted scores by EM, [5] float: share, mean and deviation of each.

    Args:
        weights, scores: float [K], how many scores have this value, and the value.
        normals: float [5], where to start: the share of the upper normal, the means of the lower and of the upper one,
            their standard deviations.
        rounds: of EM, >= 1.
        share: of the upper normal where it is known, in (0, 1); None fits it.

    Raises:
        TypeError: weights, scores or normals are not floating-point, or rounds or the share is no number.
        ValueError: shapes do not agree, or a number is out of its range.

    Source: Dempster, Laird and Rubin 1977; of losses of noisy rows Arazo et al., ICML 2019, and Li et al. (DivideMix),
        ICLR 2020.
    """
    for name, values in (("weights", weights), ("scores", scores), ("normals", normals)):
        check_floats(name, values)
    if weights.ndim != 1 or weights.shape != scores.shape or normals.shape != (5,):
        raise ValueError(f"weights and scores must be [K] and normals [5], got {list(weights.shape)}, "
                         f"{list(scores.shape)} and {list(normals.shape)}")  # fmt: skip
    if share is not None:
        share = check_real("share", share, "(0, 1)", "it is that of the upper normal")
    total = weights.sum().clamp(min=1)
    for _ in range(check_count("rounds", rounds)):
        upper = torch.sigmoid(_log_odds(scores, normals))
        parts = torch.stack([1 - upper, upper]) * weights  # [2, K]
        n = parts.sum(-1).clamp(min=1e-6)
        means = (parts * scores).sum(-1) / n
        spread = ((parts * (scores - means[:, None]).square()).sum(-1) / n).sqrt().clamp(min=_NARROWEST)
        of_upper = (n[1] / total).clamp(1e-3, 1 - 1e-3) if share is None else torch.full_like(n[1], share)
        normals = torch.cat([of_upper.reshape(1), means, spread])
    return normals


def normal_posterior(scores: Tensor, normals: Tensor) -> Tensor:
    """Posterior that each score is of the upper normal; it never falls as scores rise.

    Beyond the two means it stays what it is there: of two normals, the wider one would take both ends.
    """
    low, high = torch.minimum(normals[1], normals[2]), torch.maximum(normals[1], normals[2])
    return torch.sigmoid(_log_odds(scores.clamp(low, high), normals))


def _log_odds(scores: Tensor, normals: Tensor) -> Tensor:
    share, low, high, of_low, of_high = normals.unbind()
    z_low, z_high = (scores - low) / of_low, (scores - high) / of_high
    return torch.log(share) - torch.log1p(-share) + torch.log(of_low / of_high) + (z_low.square() - z_high.square()) / 2


class RecentScores(RecentLosses):
    """The distribution of a score of recent rows as two normals, the upper one of rows that another one wrote.

    It takes in a step's scores when the step is over, of all processes at once, as `RecentLosses` does, and fits the
    normals when the next one begins: within a step they are the same for all micro-batches and processes.

    Args:
        memory: steps in [1, 2^15]; a step's scores weigh 1 - 1 / memory times those of the next.
        share: of the upper normal where it is known, in (0, 1); None fits it.

    Attributes:
        normals: buffer float [5], see `two_normals`; NaN before the first fit.

    Raises:
        TypeError, ValueError: a value is of another type, or out of its range.
    """

    normals: Tensor

    def __init__(self, memory: int, share: float | None):
        super().__init__(memory)
        self.known = None if share is None else check_real("share", share, "(0, 1)", "it is that of the other's rows")
        self.register_buffer("normals", torch.full((5,), math.nan))
        self.has_seen, self.is_fitted = False, False

    def add(self, scores: Tensor, is_row: Tensor) -> None:
        """Count scores [B] in nats a token of the rows that have a target."""
        self.observe(scores.detach() + LARGEST_SCORE, is_row, torch.zeros_like(is_row), is_row)

    def _take(self, recent: Tensor) -> None:
        super()._take(recent)
        self.has_seen = True

    @torch.no_grad()
    def fit(self) -> None:
        """Fit the normals to what is known, from where they are; from quantiles the first time."""
        dtype = torch.float32 if self.histogram.device.type == "mps" else torch.float64
        weights = self.histogram.to(dtype) / ONE
        places = torch.arange(len(weights), device=weights.device, dtype=dtype)
        scores = (places + 0.5) / PER_NAT - LARGEST_SCORE
        start = self.normals.to(dtype) if self.is_fitted else self._from_quantiles(weights)
        self.normals.copy_(two_normals(weights, scores, start, _LATER if self.is_fitted else _FIRST, self.known))
        self.is_fitted = True

    def _from_quantiles(self, weights: Tensor) -> Tensor:
        share = 0.5 if self.known is None else self.known
        low, high = (self.quantile(part).to(weights) - LARGEST_SCORE for part in ((1 - share) / 2, 1 - share / 2))
        spread = ((high - low) / 2).clamp(min=_NARROWEST)
        return torch.stack([torch.full_like(low, share), low, high, spread, spread])

    @property
    def separation(self) -> Tensor:
        """How far apart the means are, in standard deviations, float []; negative where they changed places."""
        _, low, high, of_low, of_high = self.normals.unbind()
        return (high - low) / ((of_low.square() + of_high.square()) / 2).sqrt()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.has_seen, self.is_fitted = bool(self.histogram.any()), not bool(self.normals.isnan().any())


class RowEvidence(nn.Module):
    """Which rows another one wrote, by the score that tells them apart best.

    Two scores are kept, in nats a token: how likely a row is under the other writer, and how much more likely than
    under the model. Where the other one wrote what it finds most likely, the first tells its rows at once, and the
    second does not, as long as the model has learned them too; where it drew at random, the second does.

    Args:
        memory, share: as for `RecentScores`.
    """

    def __init__(self, memory: int, share: float | None):
        super().__init__()
        self.plain, self.ratio = RecentScores(memory, share), RecentScores(memory, share)

    @property
    def has_seen(self) -> bool:
        """Whether there is anything to fit the normals to."""
        return self.plain.has_seen

    @property
    def is_fitted(self) -> bool:
        """Whether there are normals."""
        return self.plain.is_fitted

    def begin(self) -> None:
        """Forget what was counted in a step that was not finished."""
        self.plain.begin()
        self.ratio.begin()

    def add(self, own: Tensor, other: Tensor, n: Tensor) -> None:
        """Count rows by their NLL [B] under the model and the other writer, and their numbers of targets."""
        for kept, scores in zip((self.plain, self.ratio), _scores(own, other, n)):
            kept.add(scores, n > 0)

    def settle(self, reduce: Any) -> None:
        """Take in what was counted in a step; `reduce` sums a tensor over all processes (a collective call)."""
        self.plain.settle(reduce)
        self.ratio.settle(reduce)

    def fit(self) -> None:
        """Fit both to what is known."""
        self.plain.fit()
        self.ratio.fit()

    @property
    def uses_ratio(self) -> Tensor:
        """Whether the second score is the one that tells rows apart, bool []."""
        return self.ratio.separation > self.plain.separation

    @property
    def separation(self) -> Tensor:
        """Of the score that is used, see `RecentScores.separation`."""
        return torch.maximum(self.ratio.separation, self.plain.separation)

    def share(self) -> Tensor:
        """Share of rows that the other one wrote, float []."""
        return torch.where(self.uses_ratio, self.ratio.normals[0], self.plain.normals[0])

    def clean_posterior(self, own: Tensor, other: Tensor, n: Tensor) -> Tensor:
        """p(row is clean) [B], without gradient; arguments as of `add`."""
        by = [1 - normal_posterior(scores, kept.normals.to(scores.dtype))
              for kept, scores in zip((self.plain, self.ratio), _scores(own, other, n))]  # fmt: skip
        return torch.where(self.uses_ratio, by[1], by[0])


def _scores(own: Tensor, other: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    own, other, n = own.detach(), other.detach(), n.clamp(min=1)
    return -other / n, (own - other) / n
