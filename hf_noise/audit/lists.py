"""Lists of rows to look at, from the calibrated probability that the label of each is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_noise.audit.checks import shares
from hf_noise.noise.checks import check_real

__all__ = ["default_list", "list_at_fdr"]


def default_list(p_wrong: Any) -> np.ndarray:
    """The list whose expected F1 is largest: the k likeliest rows for the k that maximises 2 S_k / (k + S_N).

    S_k is the sum of the k largest p_wrong, so that S_N is the expected number of wrong labels.

    Args:
        p_wrong: real numbers [N] in [0, 1], calibrated.

    Returns:
        bool [N]; of rows that are equally likely wrong, earlier ones come first.

    Raises:
        TypeError: no real numbers.
        ValueError: another shape, or a value outside [0, 1].
    """
    p = shares("p_wrong", p_wrong, least=0)
    order = np.argsort(-p, kind="stable")
    hits = np.cumsum(p[order])
    if not len(p) or hits[-1] <= 0:
        return np.zeros(len(p), dtype=bool)
    longest = int((2 * hits / (np.arange(1, len(p) + 1) + hits[-1])).argmax()) + 1
    return _first(order, longest)


def list_at_fdr(p_wrong: Any, fdr: float = 0.1) -> np.ndarray:
    """The longest list whose expected share of false alarms is at most `fdr`.

    Args:
        p_wrong: real numbers [N] in [0, 1], calibrated.
        fdr: the share, in [0, 1].

    Returns, Raises: as `default_list`; ValueError for another fdr.

    Source: the local false discovery rate and its lists, Efron et al., JASA 2001.
    """
    p = shares("p_wrong", p_wrong, least=0)
    if not 0 <= check_real("fdr", fdr) <= 1:
        raise ValueError(f"fdr must lie in [0, 1], got {fdr!r}; it is the share of listed rows that may be right")
    order = np.argsort(-p, kind="stable")
    false = np.cumsum(1 - p[order]) / np.arange(1, len(p) + 1)
    return _first(order, int(np.searchsorted(false, fdr + 1e-12, side="right")))


def _first(order: np.ndarray, longest: int) -> np.ndarray:
    listed = np.zeros(len(order), dtype=bool)
    listed[order[:longest]] = True
    return listed
