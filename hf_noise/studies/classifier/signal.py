"""What advice on the batch is made of, measured on the way of a run with noise and its usual batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback

from hf_noise.analysis.noise_scale import ratio_interval
from hf_noise.losses.labels import label_nll
from hf_noise.trainers import NoiseScaleCallback
from hf_noise.trainers.noise_scale import left_as_it_was

__all__ = ["SignalToNoise", "advice_metrics", "observers"]

#: Steps between measurements, so that a demo has dozens; this costs time, and changes nothing else.
EVERY = 4
_CONFIDENCE, _UNSEEN = 0.95, 1 << 30


class SignalToNoise(TrainerCallback):
    """Norms of the summed gradients of clean and of corrupt rows in batches of the training rows (paper A, table 4).

    They are drawn for this alone, with the noise of the trainer drawn anew in each, and not trained on.

    Args:
        batch_size: rows of each.
    """

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.trainer: Any = None  # to be set before training
        self.norms: list[tuple[float, float]] = []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step % EVERY == 0:
            with left_as_it_was(self.trainer, model):
                self.norms.append(self._measured(model, state.global_step))

    def _measured(self, model: Any, step: int) -> tuple[float, float]:
        trainer, draw = self.trainer, np.random.default_rng([self.trainer.noise.seed, step])
        rows = trainer.train_dataset
        chosen = draw.choice(len(rows), min(self.batch_size, len(rows)), replace=False)
        inputs = trainer._prepare_inputs(trainer.data_collator(rows.__getitems__(chosen.tolist())))
        # Labels of rows are clean here. Epochs that no run reaches have draws that are none of training.
        noisy, is_noisy = trainer.noise(inputs["labels"], inputs["sample_id"], _UNSEEN + step)
        model.train()
        with trainer.compute_loss_context_manager():
            logits = trainer.logits(model, trainer.network_inputs(inputs))
        nll, learned = label_nll(logits, noisy), [p for p in model.parameters() if p.requires_grad]
        sums = (nll.where(~is_noisy, 0).sum(), nll.where(is_noisy, 0).sum())
        return tuple(_norm(torch.autograd.grad(one, learned, retain_graph=True)) for one in sums)


def _norm(gradients: tuple[Tensor, ...]) -> float:
    return float(torch.nn.utils.get_total_norm(gradients))


def observers(batch_size: int) -> list[TrainerCallback]:
    """What a run is watched by; `SignalToNoise` has to be told its trainer."""
    return [NoiseScaleCallback(every=EVERY), SignalToNoise(batch_size)]


def advice_metrics(callbacks: list[TrainerCallback]) -> dict[str, dict[str, Any]]:
    """Entries of a record, none where a resumed run measured nothing; what is infinite is left out."""
    scale, signal = (next(one for one in callbacks if isinstance(one, kind))
                     for kind in (NoiseScaleCallback, SignalToNoise))  # fmt: skip
    found, norms = scale.noise_scale(), np.array(signal.norms)
    metrics: dict[str, dict[str, Any]] = {}
    if found is not None and math.isfinite(found.value):
        metrics["gradient_noise_scale"] = {"value": found.value, "low": found.low, "n": found.n, "unit": "images"}
        metrics["gradient_noise_scale"] |= {"high": found.high} if math.isfinite(found.high) else {}
    if len(norms) > 1 and norms[:, 1].any():
        low, high = ratio_interval(norms[:, 0], norms[:, 1], _CONFIDENCE)
        metrics["gradient_snr"] = {
            "value": float(norms[:, 0].mean() / norms[:, 1].mean()), "low": low, "n": len(norms),
            "batch_size": signal.batch_size, "ratio": signal.trainer.noise.ratio,
        } | ({"high": high} if math.isfinite(high) else {})  # fmt: skip
        if found is not None:  # also where the noise scale itself is infinite
            metrics["gradient_snr"]["noise_scale_low"] = found.low
    return metrics
