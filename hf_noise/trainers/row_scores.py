"""Look at whole rows through a trained model: how likely each is as text, and as a document of noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_noise.evaluation_mode import evaluation_mode
from hf_noise.losses import shift_targets
from hf_noise.losses.document_mixture import noise_nll, noise_table
from hf_noise.losses.nll import IGNORE_INDEX
from hf_noise.noise import Noise
from hf_noise.noise.rates import check_alpha
from hf_noise.trainers.collate import TokenBatches, collate_rows, known_tokens, model_inputs
from hf_noise.trainers.scoring import check_stored, nll_of_logits, rows_from

__all__ = ["RowScores", "score_rows"]


@dataclass(frozen=True)
class RowScores:
    """One entry per row, all arrays [N].

    Attributes:
        sample_id: int64, the row.
        targets: int64, how many it has.
        nll: float64, L_c, the sum of the targets' NLL under the model, in nats.
        noise_nll: float64, L_n, the same under the noise; +inf if the noise never makes such a row.
        noise_share: float64, share of the targets that are marked as noise; 0 where rows have no mask.
    """

    sample_id: np.ndarray
    targets: np.ndarray
    nll: np.ndarray
    noise_nll: np.ndarray
    noise_share: np.ndarray

    @property
    def log_odds(self) -> np.ndarray:
        """L_n - L_c, how much more likely each row is as text than as noise, in nats."""
        return self.noise_nll - self.nll

    @property
    def mean_nll(self) -> np.ndarray:
        """NLL per target, what a search for noise with a plain model goes by; NaN for a row without a target."""
        with np.errstate(invalid="ignore"):
            return self.nll / self.targets

    def clean_posterior(self, alpha: float) -> np.ndarray:
        """p(row is clean) where a share alpha in [0, 1) of the rows is noise."""
        alpha = check_alpha(alpha)
        if alpha == 0:
            return np.ones_like(self.nll)
        with np.errstate(over="ignore"):
            return 1 / (1 + alpha / (1 - alpha) * np.exp(-self.log_odds))


@torch.no_grad()
def score_rows(model: nn.Module, rows: Any, noise: Any, *, batch_size: int = 32) -> RowScores:
    """Score rows in their order under a causal language model and under a noise of documents.

    Args:
        model: causal language model; its mode is restored afterwards.
        rows: a map-style data set of rows as for `CausalLMTrainer`; what `is_noisy` says is reported, not used.
        noise: a noise of documents, or the objective of a trainer that was given `DocumentMixture`
            (`trainer.objective`), whose noise may be learned.
        batch_size: rows per forward pass; the scores do not depend on it beyond rounding.

    Raises:
        TypeError: noise is neither.
        ValueError: there are no rows, or noise and model disagree on the vocabulary.
    """
    check_stored(rows, batch_size)
    device = next(model.parameters()).device
    of_noise = _under(noise, known_tokens(model), device)
    batches, inputs = TokenBatches(collate_rows, known_tokens(model)), model_inputs(model)
    parts = []
    with evaluation_mode(model):
        for start in range(0, len(rows), batch_size):
            batch = {name: column.to(device) for name, column in batches(rows_from(rows, start, batch_size)).items()}
            parts.append(_score(model, batch, inputs, of_noise, start))
    return RowScores(*(torch.cat(column).numpy() for column in zip(*parts, strict=True)))


def _under(noise: Any, vocab_size: int, device: torch.device) -> Any:
    """targets [B, L] -> their NLL under the noise."""
    if hasattr(noise, "noise_nll"):
        return noise.noise_nll
    if not isinstance(noise, Noise) or noise.unit != "documents":
        raise TypeError(f"noise must be a noise of documents or a trainer's objective of DocumentMixture, got "
                        f"{type(noise).__name__}")  # fmt: skip
    table = noise_table(noise.probabilities(), vocab_size).to(device)
    return lambda targets: noise_nll(table, targets)


def _score(model: nn.Module, batch: dict[str, Tensor], inputs: tuple[str, ...], of_noise: Any, start: int) -> Any:
    targets = shift_targets(batch["labels"])
    logits = model(**{name: batch[name] for name in inputs if name in batch}).logits
    nll = nll_of_logits(logits.flatten(0, 1), targets.flatten()).view(targets.shape)
    exact = torch.float32 if nll.device.type == "mps" else torch.float64
    is_target = targets != IGNORE_INDEX
    n = is_target.sum(-1)
    is_noisy = batch["is_noisy"].bool().roll(-1, 1) if "is_noisy" in batch else torch.zeros_like(is_target)
    share = (is_noisy & is_target).sum(-1, dtype=exact) / n.clamp(min=1)
    sample = batch.get("sample_id", torch.arange(start, start + len(n), device=n.device))
    sums = (nll.sum(-1, dtype=exact), of_noise(targets).sum(-1, dtype=exact), share)
    return sample.cpu(), n.cpu(), *(values.cpu().double() for values in sums)
