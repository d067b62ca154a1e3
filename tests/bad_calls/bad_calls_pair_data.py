"""Bad settings for `load_dataset("hf_noise/noisy", columns=...)` of pairs: the rows that they ask for, or an error."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import bad_places as places
import bad_twins as twin
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from bad_calls import Target
from bad_calls_data import WORDS, as_named, load, rate, rates_of, some
from bad_calls_pairs import LONGEST, WRITTEN, columns, loaded, teacher_folder
from bad_calls_teacher import STREAM, WORDS_END
from bad_readers import close, confirm, flag, same, text, whole
from bad_values import pick

import hf_noise.data.builders.noisy  # noqa: F401  (whose import would be the time of the first call)
from hf_noise.data.teacher_files import teacher_of
from hf_noise.noise import Decoding, NoisyTeacher

NAMES = ["source", "target", "clean_target", "is_noisy", "sample_id"]
DECODING = {"method": "greedy", "max_new_tokens": WRITTEN}
SUBSET = 7


@functools.cache
def rows() -> tuple[str, dict[str, list[str]]]:
    """A file of twelve pairs that the teacher has positions for, and what is in it."""
    given, draw = {"source": [], "target": []}, np.random.default_rng(0)
    while len(given["source"]) < 12:
        found = columns(draw, 1)
        if all(len(loaded().tokenizer(one[0]).input_ids) <= LONGEST for one in found.values()):
            given = {name: [*given[name], *found[name]] for name in given}
    pq.write_table(pa.table(given), places.FOLDER / "pairs.parquet")
    return str(places.FOLDER / "pairs.parquet"), given


@functools.cache
def written() -> list[str]:
    """Greedy, row after row."""
    found = []
    for source in rows()[1]["source"]:
        with torch.no_grad():
            tokens = loaded().tokenizer(source, return_tensors="pt").input_ids
            made = loaded().model.generate(tokens, max_new_tokens=WRITTEN, do_sample=False)
        found.append(loaded().tokenizer.decode(made[0], skip_special_tokens=True))
    return found


def call(draw: np.random.Generator) -> dict[str, Any]:
    given = {
        "source": rows()[0], "columns": pick(draw, ("source", "target"), ["source", "target"]),
        "seed": pick(draw, 3, 0), "teacher": teacher_folder(), "decoding": DECODING, "exact": bool(draw.integers(2)),
        "with_nll": False, "max_pairs": pick(draw, None, 7), "subset_seed": pick(draw, 0, 5), "truncate": False,
        "epoch": 0, "tokens_per_batch": pick(draw, 1, 90), "max_source_tokens": None, "_streaming": False,
    } | rate(draw)  # fmt: skip
    return some(draw, given, ("source", "columns", "teacher", "decoding", "r", "error_rate", "name"))


def kept(given: dict[str, Any]) -> list[int]:
    """Ids of the rows that are taken: those with the smallest words, in their order."""
    ids, most = list(range(12)), given.get("max_pairs")
    key = twin.key_of(whole(given.get("subset_seed", 0), *twin.SEED), SUBSET, 0)
    if most is None or whole(most, 1, 2**28) >= 12:
        return ids
    return sorted(sorted(ids, key=lambda one: twin.word_at(key, one))[:most])


def check(given: dict[str, Any], result: dict[str, Any]) -> None:
    given = as_named(given)
    source = given["source"][0] if isinstance(given["source"], list | tuple) else given["source"]
    confirm(str(source) == rows()[0] and not isinstance(source, bytes), "source")
    confirm(isinstance(given["columns"], list | tuple) and list(given["columns"]) == ["source", "target"], "columns")
    for name in ("exact", "with_nll", "truncate"):
        flag(given.get(name, False))
    confirm(given.get("epoch", 0) == 0, "epoch")
    whole(given.get("tokens_per_batch", 90), 1, 2**40)
    limit = given.get("max_source_tokens")
    confirm(limit is None or whole(limit, 1, 2**31), "limit")
    (_, e), ids, seed = rates_of(given), kept(given), whole(given.get("seed", 0), *twin.SEED)
    confirm(e == 0 or text(str(given["teacher"]), teacher_folder()), "teacher")
    words = [twin.word_at(twin.key_of(seed, STREAM, 0), one) >> 2 for one in ids]
    cut = round(e * 2**32) << 30
    if given.get("exact", True):
        cut = [*sorted(words), WORDS_END][round(e * len(ids))]
    marks, clean = [word < cut for word in words], [rows()[1]["target"][one] for one in ids]
    noisy = [written()[one] if mark else old for one, mark, old in zip(ids, marks, clean)]
    found = result["train"]
    same(found["sample_id"].tolist(), ids)
    for name, expected in (("source", [rows()[1]["source"][one] for one in ids]), ("clean_target", clean),
                           ("is_noisy", marks)):  # fmt: skip
        confirm(found[name].tolist() == expected, name)
    limited = limit is not None and limit < LONGEST and flag(given.get("truncate", False))
    confirm(limited or given["decoding"] != DECODING or found["target"].tolist() == noisy, "targets")
    confirm(set(result) == {"train", "noise"}, "splits")
    stated = result["noise"]
    if e == 0:  # clean rows are built once, whatever the seed
        same([stated["ratio"], stated["error_rate"], stated["cut"], stated["version"]], [0, 0, 0, 1])
        confirm(stated["teacher"] is stated["num_rows"] is None and stated["protocol"] == "noisy_teacher", "noise")
        return
    teacher = teacher_of(str(given["teacher"]), Decoding(**given["decoding"]) if isinstance(given["decoding"], Mapping)
                         else given["decoding"] if isinstance(given["decoding"], Decoding)
                         else Decoding(method=given["decoding"]))  # fmt: skip
    noise = NoisyTeacher(error_rate=stated["error_rate"], teacher=teacher, seed=seed)
    expected = (noise.exactly(ids) if given.get("exact", True) else noise).to_dict()
    close([stated["error_rate"], stated["ratio"]], [e, e / (1 - e)], 1e-9)
    confirm(stated | {"ratio": 0} == expected | {"ratio": 0}, f"noise is {stated}, not {expected}")


TARGETS = [
    Target("data.load_dataset.pairs", functools.partial(load, "noisy", NAMES), call, check, {
        **WORDS, "teacher": ("teacher", "network"), "columns": ("columns", "column"), "max_source_tokens": ("source",),
        "decoding": ("method", "temperature", "num_beams", "max_new_tokens", "decoding"),
    }),
]  # fmt: skip
