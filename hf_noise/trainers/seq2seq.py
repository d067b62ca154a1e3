"""Encoder-decoders on pairs whose targets are noisy, on `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers.trainer_utils import has_length, seed_worker

from hf_noise.losses.nll import IGNORE_INDEX
from hf_noise.noise import Noise
from hf_noise.noise.checks import check_integer
from hf_noise.objectives.base import Objective
from hf_noise.trainers.arguments import check_given
from hf_noise.trainers.collate import forward_names
from hf_noise.trainers.meter import PairMeter
from hf_noise.trainers.parts import columns_of
from hf_noise.trainers.seq2seq_batches import (
    PAIR_COLUMNS,
    PairBatches,
    check_special_tokens,
    longest_pair,
    noisy_pairs,
    source_tokens,
    target_tokens,
)
from hf_noise.trainers.seq2seq_generation import generate
from hf_noise.trainers.stored import ids_behind
from hf_noise.trainers.token_budget import TokenBudget, pair_lengths
from hf_noise.trainers.tokens import TokenTrainer

__all__ = ["Seq2SeqTrainer"]


class Seq2SeqTrainer(TokenTrainer):
    """Train an encoder-decoder, any of `AutoModelForSeq2SeqLM` with tokens on both sides, on pairs with noisy targets.

    Rows hold `input_ids` (the source, which stays clean), `labels` (the target, with its end token) and `sample_id`;
    those of a noisy data set `clean_labels` and `is_noisy` too: one bool a row, where whole targets were replaced, or
    one for each token. The decoder reads the labels as they are trained on, noisy ones too, shifted by one.

    Losses are sums over target tokens divided by the number of target tokens in the whole step, whatever the
    accumulation and the number of processes. (The stock trainers multiply the gradient by both, as these models ignore
    `num_items_in_batch`.) `evaluate` returns the exact mean over target tokens as `eval_nll`: on `clean_labels` where
    rows have them, else on their labels. Logs show the NLL of clean and of corrupted targets apart, the realised rate
    (of rows, where whole targets are noisy) and `padding_share`, that of padding among all places of source and target.

    Args:
        noise: what the training targets suffer: any noise on tokens, drawn here, or on whole sequences, which rows
            bring. As for `CausalLMTrainer`.
        loss, error_rate: as for `CausalLMTrainer`.
        tokens_per_batch: tokens of source and target that one process's batch may have, padding included: batches of
            rows of like length, see `TokenBudget`. They are the same for any number of workers and after a resume, a
            step has the same whether processes or passes share it, and they replace `per_device_train_batch_size`.
            None for random batches of that many rows.
        **kwargs: as for `transformers.Trainer`.

    Raises:
        ValueError: it is no encoder-decoder, or its config names no token to start with or to pad; noise and model
            disagree on the vocabulary; an empty source or target, tokens that the model does not know, more than it has
            positions for, or in one row more than `tokens_per_batch`; and what `NoiseTrainer` refuses.
    """

    noise_units = ("tokens", "sequences")
    other_noise = "see hf_noise.noise for noise on tokens, and NoisyTeacher"

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        *,
        noise: Noise | None = None,
        loss: Literal["nll", "corrected"] | str | Objective = "nll",
        error_rate: float | Literal["known", "learned"] = "known",
        tokens_per_batch: int | None = None,
        **kwargs: Any,
    ):
        check_given(model, args, kwargs)
        self._pad_token = check_special_tokens(model)
        self.tokens_per_batch = _checked_budget(tokens_per_batch, args, kwargs.get("train_dataset"))
        self._budget: TokenBudget | None = None
        super().__init__(model, args, noise=noise, loss=loss, error_rate=error_rate, **kwargs)
        self.meter.by_row = self.noise is not None and self.noise.unit == "sequences"
        self._loss_shifts_labels = False
        self._without_cache = {"use_cache": False} if "use_cache" in forward_names(model) else {}
        if tokens_per_batch is not None:
            self.objective_claims = {**self.objective_claims, "tokens_per_batch": tokens_per_batch}

    def batches(self, model: Any, own: Any, shown: frozenset[str] | None, loss: Objective) -> PairBatches:
        columns = tuple(name for name in loss.needs_columns if name not in PAIR_COLUMNS)
        return PairBatches(
            own, source_tokens(model), target_tokens(model), longest_pair(model), self._pad_token, columns, shown
        )

    def make_meter(self) -> PairMeter:
        return PairMeter()

    def target_tokens(self, model: Any) -> int:
        return target_tokens(model)

    def row_lengths(self, rows: Any) -> np.ndarray | None:
        if not {"input_ids", "labels"} <= set(columns_of(rows)):  # a collator makes them
            return None
        return np.sum(pair_lengths(rows), axis=0)

    def check_noise(self, noise: Noise) -> None:
        if noise.unit == "tokens":
            super().check_noise(noise)

    def as_collated(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        # Sources are no copy of targets, which checks hold against each other.
        return {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}

    def targets(self, inputs: Mapping[str, Tensor], *, draw: bool) -> tuple[Tensor, Tensor | None]:
        labels, is_noisy = super().targets(inputs, draw=draw)
        if is_noisy is not None and is_noisy.ndim == 1:
            is_noisy = is_noisy[:, None] & (labels != IGNORE_INDEX)
        return labels, is_noisy

    def token_nll(
        self, model: Any, inputs: Mapping[str, Tensor], targets: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        return super().token_nll(model, {**inputs, "decoder_input_ids": self.shifted(targets)}, targets)

    def network_inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        names = ("input_ids", "attention_mask", "decoder_input_ids")
        return {name: inputs[name] for name in names if name in inputs} | self._without_cache

    def shifted(self, targets: Tensor) -> Tensor:
        """What the decoder reads: targets int64 [B, L] moved on by one, behind the model's start token."""
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        if hasattr(base, "prepare_decoder_input_ids_from_labels"):  # mBART starts with the token of the language
            return base.prepare_decoder_input_ids_from_labels(targets)
        read = torch.empty_like(targets)
        read[:, 0], read[:, 1:] = base.config.decoder_start_token_id, targets[:, :-1]
        return read.masked_fill_(read == IGNORE_INDEX, self._pad_token)

    def training_step(self, model: Any, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(model, inputs, *args, **kwargs)
        is_noisy = inputs["is_noisy"] if self.has_noise(inputs) else None
        labels = inputs["labels"]
        if is_noisy is not None:
            is_noisy = (is_noisy[:, None] if is_noisy.ndim == 1 else is_noisy).bool().to(self.args.device)
        valid = labels.to(self.args.device) != IGNORE_INDEX
        self.meter.add_rows(inputs["attention_mask"].to(self.args.device), valid, is_noisy)
        return loss

    def _prepare_evaluation(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        inputs = super()._prepare_evaluation(inputs)
        if "clean_labels" in inputs:
            inputs = {**inputs, "labels": inputs["clean_labels"]}
        return {name: value for name, value in inputs.items() if name != "is_noisy"}

    def draw_epoch(self, epoch: int) -> None:
        super().draw_epoch(epoch)
        if self._budget is not None:
            self._budget.set_epoch(epoch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.tokens_per_batch is not None and "train_samples_per_second" in logs:
            # By transformers it is per_device_train_batch_size rows a step.
            logs["train_samples_per_second"] = round(logs["train_steps_per_second"] * self.pairs_per_step, 3)
        super().log(logs, start_time)

    @property
    def pairs_per_step(self) -> float:
        """Pairs of an optimiser step of all processes: on average, where batches are made by tokens."""
        if self.tokens_per_batch is None:
            return float(self.args.train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps)
        return (self._budget or self._new_budget()).rows_per_step

    def _new_budget(self) -> TokenBudget:
        args, rows = self.args, self.train_dataset
        ids = ids_behind(rows)
        return TokenBudget(
            *pair_lengths(rows), self.tokens_per_batch, num_processes=self.accelerator.num_processes,
            passes=args.gradient_accumulation_steps, seed=args.seed if args.data_seed is None else args.data_seed,
            named=None if ids is None else lambda row: f"{row} (sample_id {ids[row]})",
        )  # fmt: skip

    def get_train_dataloader(self) -> DataLoader:
        if self.tokens_per_batch is None:
            return super().get_train_dataloader()
        args, rows = self.args, self.train_dataset
        self._budget = self._new_budget()
        self._budget.set_epoch(self.epoch)
        workers = args.dataloader_num_workers
        # The older transformers has no such arguments.
        others = {name: getattr(args, f"dataloader_{name}", None) for name in ("multiprocessing_context", "in_order")}
        loader = DataLoader(
            rows,
            batch_sampler=self._budget,
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            worker_init_fn=partial(seed_worker, num_workers=workers, rank=args.process_index),
            **{name: value for name, value in others.items() if value is not None},
        )
        return self.accelerator.prepare(loader)

    def generate(self, rows: Any = None, *, max_new_tokens: int = 256, **settings: Any) -> list[list[int]]:
        """What the model writes for the sources of rows, by default those of the evaluation (a collective call).

        Args:
            rows: stored rows with `input_ids` [N], and `labels` as everywhere.
            max_new_tokens: the longest that is written, end token included.
            **settings: for `GenerationMixin.generate`, such as `num_beams=4`. By default greedy, whatever the model's
                own `generation_config` says beside its special tokens.

        Returns:
            N lists of tokens, without the start token, each with its end token if it came to one.
        """
        rows = self.eval_dataset if rows is None else rows
        if rows is None or not has_length(rows):
            raise ValueError("rows must be stored rows with input_ids, and eval_dataset is none such; give rows=")
        greedy = {"do_sample": False, "num_beams": 1}
        return generate(self, rows, {**greedy, "max_new_tokens": max_new_tokens, **settings})

    def predictions_and_references(self, rows: Any = None, **settings: Any) -> tuple[list[str], list[str]]:
        """Texts that the model writes and clean targets, for `hf_noise.metrics.sequence_scores` (a collective call).

        Arguments as for `generate`; `processing_class=` has to be the tokenizer.
        """
        if not hasattr(self.processing_class, "batch_decode"):
            raise ValueError("texts take the tokenizer; give processing_class=tokenizer when the trainer is made")
        rows = self.eval_dataset if rows is None else rows
        written = self.generate(rows, **settings)
        targets = [rows[i].get("clean_labels", rows[i]["labels"]) for i in range(len(rows))]
        targets = [[int(token) for token in target if token != IGNORE_INDEX] for target in targets]
        return tuple(self.processing_class.batch_decode(one, skip_special_tokens=True) for one in (written, targets))

    def realised_noise(self) -> dict[str, float | int]:
        """Share of what is corrupted and how many were counted, `{"rate", "n"}` (a collective call).

        Of whole rows of noise that are stored, each once; else of all that the training steps saw, as often as they
        did: of a stream its rows, of noise on tokens the targets.
        """
        drawn = super().realised_noise()
        mask = noisy_pairs(self.train_dataset) if self.meter.by_row else None
        return drawn if mask is None else {"rate": float(mask.mean()), "n": len(mask)}

    def padding(self) -> dict[str, float | int]:
        """Share of padding in all training steps and the number of places, `{"share", "n"}` (a collective call)."""
        self.meter.pop(self.accelerator)
        return self.meter.padding()


def _checked_budget(budget: Any, args: Any, rows: Any) -> int | None:
    if budget is None:
        return None
    budget = check_integer("tokens_per_batch", budget)
    if budget < 2:
        raise ValueError(f"tokens_per_batch must be at least 2, one of a source and one of a target, got {budget}")
    if args is not None and args.train_sampling_strategy != "random":
        raise ValueError(f"tokens_per_batch={budget} makes batches by length, and train_sampling_strategy="
                         f"{args.train_sampling_strategy!r} others; leave one out")  # fmt: skip
    if rows is not None and not has_length(rows):
        raise ValueError(f"tokens_per_batch={budget} sorts all rows by length, and these are a stream; store them, or "
                         "leave it out and set per_device_train_batch_size")  # fmt: skip
    return budget
