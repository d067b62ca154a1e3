"""What is learned of another writer of rows beside a model: its share, its text, and what tells its rows apart."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_noise.losses.checks import check_count
from hf_noise.losses.learned_rate import LearnedErrorRate
from hf_noise.losses.row_evidence import ScoreTable

__all__ = ["EarlyCopy", "OtherWriter", "Unigram"]


class Unigram(nn.Module):
    """A distribution over V tokens that begins as the uniform one, for each token by itself.

    Raises:
        TypeError, ValueError: V is no integer in [1, 2^24].
    """

    def __init__(self, vocab_size: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(check_count("vocab_size", vocab_size, 1, 1 << 24)))

    def forward(self, targets: Tensor) -> Tensor:
        """-log q of each target, float32 [B, L]; 0 where there is none (-100)."""
        is_target = targets >= 0
        return -F.log_softmax(self.logits.float(), -1)[targets.where(is_target, 0)].where(is_target, 0)


class EarlyCopy(nn.Module):
    """A network as it stood at one moment of its training, always in evaluation mode: it is asked, not trained.

    Args:
        model: that is trained; a copy of it is made at once, so that the memory for it is there.

    Attributes:
        was_taken: buffer bool [], whether that moment has come.
    """

    was_taken: Tensor

    def __init__(self, model: nn.Module):
        super().__init__()
        self.network = copy.deepcopy(model).requires_grad_(False)
        self.register_buffer("was_taken", torch.zeros((), dtype=torch.bool))
        self.is_there = False  # as the buffer says, and no device has to be asked
        self.train()

    def train(self, mode: bool = True) -> EarlyCopy:
        super().train(mode)
        self.network.eval()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.is_there = bool(self.was_taken)

    @torch.no_grad()
    def take(self, model: nn.Module) -> None:
        """Take over the weights that the model has now; what trainers keep beside them in it is left alone."""
        now = dict(model.named_parameters()) | dict(model.named_buffers())
        for name, value in (*self.network.named_parameters(), *self.network.named_buffers()):
            value.copy_(now[name])
        self.was_taken.fill_(True)
        self.is_there = True


class OtherWriter(nn.Module):
    """All of it in one module, as trainers save it beside the model.

    Args:
        rate: the share of rows that it wrote, where that is a parameter.
        text: targets [B, L] -> -log q of each, where q is learned.
        scores: what tells rows apart by scores, or when the likelihoods may.
        early: the model as it stood early.
    """

    def __init__(
        self, *, rate: LearnedErrorRate | None = None, text: nn.Module | None = None,
        scores: ScoreTable | None = None, early: EarlyCopy | None = None,
    ):  # fmt: skip
        super().__init__()
        self.rate, self.text, self.scores, self.early = rate, text, scores, early

    def share(self) -> Tensor:
        """The learned share, one number, of float64 where the device has it: its logarithm is asked for near 0 too."""
        if self.rate is None:
            return self.scores.normals[0]
        logit = self.rate.logit
        return torch.sigmoid(logit if logit.device.type == "mps" else logit.double())

    def nothing(self) -> Tensor:
        """0, which depends on all that is learned, so that each has a gradient in a step that does not use it."""
        return 0.0 * sum(values.sum() for values in self.parameters() if values.requires_grad)
