"""The losses of single rows under a model that stays as it is, with the noise of any epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_noise.evaluation_mode import evaluation_mode
from hf_noise.losses import shift_targets
from hf_noise.losses.nll import IGNORE_INDEX
from hf_noise.noise import Noise
from hf_noise.noise.arrays import integers
from hf_noise.noise.checks import check_epoch
from hf_noise.trainers.collate import TokenBatches, collate_rows, known_tokens, model_inputs
from hf_noise.trainers.networks import longest_input
from hf_noise.trainers.scoring import check_stored, nll_of_logits, rows_at

__all__ = ["RowLosses"]


class RowLosses:
    """`losses(rows, epoch)` of a causal language model, as `macro_batch_losses` of `hf_noise.analysis.stability` asks.

    The loss is the plain NLL of the targets that training would have seen in that epoch, noise included; padding moves
    no position and is no target's only context. Rows whose noise no epoch redraws are scored once, when they are first
    asked for, and 16 bytes are held for each.

    Args:
        model: `model(input_ids).logits` [B, L, V]; its mode is restored after each call.
        rows: a map-style data set of rows as for `CausalLMTrainer`.
        noise: corrupts the targets, on the model's device; rows need `sample_id`. Rows with an `is_noisy` column have
            their noise and are taken as they are.

    Raises:
        TypeError: rows cannot be read by their number.
        ValueError: there are no rows; the noise is not one on targets, or draws other tokens than the model knows.
    """

    def __init__(self, model: nn.Module, rows: Any, *, noise: Noise | None = None):
        check_stored(rows, 1)
        self.model, self.rows, self.noise = model, rows, noise
        known = known_tokens(model)
        if noise is not None:
            if not isinstance(noise, Noise) or noise.unit != "tokens" or not noise.draws_targets:
                raise ValueError(f"noise must be one on tokens, which can be drawn on targets, got {noise!r:.80}; rows "
                                 "that carry their noise need none here")  # fmt: skip
            if noise.vocab_size > known:
                raise ValueError(f"noise draws ids up to {noise.vocab_size - 1}, the model knows {known} tokens; use "
                                 "one vocab_size for both")  # fmt: skip
        self._batches = TokenBatches(collate_rows, known, longest_input(model))
        self._inputs = model_inputs(model)
        has_noise = "is_noisy" in self._batches(rows_at(rows, [0]))
        self._draws = noise is not None and noise.error_rate > 0 and not has_noise
        #: Whether every epoch has the same losses.
        self.is_fixed = not (self._draws and noise.redraw == "epoch")
        self._known = np.full((2, len(rows)), np.nan) if self.is_fixed else None

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, rows: Any, epoch: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Losses of rows.

        Args:
            rows: integers [b] in [0, len(self)).
            epoch: whose noise they have.

        Returns:
            Sums of the NLL in nats and numbers of targets, float64 [b] each; they do not depend on which rows are asked
            for together, beyond rounding.

        Raises:
            TypeError: rows or the epoch are no integers.
            ValueError: a row that is not there; to draw noise, there is no `sample_id`; tokens unknown to the model.
        """
        rows, epoch = integers("rows", rows), check_epoch(epoch)
        if rows.ndim != 1 or not rows.size or rows.min() < 0 or rows.max() >= len(self):
            raise ValueError(f"rows must be numbers [b] in [0, {len(self)}), got {rows.tolist()!r:.80}")
        if self._known is None:
            return self._score(rows, epoch)
        new = np.unique(rows[np.isnan(self._known[1, rows])])
        if new.size:
            self._known[:, new] = self._score(new, epoch)
        sums, units = self._known[:, rows]
        return sums, units

    @torch.no_grad()
    def _score(self, rows: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        device = next(self.model.parameters()).device
        batch = {name: one.to(device) for name, one in self._batches(rows_at(self.rows, rows.tolist())).items()}
        targets = shift_targets(self._labels(batch, epoch))
        with evaluation_mode(self.model):
            logits = self.model(**{name: batch[name] for name in self._inputs if name in batch}).logits
        nll = nll_of_logits(logits.flatten(0, 1), targets.flatten()).view(targets.shape)
        exact = torch.float32 if nll.device.type == "mps" else torch.float64
        found = torch.stack([nll.sum(-1, dtype=exact), (targets != IGNORE_INDEX).sum(-1, dtype=exact)])
        sums, units = found.cpu().double().numpy()
        return sums, units

    def _labels(self, batch: dict[str, Tensor], epoch: int) -> Tensor:
        labels = batch["labels"]
        if not self._draws:
            return labels
        if "sample_id" not in batch:
            raise ValueError(f"to draw noise, rows need the column sample_id; they have: {', '.join(batch)}")
        sample = batch["sample_id"]
        if labels.device.type == "cpu":  # the same draws, in half the time
            return torch.from_numpy(self.noise(labels.numpy(), sample.numpy(), epoch)[0])
        return self.noise.on_device(labels, sample, epoch)[0]
