"""What uniform token noise must cost, even with a perfect model (derived from paper A's algorithm 2).

The optimal predictor of noisy targets is q = (1 - e) p + e / V, so a model that predicts them perfectly loses up to
-ln(1 - e) nats on clean text without knowing anything less. Only what lies above that floor is damage.
"""

from __future__ import annotations

import math

from hf_noise.noise.checks import check_count, check_real
from hf_noise.noise.rates import check_error_rate

__all__ = ["calibration_floor", "noisy_nll", "binary_entropy"]


def calibration_floor(error_rate: float) -> float:
    """-ln(1 - e) >= 0 in nats: the most that a calibrated model of the noisy data loses on clean targets.

    >>> round(calibration_floor(0.5), 5)
    0.69315
    """
    return -math.log1p(-check_error_rate(error_rate))


def binary_entropy(e: float) -> float:
    """H_b(e) in nats, 0 at e = 0."""
    e = check_error_rate(e)
    return 0.0 if e == 0 else -e * math.log(e) - (1 - e) * math.log1p(-e)


def noisy_nll(clean_nll: float, error_rate: float, vocab_size: int) -> float:
    """NLL in nats per token on noisy targets to expect from a clean NLL: (1 - e) H + e ln V + H_b(e).

    Exact if noise and text never agree. Paper A, table 8 against this formula: 7.6048 measured, 7.5381 expected for
    H = 2.8650, e = 0.5, V = 50257.

    Raises:
        TypeError: a rate is no number, or V no integer.
        ValueError: e is outside [0, 1), V outside [1, 2^31], or the clean NLL is below 0 or not finite.
    """
    e = check_error_rate(error_rate)
    vocab_size = check_count("vocab_size", vocab_size, 1, 31)
    nll = check_real("clean_nll", clean_nll)
    if not 0 <= nll < math.inf:
        raise ValueError(f"clean_nll must be finite and >= 0, got {clean_nll!r}; it is in nats per token")
    return (1 - e) * nll + e * math.log(vocab_size) + binary_entropy(e)
