"""Document noise of paper B: whole documents of random tokens, wrong as context and as target.

Unlike token noise (paper A), nothing clean is touched: clean documents stay clean, and a share alpha of the mixture
carries no information at all. The noise is drawn once: it is the same in every epoch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np

from hf_noise.noise import counter, rates
from hf_noise.noise.arrays import check_dtype, check_rows, check_vocab_size, ignored_positions, integers
from hf_noise.noise.base import Noise, check_seed

__all__ = ["GaussianDocuments", "RandomDocuments"]

_PLACEMENTS = ("append", "interleave", "replace")
_VOCAB_BITS = 20  # the distribution is a table over the vocabulary

# Epochs count from 0, so negative ones are free for the draws that belong to no token.
_REPLACED, _PLACED, _BOOSTED = -1, -2, -3


@dataclass(frozen=True, kw_only=True)
class _Documents(Noise):
    alpha: float
    vocab_size: int
    seed: int = 0
    placement: Literal["append", "interleave", "replace"] = "append"
    exclude: int | None = -1

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", rates.check_alpha(self.alpha))
        object.__setattr__(self, "seed", check_seed(self.seed))
        smallest = 1 if self.exclude is None else 2
        object.__setattr__(self, "vocab_size", check_vocab_size(self.vocab_size, smallest, _VOCAB_BITS))
        if self.placement not in _PLACEMENTS:
            raise ValueError(f"placement must be one of {', '.join(_PLACEMENTS)}, got {self.placement!r}")
        if self.exclude is not None:
            if not -self.vocab_size <= self.exclude < self.vocab_size:
                raise ValueError(
                    f"exclude must be None or a token in [0, {self.vocab_size}), counted from the end if negative, "
                    f"got {self.exclude!r}"
                )
            object.__setattr__(self, "exclude", int(self.exclude) % self.vocab_size)

    @property
    def error_rate(self) -> float:
        """Share of the mixture's supervision that is wrong: alpha."""
        return self.alpha

    @property
    def ratio(self) -> float:
        """Noise documents per clean document, alpha / (1 - alpha)."""
        return rates.ratio(self.alpha)

    def probabilities(self) -> np.ndarray:
        """The distribution that noise tokens are drawn from, exactly as drawn: float64 [V], multiples of 2^-53."""
        return np.diff(cumulative(self), prepend=0) * 2.0**-counter.UNIT_BITS

    @property
    def entropy(self) -> float:
        """Entropy of a noise token in nats: no model's loss on noise it has not seen before is lower on average."""
        p = self.probabilities()
        p = p[p > 0]
        return float(-(p * np.log(p)).sum())

    def number_of_noise_rows(self, n_clean: int) -> int:
        """Rows of noise beside `n_clean` clean rows of equal length, so that they are the share alpha of all rows.

        That is round(alpha / (1 - alpha) * n_clean). With placement "replace": how many of `n_clean` are replaced.
        """
        if not isinstance(n_clean, int | np.integer) or n_clean < 0:
            raise ValueError(f"the number of clean rows must be an integer >= 0, got {n_clean!r}")
        if self.placement == "replace":
            return int(self.replaced(np.arange(n_clean)).sum())
        return round(self.ratio * int(n_clean))

    def order(self, n_clean: int) -> np.ndarray:
        """Where noise stands among `n_clean` clean rows, which keep their order.

        With placement "append" all of it comes last, as in paper B. With "interleave" the rows are cut into stretches
        of (nearly) equal length, and each holds one row of noise at a random place; so every part of the corpus has
        the share alpha. With "replace" rows of noise take the places of clean ones.

        Returns:
            int64 [N], the source of each row of the mixture: a value i < n_clean is the clean row i, and
            n_clean + k is `rows(k, length)`.
        """
        if self.placement == "replace":
            row = np.arange(n_clean, dtype=np.int64)
            return np.where(self.replaced(row), n_clean + row, row)
        n_noise = self.number_of_noise_rows(n_clean)
        total = n_clean + n_noise
        is_noise = np.zeros(total, dtype=bool)
        if self.placement == "append":
            is_noise[n_clean:] = True
        elif n_noise:
            edges = np.arange(n_noise + 1, dtype=np.int64) * total // n_noise
            place = self._words(_PLACED, np.zeros(1, dtype=np.int64), n_noise)[0] >> np.uint64(32)
            place = place * np.diff(edges).astype(np.uint64) >> np.uint64(32)
            is_noise[edges[:-1] + place.astype(np.int64)] = True
        order = np.empty(total, dtype=np.int64)
        order[~is_noise] = np.arange(n_clean)
        order[is_noise] = np.arange(n_clean, total)
        return order

    def rows(self, sample: Any, length: int) -> Any:
        """Documents of noise.

        Args:
            sample: integers [...], which documents; each has its own tokens, whatever is asked for beside it.
            length: L >= 0, tokens of each; a longer one begins with the tokens of a shorter one.

        Returns:
            int64 [..., L], a NumPy array, or a tensor on the device of `sample` if that is one.
        """
        if _is_tensor(sample):
            from hf_noise.noise import documents_torch

            return documents_torch.rows(self, sample, length)
        words = self._words(0, integers("sample", sample), length)
        return np.searchsorted(cumulative(self), (words >> np.uint64(11)).view(np.int64), side="right")

    def replaced(self, sample: Any) -> np.ndarray:
        """Which samples [...] are replaced in placement "replace": booleans [...], each True with probability alpha."""
        units = self._words(_REPLACED, integers("sample", sample), 1)[..., 0] >> np.uint64(11)
        return units < np.uint64(round(self.alpha * 2**counter.UNIT_BITS))

    def _words(self, epoch: int, sample: np.ndarray, length: int) -> np.ndarray:
        return counter.words(
            counter.row_keys(self.seed, self.stream, epoch, sample)[..., None], counter.weyl(length)
        )

    def __call__(self, tokens: Any, sample: Any, epoch: int = 0) -> Any:
        """Replace whole rows by noise, each with probability alpha; needs placement "replace".

        Args:
            tokens: integers [..., L], array or tensor, values in [0, V) or -100 (left as it is). Inputs and labels
                of the same samples, given one after the other, get the same noise. Or a batch of columns (a
                mapping), as `datasets.map` passes it.
            sample: integers [...], the stable index of each row; row numbers in the form for `datasets.map`.
            epoch: has no effect, the noise is drawn once.

        Returns:
            `(noisy, is_noisy)`: same shape, type, dtype and device as `tokens`, and booleans of that shape, equal
            along a row but for positions with -100. For a mapping: the new columns, see `columns`.

        Raises:
            ValueError: another placement, shapes do not fit, or a token is outside [0, V) (not checked on a GPU).
            TypeError: tokens or samples are not integers.
        """
        if self.placement != "replace":
            raise ValueError(
                f'placement is "{self.placement}", which adds rows: take them from rows() and their places from '
                'order(), or use placement="replace" to corrupt the rows that are there'
            )
        if isinstance(tokens, Mapping):
            return self.columns(tokens, sample)
        if _is_tensor(tokens):
            from hf_noise.noise import documents_torch

            return documents_torch.replace(self, tokens, sample)
        tokens, sample = integers("tokens", tokens), integers("sample", sample)
        check_rows(tokens, sample)
        check_dtype(tokens.dtype, np.iinfo(tokens.dtype).max, self.vocab_size)
        ignored = ignored_positions(tokens, self.vocab_size)
        noisy, is_noisy = tokens.copy(), np.zeros(tokens.shape, dtype=bool)
        replaced = self.replaced(sample)
        is_noisy[replaced] = True if ignored is None else ~ignored[replaced]
        rows = self.rows(sample[replaced], tokens.shape[-1])
        noisy[replaced] = np.where(is_noisy[replaced], rows, tokens[replaced])
        return noisy, is_noisy

    def columns(self, batch: Mapping[str, Any], indices: Any) -> dict[str, Any]:
        """The form for `datasets.map(noise, batched=True, with_indices=True)`.

        Args:
            batch: columns with `input_ids` and perhaps `labels` of the same lengths; each row is a document, without
                padding.
            indices: row numbers, used as sample ids unless the batch has a column `sample_id`.

        Returns:
            The columns `input_ids` and `labels` (both noise in a replaced row), `clean_input_ids`, `clean_labels`,
            `is_noisy` (a list for each row) and `sample_id`.
        """
        if "input_ids" not in batch:
            raise ValueError(f"there is no column 'input_ids' to corrupt, only: {', '.join(batch)}")
        sample = integers("sample_id", batch.get("sample_id", indices))
        columns = {"sample_id": sample}
        for name in ("labels", "input_ids"):  # is_noisy is that of the inputs, which have no -100
            clean = [np.asarray(row) for row in batch[name if name in batch else "input_ids"]]
            # Empty rows are floats to NumPy.
            clean = [row if row.size else row.astype(np.int64) for row in clean]
            noisy = [self(row, number) for row, number in zip(clean, sample, strict=True)]
            columns |= {name: [tokens for tokens, _ in noisy], f"clean_{name}": clean}
            columns["is_noisy"] = [mask for _, mask in noisy]
        return columns


@dataclass(frozen=True, kw_only=True)
class RandomDocuments(_Documents):
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

    boost: Literal["none", "random", "low"] = "none"
    n_boost: int | None = None
    boost_mass: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.boost not in ("none", "random", "low"):
            raise ValueError(f'boost must be "none", "random" or "low", got {self.boost!r}')
        if self.boost == "none":
            if self.n_boost or self.boost_mass:
                raise ValueError('n_boost and boost_mass need boost="random" or boost="low"')
            n_boost, mass = 0, 0.0
        else:
            n_boost = {"random": 100, "low": 1001}[self.boost] if self.n_boost is None else self.n_boost
            choices = self.vocab_size - (self.exclude is not None)
            if isinstance(n_boost, bool) or not isinstance(n_boost, int | np.integer) or not 1 <= n_boost <= choices:
                raise ValueError(f"n_boost must be an integer in [1, {choices}], got {n_boost!r}")
            mass = 0.1 if self.boost_mass is None else self.boost_mass
            if isinstance(mass, bool) or not isinstance(mass, Real) or not 0 < mass <= 1:
                raise ValueError(f"boost_mass must lie in (0, 1], got {mass!r}")
        object.__setattr__(self, "n_boost", int(n_boost))
        object.__setattr__(self, "boost_mass", float(mass))

    @property
    def boosted(self) -> np.ndarray:
        """The more frequent tokens in ascending order, int64 [n_boost]."""
        candidates = np.arange(self.vocab_size)
        if self.exclude is not None:
            candidates = np.delete(candidates, self.exclude)
        if self.boost == "random":
            words = self._words(_BOOSTED, np.zeros(1, dtype=np.int64), self.vocab_size)[0]
            candidates = candidates[np.argsort(words[candidates], kind="stable")]
        return np.sort(candidates[: self.n_boost])

    def _weights(self) -> np.ndarray:
        weights = np.full(self.vocab_size, (1 - self.boost_mass) / (self.vocab_size - (self.exclude is not None)))
        if self.n_boost:
            weights[self.boosted] += self.boost_mass / self.n_boost
        return weights


@dataclass(frozen=True, kw_only=True)
class GaussianDocuments(_Documents):
    """Mix in documents of tokens whose ids are normally distributed, a sharp peak in the middle of the vocabulary.

    Paper B, section 3.3 and appendix D: an id is a normal draw, rounded and clipped to the vocabulary.

    Args:
        alpha, vocab_size, seed, placement, exclude: as for `RandomDocuments`. If the excluded token comes up, the
            draw is repeated.
        mean: in [0, V - 1], by default the middle, (V - 1) / 2: the paper's 25128 for GPT-2's 50257 tokens.
        std: > 0, by default the paper's 500 in proportion to the vocabulary, 500 (V - 1) / 50256.

    Example:
        >>> noise = GaussianDocuments(alpha=0.05, vocab_size=50257)
        >>> noise.mean, noise.std, round(noise.entropy, 2)
        (25128.0, 500.0, 7.63)
    """

    protocol: ClassVar[str] = "gaussian_documents"
    stream: ClassVar[int] = 3

    mean: float | None = None
    std: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        last = self.vocab_size - 1
        mean = last / 2 if self.mean is None else self.mean
        std = 500 * last / 50256 if self.std is None else self.std
        if isinstance(mean, bool) or not isinstance(mean, Real) or not 0 <= mean <= last:
            raise ValueError(f"mean must lie in [0, {last}], the ids of the vocabulary, got {mean!r}")
        if isinstance(std, bool) or not isinstance(std, Real) or not 0 < std < math.inf:
            raise ValueError(f"std must be finite and > 0, got {std!r}")
        object.__setattr__(self, "mean", float(mean))
        object.__setattr__(self, "std", float(std))

    def _weights(self) -> np.ndarray:
        scale = self.std * math.sqrt(2)
        below = [(1 + math.erf((i + 0.5 - self.mean) / scale)) / 2 for i in range(self.vocab_size - 1)]
        return np.diff([0.0, *below, 1.0])


@lru_cache(maxsize=4)
def cumulative(noise: _Documents) -> np.ndarray:
    """Table to draw tokens by: int64 [V], token i has the units (53-bit integers) from entry i - 1 up to entry i."""
    weights = noise._weights()
    if noise.exclude is not None:
        weights[noise.exclude] = 0
    total = np.cumsum(weights)
    if not total[-1] > 0:
        raise ValueError(f"nothing but the excluded token {noise.exclude} could be drawn; give a larger std")
    table = np.rint(total / total[-1] * 2.0**counter.UNIT_BITS).astype(np.int64)
    table.setflags(write=False)
    return table


def _is_tensor(values: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)
