"""What advice on the batch is made of, measured on the way of a run with noise and its usual batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_noise.analysis.noise_scale import ratio_interval
from hf_noise.losses.labels import label_nll
from hf_noise.studies.classifier.multipliers import WINDOW
from hf_noise.trainers import NoiseScaleCallback
from hf_noise.trainers.noise_scale import left_as_it_was
from hf_noise.trainers.passes import PassCallback

__all__ = ["SignalToNoise", "advice_metrics", "observers"]

#: Steps between measurements, so that a demo has dozens; this costs time, and changes nothing else.
EVERY = 4
_CONFIDENCE, _UNSEEN = 0.95, 1 << 30


class SignalToNoise(PassCallback):
    """Norms of the summed gradients of clean and of corrupt rows in batches of the training rows (paper A, table 4).

    The batches are drawn for this alone and not trained on, and go through the network in passes as those of training
    do, of the same number of rows, over which it may normalise. Wrong labels are those of the trainer's noise: drawn
    anew in each batch where they are in each epoch, else those that are trained on.

    Args:
        batch_size: rows of each.
    """

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.norms: list[tuple[float, float]] = []
        self._trainer: Any = None

    def attach(self, trainer: Any) -> None:
        if self.batch_size > (rows := len(trainer.train_dataset)):
            raise ValueError(f"the SNR is to be measured in batches of {self.batch_size} rows, and there are {rows}")
        self._trainer, self.norms = trainer, []

    def kept(self) -> dict[str, Tensor]:
        """All norms, float64 [n, 2]."""
        return {"norms": torch.tensor(self.norms, dtype=torch.float64).view(-1, 2)}

    def take_up(self, kept: Mapping[str, Tensor]) -> None:
        self.norms = [tuple(one) for one in kept["norms"].tolist()] if "norms" in kept else []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step % EVERY == 0:
            with left_as_it_was(self._trainer, model):
                self.norms.append(self._measured(model, state.global_step))

    def _measured(self, model: Any, step: int) -> tuple[float, float]:
        trainer, draw = self._trainer, np.random.default_rng([self._trainer.noise.seed, step])
        rows, each = trainer.train_dataset, trainer.args.per_device_train_batch_size
        chosen = draw.choice(len(rows), self.batch_size, replace=False)
        passes = [self._of_pass(model, rows.__getitems__(chosen[start : start + each].tolist()), step)
                  for start in range(0, len(chosen), each)]  # fmt: skip
        clean, corrupt = ([sum(parts) for parts in zip(*kind)] for kind in zip(*passes))
        return tuple(float(torch.nn.utils.get_total_norm(one)) for one in (clean, corrupt))

    def _of_pass(self, model: Any, rows: Any, step: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Gradients of the summed losses of the clean and of the corrupt rows of one pass."""
        trainer = self._trainer
        inputs = trainer._prepare_inputs(trainer.data_collator(rows))
        # Labels of rows are clean here. Epochs that no run reaches have draws that are none of training.
        noisy, is_noisy = trainer.noise(inputs["labels"], inputs["sample_id"], _UNSEEN + step)
        model.train()
        with trainer.compute_loss_context_manager():
            logits = trainer.logits(model, trainer.network_inputs(inputs))
        nll, learned = label_nll(logits, noisy), [p for p in model.parameters() if p.requires_grad]
        sums = nll.where(~is_noisy, 0).sum(), nll.where(is_noisy, 0).sum()
        clean, corrupt = (torch.autograd.grad(one, learned, retain_graph=True) for one in sums)
        return clean, corrupt


def observers(batch_size: int) -> list[PassCallback]:
    """What a run is watched by."""
    return [NoiseScaleCallback(every=EVERY), SignalToNoise(batch_size)]


def advice_metrics(trainer: Any) -> dict[str, dict[str, Any]]:
    """Entries of a record, of the `WINDOW` of a run; none of what was not measured there, and no infinite end."""
    scale, signal = (next(one for one in trainer.watching.values() if isinstance(one, kind))
                     for kind in (NoiseScaleCallback, SignalToNoise))  # fmt: skip
    steps = trainer.state.max_steps
    of_window = len(range(0, steps, EVERY)) - len(range(0, steps // 2, EVERY))
    found, norms = scale.noise_scale(of_window), np.array(signal.norms[-of_window:])
    told = {"window": WINDOW, "unit": "images"}
    metrics: dict[str, dict[str, Any]] = {}
    if found is not None:
        if math.isfinite(found.value):
            ends = {"low": found.low} | ({"high": found.high} if math.isfinite(found.high) else {})
            metrics["gradient_noise_scale"] = {"value": found.value, **ends, "n": found.n, **told}
        # Also where the noise scale itself is infinite, as no signal could be told from noise.
        metrics["gradient_noise_scale_low"] = {"value": found.low, "n": found.n, **told}
    if len(norms) > 1 and norms[:, 1].any():
        low, high = ratio_interval(norms[:, 0], norms[:, 1], _CONFIDENCE)
        metrics["gradient_snr"] = {
            "value": float(norms[:, 0].mean() / norms[:, 1].mean()), "low": low, "n": len(norms), "window": WINDOW,
            "batch_size": signal.batch_size, "ratio": trainer.noise.ratio,
        } | ({"high": high} if math.isfinite(high) else {})  # fmt: skip
    return metrics
