"""Bad calls to the noise of a teacher, to the mixture of its rows with clean ones, and to a network for pairs."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import bad_twins as twin
import numpy as np
import torch
from bad_calls import Target
from bad_calls_losses import floats, near, normal
from bad_calls_models import MANY, on_meta, share
from bad_readers import close, confirm, ints, number, same, text, whole
from bad_values import pick

from hf_noise.losses import sequence_mixture_nll
from hf_noise.losses.sequence_mixture import sequence_posterior
from hf_noise.metrics.sequences import sequence_scores
from hf_noise.models.seq2seq import encoder_decoder
from hf_noise.noise import Decoding, NoisyTeacher, Teacher, noise_from_dict

SHA = "0123456789abcdef" * 4
METHODS = ("greedy", "sample", "beam")
STREAM, WORDS_END = 5, 2**62


# ---- who wrote, and how


def make_decoding(draw: np.random.Generator) -> dict[str, Any]:
    method = pick(draw, *METHODS)
    given = {
        "method": method, "temperature": pick(draw, 0.5, 2.0) if method == "sample" else 1,
        "num_beams": pick(draw, None, 3 if method == "beam" else 1), "max_new_tokens": pick(draw, 1, 256),
    }  # fmt: skip
    return {name: value for name, value in given.items() if name == "method" or draw.random() < 0.7}


def decoding_of(given: Mapping[str, Any]) -> dict[str, Any]:
    method = text(given.get("method", "greedy"), *METHODS)
    temperature, beams = number(given.get("temperature", 1.0)), given.get("num_beams")
    confirm(0 < temperature < math.inf and (method == "sample" or temperature == 1), "temperature")
    beams = (4 if method == "beam" else 1) if beams is None else whole(beams, 1, 2**10)
    confirm((beams > 1) == (method == "beam"), "beams")
    return {"method": method, "temperature": temperature, "num_beams": beams,
            "max_new_tokens": whole(given.get("max_new_tokens", 256), 1, 2**16)}  # fmt: skip


def check_fields(found: Any, expected: Mapping[str, Any]) -> None:
    """Confirm fields to have these values, of Python's own types."""
    confirm({field.name for field in dataclasses.fields(found)} == set(expected), "other fields")
    for name, value in expected.items():
        held = getattr(found, name)
        confirm(type(held) is type(value) and held == value, f"{name} is {held!r}, not {value!r}")


def make_teacher(draw: np.random.Generator) -> dict[str, Any]:
    decoding = make_decoding(draw)
    given = {
        "name": pick(draw, "runs/teacher", "google/t5"), "sha256": SHA, "steps": pick(draw, None, 500),
        "decoding": pick(draw, decoding, Decoding(**decoding)),
    }  # fmt: skip
    return {name: value for name, value in given.items() if name in ("name", "sha256") or draw.random() < 0.6}


def teacher_of(given: Mapping[str, Any]) -> dict[str, Any]:
    confirm(set(given) <= {"name", "sha256", "steps", "decoding"}, "fields")
    name, sha, steps, decoding = (given.get(key) for key in ("name", "sha256", "steps", "decoding"))
    confirm(text(name), "no name")
    confirm(len(text(sha)) == 64 and set(sha) <= set("0123456789abcdef"), "no hash")
    if not isinstance(decoding, Decoding):
        confirm("decoding" not in given or isinstance(decoding, Mapping), "decoding")
        confirm(set(decoding or {}) <= {"method", "temperature", "num_beams", "max_new_tokens"}, "fields")
        decoding = Decoding(**decoding_of(decoding or {}))
    steps = None if steps is None else whole(steps, 1, 2**53)
    return {"name": name, "sha256": sha, "steps": steps, "decoding": decoding}


# ---- the noise


def make_noise(draw: np.random.Generator) -> dict[str, Any]:
    given = {"seed": pick(draw, 0, 2**63 - 1), "num_rows": pick(draw, None, 1, 7, 40)}
    given |= {pick(draw, "ratio", "error_rate"): pick(draw, 0, 0.3, 0.5)}
    fields = make_teacher(draw)
    given["teacher"] = pick(draw, fields, Teacher(**fields))
    return {name: given[name] for name in given if name not in ("seed", "num_rows") or draw.random() < 0.7}


def words(noise: NoisyTeacher, sample: list[int]) -> list[int]:
    key = twin.key_of(noise.seed, STREAM, 0)
    return [twin.word_at(key, one) >> 2 for one in sample]


def smallest(noise: NoisyTeacher, sample: list[int], e: float) -> list[bool]:
    """round(e N) of the rows, those with the smallest words."""
    found = words(noise, sample)
    chosen = sorted(range(len(sample)), key=found.__getitem__)[: round(e * len(sample))]
    return [row in chosen for row in range(len(sample))]


def check_noise(given: dict[str, Any], result: NoisyTeacher) -> None:
    r, e = twin.rates_of(given.get("ratio"), given.get("error_rate"))
    rows, teacher = given.get("num_rows"), given["teacher"]
    close([result.ratio, result.error_rate], [r, e], 1e-9)
    confirm(type(result.ratio) is type(result.error_rate) is float, "no floats")
    confirm(type(result.seed) is int and result.seed == whole(given.get("seed", 0), *twin.SEED), "seed")
    confirm(teacher is None or isinstance(teacher, Teacher | Mapping), "teacher")
    if isinstance(teacher, Mapping):
        check_fields(result.teacher, teacher_of(teacher))
    confirm(not isinstance(teacher, Teacher) or result.teacher is teacher, "another teacher")
    confirm(teacher is not None or (result.teacher is None and e == 0), "nobody wrote it")
    confirm(result.num_rows == (None if rows is None else whole(rows, 1, 2**28)), "rows")
    if rows is None:
        confirm(result.cut == round(e * 2**32) << 30, "cut")
    elif rows <= 1000:
        marks = [word < result.cut for word in words(result, list(range(rows)))]
        confirm(marks == smallest(result, list(range(rows)), e), "other rows")
        confirm(0 <= result.cut <= WORDS_END and (result.cut - 1 in words(result, list(range(rows))) or not any(marks)),
                "cut")  # fmt: skip
    again = noise_from_dict(json.loads(json.dumps(result.to_dict())))
    confirm(again == result and again.to_dict() == result.to_dict(), "another one comes back from JSON")


def a_noise(draw: np.random.Generator) -> NoisyTeacher:
    given = make_noise(draw) | {"error_rate": 0.4}
    given.pop("ratio", None)
    return NoisyTeacher(**given)


def make_mask(draw: np.random.Generator) -> dict[str, Any]:
    noise, first = a_noise(draw), int(pick(draw, 0, 10**6))
    n = noise.num_rows if noise.num_rows is not None and first == 0 else 6 if noise.num_rows != 6 else 5
    sample = pick(draw, np.asarray, np.ndarray.tolist, torch.as_tensor)(first + np.arange(n))
    return {"_noise": noise, "sample": sample}


def marks_of(given: dict[str, Any]) -> list[bool]:
    noise, sample = given["_noise"], ints(given["sample"], 1).tolist()
    confirm(all(-(2**63) <= one < 2**64 for one in sample), "no ids")
    marks = [word < noise.cut for word in words(noise, sample)]
    if len(set(sample)) == len(sample) == noise.num_rows:
        confirm(sum(marks) == round(noise.error_rate * len(sample)), "it was made for other rows")
    return marks


def check_mask(given: dict[str, Any], result: np.ndarray) -> None:
    confirm(isinstance(result, np.ndarray) and result.dtype == bool, "no mask")
    confirm(result.tolist() == marks_of(given), "other rows")


def check_exactly(given: dict[str, Any], result: dict[str, Any]) -> None:
    noise, sample = given["_noise"], ints(given["sample"], 1).tolist()
    confirm(0 < len(sample) == len(set(sample)), "ids")
    confirm(result == {"rows": len(sample), "marks": smallest(noise, sample, noise.error_rate)}, "other rows")


def exactly(_noise: NoisyTeacher, sample: Any) -> dict[str, Any]:
    found = _noise.exactly(sample)
    return {"rows": found.num_rows, "marks": found.is_noisy(sample).tolist()}


def make_replaced(draw: np.random.Generator) -> dict[str, Any]:
    given = make_mask(draw)
    n = len(given["sample"])
    return given | {"targets": [f"t{i}" for i in range(n)], "written": [f"w{i}" for i in range(n)]}


def check_replaced(given: dict[str, Any], result: Any) -> None:
    marks = marks_of(given)
    for name in ("targets", "written"):
        confirm(not isinstance(given[name], Mapping | str | bytes) and len(given[name]) == len(marks), name)
    noisy, is_noisy = result
    expected = [new if mark else old for old, new, mark in zip(given["targets"], given["written"], marks)]
    confirm(is_noisy.dtype == bool and is_noisy.tolist() == marks and len(noisy) == len(expected), "marks")
    confirm(all(a is b or np.all(a == b) for a, b in zip(noisy, expected)), "targets")
    confirm(all(new is not None for new, mark in zip(noisy, marks) if mark), "nothing written")


# ---- the mixture


def make_mixture(draw: np.random.Generator) -> dict[str, Any]:
    nll = normal(draw, 3, 4).abs()
    mask = torch.from_numpy(draw.random((3, 4)) < 0.7)
    rate = pick(draw, 0.3, 0, torch.tensor(0.4, dtype=torch.float64))
    return {"nll": nll, "of_other": normal(draw, 3).to(nll.dtype).abs() * 4, "is_target": mask, "error_rate": rate}


def parts_of(given: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    nll, other, mask = floats(given["nll"], None, None), floats(given["of_other"], None), given["is_target"]
    confirm(isinstance(mask, torch.Tensor) and mask.dtype == torch.bool, "no mask")
    confirm(tuple(mask.shape) == nll.shape and len(other) == len(nll), "shapes")
    rate = given["error_rate"]
    if isinstance(rate, torch.Tensor):
        rate = floats(rate).reshape(-1)
        confirm(len(rate) == 1 and not (rate < 0).any() and not (rate > 1).any(), "rate")
        return nll, other, mask.numpy(), float(rate[0])
    confirm(0 <= number(rate) < 1, "rate")
    return nll, other, mask.numpy(), float(rate)


def check_mixture(given: dict[str, Any], result: torch.Tensor) -> None:
    nll, other, mask, e = parts_of(given)
    with np.errstate(all="ignore"):
        own = np.where(mask, nll, 0).sum(1)
        rows = -np.logaddexp(np.log1p(-e) - own, np.log(e) - other)
        near(given, result, np.where(mask, (rows / np.maximum(mask.sum(1), 1))[:, None], 0))


def check_row_posterior(given: dict[str, Any], result: torch.Tensor) -> None:
    nll, other, mask, e = parts_of(given)
    with np.errstate(all="ignore"):
        odds = np.log1p(-e) - np.where(mask, nll, 0).sum(1) - (np.log(e) - other)
        near(given, result, 1 / (1 + np.exp(-odds)))


# ---- what was written, against what should have been


TEXTS = ["the cat sat on the mat", "a dog", "noise is data too, they say", "rate of four in ten"]


def make_scores(draw: np.random.Generator) -> dict[str, Any]:
    n = int(draw.integers(1, 5))
    texts = [TEXTS[i] for i in draw.permutation(4)[:n]]
    return {"predictions": pick(draw, list, tuple)(texts), "references": TEXTS[:n]}


@functools.cache
def corpus_scores(predictions: tuple[str, ...], references: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """By the libraries themselves, asked text by text where they are."""
    import rouge_score.rouge_scorer
    import sacrebleu

    found = {}
    for name, metric in (("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF())):
        score = metric.corpus_score(list(predictions), [list(references)]).score
        found[name] = {"value": score, "signature": str(metric.get_signature())}
    for name in ("rouge1", "rouge2", "rougeL"):
        scorer = rouge_score.rouge_scorer.RougeScorer([name])
        each = [scorer.score(right, own)[name].fmeasure for own, right in zip(predictions, references)]
        found[name] = {"value": 100 * float(np.mean(each)), "signature": "rouge-score 0.1, F1, no stemming"}
    return found


def check_scores(given: dict[str, Any], result: Any) -> None:
    for name in ("predictions", "references"):
        confirm(isinstance(given[name], list | tuple), name)
    own, right = (tuple(text(one) for one in given[name]) for name in ("predictions", "references"))
    confirm(0 < len(own) == len(right), "lengths")
    expected = corpus_scores(own, right)
    confirm(set(result) == set(expected), "names")
    for name, score in expected.items():
        close([result[name]["value"]], [score["value"]], 1e-9)
        same(result[name]["n"], len(own))
        confirm(result[name]["signature"].split(" ")[0] == score["signature"].split(" ")[0], "signature")
        confirm(result[name]["signature"].endswith(score["signature"][-4:]), "signature")


# ---- the network


def make_network(draw: np.random.Generator) -> dict[str, Any]:
    return {"vocab_size": pick(draw, 2, 300), "pad_token": 0, "eos_token": 1, "layers": pick(draw, 1, 2),
            "d_model": pick(draw, 8, 16), "heads": pick(draw, 1, 2), "feed_forward": 8, "dropout": pick(draw, 0, 0.1),
            "positions": pick(draw, 1, 16)}  # fmt: skip


def check_network(given: dict[str, Any], result: Any) -> None:
    config, vocab = result.config, whole(given["vocab_size"], 2, 2**21)
    confirm(config.vocab_size == vocab, "tokens")
    pad, end = (whole(given[name], 0, vocab - 1) for name in ("pad_token", "eos_token"))
    confirm((config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (pad, end, end), "tokens")
    confirm(pad != end and pad <= given["positions"] + 1, "padding")
    layers, heads, width = whole(given["layers"], 1, 1024), whole(given["heads"], 1), whole(given["d_model"], 4, MANY)
    confirm(len(result.model.encoder.layers) == len(result.model.decoder.layers) == layers, "layers")
    confirm(config.d_model == width and width % (2 * heads) == 0, "width")
    confirm(config.encoder_attention_heads == config.decoder_attention_heads == heads, "heads")
    confirm(config.decoder_ffn_dim == config.encoder_ffn_dim == whole(given["feed_forward"], 1, 2**20), "width")
    confirm(config.max_position_embeddings == whole(given["positions"], 1, 2**20), "positions")
    confirm(config.dropout == share(given["dropout"]) and config.attention_dropout == 0, "dropout")


FIELDS = {
    "teacher": ("sha256", "decoding", "steps", "name", "temperature", "num_beams", "method", "max_new_tokens"),
    "num_rows": ("rows",), "ratio": ("error_rate", "rate", "e"), "error_rate": ("ratio", "e"),
}  # fmt: skip

TARGETS = [
    Target("noise.Decoding", Decoding, make_decoding,
           lambda given, result: check_fields(result, decoding_of(given))),
    Target("noise.Teacher", Teacher, make_teacher,
           lambda given, result: check_fields(result, teacher_of(given)), {"decoding": FIELDS["teacher"]}),
    Target("noise.NoisyTeacher", NoisyTeacher, make_noise, check_noise, FIELDS, weight=2),
    Target("noise.NoisyTeacher.is_noisy", lambda _noise, sample: _noise.is_noisy(sample), make_mask, check_mask,
           {"sample": ("rows", "ids")}),
    Target("noise.NoisyTeacher.exactly", exactly, make_mask, check_exactly, {"sample": ("ids",)}),
    Target("noise.NoisyTeacher.replaced", lambda _noise, **given: _noise.replaced(**given), make_replaced,
           check_replaced, {"sample": ("rows", "ids"), "written": ("nothing written",)}),
    Target("losses.sequence_mixture_nll", sequence_mixture_nll, make_mixture, check_mixture),
    Target("losses.sequence_posterior", sequence_posterior, make_mixture, check_row_posterior),
    Target("models.encoder_decoder", on_meta(encoder_decoder), make_network, check_network),
]  # fmt: skip
if all(find_spec(name) for name in ("sacrebleu", "rouge_score")):  # which are an extra
    TARGETS.append(Target("metrics.sequence_scores", sequence_scores, make_scores, check_scores))
