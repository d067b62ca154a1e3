"""BERT's masking: which tokens of a row are predicted, and what stands in their place; a value like the noises.

It is no noise: it falls on what a model reads, the target of a masked position stays what it was, and every run of a
masked language model has it, clean or noisy. So it stands beside the noise, with draws of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np

from hf_noise.noise import counter, draws
from hf_noise.noise.arrays import (
    IGNORE_INDEX,
    check_dtype,
    check_rows,
    check_vocab_size,
    ignored_positions,
    integers,
    is_tensor,
)
from hf_noise.noise.checks import check_epoch, check_flag, check_integer, check_real, check_seed

__all__ = ["BLOCK", "Masking"]

#: One block of tokens passes through all operations at once; much is done for its masked tokens alone, so it is large.
BLOCK = 1 << 15

_VOCAB_BITS = 20  # up to which half a random word is enough for a token
_offsets = lru_cache(maxsize=8)(counter.weyl)


@dataclass(frozen=True, kw_only=True)
class Masking:
    """Predict 15% of the tokens; of these 80% are read as the mask token, 10% as a random token, 10% as they are.

    Devlin et al., "BERT" (2019), section 3.1 and appendix C.2, with masks drawn anew in every epoch as Liu et al.,
    "RoBERTa" (2019), do. Each token is chosen on its own, so that a short row may have none that is masked.

    What becomes of a token is a pure function of (seed, epoch, sample id, index in its row): NumPy, torch on a CPU and
    torch on a GPU draw the same, in any batch and order.

    Args:
        vocab_size: V in [1, 2^20]; random tokens are 0 .. V - 1, as of the tokenizer.
        mask_token: its id in [0, V]: one of the tokenizer's, or V, which a tokenizer without a mask token leaves free.
        probability: share of the tokens that are predicted, in (0, 1).
        mask_share, random_share: shares of the predicted ones that are read as the mask token and as a random token,
            >= 0 and together at most 1; the rest is read as it is.
        special_tokens: ids that are never masked, beside the mask token.
        seed: integer in [0, 2^63).

    Raises:
        ValueError: a value is out of range.
        TypeError: a value is of another type.

    Example:
        >>> masking = Masking(vocab_size=50257, mask_token=50257)
        >>> tokens = np.zeros((64, 128), dtype=np.int64)
        >>> inputs, targets = masking(tokens, sample=np.arange(64))
        >>> round(float((targets != -100).mean()), 2), round(float((inputs == 50257).mean()), 2), masking.num_tokens
        (0.15, 0.12, 50258)
    """

    version: ClassVar[int] = 1
    stream: ClassVar[int] = 48
    evaluation_stream: ClassVar[int] = 49

    vocab_size: int
    mask_token: int
    probability: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    special_tokens: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        size = check_vocab_size(self.vocab_size, 1, _VOCAB_BITS)
        mask_token = check_integer("mask_token", self.mask_token)
        if not 0 <= mask_token <= size:
            raise ValueError(
                f"mask_token must lie in [0, {size}], got {mask_token}: one of the ids 0 to {size - 1} of the "
                f"vocabulary, or {size} for one that the model knows beside them"
            )
        probability = check_real("probability", self.probability)
        if not 0 < probability < 1 or not 0 < round(probability * 2**32) < 2**32:
            raise ValueError(f"probability must lie in (0, 1), got {self.probability!r}; it is the share of the tokens "
                             "that are predicted, 0.15 in BERT")  # fmt: skip
        shares = {name: check_real(name, getattr(self, name)) for name in ("mask_share", "random_share")}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {share!r}; it is a share of the predicted tokens")
        if sum(shares.values()) > 1 + 1e-9:
            raise ValueError(f"mask_share and random_share must be at most 1 together, got {shares['mask_share']!r} "
                             f"and {shares['random_share']!r}; the rest is read as it is")  # fmt: skip
        made = {
            "vocab_size": size, "mask_token": mask_token, "probability": probability, **shares,
            "special_tokens": _ids("special_tokens", self.special_tokens, size), "seed": check_seed(self.seed),
        }  # fmt: skip
        for name, value in made.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of_tokenizer(
        cls, tokenizer: Any, *, mask_token: int | Literal["beyond"] | None = None, **others: Any
    ) -> Masking:
        """The masking for the rows of a tokenizer of transformers; its special tokens are never masked.

        Args:
            tokenizer: with `mask_token_id`, `get_vocab` and `all_special_ids`.
            mask_token: None for the tokenizer's own; "beyond" for the id after its last, where it has none: no id
                changes, and the model has an embedding more (`num_tokens`); or an id.
            **others: further arguments of `Masking`.

        Raises:
            ValueError: the tokenizer has no mask token, or "beyond" is asked of one that has.
            TypeError: this is no tokenizer.
        """
        if not all(hasattr(tokenizer, name) for name in ("mask_token_id", "get_vocab", "all_special_ids")):
            raise TypeError(f"tokenizer must be one of transformers, got {tokenizer!r:.80}")
        size, own = max(tokenizer.get_vocab().values()) + 1, tokenizer.mask_token_id
        if mask_token is None and own is None:
            raise ValueError(
                f'the tokenizer {tokenizer.name_or_path!r} has no mask token; give mask_token="beyond" for the id '
                f"{size}, which is free, and a model of {size + 1} tokens, or set the tokenizer's mask_token"
            )
        if isinstance(mask_token, str):
            if mask_token != "beyond":
                raise ValueError(f'mask_token must be "beyond", an id or None, got {mask_token!r:.80}')
            if own is not None:
                raise ValueError(f'the tokenizer {tokenizer.name_or_path!r} has a mask token, {own}; leave '
                                 'mask_token="beyond" out')  # fmt: skip
            mask_token = size
        special = tuple(sorted(set(tokenizer.all_special_ids)))
        fields = {"vocab_size": size, "mask_token": own if mask_token is None else mask_token,
                  "special_tokens": special, **others}  # fmt: skip
        return cls(**fields)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Masking:
        """The masking again, from `to_dict()`.

        Raises:
            ValueError: it was written by another version, has unknown fields or lacks one, or a value is out of range.
            TypeError: this is no dictionary, or a field is of another type.
        """
        if not isinstance(config, Mapping):
            raise TypeError(f"a masking is stored as a dictionary, see Masking.to_dict(), got {config!r:.80}")
        fields = dict(config)
        version = fields.pop("version", None)
        if isinstance(version, bool) or version != cls.version:
            raise ValueError(f"the masking was written in version {version!r:.80} and this hf_noise draws version "
                             f"{cls.version}; install the hf_noise that wrote it to get the same draws")  # fmt: skip
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(map(str, set(fields) - set(known))):
            raise ValueError(f"a masking has no field {', '.join(unknown)}")
        if missing := [name for name in known if name not in fields]:
            raise ValueError(f"the masking needs the field {', '.join(missing)}; give all that to_dict() wrote")
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to make it again, as JSON-able values under the keys of its fields."""
        return {"version": self.version, **dataclasses.asdict(self), "special_tokens": list(self.special_tokens)}

    @property
    def num_tokens(self) -> int:
        """How many tokens a model has to know: V, or one more where the mask token is none of them."""
        return max(self.vocab_size, self.mask_token + 1)

    @property
    def sentence(self) -> str:
        """What it does, for a card."""
        kept = max(0.0, 1 - self.mask_share - self.random_share)
        return (
            f"{self.probability:.4g} of the tokens are masked and predicted, drawn anew in every epoch (seed "
            f"{self.seed}): {self.mask_share:.4g} of these are read as the mask token, {self.random_share:.4g} as a "
            f"random token, {kept:.4g} as they are."
        )

    @property
    def limits(self) -> tuple[int, int, int]:
        """A token is read as the mask token, another one, or predicted at all, if the upper half of its word is below.

        Integers in [0, 2^32), in ascending order.
        """
        every = round(self.probability * 2**32)
        mask, random = self.mask_share, self.mask_share + self.random_share
        of_random = min(every, round(self.probability * random * 2**32))
        return min(of_random, round(self.probability * mask * 2**32)), of_random, every

    @property
    def never(self) -> tuple[int, ...]:
        """The ids that are never masked."""
        return tuple(sorted({*self.special_tokens, self.mask_token}))

    def drawn_from(self, epoch: int, evaluation: bool) -> tuple[int, int, int]:
        """(seed, stream, epoch) of the draws. Those of evaluations are the same for every seed and epoch."""
        in_training = self.seed, self.stream, check_epoch(epoch)
        return (0, self.evaluation_stream, 0) if check_flag("evaluation", evaluation) else in_training

    def __call__(
        self, tokens: Any, sample: Any, epoch: int = 0, *, targets: Any = None, evaluation: bool = False
    ) -> tuple[Any, Any]:
        """Mask rows of tokens.

        Args:
            tokens: integers [..., L], what is there to be read, NumPy array or torch tensor on any device, in
                [0, `num_tokens`).
            sample: integers [...], the stable index of each row.
            epoch: which epoch's masks to draw, in [0, 2^63).
            targets: integers [..., L], what is to be predicted, by default the tokens: -100 at positions that are never
                masked, such as padding.
            evaluation: draw the masks of evaluations, which are the same in every one of them, whatever seed and epoch.

        Returns:
            `(inputs, targets)`: what the model reads, of the tokens' shape, type and device; and what it is to predict,
            int64, -100 at all positions that are not masked.

        Raises:
            ValueError: shapes do not fit, or a token is out of range (not checked on a GPU, where looking would make
                the device wait).
            TypeError: tokens, samples, targets or the epoch are not integers.
        """
        if is_tensor(tokens):
            from hf_noise.noise import masking_torch

            return masking_torch.mask(self, tokens, sample, epoch, targets=targets, evaluation=evaluation)
        tokens, sample = integers("tokens", tokens), integers("sample", sample)
        read = tokens if targets is None else integers("targets", targets)
        check_rows(tokens, sample)
        check_targets(tokens, read)
        for name, values in (("tokens", tokens), ("targets", read)):
            check_dtype(values.dtype, np.iinfo(values.dtype).max, self.num_tokens, name)
        check_values(tokens, read, self.num_tokens)
        keys = counter.row_keys(*self.drawn_from(epoch, evaluation), sample).reshape(-1)
        inputs, masked = np.array(tokens, order="C", subok=False), np.full(tokens.shape, IGNORE_INDEX, dtype=np.int64)
        self._mask_rows(inputs.reshape(-1), np.ascontiguousarray(read).reshape(-1), masked.reshape(-1), keys)
        return inputs, masked

    def _mask_rows(self, inputs: np.ndarray, read: np.ndarray, masked: np.ndarray, keys: np.ndarray) -> None:
        """Mask flat rows of one length in place, a block at a time that fits into the processor's cache."""
        length = inputs.size // max(1, keys.size)
        if not length:
            return
        offsets, work = _offsets(length), np.empty(2 * min(BLOCK, inputs.size), dtype=np.uint64)
        rows = max(1, BLOCK // length)
        for row in range(0, keys.size, rows):
            for start in range(0, length, BLOCK):
                of = keys[row : row + rows, None], offsets[start : start + BLOCK]
                shape = len(of[0]), len(of[1])
                n, first = shape[0] * shape[1], row * length + start
                words = counter.words(*of, work[:n].reshape(shape), work[n : 2 * n].reshape(shape)).reshape(-1)
                block = slice(first, first + n)
                self._mask_block(inputs[block], read[block], masked[block], words)

    def _mask_block(self, inputs: np.ndarray, read: np.ndarray, masked: np.ndarray, words: np.ndarray) -> None:
        """Mask one block [n] in place: after the first comparison only the chosen positions are looked at."""
        of_mask, of_random, of_any = (np.uint64(limit << 32) for limit in self.limits)
        chosen = np.flatnonzero(words < of_any)
        words, target, token = words[chosen], read[chosen], inputs[chosen]
        allowed = target != IGNORE_INDEX
        for special in self.never:
            allowed &= token != special
        if not allowed.all():
            chosen, words, target = chosen[allowed], words[allowed], target[allowed]
        masked[chosen] = target
        is_mask = words < of_mask
        inputs[chosen[is_mask]] = self.mask_token
        is_random = ~is_mask & (words < of_random)
        random = words[is_random]
        inputs[chosen[is_random]] = draws.scale_one_word(random, self.vocab_size, out=random)


def check_targets(tokens: Any, targets: Any) -> None:
    """Raise ValueError unless targets have the shape of the tokens, as arrays or as tensors."""
    if targets.shape != tokens.shape:
        raise ValueError(f"targets must have the shape of the tokens, {list(tokens.shape)}, got {list(targets.shape)}")


def check_values(tokens: np.ndarray, targets: np.ndarray, num_tokens: int) -> None:
    """Raise ValueError for tokens outside [0, num_tokens), or targets that are neither in it nor -100."""
    if ignored_positions(tokens, num_tokens) is not None:
        raise ValueError(f"tokens hold {IGNORE_INDEX}, which no model can read; give the tokens, and targets= with "
                         f"{IGNORE_INDEX} where nothing is to be masked")  # fmt: skip
    if targets is not tokens:
        ignored_positions(targets, num_tokens)


def _ids(name: str, values: Any, largest: int) -> tuple[int, ...]:
    if not isinstance(values, list | tuple | set | frozenset | np.ndarray) or getattr(values, "ndim", 1) != 1:
        raise TypeError(f"{name} must be a list of ids, got {values!r:.80}")
    ids = tuple(sorted({check_integer(f"each of {name}", value) for value in values}))
    if ids and not 0 <= ids[0] <= ids[-1] <= largest:
        raise ValueError(f"{name} must be ids in [0, {largest}], got {ids[0] if ids[0] < 0 else ids[-1]}")
    return ids
