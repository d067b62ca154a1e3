"""Bad calls to BERT's masking and to the trainer of masked language models."""

from __future__ import annotations

import copy
import functools
import json
import math
from typing import Any

import bad_twins as twin
import numpy as np
import torch
from bad_calls import Target
from bad_calls_tokens import SAMPLE, method, seed_of
from bad_calls_trainers import LENGTH, TOKENS, as_integers, check_noise, token_rows, train_step
from bad_calls_trainers import WORDS as TRAINERS_WORDS
from bad_readers import close, confirm, flag, ints, number, reals, same, text, whole
from bad_values import pick
from transformers import BertConfig, BertForMaskedLM

from hf_noise.analysis.nll_floor import masked_entropy
from hf_noise.noise import Masking, UniformTokens
from hf_noise.noise.masking_torch import mask
from hf_noise.trainers import MaskedLMTrainer

# ---- the value


def fields(draw: np.random.Generator) -> dict[str, Any]:
    size = pick(draw, 2, 11, 2**20)
    shares = pick(draw, (0.8, 0.1), (1, 0), (0, 0.5))
    return {
        "vocab_size": size, "mask_token": pick(draw, 0, size), "probability": pick(draw, 0.15, 0.9),
        "mask_share": shares[0], "random_share": shares[1],
        "special_tokens": pick(draw, (), [1], np.array([0, 1])), "seed": seed_of(draw),
    }  # fmt: skip


def check_fields(given: dict[str, Any], result: Any) -> None:
    size = whole(given["vocab_size"], 1, 2**20)
    p, masked, random = (number(given[name]) for name in ("probability", "mask_share", "random_share"))
    confirm(0 < p < 1 and 0 < round(p * 2**32) < 2**32, "probability")
    confirm(0 <= masked <= 1 and 0 <= random <= 1 and masked + random <= 1 + 1e-9, "shares")
    special = given["special_tokens"]
    confirm(isinstance(special, list | tuple | set | frozenset | np.ndarray), "no ids")
    expected = {
        "vocab_size": size, "mask_token": whole(given["mask_token"], 0, size), "probability": p, "mask_share": masked,
        "random_share": random, "special_tokens": tuple(sorted({whole(one, 0, size) for one in special})),
        "seed": whole(given["seed"], *twin.SEED),
    }  # fmt: skip
    confirm(isinstance(result, Masking), "no masking")
    for name, value in expected.items():
        confirm(type(getattr(result, name)) is type(value) and getattr(result, name) == value, name)
    again = Masking.from_dict(json.loads(json.dumps(result.to_dict())))
    confirm(again == result and again.num_tokens == max(size, expected["mask_token"] + 1), "from JSON")


# ---- its draws


def slow(masking: Masking, rows: list, targets: list, sample: list, epoch: int, evaluation: bool) -> tuple[list, list]:
    """Token after token, by the definition: what is read, and what is to be predicted."""
    key = twin.key_of(0, 49, 0) if evaluation else twin.key_of(masking.seed, 48, epoch)
    p, read, predicted = masking.probability, [], []
    of_mask, of_random = p * masking.mask_share, p * (masking.mask_share + masking.random_share)
    for row, of_row, number_ in zip(rows, targets, sample, strict=True):
        for position, (token, target) in enumerate(zip(row, of_row, strict=True)):
            word = twin.word_of(key, number_, position)
            upper = word >> 32
            never = target == -100 or token in {*masking.special_tokens, masking.mask_token}
            if never or upper >= round(p * 2**32):
                read.append(token)
                predicted.append(-100)
                continue
            other = twin.uniform(word, masking.vocab_size) if upper < round(of_random * 2**32) else token
            read.append(masking.mask_token if upper < round(of_mask * 2**32) else other)
            predicted.append(target)
    return read, predicted


def make_call(draw: np.random.Generator) -> dict[str, Any]:
    masking = Masking(**fields(draw))
    convert = pick(draw, np.asarray, torch.as_tensor, np.ndarray.tolist)
    tokens = draw.integers(0, masking.vocab_size, (2, 5))
    targets = np.where(draw.random((2, 5)) < 0.2, -100, tokens)
    given = {"_masking": masking, "tokens": convert(tokens), "sample": convert(draw.integers(0, 2**40, 2))}
    of_targets = pick(draw, {}, {"targets": convert(targets)})
    return given | of_targets | {"epoch": pick(draw, 0, 3), "evaluation": pick(draw, False, True)}


def make_tensors(draw: np.random.Generator) -> dict[str, Any]:
    given = make_call(draw)
    tensors = {name: torch.as_tensor(given[name]) for name in ("tokens", "sample", "targets") if name in given}
    return given | tensors


def check_call(given: dict[str, Any], result: Any) -> None:
    masking, tokens, sample = given["_masking"], ints(given["tokens"]), ints(given["sample"])
    told = given.get("targets")
    targets = tokens if told is None else ints(told)
    confirm(targets.shape == tokens.shape, "targets of another shape")
    confirm(all(0 <= token < masking.num_tokens for token in tokens.reshape(-1)), "a token outside")
    twin.check_tokens(targets, masking.num_tokens)
    for values in (given["tokens"], *([] if told is None else [told])):
        twin.fits(values, masking.num_tokens)
    rows, numbers = twin.rows_of(tokens, sample)
    of_rows, _ = twin.rows_of(targets, sample)
    expected = slow(masking, rows, of_rows, numbers, twin.epoch_of(given["epoch"]), flag(given["evaluation"]))
    confirm(isinstance(result, tuple) and len(result) == 2, "no pair")
    twin.same_kind(result[0], given["tokens"])
    for found, values in zip(result, expected, strict=True):
        confirm(isinstance(found, torch.Tensor) == isinstance(given["tokens"], torch.Tensor), "kind")
        same(found, np.array(values, dtype=np.int64).reshape(tokens.shape))


def check_tensors(given: dict[str, Any], result: Any) -> None:
    confirm(isinstance(given["tokens"], torch.Tensor), "no tensor")
    confirm(given.get("targets") is None or isinstance(given["targets"], torch.Tensor), "no tensor")
    check_call(given, result)


# ---- the trainer

_MASKING = Masking(vocab_size=TOKENS, mask_token=TOKENS, probability=0.5, seed=3)


@functools.cache
def _bert() -> BertForMaskedLM:
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(
        vocab_size=TOKENS + 1, max_position_embeddings=LENGTH, hidden_size=8, num_hidden_layers=1,
        num_attention_heads=1, intermediate_size=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        pad_token_id=None,
    ))  # fmt: skip


def make_training(draw: np.random.Generator) -> dict[str, Any]:
    return {
        "model": copy.deepcopy(_bert()), "noise": pick(draw, None, UniformTokens(error_rate=0.4, vocab_size=TOKENS)),
        "loss": "nll", "rows": token_rows(draw), "masking": _MASKING, "sparse_head": pick(draw, None, False, True),
        **pick(draw, {}, {"data_collator": None}, {"compute_metrics": None}),
    }  # fmt: skip


def check_training(given: dict[str, Any], result: dict[str, Any]) -> None:
    check_noise(given, result, UniformTokens)
    confirm(isinstance(given["model"], BertForMaskedLM), "no model")
    noise, masking = given["noise"], given["masking"]
    confirm(noise is None or noise.vocab_size == TOKENS, "no noise of these tokens")
    # None is that of the model's config, which has none here.
    confirm(isinstance(masking, Masking) and masking.num_tokens <= TOKENS + 1, "no masking of these tokens")
    text(given["loss"], "nll")
    if given["sparse_head"] is not None:
        flag(given["sparse_head"])
    for name in ("data_collator", "compute_metrics"):
        confirm(given.get(name) is None or callable(given[name]), name)
    confirm(isinstance(given["rows"], list | tuple) and len(given["rows"]), "no rows")
    nll = torch.cat([nll_of(row, noise, masking) for row in given["rows"]])
    close(result["loss"], float(nll.mean()) if len(nll) else 0.0, 1e-4, "loss")


def nll_of(row: dict[str, Any], noise: UniformTokens | None, masking: Masking) -> torch.Tensor:
    """NLL of the masked tokens of a row, one after the other."""
    ids, sample = as_integers(row["input_ids"], 1), row["sample_id"]
    sample = sample if isinstance(sample, int) else as_integers(sample, 0).tolist()  # floats hold none above 2^53
    confirm(((ids >= 0) & (ids <= TOKENS)).all() and len(ids) <= LENGTH, "a row does not fit the model")
    if not len(ids):
        return torch.zeros(0, dtype=torch.double)
    tokens = ids.tolist()
    noisy = tokens
    if noise is not None:
        confirm((ids < TOKENS).all(), "a token that the noise does not know")
        noisy = [value for value, _ in twin.tokens(noise, [tokens], [sample], 0)]
    read, predicted = slow(masking, [tokens], [noisy], [sample], 0, False)
    with torch.no_grad():
        logits = copy.deepcopy(_bert()).eval()(input_ids=torch.tensor([read])).logits[0].double()
    targets = torch.tensor(predicted)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")[targets != -100]


WORDS = {
    **SAMPLE, "tokens": ("token", "targets"), "targets": ("token",), "random_share": ("mask_share",),
    "mask_share": ("random_share",), "vocab_size": ("mask_token", "special_tokens"),
}  # fmt: skip

# ---- what it leaves of the entropy of noise


def make_entropy(draw: np.random.Generator) -> dict[str, Any]:
    masking = Masking(vocab_size=5, mask_token=pick(draw, 5, 2), special_tokens=(0,))
    return {"masking": masking, "probabilities": pick(draw, np.asarray, np.ndarray.tolist)(draw.dirichlet(np.ones(5)))}


def check_entropy(given: dict[str, Any], result: Any) -> None:
    masking, p = given["masking"], reals(given["probabilities"], 1)
    confirm(isinstance(masking, Masking) and len(p) == masking.vocab_size, "no masking of these tokens")
    confirm(np.isfinite(p).all() and (p >= 0).all() and math.isclose(p.sum(), 1, rel_tol=1e-6), "no probabilities")
    p = np.array([0 if token in {*masking.special_tokens, masking.mask_token} else p[token] for token in range(len(p))])
    confirm(p.sum() > 0, "only special tokens")
    p, joint = p / p.sum(), np.zeros((len(p), len(p) + 1))
    joint[:, masking.mask_token] = p * masking.mask_share
    joint[:, :-1] += np.diag(p * (1 - masking.mask_share - masking.random_share))
    joint[:, :-1] += np.outer(p, np.full(len(p), masking.random_share / len(p)))
    read = joint.sum(0)
    terms = [x * math.log(x / read[r]) for (_, r), x in np.ndenumerate(joint) if x > 0]
    close(result, -math.fsum(terms), 1e-9)


TARGETS = [
    Target("analysis.masked_entropy", masked_entropy, make_entropy, check_entropy),
    Target("noise.Masking", Masking, fields, check_fields, WORDS, weight=2),
    Target("noise.Masking.__call__", lambda _masking, **given: method("__call__")(_masking, **given), make_call,
           check_call, WORDS, weight=2),
    Target("noise.masking_torch.mask", lambda _masking, **given: mask(_masking, **given), make_tensors, check_tensors,
           WORDS),
    Target("trainers.MaskedLMTrainer", functools.partial(train_step, MaskedLMTrainer), make_training, check_training,
           {**TRAINERS_WORDS, "masking": ("Masking", "mask token"), "rows": (*TRAINERS_WORDS["rows"], "token")}),
]  # fmt: skip
