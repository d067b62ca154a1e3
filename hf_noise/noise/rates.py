"""The two ways to state how much noise there is: ratio `r` and effective error rate `e`.

`r` counts noisy units per clean unit (paper A writes 100:100r), `e` is the share of all supervision that is
wrong. Both algorithms of paper A meet here: `e = r / (1 + r)` and `r = e / (1 - e)`.
"""

from __future__ import annotations

import math
from typing import Any

from hf_noise.noise.checks import check_integer, check_real

__all__ = ["error_rate", "ratio", "check_ratio", "check_error_rate", "check_alpha", "resolve", "training_length"]

# Two spellings of one rate (r = 0.5 and e = 1/3 typed with few digits) count as the same below this distance.
_SAME_RATE = 1e-9


def check_ratio(r: Any) -> float:
    """Return `r` as a float, or raise: `ValueError` unless it is finite and >= 0, `TypeError` unless a number."""
    value = check_real("ratio", r)
    if not math.isfinite(value) or value < 0:
        raise ValueError(
            f"ratio must be finite and >= 0, got {r!r}; it counts noisy units per clean one (e = r / (1 + r))"
        )
    return value


def check_error_rate(e: Any) -> float:
    """Return `e` as a float, or raise: `ValueError` unless 0 <= e < 1, `TypeError` unless a number."""
    value = check_real("error_rate", e)
    if not 0 <= value < 1:
        raise ValueError(
            f"error_rate must lie in [0, 1), got {e!r}; it is the share of wrong units, e = r / (1 + r), "
            "and no finite ratio reaches 1"
        )
    return value


def check_alpha(alpha: Any) -> float:
    """Return `alpha` as a float, or raise: `ValueError` unless 0 <= alpha < 1 (paper B: share of the mixture)."""
    value = check_real("alpha", alpha)
    if not 0 <= value < 1:
        raise ValueError(
            f"alpha must lie in [0, 1), got {alpha!r}; it is the share of noise in the whole mixture, "
            "and alpha = 1 would leave no clean document"
        )
    return value


def error_rate(r: float) -> float:
    """Effective error rate `e = r / (1 + r)` in [0, 1) of a noise ratio `r` >= 0 (paper A, algorithm 1).

    >>> error_rate(0.5)
    0.3333333333333333
    >>> error_rate(1.0)
    0.5
    """
    value = check_ratio(r)
    e = value / (1 + value)
    if e >= 1:
        raise ValueError(f"ratio {r!r} is so large that e = r / (1 + r) rounds to 1; give a ratio below 1e15")
    return e


def ratio(e: float) -> float:
    """Noise ratio `r = e / (1 - e)` >= 0 of an effective error rate `e` in [0, 1) (inverse of `error_rate`).

    >>> ratio(0.5)
    1.0
    """
    value = check_error_rate(e)
    return value / (1 - value)


def resolve(r: float | None, e: float | None) -> tuple[float, float]:
    """Both rates from the one that was given.

    Args:
        r: noise ratio >= 0, or None.
        e: effective error rate in [0, 1), or None.

    Returns:
        `(r, e)`.

    Raises:
        ValueError: neither is given, both are given and disagree, or the value is out of range.
    """
    if r is None and e is None:
        raise ValueError("give the amount of noise: ratio=r (noisy units per clean unit) or error_rate=e")
    if e is None:
        return check_ratio(r), error_rate(r)  # type: ignore[arg-type]
    if r is None:
        return ratio(e), check_error_rate(e)
    if abs(error_rate(r) - check_error_rate(e)) > _SAME_RATE:
        raise ValueError(
            f"ratio={r!r} and error_rate={e!r} contradict each other (e = r / (1 + r) = {error_rate(r)!r}); "
            "give only one of them"
        )
    if r == ratio(e):
        return check_ratio(r), check_error_rate(e)  # the pair that came of e alone; r may have lost its last bit
    return check_ratio(r), error_rate(r)


def training_length(base: int, r: float) -> tuple[int, float]:
    """Steps or epochs that keep the clean exposure constant (paper A, algorithm 1).

    Args:
        base: length of the run on clean data, > 0 (iterations at a constant batch size, or epochs).
        r: noise ratio >= 0.

    Returns:
        `(N_new, e)` with `N_new = round(base * (1 + r))` and `e = base * r / (base * (1 + r))`.

    Raises:
        TypeError: the base is no integer, or r no number.
        ValueError: a value is out of range, or the run would be longer than 2^53.

    >>> training_length(600_000, 0.3)
    (780000, 0.23076923076923075)
    """
    if check_integer("base", base) <= 0:
        raise ValueError(f"the base length must be > 0, got {base!r}")
    length = min(base, 2**53) * (1 + check_ratio(r))
    if not length < 2**53:
        raise ValueError(f"base={base!r:.40} and ratio={r!r} make a run of 2^53 or more; give smaller ones")
    return round(length), error_rate(r)
