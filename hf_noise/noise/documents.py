"""Document noise of paper B: whole documents of random tokens, wrong as context and as target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from hf_noise.noise.checks import check_choice, check_integer, check_real
from hf_noise.noise.mixture import BOOSTED, DocumentNoise, cumulative

__all__ = ["GaussianDocuments", "RandomDocuments"]

_MOST_OUTSIDE = 0.01  # of normal draws, that are clipped to the ends of the vocabulary


@dataclass(frozen=True, kw_only=True)
class RandomDocuments(DocumentNoise):
    """Mix in documents of random tokens, uniform over the vocabulary or with some tokens more frequent.

    Paper B, section 3.1 and appendix D. The paper raises the frequency of some tokens and does not say how much; so
    the default is uniform noise, and the boost has a size of its own.

    Args:
        alpha: share of noise in the whole mixture, in [0, 1); the paper's are 0.01, 0.05 and 0.2.
        vocab_size: V in [2, 2^20].
        seed: integer in [0, 2^63).
        boost: "none"; "random": `n_boost` tokens, chosen by the seed, are more frequent (the paper's main text);
            "low": the first `n_boost` tokens are (its appendix).
        n_boost: by default 100 for "random" and 1001 for "low", as in the paper.
        boost_mass: probability in (0, 1] that is taken from all tokens alike and given to the boosted ones, by
            default 0.1: then each of 100 has about 50 times the probability of another of GPT-2's tokens.
        placement: "append" the noise after the clean rows (the paper's), "interleave" it, or "replace" clean rows.
        exclude: the token that is never drawn, None for no such; negative counts from the end. The paper leaves out
            GPT-2's end-of-text token, the last; give the tokenizer's `eos_token_id` if that is another.

    Example:
        >>> noise = RandomDocuments(alpha=0.05, vocab_size=50257)
        >>> noise.number_of_noise_rows(950), round(noise.entropy, 2)
        (50, 10.82)
        >>> noise.rows(np.arange(50), 1024).shape
        (50, 1024)
    """

    protocol: ClassVar[str] = "random_documents"
    stream: ClassVar[int] = 2
    names: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "random-documents": {}, "boosted-documents": {"boost": "random"}, "low-documents": {"boost": "low"},
    }  # fmt: skip

    boost: Literal["none", "random", "low"] = "none"
    n_boost: int = None  # type: ignore[assignment]
    boost_mass: float = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        boost = check_choice("boost", self.boost, ("none", "random", "low"), '"none", "random" or "low"')
        object.__setattr__(self, "boost", boost)
        if boost == "none":
            n_boost = 0 if self.n_boost is None else self.n_boost
            mass = 0.0 if self.boost_mass is None else self.boost_mass
            if check_integer("n_boost", n_boost) or check_real("boost_mass", mass):
                raise ValueError('n_boost and boost_mass need boost="random" or boost="low"')
        else:
            n_boost = {"random": 100, "low": 1001}[self.boost] if self.n_boost is None else self.n_boost
            choices = self.vocab_size - (self.exclude is not None)
            if self.n_boost is None and n_boost > choices:
                raise ValueError(
                    f"vocab_size={self.vocab_size} is too small for boost={boost!r}, which makes {n_boost} tokens more "
                    f"frequent; take a tokenizer of more tokens, or n_boost= in [1, {choices}]"
                )
            if isinstance(n_boost, bool) or not isinstance(n_boost, int | np.integer) or not 1 <= n_boost <= choices:
                raise ValueError(
                    f"n_boost must be an integer in [1, {choices}], got {n_boost!r} (vocab_size={self.vocab_size})"
                )
            mass = 0.1 if self.boost_mass is None else self.boost_mass
            if not 0 < check_real("boost_mass", mass) <= 1:
                raise ValueError(f"boost_mass must lie in (0, 1], got {mass!r}")
        object.__setattr__(self, "n_boost", int(n_boost))
        object.__setattr__(self, "boost_mass", float(mass))

    @property
    def variant(self) -> str:
        return "" if self.boost == "none" else self.boost

    @property
    def boosted(self) -> np.ndarray:
        """The more frequent tokens in ascending order, int64 [n_boost]."""
        candidates = np.arange(self.vocab_size)
        if self.exclude is not None:
            candidates = np.delete(candidates, self.exclude)
        if self.boost == "random":
            words = self._words(BOOSTED, np.zeros(1, dtype=np.int64), self.vocab_size)[0]
            candidates = candidates[np.argsort(words[candidates], kind="stable")]
        return np.sort(candidates[: self.n_boost])

    def weights(self) -> np.ndarray:
        weights = np.full(self.vocab_size, (1 - self.boost_mass) / (self.vocab_size - (self.exclude is not None)))
        if self.n_boost:
            weights[self.boosted] += self.boost_mass / self.n_boost
        return weights


@dataclass(frozen=True, kw_only=True)
class GaussianDocuments(DocumentNoise):
    """Mix in documents of tokens whose ids are normally distributed, a sharp peak in the middle of the vocabulary.

    Paper B, section 3.3 and appendix D: an id is a normal draw, rounded and clipped to the vocabulary.

    Args:
        alpha, vocab_size, seed, placement, exclude: as for `RandomDocuments`. If the excluded token comes up, the
            draw is repeated.
        mean: in [0, V - 1], by default the middle, (V - 1) / 2: the paper's 25128 for GPT-2's 50257 tokens.
        std: > 0, by default the paper's 500 in proportion to the vocabulary, 500 (V - 1) / 50256. At most one draw in
            a hundred may lie outside the vocabulary, as what is clipped makes peaks at its ends.

    Example:
        >>> noise = GaussianDocuments(alpha=0.05, vocab_size=50257)
        >>> noise.mean, noise.std, round(noise.entropy, 2)
        (25128.0, 500.0, 7.63)
    """

    protocol: ClassVar[str] = "gaussian_documents"
    stream: ClassVar[int] = 3
    names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"gaussian-documents": {}}

    mean: float = None  # type: ignore[assignment]
    std: float = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        last = self.vocab_size - 1
        mean = last / 2 if self.mean is None else self.mean
        std = 500 * last / 50256 if self.std is None else self.std
        object.__setattr__(self, "mean", check_real("mean", mean))
        object.__setattr__(self, "std", check_real("std", std))
        if not 0 <= self.mean <= last:
            raise ValueError(f"mean must lie in [0, {last}], the ids of the vocabulary, got {mean!r}")
        if not 0 < self.std < math.inf:
            raise ValueError(f"std must be finite and > 0, got {std!r} (vocab_size={self.vocab_size})")
        outside = math.erfc((self.mean + 0.5) / self.std / math.sqrt(2)) / 2
        outside += math.erfc((last + 0.5 - self.mean) / self.std / math.sqrt(2)) / 2
        if outside > _MOST_OUTSIDE:
            raise ValueError(
                f"std={self.std:g} around mean={self.mean:g} is wider than the vocabulary (vocab_size="
                f"{self.vocab_size}): {outside:.1%} of the draws would be clipped to its first and last tokens, and at "
                f"most {_MOST_OUTSIDE:.0%} may; give a smaller std, or a mean nearer the middle"
            )
        cumulative(self)  # fails now, not at the first draw, if nothing can be drawn

    def weights(self) -> np.ndarray:
        scale = self.std * math.sqrt(2)
        below = [(1 + math.erf((i + 0.5 - self.mean) / scale)) / 2 for i in range(self.vocab_size - 1)]
        # erf may fall by its last bit where it is flat; probabilities may not.
        return np.diff(np.maximum.accumulate([0.0, *below, 1.0]))
