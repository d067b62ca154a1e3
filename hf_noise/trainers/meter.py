"""Sums over tokens that stay on the device until they are logged, so that counting costs no synchronisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["TokenMeter"]


class TokenMeter:
    """Sum of NLL and number of clean and of corrupted tokens, since the last `pop` and since the start of training."""

    def __init__(self) -> None:
        self.recent: Tensor | None = None
        self.total: Tensor | None = None

    @torch.no_grad()
    def add(self, nll: Tensor, valid: Tensor, is_noisy: Tensor) -> None:
        """Add a batch: `nll` float [B, L], `valid` bool [B, L] marks targets, `is_noisy` bool [B, L] corrupted ones."""
        noisy = is_noisy & valid
        dtype = torch.float32 if nll.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        total, total_noisy = (nll * valid).sum(dtype=dtype), (nll * noisy).sum(dtype=dtype)
        n, n_noisy = valid.sum(), noisy.sum()
        sums = torch.stack([total - total_noisy, (n - n_noisy).to(dtype), total_noisy, n_noisy.to(dtype)])
        self.recent = sums if self.recent is None else self.recent + sums

    def pop(self, accelerator: Any) -> dict[str, float]:
        """Means since the last call, over all processes (a collective call); no key for a kind that did not occur."""
        if self.recent is None:
            return {}
        sums = accelerator.reduce(self.recent, reduction="sum")
        self.recent = None
        self.total = sums if self.total is None else self.total + sums
        clean, n_clean, noisy, n_noisy = sums.tolist()
        logs = {}
        if n_clean:
            logs["nll_clean_targets"] = clean / n_clean
        if n_noisy:
            logs["nll_corrupted_targets"] = noisy / n_noisy
        if n_clean or n_noisy:  # a run that was resumed at its last step has nothing new
            logs["noise_rate"] = n_noisy / (n_clean + n_noisy)
        return logs

    def realised(self) -> dict[str, float | int]:
        """Share of corrupted targets in all that were popped so far and their number, `{"rate", "n"}`."""
        if self.total is None:
            raise RuntimeError("no training step was made, so no noise was realised")
        _, n_clean, _, n_noisy = self.total.tolist()
        return {"rate": n_noisy / (n_clean + n_noisy), "n": int(n_clean + n_noisy)}

    def state(self, accelerator: Any) -> dict[str, Tensor]:
        """What a checkpoint needs (a collective call): the totals of all processes, and what is not logged yet."""
        zeros = torch.zeros(4, dtype=torch.float64)
        recent = zeros if self.recent is None else accelerator.reduce(self.recent, reduction="sum").cpu()
        return {"recent": recent, "total": zeros if self.total is None else self.total.cpu()}

    def load(self, state: dict[str, Tensor], accelerator: Any) -> None:
        """Take up a state; the sums that were not logged yet are booked on the main process, once."""
        device = accelerator.device
        if accelerator.is_main_process and state["recent"].any():
            self.recent = state["recent"].to(device)
        else:
            self.recent = torch.zeros_like(state["recent"]).to(device)
        self.total = state["total"].to(device)
