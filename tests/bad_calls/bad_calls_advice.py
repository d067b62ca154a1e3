"""Bad calls to the noise scale and to the advice that is made of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, number, reals, text
from bad_values import pick
from scipy.stats import binom, t

from hf_noise.analysis.advice import BatchAdvice, advise_batch, noise_power
from hf_noise.analysis.noise_scale import gradient_noise_scale

# ---- the noise scale


def make_norms(draw: np.random.Generator) -> dict[str, Any]:
    x = draw.normal(1, 1, (6, 8, 3))
    small, big = np.sum(x[:, :4].mean(1) ** 2, -1), np.sum(x.mean(1) ** 2, -1)
    kind = pick(draw, np.asarray, np.ndarray.tolist, torch.as_tensor)
    return {"small": kind(small), "big": kind(big), "small_batch": pick(draw, 4, np.full(6, 4)), "big_batch": 8,
            "confidence": 0.95}  # fmt: skip


def check_scale(given: dict[str, Any], found: Any) -> None:
    arrays = [reals(given[name]) for name in ("small", "big", "small_batch", "big_batch")]
    confirm(all(array.ndim <= 1 and np.isfinite(array).all() for array in arrays), "arrays")
    small, big, b, whole_batch = (np.atleast_1d(array) for array in np.broadcast_arrays(*arrays))
    confidence = number(given["confidence"])
    confirm(small.size and min(small.min(), big.min()) >= 0 and 0 < confidence < 1, "ranges")
    confirm((b > 0).all() and (b < whole_batch).all(), "batches")
    signal = (whole_batch * big - b * small) / (whole_batch - b)
    variance = (small - big) / (1 / b - 1 / whole_batch)
    close([found.signal, found.variance, found.confidence], [signal.mean(), variance.mean(), confidence], 1e-9)
    confirm(found.n == small.size, "n")
    mean = signal.mean()
    close(found.value, max(variance.mean(), 0) / mean if mean > 0 else math.inf, 1e-6)
    confirm(0 <= found.low <= found.value <= found.high, "interval")
    if found.n < 2:
        confirm(found.low == 0 and found.high == math.inf, "interval of one")
        return
    scale = np.abs(variance).max() + 1e-300
    for end in (found.low, found.high):  # where the interval ends, the difference is as large as its t quantile
        if 0 < end < math.inf and end != found.value:
            rest = variance / scale - end * signal / scale
            if rest.std() > 1e-9 * np.abs(variance / scale).max():
                quantile = t.ppf((1 + confidence) / 2, found.n - 1)
                close(abs(rest.mean()) / (rest.std(ddof=1) / math.sqrt(found.n)) / quantile, 1.0, 1e-4)


# ---- advice


def make_power(draw: np.random.Generator) -> dict[str, Any]:
    return {"snr": pick(draw, 2.0, 0.5), "batch_size": pick(draw, 4, 16), "ratio": pick(draw, 1.0, 0.5),
            "noise_scale": 5.0}  # fmt: skip


def power(snr: float, size: float, r: float, scale: float) -> float:
    """q, by the probabilities of SciPy; of large batches by the mean number."""
    e = r / (1 + r)
    means = []
    for share, linear, square in ((1 - e, scale, 1.0), (e, 1.0, 0.0)):
        n = np.arange(size + 1) if size <= 4096 else np.array([size * share])
        weight = binom.pmf(n, int(size), share) if size <= 4096 else np.ones(1)
        means.append(float(weight @ np.sqrt(square * n * n + linear * n)))
    return (means[0] / (snr * means[1])) ** 2


def batches(given: dict[str, Any], ratio: str) -> tuple[float, float, float]:
    snr, size, r = number(given["snr"]), number(given["batch_size"]), number(given[ratio])
    confirm(0 < snr <= 1e12 and 1 <= size <= 1e12 and (size > 4096 or size == round(size)), "batch")
    confirm(1e-6 <= r <= 1e6, "ratio")
    return snr, size, r


def check_power(given: dict[str, Any], found: Any) -> None:
    scale = number(given["noise_scale"])
    confirm(scale >= 0, "scale")
    close(found, power(*batches(given, "ratio"), scale) if scale < math.inf else math.inf, 1e-6)


def make_advice(draw: np.random.Generator) -> dict[str, Any]:
    return {
        "ratio": pick(draw, 1.0, 0.5), "snr": 2.0, "batch_size": pick(draw, 4, 16), "snr_ratio": 1.0,
        "noise_scale": pick(draw, 5.0, 900.0), "noise_scale_ratio": pick(draw, 0.0, 0.5),
        "snr_interval": pick(draw, None, (1.5, 2.5), (0.0, math.inf)), "optimizer": pick(draw, "adam", "sgd"),
    }  # fmt: skip


def check_advice(given: dict[str, Any], found: Any) -> None:
    r, at, scale = number(given["ratio"]), number(given["noise_scale_ratio"]), number(given["noise_scale"])
    snr, size, of_snr = batches(given, "snr_ratio")
    confirm(0 <= r <= 1e6 and 0 <= at <= 1e6 and (0 < scale <= 1e12 or scale == math.inf), "ranges")
    kind = text(given["optimizer"], "adam", "sgd")
    if given["snr_interval"] is not None:
        low, high = reals(given["snr_interval"], 1)
        confirm(0 <= low <= snr <= high, "interval")
    if scale == math.inf:
        share = power(snr, size, of_snr, 1e15) / 1e15
        close(found.multiplier / ((1 + r) * (1 + r * share) / (1 + r if kind == "sgd" else 1)), 1.0, 1e-6)
        return
    clean, q = found.clean_noise_scale, power(snr, size, of_snr, found.clean_noise_scale)
    close(found.power, q, 1e-6)

    def noisy(ratio: float) -> float:
        return (1 + ratio) * clean + ratio + ratio * (1 + ratio) * q

    close(noisy(at), scale, 1e-6 * max(1.0, scale))
    close(found.noisy_noise_scale / noisy(r), 1.0, 1e-9)
    close(found.multiplier / (noisy(r) / clean / (1 + r if kind == "sgd" else 1)), 1.0, 1e-6)
    close(found.steps_factor * found.multiplier / (1 + r), 1.0, 1e-9)
    confirm(found.low <= found.multiplier <= found.high and found.ratio == r and found.optimizer == kind, "rest")


def nearest(**given: Any) -> float:
    return BatchAdvice(2.7, 2.0, 4.0, 1.0, 0.7, 5.0, 12.0, 1.0, "adam").nearest(**given)


def check_nearest(given: dict[str, Any], found: Any) -> None:
    choices = reals(given["choices"], 1)
    confirm(choices.size and (choices > 0).all() and np.isfinite(choices).all(), "choices")
    apart = np.abs(np.log(choices / 2.7))
    close(abs(math.log(found / 2.7)), apart.min(), 1e-9)
    confirm(found in choices.tolist(), "a choice")


WORDS = {
    **dict.fromkeys(("small", "big", "small_batch", "big_batch"), ("small", "big", "shapes")),
    **dict.fromkeys(("snr_ratio", "noise_scale_ratio", "ratio"), ("ratio",)),
    **dict.fromkeys(("snr", "snr_interval"), ("SNR", "snr")),
}  # fmt: skip

TARGETS = [
    Target("analysis.gradient_noise_scale", gradient_noise_scale, make_norms, check_scale, WORDS, weight=2),
    Target("analysis.noise_power", noise_power, make_power, check_power, WORDS),
    Target("analysis.advise_batch", advise_batch, make_advice, check_advice, WORDS, weight=2),
    Target("analysis.BatchAdvice.nearest", nearest,
           lambda draw: {"choices": pick(draw, [1, 2, 4, 8], np.array([3.0, 2.0]))}, check_nearest, weight=0.5),
]  # fmt: skip
