"""Stopping a run whose loss, gradients or weights are no numbers any more, before anything takes them up."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer

from hf_noise.atomic import write_atomic

__all__ = ["FAILURE_FILE", "FiniteTrainer", "check_finite"]

FAILURE_FILE = "non_finite_loss.json"


class FiniteTrainer(Trainer):
    """`Trainer` that stops on NaN and infinity; a subclass shows each batch's losses to `watch`.

    A loss or a gradient that is not finite stops the run in that step, before the optimiser takes it up, and
    `non_finite_loss.json` in the run's folder then says which rows it came from. (Steps whose float16 gradients
    overflow are left out by their scaler and go on.) Weights are looked at whenever they are about to be saved. So
    nothing that is saved holds NaN or infinity, and the last good checkpoint stays. Gradients are left as they are: to
    put numbers in the place of NaN, as paper C's code does, would hide what is wrong.

    The host waits for a GPU once in a step for this, where the stock Trainer's filter, which hides such losses and is
    off here, waits for it in every forward pass.

    Raises:
        FloatingPointError: in training, a loss or a gradient that is not finite; when saving, a weight.
    """

    #: What a row is called in messages.
    rows_are: ClassVar[str] = "rows"

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.args.logging_nan_inf_filter = False
        self._forget_step()
        self._saves_checkpoint = False

    def _forget_step(self) -> None:
        self._seen: list[tuple[Tensor | None, Tensor]] = []
        self._step_loss: Tensor | None = None

    def watch(self, losses: Tensor, sample: Tensor | None) -> None:
        """Keep what the loss of this step is made of until the step is over.

        Args:
            losses: float [B] or [B, L] of a training batch.
            sample: its sample ids, int64 [B]; None where rows have none.
        """
        self._seen.append((sample, losses.detach()))

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        self._step_loss = loss if self._step_loss is None else self._step_loss + loss
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm before the optimiser takes a step, where loss and gradients are still to be stopped."""
        norm = super()._get_grad_norm(model, grad_norm)
        seen, loss = self._seen, self._step_loss
        self._forget_step()
        scaled = getattr(self.accelerator, "scaler", None) is not None
        whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        if loss is not None and not math.isfinite(float(loss if scaled else loss + whole)):
            self._stop(seen, math.isfinite(float(loss)))
        return norm

    def _stop(self, seen: list[tuple[Tensor | None, Tensor]], loss_is_finite: bool) -> None:
        step, batch = self.state.global_step + 1, []
        for sample, losses in seen:
            ids = range(len(losses)) if sample is None else sample.tolist()
            batch += zip(ids, losses.double().flatten(1).sum(-1).tolist() if losses.ndim > 1 else losses.tolist())
        named = "sample_id" if seen and seen[0][0] is not None else "row of the batch"
        wrong = [one for one, loss in batch if not math.isfinite(loss)]
        file = self._write_failure(step=step, batch=[{named: one, "loss": repr(loss)} for one, loss in batch])
        if wrong:
            what = f"the loss is NaN or infinite in step {step} for {len(wrong)} of {len(batch)} {self.rows_are} " \
                   f"({named} {_first(wrong)})"  # fmt: skip
        elif not loss_is_finite:
            what = f"the loss is NaN or infinite in step {step}, that of none of {len(batch)} {self.rows_are} is: " \
                   "they have no target (labels are -100, texts have one token), or another part of the loss broke"
        else:
            what = f"the gradient is NaN or infinite in step {step}, while the loss of this process is finite"
        raise FloatingPointError(
            f"{what}; the batch is in {file}, the optimiser did not take this step, earlier checkpoints stay. Look at "
            f"these {self.rows_are}, or lower the learning rate; float16 may be too narrow"
        )

    def saved_values(self) -> Iterator[tuple[str, Tensor]]:
        """Names and values of all that is saved: by default parameters and buffers of the model."""
        yield from self.model.state_dict().items()

    def _stop_if_weights_broken(self, local: bool = False) -> None:
        """Raise FloatingPointError if a value to be saved is not finite (a collective call, unless local)."""
        values = {name: _own_part(value) for name, value in self.saved_values() if value.is_floating_point()}
        ours = ~torch.stack([torch.isfinite(value).all() for value in values.values()]).all().view(1)
        if not bool(ours if local else self.accelerator.gather(ours).any()):
            return
        if not bool(ours):
            raise FloatingPointError("weights of another process are NaN or infinite; its message says which")
        wrong = [name for name, value in values.items() if not torch.isfinite(value).all()]
        step = self.state.global_step
        file = self._write_failure(step=step, weights=wrong)
        raise FloatingPointError(
            f"{len(wrong)} of {len(values)} weights are NaN or infinite after step {step} ({_first(wrong)}), while "
            f"loss and gradients were finite. Their names are in {file}, nothing was saved, earlier checkpoints stay. "
            "Lower the learning rate; float16 may be too narrow"
        )

    def _write_failure(self, **found: Any) -> Path:
        rank = self.args.process_index
        file = Path(self.args.output_dir, FAILURE_FILE if rank == 0 else f"{rank}-{FAILURE_FILE}")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps({"epoch": math.floor(self.state.epoch or 0), "process": rank, **found}) + "\n")
        return file

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self._forget_step()
        return super().train(*args, **kwargs)

    def _save_checkpoint(self, model, trial):
        self._stop_if_weights_broken()
        self._saves_checkpoint = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._saves_checkpoint = False

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if not self._saves_checkpoint:  # else its weights were looked at already
            self._stop_if_weights_broken(local=True)  # one process alone may save a model
        super().save_model(output_dir, _internal_call)


def check_finite(losses: np.ndarray) -> None:
    """Raise FloatingPointError if a loss of an evaluation, float [N], is not finite."""
    broken = ~np.isfinite(losses)
    if broken.any():
        raise FloatingPointError(
            f"the loss of {int(broken.sum())} of {len(losses)} rows is NaN or infinite, the first is row "
            f"{int(broken.argmax())}; look at that row and at the weights"
        )


def _own_part(value: Tensor) -> Tensor:
    """What this process has of a tensor, which may be sharded."""
    return value.to_local() if hasattr(value, "to_local") else value


def _first(wrong: list) -> str:
    return f"{', '.join(map(str, wrong[:8]))}{', ...' if len(wrong) > 8 else ''}"
