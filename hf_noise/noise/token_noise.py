"""What the token noises share: targets of a language model that are replaced one by one, the inputs staying clean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from hf_noise.noise import counter, draws, rates
from hf_noise.noise.arrays import (
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
from hf_noise.noise.base import Noise, Unit, check_redraw
from hf_noise.noise.checks import check_seed

__all__ = ["MAX_VOCAB_SIZE", "TokenNoise"]

_VOCAB_BITS = 31
MAX_VOCAB_SIZE = 1 << _VOCAB_BITS

# Of training steps, which ask for the same few again and again.
_offsets = lru_cache(maxsize=8)(counter.weyl)
_largest = lru_cache(maxsize=8)(lambda dtype: int(np.iinfo(dtype).max))


@dataclass(frozen=True, kw_only=True)
class TokenNoise(Noise):
    """Base of the token noises: rates, ids, and drawing for rows of any lengths, in NumPy and in torch.

    A subclass is a dataclass with `protocol`, `stream`, `names`, `replace_block`, a docstring whose first line says
    what it does, and perhaps fields of its own and `redraw: Redraw = "epoch"` (else it is drawn once). For tensors it
    names a `twin`; without one they pass through NumPy, and a GPU waits.

    The noise of a token is a pure function of (seed, epoch, sample id, index in its row).
    """

    unit: ClassVar[Unit] = "tokens"
    #: Module of a function `replace(tokens, sample, key, offsets, *draw_arguments)`, see `tokens_torch.replace`.
    twin: ClassVar[str | None] = None

    # Equal rates are equal noises, whichever way and with however many digits the rate was spelt.
    ratio: float = field(default=None, compare=False)  # type: ignore[assignment]
    error_rate: float = None  # type: ignore[assignment]
    vocab_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        r, e = rates.resolve(self.ratio, self.error_rate)
        object.__setattr__(self, "ratio", r)
        object.__setattr__(self, "error_rate", e)
        object.__setattr__(self, "seed", check_seed(self.seed))
        if any(own.name == "redraw" for own in fields(self)):
            object.__setattr__(self, "redraw", check_redraw(self.redraw))
        size = check_vocab_size(self.vocab_size, self.smallest_vocabulary, _VOCAB_BITS)
        object.__setattr__(self, "vocab_size", size)
        draws.threshold(e)  # raises for a rate too small to draw

    @property
    def smallest_vocabulary(self) -> int:
        """The fewest tokens that it can be drawn from."""
        return 1

    @property
    def threshold(self) -> int:
        """A token is noisy if the upper half of its word is below this integer in [0, 2^32]."""
        return draws.threshold(self.error_rate)

    @property
    def draw_arguments(self) -> tuple[Any, ...]:
        """What the twin needs to draw besides tokens and words: Python numbers, and arrays that it gets as tensors."""
        return (self.threshold,)

    def replace_block(
        self,
        tokens: np.ndarray,
        is_noisy: np.ndarray,
        words: np.ndarray,
        scratch: np.ndarray,
        ignored: np.ndarray | None,
    ) -> None:
        """Corrupt a block of tokens in place; see `draws.replace_uniformly` for its arguments."""
        raise NotImplementedError(f"{type(self).__name__} has no replace_block")

    def on_device(self, tokens: Any, sample: Any, epoch: int = 0, *, compiled: bool = False) -> Any:
        from hf_noise.noise import tokens_torch

        return tokens_torch.corrupt(self, tokens, sample, epoch, compiled)

    def __call__(self, tokens: Any, sample: Any, epoch: int = 0) -> Any:
        """Corrupt rows of tokens.

        Args:
            tokens: integers [..., L], NumPy array or torch tensor on any device, values in [0, V) or -100 (ignored
                positions, left as they are). Or a batch of columns (a mapping), as `datasets.map` passes it.
            sample: integers [...], the stable index of each row; row numbers in the form for `datasets.map`.
            epoch: which epoch's noise to draw, in [0, 2^63) (no effect with `redraw="never"`).

        Returns:
            `(noisy, is_noisy)`: same shape, type, dtype and device as `tokens`, and booleans that mark the replaced
            positions. For a mapping: the new columns, see `columns`.

        Raises:
            ValueError: shapes do not fit, or a token is outside [0, V) (not checked on a GPU, where looking would
                make the device wait).
            TypeError: tokens, samples or the epoch are not integers.
        """
        if isinstance(tokens, Mapping):
            return self.columns(tokens, sample, epoch)
        if is_tensor(tokens):
            return self.on_device(tokens, sample, epoch)
        tokens, sample = integers("tokens", tokens), integers("sample", sample)
        check_rows(tokens, sample)
        if 0 < tokens.size <= draws.BLOCK:
            return self._one_block(tokens, sample, epoch)
        length = tokens.shape[-1]
        lengths = np.full(sample.size, length)
        noisy, is_noisy = self.flat(tokens.reshape(-1), lengths, sample.reshape(-1), epoch)
        return noisy.reshape(tokens.shape), is_noisy.reshape(tokens.shape)

    def _one_block(self, tokens: np.ndarray, sample: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """What `flat` makes of rows [..., L] of one length, without what only many or unequal ones need."""
        check_dtype(tokens.dtype, _largest(tokens.dtype), self.vocab_size)
        noisy, is_noisy = np.array(tokens, order="C", subok=False), np.empty(tokens.shape, dtype=bool)
        keys = counter.row_keys(self.seed, self.stream, self.epoch_drawn(epoch), sample)
        work = np.empty((2, *tokens.shape), dtype=np.uint64)
        self._replace(noisy, is_noisy, keys[..., None], _offsets(tokens.shape[-1]), work)
        return noisy, is_noisy

    def flat(
        self, values: Any, lengths: Any, sample: Any, epoch: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Corrupt ragged rows that lie one after the other, as in an Arrow list column.

        Args:
            values: integers [sum(lengths)].
            lengths: integers [N], the number of tokens in each row.
            sample: integers [N], the stable index of each row.

        Returns:
            `(noisy, is_noisy)`, both [sum(lengths)].

        Raises:
            ValueError: the three do not fit together, or a token is outside [0, V).
            TypeError: one of them holds no integers, or the epoch is none.
        """
        values, sample = integers("values", values), integers("sample", sample)
        lengths = check_ragged(values, integers("lengths", lengths), sample)
        shortest, longest = (int(lengths.min()), int(lengths.max())) if lengths.size else (0, 0)
        check_dtype(values.dtype, np.iinfo(values.dtype).max, self.vocab_size)
        noisy, is_noisy = values.copy(), np.empty(values.shape, dtype=bool)
        keys = counter.row_keys(self.seed, self.stream, self.epoch_drawn(epoch), sample)
        step = max(1, draws.BLOCK // longest) if shortest == longest > 0 else 1
        ends = np.cumsum(lengths)
        work = np.empty(2 * min(draws.BLOCK, values.size), dtype=np.uint64)
        for row in range(0, lengths.size, step):
            length = int(lengths[row])
            first = int(ends[row]) - length
            rows = min(step, lengths.size - row)
            for start in range(0, length, draws.BLOCK):
                stop = min(start + draws.BLOCK, length)
                # Either several whole rows, or a piece of one long row.
                span = slice(first, first + rows * length) if rows > 1 else slice(first + start, first + stop)
                shape = (rows, stop - start)
                self._replace(
                    noisy[span].reshape(shape), is_noisy[span].reshape(shape), keys[row : row + rows, None],
                    counter.weyl(stop - start, start), work[: 2 * rows * (stop - start)],
                )
        return noisy, is_noisy

    def _replace(self, tokens, is_noisy, keys, offsets, work) -> None:
        """Corrupt one block [R, L] in place; `work` is space for uint64 [2, R * L]."""
        ignored = ignored_positions(tokens, self.vocab_size)
        words, scratch = work.reshape(2, *tokens.shape)
        counter.words(keys, offsets, out=words, scratch=scratch)
        self.replace_block(tokens, is_noisy, words, scratch, ignored)

    def columns(self, batch: Mapping[str, Any], indices: Any, epoch: int = 0) -> dict[str, Any]:
        """The form for `datasets.map(noise, batched=True, with_indices=True)`.

        Args:
            batch: columns with `labels`, or `input_ids` to take the targets from; rows of any lengths.
            indices: row numbers, used as sample ids unless the batch has a column `sample_id`.

        Returns:
            The columns `labels` (noisy), `clean_labels`, `is_noisy` and `sample_id`.
        """
        check_batch(batch)
        source = "labels" if "labels" in batch else "input_ids"
        if source not in batch:
            names = ", ".join(map(str, batch))
            raise ValueError(f"there is no column 'labels' or 'input_ids' to corrupt, only: {names}")
        sample = integers("sample_id", batch.get("sample_id", indices))
        rows = integer_rows(source, batch[source])
        lengths = np.array([row.size for row in rows], dtype=np.int64)
        values = np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)
        noisy, is_noisy = self.flat(values, lengths, np.atleast_1d(sample), epoch)
        cuts = np.cumsum(lengths)[:-1]
        return {
            "labels": np.split(noisy, cuts),
            "clean_labels": rows,
            "is_noisy": np.split(is_noisy, cuts),
            "sample_id": sample,
        }
