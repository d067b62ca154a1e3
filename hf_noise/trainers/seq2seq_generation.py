"""What a trained encoder-decoder writes for the sources of rows, shared out over processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import GenerationConfig

from hf_noise.evaluation_mode import evaluation_mode
from hf_noise.pair_sizes import special_tokens

__all__ = ["generate", "without_padding"]


def generate(trainer: Any, rows: Any, settings: dict[str, Any]) -> list[list[int]]:
    """Targets of rows [N] in their order, lists of tokens, each with its end token if it came to one.

    Batches are of sources of like length, and each process has its share of them (a collective call).
    """
    base = trainer.accelerator.unwrap_model(trainer.model)
    rank, world, size = trainer.args.process_index, trainer.args.world_size, trainer.args.eval_batch_size
    lengths = np.array([len(rows[i]["input_ids"]) for i in range(len(rows))])
    order = np.argsort(-lengths, kind="stable")  # the longest first: what does not fit is seen at once
    written: list[tuple[int, list[int]]] = []
    stated, base.generation_config = base.generation_config, _of_tokens(base)
    try:
        for start in range(rank * size, len(order), world * size):
            chosen = order[start : start + size].tolist()
            batch = trainer._prepare_inputs(trainer.data_collator([rows[i] for i in chosen]))
            with evaluation_mode(base), torch.no_grad(), trainer.compute_loss_context_manager():
                tokens = base.generate(
                    input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **settings
                )
            written += zip(chosen, without_padding(tokens[:, 1:], _ends(base), base.config.pad_token_id))
    finally:
        base.generation_config = stated
    if world > 1:
        written = gather_object(written)
    return [tokens for _, tokens in sorted(written)]


def _of_tokens(model: Any) -> GenerationConfig:
    """What a model says of its tokens, as a teacher is asked too: nothing of beams, penalties and least lengths."""
    of_config = {name: getattr(model.config, name, None)
                 for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id")}  # fmt: skip
    return GenerationConfig(**of_config | special_tokens(model))


def _ends(model: Any) -> Sequence[int]:
    end = model.generation_config.eos_token_id
    end = model.config.eos_token_id if end is None else end
    return end if isinstance(end, list | tuple) else [] if end is None else [end]


def without_padding(tokens: Tensor, ends: Sequence[int], pad_token: int | None) -> list[list[int]]:
    """Rows of generated tokens int64 [B, L] up to their first end token, which is kept; without padding behind."""
    made = []
    for row in tokens.tolist():
        stop = next((i + 1 for i, token in enumerate(row) if token in ends), None)
        if stop is None:
            stop = len(row)
            while stop and row[stop - 1] == pad_token:
                stop -= 1
        made.append(row[:stop])
    return made
