"""How much larger a batch should be under noise, from the signal-to-noise ratio and the gradient noise scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import gammaln

from hf_noise.analysis.checks import numbers_in
from hf_noise.analysis.noise_scale import NoiseScale
from hf_noise.noise.arrays import real_numbers
from hf_noise.noise.checks import check_choice, check_real
from hf_noise.noise.rates import check_ratio, error_rate

__all__ = ["BatchAdvice", "advise_batch", "nearest_factor", "noise_power"]

OPTIMIZERS = ("adam", "sgd")
_LARGEST = 1e12
#: Batches up to which the number of corrupt examples is counted out; in larger ones it hardly varies.
_COUNTED = 4096


@dataclass(frozen=True)
class BatchAdvice:
    """The batch for a noise ratio, beside the batch of the run without noise.

    Attributes:
        multiplier: batch over that of the run without noise, >= 1; a real number, see `nearest`.
        low, high: its interval; `high` is infinite where the noise scale or the SNR may be 0.
        ratio: r that it is for.
        steps_factor: optimiser steps over those of the run without noise at equal clean exposure, (1 + r) / multiplier.
        clean_noise_scale: B_simple of clean examples.
        noisy_noise_scale: B_simple at this ratio; both are infinite where the measured one is, and so is `power`.
        power: mean squared norm of the gradient of a corrupt example over |G|^2, that of the expected clean gradient.
        optimizer: whose steps it is for.
    """

    multiplier: float
    low: float
    high: float
    ratio: float
    steps_factor: float
    clean_noise_scale: float
    noisy_noise_scale: float
    power: float
    optimizer: str

    def nearest(self, choices: Sequence[float]) -> float:
        """The choice that is nearest as a factor, the smaller of two that are as near.

        Raises ValueError or TypeError: these are no numbers > 0.
        """
        return nearest_factor(self.multiplier, choices)


def nearest_factor(multiplier: float, choices: Sequence[float]) -> float:
    """The choice that is nearest to a multiplier > 0 as a factor, see `BatchAdvice.nearest`."""
    array = numbers_in("choices", choices, 1e-9, _LARGEST, remedy="give batch multipliers, such as [1, 2, 4, 8]")
    if array.ndim != 1 or not array.size:
        raise ValueError(f"choices must be [n], n >= 1, got the shape {list(array.shape)}")
    ordered = np.sort(array)
    return float(ordered[-1] if multiplier == math.inf else ordered[np.abs(np.log(ordered / multiplier)).argmin()])


def advise_batch(
    ratio: float,
    *,
    snr: float,
    batch_size: float,
    snr_ratio: float,
    noise_scale: NoiseScale | float,
    noise_scale_ratio: float = 0.0,
    snr_interval: tuple[float, float] | None = None,
    optimizer: Literal["adam", "sgd"] = "adam",
) -> BatchAdvice:
    """By how much to multiply the batch at noise ratio r, at equal clean exposure and an unchanged learning rate.

    Corrupt examples are taken to add variance and no mean: their gradients have squared norm q |G|^2 and are as likely
    to point anywhere. A share e = r / (1 + r) of them leaves (1 - e) G of the expected gradient, so that B_simple grows
    from B_c of clean examples to

        B_simple(r) = (1 + r) B_c + r + r (1 + r) q

    q follows from the SNR, see `noise_power` of this module. A run of E examples makes E / B steps. With the step of
    Adam, whose length does not depend on the gradient's, each step gains in proportion to sqrt(B / B_simple), as long
    as noise prevails, and loses to curvature what the length alone decides: the best batch for all E examples is a
    multiple of B_simple that depends on learning rate and curvature, not on r. If the batch of the run without noise
    is good, so is the one that is larger by

        multiplier = B_simple(r) / B_simple(0)               "adam"
        multiplier = B_simple(r) / B_simple(0) / (1 + r)     "sgd", whose steps along the signal shrink by 1 - e too

    With a learning rate that is tuned to each batch, examples are wasted by a factor of 1 + B / B_simple (McCandlish),
    and the first line, of any optimizer, is the largest batch that wastes no more than the run without noise does.

    Clean exposure is equal whatever the multiplier, as in paper A's table 6: (1 + r) times the examples in
    `steps_factor` times the steps.

    What it assumes beside: examples are independent and corrupt independently of each other; SNR and noise scale are of
    the same weights at the same stage of training (`coherence` takes the output layer unless `parameters` names others,
    the callback all that are learned), in the same unit (what the noise falls on: examples, or tokens where tokens are
    corrupted); the batch without noise is about the best for the learning rate, steps are small against curvature, and
    they are so many that noise, not their number, decides: of short runs, and of those whose learning rate falls to 0
    and averages noise out, a smaller batch may be better. Measure under the noise that is advised for: a model that
    knows only clean labels gives corrupt ones far larger gradients than one that has seen them.
    Gradients of wrong labels have a mean where they have a direction in common, as flips to one class do: then no batch
    helps as much as this says.

    The interval joins those of both measurements, each end from the worse of both: of two at 95 % it holds with at
    least 90 %. A float as noise scale is taken for exact, an SNR without `snr_interval` too.

    Args:
        ratio: r >= 0 that the advice is for.
        snr: mean norm of the summed gradient of the clean examples of a batch over that of its corrupt ones, > 0 (paper
            A, table 4; `hf_noise.analysis.gradients.coherence`).
        batch_size: examples in the batches that it was measured in, >= 1.
        snr_ratio: r > 0 of these batches.
        noise_scale: B_simple > 0, as `gradient_noise_scale` and `hf_noise.trainers.NoiseScaleCallback` measure it.
            Where it is infinite, for no signal could be told from noise, the advice is its limit.
        noise_scale_ratio: r >= 0 of the examples that it was measured on, 0 for clean ones.
        snr_interval: (low, high) of the SNR, 0 <= low <= snr <= high. Of an open one low is 0, which leaves the
            multiplier without an upper end, or high is infinite: wrong labels then add no variance of their own at the
            lower end.
        optimizer: "adam" for all that divide by the size of gradients, "sgd" with or without momentum.

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is out of range, or a noise scale that was measured under noise is below what this SNR and
            ratio leave of it.

    Source: McCandlish et al. (2018), sections 2.2 and 2.3; paper A, equation 3 and tables 4 and 6.

    Example: paper A's GPT-2 at initialisation, where clean gradients agree (cosine 0.52: B_c = 1 / 0.52 - 1)
        >>> found = advise_batch(1.0, snr=2.96, batch_size=4, snr_ratio=1.0, noise_scale=1 / 0.52 - 1)
        >>> round(found.multiplier, 2), found.nearest([1, 2, 4, 8])
        (3.87, 4.0)
    """
    r, at = check_ratio(ratio), check_ratio(noise_scale_ratio)
    if r > 1e6 or at > 1e6:
        raise ValueError(f"ratio must be at most 1e6, got {max(r, at)!r}; of so few clean examples nothing is learned")
    optimizer = check_choice("optimizer", optimizer, OPTIMIZERS, '"adam" or "sgd"')
    scale = _scale(noise_scale)
    snrs = _snrs(snr, snr_interval)
    batch_size, snr_ratio = _batches(batch_size, snr_ratio)

    def found(scale: float, snr: float) -> tuple[float, float, float]:
        clean = _clean_scale(scale, at, snr, batch_size, snr_ratio) if at else scale
        q = _power(snr, batch_size, snr_ratio, clean)
        share = q / clean if clean < math.inf else _power_per_scale(snr, batch_size, snr_ratio)
        grown = (1 + r) * (1 + r * share) + r / clean
        return grown / (1 if optimizer == "adam" else 1 + r), clean, q

    multiplier, clean, q = found(scale[1], snrs[1])
    # It falls as either grows: noise is then a smaller part of what scatters anyway.
    low = found(scale[2], snrs[2])[0]
    is_possible = snrs[0] > 0 and scale[0] > _noise_alone(at, snrs[0], batch_size, snr_ratio)
    high = found(scale[0], snrs[0])[0] if is_possible else math.inf if r else 1.0
    return BatchAdvice(
        multiplier=multiplier, low=min(low, multiplier), high=max(high, multiplier), ratio=r,
        steps_factor=(1 + r) / multiplier, clean_noise_scale=clean,
        noisy_noise_scale=(1 + r) * clean + r + r * (1 + r) * q if r else clean, power=q, optimizer=optimizer,
    )  # fmt: skip


def noise_power(snr: float, *, batch_size: float, ratio: float, noise_scale: float) -> float:
    """q: the mean squared norm of a corrupt example's gradient over |G|^2, from the SNR of batches.

    Of n clean examples the sum has about the norm |G| sqrt(n^2 + n B_c), of m corrupt ones about |G| sqrt(m q). Both
    means are over the binomial numbers of clean and corrupt examples, with 0 where there are none, as in paper A:

        SNR = E sqrt(n^2 + n B_c) / (sqrt(q) E sqrt(m)),    n ~ Bin(B, 1 - e), m ~ Bin(B, e)

    Args:
        snr: > 0, mean norm of clean sums over that of corrupt sums.
        batch_size: B, examples in a batch, >= 1; more than 4096 of them need not be whole.
        ratio: r > 0 of these batches.
        noise_scale: B_c >= 0 of clean examples; q is infinite where it is.

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is out of range.

    Example: all four cells of paper A's table 4 tell nearly the same q
        >>> cells = [(7.31, 4, 1 / 3), (8.34, 8, 1 / 3), (2.96, 4, 1.0), (3.83, 8, 1.0)]
        >>> [round(noise_power(s, batch_size=b, ratio=r, noise_scale=0.923), 2) for s, b, r in cells]
        [0.34, 0.35, 0.36, 0.35]
    """
    snr, scale = check_real("snr", snr), check_real("noise_scale", noise_scale)
    if not 0 < snr <= _LARGEST:
        raise ValueError(f"snr must lie in (0, 1e12], got {snr!r}; it is a ratio of norms")
    if not scale >= 0:
        raise ValueError(f"noise_scale must be >= 0, got {noise_scale!r}; it is a variance over a square")
    return _power(snr, *_batches(batch_size, ratio), scale)


def _batches(batch_size: Any, ratio: Any) -> tuple[float, float]:
    """Size and ratio of the batches that an SNR was measured in; raises as `noise_power`."""
    r, size = check_ratio(ratio), check_real("batch_size", batch_size)
    if not 1e-6 <= r <= 1e6:
        raise ValueError(f"ratio of the batches in which the SNR was measured must lie in [1e-6, 1e6], got {ratio!r}; "
                         "without corrupt or clean examples there is none")  # fmt: skip
    if not 1 <= size <= _LARGEST or size <= _COUNTED and size != round(size):
        raise ValueError(f"batch_size must be a whole number of examples from 1 to 1e12, got {batch_size!r}")
    return size, r


def _power(snr: float, size: float, r: float, scale: float) -> float:
    """q, see `noise_power`; snr may be infinite."""
    if scale == math.inf:
        return math.inf
    e = error_rate(r)
    return (_mean_root(size, 1 - e, scale, 1.0) / (snr * _mean_root(size, e, 1.0, 0.0))) ** 2


def _power_per_scale(snr: float, size: float, r: float) -> float:
    """q / B_c in the limit of a large B_c, where the clean sum is noise too."""
    e = error_rate(r)
    return (_mean_root(size, 1 - e, 1.0, 0.0) / (snr * _mean_root(size, e, 1.0, 0.0))) ** 2


def _mean_root(size: float, p: float, linear: float, square: float) -> float:
    """E sqrt(square n^2 + linear n), n ~ Bin(size, p)."""
    if size > _COUNTED:
        n, weight = np.array([size * p]), np.ones(1)
    else:
        n = np.arange(round(size) + 1.0)
        log_choices = gammaln(size + 1) - gammaln(n + 1) - gammaln(size - n + 1)
        weight = np.exp(log_choices + n * math.log(p) + (size - n) * math.log1p(-p))
    return float(weight @ np.sqrt(square * n * n + linear * n))


def _clean_scale(scale: float, at: float, snr: float, size: float, snr_ratio: float) -> float:
    """B_c of clean examples, from B_simple at noise ratio `at`, which rises with it."""
    if scale == math.inf:
        return math.inf

    def noisy(clean: float) -> float:
        return _noise_alone(at, snr, size, snr_ratio, clean) + (1 + at) * clean

    low, high = 0.0, scale
    if noisy(low) >= scale:
        raise ValueError(
            f"noise_scale {scale:.4g} at ratio {at:g} is no more than an SNR of {snr:g} leaves of noise alone, "
            f"{noisy(low):.4g}; measure both on the same rows and weights, or the noise scale on more batches"
        )
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if noisy(middle) < scale else (low, middle)
    return high


def _noise_alone(at: float, snr: float, size: float, snr_ratio: float, clean: float = 0.0) -> float:
    """What corrupt examples add to B_simple at noise ratio `at`, beside (1 + at) times that of clean ones."""
    return at + at * (1 + at) * _power(snr, size, snr_ratio, clean) if at else 0.0


def _scale(noise_scale: Any) -> tuple[float, float, float]:
    """Low end, value and high end of a noise scale."""
    if isinstance(noise_scale, NoiseScale):
        ends = noise_scale.low, noise_scale.value, noise_scale.high
    else:
        ends = (check_real("noise_scale", noise_scale),) * 3
    if not (0 < ends[1] <= _LARGEST or ends[1] == math.inf):
        raise ValueError(f"noise_scale must lie in (0, 1e12], or be infinite where no signal was found, got "
                         f"{ends[1]!r}")  # fmt: skip
    return ends


def _snrs(snr: Any, interval: Any) -> tuple[float, float, float]:
    """Low end, value and high end of an SNR."""
    value = check_real("snr", snr)
    if not 0 < value <= _LARGEST:
        raise ValueError(f"snr must lie in (0, 1e12], got {snr!r}; it is a ratio of norms")
    if interval is None:
        return value, value, value
    ends = real_numbers("snr_interval", interval)
    if ends.shape != (2,) or not 0 <= ends[0] <= value <= ends[1]:
        raise ValueError(f"snr_interval must be (low, high) with 0 <= low <= snr <= high, got {interval!r:.80} for "
                         f"{value!r}")  # fmt: skip
    return float(ends[0]), value, float(ends[1])
