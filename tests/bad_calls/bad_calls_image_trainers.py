"""Bad arguments, images and networks for the trainers of classifiers and of diffusion; see `bad_calls_trainers`."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from bad_calls import Target
from bad_calls_trainers import ALWAYS, WORDS, as_integers, check_noise, pick, train_step
from bad_readers import close, confirm, flag, number, reals, same, text, whole

from hf_noise.models.edm_unet import edm_unet
from hf_noise.models.image import image_classifier
from hf_noise.models.time_classifier import TimeDependentClassifier
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.trainers import EDMTrainer, ImageClassifierTrainer, TimeClassifierTrainer
from hf_noise.trainers.images import DeviceImages
from hf_noise.trainers.time_classifier import VolumePlan

ROWS, CLASSES = 8, 4
T = np.full((CLASSES, CLASSES), 0.1) + 0.6 * np.eye(CLASSES)

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
def _time_classifier() -> TimeDependentClassifier:
    torch.manual_seed(0)
    return TimeDependentClassifier(num_classes=CLASSES, image_size=8, num_channels=1, architecture="cnn-digits")


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
    confirm(noise is None or noise.num_classes == CLASSES, "no noise of these classes")
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


def check_classifier(given: dict[str, Any], result: dict[str, Any]) -> None:
    check_noise(given, result, LabelFlips | HumanLabels)
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
    close(result["loss"], float(-log_p[range(len(labels)), labels].mean()), 1e-3, "loss")


def noisy_call(draw: np.random.Generator) -> dict[str, Any]:
    noise = pick(draw, None, flips(draw))
    given = {
        "model": copy.deepcopy(_time_classifier()), "noise": noise, "rows": images(draw),
        "transition": pick(draw, None, T) if noise is None else pick(draw, "known", "estimated", T),
        "volume": None, "eval_sigmas": [0.1, 1.0], "augment": None,
    }  # fmt: skip
    return {name: given[name] for name in given if name in ALWAYS or draw.random() < 0.6}


def check_time_classifier(given: dict[str, Any], result: dict[str, Any]) -> None:
    check_noise(given, result, LabelFlips | HumanLabels)
    confirm(isinstance(given["model"], TimeDependentClassifier), "no model")
    check_images(given)
    asked = given["transition"]
    if isinstance(asked, str):
        text(asked, "known", "estimated")
        confirm(asked == "estimated" or given["noise"] is not None, "nothing is known")
        expected = given["noise"].transition if asked == "known" else None
        told = result["transition"]
        confirm(told is None if expected is None else np.array_equal(told, expected), "transition")
    elif asked is not None:
        used = matrix(asked)
        close(result["transition"], used / used.sum(1, keepdims=True), 1e-6, "transition")
    sigmas = reals(given.get("eval_sigmas", [0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0]), 1)
    confirm(len(sigmas) and ((sigmas > 0) & (sigmas < np.inf)).all(), "eval_sigmas")
    same(result["eval_sigmas"], sigmas, "eval_sigmas")
    confirm(given.get("volume") is None or isinstance(given["volume"], VolumePlan), "volume")
    confirm(given.get("augment") is None or callable(given["augment"]), "augment")
    confirm(result["is_loss"], "loss")


def edm_call(draw: np.random.Generator) -> dict[str, Any]:
    loss = pick(draw, "dsm", "tdsm")
    given = {
        "model": copy.deepcopy(_unet()), "noise": pick(draw, None, flips(draw)) if loss == "dsm" else flips(draw),
        "rows": images(draw), "loss": loss, "classifier": None if loss == "dsm" else copy.deepcopy(_time_classifier()),
        "transition": None, "weights": "inverse", "tau": 0.01, "temperature": 1.0,
        "renormalise": False, "grad_classes": pick(draw, "observed", "all"), "chunk": pick(draw, None, 4),
        "ema_decay": 0.9, "label_dropout": 0.0, "sigma_data": 0.5, "P_mean": -1.2, "P_std": 1.2, "augment": None,
    }  # fmt: skip
    if loss == "dsm":  # what only tdsm reads is refused
        given = {name: value for name, value in given.items() if name not in ("weights", "grad_classes", "chunk")}
    return {name: given[name] for name in given if name in (*ALWAYS, "weights") or draw.random() < 0.5}


def check_edm(given: dict[str, Any], result: dict[str, Any]) -> None:
    check_noise(given, result, LabelFlips | HumanLabels)
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
    confirm(result["is_loss"], "loss")


TARGETS = [
    Target("trainers.ImageClassifierTrainer", functools.partial(of_images, ImageClassifierTrainer), image_call,
           check_classifier, WORDS),
    Target("trainers.TimeClassifierTrainer", functools.partial(of_images, TimeClassifierTrainer), noisy_call,
           check_time_classifier, WORDS),
    Target("trainers.EDMTrainer", functools.partial(of_images, EDMTrainer), edm_call, check_edm, WORDS),
]  # fmt: skip
