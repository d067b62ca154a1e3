"""Which share of the documents was noise, counted where rows cannot be read before training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hf_noise.noise import Noise
from hf_noise.noise.arrays import IGNORE_INDEX
from hf_noise.trainers.marked import contradicts
from hf_noise.trainers.stated import in_short

__all__ = ["CountedDocuments"]

_KEY = "noisy_documents"  # in a checkpoint's state


class CountedDocuments:
    """What of the first epoch's rows was noise: held against alpha at its end, or that of training.

    A document ends anywhere in a row, so tokens are counted; but those of a document are noisy together, so that a row
    is one piece of evidence, and parts of rows count together. Noise may come last, so that a part of the rows may have
    any share; but a run that ends there and has seen no noise at all was not trained under it. Counts stay on the
    device, and are exact over processes and resumes.

    Args:
        noise: a `DocumentNoise` with alpha > 0 that the rows are said to carry.
        is_stream: rows may come again without a word, and then half of them are evidence.
    """

    def __init__(self, noise: Noise, *, is_stream: bool):
        self.noise, self._part = noise, 2 if is_stream else 1
        self._counts: Tensor | None = None
        self._is_over = False

    def add(self, inputs: Mapping[str, Any], is_new: Tensor | None = None) -> None:
        """Count a batch of the first epoch, labels int64 and is_noisy bool [B, L], without waiting for a device.

        Rows that came before are no further evidence: `is_new`, bool [B], leaves them out.
        """
        if self._is_over or "is_noisy" not in inputs:
            return
        is_unit = inputs["labels"] != IGNORE_INDEX
        if is_new is not None:
            is_unit = is_unit & is_new[:, None]
        noisy = (inputs["is_noisy"].bool() & is_unit).sum()
        counts = torch.stack([noisy, is_unit.sum(), is_unit.any(-1).sum()])
        self._counts = counts if self._counts is None else self._counts + counts

    def check(self, accelerator: Any, *, is_whole: bool) -> None:
        """Hold what was counted against alpha, once; `is_whole` says that all rows were seen (a collective call).

        Raises:
            ValueError: it cannot be that share, but for a false alarm in a million.
        """
        if self._is_over or self._counts is None:
            return
        self._is_over = True
        tokens, targets, n = accelerator.reduce(self._counts, reduction="sum").tolist()
        share = tokens / targets if targets else 0.0
        noisy = round(share * n) or int(tokens > 0)
        wrong = contradicts(noisy // self._part, n // self._part, self.noise.alpha)
        if wrong and (is_whole or self.noise.is_spread or not noisy):
            raise ValueError(
                f"is_noisy marks {noisy} of {n} rows of the first epoch, {share:.2%}, where {in_short(self.noise)} "
                f"makes {self.noise.alpha:.2%} so: the run was not trained under the noise that it would be recorded "
                "with. Set is_noisy where a row is noise, train on all rows if noise comes last, or give noise= what "
                "they hold"
            )

    def state(self, accelerator: Any) -> dict[str, Tensor]:
        """What a checkpoint needs, int64 [3]: noisy tokens, tokens and rows (a collective call); {} if all is said."""
        if self._is_over or self._counts is None:
            return {}
        return {_KEY: accelerator.reduce(self._counts, reduction="sum").cpu()}

    def load(self, state: Mapping[str, Tensor], accelerator: Any) -> None:
        """Take up a state, on the main process; without one, of an older checkpoint, nothing can be said."""
        if _KEY not in state or state[_KEY].shape != (3,):
            self._is_over = True
        else:
            found = state[_KEY] if accelerator.is_main_process else torch.zeros_like(state[_KEY])
            self._counts = found.to(accelerator.device)
