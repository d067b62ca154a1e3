"""Rows as a mixture of two sources: the language model's text, and documents of noise."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_noise.losses.checks import check_count, check_floats, check_tensor, on_host
from hf_noise.losses.learned_rate import LearnedErrorRate
from hf_noise.losses.sequence_mixture import log_shares, mixed_rows, row_sums

__all__ = ["LearnedDocuments", "document_mixture_nll", "noise_nll", "noise_table"]

#: Where a learned share of noise documents starts when nothing is known about the data.
INITIAL_ALPHA = 0.05


def document_mixture_nll(nll: Tensor, of_noise: Tensor, is_target: Tensor, alpha: float | Tensor) -> Tensor:
    """Equal parts, one for each target, of the NLL of its row as clean text or a document of noise.

    With L_c and L_n the sums of `nll` and `of_noise` over the targets of a row, that row's parts sum to
    -log((1 - alpha) exp(-L_c) + alpha exp(-L_n)). The gradient of the sum with respect to every `nll` of a row is the
    posterior probability that the row is clean: a row that is noise teaches nothing.

    A row with a target that the noise never draws (`of_noise` +inf) is clean for certain. A row that is part text and
    part noise is taken as one or the other as a whole; as text, unless nearly all of it is noise, since text is far
    less likely under the noise than noise is under the model.

    Args:
        nll: float [B, L], -log p of each target under the model, in nats.
        of_noise: float [B, L], -log p of it under the noise; may be +inf.
        is_target: bool [B, L]; what stands elsewhere does not count.
        alpha: share of the rows that are noise, in [0, 1), a float or a tensor of one number in (0, 1) that may require
            grad.

    Returns:
        Tensor of the shape and dtype of `nll`, 0 where there is no target.

    Raises:
        TypeError: nll, of_noise or a tensor alpha are not floating-point, or alpha is no number.
        ValueError: shapes do not agree, or alpha is out of its range.

    Source: mixture of two multinomials with one responsibility for a row, as in Dempster, Laird and Rubin 1977; the
        noise of documents is that of paper B (random gibberish in a crawl).
    """
    check_floats("nll", nll)
    check_floats("of_noise", of_noise)
    check_tensor("is_target", is_target)
    if is_target.dtype != torch.bool:
        raise TypeError(f"is_target must be a mask of booleans, got {is_target.dtype}")
    if nll.ndim != 2 or not nll.shape == of_noise.shape == is_target.shape:
        raise ValueError(f"nll, of_noise and is_target must be [B, L] of one shape, got {list(nll.shape)}, "
                         f"{list(of_noise.shape)} and {list(is_target.shape)}")  # fmt: skip
    shares = log_shares("alpha", alpha, "it is the share of documents that are noise")
    return mixed_rows(nll, row_sums(of_noise, is_target), is_target, *shares)


def noise_table(probabilities: np.ndarray, vocab_size: int) -> Tensor:
    """-log p of each token under a known noise, float32 [V], +inf for tokens that it never draws.

    Args:
        probabilities: numbers [n] in [0, 1], n <= V, of the first tokens.
        vocab_size: V in [1, 2^24], tokens of the model.

    Raises:
        TypeError: probabilities are no numbers, or V is no integer.
        ValueError: one is outside [0, 1], or the noise draws more tokens than the model knows.
    """
    vocab_size = check_count("vocab_size", vocab_size, 1, 1 << 24)
    p = on_host("probabilities", probabilities).numpy()
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"probabilities must be numbers [V] in [0, 1], got {list(p.shape)} numbers"
                         + (f" in [{p.min()}, {p.max()}]" if p.size else ""))  # fmt: skip
    if len(p) > vocab_size:
        raise ValueError(f"the noise draws ids up to {len(p) - 1} (probabilities), the model knows {vocab_size} "
                         "tokens; use one vocab_size for both")  # fmt: skip
    with np.errstate(divide="ignore"):
        table = -np.log(np.pad(p, (0, vocab_size - len(p))))
    return torch.from_numpy(table).float()


def noise_nll(table: Tensor, targets: Tensor) -> Tensor:
    """-log p of each target under the noise, [...] from its table [V]; 0 where there is no target (-100)."""
    is_target = targets >= 0
    return table[targets.where(is_target, 0)].where(is_target, 0)


class LearnedDocuments(nn.Module):
    """What is learned of noise documents beside a model: their share, or the distribution of their tokens, or both.

    Args:
        alpha: learn the share, from 0.05.
        vocab_size: V to learn a distribution over V tokens that begins as the uniform one, None to learn none.

    Raises:
        ValueError: there is nothing to learn.
    """

    def __init__(self, *, alpha: bool, vocab_size: int | None):
        super().__init__()
        if not alpha and vocab_size is None:
            raise ValueError("alpha is not learned and vocab_size is None: there is nothing to learn")
        self.alpha = LearnedErrorRate(INITIAL_ALPHA) if alpha else None
        self.unigram = None if vocab_size is None else nn.Parameter(torch.zeros(vocab_size))

    def share(self) -> Tensor:
        """The learned alpha [1], of float64 where the device has it: its logarithms are asked for near 0 and 1 too."""
        logit = self.alpha.logit
        return torch.sigmoid(logit if logit.device.type == "mps" else logit.double())

    def table(self) -> Tensor:
        """-log p of each token, float32 [V], differentiable."""
        return -F.log_softmax(self.unigram.float(), dim=-1)

    def nothing(self) -> Tensor:
        """0, which depends on all parameters, so that each has a gradient in a step that does not use it."""
        return 0.0 * sum(values.sum() for values in self.parameters())
