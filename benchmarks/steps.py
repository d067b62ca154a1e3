"""Seconds per optimiser step of a `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from compare import clock
from transformers import PrinterCallback, Trainer, TrainerCallback

__all__ = ["Steps", "by_trainer"]


class Steps(TrainerCallback):
    """Median seconds from the end of one step to the end of the next, so with reading the batch; start-up excluded."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(clock())

    def median(self) -> float:
        return float(np.median(np.diff(self.ends)))


def by_trainer(make: Callable[..., Trainer]) -> Callable[[], tuple[float, Trainer]]:
    """A variant: train anew from the same weights; (median seconds per step, trainer)."""

    def run() -> tuple[float, Trainer]:
        steps = Steps()
        trainer = make(callbacks=[steps])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return steps.median(), trainer

    return run
