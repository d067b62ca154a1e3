"""Stopping a run whose loss or weights are no numbers any more, before a checkpoint holds them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_noise.reports.record import write_atomic
from hf_noise.trainers.base import NoiseTrainer

__all__ = ["FAILURE_FILE", "FiniteTrainer"]

FAILURE_FILE = "non_finite_loss.json"


class FiniteTrainer(NoiseTrainer):
    """`NoiseTrainer` that stops on NaN and infinity; a subclass shows each batch's losses to `watch`.

    A loss that is not finite stops the run at the next log entry or checkpoint, whichever is first, and
    `non_finite_loss.json` in the run's folder then says which images it came from. Weights are looked at whenever they
    are about to be saved, because a gradient may overflow where the loss does not. So nothing that is saved holds NaN
    or infinity, and the last good checkpoint stays. Gradients are left as they are: to put numbers in the place of NaN,
    as paper C's code does, would hide what is wrong.

    Raises:
        FloatingPointError: in training or when saving, a loss or a weight that is not finite.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # The Trainer's own filter would hide the loss, and make a GPU wait in every step.
        self.args.logging_nan_inf_filter = False
        self._failure: dict[str, Tensor] | None = None

    def watch(self, losses: Tensor, sample: Tensor) -> None:
        """Keep what the first loss that is not finite came from, on the device: reading it would make it wait.

        Args:
            losses: float [B] of a training batch.
            sample: its sample ids, int64 [B].
        """
        losses = losses.detach()
        now = {"step": torch.full_like(sample[:1], self.state.global_step), "sample_id": sample, "loss": losses.float()}
        kept = self._failure
        if kept is None or len(kept["sample_id"]) < len(sample):
            if kept is not None:
                self._stop_if_broken(local=True)
            self._failure = kept = {**now, "broken": torch.zeros_like(now["step"], dtype=torch.bool)}
        elif len(kept["sample_id"]) > len(sample):  # the last batch of an epoch
            missing = len(kept["sample_id"]) - len(sample)
            now["sample_id"] = nn.functional.pad(sample, (0, missing), value=-1)
            now["loss"] = nn.functional.pad(now["loss"], (0, missing))
        broken = ~torch.isfinite(losses).all().view(1)
        self._failure = {name: torch.where(kept["broken"], kept[name], value) for name, value in now.items()}
        self._failure["broken"] = kept["broken"] | broken

    def saved_values(self) -> Iterator[tuple[str, Tensor]]:
        """Names and values of all that is saved: by default parameters and buffers of the model."""
        yield from self.model.state_dict().items()

    def _stop_if_broken(self, local: bool = False) -> None:
        """Raise FloatingPointError if a loss since the start was not finite (a collective call, unless local)."""
        if self._failure is None:
            return
        ours = self._failure["broken"]
        if not bool(ours if local else self.accelerator.gather(ours).any()):
            return
        if not bool(ours):
            raise FloatingPointError("the loss of another process is NaN or infinite; its message says where")
        loss, sample = self._failure["loss"].tolist(), self._failure["sample_id"].tolist()
        wrong = [one for one, value in zip(sample, loss) if not np.isfinite(value)]
        step = int(self._failure["step"]) + 1
        batch = [{"sample_id": one, "loss": repr(value)} for one, value in zip(sample, loss) if one >= 0]
        file = self._write_failure(step=step, batch=batch)
        raise FloatingPointError(
            f"the loss is NaN or infinite in step {step} for {len(wrong)} of {len(batch)} images (sample_id "
            f"{_first(wrong)}); the batch is in {file}, earlier checkpoints stay. Look at these images, or lower the "
            "learning rate; float16 may be too narrow"
        )

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
            f"{len(wrong)} of {len(values)} weights are NaN or infinite after step {step} ({_first(wrong)}), while the "
            f"loss was finite: a gradient was not. Their names are in {file}, nothing was saved, earlier checkpoints "
            "stay. Lower the learning rate; float16 may be too narrow"
        )

    def _write_failure(self, **found: Any) -> Path:
        rank = self.args.process_index
        file = Path(self.args.output_dir, FAILURE_FILE if rank == 0 else f"{rank}-{FAILURE_FILE}")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps({"epoch": self.epoch, "process": rank, **found}) + "\n")
        return file

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self._stop_if_broken()
        super().log(logs, start_time)

    def _save_checkpoint(self, model, trial):
        self._stop_if_broken()
        self._stop_if_weights_broken()
        super()._save_checkpoint(model, trial)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if self._checkpoint_state is None:  # else a checkpoint, looked at already
            self._stop_if_weights_broken(local=True)  # one process alone may save a model
        super().save_model(output_dir, _internal_call)


def _own_part(value: Tensor) -> Tensor:
    """What this process has of a tensor, which may be sharded."""
    return value.to_local() if hasattr(value, "to_local") else value


def _first(wrong: list) -> str:
    return f"{', '.join(map(str, wrong[:8]))}{', ...' if len(wrong) > 8 else ''}"
