"""Ranges of the numbers that describe noise levels and a pass of the sampler."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_noise.models.checks import check_int, check_number

__all__ = ["check_churn", "check_sigma", "check_steps"]


def check_sigma(name: str, value: float) -> float:
    """A standard deviation or noise level as a float, in [1e-18, 1e18] so that float32 holds its square.

    Raises:
        ValueError: it lies outside, or is NaN.
        TypeError: it is no number.
    """
    return check_number(name, value, "[1e-18, 1e18]", "images lie in [-1, 1], and float32 must hold its square")


def check_steps(name: str, value: Any) -> int:
    """A number of steps, which may be written as 18.0, as an int in [1, 1000000]; else ValueError or TypeError."""
    is_whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return check_int(name, int(value) if is_whole else value, "[1, 1000000]", "each step calls the network")


def check_churn(s_churn: Any, s_tmin: Any, s_tmax: Any, s_noise: Any) -> tuple[float, float, float, float]:
    """The arguments of `EDMHeunScheduler.set_timesteps` as floats; ValueError or TypeError if one makes no sense."""
    churn = check_number("s_churn", s_churn, "[0, inf]", "0 adds no noise")
    noise = check_number("s_noise", s_noise, "[0, 1e6]", "1 adds what the rise of sigma asks for")
    low = check_number("s_tmin", s_tmin, "[0, inf)", "0 sets no limit")
    high = check_number("s_tmax", s_tmax, "[0, inf]", "infinity sets no limit")
    if not low <= high:
        raise ValueError(f"need s_tmin <= s_tmax, got {s_tmin} and {s_tmax}; no step would lie between them")
    return churn, low, high, noise
