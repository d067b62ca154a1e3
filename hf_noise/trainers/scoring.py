"""Look at every target of a data set through a trained model: its NLL, its rank, the posterior that it is clean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.trainer_utils import has_length

from hf_noise.evaluation_mode import evaluation_mode
from hf_noise.losses import posthoc_nll, shift_targets
from hf_noise.losses.nll import IGNORE_INDEX
from hf_noise.noise import Noise
from hf_noise.noise.checks import check_count
from hf_noise.trainers.collate import TokenBatches, collate_rows, known_tokens, model_inputs

__all__ = ["TokenScores", "score_batches", "score_tokens"]

# So many logits are worked on at once, of whole targets; the batch size says how many are held. What is made of them
# stays below the size from which a C library gives memory back to the system and has to ask for it anew.
_LOGITS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class TokenScores:
    """One entry per target, all arrays [n] (`posthoc`: one array per error rate).

    Attributes:
        sample_id: int64, the row.
        position: int64, the target's index in its row, >= 1.
        nll: float32, -log p(target | context) in nats.
        above: int64, number of tokens that the model finds more probable, in [0, V); None without `ranks`.
        is_noisy: bool, whether the target was corrupted (False where that is not known).
        posthoc: NLL under the predictions corrected for each error rate, see `hf_noise.losses.posthoc_nll`.
    """

    sample_id: np.ndarray
    position: np.ndarray
    nll: np.ndarray
    above: np.ndarray | None
    is_noisy: np.ndarray
    posthoc: dict[float, np.ndarray]

    @classmethod
    def concatenate(cls, parts: Sequence[TokenScores]) -> TokenScores:
        """Join the scores of several batches."""
        if not parts:
            raise ValueError("there are no rows to score")
        names = [field.name for field in fields(cls) if field.name != "posthoc"]
        held = [name for name in names if all(getattr(part, name) is not None for part in parts)]
        arrays = dict.fromkeys(names) | {name: np.concatenate([getattr(part, name) for part in parts]) for name in held}
        rates = parts[0].posthoc
        return cls(**arrays, posthoc={rate: np.concatenate([p.posthoc[rate] for p in parts]) for rate in rates})


@torch.no_grad()
def score_batches(
    model: nn.Module,
    rows: Any,
    *,
    noise: Noise | None = None,
    epoch: int = 0,
    error_rates: Sequence[float] = (),
    vocab_size: int | None = None,
    batch_size: int = 32,
    ranks: bool = True,
) -> Iterator[TokenScores]:
    """Score rows in their order, a batch at a time, in constant memory.

    As in training, padding on either side moves no position and is no target's only context.

    Args:
        model: causal language model, `model(input_ids).logits` [B, L, V]; its mode is restored afterwards.
        rows: a map-style data set of rows as for `CausalLMTrainer`.
        noise: corrupts the targets first (rows need `sample_id`); rows with an `is_noisy` column are taken as they are.
        epoch: of the noise.
        error_rates: for each, the NLL after post-hoc correction is computed too.
        vocab_size: number of ids that noise draws from, which are those that ranks count; that of `noise`, or all.
        batch_size: rows per forward pass; the scores do not depend on it beyond rounding.
        ranks: False leaves `above` out, which takes as long as the NLL.

    Raises:
        ValueError: noise is to be drawn and the rows have no `sample_id`; they hold tokens unknown to the model.
    """
    if noise is not None and not noise.draws_targets:
        raise ValueError(f"{type(noise).__name__} is no noise on targets and cannot be drawn here; rows bring it")
    batches, inputs = TokenBatches(collate_rows, known_tokens(model)), model_inputs(model)
    with evaluation_mode(model):
        for start in range(0, len(rows), batch_size):
            batch = batches(rows_from(rows, start, batch_size))
            yield _score(model, batch, inputs, noise, epoch, error_rates, vocab_size, start, ranks)


def score_tokens(model: nn.Module, rows: Any, **kwargs: Any) -> TokenScores:
    """All scores of `score_batches` (same arguments) in memory, about 30 bytes per token."""
    return TokenScores.concatenate(list(score_batches(model, rows, **kwargs)))


def check_stored(rows: Any, batch_size: Any, verb: str = "score") -> None:
    """Raise TypeError or ValueError unless rows can be read by number, so many at a time, and there are some."""
    if isinstance(rows, str | bytes) or not hasattr(rows, "__getitem__") or not has_length(rows):
        raise TypeError(f"rows must be stored rows, which are read by their numbers, got {rows!r:.80}")
    if not len(rows):
        raise ValueError(f"rows is empty, there are no rows to {verb}")
    check_count("batch_size", batch_size, 1, 31)


def rows_from(rows: Any, start: int, size: int) -> Any:
    """`size` rows from row `start` on, as a collator takes them."""
    return rows_at(rows, list(range(start, min(start + size, len(rows)))))


def rows_at(rows: Any, indices: list[int]) -> Any:
    """The rows of these numbers, as a collator takes them."""
    fetch = getattr(rows, "__getitems__", None)
    return fetch(indices) if fetch else [rows[i] for i in indices]


def _score(model, batch, inputs, noise, epoch, error_rates, vocab_size, start, ranks) -> TokenScores:
    batch = {name: column.to(next(model.parameters()).device) for name, column in batch.items()}
    labels = batch.pop("labels")
    is_noisy = batch.pop("is_noisy", None)
    if is_noisy is None and noise is not None and "sample_id" not in batch:
        raise ValueError(f"to draw noise, rows need the column sample_id; they have: {', '.join(batch)}")
    sample = batch.pop("sample_id", torch.arange(start, start + len(labels), device=labels.device))
    vocab_size = noise.vocab_size if vocab_size is None and noise is not None else vocab_size
    if is_noisy is None and noise is not None:
        labels, is_noisy = noise(labels, sample, epoch)
    elif is_noisy is None:
        is_noisy = torch.zeros_like(labels, dtype=torch.bool)
    targets = shift_targets(labels)
    row, column = torch.nonzero(targets != IGNORE_INDEX, as_tuple=True)
    logits = model(**{name: batch[name] for name in inputs if name in batch}).logits
    nll, above, posthoc = _of_logits(logits.flatten(0, 1), targets.flatten(), error_rates, vocab_size, ranks)
    return TokenScores(
        sample_id=sample[row].cpu().numpy(),
        position=(column + 1).cpu().numpy(),
        nll=nll[row * labels.shape[1] + column].cpu().numpy(),
        above=above.cpu().numpy() if ranks else None,
        is_noisy=is_noisy[row, column + 1].bool().cpu().numpy(),
        posthoc={rate: values.cpu().numpy() for rate, values in posthoc.items()},
    )


def nll_of_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """NLL of targets [n] under logits [n, V], float32 [n], a part at a time; 0 where there is no target."""
    return _of_logits(logits, targets, (), None, False)[0]


def _of_logits(logits, targets, error_rates, vocab_size, ranks) -> tuple[Tensor, Tensor | None, dict[float, Tensor]]:
    """NLL of targets [n] at every position, 0 without a target; ranks and corrected NLL at those with one."""
    nll, above, posthoc = [], [], {rate: [] for rate in error_rates}
    step = max(1, _LOGITS_AT_ONCE // logits.shape[-1])
    for z, y in zip(logits.split(step), targets.split(step), strict=True):
        z = z.float()
        nll.append(F.cross_entropy(z, y, ignore_index=IGNORE_INDEX, reduction="none"))
        if not (ranks or error_rates):
            continue
        is_target = y != IGNORE_INDEX
        z, y = z[is_target], y[is_target]
        if ranks:
            above.append((z[:, :vocab_size] > z.gather(-1, y.unsqueeze(-1))).sum(-1))
        for rate in error_rates:
            posthoc[rate].append(posthoc_nll(z, y, error_rate=rate, vocab_size=vocab_size))
    return torch.cat(nll), torch.cat(above) if ranks else None, {rate: torch.cat(x) for rate, x in posthoc.items()}
