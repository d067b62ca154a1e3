"""One pass over rows for what an estimate of e needs of each target, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_noise.evaluation_mode import evaluation_mode
from hf_noise.losses import shift_targets
from hf_noise.losses.nll import IGNORE_INDEX
from hf_noise.noise import Noise
from hf_noise.trainers.collate import TokenBatches, collate_rows, known_tokens, model_inputs
from hf_noise.trainers.scoring import rows_at, rows_from
from hf_noise.trainers.token_laws import TokenLaw

__all__ = ["TokenLooks", "look_at_tokens", "looks"]

#: At which each prediction is tried as that of clean text, that of the model itself in the middle.
TEMPERATURES = (0.7, 1.0, 1.4)
_LOGITS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class TokenLooks:
    """One entry per target, all arrays [n].

    Attributes:
        sample_id, position: int64, as in `hf_noise.trainers.scoring.TokenScores`.
        nll: float32, -log p(target | context) in nats.
        log_noise: float32, log-probability of the target if it were a replacement.
        log_wrong: float32, the same without what replacement leaves as it is, see `TokenLaw.stays`.
        stays: float32 in [0, 1], probability that replacement leaves this token as it is.
        tail: float32 in [0, 1], the share of the noise's law on tokens that the model finds likelier; NaN for a law
            that depends on the true token.
        entropy: float32, of the prediction in nats.
        log_clean: float32 [n, K], log-probability of the target at each of `TEMPERATURES`.
        is_noisy: bool, False where that is not known.
    """

    sample_id: np.ndarray
    position: np.ndarray
    nll: np.ndarray
    log_noise: np.ndarray
    log_wrong: np.ndarray
    stays: np.ndarray
    tail: np.ndarray
    entropy: np.ndarray
    log_clean: np.ndarray
    is_noisy: np.ndarray

    @classmethod
    def concatenate(cls, parts: list[TokenLooks]) -> TokenLooks:
        """Those of several batches."""
        if not parts:
            raise ValueError("there are no rows to look at")
        return cls(*(np.concatenate([getattr(part, name.name) for part in parts]) for name in fields(cls)))


def look_at_tokens(
    model: nn.Module, rows: Any, law: TokenLaw, *, noise: Noise | None = None, batch_size: int = 32,
    most: int | None = None,
) -> TokenLooks:  # fmt: skip
    """All of `looks`, in memory, about 60 bytes a target; of `most` rows, evenly spread, where there are more."""
    if most is not None and len(rows) > most:
        chosen = np.linspace(0, len(rows) - 1, most).round().astype(int).tolist()
        parts = [rows_at(rows, chosen[i : i + batch_size]) for i in range(0, len(chosen), batch_size)]
        starts = chosen[::batch_size]
    else:
        starts = range(0, len(rows), batch_size)
        parts = (rows_from(rows, start, batch_size) for start in starts)
    return TokenLooks.concatenate(list(looks(model, zip(parts, starts, strict=True), law, noise=noise)))


@torch.no_grad()
def looks(model: nn.Module, parts: Any, law: TokenLaw, *, noise: Noise | None = None) -> Iterator[TokenLooks]:
    """Look at batches of rows `(rows, number of the first)`; arguments as `hf_noise.trainers.scoring.score_batches`."""
    batches, inputs = TokenBatches(collate_rows, known_tokens(model)), model_inputs(model)
    device = next(model.parameters()).device
    with evaluation_mode(model):
        for rows, start in parts:
            batch = {name: column.to(device) for name, column in batches(rows).items()}
            sample = batch.get("sample_id", torch.arange(start, start + len(batch["labels"]), device=device))
            labels, is_noisy = batch["labels"], batch.get("is_noisy")
            if noise is not None and is_noisy is None:
                labels, is_noisy = noise(labels, sample, 0)
            targets = shift_targets(labels)
            row, column = torch.nonzero(targets != IGNORE_INDEX, as_tuple=True)
            logits = model(**{name: batch[name] for name in inputs if name in batch}).logits
            found = _of_logits(logits[row, column], targets[row, column], law)
            mask = torch.zeros_like(row, dtype=torch.bool) if is_noisy is None else is_noisy[row, column + 1].bool()
            yield TokenLooks(*(values.cpu().numpy() for values in (sample[row], column + 1, *found, mask)))


def _of_logits(logits: Tensor, targets: Tensor, law: TokenLaw) -> list[Tensor]:
    """All of `TokenLooks` but whose they are, of targets [n] under logits [n, V], some at a time."""
    parts = []
    step = max(1, _LOGITS_AT_ONCE // logits.shape[-1])
    for z, y in zip(logits.split(step), targets.split(step), strict=True):
        z, own = z.float(), y.unsqueeze(-1)
        log_p = torch.log_softmax(z, -1)
        clean = [log_p.gather(-1, own)[:, 0] if t == 1 else
                 z.gather(-1, own)[:, 0] / t - torch.logsumexp(z / t, -1) for t in TEMPERATURES]  # fmt: skip
        nll = -log_p.gather(-1, own)[:, 0]
        tail = law.tails(z, y) if law.is_fixed else torch.full_like(nll, torch.nan)
        entropy = torch.special.entr(log_p.exp()).sum(-1)
        noise = (law.log_noise(log_p, y), law.log_wrong(log_p, y), law.stays(y))
        parts.append((nll, *noise, tail.float(), entropy, torch.stack(clean, -1)))
    return [torch.cat(column) for column in zip(*parts, strict=True)]
