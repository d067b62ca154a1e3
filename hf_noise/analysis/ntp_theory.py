"""What noise documents can do to a language model that is trained to predict the next token (paper B, section 7).

Clean text P^c and noise P^n are mixed, a share alpha of noise. A model h* of clean text alone gives a token the
(geometric mean) probability p_c = exp(-loss on clean text) and p_n = exp(-loss on noise). Training on the mixture gives
up eps of p_c and gains eps / k on p_n. k is the exchange rate: the clean probability that a unit of noise probability
costs. For noise that cannot be learned it is huge, and then Proposition 1 says that little is lost.

k depends on the path of training, so eta is a predicted scale of the harm and no bound on a real model. All losses are
in nats per token; all functions take numbers or arrays that broadcast, and compute in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hf_noise.analysis.checks import broadcast, numbers_in
from hf_noise.analysis.flatness import gradient_bound

__all__ = [
    "LARGEST_LOSS", "REGIMES", "Proposition1", "bilingual", "gradient_bound", "k_from_losses", "k_lower_bound",
    "mixture_loss", "proposition1",
]  # fmt: skip

#: Of a loss that is read here, in nats per token; exp(-loss) then stays far from what float64 cannot hold.
LARGEST_LOSS = 230.0
_P = (1e-100, 1.0)
_K = (1e-200, 1e200)

#: Names in `Proposition1.regime`, and the statement of the paper that each stands for.
REGIMES = {
    "never pays": "f < 0 for all eps > 0: following the noise never pays (statement 1)",
    "below 3 eta": "f > 0 up to eta, f < 0 from 3 eta on (statements 2 and 3; alpha < 1/3)",
    "below 2 eta": "f > 0 up to eta, f < 0 from 2 eta on (statements 2 and 3; alpha > 1/2)",
    "eta only": "f > 0 up to eta; no statement says from where on f < 0 (statement 2 alone)",
}


@dataclass(frozen=True, eq=False)
class Proposition1:
    """Where a model that is trained on the mixture goes, for one p_c, p_n, alpha and k or for arrays of them.

    Attributes:
        p_c: probability of clean text under h*, float64 of the common shape, as all that follows.
        p_n: probability of noise under h*.
        alpha: share of noise.
        k: clean probability lost per noise probability gained.
        eta: alpha p_c - (1 - alpha) k p_n: f is largest there, if it is above 0.
        threshold: the alpha up to which following the noise never pays, k p_n / (p_c + k p_n).
        regime: a name of `REGIMES` each.
        bound: eps from which on statement 3 promises f < 0: 3 eta, 2 eta, 0 where following the noise never pays, NaN
            where no statement says it (alpha in [1/3, 1/2], or too small a k). `break_even` is known there, too.
    """

    p_c: np.ndarray
    p_n: np.ndarray
    alpha: np.ndarray
    k: np.ndarray
    eta: np.ndarray
    threshold: np.ndarray
    regime: np.ndarray
    bound: np.ndarray

    @property
    def best_eps(self) -> np.ndarray:
        """The eps with the smallest mixed loss: eta, or 0 where that is negative."""
        return np.maximum(self.eta, 0.0)

    @property
    def maximum(self) -> np.ndarray:
        """The largest value of f, in nats: f(eta), or 0 where eta <= 0."""
        return self.f(self.best_eps)

    @property
    def eps_limit(self) -> np.ndarray:
        """The eps at which one of the two probabilities is used up: p_c - eps = 0 or p_n + eps / k = 1."""
        return np.minimum(self.p_c, self.k * (1 - self.p_n))

    def f(self, eps: Any) -> np.ndarray:
        """How much smaller the mixed loss is than that of h*, in nats: L(P^m, h*) - L(P^m, h) (equation 17).

        (1 - alpha) ln((p_c - eps) / p_c) + alpha ln((p_n + eps / k) / p_n). The two nearly cancel for small eps; their
        first-order parts are therefore taken together, as eps eta / (k p_n p_c), which keeps 15 digits.

        Args:
            eps: in [0, p_c]; broadcasts with p_c. -inf at p_c.

        Raises:
            TypeError: no real numbers.
            ValueError: outside [0, p_c], or of a shape that does not fit.
        """
        return self._f(self._eps(eps))

    def derivative(self, eps: Any) -> np.ndarray:
        """f'(eps) = (eta - eps) / ((p_c - eps)(k p_n + eps)); eps and errors as of `f`, -inf at p_c."""
        eps = self._eps(eps)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (self.eta - eps) / (self.p_c - eps) / (self.k * self.p_n + eps)
        return np.where(eps == self.p_c, -np.inf, slope)[()]

    def clean_loss_rise(self, eps: Any) -> np.ndarray:
        """How much the loss on clean text rises, in nats: -ln(1 - eps / p_c); eps and errors as of `f`."""
        with np.errstate(divide="ignore"):
            return 0.0 - np.log1p(-self._eps(eps) / self.p_c)

    def noise_loss_drop(self, eps: Any) -> np.ndarray:
        """How much the loss on noise falls, in nats: ln(1 + eps / (k p_n)); eps and errors as of `f`."""
        return np.log1p(self._eps(eps) / self.k / self.p_n)

    @cached_property
    def break_even(self) -> np.ndarray:
        """The largest eps in [0, p_c) at which the mixed loss is no higher than that of h*; 0 where none pays.

        The root of f above eta, to 1e-14 relative, by bisection of its logarithm: f > 0 at eta and f < 0 at the end of
        the bracket, which is p_c, or 3 eta where that is proven to lie beyond.
        """
        pays = self.eta > 0
        low = np.where(pays, self.eta, 1.0)
        # Beyond alpha = 1/3 the derivative that proves statement 3 has one sign for all k, up to alpha = 2/3.
        is_bounded = ~np.isnan(self.bound) | (self.alpha >= 1 / 3)
        high = np.where(pays, np.where(is_bounded, np.minimum(3 * self.eta, self.p_c), self.p_c), 1.0)
        for _ in range(70):
            middle = np.clip(np.sqrt(low) * np.sqrt(high), low, high)
            is_above = self._f(np.minimum(middle, self.p_c)) >= 0
            low, high = np.where(is_above, middle, low), np.where(is_above, high, middle)
        return np.where(pays, low, 0.0)[()]

    def _eps(self, eps: Any) -> np.ndarray:
        eps = numbers_in("eps", eps, 0.0, 1.0, remedy="it is what p_c loses, between 0 and p_c")
        eps, p_c = broadcast(eps=eps, p_c=np.asarray(self.p_c))
        if (eps > p_c).any():
            raise ValueError(f"eps must lie in [0, p_c], got {eps[eps > p_c].flat[0]!s} for p_c = "
                             f"{p_c[eps > p_c].flat[0]!s}; it is what p_c loses")  # fmt: skip
        return eps[()]

    def _f(self, eps: np.ndarray) -> np.ndarray:
        u, v = eps / self.p_c, eps / self.k / self.p_n
        is_small = (u < 0.5) & (v < 0.5)
        a, b = np.where(is_small, u, 0.0), np.where(is_small, v, 0.0)
        fine = (1 - self.alpha) * _log1p_less(-a) + self.alpha * _log1p_less(b) + a * (self.eta / self.k / self.p_n)
        with np.errstate(divide="ignore"):
            return np.where(is_small, fine, (1 - self.alpha) * np.log1p(-u) + self.alpha * np.log1p(v))[()]


def proposition1(p_c: Any, p_n: Any, alpha: Any, k: Any) -> Proposition1:
    """What Proposition 1 of paper B says for these probabilities: which of its statements hold, and f.

    Args:
        p_c: exp(-loss of h* on clean text), in (0, 1]; from 1e-100 on, as p_n.
        p_n: exp(-loss of h* on noise), in (0, 1]. The paper takes it from an early checkpoint of a model trained on the
            mixture: one that never saw noise gives it next to nothing.
        alpha: share of noise in the mixture, in [0, 1).
        k: exchange rate > 0, in [1e-200, 1e200]; see `k_from_losses`.

    Returns:
        The result, of the shape to which the four broadcast; single numbers give single numbers. For alpha in
        [1/3, 1/2] the paper's third statement says nothing: the regime is "eta only" there.

    Raises:
        TypeError: no real numbers.
        ValueError: one is NaN or outside its range, or their shapes do not fit together.

    Source: paper B, Proposition 1 and equation 17.

    >>> found = proposition1(p_c=0.055, p_n=2e-5, alpha=0.05, k=[16, 100, 1000])
    >>> found.regime
    array(['eta only', 'below 3 eta', 'never pays'], dtype='<U11')
    >>> found.eta.round(5)
    array([ 0.00245,  0.00085, -0.01625])
    """
    told = "it is exp(-loss in nats per token)"
    p_c, p_n, alpha, k = broadcast(
        p_c=numbers_in("p_c", p_c, *_P, remedy=told),
        p_n=numbers_in("p_n", p_n, *_P, remedy=told),
        alpha=numbers_in("alpha", alpha, 0.0, 1.0, is_below=True, remedy="it is the share of noise in the mixture"),
        k=numbers_in("k", k, *_K, remedy="leave out where k_from_losses found none (NaN), or none above 0"),
    )
    gained, clean = k * p_n, 1 - alpha
    eta = np.minimum(alpha * p_c - clean * gained, np.nextafter(p_c, 0))  # below p_c also where alpha is nearly 1
    pays = eta > 0
    three = pays & (alpha < 1 / 3) & (clean * (2 - 3 * alpha) * gained > alpha * (1 - 3 * alpha) * p_c)
    two = pays & (alpha > 1 / 2) & (2 * clean * gained > (2 * alpha - 1) * p_c)
    regime = np.select([~pays, three, two], ["never pays", "below 3 eta", "below 2 eta"], "eta only")
    bound = np.select([~pays, three, two], [np.zeros_like(eta), 3 * eta, 2 * eta], np.nan)
    fields = (p_c, p_n, alpha, k, eta, 1 / (1 + p_c / gained), regime, bound)
    return Proposition1(*(values[()] for values in fields))


def k_from_losses(clean_star: Any, clean: Any, noise_star: Any, noise: Any) -> np.ndarray:
    """The exchange rate k of two models from their losses on clean text and on noise.

    k = (exp(-clean_star) - exp(-clean)) / (exp(-noise) - exp(-noise_star)).

    Args:
        clean_star: loss of h* (trained on clean text) on clean text, in nats per token, in [0, 230].
        clean: loss of h (trained on the mixture) on clean text, at the same step.
        noise_star: loss on noise of h*; the paper takes an early checkpoint of h.
        noise: loss of h on noise.

    Returns:
        float64 of the common shape. NaN where h gives the noise no more than h* does (a denominator <= 0): nothing was
        gained, so there is no rate. Where h is as good on clean text or better, k <= 0: nothing was paid, which
        Proposition 1 does not cover.

    Raises:
        TypeError: no real numbers.
        ValueError: a loss is NaN or outside [0, 230], or the shapes do not fit together.

    Source: paper B, section 4.1 and appendix B.3.

    >>> k_from_losses(2.9, 2.9058, 10.825, 10.2).round(1)
    np.float64(18.4)
    """
    named = {"clean_star": clean_star, "clean": clean, "noise_star": noise_star, "noise": noise}
    clean_star, clean, noise_star, noise = broadcast(**{name: _losses(name, loss) for name, loss in named.items()})
    paid, gained = -np.expm1(clean_star - clean), np.expm1(noise_star - noise)
    with np.errstate(divide="ignore", invalid="ignore"):
        k = np.exp(noise_star - clean_star) * (paid / gained) + 0.0
    return np.where(gained > 0, k, np.nan)[()]


def k_lower_bound(clean_star: Any, clean: Any, noise: Any) -> np.ndarray:
    """What k exceeds whatever the loss of h* on noise: exp(noise) (clean - clean_star) / exp(clean).

    It grows with the exponential of the loss on noise, so it is huge for noise that cannot be learned. NaN where the
    loss on clean text did not rise, and k is below 0. Arguments and errors as of `k_from_losses`; h* and h are told
    apart here, as equations 11 to 13 of the paper no longer do.
    """
    named = {"clean_star": clean_star, "clean": clean, "noise": noise}
    clean_star, clean, noise = broadcast(**{name: _losses(name, loss) for name, loss in named.items()})
    return np.where(clean >= clean_star, np.exp(noise - clean) * (clean - clean_star), np.nan)[()]


def mixture_loss(alpha: Any, loss_clean: Any, loss_noise: Any) -> np.ndarray:
    """Loss on the mixture, alpha L(P^n, h) + (1 - alpha) L(P^c, h), in nats per token (Lemma 1).

    The loss is an expectation under the joint distribution of prefix and next token, hence linear in it: the lemma
    needs no disjoint supports, which the paper assumes.

    Args:
        alpha: share of noise, in [0, 1).
        loss_clean: in [0, 230].
        loss_noise: in [0, 230].

    Raises as `proposition1`.
    """
    alpha, clean, noise = broadcast(
        alpha=numbers_in("alpha", alpha, 0.0, 1.0, is_below=True, remedy="it is the share of noise in the mixture"),
        loss_clean=_losses("loss_clean", loss_clean), loss_noise=_losses("loss_noise", loss_noise),
    )  # fmt: skip
    return (alpha * noise + (1 - alpha) * clean)[()]


def bilingual(loss_one: Any = 2.9, loss_other: Any = 2.8, alpha: Any = 0.55, k: Any = 1.0) -> Proposition1:
    """Proposition 1 for a corpus in two languages: what the other language costs the one (paper B, D.3, figure 9).

    The other language stands where the noise stood. It can be learned, so that p_n is about p_c and k about 1; a share
    of about one half then costs O(eta). Of the paper's example (the defaults) the loss in the one language rises by
    0.054 nats at eta and by 0.111 at 2 eta; the text says "at most 0.1".

    Args:
        loss_one: of h* in the language looked at, in nats per token, in [0, 230].
        loss_other: of h* in the other language.
        alpha: share of the other language, in [0, 1).
        k: exchange rate > 0.

    Raises as `proposition1`.
    """
    one, other = _losses("loss_one", loss_one), _losses("loss_other", loss_other)
    return proposition1(np.exp(-one), np.exp(-other), alpha, k)


def _losses(name: str, values: Any) -> np.ndarray:
    return numbers_in(name, values, 0.0, LARGEST_LOSS, remedy="it is a mean NLL in nats per token")


def _log1p_less(x: np.ndarray) -> np.ndarray:
    """ln(1 + x) - x for |x| <= 1/2, exact where the two nearly cancel.

    With y = x / (2 + x), ln(1 + x) = 2 (y + y^3 / 3 + y^5 / 5 + ...) and x = 2 y + x y.
    """
    y = x / (2 + x)
    square, series = y * y, np.zeros_like(y)
    for j in reversed(range(18)):
        series = series * square + 1 / (2 * j + 3)
    return 2 * y * square * series - x * y
