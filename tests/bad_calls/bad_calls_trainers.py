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
import torch.nn.functional as F
from bad_calls import Target
from bad_readers import close, confirm, flag, number, reals, same, text, whole
from transformers import GPT2Config, GPT2LMHeadModel, TrainerCallback, TrainingArguments

from hf_noise.models.edm_unet import edm_unet
from hf_noise.models.image import image_classifier
from hf_noise.models.noisy_classifier import NoisyClassifier
from hf_noise.noise import HumanLabels, LabelFlips, UniformTokens
from hf_noise.trainers import CausalLMTrainer, EDMTrainer, ImageClassifierTrainer, NoisyClassifierTrainer
from hf_noise.trainers.images import DeviceImages
from hf_noise.trainers.noisy_classifier import VolumePlan

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
    """The rate and loss that were logged."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs = getattr(self, "logs", {}) | (logs or {})


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


def train_step(cls: type, model: Any, rows: Any, **given: Any) -> tuple[Any, dict[str, float]]:
    """The trainer after one step, and what it logged."""
    # What can be called is taken for a function that is right, which these are not.
    for name in ("data_collator", "compute_metrics", "augment"):
        if given.get(name) is int or given.get(name) is math.sqrt:
            given[name] = None
    watch = Watch()
    trainer = cls(model, training_arguments(), train_dataset=rows, **given)
    trainer.add_callback(watch)
    torch.manual_seed(0)
    trainer.train()
    return trainer, watch.logs


def log_p_of(row: Mapping[str, Any], noise: UniformTokens | None) -> torch.Tensor:
    """log p of the targets of a row, one after the other."""
    ids = targets = as_integers(row["input_ids"], 1)
    confirm(((ids >= 0) & (ids < TOKENS)).all() and 1 <= len(ids) <= LENGTH, "a row does not fit the model")
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


def check_lm(given: dict[str, Any], result: tuple[CausalLMTrainer, dict]) -> None:
    trainer, logs = result
    confirm(isinstance(given["model"], GPT2LMHeadModel), "no model")
    noise, loss, asked = given["noise"], text(given["loss"], "nll", "corrected"), given["error_rate"]
    confirm(noise is None or isinstance(noise, UniformTokens) and noise.vocab_size == TOKENS, "no noise of tokens")
    if given.get("fused_loss") is not None:
        flag(given["fused_loss"])
    for name in ("data_collator", "compute_metrics"):
        confirm(given.get(name) is None or callable(given[name]), name)
    same(trainer.noise is noise or trainer.noise == noise, True, "noise")
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
    close(logs["loss"], float(-log_p.mean()), 1e-4, "loss")


# ---- classifiers and diffusion


def images(draw: np.random.Generator, labels: Any = None, **columns: Any) -> dict[str, Any]:
    pixels = torch.from_numpy(draw.integers(0, 256, (ROWS, 1, 8, 8), dtype=np.uint8))
    own = {"labels": torch.arange(ROWS) % CLASSES, "sample_id": torch.arange(ROWS) * 3}
    if draw.random() < 0.6:
        return {"images": pixels, "columns": own, "mean": [0.5], "std": [0.5]}
    as_is = pick(draw, lambda image: image, lambda image: image.tolist(), lambda image: image.numpy())
    scaled = (pixels.float() / 255 - 0.5) / 0.5
    return [{"pixel_values": as_is(image), "label": i % CLASSES, "sample_id": 3 * i} for i, image in enumerate(scaled)]


def flips(draw: np.random.Generator) -> LabelFlips:
    return LabelFlips.symmetric(ratio=pick(draw, 0.25, 0.5), num_classes=CLASSES, seed=2)


@functools.cache
def _classifier() -> torch.nn.Module:
    torch.manual_seed(0)
    return image_classifier("resnet10-digits", labels=CLASSES, image_size=8, num_channels=1)


@functools.cache
def _noisy_classifier() -> NoisyClassifier:
    torch.manual_seed(0)
    return NoisyClassifier(num_classes=CLASSES, image_size=8, num_channels=1, architecture="cnn-digits")


@functools.cache
def _unet() -> torch.nn.Module:
    torch.manual_seed(0)
    return edm_unet("edm-digits", num_classes=CLASSES, image_size=8, num_channels=1)


def image_call(draw: np.random.Generator) -> dict[str, Any]:
    noise, loss = pick(draw, (None, "nll"), (flips(draw), "nll"), (flips(draw), "corrected"))
    given = {
        "model": copy.deepcopy(_classifier()), "noise": noise, "loss": loss, "rows": images(draw),
        "transition": T if loss == "corrected" else None, "mixup": 0.0, "channels_last": pick(draw, None, False),
        "compute_metrics": None,
    }  # fmt: skip
    return {name: given[name] for name in given if name in ALWAYS or draw.random() < 0.6}


def of_images(cls: type, rows: Any, **given: Any) -> Any:
    if isinstance(rows, dict) and set(rows) == {"images", "columns", "mean", "std"}:
        rows = DeviceImages(**rows)
    return train_step(cls, given.pop("model"), rows, **given)


def check_images(given: dict[str, Any]) -> tuple[dict[str, np.ndarray], torch.Tensor]:
    """Rows of images are what they should be; the columns and pixels."""
    rows = given["rows"]
    noise = given["noise"]
    confirm(noise is None or isinstance(noise, LabelFlips | HumanLabels) and noise.num_classes == CLASSES, "no noise")
    if isinstance(rows, list | tuple):
        columns = {name: np.array([as_integers(row[name], 0) for row in rows]) for name in ("label", "sample_id")}
        columns["labels"] = columns.pop("label")
        pixels = torch.stack([torch.as_tensor(reals(row["pixel_values"], 3)).float() for row in rows])
        confirm(pixels.shape[1:] == (1, 8, 8) and pixels.isfinite().all(), "pixels")
        confirm(((columns["labels"] >= 0) & (columns["labels"] < CLASSES)).all(), "labels outside")
        return columns, pixels
    confirm(isinstance(rows, dict) and set(rows) <= {"images", "columns", "mean", "std", "split"}, "no images")
    pixels = rows["images"]
    confirm(isinstance(pixels, torch.Tensor) and pixels.dtype == torch.uint8, "pixels")
    confirm(pixels.shape[1:] == (1, 8, 8), "pixels")
    confirm(reals(rows["mean"]).shape == reals(rows["std"]).shape == (1,), "mean and std")
    confirm(np.isfinite(reals(rows["mean"])).all() and 0 < reals(rows["std"])[0] < np.inf, "mean and std")
    confirm("labels" in rows["columns"], "no labels")
    names = [name for name in rows["columns"] if name in ("labels", "sample_id")]
    columns = {name: as_integers(rows["columns"][name], 1) for name in names}
    confirm(all(len(column) == len(pixels) for column in columns.values()) and len(pixels), "lengths")
    confirm(((columns["labels"] >= 0) & (columns["labels"] < CLASSES)).all(), "labels outside")
    if noise is not None:
        confirm("sample_id" in columns, "no ids")
    return columns, (pixels.float() / 255 - float(reals(rows["mean"])[0])) / float(reals(rows["std"])[0])


def matrix(value: Any) -> np.ndarray:
    found = reals(value, 2)
    confirm(found.shape == (CLASSES, CLASSES) and (found >= 0).all(), "no matrix")
    confirm(np.allclose(found.sum(1), 1, atol=1e-5), "rows do not add to 1")
    return found


def check_classifier(given: dict[str, Any], result: tuple[Any, dict]) -> None:
    trainer, logs = result
    confirm(isinstance(given["model"], type(_classifier())), "no model")
    (columns, pixels), loss = check_images(given), text(given["loss"], "nll", "corrected")
    mixup = number(given.get("mixup", 0.0))
    confirm(mixup == 0 or 1e-6 <= mixup <= 1e6, "mixup")
    if given.get("channels_last") is not None:
        flag(given["channels_last"])
    confirm(given.get("compute_metrics") is None or callable(given["compute_metrics"]), "compute_metrics")
    stated = None if given["transition"] is None else matrix(given["transition"])
    confirm(loss == "corrected" or stated is None, "a matrix of no use")
    if mixup:
        return
    labels, noise = columns["labels"], given["noise"]
    if noise is not None:
        labels = np.asarray(noise(columns["labels"], columns["sample_id"], 0)[0])
    model = copy.deepcopy(_classifier()).train()
    with torch.no_grad():
        log_p = F.log_softmax(model(pixel_values=pixels).logits.double(), -1)
    if loss == "corrected":
        used = stated if stated is not None else noise.transition_matrix()
        log_p = torch.log(log_p.exp() @ torch.as_tensor(np.asarray(used), dtype=torch.float64))
    close(logs["loss"], float(-log_p[range(len(labels)), labels].mean()), 1e-3, "loss")


def noisy_call(draw: np.random.Generator) -> dict[str, Any]:
    noise = pick(draw, None, flips(draw))
    given = {
        "model": copy.deepcopy(_noisy_classifier()), "noise": noise, "rows": images(draw),
        "transition": pick(draw, None, T) if noise is None else pick(draw, "known", "estimated", T),
        "volume": None, "eval_sigmas": [0.1, 1.0], "augment": None,
    }  # fmt: skip
    return {name: given[name] for name in given if name in ALWAYS or draw.random() < 0.6}


def check_noisy_classifier(given: dict[str, Any], result: tuple[Any, dict]) -> None:
    trainer, logs = result
    confirm(isinstance(given["model"], NoisyClassifier), "no model")
    check_images(given)
    asked = given["transition"]
    if isinstance(asked, str):
        text(asked, "known", "estimated")
        confirm(asked == "estimated" or given["noise"] is not None, "nothing is known")
    elif asked is not None:
        used = matrix(asked)
        close(trainer.transition, used / used.sum(1, keepdims=True), 1e-6, "transition")
    sigmas = reals(given.get("eval_sigmas", [1.0]), 1)
    confirm(len(sigmas) and ((sigmas > 0) & (sigmas < np.inf)).all(), "eval_sigmas")
    same(reals(list(trainer.eval_sigmas)) if "eval_sigmas" in given else sigmas, sigmas, "eval_sigmas")
    confirm(given.get("volume") is None or isinstance(given["volume"], VolumePlan), "volume")
    confirm(given.get("augment") is None or callable(given["augment"]), "augment")
    confirm(np.isfinite(logs["loss"]) and 0 < logs["loss"] < 10, f"loss {logs['loss']}")


def edm_call(draw: np.random.Generator) -> dict[str, Any]:
    loss = pick(draw, "dsm", "tdsm")
    given = {
        "model": copy.deepcopy(_unet()), "noise": pick(draw, None, flips(draw)) if loss == "dsm" else flips(draw),
        "rows": images(draw), "loss": loss, "classifier": None if loss == "dsm" else copy.deepcopy(_noisy_classifier()),
        "transition": None, "weights": "inverse", "tau": 0.01, "temperature": 1.0,
        "renormalise": False, "grad_classes": pick(draw, "observed", "all"), "chunk": pick(draw, None, 4),
        "ema_decay": 0.9, "label_dropout": 0.0, "sigma_data": 0.5, "P_mean": -1.2, "P_std": 1.2, "augment": None,
    }  # fmt: skip
    if loss == "dsm":  # what only tdsm reads is refused
        given = {name: value for name, value in given.items() if name not in ("weights", "grad_classes", "chunk")}
    return {name: given[name] for name in given if name in (*ALWAYS, "weights") or draw.random() < 0.5}


def check_edm(given: dict[str, Any], result: tuple[Any, dict]) -> None:
    trainer, logs = result
    confirm(isinstance(given["model"], type(_unet())), "no model")
    check_images(given)
    loss = text(given["loss"], "dsm", "tdsm")
    confirm(loss == "tdsm" or given["classifier"] is None, "a classifier of no use")
    confirm(loss == "dsm" or isinstance(given["classifier"], torch.nn.Module), "no classifier")
    if given["transition"] is not None:
        confirm(loss == "tdsm", "a matrix of no use")
        matrix(given["transition"])
    if given.get("augment") is not None:
        confirm(callable(given["augment"]), "augment")
    for name in ("tau", "ema_decay", "label_dropout"):
        confirm(0 <= number(given.get(name, 0.0)) < 1, name)
    for name in ("temperature", "sigma_data", "P_std"):
        confirm(0 < number(given.get(name, 1.0)) < np.inf, name)
    confirm(np.isfinite(number(given.get("P_mean", 0.0))), "P_mean")
    flag(given.get("renormalise", False))
    text(given.get("weights", "bayes"), "bayes", "inverse")
    text(given.get("grad_classes", "all"), "observed", "all")
    if given.get("chunk") is not None:
        whole(given["chunk"], 1)
    confirm(np.isfinite(logs["loss"]) and logs["loss"] > 0, f"loss {logs['loss']}")


# ---- what TrainingArguments hold


def arguments_call(draw: np.random.Generator) -> dict[str, Any]:
    given = {
        "learning_rate": 1e-3, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_grad_norm": 1.0,
        "seed": 3, "label_smoothing_factor": 0.0, "auto_find_batch_size": False, "weight_decay": 0.0, "warmup_steps": 0,
        "logging_steps": 1, "label_names": None, "eval_accumulation_steps": None, "dataloader_drop_last": False,
        "batch_eval_metrics": False, "eval_do_concat_batches": True, "data_seed": None,
    }  # fmt: skip
    return {str(name): given[name] for name in draw.choice(sorted(given), 4, replace=False)}


def with_arguments(**given: Any) -> tuple[Any, dict[str, float], TrainingArguments]:
    """Two steps at most; what transformers' own class refuses is not ours to judge."""
    try:
        args = training_arguments(max_steps=2, **given)
    except Exception:  # noqa: BLE001
        return None, {}, None
    watch, draw = Watch(), np.random.default_rng(0)
    noise = UniformTokens(error_rate=0.4, vocab_size=TOKENS, seed=1)
    trainer = CausalLMTrainer(copy.deepcopy(_gpt2()), args, train_dataset=token_rows(draw), noise=noise)
    trainer.add_callback(watch)
    trainer.train()
    return trainer, getattr(watch, "logs", {}), args


def check_arguments(given: dict[str, Any], result: tuple[Any, dict, Any]) -> None:
    trainer, logs, args = result
    if trainer is None:
        return
    for name in ("label_smoothing_factor", "auto_find_batch_size", "batch_eval_metrics"):
        confirm(not getattr(args, name), f"{name} was taken")
    confirm(args.eval_do_concat_batches and not args.label_names, "taken")
    confirm(trainer.state.global_step == 2, "other steps")
    confirm(all(value.isfinite().all() for value in trainer.model.state_dict().values()), "weights are not finite")
    if "loss" in logs:
        confirm(0 < logs["loss"] < 10, f"loss {logs['loss']}")


WORDS = {
    "model": ("model", "network", "unet", "UNet2DModel"),
    "rows": ("train_dataset", "dataset", "input_ids", "labels", "images", "columns", "sample_id", "pixel_values", "row",
             "mean", "std", "rows", "image", "column", "sample ids"),
    "noise": ("noise", "UniformTokens", "LabelFlips"),
    "transition": ("T", "matrix", "transition"), "error_rate": ("e",),
}  # fmt: skip

TARGETS = [
    Target("trainers.CausalLMTrainer", functools.partial(train_step, CausalLMTrainer), lm_call, check_lm, WORDS),
    Target("trainers.ImageClassifierTrainer", functools.partial(of_images, ImageClassifierTrainer), image_call,
           check_classifier, WORDS),
    Target("trainers.NoisyClassifierTrainer", functools.partial(of_images, NoisyClassifierTrainer), noisy_call,
           check_noisy_classifier, WORDS),
    Target("trainers.EDMTrainer", functools.partial(of_images, EDMTrainer), edm_call, check_edm, WORDS),
    Target("trainers.TrainingArguments", with_arguments, arguments_call, check_arguments),
]  # fmt: skip
