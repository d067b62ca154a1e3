"""Token noise of paper A: targets of a language model replaced by uniform draws from the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hf_noise.noise import draws
from hf_noise.noise.arrays import IGNORE_INDEX
from hf_noise.noise.base import Redraw
from hf_noise.noise.checks import check_flag
from hf_noise.noise.token_noise import MAX_VOCAB_SIZE, TokenNoise

__all__ = ["UniformTokens", "IGNORE_INDEX", "MAX_VOCAB_SIZE"]


@dataclass(frozen=True, kw_only=True)
class UniformTokens(TokenNoise):
    """Replace each token, with probability e = r / (1 + r), by a uniform draw from the vocabulary.

    Paper A, algorithm 2. Called on arrays `(tokens, sample=ids, epoch=0) -> (noisy, is_noisy)`, or by
    `datasets.Dataset.map(noise, batched=True, with_indices=True)`.

    The noise of a token is a pure function of (seed, epoch, sample id, index in its row): NumPy, torch on a CPU and
    torch on a GPU draw the same, in any batch and order. In `labels` of a causal language model, index t is the
    target that is predicted from the tokens before t; the inputs stay clean.

    Args:
        ratio: r >= 0, noisy tokens per clean token. Give this or `error_rate`.
        error_rate: e in [0, 1), the share of tokens that are replaced.
        vocab_size: V in [1, 2^31]; replacements are 0 .. V - 1.
        seed: integer in [0, 2^63).
        exclude_original: draw from the V - 1 other tokens. By default a replacement may repeat the original, as in
            the paper, so that e (1 - 1/V) of the tokens end up wrong.
        redraw: "epoch" draws fresh noise in every epoch (dynamic), "never" repeats that of epoch 0 (static).

    Raises:
        ValueError: a value is out of range, or neither or both of `ratio` and `error_rate` are given.
        TypeError: a value is of another type; `exclude_original` is a bool, and 1 is none.

    Example:
        >>> import numpy as np
        >>> noise = UniformTokens(ratio=1.0, vocab_size=50257)
        >>> noisy, is_noisy = noise(np.zeros((2, 1024), dtype=np.int64), sample=np.array([0, 1]))
        >>> round(float(is_noisy.mean()), 1)
        0.5
    """

    protocol: ClassVar[str] = "uniform_tokens"
    stream: ClassVar[int] = 1
    names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"uniform-tokens": {}}
    twin: ClassVar[str] = "hf_noise.noise.tokens_torch"

    exclude_original: bool = False
    redraw: Redraw = "epoch"  # type: ignore[misc]

    def __post_init__(self) -> None:
        object.__setattr__(self, "exclude_original", check_flag("exclude_original", self.exclude_original))
        super().__post_init__()

    @property
    def smallest_vocabulary(self) -> int:
        return 2 if self.exclude_original else 1

    @property
    def mixture_rate(self) -> float:
        """Weight of the uniform distribution over all V tokens in p(noisy | clean): (1 - w) onehot + w / V.

        It is e, or e V / (V - 1) with `exclude_original`. The corrected likelihood needs it.
        """
        if not self.exclude_original:
            return self.error_rate
        return self.error_rate * self.vocab_size / (self.vocab_size - 1)

    @property
    def stay_rate(self) -> float:
        return 0.0 if self.exclude_original else 1 / self.vocab_size

    @property
    def draw_arguments(self) -> tuple[int, int, bool]:
        """(threshold, choices, exclude) of `draws.replace_uniformly`: ids are 0 .. choices - 1."""
        return self.threshold, self.vocab_size - self.exclude_original, self.exclude_original

    def replace_block(self, tokens, is_noisy, words, scratch, ignored) -> None:
        draws.replace_uniformly(tokens, is_noisy, words, scratch, ignored, *self.draw_arguments)
