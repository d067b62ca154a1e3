"""What a replaced token was drawn from: any distribution over the vocabulary, or one of look-alikes of the true one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from hf_noise.noise import Noise, UniformTokens
from hf_noise.noise.arrays import real_numbers
from hf_noise.noise.checks import check_count
from hf_noise.noise.mixture import DocumentNoise

__all__ = ["LOOK_ALIKES", "Confusions", "Draws", "TokenLaw", "look_alikes", "token_law"]

#: Characters that a reader of print takes for one another, both ways.
LOOK_ALIKES = ("0O", "0o", "1l", "1I", "lI", "5S", "5s", "8B", "6b", "9g", "2Z", "2z", "ce", "eo", "ao", "hb", "uv",
               "un", "nr", "ij", "il", "tf", "ft", "gq", "vy", "nh", "CG", "OQ", "DO", "EF", "PR", "UV", ",.", ":;")
_LARGEST_DENSE = 1 << 13  # tokens of a confusion matrix that is given as an array


@dataclass(frozen=True)
class TokenLaw:
    """The law of a replacement. `name` says it in a record; `is_fixed`, that it knows nothing of the true token."""

    name: str
    vocab_size: int

    is_fixed = True

    def log_noise(self, log_p: Tensor, targets: Tensor) -> Tensor:
        """Log-probability [...] that a replacement is the target [...], where the model predicts log_p [..., V]."""
        raise NotImplementedError

    def stays(self, targets: Tensor) -> Tensor:
        """Probability float32 [...] that this token, to be replaced, stays what it is; 0 of fixed draws."""
        return torch.zeros(targets.shape, device=targets.device)

    def log_wrong(self, log_p: Tensor, targets: Tensor) -> Tensor:
        """`log_noise` without the part of it that stays what it was."""
        return self.log_noise(log_p, targets)

    def sources(self, log_p: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """What stood there, drawn given that the target [...] is a replacement, and wrong."""
        raise NotImplementedError


@dataclass(frozen=True)
class Draws(TokenLaw):
    """Replacements drawn from fixed probabilities, float64 [V], whatever was there."""

    probabilities: np.ndarray = field(repr=False, compare=False, default=None)

    @cached_property
    def log_q(self) -> Tensor:
        with np.errstate(divide="ignore"):
            return torch.from_numpy(np.log(self.probabilities)).float()

    def log_noise(self, log_p: Tensor, targets: Tensor) -> Tensor:
        return self.log_q.to(log_p.device)[targets]

    def sources(self, log_p: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        return _drawn(log_p, generator)

    def tails(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Share [n] of the law on tokens that the model finds likelier, beside the law, than the targets [n]."""
        own = targets.unsqueeze(-1)
        if self.name == "uniform":
            above = (logits[:, : self.vocab_size] > logits.gather(-1, own)).sum(-1)
            return (above + 0.5) / self.vocab_size
        log_q = self.log_q.to(logits.device)
        likelier = logits[:, : self.vocab_size] - log_q
        q = log_q.exp()
        return (likelier > likelier.gather(-1, own)).to(q.dtype) @ q + q[targets] / 2


@dataclass(frozen=True)
class Confusions(TokenLaw):
    """Replacements that depend on what was there: row z of a sparse [V, V] holds p(replacement | z), and sums to 1."""

    matrix: Any = field(repr=False, compare=False, default=None)

    is_fixed = False

    @cached_property
    def _padded(self) -> tuple[Tensor, Tensor]:
        """For each token what may have stood there: ids and log-probabilities [V, widest], -inf where there is none."""
        columns = sparse.csc_matrix(self.matrix)
        counts = np.diff(columns.indptr)
        ids = np.zeros((self.vocab_size, max(1, counts.max())), dtype=np.int64)
        logs = np.full(ids.shape, -np.inf, dtype=np.float32)
        place = np.arange(columns.nnz) - np.repeat(columns.indptr[:-1], counts)
        token = np.repeat(np.arange(self.vocab_size), counts)
        with np.errstate(divide="ignore"):
            ids[token, place], logs[token, place] = columns.indices, np.log(columns.data)
        return torch.from_numpy(ids), torch.from_numpy(logs)

    def _joint(self, log_p: Tensor, targets: Tensor, others_alone: bool = False) -> tuple[Tensor, Tensor]:
        ids, logs = (part.to(log_p.device)[targets] for part in self._padded)
        if others_alone:
            logs = logs.masked_fill(ids == targets.unsqueeze(-1), -torch.inf)
        return ids, log_p.gather(-1, ids) + logs

    @cached_property
    def _diagonal(self) -> Tensor:
        return torch.from_numpy(self.matrix.diagonal().astype(np.float32))

    def stays(self, targets: Tensor) -> Tensor:
        return self._diagonal.to(targets.device)[targets]

    def log_noise(self, log_p: Tensor, targets: Tensor) -> Tensor:
        return torch.logsumexp(self._joint(log_p, targets)[1], -1)

    def log_wrong(self, log_p: Tensor, targets: Tensor) -> Tensor:
        return torch.logsumexp(self._joint(log_p, targets, others_alone=True)[1], -1)

    def sources(self, log_p: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        ids, joint = self._joint(log_p, targets, others_alone=True)
        none = joint.isinf().all(-1, keepdim=True)  # whose particle has no weight: anything may stand for it
        chosen = _drawn(torch.log_softmax(joint.masked_fill(none, 0.0), -1), generator)
        return ids.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)


def _drawn(log_p: Tensor, generator: torch.Generator) -> Tensor:
    flat = log_p.flatten(0, -2).exp()
    return torch.multinomial(flat, 1, generator=generator).view(log_p.shape[:-1])


def token_law(kind: Any, vocab_size: int, counts: np.ndarray | None = None) -> TokenLaw:
    """The law that a word, an array, a matrix or a noise stands for.

    Args:
        kind: "uniform" over all V; "unigram", as often as in `counts`; float [V], probabilities of replacements
            whatever was there; a [V, V] array or sparse matrix whose rows are p(replacement | true token); a
            `UniformTokens` noise, or noise of whole documents (its distribution of tokens).
        vocab_size: V.
        counts: integers [V], how often each token stands in the corpus, for "unigram".

    Raises:
        TypeError: kind is of another type.
        ValueError: another word or noise, another number of tokens, or numbers that are no probabilities.
    """
    vocab_size = check_count("vocab_size", vocab_size, 2, 31)
    if isinstance(kind, Noise):
        return _of_noise(kind, vocab_size)
    if isinstance(kind, str):
        if kind == "uniform":
            return Draws("uniform", vocab_size, np.full(vocab_size, 1 / vocab_size))
        if kind == "unigram":
            if counts is None:
                raise ValueError('kind="unigram" needs counts, how often each token stands in the corpus')
            return Draws("unigram", vocab_size, _probabilities("counts", counts, vocab_size, scaled=True))
        raise ValueError(f'kind must be "uniform", "unigram", float [V], a [V, V] matrix of confusions or a noise on '
                         f"tokens or documents, got {kind!r:.80}")  # fmt: skip
    if sparse.issparse(kind):
        return Confusions("confusions", vocab_size, _rows(sparse.csr_matrix(kind), vocab_size))
    if isinstance(kind, Mapping) or kind is None:
        raise TypeError(f"kind must be a word, an array, a matrix or a noise, got {kind!r:.80}")
    array = real_numbers("kind", kind)
    if array.ndim == 2:
        if max(array.shape) > _LARGEST_DENSE:
            raise ValueError(f"kind is an array {list(array.shape)}; give confusions of more than {_LARGEST_DENSE} "
                             "tokens as a scipy.sparse matrix")  # fmt: skip
        return Confusions("confusions", vocab_size, _rows(sparse.csr_matrix(array), vocab_size))
    return Draws("given", vocab_size, _probabilities("kind", array, vocab_size))


def look_alikes(tokens: Mapping[str, int], vocab_size: int, pairs: Any = LOOK_ALIKES) -> sparse.csr_matrix:
    """Confusions [V, V] of reading print: one character of a token is taken for one that looks like it.

    Of the tokens that a token can become so, each is as likely; one that can become none stays what it is, so that it
    is never wrong, and the rate that an audit finds is that of tokens that were read at all carelessly.

    Args:
        tokens: id of each token, as `tokenizer.get_vocab()` gives it.
        vocab_size: V, of the model.
        pairs: texts of two characters that look alike.

    Raises:
        ValueError: an id is outside [0, V), or a pair is no two characters.
    """
    alike: dict[str, set[str]] = {}
    for pair in pairs:
        if not isinstance(pair, str) or len(pair) != 2:
            raise ValueError(f"pairs must be texts of two characters, got {pair!r:.40}")
        alike.setdefault(pair[0], set()).add(pair[1])
        alike.setdefault(pair[1], set()).add(pair[0])
    vocab_size = check_count("vocab_size", vocab_size, 2, 31)
    rows, columns, values = [], [], []
    for text, token in tokens.items():
        if not 0 <= token < vocab_size:
            raise ValueError(f"token ids must lie in [0, {vocab_size}), got {token} of {text!r:.40}")
        others = {tokens[text[:i] + other + text[i + 1 :]] for i, character in enumerate(text)
                  for other in alike.get(character, ()) if text[:i] + other + text[i + 1 :] in tokens}  # fmt: skip
        for other in sorted(others):
            rows.append(token), columns.append(other), values.append(1 / len(others))
    alone = np.setdiff1d(np.arange(vocab_size), rows)
    return sparse.csr_matrix((np.r_[values, np.ones(len(alone))], (np.r_[rows, alone].astype(int),
                              np.r_[columns, alone].astype(int))), shape=(vocab_size, vocab_size))  # fmt: skip


def _of_noise(noise: Noise, vocab_size: int) -> TokenLaw:
    size = getattr(noise, "vocab_size", None)
    if isinstance(noise, UniformTokens | DocumentNoise) and size > vocab_size:
        raise ValueError(f"the noise draws from {size} tokens, and the model knows {vocab_size}")
    if isinstance(noise, UniformTokens):
        if size == vocab_size:
            return token_law("uniform", vocab_size)
        return Draws("given", vocab_size, np.r_[np.full(size, 1 / size), np.zeros(vocab_size - size)])
    if isinstance(noise, DocumentNoise):
        return Draws(noise.protocol, vocab_size, np.r_[noise.probabilities(), np.zeros(vocab_size - size)])
    raise ValueError(f"kind cannot be {type(noise).__name__}: it draws no tokens from a law that is known; audits take "
                     "UniformTokens, RandomDocuments and GaussianDocuments, or the law as an array")  # fmt: skip


def _probabilities(name: str, values: Any, vocab_size: int, scaled: bool = False) -> np.ndarray:
    values = real_numbers(name, values)
    if values.shape != (vocab_size,):
        raise ValueError(f"{name} must be [{vocab_size}], one number a token, got {list(values.shape)}")
    total = values.sum()
    if not (values >= 0).all() or not math.isfinite(total) or total <= 0 or not scaled and abs(total - 1) > 1e-3:
        raise ValueError(f"{name} must be >= 0 and sum to {'more than 0' if scaled else '1'}, the sum is {total:g}")
    return values / total


def _rows(matrix: sparse.csr_matrix, vocab_size: int) -> sparse.csr_matrix:
    if matrix.shape != (vocab_size, vocab_size):
        raise ValueError(f"kind, as confusions, must be [{vocab_size}, {vocab_size}], got {list(matrix.shape)}")
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    if not np.isfinite(matrix.data).all() or (matrix.data < 0).any() or (np.abs(sums - 1) > 1e-3).any():
        worst = int(np.argmax(np.abs(sums - 1)))
        raise ValueError("each row of kind, as confusions, must be >= 0 and sum to 1, row "
                         f"{worst} sums to {sums[worst]:g}")  # fmt: skip
    return sparse.csr_matrix(sparse.diags(1 / sums) @ matrix)
