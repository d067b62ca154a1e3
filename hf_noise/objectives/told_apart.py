"""What rows that are scored under a trained model say of who wrote them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

__all__ = ["NOT_OVERTAKEN", "ToldApart", "by_groups"]

NOT_OVERTAKEN = "the model did not come to find rows likelier than the other writer does"


class ToldApart(NamedTuple):
    """How likely rows are clean, and what that rests on.

    Attributes:
        log_odds: float64 [N], of each row being clean.
        groups: share, means, separation and valley of the two groups that scores show, see
            `hf_noise.losses.score_groups.ScoreGroups`; else empty.
        doubt: why that says nothing of single rows; None where it does.
    """

    log_odds: np.ndarray
    groups: Mapping[str, float]
    doubt: str | None


def by_groups(scores: np.ndarray, targets: np.ndarray, share: float | None) -> ToldApart:
    """Rows [N] by their scores, high of the other's, and how many targets each has; its share where that is known."""
    from hf_noise.losses.score_groups import score_groups

    has_score = targets > 0
    if not has_score.any():
        return ToldApart(np.full(len(scores), math.inf), {}, "no row has a target")
    groups = score_groups(scores[has_score], targets[has_score], share)
    found = np.full(len(scores), math.log1p(-groups.share) - math.log(groups.share))
    found[has_score] = -groups.log_odds(scores[has_score], targets[has_score])
    if groups.doubt is not None:
        return ToldApart(found, {}, f"two groups cannot be told apart: {groups.doubt}")
    facts = {name: getattr(groups, name) for name in ("share", "low", "high", "separation", "valley")}
    return ToldApart(found, facts, None)
