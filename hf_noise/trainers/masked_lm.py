"""Masked language models under token and document noise, on `transformers.Trainer`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from hf_noise.losses.nll import IGNORE_INDEX
from hf_noise.noise import Masking, Noise
from hf_noise.noise.checks import check_flag
from hf_noise.noise.masking_torch import mask
from hf_noise.objectives.base import Objective
from hf_noise.objectives.document_mixture import DocumentMixture
from hf_noise.trainers.arguments import check_given
from hf_noise.trainers.card import state_masking
from hf_noise.trainers.collate import known_tokens, text_config
from hf_noise.trainers.model_config import write_config
from hf_noise.trainers.networks import router_loss
from hf_noise.trainers.sparse_head import SparseHead
from hf_noise.trainers.tokens import TokenTrainer

__all__ = ["MaskedLMTrainer"]

logger = logging.getLogger(__name__)

_KEPT = {"input_ids": "unmasked_input_ids", "labels": "unmasked_labels"}


class MaskedLMTrainer(TokenTrainer):
    """Train a masked language model, any of `AutoModelForMaskedLM`, on clean text, noisy targets or noise documents.

    Rows hold `input_ids` and `sample_id`, which masks are drawn from, in training on the device for every epoch, see
    `hf_noise.noise.Masking`. They may be those of a noisy data set: `labels`, `clean_labels`, `is_noisy`. Evaluations
    mask the same positions every time, whatever the masking's seed, so that `eval_nll` is exact: the sum over the
    masked tokens of all rows over their number, for any batch size and number of processes.

    Noise on tokens falls on the targets of masked positions: the context stays clean, and so does what is read at a
    masked position that is read as it is. Documents of noise are noise as context and as target.

    Losses are sums over masked tokens divided by the number of masked tokens in the whole batch, whatever the
    accumulation and the number of processes; a step that masks none has the loss 0. Logs show the NLL of clean and of
    corrupted targets apart, and the rate of corruption, all over masked tokens.

    Args:
        masking: which tokens are masked and what stands there; it is written into the model's config
            (`hf_noise_masking`) and so into every checkpoint. By default that of the model's config, where it has one;
            else BERT's, for the mask token and the special tokens of `processing_class=`.
        noise, loss, error_rate: as for `CausalLMTrainer`.
        sparse_head: compute the head at masked positions alone. By default where a trial with the model, when the
            trainer is made, gives the same logits; not with sharded weights or torch_compile, nor for objectives that
            need logits.
        **kwargs: as for `transformers.Trainer`.

    Raises:
        ValueError: there is no masking and no mask token; the model does not know the mask token, or reads only what
            stands before a position; rows have no `sample_id`, or were masked before; and what `TokenTrainer` refuses.
    """

    always_drawn = "masked positions"

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        *,
        masking: Masking | None = None,
        noise: Noise | None = None,
        loss: Literal["nll", "corrected"] | str | Objective = "nll",
        error_rate: float | Literal["known", "learned"] = "known",
        sparse_head: bool | None = None,
        **kwargs: Any,
    ):
        check_given(model, args, kwargs)
        if getattr(kwargs.get("data_collator"), "mlm", False):
            raise ValueError(f"data_collator={type(kwargs['data_collator']).__name__}(mlm=True) masks tokens, and this "
                             "trainer would mask them a second time; leave it out, or set mlm=False")  # fmt: skip
        self.masking = _found(masking, model, kwargs.get("processing_class"))
        _check_model(model, self.masking)
        super().__init__(model, args, noise=noise, loss=loss, error_rate=error_rate, **kwargs)
        if isinstance(self.loss, DocumentMixture) and self.masking.mask_share < 1:
            # A model that copies what it reads predicts noise better than -log p, and is taken for one of text.
            raise ValueError(
                "DocumentMixture takes the noise as if nothing were read at a masked position, and the masking has "
                f"mask_share={self.masking.mask_share:g}; give masking= one with mask_share=1 and random_share=0"
            )
        write_config(self.model, hf_noise_masking=self.masking.to_dict())
        self.objective_claims = {**self.objective_claims, "masking": self.masking.to_dict()}
        self.sparse_head = self._choose_sparse(sparse_head)

    def _choose_sparse(self, wanted: bool | None) -> SparseHead | None:
        if wanted is not None and not check_flag("sparse_head", wanted):
            return None
        head, why = None, None
        if self.loss.needs_logits:
            why = f"{type(self.loss).__name__} needs all logits"
        elif self.is_fsdp_enabled or self.is_deepspeed_enabled:
            why = "weights are sharded"
        elif self.args.torch_compile:
            why = "torch_compile would compile anew for every number of masked tokens"
        else:
            try:
                head = SparseHead(self.model)
                why = head.fault(self.model)
            except ValueError as error:
                why = str(error)
        if why is None:
            return head
        if head is not None:
            head.remove()
        if wanted:
            raise ValueError(f"sparse_head=True is not for {type(self.model).__name__} here: {why}; leave it out")
        logger.info("the head of %s is computed at all positions: %s", type(self.model).__name__, why)
        return None

    def masked(self, inputs: Mapping[str, Tensor], *, evaluation: bool) -> dict[str, Tensor]:
        """A batch with what the model reads as `input_ids`, -100 in `labels` at positions that are not masked.

        What the rows have is kept as `unmasked_input_ids` and `unmasked_labels`.
        """
        if "sample_id" not in inputs:
            raise ValueError(
                "masks need the column `sample_id`, the stable index of each row, an integer; rows have "
                f"{', '.join(sorted(inputs))}; see hf_noise.data.packing, or add it with "
                "`dataset.add_column('sample_id', range(len(dataset)))` (or the data collator drops it)"
            )
        tokens, labels, sample = (inputs[name] for name in ("input_ids", "labels", "sample_id"))
        if tokens.device.type == "cpu" and not self.args.torch_compile:
            # The same draws; NumPy takes less time than so many operations of torch.
            drawn = self.masking(
                tokens.numpy(), sample.numpy(), self.epoch, targets=labels.numpy(), evaluation=evaluation
            )
            read, targets = map(torch.from_numpy, drawn)
        else:
            read, targets = mask(
                self.masking, tokens, sample, self.epoch, targets=labels, evaluation=evaluation,
                compiled=self.args.torch_compile,
            )  # fmt: skip
        kept = {_KEPT["input_ids"]: tokens, _KEPT["labels"]: labels}
        return {**inputs, "input_ids": read, "labels": targets, **kept}

    def as_collated(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**inputs, **{name: inputs[kept] for name, kept in _KEPT.items() if kept in inputs}}

    def get_batch_samples(self, epoch_iterator: Iterator, *args: Any, **kwargs: Any) -> Any:
        # Masked before transformers counts the labels of a step, by whose number its loss is divided.
        drawn = (self.masked(inputs, evaluation=False) for inputs in epoch_iterator)
        return super().get_batch_samples(drawn, *args, **kwargs)

    def _prepare_evaluation(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self.masked(super()._prepare_evaluation(inputs), evaluation=True)

    def check_fit(self, inputs: Mapping[str, Any]) -> None:
        tokens, labels = inputs["input_ids"], inputs["labels"]
        apart = int(((labels != tokens) & (labels != IGNORE_INDEX)).sum())
        if apart and "is_noisy" not in inputs:
            raise ValueError(
                f"{apart} of {labels.numel()} labels are not the input_ids beside them, and no is_noisy says that they "
                "are noise: rows or a data collator have masked them already, or shifted them. This trainer masks; "
                "give it the text as it is"
            )

    def training_step(self, model: Any, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        if not self._is_checked["train"] and bool((self.as_collated(inputs)["labels"] == IGNORE_INDEX).all()):
            raise ValueError("the first batch has no token to mask: all of its labels are -100, or its rows are empty")
        return super().training_step(model, inputs, *args, **kwargs)

    def token_nll(
        self, model: Any, inputs: Mapping[str, Tensor], targets: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if self.sparse_head is None:
            return super().token_nll(model, inputs, targets)
        positions = targets != IGNORE_INDEX
        with self.sparse_head.at(positions) as index:
            output = model(**self.network_inputs(inputs))
        if output.logits.shape[:2] != (1, len(index)):
            raise RuntimeError(f"the model gave logits {list(output.logits.shape)} for {len(index)} masked tokens, "
                               "other than when it was tried: use sparse_head=False")  # fmt: skip
        nll = F.cross_entropy(output.logits[0].float(), targets.flatten()[index], reduction="none")
        of_router = router_loss(output, self.model) if self._has_router_loss else None
        # Where they belong; 0 where there is no target.
        return nll.new_zeros(targets.numel()).index_copy(0, index, nll).view(targets.shape), None, of_router

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if _KEPT["labels"] not in inputs:  # not from the loop of training
            inputs = self.masked(inputs, evaluation=not model.training)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def mean_loss(self, total: Tensor, units: Tensor | int, num_items_in_batch: Tensor | int | None) -> Tensor:
        # A step of few short rows may have no masked token: its sum is 0, and so is its mean.
        if num_items_in_batch is not None:
            return super().mean_loss(total, units, num_items_in_batch + (num_items_in_batch == 0))
        n = units.sum() if isinstance(units, Tensor) else units
        return super().mean_loss(total, n + (n == 0), None)

    def exact_metrics(self, prediction: Any) -> dict[str, float]:
        sums = prediction.predictions
        if not sums[:, 1].sum():
            raise ValueError(f"no token of the evaluation data was masked: {len(sums)} rows are too few or too short "
                             f"for probability = {self.masking.probability}; evaluate on more")  # fmt: skip
        return super().exact_metrics(prediction)

    def loss_record(self) -> dict[str, Any]:
        return {**super().loss_record(), "masking": self.masking.to_dict()}

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero():
            state_masking(Path(self.args.output_dir, "README.md"), self.masking)


def _found(masking: Any, model: Any, tokenizer: Any) -> Masking:
    """The masking of a run: the given one, that of the model's config, or BERT's for a tokenizer."""
    if masking is not None:
        if not isinstance(masking, Masking):
            raise TypeError(f"masking must be a hf_noise.noise.Masking, got {masking!r:.80}")
        return masking
    stated = getattr(model.config, "hf_noise_masking", None)
    if stated is not None:
        return Masking.from_dict(stated)
    if tokenizer is None:
        raise ValueError("masking is None, and neither the model's config states one nor processing_class= a tokenizer "
                         "with a mask token; give masking=Masking(vocab_size=..., mask_token=...)")  # fmt: skip
    return Masking.of_tokenizer(tokenizer)


def _check_model(model: Any, masking: Masking) -> None:
    """Raise ValueError for a model that reads only what stands before a position, or has no such mask token."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    name, of_masked = type(base).__name__, MODEL_FOR_MASKED_LM_MAPPING_NAMES.values()
    is_causal = name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() and name not in of_masked
    if is_causal or getattr(text_config(model), "is_decoder", False) is True:
        raise ValueError(f"{name} is a causal language model, which sees nothing behind a masked position; use one of "
                         "AutoModelForMaskedLM (config.is_decoder=False), or CausalLMTrainer")  # fmt: skip
    known = known_tokens(model)
    if masking.num_tokens > known:
        raise ValueError(
            f"the masking has the mask token {masking.mask_token} and ids up to {masking.num_tokens - 1}, the model "
            f"knows {known} tokens; make it with vocab_size={masking.num_tokens}, or "
            f"model.resize_token_embeddings({masking.num_tokens})"
        )
