"""What trainers on tokens share, causal, masked or of pairs: noisy targets, batches, exact sums over targets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_noise.losses.nll import IGNORE_INDEX
from hf_noise.noise import Noise
from hf_noise.objectives.base import Forward, Objective, objective_named
from hf_noise.objectives.tokens import Corrected
from hf_noise.trainers.arguments import check_given
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
from hf_noise.trainers.objective import ObjectiveTrainer

__all__ = ["TokenTrainer", "exact_nll"]


class TokenTrainer(ObjectiveTrainer):
    """`ObjectiveTrainer` on rows of tokens; a subclass says which logits a target belongs to (`aligned`).

    Rows hold `input_ids` and `sample_id` (dynamic noise, drawn on the device for every epoch), or the columns of a
    noisy data set: clean `input_ids`, noisy `labels`, `is_noisy`. Inputs always stay as they are.

    Losses are sums over tokens divided by the number of tokens in the whole batch, whatever the accumulation and the
    number of processes. `evaluate` returns the exact mean over tokens as `eval_nll`. Logs show the NLL of clean and
    of corrupted targets apart, and the rate of corruption that was realised.

    `compute_metrics` is given no logits: `predictions` are float64 [N, 2], the NLL of each row and its number of
    targets. A model's loss of its router (`output_router_logits=True`) is added in training.

    Raises:
        ValueError: noise and model disagree on the vocabulary; rows hold other tokens than the model knows, or more
            than it has positions for; and what `NoiseTrainer` refuses.
    """

    unit = "tokens"
    noise_units = ("tokens", "documents")
    other_noise = "see hf_noise.noise for noise on tokens"
    #: Whether a target is predicted from what stands before it, so that padding must be none's only context.
    is_causal = False
    hands_forward = True

    def __init__(
        self,
        model: Any,
        args: Any,
        *,
        noise: Noise | None,
        loss: str | Objective = "nll",
        error_rate: float | Literal["known", "learned"] = "known",
        **kwargs: Any,
    ):
        check_given(model, args, kwargs)
        loss = _objective(loss, error_rate)
        if loss.needs_forward and loss.needs_features:
            raise ValueError(f"{type(loss).__name__} looks at the features of a classifier's head, which models of "
                             "tokens do not show")  # fmt: skip
        self.prepare(loss, args, kwargs)
        # Of the model itself: its wrappers take anything.
        self._inputs, self._has_router_loss = model_inputs(model), has_router_loss(model)
        self._vocab_size = self.target_tokens(model)
        own = kwargs.pop("data_collator", None)
        shown = None
        if own is not None and (args is None or args.remove_unused_columns):
            shown = frozenset((*USED, *forward_names(model), *loss.needs_columns))
        kwargs["data_collator"] = self.batches(model, own, shown, loss)
        super().__init__(model, args, noise=noise, meter=self.make_meter(), **kwargs)
        self.minimise(loss, num_classes=self._vocab_size, was_given=noise is not None)
        # Without it the divisor of a batch would be a number of rows.
        self.model_accepts_loss_kwargs = True

    def batches(self, model: Any, own: Any, shown: frozenset[str] | None, loss: Objective) -> Any:
        """What makes batches of rows: around a collator of the user's `own`, which is shown these columns."""
        return TokenBatches(own or collate_rows, known_tokens(model), longest_input(model), shown, self.is_causal)

    def make_meter(self) -> TokenMeter:
        """What counts the losses of training."""
        return TokenMeter()

    def target_tokens(self, model: Any) -> int:
        """Number of tokens that a target may be."""
        return text_config(model).vocab_size

    def aligned(self, labels: Tensor, is_noisy: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Targets [B, L] of the logits at each position, -100 for none, and their mask; here the labels themselves."""
        return labels, is_noisy

    def check_noise(self, noise: Noise) -> None:
        known = self._vocab_size
        if noise.vocab_size > known:
            what = "the noise draws" if noise.error_rate else "the tokenizer of the rows has"
            raise ValueError(
                f"{what} ids up to {noise.vocab_size - 1}, the model knows {known} tokens; use one vocab_size for both"
            )

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

    def network_inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The columns of a batch that the model's forward takes."""
        return {name: inputs[name] for name in self._inputs if name in inputs}

    def token_nll(
        self, model: Any, inputs: Mapping[str, Tensor], targets: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """NLL [B, L] float32 of targets [B, L], 0 where there is none (-100); logits; the loss of a router, if any."""
        output = model(**self.network_inputs(inputs))
        nll = F.cross_entropy(
            output.logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
        )
        of_router = router_loss(output, self.model) if self._has_router_loss else None
        return nll.view(targets.shape), output.logits, of_router

    @torch.no_grad()
    def nll_under(self, network: Any, inputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        """NLL [B, L] of targets under a network like the model, which accelerate has not prepared."""
        with self.accelerator.autocast():
            return self.token_nll(network, inputs, targets)[0]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, is_noisy = self.targets(inputs, draw=model.training)
        targets, is_noisy = self.aligned(labels, is_noisy)
        nll, logits, of_router = self.token_nll(model, inputs, targets)
        valid = targets != IGNORE_INDEX
        if model.training:
            self.meter.add(nll.detach(), valid, is_noisy)
            self.watch(nll, inputs.get("sample_id"))
        minimised = self.objective(nll, *self._needed(model, inputs, logits, targets))
        # The plain NLL is 0 where there is no target; another loss may be anything there, also infinite: no product.
        total = (minimised if minimised is nll else minimised.where(valid, 0)).sum()
        loss = self.mean_loss(total, valid, num_items_in_batch)
        if of_router is not None:  # a mean over its tokens: each forward pass has its share of the step
            loss = loss + of_router / (1 if num_items_in_batch is None else self.current_gradient_accumulation_steps)
        return (loss, {"nll": nll}) if return_outputs else loss

    def _needed(self, model: Any, inputs: Mapping[str, Tensor], logits: Tensor | None, targets: Tensor) -> tuple:
        """What the objective is given beside the NLL."""
        loss = self.loss
        needed = (logits, targets) if loss.needs_logits else (targets,) if loss.needs_targets else ()
        if not loss.needs_forward:
            return needed
        return *needed, self.forward_of(model, inputs, targets, inputs.get("sample_id"))

    def forward_of(
        self, model: Any, inputs: Mapping[str, Tensor], targets: Tensor, sample_ids: Tensor | None
    ) -> Forward:
        """What the objective is told of a forward pass. Raises ValueError: the batch lacks a column that it reads."""
        if missing := [name for name in self.loss.needs_columns if name not in inputs]:
            raise ValueError(f"rows have no column {missing[0]}, which {type(self.loss).__name__} reads (or the data "
                             f"collator drops it); the batch has {', '.join(sorted(inputs))}")  # fmt: skip
        return Forward(
            model=model, inputs=inputs, sample_ids=sample_ids, epoch=self.epoch,
            nll_under=lambda network: self.nll_under(network, inputs, targets),
        )  # fmt: skip

    def row_lengths(self, rows: Any) -> np.ndarray | None:
        """Tokens of each row, int64 [N], of a trainer that knows how to ask for lengths alone."""
        return None

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Sums per row instead of logits: (None, float64 [B, 2] = NLL and number of targets, [B])."""
        inputs = self._prepare_evaluation(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            labels, _ = self.targets(inputs, draw=False)
            targets, _ = self.aligned(labels, None)
            nll, *_ = self.token_nll(model, inputs, targets)
        valid = targets != IGNORE_INDEX
        dtype = torch.float32 if nll.device.type == "mps" else torch.float64
        sums = torch.stack([(nll * valid).sum(-1, dtype=dtype), valid.sum(-1).to(dtype)], dim=-1)
        return None, sums, torch.zeros(len(labels), device=labels.device)

    def exact_metrics(self, prediction: Any) -> dict[str, float]:
        return exact_nll(prediction)


def exact_nll(prediction: Any) -> dict[str, float]:
    """NLL in nats per token, perplexity and number of tokens from the sums per row [N, 2]."""
    sums = np.asarray(prediction.predictions, dtype=np.float64)
    check_finite(sums[:, 0])
    nll, tokens = sums.sum(0)
    if tokens == 0:
        raise ValueError("the evaluation data hold no target: every row is empty, one token long, or ignored")
    mean = nll / tokens
    return {"loss": mean, "nll": mean, "perplexity": math.exp(min(mean, 700.0)), "tokens": int(tokens)}


def _objective(loss: str | Objective, error_rate: Any) -> Objective:
    """What is minimised; `error_rate=` is the short spelling of `Corrected(error_rate=...)`."""
    if isinstance(loss, str) and loss == Corrected.name:
        return Corrected(error_rate)
    objective = objective_named(loss, TokenTrainer.unit)
    if not isinstance(error_rate, str) or error_rate != "known":
        told = f'"{loss}"' if isinstance(loss, str) else repr(loss)
        raise ValueError(f'error_rate={error_rate!r} is for loss="corrected", and loss is {told}; leave one out')
    return objective
