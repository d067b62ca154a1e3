"""Bad calls to the noise of labels, drawn and given by people, and to transition matrices."""

from __future__ import annotations

import hashlib
from typing import Any

import bad_twins as twin
import numpy as np
import torch
from bad_calls import Target
from bad_readers import close, confirm, flag, ints, same, text, whole
from bad_values import pick

from hf_noise.noise import HumanLabels, LabelFlips
from hf_noise.noise.label_maps import check_label_map
from hf_noise.noise.labels_torch import flip
from hf_noise.noise.transition import check_prior, check_transition, posterior

T = [[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5]]
CLEAN, HUMAN = [0, 1, 2, 2, 1, 0], [0, 1, 2, 0, 1, 1]
KINDS = ("symmetric", "uniform_resample", "cyclic")


# ---- drawn labels


def flip_fields(draw: np.random.Generator) -> dict[str, Any]:
    return {
        "_kind": pick(draw, *KINDS), "ratio": None, "error_rate": None,
        **pick(draw, {"ratio": 0.5}, {"error_rate": 0.3}, {"ratio": 1.0, "error_rate": 0.5}),
        "num_classes": pick(draw, 3, 10),
        "seed": pick(draw, 0, 2**63 - 1), "redraw": pick(draw, "epoch", "never"),
        "allow_adversarial": bool(draw.integers(2)),
    }  # fmt: skip


def check_flip_fields(given: dict[str, Any], noise: Any, **more: Any) -> None:
    r, e = twin.rates_of(given["ratio"], given["error_rate"])
    classes, allowed = whole(given["num_classes"], 2, 2**20), flag(given["allow_adversarial"])
    past = e > (classes - 1) / classes + 1e-9
    confirm(allowed or not past, "adversarial")
    twin.stored(
        noise, kind=given["_kind"], ratio=r, error_rate=e, num_classes=classes, seed=whole(given["seed"], *twin.SEED),
        redraw=text(given["redraw"], "epoch", "never"), allow_adversarial=past, **more,
    )  # fmt: skip
    if classes <= 100:
        close(noise.transition, expected_matrix(noise), 1e-12)


def expected_matrix(noise: Any) -> np.ndarray:
    """T by its definition, entry by entry."""
    classes, e = noise.num_classes, noise.error_rate
    partner = dict(noise.mapping or ())
    matrix = np.zeros((classes, classes))
    for i in range(classes):
        for j in range(classes):
            matrix[i, j] = {
                "symmetric": 1 - e if i == j else e / (classes - 1),
                "uniform_resample": (1 - e) * (i == j) + e / classes,
                "cyclic": (1 - e) * (i == j) + e * (j == (i + 1) % classes),
                "pairs": (1 - e) * (i == j) + e * (j == partner.get(i, i)),
            }[noise.kind]
    return matrix


def make_pairs(draw: np.random.Generator) -> dict[str, Any]:
    mapping = pick(draw, {0: 1, 2: 0}, [(0, 1), (2, 0)], np.array([[0, 1], [2, 0]]))
    return {**flip_fields(draw), "_kind": "pairs", "mapping": mapping}


def pairs_of(mapping: Any, classes: int) -> tuple[tuple[int, int], ...]:
    if hasattr(mapping, "__next__"):  # read once, as it was made
        return (0, 1), (2, 0)
    if isinstance(mapping, np.ndarray) and mapping.dtype == object:
        mapping = mapping.tolist()
    pairs = ints(list(mapping.items()) if isinstance(mapping, dict) else mapping, 2)
    confirm(pairs.shape[0] and pairs.shape[1] == 2, "no pairs")
    pairs = sorted(map(tuple, pairs.tolist()))
    confirm(all(0 <= i < classes and 0 <= j < classes and i != j for i, j in pairs), "classes")
    confirm(len({i for i, _ in pairs}) == len(pairs), "twice")
    return tuple(pairs)


def check_pairs(given: dict[str, Any], noise: Any) -> None:
    check_flip_fields(given, noise, mapping=pairs_of(given["mapping"], given["num_classes"]))


def check_matrix_fields(given: dict[str, Any], noise: Any) -> None:
    matrix = twin.matrix_of(given["transition"])
    redraw = text(given["redraw"], "epoch", "never")
    twin.stored(noise, kind="transition", num_classes=len(matrix), seed=whole(given["seed"], *twin.SEED), redraw=redraw)
    close(noise.transition, matrix, 1e-9)
    close(noise.error_rate, max(0, 1 - matrix.diagonal().mean()), 1e-9)


def make_named(draw: np.random.Generator) -> dict[str, Any]:
    protocol = pick(draw, *KINDS, "uniform-resample", "pairs", "transition")
    if protocol == "transition":
        return {"protocol": protocol, "matrix": make_matrix(draw), "seed": 3}
    own = pick(draw, {"mapping": {0: 1, 2: 0}}, {"known": {"mapping": {0: 1, 2: 0}}}) if protocol == "pairs" else {}
    return {"protocol": protocol, **own, "ratio": 0.5, "num_classes": 3, "seed": 3, "allow_adversarial": True}


def check_named(given: dict[str, Any], noise: Any) -> None:
    kind = text(given["protocol"]).replace("-", "_")
    if kind == "transition":
        confirm(set(given) <= {"protocol", "matrix", "seed"}, "fields of others")
        check_matrix_fields({"transition": given["matrix"], "seed": given["seed"], "redraw": "epoch"}, noise)
        return
    text(kind, *KINDS, "pairs")
    confirm(given.get("matrix") is None, "a matrix of no use")
    fields = {"error_rate": None, "redraw": "epoch", "allow_adversarial": False, **given, "_kind": kind}
    more = {}
    if kind == "pairs":
        known = given.get("known") or {}
        more = {"mapping": pairs_of(given["mapping"] if "mapping" in given else known["mapping"], given["num_classes"])}
    check_flip_fields(fields, noise, **more)


def label_noise(draw: np.random.Generator) -> LabelFlips:
    seed, redraw = pick(draw, 0, 2**63 - 1), pick(draw, "epoch", "never")
    if draw.random() < 0.25:
        return LabelFlips.from_transition(T, seed=seed, redraw=redraw)
    kind, classes = pick(draw, *KINDS, "pairs"), pick(draw, 3, 11)
    mapping = {"mapping": {0: 2, 1: 0}} if kind == "pairs" else {}
    return LabelFlips(kind=kind, error_rate=0.5, num_classes=classes, seed=seed, redraw=redraw, **mapping)


def make_labels(draw: np.random.Generator) -> dict[str, Any]:
    noise = label_noise(draw)
    values = draw.integers(0, noise.num_classes, size=pick(draw, (5,), (2, 2), ()))
    if values.size > 1 and draw.random() < 0.3:
        values.reshape(-1)[0] = -100
    convert = pick(draw, np.asarray, torch.as_tensor, lambda array: np.asarray(array).tolist())
    sample = draw.integers(0, 2**40, size=values.shape)
    return {"_noise": noise, "labels": convert(values), "sample": convert(sample), "epoch": pick(draw, 0, 2)}


def check_labels(given: dict[str, Any], result: Any) -> None:
    noise, values, sample = given["_noise"], ints(given["labels"]), ints(given["sample"])
    confirm(values.shape == sample.shape, "shapes")
    flat = values.reshape(-1).tolist()
    confirm(all(value == -100 or 0 <= value < noise.num_classes for value in flat), "a label outside")
    twin.fits(given["labels"], noise.num_classes)
    expected = twin.labels(noise, flat, sample.reshape(-1).tolist(), given["epoch"])
    twin.pair(noise, result, given["labels"], expected, values.shape)


def as_tensors(given: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.as_tensor(value) if name in ("labels", "sample") else value for name, value in given.items()}


def check_label_tensors(given: dict[str, Any], result: Any) -> None:
    confirm(isinstance(given["labels"], torch.Tensor), "no tensor")
    check_labels(given, result)


def make_columns(draw: np.random.Generator) -> dict[str, Any]:
    noise = label_noise(draw)
    values = draw.integers(0, noise.num_classes, size=4)
    batch = {
        pick(draw, "label", "labels"): pick(draw, values, values.tolist()),
        **pick(draw, {}, {"sample_id": [7, 8, 9, 1]}),
    }
    return {"_noise": noise, "batch": batch, "indices": pick(draw, [0, 1, 2, 3], np.arange(4)), "epoch": 0}


def check_columns(given: dict[str, Any], result: Any) -> None:
    noise, batch = given["_noise"], given["batch"]
    confirm(isinstance(batch, dict), "no batch")
    name = "label" if "label" in batch else "labels"
    values, sample = ints(batch[name], 1), ints(batch.get("sample_id", given["indices"]), 1)
    confirm(set(result) == {name, f"clean_{name}", "is_noisy", "sample_id"}, "columns")
    same(result[f"clean_{name}"], values)
    same(result["sample_id"], sample)
    labels = {"_noise": noise, "labels": np.asarray(batch[name]), "sample": sample.tolist(), "epoch": given["epoch"]}
    check_labels(labels, (result[name], result["is_noisy"]))


def make_conditional(draw: np.random.Generator) -> dict[str, Any]:
    noise = pick(draw, LabelFlips.from_transition(T), LabelFlips.cyclic(0.5, num_classes=3), human())
    return {"_noise": noise, "prior": pick(draw, None, [0.2, 0.3, 0.5], np.array([0.0, 0.5, 0.5]))}


def bayes(matrix: np.ndarray, prior: np.ndarray) -> np.ndarray:
    classes = range(len(matrix))
    rows = [[prior[i] * matrix[i, j] for i in classes] for j in classes]
    return np.array([[x / sum(row) if sum(row) > 0 else np.nan for x in row] for row in rows])


def check_posterior(given: dict[str, Any], result: Any) -> None:
    matrix = given["_noise"].transition if "_noise" in given else twin.matrix_of(given["transition"])
    close(result, bayes(matrix, twin.prior_of(given["prior"], len(matrix))), 1e-9)


def check_overall(given: dict[str, Any], result: Any) -> None:
    noise, prior = given["_noise"], given["prior"]
    p = noise.prior if prior is None and isinstance(noise, HumanLabels) else twin.prior_of(prior, noise.num_classes)
    close(result, sum(p[i] * (1 - noise.transition[i, i]) for i in range(noise.num_classes)), 1e-9)


# ---- labels of people


def human() -> HumanLabels:
    return HumanLabels.from_columns(CLEAN, HUMAN, num_classes=3, name="worse")


def make_human(draw: np.random.Generator) -> dict[str, Any]:
    convert = pick(draw, np.asarray, torch.as_tensor, list)
    return {"clean": convert(CLEAN), "human": convert(HUMAN), "num_classes": 3, "name": "worse"}


def column_of(values: Any, classes: int) -> list[int]:
    column = ints(values, 1).tolist()
    confirm(all(0 <= value < classes for value in column), "a label outside")
    return column


def digest(column: list[int]) -> str:
    return hashlib.sha256(b"".join(value.to_bytes(8, "little") for value in column)).hexdigest()


def check_human(given: dict[str, Any], noise: Any) -> None:
    classes = whole(given["num_classes"], 2, 2**14)
    clean, people = column_of(given["clean"], classes), column_of(given["human"], classes)
    confirm(len(clean) == len(people) and set(clean) == set(range(classes)), "columns")
    counts = tuple(
        tuple(sum((a, b) == (i, j) for a, b in zip(clean, people)) for j in range(classes)) for i in range(classes)
    )
    e = sum(a != b for a, b in zip(clean, people)) / len(clean)
    confirm(given["name"], "no name")
    twin.stored(
        noise, name=text(given["name"]), num_classes=classes, counts=counts, clean_sha256=digest(clean),
        human_sha256=digest(people), error_rate=e,
    )  # fmt: skip


def check_human_columns(given: dict[str, Any], result: Any) -> None:
    confirm(column_of(given["clean"], 3) == CLEAN, "other clean labels")
    if "human" in given:
        confirm(column_of(given["human"], 3) == HUMAN, "other human labels")
        same(result[0], HUMAN)
        confirm(result[1].tolist() == [a != b for a, b in zip(CLEAN, HUMAN)], "mask")


def check_as_flips(given: dict[str, Any], noise: Any) -> None:
    check_matrix_fields({**given, "transition": human().transition}, noise)


# ---- matrices and maps


def make_matrix(draw: np.random.Generator) -> Any:
    return pick(
        draw, T, np.array(T), np.array(T, dtype=np.float32), torch.tensor(T, dtype=torch.float64), np.eye(2, dtype=int)
    )


def method(name: str) -> Any:
    return lambda _noise, **given: getattr(_noise, name)(**given)


def of_people(name: str) -> Any:
    return lambda **given: getattr(human(), name)(**given)


def make_drawn(draw: np.random.Generator) -> dict[str, Any]:
    return {"transition": make_matrix(draw), "seed": 3, "redraw": "epoch"}


def make_clean(draw: np.random.Generator, *names: str) -> dict[str, Any]:
    return {name: value for name, value in make_human(draw).items() if name in ("clean", *names)}


def check_map(given: dict[str, Any], result: Any) -> None:
    confirm(result == pairs_of(given["mapping"], whole(given["num_classes"], 2)), "pairs")


SAMPLES = ("sample_id", "sample ids", "sample")
WORDS = {
    "labels": ("label",), "batch": ("label", "labels", "column", *SAMPLES), "indices": SAMPLES, "sample": SAMPLES,
    "ratio": ("amount of noise", "error_rate"), "error_rate": ("amount of noise",), "num_classes": ("classes", "class"),
    "clean": ("true labels", "clean labels", "class", "the data"),
    "human": ("human labels", "human ones", "human column"),
    "transition": ("transition matrix", "T"),
}  # fmt: skip

TARGETS = [
    Target("noise.LabelFlips", lambda _kind, **given: getattr(LabelFlips, _kind)(**given), flip_fields,
           check_flip_fields, WORDS,
           weight=2),
    Target("noise.LabelFlips.pairs", lambda _kind, **given: LabelFlips.pairs(**given), make_pairs, check_pairs, WORDS,
           weight=2),
    Target("noise.LabelFlips.named", LabelFlips.named, make_named, check_named,
           {**WORDS, "protocol": ("kind", "matrix", "mapping"), "matrix": ("transition matrix", "T"),
            "known": ("mapping",)}),
    Target("noise.LabelFlips.from_transition", LabelFlips.from_transition, make_drawn, check_matrix_fields, WORDS,
           weight=2),
    Target("noise.LabelFlips.__call__", method("__call__"), make_labels, check_labels, WORDS, weight=3),
    Target("noise.labels_torch.flip", lambda _noise, **given: flip(_noise, **given),
           lambda draw: as_tensors(make_labels(draw)),
           check_label_tensors, WORDS),
    Target("noise.LabelFlips.columns", method("columns"), make_columns, check_columns, WORDS, weight=2),
    Target("noise.LabelFlips.posterior", method("posterior"), make_conditional, check_posterior),
    Target("noise.LabelFlips.overall_error_rate", method("overall_error_rate"), make_conditional, check_overall),
    Target("noise.HumanLabels.from_columns", HumanLabels.from_columns, make_human, check_human, WORDS, weight=2),
    Target("noise.HumanLabels.check", of_people("check"), make_clean, check_human_columns, WORDS),
    Target("noise.HumanLabels.columns", of_people("columns"), lambda draw: make_clean(draw, "human"),
           check_human_columns, WORDS),
    Target("noise.HumanLabels.as_flips", of_people("as_flips"), lambda draw: {"seed": 1, "redraw": "never"},
           check_as_flips),
    Target("noise.transition.check_transition", check_transition, lambda draw: {"transition": make_matrix(draw)},
           lambda given, result: close(result, twin.matrix_of(given["transition"]), 1e-9), WORDS),
    Target("noise.transition.check_prior", check_prior, lambda draw: {"prior": pick(draw, None, [0.25, 0.75]),
           "num_classes": 2},
           lambda given, result: close(result, twin.prior_of(given["prior"], whole(given["num_classes"], 1))), WORDS),
    Target("noise.transition.posterior", posterior, lambda draw: {"transition": T,
           "prior": pick(draw, None, [0.2, 0.3, 0.5])},
           check_posterior, WORDS),
    Target("noise.label_maps.check_label_map", check_label_map,
           lambda draw: {"mapping": make_pairs(draw)["mapping"], "num_classes": 3}, check_map, WORDS),
]  # fmt: skip
