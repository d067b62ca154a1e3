"""Rows, model and corruption of the gradient study, and what is measured of each setting."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM

from hf_noise.analysis.chosen_parameters import chosen_parameters
from hf_noise.analysis.gradients import Coherence, Estimate, coherence
from hf_noise.data.tokenization import vocabulary_size
from hf_noise.models.gpt2 import gpt2
from hf_noise.models.loading import load_whole
from hf_noise.models.names import GPT2_SIZES
from hf_noise.noise import UniformTokens, counter
from hf_noise.reports.record import RunRecord
from hf_noise.studies.engine import world_of
from hf_noise.studies.gradient_coherence.study import Cell, Settings
from hf_noise.studies.reading import reading, tokenizer_of_model, within_positions
from hf_noise.studies.text import Text
from hf_noise.trainers.folders import claimed

__all__ = ["TASK", "Work", "batches_of", "load", "measure"]

TASK = "gradient_coherence"
_STREAM = 122  # of its own, beside those of noises and trainers


@dataclass(frozen=True)
class Work:
    """What all settings share."""

    settings: Settings
    text: Text
    rows: np.ndarray  # tokens int64 [rows, T], drawn without replacement
    model: nn.Module
    vocab_size: int

    def described(self) -> list[str]:
        """For a dry run."""
        count = sum(one.numel() for one in self.model.parameters())
        of = ", ".join(self.settings.parameters) or "the output layer, which is the token embedding where both are one"
        return [*self.text.described(self.settings.block_size),
                f"{self.settings.model}: {count:,} weights; gradients of {of}"]  # fmt: skip


def load(settings: Settings) -> Work:
    """Read text and model; refuses what does not fit together.

    Raises ValueError: there are too few rows, the tokenizer is not the model's, rows are longer than its positions, or
        no parameter has a name that was given.
    """
    args = world_of(settings)
    text = Text.load(settings, args, settings.rows)
    torch.manual_seed(settings.seed)
    vocab_size = vocabulary_size(text.tokenizer)
    if settings.model in GPT2_SIZES:
        model = gpt2(settings.model, vocab_size=vocab_size, block_size=settings.block_size,
                     end_of_text=text.tokenizer.eos_token_id)  # fmt: skip
    else:
        with reading("the model", settings.model):
            model = load_whole(AutoModelForCausalLM.from_pretrained, settings.model, dtype=torch.float32)
        known = model.get_input_embeddings().weight.shape[0]
        tokenizer_of_model(settings.model, known, settings.tokenizer, text.tokenizer)
        within_positions(settings.model, model, settings.block_size)
    chosen_parameters(model, settings.parameters or None)  # refused before anything is measured
    return Work(settings, text, _drawn(settings, text), model.to(args.device), vocab_size)


def _drawn(settings: Settings, text: Text) -> np.ndarray:
    """Rows at random, so that those of a batch are not of one document."""
    if text.train_rows is None:
        taken = text.shuffled(settings.seed).take(settings.rows)
        rows = [np.asarray(row["input_ids"], dtype=np.int64) for row in taken]
    else:
        order = np.random.default_rng(settings.seed).permutation(text.train_rows)[: settings.rows]
        rows = text.train.__getitems__(order.tolist())["input_ids"].astype(np.int64)
    if len(rows) < settings.rows:
        asked = f"--batches {settings.batches} of up to {max(settings.batch_size)} take {settings.rows:,} rows"
        raise ValueError(f"{asked}, the text has {len(rows):,}; fewer batches, or a smaller --block_size")
    return np.stack(list(rows))


def batches_of(work: Work, cell: Cell) -> Iterator[dict[str, torch.Tensor]]:
    """The batches of a setting: inputs stay clean, labels are corrupt where `is_noisy` says so."""
    for number in range(work.settings.batches):
        ids = np.arange(number * cell.batch_size, (number + 1) * cell.batch_size)
        tokens = work.rows[ids]
        labels, is_noisy = corrupt(work.settings, cell, tokens, ids, work.vocab_size)
        yield {"input_ids": torch.from_numpy(tokens), "labels": torch.from_numpy(labels),
               "is_noisy": torch.from_numpy(is_noisy)}  # fmt: skip


def corrupt(
    settings: Settings, cell: Cell, tokens: np.ndarray, ids: np.ndarray, vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [B, T] and what of them is corrupt: examples [B] all of whose targets are random, or single tokens."""
    if settings.unit == "token":
        return UniformTokens(error_rate=cell.corruption, vocab_size=vocab_size, seed=cell.seed)(tokens, ids)
    keys = counter.row_keys(cell.seed, _STREAM, 0, ids)[:, None]
    drawn = counter.units(keys, counter.weyl(1 + tokens.shape[1]))
    is_noisy = drawn[:, 0] < cell.corruption
    return np.where(is_noisy[:, None], (drawn[:, 1:] * vocab_size).astype(np.int64), tokens), is_noisy


def measure(settings: Settings, work: Work) -> None:
    """Measure all settings that have no record yet."""
    ignored = {one.name for one in fields(settings) if not one.metadata["in_result"]}
    common = {name: value for name, value in asdict(settings).items() if name not in ignored}
    for number, cell in enumerate(settings.cells, start=1):
        folder = Path(settings.output) / cell.name
        with claimed(folder, common | asdict(cell)):
            if not (folder / "record.json").exists():
                head = f"[{number}/{len(settings.cells)}] {cell.name}"
                with tqdm(batches_of(work, cell), total=settings.batches, desc=head, disable=None) as bar:
                    _record(settings, work, cell, bar).write(folder / "record.json")


def _record(settings: Settings, work: Work, cell: Cell, batches: Any) -> RunRecord:
    started = time.perf_counter()
    found = coherence(
        work.model, batches, parameters=settings.parameters or None, unit=settings.unit, one_sided="zero",
        memory_mib=settings.memory_mib,
    )  # fmt: skip
    return RunRecord(
        name=cell.name, task=TASK, recipe="recipes/gradient_coherence.py",
        model={"name": settings.model, "parameters": sum(one.numel() for one in work.model.parameters()),
               "gradients_of": list(found.parameters), "is_fresh": settings.model in GPT2_SIZES},
        data=work.text.recorded(settings) | {"rows": len(found) * cell.batch_size},
        noise=_noise(settings, cell, found, work.vocab_size),
        budget={"batches": len(found), "batch_size": cell.batch_size, "processes": 1},
        loss={"name": "nll", "method": found.method}, settings=asdict(settings),
        metrics={name: _metric(value) for name, value in found.estimates.items()},
        seed=cell.seed, wall_seconds=time.perf_counter() - started,
    )  # fmt: skip


def _noise(settings: Settings, cell: Cell, found: Coherence, vocab_size: int) -> Mapping[str, Any]:
    if settings.unit == "token":
        return UniformTokens(error_rate=cell.corruption, vocab_size=vocab_size, seed=cell.seed).to_dict()
    n = int(found.batch_size.sum())
    return {
        "protocol": "uniform_examples", "error_rate": cell.corruption, "vocab_size": vocab_size, "seed": cell.seed,
        "realised": {"rate": float(found.corrupt.sum() / n), "n": n},
    }  # fmt: skip


def _metric(found: Estimate) -> dict[str, Any]:
    return {name: value for name, value in asdict(found).items() if value is not None and math.isfinite(value)}
