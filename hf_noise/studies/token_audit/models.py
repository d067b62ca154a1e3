"""The model that audits: one that is there, or a nano GPT-2 that is trained on clean text for the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, ProgressCallback, TrainingArguments, set_seed

import hf_noise
from hf_noise.data.embedded import DOCS_TEXT
from hf_noise.data.packing import PackedRows
from hf_noise.data.tokenization import find_tokenizer, vocabulary_size
from hf_noise.models.gpt2 import gpt2
from hf_noise.models.loading import load_whole
from hf_noise.studies.progress import FigureProgress
from hf_noise.studies.reading import reading, tokenizer_of_model, within_positions
from hf_noise.studies.token_audit.study import Settings
from hf_noise.trainers import CausalLMTrainer
from hf_noise.trainers.collate import text_config
from hf_noise.trainers.resuming import AUTO

__all__ = ["model_of", "tokenizer_of"]

#: Of the demo.
TOKENIZER, SIZE, BATCH, RATE = "embedded:1024", "nano", 24, 2e-3


def tokenizer_of(settings: Settings) -> Any:
    """The model's tokenizer."""
    if settings.model is None:
        return find_tokenizer(TOKENIZER)
    if settings.gguf_file is None:
        return find_tokenizer(settings.model)
    with reading("the tokenizer", settings.model):
        return find_tokenizer(AutoTokenizer.from_pretrained(settings.model, gguf_file=settings.gguf_file))


def model_of(settings: Settings, tokenizer: Any, device: torch.device) -> nn.Module:
    """The model, in float32 on this device.

    Raises SettingError: its tokenizer has more tokens than it knows, or rows are too long for it.
    """
    if settings.model is None:
        return _trained(settings, tokenizer).to(device).eval()
    more = {} if settings.gguf_file is None else {"gguf_file": settings.gguf_file}
    with reading("the model", settings.model):
        model = load_whole(AutoModelForCausalLM.from_pretrained, settings.model, dtype=torch.float32, **more)
    tokenizer_of_model(settings.model, text_config(model).vocab_size, settings.model, tokenizer)
    within_positions(settings.model, model, settings.block_size)
    return model.to(device).eval()


def _trained(settings: Settings, tokenizer: Any) -> nn.Module:
    """A nano GPT-2 of clean embedded text, none of whose documents are audited; kept in the output folder."""
    folder = Path(settings.output) / "model"
    if (folder / "tokenizer.json").is_file():  # which is written last
        return load_whole(AutoModelForCausalLM.from_pretrained, folder, dtype=torch.float32)
    splits = hf_noise.load_dataset(
        "hf_noise/packed", source=DOCS_TEXT, tokenizer=tokenizer, block_size=settings.block_size
    )
    on_cpu = not torch.cuda.is_available()
    set_seed(settings.seed)
    model = gpt2(SIZE, vocab_size=vocabulary_size(tokenizer), block_size=settings.block_size,
                 end_of_text=tokenizer.eos_token_id)  # fmt: skip
    args = TrainingArguments(
        str(folder), max_steps=settings.steps, per_device_train_batch_size=BATCH, learning_rate=RATE, weight_decay=0.1,
        adam_beta2=0.95, lr_scheduler_type="cosine", warmup_steps=0.1, save_steps=100, save_total_limit=1,
        logging_steps=25, report_to="none", use_cpu=on_cpu, dataloader_pin_memory=not on_cpu, seed=settings.seed,
    )  # fmt: skip
    trainer = CausalLMTrainer(model, args, train_dataset=PackedRows(splits["train"]))
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(FigureProgress("training the model"))
    trainer.train(resume_from_checkpoint=AUTO)
    trainer.save_model()
    tokenizer.save_pretrained(folder)
    return trainer.model
