"""What is learned of another writer of rows beside a model: its share, its text, and what tells its rows apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_noise.losses.checks import check_count, check_integers
from hf_noise.losses.learned_rate import LearnedErrorRate
from hf_noise.losses.nll import IGNORE_INDEX
from hf_noise.losses.row_evidence import RowEvidence

__all__ = ["OtherWriter", "SmallWriter", "Unigram"]

#: Where a learned share of another's rows starts when nothing is known about the data.
INITIAL_SHARE = 0.3


class Unigram(nn.Module):
    """A distribution over V tokens that begins as the uniform one, for each token by itself.

    Raises:
        TypeError, ValueError: V is no integer in [1, 2^24].
    """

    def __init__(self, vocab_size: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(check_count("vocab_size", vocab_size, 1, 1 << 24)))

    def forward(self, targets: Tensor, source: Tensor | None = None, is_source: Tensor | None = None) -> Tensor:
        """-log q of each target, float32 [B, L]; 0 where there is none (-100)."""
        is_target = targets >= 0
        return -F.log_softmax(self.logits.float(), -1)[targets.where(is_target, 0)].where(is_target, 0)


class SmallWriter(nn.Module):
    """A small model of targets: the next token from the last few, and from what words the source has, in any order.

    Args:
        vocab_size: V of the targets, in [1, 2^24].
        source_size: tokens that a source may hold; None for a model of targets alone.
        width: numbers that stand for a token.
        context: tokens that it sees before one, >= 1.

    Raises:
        TypeError, ValueError: an argument is no integer, or out of its range.
    """

    def __init__(self, vocab_size: int, source_size: int | None = None, *, width: int = 64, context: int = 3):
        super().__init__()
        self.nothing = check_count("vocab_size", vocab_size, 1, 1 << 24)  # what stands before the first token
        width, self.context = check_count("width", width), check_count("context", context)
        self.before = nn.Embedding(vocab_size + 1, width)
        self.join = nn.Linear(self.context * width, width)
        self.source = None if source_size is None else nn.Embedding(check_count("source_size", source_size), width)
        self.next = nn.Linear(width, vocab_size)

    def forward(self, targets: Tensor, source: Tensor | None = None, is_source: Tensor | None = None) -> Tensor:
        """-log q of each target, float32 [B, L]; 0 where there is none.

        Args:
            targets: int64 [B, L], -100 for none.
            source: int64 [B, S], for a model that reads sources.
            is_source: [B, S], 0 at padding; None for no padding.
        """
        targets = check_integers("targets", targets)
        tokens = F.pad(targets.where(targets >= 0, self.nothing), (self.context, 0), value=self.nothing)
        read = self.before(tokens[:, :-1]).unfold(1, self.context, 1)  # [B, L, width, context]
        hidden = self.join(read.flatten(2))
        if self.source is not None:
            mask = torch.ones_like(source) if is_source is None else is_source
            weights = (mask / mask.sum(-1, keepdim=True).clamp(min=1)).unsqueeze(1)
            hidden = hidden + weights.to(hidden.dtype) @ self.source(source)
        logits = self.next(F.gelu(hidden)).float()
        nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none")
        return nll.view(targets.shape)


class OtherWriter(nn.Module):
    """All of it in one module, as trainers save it beside the model.

    Args:
        rate: the share of rows that it wrote, where that is a parameter.
        text: targets [B, L], source, is_source -> -log q of each, where q is learned.
        scores: what tells rows apart by scores.
    """

    def __init__(self, *, rate: LearnedErrorRate | None, text: nn.Module | None, scores: RowEvidence | None):
        super().__init__()
        self.rate, self.text, self.scores = rate, text, scores

    def share(self) -> Tensor:
        """The learned share, one number, of float64 where the device has it: its logarithm is asked for near 0 too."""
        if self.rate is None:
            return self.scores.share()
        logit = self.rate.logit
        return torch.sigmoid(logit if logit.device.type == "mps" else logit.double())

    def nothing(self) -> Tensor:
        """0, which depends on all parameters, so that each has a gradient in a step that does not use it."""
        return 0.0 * sum(values.sum() for values in self.parameters())
