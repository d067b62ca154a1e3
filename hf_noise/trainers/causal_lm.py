"""Causal language models under token noise, on `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from hf_noise.losses.nll import HAS_FUSED, shift_targets
from hf_noise.noise import Noise
from hf_noise.noise.checks import check_flag
from hf_noise.objectives.base import Objective
from hf_noise.trainers.collate import forward_names, text_config
from hf_noise.trainers.fused import FusedHead
from hf_noise.trainers.tokens import TokenTrainer

__all__ = ["CausalLMTrainer"]

# Models whose logits are more than hidden states times head; the fused loss would skip these operations.
_LOGIT_TRANSFORMS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


class CausalLMTrainer(TokenTrainer):
    """Train a causal language model on noisy targets, with the plain or the forward-corrected likelihood.

    Rows hold `input_ids` and `sample_id` (dynamic noise, drawn on the device for every epoch), or the columns of a
    noisy data set: clean `input_ids`, noisy `labels`, `is_noisy`. Inputs always stay as they are.

    Losses are sums over tokens divided by the number of tokens in the whole batch, whatever the accumulation and the
    number of processes. `evaluate` returns the exact mean over tokens as `eval_nll`. Logs show the NLL of clean and
    of corrupted targets apart, and the rate of corruption that was realised.

    Padding, on either side, moves no position and is no target's only context. A model's loss of its router
    (`output_router_logits=True`) is added in training. `compute_metrics` is given no logits: `predictions` are float64
    [N, 2], the NLL of each row and its number of targets.

    Args:
        noise: what the training targets suffer: any noise on tokens; or documents of noise among the rows, which are
            trained on as they are. It is written into the model's config (`hf_noise`) and so into every checkpoint.
            With rows that have an `is_noisy` column, as documents need, it is only recorded, not drawn again. A data
            set made by `load_dataset("hf_noise/...")` brings its own.
        loss: "nll", "corrected" for `hf_noise.losses.corrected_nll`, or any objective on tokens, such as
            `hf_noise.objectives.Corrected("learned")` or its name. It is written into the config beside the noise
            (`hf_noise_objective`).
        error_rate: for the corrected loss: "known" takes e from the noise, "learned" fits one scalar with the model, a
            number states it. A data set that says r = 0 says that no noise was added, not that its text is right: there
            "known" is refused, and 0 has to be stated.
        fused_loss: compute the loss of the head without holding all logits. By default on a GPU where torch offers it
            (>= 2.15); slow on a CPU.
        **kwargs: as for `transformers.Trainer`.

    Raises:
        ValueError: noise and model disagree on the vocabulary; loss, error rate and noise do not fit together; rows
            hold other tokens than the model knows, or more than it has positions for; and what `NoiseTrainer` refuses.
        RuntimeError: `fused_loss=True` where torch has none.
    """

    is_causal = True

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        *,
        noise: Noise | None = None,
        loss: Literal["nll", "corrected"] | str | Objective = "nll",
        error_rate: float | Literal["known", "learned"] = "known",
        fused_loss: bool | None = None,
        **kwargs: Any,
    ):
        super().__init__(model, args, noise=noise, loss=loss, error_rate=error_rate, **kwargs)
        # Without it the number of targets includes position 0, which no model predicts.
        self._loss_shifts_labels = True
        self.fused_loss = self._choose_fused(fused_loss)
        self.fused_head = FusedHead(self.model) if self.fused_loss else None
        self._without_cache = {"use_cache": False} if "use_cache" in forward_names(model) else {}

    def _choose_fused(self, wanted: bool | None) -> bool:
        if wanted is not None:
            check_flag("fused_loss", wanted)
        config = text_config(self.model)
        transformed = [name for name in _LOGIT_TRANSFORMS if getattr(config, name, None) not in (None, 1.0)]
        if wanted is None:
            fits = not transformed and not self._has_router_loss and not self.loss.needs_logits
            return HAS_FUSED and self.args.device.type == "cuda" and fits
        if wanted and self._has_router_loss:
            raise ValueError(f"{type(self.model).__name__} has a loss of its router, which the fused loss would leave "
                             "out: use fused_loss=False")  # fmt: skip
        if wanted and self.loss.needs_logits:
            raise ValueError(f"{type(self.loss).__name__} needs the logits, which the fused loss never holds: use "
                             "fused_loss=False")  # fmt: skip
        if wanted and transformed:
            raise ValueError(f"{type(self.model).__name__} changes its logits ({transformed[0]}): use fused_loss=False")
        if wanted and not HAS_FUSED:
            raise RuntimeError(f"torch {torch.__version__} has no fused linear cross-entropy: fused_loss=False")
        return wanted

    def aligned(self, labels: Tensor, is_noisy: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return shift_targets(labels), None if is_noisy is None else is_noisy.roll(-1, 1)  # last: no target

    def token_nll(
        self, model: Any, inputs: Mapping[str, Tensor], targets: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if self.fused_head is None:
            return super().token_nll(model, inputs, targets)
        with self.fused_head.scoring(targets):
            output = model(**self.network_inputs(inputs), **self._without_cache)
        return self.fused_head.nll_of(output), None, None
