"""p(clean) of each token from both sides: from its context with what is likely wrong replaced, and from what follows.

A particle is one way in which a row may have read before it was corrupted. Token by token each particle either takes
what stands there for the truth, or for a replacement of what the model would rather expect; the weights of particles
then say which. So a wrong token neither spoils the predictions after it, nor escapes where the next ones deny it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from hf_noise.evaluation_mode import evaluation_mode
from hf_noise.noise.checks import check_count
from hf_noise.trainers.collate import forward_names
from hf_noise.trainers.token_laws import TokenLaw

__all__ = ["clean_posterior_of_rows", "resampled"]

_LEAST = 1e-30  # a weight below it is none
_AHEAD = 2  # targets after a token that have their say; more of them leave fewer distinct particles to ask


@torch.no_grad()
def clean_posterior_of_rows(
    model: nn.Module, input_ids: Tensor, law: TokenLaw, *, error_rate: float, particles: int = 16, seed: int = 0
) -> Tensor:
    """p(clean) of each token of rows whose inputs are what was corrupted, float32 [B, L]; 1 for the first, untold, one.

    A forward pass of L steps on B x particles rows with their keys and values. The draws are those of `seed` and of the
    rows that are looked at together.

    Args:
        model: causal language model of transformers with a cache of keys and values that predicts clean text.
        input_ids: int64 [B, L] without padding on the left; what stands on the right does not matter.
        law: of the replacements.
        error_rate: e in (0, 1).
        particles: M in [2, 2^12].

    Raises:
        ValueError: e or the number of particles is out of its range.
        TypeError: the model keeps no such cache.

    Source: Fearnhead and Clifford, "On-line inference for hidden Markov models via particle filters", JRSS B 2003, for
        the particles that stay; fixed-lag smoothing of Kitagawa (1996), as far as particles are left to tell.
    """
    if not 0 < error_rate < 1:
        raise ValueError(f"error_rate must lie in (0, 1) to tell tokens apart, got {error_rate}")
    particles = check_count("particles", particles, 2, 12)
    rows, length = input_ids.shape
    generator = torch.Generator(device=input_ids.device).manual_seed(seed)
    state = _Particles(model, particles, input_ids, generator)
    before = torch.ones(rows, length, dtype=torch.float64, device=input_ids.device)
    both = before.clone()
    log_rate = math.log(error_rate)
    with evaluation_mode(model):
        for t in range(1, length):
            target = input_ids[:, t]
            log_p = state.predicted(model).view(rows, particles, -1)
            own = target[:, None].expand(rows, particles)
            right = torch.log1p(error_rate * (law.stays(own).double() - 1))
            clean = log_p.gather(-1, own[..., None])[..., 0].double() + right
            wrong = law.log_wrong(log_p, own).double() + log_rate
            before[:, t] = state.step(clean, wrong, log_p, target, law)
            if t > _AHEAD:
                both[:, t - _AHEAD] = state.share_kept(t - _AHEAD)
    for t in range(max(1, length - _AHEAD), length):
        both[:, t] = state.share_kept(t)
    # Half of what follows counts: a share of few particles is no more certain than that.
    steadied = (particles * both + before) / (particles + 1)
    odds = (torch.logit(before, eps=_LEAST) + torch.logit(steadied, eps=1e-12)) / 2
    posterior = torch.sigmoid(odds).float()
    posterior[:, 0] = 1
    return posterior


class _Particles:
    """Ways to read rows so far: tokens and whether they are what stands there [B, M, t], weights [B, M], the cache."""

    def __init__(self, model: nn.Module, particles: int, input_ids: Tensor, generator: torch.Generator):
        taken = forward_names(model)
        # transformers 5.24 calls it "cache", as later ones will alone; earlier ones know the longer name.
        self.name = "cache" if "cache" in taken else "past_key_values"
        if self.name not in taken:
            raise TypeError(f"particles need a model with a cache of keys and values, {type(model).__name__} has none")
        rows = len(input_ids)
        self.rows, self.count, self.generator, self.cache = rows, particles, generator, DynamicCache()
        device = input_ids.device
        self.weights = torch.zeros(rows, particles, dtype=torch.float64, device=device)
        self.weights[:, 0] = 1  # they are all alike as yet
        self.last = input_ids[:, :1].repeat_interleave(particles, 0)
        self.kept = torch.ones(rows, particles, 1, dtype=torch.bool, device=device)

    def predicted(self, model: nn.Module) -> Tensor:
        """Log-probabilities [B M, V] of what follows."""
        found = model(input_ids=self.last, use_cache=True, **{self.name: self.cache})
        return torch.log_softmax(found.logits[:, -1].float(), -1)

    def step(self, clean: Tensor, wrong: Tensor, log_p: Tensor, target: Tensor, law: TokenLaw) -> Tensor:
        """Take the next token [B] for clean or wrong, with these log-probabilities [B, M]; p(clean) so far [B]."""
        weights = self.weights.log()
        weights = torch.softmax(torch.cat([weights + clean, weights + wrong], -1), -1)
        found = weights[:, : self.count].sum(-1)
        chosen, self.weights = resampled(weights, self.count, self.generator)
        parent, is_wrong = chosen % self.count, chosen >= self.count
        own = target[:, None].expand_as(parent)
        flat = (parent + torch.arange(self.rows, device=parent.device)[:, None] * self.count).flatten()
        other = law.sources(log_p.flatten(0, 1)[flat].view(*parent.shape, -1), own, self.generator)
        self.last = torch.where(is_wrong, other, own).reshape(-1, 1)
        self.kept = torch.cat([self.kept.flatten(0, 1)[flat].view(*parent.shape, -1), ~is_wrong[..., None]], -1)
        self.cache.batch_select_indices(flat)
        return found

    def share_kept(self, position: int) -> Tensor:
        """Weight [B] of the particles that take the token there for clean."""
        return (self.weights * self.kept[:, :, position]).sum(-1)


def resampled(weights: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which `count` of K weighted particles stay, int64 [B, count], and their weights, which are right on average.

    Those above a threshold stay as they are, of the others each with a probability in proportion to its weight; none
    twice.

    Args:
        weights: float64 [B, K] with sums 1, K >= count.
    """
    ordered = weights.sort(-1, descending=True)[0]
    left = ordered.flip(-1).cumsum(-1).flip(-1).clamp_min(_LEAST)
    scale = (count - torch.arange(weights.shape[-1], device=weights.device)).clamp_min(0) / left
    # The first that is not sure to stay; where there is none, what comes after `count` of them weighs nothing.
    unsure = (ordered * scale < 1)[:, :count]
    first = torch.where(unsure.any(-1), unsure.to(torch.uint8).argmax(-1), count - 1)[:, None]
    stay = (weights * scale.gather(-1, first)).clamp(max=1)
    edges = stay.cumsum(-1)
    start = torch.rand(len(weights), 1, generator=generator, dtype=weights.dtype, device=weights.device)
    points = torch.arange(count, dtype=weights.dtype, device=weights.device) + start
    chosen = torch.searchsorted(edges, points).clamp(max=weights.shape[-1] - 1)
    kept = weights.gather(-1, chosen) / stay.gather(-1, chosen).clamp_min(_LEAST)
    # Where fewer than `count` have a weight, the other places are empty.
    kept = kept.where(points < edges[:, -1:] + 1e-9, 0.0)
    return chosen, kept / kept.sum(-1, keepdim=True)


def check_inputs_are_targets(batch: dict[str, Any]) -> None:
    """Raise ValueError unless rows are audited as they are read: inputs that were corrupted, padding on the right."""
    labels, inputs, mask = batch["labels"], batch["input_ids"], batch.get("attention_mask")
    if ((labels != inputs) & (labels >= 0)).any():
        raise ValueError("particles read rows whose inputs are what was corrupted; these have labels of their own "
                         "beside clean inputs: use particles=0")  # fmt: skip
    if mask is not None and bool((mask[:, 0] == 0).any()):
        raise ValueError("particles need rows without padding on the left; pad them on the right")
