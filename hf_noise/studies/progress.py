"""A progress bar that carries the figures of the log, instead of a line for each log entry."""

from __future__ import annotations

import sys

from transformers import ProgressCallback

__all__ = ["FigureProgress"]

_SHOWN = {
    "loss": "loss",
    "nll_clean_targets": "clean",
    "nll_corrupted_targets": "corrupted",
    "loss_clean_labels": "clean",
    "loss_wrong_labels": "wrong",
    "learned_error_rate": "e",
    "eval_nll": "validation",
}


class FigureProgress(ProgressCallback):
    """Shows the latest loss, the NLL of clean and corrupted targets, and the validation NLL beside the bar."""

    def __init__(self, description: str = ""):
        super().__init__()
        self.description = description
        self.figures: dict[str, str] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        if state.is_world_process_zero:
            self.training_bar.set_description(self.description)
            if state.global_step:
                self.training_bar.write(
                    f"{self.description}: goes on from step {state.global_step:,} of {state.max_steps:,}", sys.stderr
                )

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or self.training_bar is None:
            return
        self.figures |= {name: f"{logs[key]:.3f}" for key, name in _SHOWN.items() if key in (logs or {})}
        self.training_bar.set_postfix(self.figures)

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        first = self.prediction_bar is None
        super().on_prediction_step(args, state, control, eval_dataloader=eval_dataloader, **kwargs)
        if first and self.prediction_bar is not None:
            self.prediction_bar.leave = False
            self.prediction_bar.set_description("evaluation")
