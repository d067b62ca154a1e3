"""What the document noises of paper B share: a mixture of clean documents and documents of random tokens.

Unlike token noise (paper A), nothing clean is touched: clean documents stay clean, and a share alpha of the mixture
carries no information at all. The noise is drawn once: it is the same in every epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np

from hf_noise.noise import counter, rates
from hf_noise.noise.arrays import (
    as_array,
    check_batch,
    check_dtype,
    check_ragged,
    check_rows,
    check_vocab_size,
    ignored_positions,
    integer_rows,
    integers,
    is_tensor,
)
from hf_noise.noise.base import Noise, Unit
from hf_noise.noise.checks import check_choice, check_epoch, check_integer, check_seed

__all__ = ["BOOSTED", "PLACEMENTS", "DocumentNoise", "cumulative"]

PLACEMENTS = ("append", "interleave", "replace")
_VOCAB_BITS = 20  # the distribution is a table over the vocabulary
_MOST_TOKENS = 1 << 28  # drawn at a time; each takes about 32 bytes meanwhile
_MOST_HELD = 1 << 30  # rows whose order is given as one array
_MOST_ROWS = 1 << 53  # up to which a share of them is exact

# Epochs count from 0, so negative ones are free for the draws that belong to no token.
REPLACED, PLACED, BOOSTED = -1, -2, -3


@dataclass(frozen=True, kw_only=True)
class DocumentNoise(Noise):
    """Base of the document noises: how much noise, where it stands, and drawing it from a table of probabilities.

    A subclass adds `protocol`, `stream`, `names`, the fields of its distribution and `weights`, the probabilities of
    the tokens before the excluded one is left out.
    """

    unit: ClassVar[Unit] = "documents"
    noisy_columns: ClassVar[tuple[str, ...]] = ("input_ids", "labels")
    rate_names: ClassVar[tuple[str, ...]] = ("alpha",)

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
        object.__setattr__(self, "placement", check_choice("placement", self.placement, PLACEMENTS))
        if self.exclude is not None:
            if isinstance(self.exclude, bool) or not isinstance(self.exclude, int | np.integer):
                raise TypeError(f"exclude must be a token id or None, got {self.exclude!r}")
            if not -self.vocab_size <= self.exclude < self.vocab_size:
                raise ValueError(
                    f"exclude must be None or a token in [0, {self.vocab_size}), counted from the end if negative, "
                    f"got {self.exclude!r} (vocab_size={self.vocab_size})"
                )
            object.__setattr__(self, "exclude", int(self.exclude) % self.vocab_size)

    @property
    def is_drawn(self) -> bool:
        """Whether it replaces rows that are there; else it adds rows, see `rows` and `order`."""
        return self.placement == "replace"

    @property
    def if_not_drawn(self) -> str:
        return (
            f'placement is "{self.placement}", which adds rows: take them from rows() and their places from '
            'order(), or use placement="replace" to corrupt the rows that are there'
        )

    @property
    def is_spread(self) -> bool:
        return self.is_drawn  # else it comes last, or where a document ends that may be long

    def weights(self) -> np.ndarray:
        """Probabilities of the tokens before the excluded one is left out, float64 [V], a new array each time."""
        raise NotImplementedError(f"{type(self).__name__} has no weights")

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

        Raises ValueError unless `n_clean` is an integer in [0, 2^53], below 2^30 with placement "replace".
        """
        if isinstance(n_clean, bool) or not isinstance(n_clean, int | np.integer) or not 0 <= n_clean <= _MOST_ROWS:
            raise ValueError(f"the number of clean rows must be an integer >= 0 and at most 2^53, got {n_clean!r}")
        n_clean = int(n_clean)
        if self.placement == "replace":
            _check_rows_held(n_clean)
            return int(self.replaced(np.arange(n_clean)).sum())
        return round(self.ratio * n_clean)

    def order(self, n_clean: int) -> np.ndarray:
        """Where noise stands among `n_clean` clean rows, which keep their order.

        With placement "append" all of it comes last, as in paper B. With "interleave" the rows are cut into stretches
        of (nearly) equal length, and each holds one row of noise at a random place; so every part of the corpus has
        the share alpha. With "replace" rows of noise take the places of clean ones.

        Returns:
            int64 [N], the source of each row of the mixture: a value i < n_clean is the clean row i, and
            n_clean + k is `rows(k, length)`.

        Raises ValueError unless `n_clean` is an integer >= 0 for which the mixture has fewer than 2^30 rows.
        """
        n_noise = self.number_of_noise_rows(n_clean)
        n_clean = int(n_clean)
        _check_rows_held(n_clean + n_noise)
        if self.placement == "replace":
            row = np.arange(n_clean, dtype=np.int64)
            return np.where(self.replaced(row), n_clean + row, row)
        total = n_clean + n_noise
        is_noise = np.zeros(total, dtype=bool)
        if self.placement == "append":
            is_noise[n_clean:] = True
        elif n_noise:
            edges = np.arange(n_noise + 1, dtype=np.int64) * total // n_noise
            place = self._words(PLACED, np.zeros(1, dtype=np.int64), n_noise)[0] >> np.uint64(32)
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
            int64 [..., L], a NumPy array, or a tensor on the device of `sample` if that is one (drawn on the CPU).

        Raises:
            TypeError: samples or the length are not integers.
            ValueError: the length is below 0, or the documents would hold 2^28 tokens or more together.
        """
        numbers = integers("sample", sample)
        length = check_integer("length", length)
        if length < 0 or length * max(1, numbers.size) >= _MOST_TOKENS:
            raise ValueError(
                f"length must be >= 0, and {numbers.size} documents must hold fewer than 2^28 tokens together, got "
                f"length={length}; ask for fewer documents at a time"
            )
        words = self._words(0, numbers, length)
        units = (words >> np.uint64(64 - counter.UNIT_BITS)).view(np.int64)
        return _like(sample, np.searchsorted(cumulative(self), units, side="right"))

    def replaced(self, sample: Any) -> np.ndarray:
        """Which samples [...] are replaced in placement "replace": booleans [...], each True with probability alpha."""
        words = self._words(REPLACED, integers("sample", sample), 1)[..., 0]
        return words >> np.uint64(64 - counter.UNIT_BITS) < np.uint64(round(self.alpha * 2**counter.UNIT_BITS))

    def jitter(self, number: Any) -> np.ndarray:
        """Where documents of noise stand in the stretches that they are spread over: float64 [...] in [0, 1)."""
        words = self._words(PLACED, integers("number", number), 1)[..., 0]
        return (words >> np.uint64(64 - counter.UNIT_BITS)) * 2.0**-counter.UNIT_BITS

    def _words(self, epoch: int, sample: np.ndarray, length: int) -> np.ndarray:
        keys = counter.row_keys(self.seed, self.stream, epoch, sample)
        return counter.words(keys[..., None], counter.weyl(length))

    def __call__(self, tokens: Any, sample: Any, epoch: int = 0) -> Any:
        """Replace whole rows by noise, each with probability alpha; needs placement "replace".

        Args:
            tokens: integers [..., L], array or tensor, values in [0, V) or -100 (left as it is). Inputs and labels
                of the same samples, given one after the other, get the same noise. Or a batch of columns (a
                mapping), as `datasets.map` passes it.
            sample: integers [...], the stable index of each row; row numbers in the form for `datasets.map`.
            epoch: in [0, 2^63); has no effect, the noise is drawn once.

        Returns:
            `(noisy, is_noisy)`: same shape, type, dtype and device as `tokens` (drawn on the CPU), and booleans of
            that shape, equal along a row but for positions with -100. For a mapping: see `columns`.

        Raises:
            ValueError: another placement, shapes do not fit, or a token is outside [0, V).
            TypeError: tokens, samples or the epoch are not integers.
        """
        self._check_replaces(epoch)
        if isinstance(tokens, Mapping):
            return self.columns(tokens, sample)
        if is_tensor(tokens):
            noisy, is_noisy = self(as_array("tokens", tokens), sample)
            return _like(tokens, noisy), _like(tokens, is_noisy)
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

    def flat(self, values: Any, lengths: Any, sample: Any, epoch: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """`noise(tokens, sample)` for ragged rows that lie one after the other, as in an Arrow list column.

        Args:
            values: integers [sum(lengths)].
            lengths: integers [N], the number of tokens in each row.
            sample: integers [N], the stable index of each row.

        Returns:
            `(noisy, is_noisy)`, both [sum(lengths)].

        Raises:
            ValueError, TypeError: as for a call, or the three do not fit together.
        """
        self._check_replaces(epoch)
        values, sample = integers("values", values), integers("sample", sample)
        lengths = check_ragged(values, integers("lengths", lengths), sample)
        check_dtype(values.dtype, np.iinfo(values.dtype).max, self.vocab_size)
        ignored = ignored_positions(values, self.vocab_size)
        noisy, is_noisy = values.copy(), np.zeros(values.shape, dtype=bool)
        starts, replaced = np.cumsum(lengths) - lengths, self.replaced(sample)
        for length in np.unique(lengths[replaced]).tolist():
            rows = np.flatnonzero(replaced & (lengths == length))
            places = starts[rows, None] + np.arange(length)
            noisy[places], is_noisy[places] = self.rows(sample[rows], length), True
        if ignored is not None:
            noisy[ignored], is_noisy[ignored] = values[ignored], False
        return noisy, is_noisy

    def _check_replaces(self, epoch: int) -> None:
        if self.placement != "replace":
            raise ValueError(self.if_not_drawn)
        check_epoch(epoch)

    def columns(self, batch: Mapping[str, Any], indices: Any, epoch: int = 0) -> dict[str, Any]:
        """The form for `datasets.map(noise, batched=True, with_indices=True)`.

        Args:
            batch: columns with `input_ids` and perhaps `labels` of the same lengths; each row is a document, without
                padding.
            indices: row numbers, used as sample ids unless the batch has a column `sample_id`.

        Returns:
            The columns `input_ids` and `labels` (both noise in a replaced row), `clean_input_ids`, `clean_labels`,
            `is_noisy` (a list for each row) and `sample_id`.
        """
        check_batch(batch)
        if "input_ids" not in batch:
            raise ValueError(f"there is no column 'input_ids' to corrupt, only: {', '.join(map(str, batch))}")
        sample = integers("sample_id", batch.get("sample_id", indices))
        inputs = integer_rows("input_ids", batch["input_ids"])
        labels = integer_rows("labels", batch["labels"]) if "labels" in batch else inputs
        if not sample.shape == (len(inputs),) == (len(labels),):
            raise ValueError(
                f"{len(inputs)} rows of input_ids need one row of labels and one sample id each, got {len(labels)} "
                f"labels and sample ids {list(sample.shape)}"
            )
        # The inputs last: they have no -100, so `is_noisy` is True along all of a replaced row.
        noisy_labels, _ = self._each(labels, sample)
        noisy_inputs, is_noisy = self._each(inputs, sample)
        return {
            "input_ids": noisy_inputs,
            "labels": noisy_labels,
            "clean_input_ids": inputs,
            "clean_labels": labels,
            "is_noisy": is_noisy,
            "sample_id": sample,
        }

    def _each(self, rows: list[np.ndarray], sample: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        pairs = [self(row, number) for row, number in zip(rows, sample, strict=True)]
        return [noisy for noisy, _ in pairs], [is_noisy for _, is_noisy in pairs]


@lru_cache(maxsize=4)
def cumulative(noise: DocumentNoise) -> np.ndarray:
    """Table to draw tokens by: int64 [V], token i has the units (53-bit integers) from entry i - 1 up to entry i."""
    weights = noise.weights()
    if noise.exclude is not None:
        weights[noise.exclude] = 0
    total = np.cumsum(weights)
    if not total[-1] > 0:
        raise ValueError(f"nothing but the excluded token {noise.exclude} could be drawn; give a larger std")
    table = np.rint(total / total[-1] * 2.0**counter.UNIT_BITS).astype(np.int64)
    table.setflags(write=False)
    return table


def _check_rows_held(rows: int) -> None:
    if rows >= _MOST_HELD:
        raise ValueError(f"a number of clean rows that makes {rows} in all is too large; give fewer than 2^30")


def _like(values: Any, result: np.ndarray) -> Any:
    """The result as a tensor on the device of `values`, if that is one."""
    if not is_tensor(values):
        return result
    import torch

    return torch.from_numpy(result).to(values.device)
