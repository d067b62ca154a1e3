"""Trainers of classifiers whose logits of a pass may be recorded by sample."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from hf_noise.trainers.dynamics import DynamicsCallback
from hf_noise.trainers.labels import LabelTrainer
from hf_noise.trainers.objective import known_ids

__all__ = ["RecordedTrainer"]


class RecordedTrainer(LabelTrainer):
    """`LabelTrainer` that shows `DynamicsCallback` its passes; a subclass calls `record` in each."""

    _recorders: tuple[DynamicsCallback, ...] = ()

    def why_unrecorded(self) -> str | None:
        """Why logits of a pass are of no single sample, None where they are."""
        return None

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        found = tuple(one for one in self.callback_handler.callbacks if isinstance(one, DynamicsCallback))
        if found and (why := self.why_unrecorded()) is not None:
            raise ValueError(f"DynamicsCallback records what each sample's logits are, and {why}")
        try:
            for one in found:
                one.attach(self, known_ids("DynamicsCallback", self.train_dataset))
            self._recorders = found
            return super().train(resume_from_checkpoint, **kwargs)
        finally:
            self._recorders = ()
            for one in found:
                one.release()

    train.__doc__ = LabelTrainer.train.__doc__

    def record(self, logits: Tensor, labels: Tensor, sample: Tensor | None) -> None:
        """Show a pass of training: logits [B, C], labels as they are trained on [B], sample ids [B]."""
        for one in self._recorders:
            one.seen(logits, labels, sample)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        recorders, self._recorders = self._recorders, ()
        try:
            with super().uncounted():
                yield
        finally:
            self._recorders = recorders

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        for one in self._recorders:  # before the checkpoint is there, so that none of it can be missing
            one.flush(self.state.global_step)
        super()._save_checkpoint(model, trial)
