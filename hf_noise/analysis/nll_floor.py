"""What noise must cost, even with a perfect model: uniform noise on targets (paper A), documents of noise under masks.

The optimal predictor of noisy targets is q = (1 - e) p + e / V, so a model that predicts them perfectly loses up to
-ln(1 - e) nats on clean text without knowing anything less. Only what lies above that floor is damage.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hf_noise.noise import Masking
from hf_noise.noise.arrays import real_numbers
from hf_noise.noise.checks import check_count, check_real
from hf_noise.noise.rates import check_error_rate

__all__ = ["binary_entropy", "calibration_floor", "masked_entropy", "noisy_nll"]


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


def masked_entropy(masking: Masking, probabilities: Any) -> float:
    """Entropy in nats of a masked token given what is read in its place: the least NLL on documents of noise.

    It lies below the entropy of the noise, since what is read may be the token itself: in BERT's masking half of all
    that is not read as the mask token. Of uniform draws it is about 0.9 ln V + 0.2 ln 2.

    Args:
        masking: how tokens are masked.
        probabilities: real [V] >= 0 of the masking's V tokens, whose sum is 1; tokens are drawn independently.

    Raises:
        TypeError: this is no masking, or these are no real numbers.
        ValueError: their shape is not [V], they are no probabilities, or all of them are of special tokens.

    Example:
        >>> masking, uniform = Masking(vocab_size=50257, mask_token=50257), np.full(50257, 1 / 50257)
        >>> round(masked_entropy(masking, uniform), 3), round(0.9 * math.log(50257) + 0.2 * math.log(2), 3)
        (9.881, 9.881)
    """
    if not isinstance(masking, Masking):
        raise TypeError(f"masking must be a hf_noise.noise.Masking, got {masking!r:.80}")
    size, p = masking.vocab_size, np.array(real_numbers("probabilities", probabilities), dtype=np.float64)
    if p.shape != (size,):
        raise ValueError(f"probabilities must have the shape [{size}], one for each of the masking's tokens, got "
                         f"{list(p.shape)}")  # fmt: skip
    if not (np.isfinite(p) & (p >= 0)).all() or not math.isclose(p.sum(), 1, rel_tol=1e-6):
        raise ValueError(f"probabilities must be >= 0 with the sum 1, got values from {p.min()} to {p.max()} with the "
                         f"sum {p.sum()}")  # fmt: skip
    p[[token for token in masking.never if token < size]] = 0  # which are never predicted
    if not p.any():
        raise ValueError("probabilities are those of special tokens alone, which are never masked")
    p /= p.sum()
    entropy, random = -_xlogx(p).sum(), masking.random_share / size
    kept = max(0.0, 1 - masking.mask_share - masking.random_share)
    # The joint probability of reading r and the target t is random p(t), and at t = r kept p(r) besides.
    of_others = random * entropy - _xlogx(random) + _xlogx(random * p)  # -sum of joint ln joint over t other than r
    of_tokens = of_others - _xlogx(random * p + kept * p) + _xlogx(random + kept * p)
    is_mask = np.arange(size) == masking.mask_token
    return float((masking.mask_share + random * is_mask.sum()) * entropy + of_tokens[~is_mask].sum())


def _xlogx(x: Any) -> Any:
    """x ln x of x >= 0, 0 at 0."""
    x = np.asarray(x, dtype=np.float64)
    return x * np.log(x, where=x > 0, out=np.zeros_like(x))
