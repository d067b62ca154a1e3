"""Bad arguments, rows and models for the trainers: an error that names it, or a step that is what it claims.

A call makes a trainer and trains one step of eight rows with it; the step's loss is compared with the loss of the same
rows, worked out anew from the weights before the step.
"""

from __future__ import annotations

import copy
import functools
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, flag, number, reals, same, text
from transformers import GPT2Config, GPT2LMHeadModel, TrainerCallback, TrainingArguments

from hf_noise.noise import UniformTokens
from hf_noise.trainers import (
    CausalLMTrainer,
    ClassifierTrainer,
    ImageClassifierTrainer,
    MaskedLMTrainer,
    Seq2SeqTrainer,
    TimeClassifierTrainer,
)

TOKENS, LENGTH, CLASSES, ROWS = 31, 6, 4, 8
_FOLDER = tempfile.TemporaryDirectory()
T = np.full((CLASSES, CLASSES), 0.1) + 0.6 * np.eye(CLASSES)


def pick(draw: np.random.Generator, *values: Any) -> Any:
    return values[int(draw.integers(len(values)))]


def training_arguments(**changes: Any) -> TrainingArguments:
    usual = {
        "output_dir": str(Path(_FOLDER.name) / "run"), "use_cpu": True, "report_to": "none", "disable_tqdm": True,
        "save_strategy": "no", "logging_steps": 1, "per_device_train_batch_size": ROWS, "max_steps": 1, "optim": "sgd",
        "learning_rate": 1e-3, "lr_scheduler_type": "constant", "dataloader_pin_memory": False,
        "logging_nan_inf_filter": False,
    }  # fmt: skip
    return TrainingArguments(**(usual | changes))


class Watch(TrainerCallback):
    """All that was logged."""

    def __init__(self) -> None:
        self.logs: dict[str, float] = {}

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs |= logs or {}


# ---- language models


@functools.cache
def _gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=TOKENS, n_positions=LENGTH, n_embd=8, n_layer=1, n_head=1, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    ))  # fmt: skip


def token_rows(draw: np.random.Generator) -> list[dict[str, Any]]:
    return [{"input_ids": draw.integers(0, TOKENS, LENGTH).tolist(), "sample_id": 5 * i} for i in range(ROWS)]


def lm_call(draw: np.random.Generator) -> dict[str, Any]:
    noise = pick(draw, None, UniformTokens(error_rate=0.4, vocab_size=TOKENS, seed=1))
    loss = "nll" if noise is None else pick(draw, "nll", "corrected")
    given = {
        "model": copy.deepcopy(_gpt2()), "noise": noise, "loss": loss, "rows": token_rows(draw),
        "error_rate": "known" if loss == "nll" else pick(draw, "known", 0.3, "learned"),
        "fused_loss": pick(draw, None, False), "data_collator": None, "eval_dataset": None,
        "compute_metrics": None, "callbacks": None,
    }  # fmt: skip
    return {name: given[name] for name in given if name in ALWAYS or draw.random() < 0.6}


ALWAYS = ("model", "noise", "loss", "rows", "error_rate", "transition", "classifier")


def train_step(cls: type, model: Any, rows: Any, **given: Any) -> dict[str, Any]:
    """The loss of one step, and what the trainer then says of its noise and settings."""
    # What can be called is taken for a function that is right, which these are not.
    for name in ("data_collator", "compute_metrics", "augment"):
        if given.get(name) is int or given.get(name) is math.sqrt:
            given[name] = None
    watch = Watch()
    trainer = cls(model, training_arguments(), train_dataset=rows, **given)
    trainer.add_callback(watch)
    torch.manual_seed(0)
    trainer.train()
    told: dict[str, Any] = {"noise": None if trainer.noise is None else trainer.noise.to_dict()}
    loss = watch.logs["loss"]
    if cls in (CausalLMTrainer, MaskedLMTrainer, Seq2SeqTrainer, ClassifierTrainer, ImageClassifierTrainer):
        return told | {"loss": loss}
    # What these two draw beside the noise of labels has twins in their own tests.
    told["is_loss"] = math.isfinite(loss) and 0 < loss < 1e9
    if cls is TimeClassifierTrainer:
        learned = trainer.volume is not None
        told |= {"transition": None if learned else trainer.transition, "eval_sigmas": list(trainer.eval_sigmas)}
    return told


def log_p_of(row: Mapping[str, Any], noise: UniformTokens | None) -> torch.Tensor:
    """log p of the targets of a row, one after the other."""
    ids = targets = as_integers(row["input_ids"], 1)
    confirm(((ids >= 0) & (ids < TOKENS)).all() and len(ids) <= LENGTH, "a row does not fit the model")
    if not len(ids):
        return torch.zeros(0, dtype=torch.double)  # a row that is empty has no targets
    if noise is not None:
        sample = as_integers(row["sample_id"], 0)
        targets = np.asarray(noise(ids[None], sample[None], 0)[0])[0]
    with torch.no_grad():
        logits = copy.deepcopy(_gpt2()).eval()(input_ids=torch.from_numpy(ids)[None]).logits[0, :-1]
    return logits.double().log_softmax(-1).gather(-1, torch.as_tensor(targets)[1:, None])[:, 0]


def as_integers(value: Any, ndim: int) -> Any:
    if getattr(value, "ndim", None) == 0 and not isinstance(value, np.ma.MaskedArray):
        value = value.item()
    if isinstance(value, list | tuple):  # of tensors and arrays without axes, too
        value = [entry.item() if getattr(entry, "ndim", None) == 0 else entry for entry in value]
    found = reals(value, ndim) if ndim else np.array(number(value))
    confirm((found == np.floor(found)).all(), "no integers")
    return found.astype(np.int64)


def check_noise(given: Mapping[str, Any], result: Mapping[str, Any], kinds: type) -> None:
    """It is what was given, none, or one without a rate that rows may have stated."""
    noise, told = given["noise"], result["noise"]
    confirm(noise is None or isinstance(noise, kinds), "no noise of this kind")
    confirm(told == (None if noise is None else noise.to_dict()), f"noise is {told}")


def check_lm(given: dict[str, Any], result: dict[str, Any]) -> None:
    check_noise(given, result, UniformTokens)
    confirm(isinstance(given["model"], GPT2LMHeadModel), "no model")
    noise, loss, asked = given["noise"], text(given["loss"], "nll", "corrected"), given["error_rate"]
    confirm(noise is None or noise.vocab_size == TOKENS, "no noise of these tokens")
    if given.get("fused_loss") is not None:
        flag(given["fused_loss"])
    for name in ("data_collator", "compute_metrics"):
        confirm(given.get(name) is None or callable(given[name]), name)
    if isinstance(asked, str):
        text(asked, "known", *(["learned"] if loss == "corrected" else []))
    else:
        confirm(loss == "corrected", "a rate of no use")
        confirm(0 <= number(asked) < 1, "rate outside [0, 1)")
    confirm(isinstance(given["rows"], list | tuple) and len(given["rows"]), "no rows")
    log_p = torch.cat([log_p_of(row, noise) for row in given["rows"]])
    if loss == "corrected":
        if isinstance(asked, str) and asked == "learned":
            return  # it starts elsewhere and moves
        rate = noise.error_rate if isinstance(asked, str) else number(asked)
        log_p = torch.log((1 - rate) * log_p.exp() + rate / TOKENS)
    close(result["loss"], float(-log_p.mean()), 1e-4, "loss")


# ---- what TrainingArguments hold


def arguments_call(draw: np.random.Generator) -> dict[str, Any]:
    given = {
        "learning_rate": 1e-3, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_grad_norm": 1.0,
        "seed": 3, "label_smoothing_factor": 0.0, "auto_find_batch_size": False, "weight_decay": 0.0, "warmup_steps": 0,
        "logging_steps": 1, "label_names": None, "eval_accumulation_steps": None, "dataloader_drop_last": False,
        "batch_eval_metrics": False, "eval_do_concat_batches": True, "data_seed": None,
    }  # fmt: skip
    return {str(name): given[name] for name in draw.choice(sorted(given), 4, replace=False)}


#: Each is refused, if it is not this.
TAKEN = {
    "label_smoothing_factor": 0.0, "auto_find_batch_size": False, "batch_eval_metrics": False,
    "eval_do_concat_batches": True,
}  # fmt: skip


def with_arguments(**given: Any) -> dict[str, Any]:
    """Two steps at most; what transformers' own class refuses is not ours to judge."""
    try:
        args = training_arguments(max_steps=2, **given)
    except Exception:  # noqa: BLE001
        return {}
    watch, draw = Watch(), np.random.default_rng(0)
    noise = UniformTokens(error_rate=0.4, vocab_size=TOKENS, seed=1)
    trainer = CausalLMTrainer(copy.deepcopy(_gpt2()), args, train_dataset=token_rows(draw), noise=noise)
    trainer.add_callback(watch)
    trainer.train()
    weights = trainer.model.state_dict().values()
    return {
        "steps": trainer.state.global_step, "are_finite": all(bool(value.isfinite().all()) for value in weights),
        "taken": {name: getattr(args, name) for name in TAKEN}, "is_loss": 0 < watch.logs.get("loss", 1) < 10,
    }  # fmt: skip


def check_arguments(given: dict[str, Any], result: dict[str, Any]) -> None:
    if result:
        large = [given.get(name) for name in ("weight_decay", "learning_rate")]
        if any(isinstance(value, int | float | np.number) and value > 1 for value in large):
            result = {**result, "is_loss": True}  # weights that jump may have any finite loss
        same(result, {"steps": 2, "are_finite": True, "taken": TAKEN, "is_loss": True})


WORDS = {
    "model": ("model", "network", "unet", "UNet2DModel"),
    "rows": ("train_dataset", "dataset", "input_ids", "labels", "images", "columns", "sample_id", "pixel_values", "row",
             "mean", "std", "rows", "image", "column", "sample ids"),
    "noise": ("noise", "UniformTokens", "LabelFlips"),
    "transition": ("T", "matrix", "transition"), "error_rate": ("e",),
}  # fmt: skip

TARGETS = [
    Target("trainers.CausalLMTrainer", functools.partial(train_step, CausalLMTrainer), lm_call, check_lm, WORDS),
    Target("trainers.TrainingArguments", with_arguments, arguments_call, check_arguments,
           {"weight_decay": ("the loss is NaN or infinite",)}),  # as with a learning rate as large
]  # fmt: skip
