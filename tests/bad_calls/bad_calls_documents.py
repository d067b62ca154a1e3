"""Bad settings for `load_dataset("hf_noise/docs-noisy")` with documents of noise: the rows that they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bad_places as places
import bad_twins as twin
import numpy as np
from bad_calls import Target
from bad_calls_data import COLUMNS, WORDS, check_columns, documents_of, first_id, load, some
from bad_readers import confirm, number, text, whole
from bad_values import pick

from hf_noise.noise import GaussianDocuments, Noise, RandomDocuments

KINDS = {
    "random-documents": (RandomDocuments, {}), "boosted-documents": (RandomDocuments, {"boost": "random"}),
    "low-documents": (RandomDocuments, {"boost": "low"}), "gaussian-documents": (GaussianDocuments, {}),
}  # fmt: skip


def call(draw: np.random.Generator) -> dict[str, Any]:
    places.texts()  # which puts the text in memory that is one of the sources
    protocol = pick(draw, *KINDS)
    own = {"n_boost": 3} if KINDS[protocol][1] else {}
    own |= pick(draw, {}, {"boost_mass": 0.5}) if own else {}
    own |= {"mean": 4.0, "std": pick(draw, 1.0, 1)} if protocol.startswith("gaussian") else {}
    replace = {"placement": "replace"}
    own |= pick(draw, {}, {"placement": "append"}, {"placement": "interleave"}, replace, {"exclude": 2, **replace})
    given = {
        "source": pick(draw, str(places.FOLDER / "lines.jsonl"), str(places.FOLDER / "both"), places.MEMORY["text"]),
        "_streaming": bool(draw.random() < 0.3), "protocol": protocol, "alpha": pick(draw, 0.3, 0.5, 0),
        "protocol_kwargs": own or None, "block_size": pick(draw, 6, 8), "tokenizer": places.tokenizer(),
        "seed": pick(draw, 3, 2**63 - 1), "epoch": pick(draw, 0, 2), "validation_fraction": 0,
    }  # fmt: skip
    always = ("source", "protocol", "alpha", "protocol_kwargs", "block_size", "tokenizer", "validation_fraction")
    return some(draw, given, always)


def load_documents(**given: Any) -> dict[str, Any]:
    if given["source"] is None or given["tokenizer"] is None:  # what stands for the defaults has tests of its own
        given |= {"source": str(places.FOLDER / "lines.jsonl"), "tokenizer": places.tokenizer()}
    return load("docs-noisy", [*COLUMNS, "clean_input_ids", "noise_share"], **given)


def noise_of(given: Mapping[str, Any]) -> Noise:
    """The noise, by the constructor: that has targets of its own."""
    cls, preset = KINDS[text(given["protocol"]).replace("_", "-")]
    own = {} if given.get("protocol_kwargs") is None else dict(given["protocol_kwargs"])
    confirm(not set(own) & {"alpha", "seed", "vocab_size", *preset}, "said twice")
    confirm(own.get("placement", "append") in ("append", "interleave", "replace"), "placement")
    confirm(0 <= number(given["alpha"]) < 1, "alpha")
    seed = whole(given.get("seed", 0), *twin.SEED)
    return cls(**{
        "alpha": float(given["alpha"]), "vocab_size": places.VOCABULARY, "seed": seed, "exclude": 0, **preset, **own
    })  # fmt: skip


def mixture(noise: Noise, documents: list[str], size: int, first: int) -> tuple[list, list, list]:
    """Rows, ids and marks of a text with its noise, one token after another."""
    texts = [places.ids_of([document]) for document in documents]
    total = sum(map(len, texts))
    rows = max(n for n in range(200) if n * size - round(noise.alpha * n * size) <= total)
    noisy = round(noise.alpha * rows * size)
    stream, kept, placed = [], rows * size - noisy, 0
    left = kept
    for text_ids in texts:
        is_whole = left >= len(text_ids)
        stream, left = stream + text_ids[:left], left - min(left, len(text_ids))
        worth = (noise.ratio * (kept - left) - 1 / (1 - noise.alpha)) / size
        while noise.placement == "interleave" and is_whole and placed + 1 + noise.jitter(first + placed) <= worth:
            stream, placed = stream + [None] * size, placed + 1
    stream += [None] * (noisy - placed * size)
    cut = [stream[i * size : (i + 1) * size] for i in range(rows)]
    marks = [[int(token is None) for token in row] for row in cut]
    if noise.placement == "append":
        n_text = sum(not any(mark) for mark in marks)
        sample = [first + i if i < n_text else first + (1 << 40) + i - n_text for i in range(rows)]
    else:
        sample = [first + i for i in range(rows)]
    drawn = [twin.document(noise, number, size) for number in sample]
    made = [[new if token is None else token for token, new in zip(row, other)] for row, other in zip(cut, drawn)]
    return made, sample, marks


def check(given: dict[str, Any], result: dict[str, Any]) -> None:
    if given["source"] is None or given["tokenizer"] is None:
        given = {**given, "source": str(places.FOLDER / "lines.jsonl"), "tokenizer": places.tokenizer()}
    tokenizer = given["tokenizer"]
    confirm(tokenizer is places.tokenizer() or str(tokenizer) == places.TOKENIZER, "words")
    confirm(not isinstance(tokenizer, bytes | list), "words")
    whole(given.get("epoch", 0), 0, 2**63 - 1)
    noise, size = noise_of(given), whole(given["block_size"], 2)
    documents = documents_of({"_builder": "docs-noisy", **given})
    confirm(set(result) == {*documents, "noise"}, "splits")
    told = {name: value for name, value in noise.to_dict().items() if value is not None}
    confirm({name: result["noise"][name] for name in told} == told, f"noise is said to be {result['noise']}")
    for split, part in documents.items():
        ids = places.ids_of(part)
        rows = [ids[i : i + size] for i in range(0, len(ids) - size + 1, size)]
        confirm(rows or given.get("_streaming"), "an empty split")
        sample, marks, clean = [first_id(split) + i for i in range(len(rows))], [False] * len(rows), rows
        if split == "train" and noise.placement == "replace":
            marks = [twin.is_replaced(noise, number) for number in sample]
            rows = [
                twin.document(noise, number, size) if mark else row for number, mark, row in zip(sample, marks, rows)
            ]  # fmt: skip
        elif noise.placement != "replace":
            mixed = noise if split == "train" else noise.without_noise()
            rows, sample, marks = mixture(mixed, part, size, first_id(split))
            confirm(mixed.alpha == 0 or any(map(any, marks)), "no token of noise")
        if not rows:
            continue
        expected = {"input_ids": rows, "labels": rows, "sample_id": sample}
        expected["is_noisy"] = [[int(mark)] * size if isinstance(mark, bool) else mark for mark in marks]
        if noise.placement != "replace":
            expected["noise_share"] = np.mean(marks, axis=1, dtype=np.float32)
        else:
            expected |= {"clean_input_ids": clean, "clean_labels": clean}
        check_columns(result[split], **expected)


TARGETS = [
    Target("data.load_dataset.documents", load_documents, call, check,
           {**WORDS, "alpha": ("share", "how much noise"), "protocol": ("alpha", "how much noise", "r", "setting"),
            "protocol_kwargs": ("setting", "n_boost", "boost_mass", "placement", "mean", "std", "exclude", "boost")}),
]  # fmt: skip
