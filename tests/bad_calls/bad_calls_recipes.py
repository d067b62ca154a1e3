"""Bad flags for the recipes: a dry run whose settings are what was asked for, or a message that names the flag."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bad_calls import Target
from bad_readers import confirm
from transformers.hf_argparser import string_to_bool

from hf_noise.studies.settings import LEARNING_RATE_SCHEDULES, parse

#: On a command line, besides what takes the place of numbers elsewhere.
TEXTS = (
    "1e3", "0x10", "1_000", " 5", "5,", "1.0", "--5", "-1e-3", "1e999", "१", "", " ", "é" * 200, "a b", "no"
)


@dataclass(frozen=True)
class Kind:
    """How a text is read, and which values are right; numbers have to be finite."""

    read: Callable[[str], Any]
    low: float = -math.inf
    high: float = math.inf
    is_open: bool = False

    def __call__(self, text: str) -> Any:
        try:
            value = self.read(text)
        except Exception:  # noqa: BLE001
            confirm(False, f"{text!r:.80} was taken")
        if isinstance(value, int | float):
            confirm(math.isfinite(value) if isinstance(value, float) else True, f"{text} was taken")
            inside = self.low < value < self.high if self.is_open else self.low <= value <= self.high
            confirm(inside, f"{text:.80} was taken")
        return value


def name(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text


COUNT, NATURAL, TWO = Kind(int, 1, 2**40), Kind(int, 0, 2**40), Kind(int, 2, 2**40)
SEED, NOISE_SEED = Kind(int, 0, 2**32 - 1), Kind(int, 0, 2**63 - 1)
POSITIVE, AMOUNT = Kind(float, math.ulp(0), 2**40), Kind(float, 0, 2**40)
SHARE, BELOW_ONE = Kind(float, 0, 1), Kind(float, 0, math.nextafter(1, 0))
NAME, FLAG, TEXT = Kind(name), Kind(string_to_bool), Kind(str)


def one_of(*names: str) -> Kind:
    return Kind(dict(zip(names, names)).__getitem__)


SCHEDULE = one_of(*LEARNING_RATE_SCHEDULES)
OF_IMAGES = {
    "output": NAME, "data": NAME, "source": NAME, "classes": COUNT, "train_rows": COUNT, "test_rows": COUNT,
    "image_size": COUNT, "ratio": AMOUNT, "redraw": one_of("epoch", "never"), "allow_adversarial": FLAG, "seed": SEED,
    "epochs": POSITIVE, "batch_size": COUNT, "micro_batch": COUNT, "save_steps": COUNT, "logging_steps": COUNT,
    "bf16": FLAG, "torch_compile": FLAG, "num_processes": COUNT, "push_to_hub": NAME, "learning_rate": POSITIVE,
    "warmup": AMOUNT,
}  # fmt: skip
OF_DOCUMENTS = {
    "output": NAME, "source": NAME, "tokenizer": NAME, "block_size": TWO, "num_proc": COUNT, "model": TEXT,
    "alpha": BELOW_ONE, "placement": one_of("append", "interleave"), "cure": one_of("known", "learned"),
    "validation_fraction": Kind(float, 0, 1, is_open=True), "text_column": NAME, "eval_rows": COUNT,
    "evaluations": COUNT, "noise_rows": COUNT, "score_rows": COUNT, "seed": SEED, "steps": COUNT, "batch_size": COUNT,
    "micro_batch": COUNT, "learning_rate": POSITIVE, "warmup": AMOUNT, "weight_decay": AMOUNT, "save_steps": COUNT,
    "logging_steps": COUNT, "bf16": FLAG, "num_processes": COUNT, "push_to_hub": NAME, "private": FLAG,
}  # fmt: skip
#: Flags of a recipe, how each is read, and a value for it that is right.
FLAGS: dict[str, dict[str, Kind]] = {
    "gpt2_noise": {
        "output": NAME, "source": NAME, "tokenizer": NAME, "block_size": TWO, "streaming": FLAG, "num_proc": COUNT,
        "model": TEXT, "plan": one_of("steps", "batch", "table6", "budget"), "ratio": AMOUNT, "corrected": POSITIVE,
        "validation_fraction": Kind(float, 0, 1, is_open=True), "text_column": NAME,
        "learned": POSITIVE, "misstated": POSITIVE, "seed": SEED, "steps": COUNT, "batch_size": COUNT,
        "micro_batch": COUNT, "learning_rate": POSITIVE, "warmup": AMOUNT, "weight_decay": AMOUNT, "save_steps": COUNT,
        "logging_steps": COUNT, "score_rows": COUNT, "bf16": FLAG, "num_processes": COUNT, "push_to_hub": NAME,
        "private": FLAG,
    },
    "gpt2_noise of documents": OF_DOCUMENTS,
    "bert_noise": OF_DOCUMENTS | {"dropout": BELOW_ONE, "mask_probability": Kind(float, 0, 1, is_open=True)},
    "classifier_noise": OF_IMAGES | {
        "workers": NATURAL, "protocol": NAME, "loss": one_of("nll", "corrected"), "optimizer": one_of("sgd", "adamw"),
        "plan": one_of("steps", "batch", "budget"), "weight_decay": AMOUNT, "crop_padding": NATURAL,
        "label_smoothing": BELOW_ONE, "mixup": AMOUNT, "model": NAME,
    },
    "edm_noise": OF_IMAGES | {
        "protocol": NAME, "loss": one_of("dsm", "tdsm"), "plan": one_of("steps", "batch", "budget"), "warmup": NATURAL,
        "schedule": SCHEDULE, "ema_decay": BELOW_ONE, "max_grad_norm": AMOUNT, "dropout": BELOW_ONE,
        "label_dropout": BELOW_ONE, "augment": SHARE, "tau": BELOW_ONE, "classifier_epochs": POSITIVE,
        "judge_epochs": POSITIVE, "num_images": TWO, "sampling_steps": COUNT, "sample_batch": COUNT, "fp16": FLAG,
    },
    "time_classifier": OF_IMAGES | {
        "protocol": NAME, "transition": one_of("known", "estimated", "anchor", "identity", "human"),
        "matrix_phases": one_of("short", "paper"), "anchor_quantile": Kind(float, 0, 1, is_open=True),
        "schedule": SCHEDULE, "augment": SHARE, "fp16": FLAG,
    },
    "finetune_noise": {
        "output": NAME, "source": NAME, "test_source": NAME, "validation_source": NAME, "column": NAME,
        "test_fraction": Kind(float, 0, 1, is_open=True), "text_column": NAME, "train_rows": TWO, "test_rows": TWO,
        "max_length": TWO, "ratio": AMOUNT, "protocol": one_of("symmetric", "cyclic"),
        "redraw": one_of("never", "epoch"), "loss": one_of("nll", "corrected", "estimated", "gce", "elr"),
        "matrix_rate": POSITIVE, "regulariser": one_of("none", "l2-sp", "smart", "lnsr"), "lgm": FLAG, "l2_sp": AMOUNT,
        "smart": AMOUNT, "lnsr": AMOUNT, "gamma": AMOUNT, "lam": AMOUNT, "pretrain_steps": COUNT, "lora_r": COUNT,
        "method": one_of("full", "lora"), "lora_alpha": POSITIVE, "lora_dropout": BELOW_ONE, "lora_targets": NAME,
        "epochs": POSITIVE, "learning_rate": POSITIVE, "lora_learning_rate": POSITIVE, "schedule": SCHEDULE,
        "warmup": AMOUNT, "weight_decay": AMOUNT, "batch_size": COUNT, "micro_batch": COUNT, "seed": SEED,
        "bf16": FLAG, "num_processes": COUNT, "private": FLAG,
    },
    "seq2seq_noise": {
        "output": NAME, "train_rows": TWO, "test_rows": TWO, "vocab_size": COUNT, "max_source_tokens": TWO,
        "truncate": FLAG, "ratio": AMOUNT, "loss": one_of("nll", "sequence-mixture", "truncated", "error-norm", "gce"),
        "other": one_of("teacher", "learned", "unigram"), "fraction": BELOW_ONE, "teacher_steps": COUNT,
        "threshold": Kind(float, math.ulp(0), math.sqrt(2)), "decoding": one_of("greedy", "sample", "beam"),
        "max_new_tokens": COUNT, "layers": COUNT, "feed_forward": COUNT, "dropout": BELOW_ONE, "steps": COUNT,
        "tokens_per_batch": TWO, "learning_rate": POSITIVE, "schedule": SCHEDULE, "warmup": AMOUNT,
        "weight_decay": AMOUNT, "max_grad_norm": POSITIVE, "score_rows": COUNT, "batch_size": COUNT,
        "micro_batch": COUNT, "seed": SEED, "bf16": FLAG, "num_processes": COUNT, "private": FLAG,
    },
    "evaluate_generation": {
        "output": NAME, "images": NAME, "num_images": TWO, "steps": COUNT, "data": NAME, "source": NAME,
        "classes": COUNT, "train_rows": COUNT, "test_rows": COUNT, "image_size": COUNT, "judge_epochs": POSITIVE,
        "k": COUNT, "splits": COUNT, "cas": FLAG, "batch_size": COUNT, "seed": SEED, "num_processes": COUNT,
    },
    "sample_edm": {
        "model": NAME, "output": TEXT, "num_images": COUNT, "batch_size": COUNT, "seed": NOISE_SEED,
        "classes": Kind(int, 0),
        "num_inference_steps": COUNT, "guidance_scale": Kind(float, 1),
    },
    "publish_dataset": {
        "name": NAME, "ratios": AMOUNT, "output": TEXT, "source": NAME, "classes": COUNT, "tokenizer": NAME,
        "block_size": TWO, "seed": NOISE_SEED, "num_proc": COUNT, "license": NAME, "push_to_hub": NAME,
    },
    "audit": {
        "output": NAME, "source": NAME, "split": NAME, "column": NAME, "rows": TWO, "ratio": AMOUNT,
        "protocol": one_of("cyclic", "symmetric"), "folds": Kind(int, 2, 64), "epochs": POSITIVE, "batch_size": COUNT,
        "learning_rate": POSITIVE, "verify": TWO, "train": FLAG, "fdr": SHARE, "max_length": COUNT,
        "pooling": one_of("mean", "last"), "network": one_of("patches", "resnet10-small"),
        "network_size": Kind(int, 8, 1024), "image_size": COUNT, "extract_batch": COUNT, "bf16": FLAG, "seed": SEED,
        "num_processes": COUNT,
    },
    "audit_tokens": {
        "output": NAME, "source": NAME, "split": NAME, "text_column": NAME, "rows": TWO, "block_size": TWO,
        "steps": COUNT, "kind": one_of("uniform", "unigram", "look-alikes"), "ratio": AMOUNT,
        "particles": Kind(int, 0, 4096), "batch_size": COUNT, "seed": SEED, "num_processes": Kind(int, 1, 1),
    },
    "loss_stability": {
        "output": NAME, "source": NAME, "tokenizer": NAME, "block_size": TWO, "num_proc": COUNT, "text_column": NAME,
        "validation_fraction": Kind(float, 0, 1, is_open=True), "stated": FLAG, "network": TEXT, "ratio": AMOUNT,
        "plan": one_of("steps", "batch", "table6", "budget"), "steps": COUNT, "batch_size": COUNT,
        "learning_rate": POSITIVE, "micro_batch": COUNT, "num_batches": Kind(int, 10, 2**16), "score_rows": TWO,
        "order": one_of("shuffled", "stored"), "bf16": FLAG, "seed": SEED, "num_processes": COUNT,
    },
    "theory": {
        "output": NAME, "early": Kind(float, 0, 1, is_open=True), "alpha": BELOW_ONE, "k": Kind(float, 1e-200, 1e200),
        "clean_loss": Kind(float, 0, 230), "noise_loss": Kind(float, 0, 230),
    },
    "gradient_coherence": {
        "output": NAME, "source": NAME, "tokenizer": NAME, "block_size": TWO, "streaming": FLAG, "num_proc": COUNT,
        "validation_fraction": Kind(float, 0, 1, is_open=True), "text_column": NAME, "model": NAME, "seed": SEED,
        "parameters": NAME, "corruption": Kind(float, 0, 1, is_open=True), "unit": one_of("example", "token"),
        "batch_size": TWO, "batches": TWO, "memory_mib": Kind(int, 1, 2**20), "num_processes": Kind(int, 1, 1),
    },
}  # fmt: skip
_FOLDER = tempfile.TemporaryDirectory()
IMAGES = Path(_FOLDER.name) / "images.npz"
np.savez(IMAGES, images=np.zeros((20, 8, 8, 3), dtype=np.uint8), labels=np.arange(20) % 10)
GOOD = {
    "output": "runs/x", "source": "embedded/digits", "data": "hf_noise/digits-noisy", "model": "runs/no-model",
    "redraw": "never", "push_to_hub": "user/name", "plan": ["steps"], "protocol": ["symmetric"], "tokenizer": "gpt2",
    "name": "hf_noise/docs-noisy", "ratios": [0.1, 0.5], "ratio": [0.0, 0.5], "seed": [0, 1], "schedule": "cosine",
    "text_column": "text", "matrix_phases": "paper", "optimizer": "adamw", "license": "mit", "classes": 10,
    "train_rows": 500, "test_rows": 200, "placement": "interleave",
}  # fmt: skip
#: Of a recipe, where it takes another value than others.
OWN_GOOD = {
    "gpt2_noise": {"source": "embedded/docs-text", "model": "nano"},
    "gpt2_noise of documents": {"source": "embedded/docs-text", "model": "nano", "alpha": [0.05], "cure": ["known"]},
    "bert_noise": {"source": "embedded/docs-text", "model": "nano", "alpha": [0.05], "cure": ["known"]},
    "classifier_noise": {"loss": ["corrected"], "model": "resnet10-digits"},
    "edm_noise": {"loss": ["tdsm"], "plan": "steps"},
    "time_classifier": {"protocol": "cyclic", "transition": ["known", "anchor"]},
    "finetune_noise": {
        "source": "embedded/docs-topics", "text_column": ["text"], "loss": ["gce"], "regulariser": ["smart"],
        "method": ["full"], "lora_targets": ["query"],
    },
    "seq2seq_noise": {"loss": ["truncated"], "other": ["unigram"], "threshold": 1.2, "decoding": "sample"},
    "evaluate_generation": {"seed": 3, "images": [str(IMAGES)]},
    "sample_edm": {"seed": 3, "classes": [0, 3]},
    "publish_dataset": {"seed": 3, "source": "embedded/docs-text"},
    "audit": {
        "source": "my.csv", "ratio": 0.25, "protocol": "cyclic", "pooling": "last", "network": "patches",
        "network_size": 16, "seed": 3,
    },
    "audit_tokens": {"source": "my.txt", "kind": "unigram", "ratio": 0.25, "seed": 3, "num_processes": 1},
    "loss_stability": {"source": "embedded/docs-text", "network": "nano", "plan": "batch", "num_batches": 20},
    "theory": {"alpha": [0.05, 0.2], "k": [1.0, 10.0]},
    "gradient_coherence": {
        "source": "embedded/docs-text", "model": "nano", "seed": 3, "parameters": ["transformer.wte.weight"],
        "corruption": [0.25, 0.5], "unit": "token", "batch_size": [4, 8], "num_processes": 1,
    },
}
LISTS = {"corrected", "learned", "misstated", "cure", "parameters"}
ALWAYS = {
    "audit_tokens": ["--model", "user/gpt2"],
    "evaluate_generation": ["--images", str(IMAGES), "--inception", "none"], "sample_edm": ["--model", "runs/no-model"],
}  # fmt: skip


def right_value(recipe: str, flag: str, kind: Kind) -> Any:
    if (found := (GOOD | OWN_GOOD[recipe]).get(flag)) is not None:
        return found
    if kind is FLAG:
        return True
    value = 4 if kind.read is int else 0.5 if kind.high <= 1 else 1.5
    return [value] if flag in LISTS else value


def asked(recipe: str, draw: np.random.Generator) -> dict[str, Any]:
    """Three flags with values that are right."""
    flags = FLAGS[recipe]
    chosen = list(draw.choice(sorted(flags), 3, replace=False))
    if "classes" in chosen and "classes" not in OWN_GOOD[recipe]:
        chosen.remove("classes")  # of ImageNet, which is not here to choose from
    return {str(flag): right_value(recipe, flag, flags[flag]) for flag in chosen}


def as_texts(value: Any) -> list[str]:
    if isinstance(value, list | tuple):
        return [str(entry) for entry in value]
    return [str(value)]


STUDIES = {
    "gpt2_noise": "language", "classifier_noise": "classifier", "time_classifier": "time_classifier",
    "edm_noise": "diffusion", "evaluate_generation": "evaluation", "sample_edm": "sampling",
    "publish_dataset": "publishing", "theory": "theory", "gpt2_noise of documents": "documents",
    "bert_noise": "masked_language", "finetune_noise": "finetune", "gradient_coherence": "gradient_coherence",
    "seq2seq_noise": "seq2seq", "loss_stability": "stability", "audit": "audit",
    "audit_tokens": "token_audit",
}  # fmt: skip


def read(recipe: str, **flags: Any) -> dict[str, Any]:
    """What settings these flags are read as; or with what message they were refused."""
    argv = list(ALWAYS.get(recipe, ()))
    for flag, value in flags.items():
        texts = as_texts(value)
        if texts == ["--"]:  # to argparse it is no value
            texts = [""]
        argv += [f"--{flag}={texts[0]}"] if len(texts) == 1 else [f"--{flag}", *texts]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            study = importlib.import_module(f"hf_noise.studies.{STUDIES[recipe]}.study")
            settings = parse(study.Settings, argv, "")
            of = getattr(study, "STUDY", None)
            # As a dry run: what is on the Hub is not read.
            if of and (of.elsewhere(settings) is None or of.has_rows(settings) or of.knows_rows(settings)):
                of.planned(settings)
        except SystemExit as stop:
            assert stop.code == 2, "the status of wrong flags"
            return {"refused": err.getvalue().split("error: ", 1)[-1]}
    return {flag: getattr(settings, flag) for flag in flags}


def check(recipe: str, given: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    if "refused" in result:
        message = result["refused"]
        texts = [text for value in given.values() for text in as_texts(value)]
        named = any(f"--{flag}" in message for flag in given) or any(text and text in message for text in texts)
        confirm(named, message or "no message")
        return
    for flag, value in given.items():
        found = [FLAGS[recipe][flag](text) for text in as_texts(value)]
        found = [True] if FLAGS[recipe][flag] is FLAG and not found else found  # the flag alone sets it
        confirm(found or flag in (*LISTS, "ratio"), f"{flag} is empty")
        if result:
            told = result[flag] if isinstance(result[flag], list) else [result[flag]]
            confirm(told == found, f"{flag} is {told}, given {found}")


def own(flag: str) -> list[Callable[[], Any]]:
    return [lambda text=text: text for text in TEXTS] + [lambda text=text: [1, text] for text in TEXTS[:3]]


TARGETS = [
    Target(
        f"recipes.{recipe}", functools.partial(read, recipe), functools.partial(asked, recipe),
        functools.partial(check, recipe), extra={flag: own(flag) for flag in FLAGS[recipe]},
    )
    for recipe in FLAGS
]  # fmt: skip
