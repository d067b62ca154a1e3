"""Causal language models under token noise, on `transformers.Trainer`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MethodType
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_noise.losses.nll import HAS_FUSED, IGNORE_INDEX, shift_targets, token_nll
from hf_noise.noise import Noise
from hf_noise.noise.checks import check_choice, check_flag
from hf_noise.trainers.arguments import check_given
from hf_noise.trainers.base import NoiseTrainer, refuse_scheduler, search_no_unused
from hf_noise.trainers.collate import (
    USED,
    TokenBatches,
    collate_rows,
    forward_names,
    known_tokens,
    model_inputs,
    text_config,
)
from hf_noise.trainers.finite import check_finite
from hf_noise.trainers.meter import TokenMeter
from hf_noise.trainers.networks import has_router_loss, longest_input, router_loss
from hf_noise.trainers.objective import CorrectedNLL, LearnedErrorRate, make_objective

__all__ = ["CausalLMTrainer"]

_RATE = "hf_noise_error_rate"

# A learned error rate has to travel far compared with a weight, and Adam moves both by the learning rate at most.
_RATE_LEARNING_RATE = 10.0

# Models whose logits are more than hidden states times head; the fused loss would skip these operations.
_LOGIT_TRANSFORMS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


class CausalLMTrainer(NoiseTrainer):
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

    noise_units = ("tokens", "documents")
    other_noise = "see hf_noise.noise for noise on tokens"

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        *,
        noise: Noise | None = None,
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
        # Of the model itself: its wrappers take anything.
        self._inputs, self._has_router_loss = model_inputs(model), has_router_loss(model)
        self._vocab_size = text_config(model).vocab_size
        own = kwargs.pop("data_collator", None)
        shown = None
        if own is not None and (args is None or args.remove_unused_columns):
            shown = frozenset((*USED, *forward_names(model)))
        kwargs["data_collator"] = TokenBatches(
            own or collate_rows, known_tokens(model), longest_input(model), shown
        )  # fmt: skip
        super().__init__(model, args, noise=noise, meter=TokenMeter(), **kwargs)
        self.objective = make_objective(loss, error_rate, self.noise, self._vocab_size, was_given=noise is not None)
        asked = error_rate if isinstance(error_rate, str) else float(error_rate)
        self.objective_claims = {"loss": loss, "error_rate": asked if loss == "corrected" else None}
        # Without these two, the number of targets includes position 0, which no model predicts.
        self.model_accepts_loss_kwargs = True
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

    def check_noise(self, noise: Noise) -> None:
        known = self._vocab_size
        if noise.vocab_size > known:
            what = "the noise draws" if noise.error_rate else "the tokenizer of the rows has"
            raise ValueError(
                f"{what} ids up to {noise.vocab_size - 1}, the model knows {known} tokens; use one vocab_size for both"
            )

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

    def targets(self, inputs: Mapping[str, Tensor], *, draw: bool) -> tuple[Tensor, Tensor | None]:
        """Labels int64 [B, L] and their mask of corruption bool [B, L], None where there is none.

        `draw` asks for noise that is not in the rows.
        """
        labels = inputs["labels"]
        if self.has_noise(inputs):
            return labels, inputs["is_noisy"].bool()
        if not draw or self.noise is None or self.noise.error_rate == 0:
            return labels, None
        if not self.noise.draws_targets:
            raise ValueError(
                f"{type(self.noise).__name__} is no noise on targets and cannot be drawn here; rows bring it, with "
                "is_noisy"
            )
        if "sample_id" not in inputs:
            raise ValueError(
                "dynamic noise needs the column `sample_id`, the stable index of each row; rows have "
                f"{', '.join(sorted(inputs))}; see hf_noise.data.packing, or add it with "
                "`dataset.add_column('sample_id', range(len(dataset)))` (or the data collator drops it)"
            )
        sample = inputs["sample_id"]
        if labels.device.type == "cpu" and not self.args.torch_compile:
            # The same draws; NumPy takes half the time of so many small operations of torch.
            return tuple(map(torch.from_numpy, self.noise(labels.numpy(), sample.numpy(), self.epoch)))
        return self.noise.on_device(labels, sample, self.epoch, compiled=self.args.torch_compile)

    def token_nll(self, model: Any, inputs: Mapping[str, Tensor], targets: Tensor) -> tuple[Tensor, Tensor | None]:
        """NLL [B, L] float32 of targets [B, L], 0 where there is none (-100); and the loss of a router, if any."""
        network_inputs = {name: inputs[name] for name in self._inputs if name in inputs}
        if self.fused_loss:
            return model(**network_inputs, nll_targets=targets), None
        output = model(**network_inputs)
        nll = F.cross_entropy(
            output.logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
        )
        return nll.view(targets.shape), router_loss(output, self.model) if self._has_router_loss else None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, is_noisy = self.targets(inputs, draw=model.training)
        targets = shift_targets(labels)
        nll, of_router = self.token_nll(model, inputs, targets)
        valid = targets != IGNORE_INDEX
        if model.training:
            self.meter.add(nll.detach(), valid, None if is_noisy is None else is_noisy.roll(-1, 1))  # last: no target
            self.watch(nll, inputs.get("sample_id"))
        minimised = self.objective(nll)
        # The plain NLL is 0 where there is no target; a corrected one is not.
        total = (minimised if minimised is nll else minimised * valid).sum()
        loss = self.mean_loss(total, valid, num_items_in_batch)
        if of_router is not None:  # a mean over its tokens: each forward pass has its share of the step
            loss = loss + of_router / (1 if num_items_in_batch is None else self.current_gradient_accumulation_steps)
        return (loss, {"nll": nll}) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Sums per row instead of logits: (None, float64 [B, 2] = NLL and number of targets, [B])."""
        inputs = self._prepare_evaluation(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            labels, _ = self.targets(inputs, draw=False)
            targets = shift_targets(labels)
            nll, _ = self.token_nll(model, inputs, targets)
        valid = targets != IGNORE_INDEX
        dtype = torch.float32 if nll.device.type == "mps" else torch.float64
        sums = torch.stack([(nll * valid).sum(-1, dtype=dtype), valid.sum(-1).to(dtype)], dim=-1)
        return None, sums, torch.zeros(len(labels), device=labels.device)

    def exact_metrics(self, prediction: Any) -> dict[str, float]:
        return exact_nll(prediction)

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


def exact_nll(prediction: Any) -> dict[str, float]:
    """NLL in nats per token, perplexity and number of tokens from the sums per row [N, 2]."""
    sums = np.asarray(prediction.predictions, dtype=np.float64)
    check_finite(sums[:, 0])
    nll, tokens = sums.sum(0)
    if tokens == 0:
        raise ValueError("the evaluation data hold no target: every row is empty, one token long, or ignored")
    mean = nll / tokens
    return {"loss": mean, "nll": mean, "perplexity": math.exp(min(mean, 700.0)), "tokens": int(tokens)}


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
