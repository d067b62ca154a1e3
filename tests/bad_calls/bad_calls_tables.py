"""Bad records for the tables of studies: a table whose figures are those of the records, or an error that names one."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from statistics import mean
from typing import Any

import numpy as np
from bad_calls import Target
from bad_readers import confirm, number, text
from bad_values import SCALARS, pick
from scipy.stats import t

from hf_noise.noise import LabelFlips, UniformTokens
from hf_noise.reports.record import RunRecord
from hf_noise.studies.classifier.report import accuracy_table, curves, label_table
from hf_noise.studies.diffusion.report import consistency_table, generation_table
from hf_noise.studies.evaluation.report import evaluation_table
from hf_noise.studies.language.report import methods_table, runs_table

OF_LABELS, OF_TOKENS, OF_IMAGES, OF_SETS = (
    "image_classification", "causal_lm", "class_conditional_generation", "generation_evaluation"
)  # fmt: skip


def share(value: float) -> dict[str, Any]:
    return {"value": value, "low": max(value - 0.1, 0), "high": min(value + 0.1, 1), "n": 500}


@functools.cache
def record(task: str, ratio: float, loss: str, seed: int, value: float) -> RunRecord:
    flips = LabelFlips.symmetric(ratio=ratio, num_classes=10, allow_adversarial=True)
    noise = UniformTokens(ratio=ratio, vocab_size=9) if task == OF_TOKENS else flips
    metrics = {
        OF_LABELS: {
            "test_accuracy": share(value), "test_nll": {"value": 0.5, "n": 100}, "test_ece": {"value": 0.125, "n": 100},
            "marginal_kl": {"value": 0.01, "n": 100, "of_sampling_alone": 4e-4}, "memorised": share(0.02),
            "marginal_tv": {"value": 0.01, "n": 100},
        },
        OF_TOKENS: {
            "validation_nll": {"value": 4 + value, "n": 9}, "train_nll_noisy": {"value": 5.5, "n": 9},
            "validation_nll_posthoc": {"value": 4.1, "n": 9},
        },
        OF_IMAGES: {
            "label_consistency": share(value), "judge_test_accuracy": share(0.95),
            "test_loss": {"value": 0.31, "n": 9}, "frechet_distance": {"value": 2.5, "n": 9, "name": "distance"},
        },
        OF_SETS: {"label_consistency": share(value), "judge_test_accuracy": share(0.95)},
    }[task]  # fmt: skip
    return RunRecord(
        name=f"r{ratio:g}-{loss}-{seed}", task=task, recipe="r", command="", model={}, settings={}, seed=seed, git=None,
        wall_seconds=1.0, versions={}, hardware={}, data={"builder": "hf_noise/cifar10-noisy", "classes": 10},
        noise=noise.to_dict() | {"realised": {"rate": noise.error_rate, "n": 1000}}, metrics=metrics,
        budget={"plan": "steps", "steps": 100, "epochs": 12.5, "batch_size": 32},
        loss={"name": loss, "source": "known" if loss == "corrected" else "none", "error_rate": noise.error_rate},
    )  # fmt: skip


def records(task: str, draw: np.random.Generator) -> list[RunRecord]:
    losses = {OF_IMAGES: ("dsm", "tdsm"), OF_SETS: ("none",)}.get(task, ("nll", "corrected"))
    found = [record(task, 0.0, losses[0], seed, 0.9) for seed in range(int(draw.integers(1, 3)))]
    found += [record(task, ratio, loss, 0, 0.8 - 0.2 * ratio) for ratio in (0.5, 1.0) for loss in losses]
    return [found[i] for i in draw.permutation(len(found))]


def odd_records(task: str) -> list[Callable[[], Any]]:
    """Those of another task, and some of which one entry is missing or another."""
    others = [other for other in (OF_LABELS, OF_TOKENS, OF_IMAGES, OF_SETS) if other != task]
    return [functools.partial(of_another, task, other) for other in others] + [
        functools.partial(without, task, number_) for number_ in range(60)
    ]


def of_another(task: str, other: str) -> list[RunRecord]:
    return [*records(task, np.random.default_rng(0)), record(other, 0.5, "nll", 0, 0.5)]


def without(task: str, seed: int) -> list[RunRecord]:
    """One entry of a record left out, or replaced by what JSON can hold."""
    draw = np.random.default_rng(seed)
    found = records(task, draw)
    at = int(draw.integers(len(found)))
    changed = copy.deepcopy(found[at].to_dict())
    field = pick(draw, "noise", "loss", "budget", "data", "metrics", "metrics")
    within = changed[field]
    if field == "metrics" and draw.random() < 0.7:
        within = within[pick(draw, *sorted(within))]
    key = pick(draw, *sorted(within))
    values = [value() for value in SCALARS]
    values = [value for value in values if value is None or isinstance(value, bool | int | float | str)]
    if draw.random() < 0.4:
        del within[key]
    else:
        within[key] = pick(draw, *values)
    try:
        found[at] = RunRecord.from_dict(changed)
    except ValueError:  # records are checked themselves
        return [dataclasses.replace(found[at], metrics={})]
    return found


# ---- what is shown


def cells(table: Any) -> tuple[list[str], list[list[str]]]:
    lines = text(table).split("\n")
    confirm(all(line.startswith("|") and line.endswith("|") for line in lines), "no table")
    header, _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in lines)
    confirm(all(len(row) == len(header) for row in rows), "cells")
    return header, rows


def fixed(value: Any, digits: int = 3) -> str:
    return "-" if value is None else f"{number(value):.{digits}f}"


def percent(value: Any) -> str:
    confirm(value is None or 0 <= number(value) <= 1, "no share")
    return "-" if value is None else f"{100 * value:.1f}"


def found(given: RunRecord, metric: str, key: str = "value") -> Any:
    return given.metrics[metric][key] if metric in given.metrics else None


def runs(given: Mapping[str, Any], task: str) -> list[RunRecord]:
    confirm(isinstance(given["records"], list | tuple), "no list")
    confirm(all(isinstance(one, RunRecord) for one in given["records"]), "no records")
    for one in given["records"]:
        confirm(task != OF_LABELS or "kind" in one.noise or "name" in one.noise or not one.noise["error_rate"], "noise")
    return list(given["records"])


#: Columns of a table, and the text of a record there; a figure that is missing is an error, but for those of `.get`.
COLUMNS: dict[str, dict[str, Callable[[RunRecord], str]]] = {
    "label_table": {
        "run": lambda run: run.name, "e": lambda run: fixed(run.noise["error_rate"]),
        "wrong labels": lambda run: fixed(run.noise["realised"]["rate"]),
        "epochs": lambda run: fixed(run.budget["epochs"], 1),
        "test accuracy, %": lambda run: percent(run.metrics["test_accuracy"]["value"]),
        "test NLL": lambda run: fixed(run.metrics["test_nll"]["value"]),
        "ECE": lambda run: fixed(run.metrics["test_ece"]["value"]),
        "KL of marginal": lambda run: fixed(run.metrics["marginal_kl"]["value"], 5),
        "TV": lambda run: fixed(run.metrics["marginal_tv"]["value"], 4),
    },
    "runs_table": {
        "run": lambda run: run.name, "r": lambda run: f"{number(run.noise['ratio']):g}",
        "e": lambda run: fixed(run.noise["error_rate"]), "steps": lambda run: str(run.budget["steps"]),
        "batch": lambda run: str(run.budget["batch_size"]),
        "validation NLL, clean": lambda run: fixed(found(run, "validation_nll")),
        "train NLL, noisy": lambda run: fixed(found(run, "train_nll_noisy")),
        "floor -ln(1-e)": lambda run: fixed(-np.log1p(-run.noise["error_rate"])),
    },
    "generation_table": {
        "run": lambda run: run.name, "e": lambda run: fixed(run.noise["error_rate"]),
        "consistency, %": lambda run: percent(run.metrics["label_consistency"]["value"]),
        "judge on real test images, %": lambda run: percent(run.metrics["judge_test_accuracy"]["value"]),
        "loss on test images": lambda run: fixed(run.metrics["test_loss"]["value"], 4),
    },
}  # fmt: skip


def check_runs(name: str, task: str, given: Mapping[str, Any], result: str) -> None:
    """A line for each record, in their order."""
    shown = runs(given, task)
    header, rows = cells(result)
    confirm(len(rows) == len(shown), f"{len(rows)} lines")
    for column, told in COLUMNS[name].items():
        confirm(not shown or column in header, f"no column {column}")
        at = header.index(column) if shown else 0
        expected = [told(one) for one in shown]
        confirm([row[at] for row in rows] == expected, f"{column}: {[row[at] for row in rows]}, not {expected}")


def check_consistency(given: Mapping[str, Any], result: str) -> None:
    """A line for each setting, by its first record, with means over seeds."""
    settings: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for one in runs(given, OF_IMAGES):
        key = fixed(one.noise["error_rate"]), one.loss["name"], str(one.noise.get("kind"))
        settings.setdefault(key, []).append(one.metrics["label_consistency"])
    header, rows = cells(result)
    confirm(len(rows) == len(settings), f"{len(rows)} lines")
    for row, ((rate, loss, _), of) in zip(rows, settings.items()):
        values = [number(told["value"]) for told in of]
        if len(of) > 1 and len({*values}) == 1:
            interval = "-"
        else:
            low, high = (of[0]["low"], of[0]["high"]) if len(of) == 1 else t.interval(
                0.95, len(of) - 1, mean(values), np.std(values, ddof=1) / len(of) ** 0.5
            )  # fmt: skip
            interval = f"{percent(low)} to {percent(high)}"
        wanted = [f"e = {rate}, {str(loss).upper()}", percent(mean(values)), interval]
        confirm(row[:3] == wanted, f"{row[:3]}, not {wanted}")
        confirm("seeds" not in header or row[header.index("seeds")] == str(len(of)), "seeds")


def check_sets(given: Mapping[str, Any], result: str) -> None:
    shown = [one for one in runs(given, OF_SETS) if one.task == OF_SETS]
    header, rows = cells(result)
    wanted = sorted((one.name, percent(one.metrics["label_consistency"]["value"]), fixed(one.noise.get("error_rate")),
                     percent(one.metrics["judge_test_accuracy"]["value"])) for one in shown)  # fmt: skip
    columns = [header.index(name) for name in ("images", "consistency, %", "e", "judge on real test images, %")]
    confirm(sorted(tuple(row[i] for i in columns) for row in rows) == wanted, f"{rows}")
    confirm(all(row[2].replace(",", "").isdigit() for row in rows), "n")


def check_accuracy(given: Mapping[str, Any], result: str) -> None:
    by_rate: dict[tuple[str, tuple[str, str], float], list[float]] = {}
    for one in runs(given, OF_LABELS):
        e = number(one.noise["error_rate"])
        text(one.loss["name"], "nll", "corrected")
        kind = "none" if e == 0 else str(one.noise.get("kind", f"human:{one.noise.get('name')}"))
        line = ("", "") if e == 0 else (one.loss["name"], text(one.budget["plan"]))
        by_rate.setdefault((kind, line, e), []).append(found(one, "test_accuracy"))
    header, rows = cells(result)
    shown = {header[i] for i in range(1, len(header))}
    rates = sorted({rate for _, _, rate in by_rate}) if any(kind != "none" for kind, _, _ in by_rate) else []
    confirm(shown == {f"e = {fixed(rate)}" for rate in rates}, f"columns {header}")
    flat = sorted(cell for row in rows for cell in row[1:] if cell != "-")
    lines = {(kind, loss) for kind, loss, rate in by_rate if kind != "none"}
    clean = [(values, len(lines)) for (kind, _, _), values in by_rate.items() if kind == "none"]
    wanted = [percent(mean(values)) for (kind, _, _), values in by_rate.items() if kind != "none"]
    wanted += [percent(mean(values)) for values, times in clean for _ in range(times)]
    confirm(len(rows) >= len(lines) and flat == sorted(wanted), f"{flat}, not {sorted(wanted)}")


def check_methods(given: Mapping[str, Any], result: str) -> None:
    shown = runs(given, OF_TOKENS)
    header, rows = cells(result)
    values = [header.index(name) for name in ("validation NLL", "seeds")]
    counts = sum(int(row[values[1]]) for row in rows)
    expected = len(shown) + sum("validation_nll_posthoc" in one.metrics for one in shown)
    confirm(counts == expected, f"{counts} figures, not {expected}")
    total = sum(float(row[values[0]]) * int(row[values[1]]) for row in rows)
    wanted = sum(number(one.metrics["validation_nll"]["value"]) for one in shown)
    wanted += sum(number(found(one, "validation_nll_posthoc") or 0) for one in shown)
    confirm(abs(total - wanted) <= 1e-3 * expected + 1e-6 * abs(wanted), f"{total}, not {wanted}")
    for one in shown:
        text(one.loss["name"], "nll", "corrected")
        confirm(0 <= number(one.noise["error_rate"]) < 1 and isinstance(number(one.noise["ratio"]), float), "rates")


def check_curves(given: Mapping[str, Any], result: list[Any]) -> None:
    metric, shown = text(given["metric"]), runs(given, OF_LABELS)
    values = sorted(number(one.metrics[metric]["value"]) for one in shown if one.noise["error_rate"])
    drawn = sorted(value for curve in result for rate, part in curve.points.items() if rate for value in part)
    confirm(np.allclose(drawn, values, rtol=1e-12), f"{drawn}, not {values}")
    clean = sorted(number(one.metrics[metric]["value"]) for one in shown if not one.noise["error_rate"])
    for curve in result:
        confirm(sorted(curve.points.get(0, curve.points.get(0.0, ()))) == clean, "clean runs")
        confirm(text(curve.loss, "nll", "corrected") and curve.protocol and text(curve.plan) is not None, "a curve")
        same = [one for one in shown if one.noise["error_rate"] and str(one.noise.get("kind", "")) == curve.protocol
                and one.loss["name"] == curve.loss and one.budget["plan"] == curve.plan]  # fmt: skip
        confirm(same or curve.protocol.startswith("human"), "a curve of no runs")


def without_other_functions(call: Callable[..., Any], **given: Any) -> Any:
    # What can be called is taken for a function that is right, which these are not.
    return call(**{name: None if value is int or value is math.sqrt else value for name, value in given.items()})


def of_records(name: str, call: Callable[..., Any], task: str, check: Callable[..., None], **more: Any) -> Target:
    def make(draw: np.random.Generator) -> dict[str, Any]:
        return {"records": records(task, draw), **{key: value(draw) for key, value in more.items()}}

    words = {"records": ("record", "RunRecord", "share", "value"), "reference": ("function",), "metric": ("metrics",)}
    known = functools.partial(without_other_functions, call)
    return Target(f"reports.{name}", known, make, check, words, {"records": odd_records(task)})


def of_runs(name: str, call: Callable[..., Any], task: str, **more: Any) -> Target:
    return of_records(name, call, task, functools.partial(check_runs, name, task), **more)


TARGETS = [
    of_runs("label_table", label_table, OF_LABELS), of_runs("runs_table", runs_table, OF_TOKENS),
    of_runs("generation_table", generation_table, OF_IMAGES, reference=lambda draw: None),
    of_records("consistency_table", consistency_table, OF_IMAGES, check_consistency),
    of_records("accuracy_table", accuracy_table, OF_LABELS, check_accuracy),
    of_records("methods_table", methods_table, OF_TOKENS, check_methods),
    of_records("curves", curves, OF_LABELS, check_curves, metric=lambda draw: pick(draw, "test_accuracy", "test_nll")),
    of_records("evaluation_table", evaluation_table, OF_SETS, check_sets, reference=lambda draw: None),
]  # fmt: skip
