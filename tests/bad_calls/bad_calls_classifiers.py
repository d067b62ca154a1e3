"""Bad calls to what holds classifiers back from wrong labels, and to the trainer of any classifier."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import numpy as np
import torch
from bad_calls import Target
from bad_calls_losses import floats, log_softmax, near, normal
from bad_calls_peers import inside
from bad_calls_trainers import ALWAYS, CLASSES, LENGTH, ROWS, TOKENS, WORDS, T, as_integers, check_noise, train_step
from bad_readers import close, confirm, number, reals, text
from bad_values import pick
from transformers import BertConfig, BertForSequenceClassification

from hf_noise.losses import early_learning_penalty, small_losses
from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.trainers import ClassifierTrainer


def make_early(draw: np.random.Generator) -> dict[str, Any]:
    logits = normal(draw, 3, CLASSES)
    return {"logits": logits, "targets": normal(draw, 3, CLASSES).softmax(-1).to(logits.dtype)}


def check_early(given: dict[str, Any], result: Any) -> None:
    logits, targets = floats(given["logits"], None, None), floats(given["targets"], None, None)
    confirm(logits.shape == targets.shape, "shapes")
    p = np.exp(log_softmax(logits)).clip(1e-4, 1 - 1e-4)
    with np.errstate(all="ignore"):
        near(given, result, np.log1p(-(p * targets).sum(-1)))


def make_small(draw: np.random.Generator) -> dict[str, Any]:
    return {"losses": normal(draw, int(draw.integers(1, 9))).abs(), "forget_rate": pick(draw, 0, 0.25, 0.9)}


def check_small(given: dict[str, Any], result: Any) -> None:
    losses, rate = floats(given["losses"], None), inside(given["forget_rate"], 0, 1, "[)")
    kept = np.argsort(losses, kind="stable")[: max(1, math.floor((1 - rate) * len(losses) + 1e-9))]
    confirm(result.dtype == torch.bool and result.shape == losses.shape, "no mask")
    confirm(not len(losses) or result.numpy().tolist() == np.isin(np.arange(len(losses)), kept).tolist(), "kept")


@functools.cache
def _bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(
        vocab_size=TOKENS, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=LENGTH, num_labels=CLASSES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    ))  # fmt: skip


def text_call(draw: np.random.Generator) -> dict[str, Any]:
    noise = pick(draw, None, LabelFlips.symmetric(ratio=0.5, num_classes=CLASSES, seed=2))
    loss = "nll" if noise is None else pick(draw, "nll", "corrected", "gce")
    rows = [{"input_ids": draw.integers(0, TOKENS, LENGTH).tolist(), "label": i % CLASSES, "sample_id": 3 * i}
            for i in range(ROWS)]  # fmt: skip
    given = {
        "model": copy.deepcopy(_bert()), "noise": noise, "loss": loss, "rows": rows,
        "transition": T if loss == "corrected" else None, "head": None, "volume": None, "compute_metrics": None,
    }  # fmt: skip
    return {name: given[name] for name in given if name in ALWAYS or draw.random() < 0.6}


def check_text(given: dict[str, Any], result: Any) -> None:
    noise, loss = given["noise"], text(given["loss"], "nll", "corrected", "gce")
    check_noise(given, result, LabelFlips | HumanLabels)
    confirm(isinstance(given["model"], BertForSequenceClassification), "no model")
    confirm(noise is None or noise.num_classes == CLASSES, "no noise of these classes")
    for name in ("head", "volume"):
        confirm(given.get(name) is None, name)
    confirm(given.get("compute_metrics") is None or callable(given["compute_metrics"]), "compute_metrics")
    confirm(isinstance(given["rows"], list | tuple) and len(given["rows"]), "no rows")
    tokens, labels = (
        np.array([as_integers(row[name], axes) for row in given["rows"]])
        for name, axes in (("input_ids", 1), ("label", 0))
    )
    # What no float64 holds is exact here.
    ids = np.array([row["sample_id"] if type(row["sample_id"]) is int else as_integers(row["sample_id"], 0)
                    for row in given["rows"]]) if noise is not None else None  # fmt: skip
    confirm(((labels >= 0) & (labels < CLASSES)).all() and ((tokens >= 0) & (tokens < TOKENS)).all(), "outside")
    matrix = None if given["transition"] is None else reals(given["transition"], 2)
    confirm(loss == "corrected" or matrix is None, "a matrix of no use")
    if noise is not None:
        labels = np.asarray(noise(labels, sample=ids, epoch=0)[0])
    with torch.no_grad():
        p = copy.deepcopy(_bert())(torch.from_numpy(tokens)).logits.double().softmax(-1).numpy()
    if loss == "corrected":
        used = noise.transition if matrix is None else matrix
        confirm(used.shape == (CLASSES, CLASSES) and (used >= 0).all() and np.allclose(used.sum(1), 1, atol=1e-5), "T")
        p = p @ used
    of_label = p[np.arange(len(labels)), labels]
    losses = (1 - of_label**0.7) / 0.7 if loss == "gce" else -np.log(of_label)
    close(result["loss"], number(float(losses.mean())), 1e-4, "loss")


WORDS = {**WORDS, "rows": (*WORDS["rows"], "label", "forward"), "head": ("head",), "volume": ("VolumePlan",)}

TARGETS = [
    Target("losses.early_learning_penalty", early_learning_penalty, make_early, check_early),
    Target("losses.small_losses", small_losses, make_small, check_small),
    Target("trainers.ClassifierTrainer", lambda rows, **given: train_step(
        ClassifierTrainer, given.pop("model"), rows, **given), text_call, check_text, WORDS),
]  # fmt: skip
