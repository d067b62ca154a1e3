"""The embedded encoder: a small ModernBERT that is trained for a moment on embedded text, before all runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import ModernBertConfig, ModernBertForMaskedLM, ProgressCallback, TrainingArguments, set_seed

import hf_noise
from hf_noise.atomic import write_atomic
from hf_noise.data.embedded import DOCS_TEXT, END_OF_TEXT, embedded_tokenizer
from hf_noise.data.packing import PackedRows
from hf_noise.noise import Masking
from hf_noise.studies.finetune.runs import EMBEDDED_MODEL
from hf_noise.studies.progress import FigureProgress
from hf_noise.trainers import MaskedLMTrainer
from hf_noise.trainers.folders import claimed
from hf_noise.trainers.resuming import AUTO

__all__ = ["embedded_masking", "embedded_words", "encoder_config", "train_encoder"]

EMBEDDED_TOKENS = 2048
FINISHED = "encoder.json"
BATCH, LEARNING_RATE, LONGEST = 32, 2e-3, 512


def embedded_words() -> Any:
    """Its tokenizer, which pads by the token that ends a text."""
    tokenizer = embedded_tokenizer(EMBEDDED_TOKENS)
    tokenizer.pad_token = END_OF_TEXT
    return tokenizer


def embedded_masking() -> Masking:
    """How its tokens are masked: by one after the last of the tokenizer's."""
    return Masking.of_tokenizer(embedded_words(), mask_token="beyond", seed=0)


def encoder_config(**changes: Any) -> ModernBertConfig:
    """0.5 M weights. Texts are summed up by the mean of their positions, which few steps teach more than the first."""
    end = embedded_words().eos_token_id
    return ModernBertConfig(
        vocab_size=embedded_masking().num_tokens, hidden_size=128, intermediate_size=192, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=LONGEST, global_attn_every_n_layers=1, initializer_range=0.05,
        classifier_pooling="mean", pad_token_id=end, bos_token_id=end, eos_token_id=end, cls_token_id=end,
        sep_token_id=end, **changes,
    )  # fmt: skip


def train_encoder(folder: Path, *, steps: int, block_size: int) -> None:
    """Train it by masked tokens, unless the folder has it; all processes together."""
    told = {"encoder": EMBEDDED_MODEL, "steps": steps, "block_size": block_size, "text": DOCS_TEXT}
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # no process may find the folder finished while another still writes it
    is_main = not int(os.environ.get("RANK", 0))
    with claimed(folder, told, is_main=is_main):  # a finished one too must be that of these settings
        if (folder / FINISHED).is_file():
            return
        on_cpu = not torch.cuda.is_available()
        args = TrainingArguments(
            str(folder), max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=LEARNING_RATE,
            lr_scheduler_type="linear", warmup_steps=0.05, save_steps=500, save_total_limit=1, logging_steps=20,
            use_cpu=on_cpu, dataloader_pin_memory=not on_cpu, report_to="none", seed=0,
        )  # fmt: skip
        with args.main_process_first(desc="packing"):
            rows = hf_noise.load_dataset(
                "hf_noise/packed", source=DOCS_TEXT, tokenizer=f"embedded:{EMBEDDED_TOKENS}", block_size=block_size
            )
        set_seed(0)
        model = ModernBertForMaskedLM(encoder_config())
        trainer = MaskedLMTrainer(model, args, masking=embedded_masking(), train_dataset=PackedRows(rows["train"]))
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(FigureProgress("encoder"))
        trainer.train(resume_from_checkpoint=AUTO)
        trainer.save_model()
        if trainer.is_world_process_zero():  # last, as what is saved before may be cut off
            write_atomic(folder / FINISHED, json.dumps(told, indent=2) + "\n")
        trainer.accelerator.wait_for_everyone()
