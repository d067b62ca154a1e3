"""Causal language models under token noise, on `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Any, Literal

import torch
from torch import Tensor

from hf_noise.losses.nll import HAS_FUSED, shift_targets, token_nll
from hf_noise.noise import UniformTokens
from hf_noise.noise.checks import check_choice, check_flag
from hf_noise.trainers.arguments import check_given
from hf_noise.trainers.base import refuse_scheduler, search_no_unused
from hf_noise.trainers.collate import (
    text_config,
)
from hf_noise.trainers.objective import CorrectedNLL, LearnedErrorRate, make_objective
from hf_noise.trainers.tokens import TokenTrainer

__all__ = ["CausalLMTrainer"]

_RATE = "hf_noise_error_rate"

# A learned error rate has to travel far compared with a weight, and Adam moves both by the learning rate at most.
_RATE_LEARNING_RATE = 10.0

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
        noise: what the training targets suffer. It is written into the model's config (`hf_noise`) and so into every
            checkpoint. With rows that have an `is_noisy` column it is only recorded, not drawn again. A data set made
            by `load_dataset("hf_noise/...")` brings its own.
        loss: "nll", or "corrected" for `hf_noise.losses.corrected_nll`.
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
        noise: UniformTokens | None = None,
        loss: Literal["nll", "corrected"] = "nll",
        error_rate: float | Literal["known", "learned"] = "known",
        fused_loss: bool | None = None,
        **kwargs: Any,
    ):
        check_given(model, args, kwargs)
        check_choice("loss", loss, ("nll", "corrected"), '"nll" or "corrected"')
        is_learned = loss == "corrected" and isinstance(error_rate, str) and error_rate == "learned"
        if is_learned:
            search_no_unused(args)  # it is used outside the model's forward
            refuse_scheduler(kwargs, 'error_rate="learned"')
        super().__init__(model, args, noise=noise, **kwargs)
        self.objective = make_objective(loss, error_rate, self.noise, self._vocab_size, was_given=noise is not None)
        asked = error_rate if isinstance(error_rate, str) else float(error_rate)
        self.objective_claims = {"loss": loss, "error_rate": asked if loss == "corrected" else None}
        # Without it the number of targets includes position 0, which no model predicts.
        self._loss_shifts_labels = True
        if isinstance(getattr(self.objective, "rate", None), LearnedErrorRate):
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ValueError('error_rate="learned" is for DDP or one device; with sharded weights state it')
            self.model.add_module(_RATE, self.objective.rate.to(self.args.device))
            # Also by `model.save_pretrained`: a stock model would not know the key.
            ignored = getattr(self.model, "_keys_to_ignore_on_save", None) or ()
            self.model._keys_to_ignore_on_save = {*ignored, f"{_RATE}.logit"}
        self.fused_loss = self._choose_fused(fused_loss)
        if self.fused_loss:
            _return_token_nll(self.model)

    def _choose_fused(self, wanted: bool | None) -> bool:
        if wanted is not None:
            check_flag("fused_loss", wanted)
        config = text_config(self.model)
        transformed = [name for name in _LOGIT_TRANSFORMS if getattr(config, name, None) not in (None, 1.0)]
        if wanted is None:
            fits = not transformed and not self._has_router_loss
            return HAS_FUSED and self.args.device.type == "cuda" and fits
        if wanted and self._has_router_loss:
            raise ValueError(f"{type(self.model).__name__} has a loss of its router, which the fused loss would leave "
                             "out: use fused_loss=False")  # fmt: skip
        if wanted and transformed:
            raise ValueError(f"{type(self.model).__name__} changes its logits ({transformed[0]}): use fused_loss=False")
        if wanted and not HAS_FUSED:
            raise RuntimeError(f"torch {torch.__version__} has no fused linear cross-entropy: fused_loss=False")
        return wanted

    def aligned(self, labels: Tensor, is_noisy: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return shift_targets(labels), None if is_noisy is None else is_noisy.roll(-1, 1)  # last: no target

    def token_nll(self, model: Any, inputs: Mapping[str, Tensor], targets: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.fused_loss:
            return model(**self.network_inputs(inputs), nll_targets=targets), None
        return super().token_nll(model, inputs, targets)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and isinstance(self.objective, CorrectedNLL) and self.objective.source == "learned":
            logs["learned_error_rate"] = self.objective.error_rate
        super().log(logs, start_time)

    def get_decay_parameter_names(self, model) -> list[str]:
        return [name for name in super().get_decay_parameter_names(model) if not name.startswith(_RATE)]

    def create_optimizer(self, *args, **kwargs):
        optimizer = super().create_optimizer(*args, **kwargs)
        rate = getattr(self.model, _RATE, None)
        if rate is not None:
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if p is not rate.logit]
            learning_rate = _RATE_LEARNING_RATE * self.args.learning_rate
            optimizer.add_param_group({"params": [rate.logit], "lr": learning_rate, "weight_decay": 0.0})
        return optimizer

    def _load_own(self, folder: str, state: dict[str, Tensor]) -> None:
        rate = getattr(self.model, _RATE, None)
        if rate is not None:
            rate.load_state_dict({"logit": state[f"{_RATE}.logit"]})


def _return_token_nll(model: Any) -> None:
    """Let `model(..., nll_targets=...)` return the NLL of each target from its fused head.

    The change is in this instance's `forward`, so that it also holds inside DDP, FSDP and autocast wrappers.
    """
    stock = model.forward

    def forward(self, *args, nll_targets: Tensor | None = None, **inputs):
        if nll_targets is None:
            return stock(*args, **inputs)
        hidden = self.base_model(*args, use_cache=False, **inputs)[0]
        head = self.get_output_embeddings()
        return token_nll(hidden, head.weight, nll_targets, getattr(head, "bias", None))

    model.forward = MethodType(forward, model)
