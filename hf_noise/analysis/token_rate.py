"""How many tokens were replaced, asked of what a model that never saw the noise says of them.

Two views, which fail in different ways. The first counts: under the law that replacements were drawn from, the share
of that law above a replaced token is uniform on (0, 1) for ANY model, so no set of contexts can hold more of them than
it has tokens far down; that bounds e from above whatever clean text looks like. It is asked in contexts where a clean
token is hardly ever far down: where the model is sure and the tokens before look clean. The second fits: each token is
drawn from the model's prediction, at a temperature that is fitted along, or from the law of the noise.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.stats import beta, norm, rankdata
from scipy.stats import t as student

from hf_noise.noise.arrays import as_array, integers, real_numbers
from hf_noise.noise.checks import check_real

__all__ = ["TokenRate", "rate_from_mixture", "rate_from_tails", "token_error_rate"]

#: Shares of the contexts, the cleanest and surest first, and of the law of the noise above a target.
STRATA, CUTOFFS = (0.05, 0.1, 0.2, 1.0), (0.5, 0.7, 0.9)
_BEFORE = 3  # targets that make a context look clean or not
_GROUPS = 10  # of rows, each left out once
_ASKED = 0.15  # share of the contexts that the lower end is asked of, or more
_FEWEST = 50  # tokens of a stratum that is asked
_PROVEN = "high: counted, whatever clean text is like"
_STEPS, _CLOSE = 200, 1e-7  # of a fit, and what counts as standing still


@dataclass(frozen=True)
class TokenRate:
    """An estimate of e, the weight of the noise, with an interval.

    Attributes:
        value, low, high: in [0, 1].
        how: which estimators stand behind the ends, and what has to hold.
        n: number of targets.
        confidence: that sampling alone leaves the truth inside, in (0, 1).
        parts: the ends by estimator, (low, high) each; their spread is what no sampling error shows.
    """

    value: float
    low: float
    high: float
    how: str
    n: int
    confidence: float = 0.95
    parts: dict[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        return asdict(self)


def token_error_rate(
    tail: Any, entropy: Any, row: Any, log_clean: Any = None, log_noise: Any = None, *, resembles: bool = False,
    confidence: float = 0.95,
) -> TokenRate:  # fmt: skip
    """e with an interval that holds sampling and what the model does not know of clean text.

    The upper end is the smallest that counting proves (`rate_from_tails`); it stands on the law of the noise alone. The
    lower end is the smaller one of two that stand on something: on clean tokens thinning out towards the end of the
    ranking (`rate_from_tails`), and, where `log_clean` is given, on the model's prediction at some temperature being
    right in one of three sets of contexts (`rate_from_mixture`). Clean text that itself holds such draws looks like
    noise to both.

    Args:
        tail: float [n] in [0, 1], the share of the noise's law that the model holds for more likely than the target.
        entropy: float [n], of the prediction before each target, in nats.
        row: integers [n], the row of each target; those of a row follow one another in their order.
        log_clean: float [n, K], log-probability of each target under the model at K temperatures; None for a model that
            learned the noise along, whose predictions cannot tell it apart.
        log_noise: float [n], under the law of the noise; -inf where it cannot have drawn the target.
        resembles: the noise is drawn like text, as a unigram is. Then a clean token after wrong ones looks like noise
            to a model that lost its context, the more so the more noise there is; the lower end goes down by twice
            what the fits in clean contexts lie below that in all (our allowance, which the benchmark tries).
        confidence: in (0, 1).

    Raises:
        TypeError: an argument holds no numbers.
        ValueError: lengths differ, there are fewer than 50 targets, or a number is out of its range.
    """
    tails = rate_from_tails(tail, entropy, row, confidence=confidence)
    if log_clean is None:
        return tails
    order = _trust(*_checked(tail, entropy, row))
    parts, fits = dict(tails.parts), []
    for share in STRATA[1:]:
        taken = _first(order, share)
        if len(taken) >= _FEWEST:
            fit = rate_from_mixture(_at("log_clean", log_clean, taken), _at("log_noise", log_noise, taken),
                                    np.asarray(row)[taken], confidence=confidence)  # fmt: skip
            fits.append(fit)
            parts[f"fit, first {share:.0%} of contexts"] = (fit.low, fit.high)
    high = tails.high
    low = min(tails.low, *(fit.low for fit in fits))
    if resembles and fits:
        low = max(low - 2 * max(fits[-1].value - min(fit.value for fit in fits), 0), 0.0)
    value = float(np.clip(tails.value, low, high))
    how = f"{_PROVEN}; low: clean tokens thin out in its ranking, or are as it predicts"
    return TokenRate(value, float(low), high, how, tails.n, tails.confidence, parts)


def rate_from_tails(tail: Any, entropy: Any, row: Any, *, confidence: float = 0.95) -> TokenRate:
    """e from how many targets are far down in contexts that look clean and sure; arguments as `token_error_rate`.

    In each stratum of contexts and beyond each cut-off c, (share of targets beyond c) / (1 - c) is at least e on
    average. The upper end is the least of their upper limits (Clopper and Pearson), each at a level that makes all of
    them hold at once. The lower one is where a line through the lower half of the ranking ends, in the first fifth of
    the contexts: right if clean tokens thin out to nothing there, no faster at the end than before.
    """
    tail, entropy, row = _checked(tail, entropy, row)
    confidence = _check_confidence(confidence)
    order, parts, highs = _trust(tail, entropy, row), {}, []
    strata = [taken for share in STRATA if len(taken := _first(order, share)) >= _FEWEST]
    level = (1 - confidence) / 2
    for taken in strata:
        n, width = len(taken), 1 - np.array(CUTOFFS)
        hits = np.array([(tail[taken] > cutoff).sum() for cutoff in CUTOFFS])
        each = level / (len(strata) * len(CUTOFFS))
        high = np.where(hits < n, beta.ppf(1 - each, hits + 1, np.maximum(n - hits, 1)), 1.0) / width
        highs.append(float(min(high.min(), 1)))
        parts[f"counted, first {n / len(tail):.0%} of contexts"] = (0.0, highs[-1])
    asked = tail[next((taken for taken in strata if len(taken) >= _ASKED * len(tail)), strata[-1])]
    low = float(np.clip(_thinned(asked, level), 0, min(highs)))
    parts[f"thinned out, first {len(asked) / len(tail):.0%} of contexts"] = (low, 1.0)
    how = f"{_PROVEN}; low: clean tokens thin out towards the end of the model's ranking"
    value = float(np.clip(_middle(asked), low, min(highs)))
    return TokenRate(value, low, min(highs), how, len(tail), confidence, parts)


def rate_from_mixture(
    log_clean: Any, log_noise: Any, row: Any, entropy: Any = None, *, confidence: float = 0.95
) -> TokenRate:
    """e by maximum likelihood: targets from a mixture of K clean predictions, with free weights, and of the noise.

    The interval spans those of the temperature in the middle of the columns alone and of all and, where `entropy` is
    given, of the contexts in which the model is surer and less sure than usual, as e is the same in both. Each is that
    of leaving out a tenth of the rows at a time (jackknife), by Student's law for so few.
    Arguments, errors: as `token_error_rate`. Source: the delete-a-group jackknife of Kott (2001).
    """
    clean, noise = real_numbers("log_clean", log_clean), real_numbers("log_noise", log_noise)
    row, confidence = integers("row", row), _check_confidence(confidence)
    if clean.ndim != 2 or not clean.size or noise.shape != clean.shape[:1] or row.shape != noise.shape:
        raise ValueError(f"log_clean [n, K] needs log_noise [n] and row [n], got {list(clean.shape)}, "
                         f"{list(noise.shape)} and {list(row.shape)}")  # fmt: skip
    best = np.maximum(clean.max(axis=1), noise)
    if np.isnan(clean).any() or not (np.isfinite(best).all() and max(clean.max(), noise.max()) < np.inf):
        raise ValueError("log_clean and log_noise must hold no NaN and no +inf, and -inf of a target in one of them")
    logs, groups = np.column_stack([noise, clean]), np.unique(row, return_inverse=True)[1] % _GROUPS
    one = logs[:, [0, 1 + clean.shape[1] // 2]]
    value, *ends = _fitted(logs, groups, confidence)
    parts = {"the prediction as it is": _fitted(one, groups, confidence)[1:], "any temperature": tuple(ends)}
    if entropy is not None:
        entropy = real_numbers("entropy", entropy)
        if entropy.shape != noise.shape:
            raise ValueError(f"entropy must be {list(noise.shape)} as log_noise, got {list(entropy.shape)}")
        sure = entropy <= np.median(entropy)
        for name, taken in (("where the model is sure", sure), ("where it is not", ~sure)):
            if taken.sum() >= _FEWEST:
                parts[name] = _fitted(logs[taken], groups[taken], confidence)[1:]
    low, high = min(low for low, _ in parts.values()), max(high for _, high in parts.values())
    how = "each token comes from the model's prediction at some temperature, or from the noise"
    return TokenRate(float(np.clip(value, low, high)), low, high, how, len(noise), confidence, parts)


def _fitted(logs: np.ndarray, groups: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Weight of the first column of log-likelihoods [n, 1 + K], and its ends."""
    top = logs.max(1, keepdims=True)
    likely = np.exp(logs - np.where(np.isfinite(top), top, 0))
    reasons = likely.any(1)  # one temperature alone may leave a target without
    likely, groups = likely[reasons], groups[reasons]
    if len(each := np.unique(groups)) < 2:
        return 0.0, 0.0, 1.0
    weights = _fit(likely)
    out = np.array([_fit(likely[groups != group], weights)[0] for group in each])
    error = np.sqrt((len(out) - 1) / len(out) * ((out - out.mean()) ** 2).sum())
    half = student.ppf((1 + confidence) / 2, len(out) - 1) * error
    return float(weights[0]), float(max(weights[0] - half, 0)), float(min(weights[0] + half, 1))


def _checked(tail: Any, entropy: Any, row: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tail, entropy, row = real_numbers("tail", tail), real_numbers("entropy", entropy), integers("row", row)
    if tail.ndim != 1 or entropy.shape != tail.shape or row.shape != tail.shape:
        raise ValueError(f"tail, entropy and row must be [n], got {list(tail.shape)}, {list(entropy.shape)} and "
                         f"{list(row.shape)}")  # fmt: skip
    if len(tail) < _FEWEST:
        raise ValueError(f"tail must be of at least {_FEWEST} targets for an error rate, got {len(tail)}")
    if not ((tail >= 0) & (tail <= 1)).all() or not np.isfinite(entropy).all():
        raise ValueError("tail must lie in [0, 1] and entropy be finite; a model that has diverged gives NaN")
    return tail, entropy, row


def _check_confidence(confidence: Any) -> float:
    confidence = check_real("confidence", confidence)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}; 0.95 is usual")
    return confidence


def _trust(tail: np.ndarray, entropy: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Order of the targets, first those whose context, which their own draw has no part in, is sure and looks clean."""
    worst = np.zeros(len(tail))
    for back in range(1, _BEFORE + 1):
        same = row[back:] == row[:-back]
        worst[back:] = np.maximum(worst[back:], np.where(same, tail[:-back], 0))
    return np.argsort(rankdata(worst) + rankdata(entropy), kind="stable")


def _first(order: np.ndarray, share: float) -> np.ndarray:
    return np.sort(order[: int(share * len(order))])


def _at(name: str, values: Any, taken: np.ndarray) -> np.ndarray:
    return as_array(name, values)[taken]


def _thinned(tail: np.ndarray, level: float) -> float:
    """Lower limit of the density at the end of the ranking, if it is a straight line over its lower half."""
    down = 2 * tail[tail > 0.5] - 1
    parts = (6 * down - 2) * 2 / len(tail)  # of moments 0 and 1: its mean is what the line ends in
    return float(parts.sum() - norm.ppf(1 - level) * np.sqrt((parts**2).sum()))


def _middle(tail: np.ndarray) -> float:
    """Between the estimate beyond the middle cut-off, and what is left of it if clean tokens thin out by half."""
    shares = [(tail > cutoff).mean() / (1 - cutoff) for cutoff in CUTOFFS]
    return float(shares[1] - max(shares[0] - shares[1], 0) / 2)


def _fit(likely: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Weights [1 + K] of the likeliest mixture, by expectation and maximisation."""
    weights = np.full(likely.shape[1], 1 / likely.shape[1]) if weights is None else np.maximum(weights, 1e-6)
    for _ in range(_STEPS):
        mixed = likely @ weights
        new = weights * (likely.T @ (1 / mixed)) / len(likely)
        if np.abs(new - weights).max() < _CLOSE:
            break
        weights = new
    return weights
