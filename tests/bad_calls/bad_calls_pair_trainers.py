"""Bad arguments, rows and models for the trainer of pairs, and for what tells their rows apart."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from bad_calls import Target
from bad_calls_pairs import ROW_WORDS
from bad_calls_teacher import SHA
from bad_calls_trainers import ALWAYS, as_integers, check_noise, train_step, training_arguments
from bad_calls_trainers import WORDS as OF_TRAINERS
from bad_readers import close, confirm, same, text, whole
from bad_values import pick

from hf_noise.models.seq2seq import encoder_decoder
from hf_noise.noise import NoisyTeacher, Teacher, UniformTokens
from hf_noise.objectives import SequenceMixture
from hf_noise.trainers import Seq2SeqTrainer
from hf_noise.trainers.sequence_audit import score_sequences

TOKENS, LENGTH, ROWS = 31, 7, 8
NOISE = UniformTokens(error_rate=0.4, vocab_size=TOKENS, seed=1)
WROTE = NoisyTeacher(error_rate=0.4, teacher=Teacher(name="t", sha256=SHA), seed=1)


@functools.cache
def network() -> Any:
    torch.manual_seed(0)
    return encoder_decoder(TOKENS, pad_token=0, eos_token=1, layers=1, d_model=8, heads=1, feed_forward=8, dropout=0,
                           positions=LENGTH)  # fmt: skip


def pair_rows(draw: np.random.Generator, noise: Any = None) -> list[dict[str, Any]]:
    def tokens() -> list[int]:
        return [*draw.integers(2, TOKENS, draw.integers(1, LENGTH)).tolist(), 1]

    rows = [{"input_ids": tokens(), "labels": tokens(), "sample_id": 5 * i} for i in range(ROWS)]
    if noise is WROTE:
        for row in rows:
            row |= {"is_noisy": bool(WROTE.is_noisy([row["sample_id"]])[0]), "clean_labels": row["labels"]}
            row |= {"labels": tokens()} if row["is_noisy"] else {}
    return rows


def trainer_call(draw: np.random.Generator) -> dict[str, Any]:
    noise = pick(draw, None, NOISE, WROTE)
    given = {
        "model": copy.deepcopy(network()), "noise": noise, "loss": "nll", "rows": pair_rows(draw, noise),
        "error_rate": "known", "tokens_per_batch": pick(draw, None, 500), "data_collator": None,
        "compute_metrics": None, "callbacks": None,
    }  # fmt: skip
    return {name: given[name] for name in given if name in ALWAYS or draw.random() < 0.6}


def trained_pairs(model: Any, rows: Any, **given: Any) -> dict[str, Any]:
    return train_step(Seq2SeqTrainer, model, rows, **given)


def log_p_of(row: Mapping[str, Any], noise: Any) -> torch.Tensor:
    source, targets = as_integers(row["input_ids"], 1), as_integers(row["labels"], 1)
    for tokens in (source, targets):
        confirm(len(tokens) and ((tokens >= 0) & (tokens < TOKENS)).all() and len(tokens) <= LENGTH, "a row")
    if noise is NOISE:
        targets = np.asarray(NOISE(targets[None], as_integers(row["sample_id"], 0)[None], 0)[0])[0]
    start = torch.from_numpy(np.concatenate([[1], targets[:-1]])[None])
    with torch.no_grad():
        logits = copy.deepcopy(network()).eval()(torch.from_numpy(source)[None], decoder_input_ids=start).logits[0]
    return logits.double().log_softmax(-1).gather(-1, torch.from_numpy(targets)[:, None])[:, 0]


def check_trainer(given: dict[str, Any], result: dict[str, Any]) -> None:
    check_noise(given, result, UniformTokens | NoisyTeacher)
    text(given["loss"], "nll")
    confirm(given["error_rate"] == "known", "a rate of no use")
    budget = given.get("tokens_per_batch")
    for name in ("data_collator", "compute_metrics"):
        confirm(given.get(name) is None or callable(given[name]), name)
    confirm(isinstance(given["rows"], list | tuple) and len(given["rows"]), "no rows")
    if given["noise"] is WROTE:
        confirm(all("is_noisy" in row for row in given["rows"]), "no mask")
    if budget is not None and whole(budget, 2) < 500:
        confirm(max(len(row["input_ids"]) + len(row["labels"]) for row in given["rows"]) <= budget, "budget")
        return  # some of the rows
    log_p = torch.cat([log_p_of(row, given["noise"]) for row in given["rows"]])
    close(result["loss"], float(-log_p.mean()), 1e-4, "loss")


# ---- rows that are told apart


@functools.cache
def mixture() -> Seq2SeqTrainer:
    loss = SequenceMixture(0.3, evidence="likelihood")
    return Seq2SeqTrainer(copy.deepcopy(network()), training_arguments(), loss=loss, train_dataset=audited())


def audited() -> list[dict[str, Any]]:
    return [row | {"teacher_nll": 4.0 + i} for i, row in enumerate(pair_rows(np.random.default_rng(0)))]


def scored(**given: Any) -> dict[str, Any]:
    Accelerator(cpu=True)  # the trainer is kept, and the arguments of others have reset what it shares with them
    found = score_sequences(**given)
    return {name: getattr(found, name) for name in ("sample_id", "targets", "nll", "other_nll", "log_odds")}


def check_scored(given: dict[str, Any], result: dict[str, Any]) -> None:
    confirm(given["trainer"] is mixture(), "another trainer")
    confirm(given.get("batch_size") is None or whole(given["batch_size"], 1), "batch size")
    rows = audited() if given["rows"] is None else given["rows"]
    confirm(isinstance(rows, list | tuple) and len(rows) and all("teacher_nll" in row for row in rows), "no rows")
    nll = [-float(log_p_of(row, None).sum()) for row in rows]
    arrays = [np.asarray(row["teacher_nll"]) for row in rows]
    confirm(all(one.ndim == 0 and one.dtype.kind in "biuf" for one in arrays), "no numbers")
    other = [float(one) for one in arrays]
    confirm(all(0 <= one < math.inf for one in other), "no NLL")
    close(result["nll"], nll, 1e-4)
    close(result["other_nll"], other, 1e-6)
    odds = math.log(0.7 / 0.3) - np.array(nll) + np.array(other)
    close(result["log_odds"], odds, 1e-3)
    same(result["targets"], [len(row["labels"]) for row in rows])
    same(result["sample_id"], [int(as_integers(row["sample_id"], 0)) for row in rows])


TARGETS = [
    Target("trainers.Seq2SeqTrainer", trained_pairs, trainer_call, check_trainer,
           OF_TRAINERS | {"rows": (*OF_TRAINERS["rows"], *ROW_WORDS, "tokens", "is_noisy")}),
    Target("trainers.score_sequences", scored,
           lambda draw: {"trainer": mixture(), "rows": pick(draw, None, audited()),
                         "batch_size": pick(draw, None, 3)}, check_scored,
           {"rows": (*OF_TRAINERS["rows"], *ROW_WORDS, "teacher_nll", "tokens")}),
]  # fmt: skip
