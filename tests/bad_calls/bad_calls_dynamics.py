"""Bad calls to the scores of training dynamics, and to the reader of their folder."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bad_calls import Target
from bad_calls_metrics import converted
from bad_readers import close, confirm, ints, reals, same
from bad_values import pick

from hf_noise import audit
from hf_noise.trainers.dynamics import DynamicsCallback
from hf_noise.trainers.dynamics_files import Part, write_part

EPOCHS, SAMPLES = 4, 5


def make_margin(draw: np.random.Generator) -> dict[str, Any]:
    margin = draw.normal(size=(EPOCHS, SAMPLES)).astype(pick(draw, "float32", "float64"))
    margin[draw.random(margin.shape) < 0.2] = math.nan
    return {"margin": converted(draw, margin), "epochs": pick(draw, None, [1, 2], slice(1, 3), np.array([0, 3]))}


def make_loss(draw: np.random.Generator) -> dict[str, Any]:
    made = make_margin(draw)
    return {"loss": converted(draw, draw.exponential(size=(EPOCHS, SAMPLES))), "epochs": made["epochs"]}


def columns_of(values: Any, epochs: Any) -> list[list[float]]:
    """Of each sample what was seen of it in the chosen epochs, one after the other."""
    found = reals(values, 2)
    confirm(len(found), "no epochs")
    if isinstance(epochs, slice):
        places = list(range(len(found))[epochs])
    else:
        places = list(range(len(found))) if epochs is None else [int(one) for one in ints(epochs, 1)]
    confirm(places and len({*places}) == len(places) and all(0 <= one < len(found) for one in places), "epochs")
    return [[float(found[e, j]) for e in places if not math.isnan(found[e, j])] for j in range(found.shape[1])]


def mean(seen: list[float]) -> float:
    return sum(seen) / len(seen) if seen else math.nan


def events(seen: list[float]) -> float:
    if not seen:
        return math.nan
    return sum(a > 0 >= b for a, b in zip(seen, seen[1:])) if max(seen) > 0 else math.inf


def sigmoid(x: float) -> float:
    return math.nan if math.isnan(x) else 1 / (1 + math.exp(x)) if x < 700 else 0.0


def check_aum(given: dict[str, Any], result: Any) -> None:
    close(result, [mean(one) for one in columns_of(given["margin"], given["epochs"])], 1e-5)


def check_aum_score(given: dict[str, Any], result: Any) -> None:
    close(result, [sigmoid(mean(one)) for one in columns_of(given["margin"], given["epochs"])], 1e-5)


def check_events(given: dict[str, Any], result: Any) -> None:
    close(result, [events(one) for one in columns_of(given["margin"], given["epochs"])], 0)


def check_forgetting(given: dict[str, Any], result: Any) -> None:
    found = [events(one) for one in columns_of(given["margin"], given["epochs"])]
    close(result, [1.0 if one == math.inf else one / (1 + one) for one in found], 1e-9)


def losses(given: dict[str, Any]) -> list[float]:
    columns = columns_of(given["loss"], given["epochs"])
    confirm(not any(one < 0 for seen in columns_of(given["loss"], None) for one in seen), "below 0")
    return [mean(one) for one in columns]


def check_loss(given: dict[str, Any], result: Any) -> None:
    close(result, losses(given), 1e-5)


def check_small_loss(given: dict[str, Any], result: Any) -> None:
    close(result, [1 - math.exp(-one) for one in losses(given)], 1e-5)


# ---- the folder

_FOLDER = tempfile.TemporaryDirectory()
IDS = [9, 4, 7]


def folder_of() -> Path:
    folder = Path(_FOLDER.name) / "record"
    if not folder.is_dir():
        folder.mkdir()
        names = ("step", "label", "loss", "margin", "p_given")
        write_part(folder, Part(0, 0, 2, 0, 1), {name: np.zeros(3) for name in names} | {"sample_id": np.array(IDS)})
    return folder


def make_read(draw: np.random.Generator) -> dict[str, Any]:
    folder = folder_of()
    return {"folder": pick(draw, folder, str(folder)),
            "sample_ids": pick(draw, None, [4, 7, 9], np.array([9, 4, 7, 11]))}  # fmt: skip


def check_read(given: dict[str, Any], result: Any) -> None:
    confirm(isinstance(given["folder"], str | os.PathLike) and Path(given["folder"]) == folder_of(), "another folder")
    ids = sorted(IDS) if given["sample_ids"] is None else [int(one) for one in ints(given["sample_ids"], 1)]
    confirm(len({*ids}) == len(ids) and {*IDS} <= {*ids}, "ids")
    seen = [one in IDS for one in ids]
    same(result.sample_ids, ids, "ids")
    same(result.epochs, [0], "epochs")
    same(result.labels, [[0 if one else -1 for one in seen]], "labels")
    for values in (result.loss, result.margin, result.p_given):
        same(values, [[0.0 if one else math.nan for one in seen]], "values")
    confirm(result.never_seen.tolist() == [one for one in ids if one not in IDS], "never seen")


def make_callback(draw: np.random.Generator) -> dict[str, Any]:
    return {"folder": pick(draw, folder_of(), str(folder_of()))}


def check_callback(given: dict[str, Any], result: Any) -> None:
    confirm(isinstance(given["folder"], str | os.PathLike) and str(given["folder"]), "no path")
    confirm(result == str(Path(given["folder"])), "another folder")


WORDS = {"folder": ("path", "training dynamics"), "sample_ids": ("sample_ids", "ids")}

TARGETS = [
    Target("audit.area_under_margin", audit.area_under_margin, make_margin, check_aum),
    Target("audit.aum_score", audit.aum_score, make_margin, check_aum_score),
    Target("audit.forgetting_events", audit.forgetting_events, make_margin, check_events),
    Target("audit.forgetting_score", audit.forgetting_score, make_margin, check_forgetting),
    Target("audit.mean_loss", audit.mean_loss, make_loss, check_loss),
    Target("audit.small_loss_score", audit.small_loss_score, make_loss, check_small_loss),
    Target("audit.read_dynamics", audit.read_dynamics, make_read, check_read, WORDS),
    Target("trainers.DynamicsCallback", lambda folder: str(DynamicsCallback(folder).folder), make_callback,
           check_callback),
]  # fmt: skip
