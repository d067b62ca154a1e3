"""What the page of a report is made of, as its template takes it: the picture, tables, claims, studies."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import mean
from typing import Any

from hf_noise.reports.tables import seeds_told
from hf_noise.reports.verdicts import KINDS, kind_of
from hf_noise.studies.report.cells import Found
from hf_noise.studies.report.efforts import effort
from hf_noise.studies.report.families import Curve, Seeds, common
from hf_noise.studies.report.judged import chip, measured_on
from hf_noise.studies.report.picture import percent
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.report.tables import told, told_gap
from hf_noise.studies.reproduce.board import in_words
from hf_noise.studies.reproduce.naming import few
from hf_noise.studies.reproduce.report import tally
from hf_noise.studies.reproduce.rows import claims_asked

__all__ = ["chart", "claims", "claims_of", "families", "studies", "tables", "tiles"]

#: Libraries whose versions are told of each study.
_LIBRARIES = ("python", "torch", "transformers", "datasets", "diffusers", "scikit-learn")
_BARS = (-20, 120)  # percent: as far as the picture follows an interval
_NAMED = 12  # records of a figure or claim, where it is pointed at
_SHORT = 14  # lines of a table that is shown without being asked for


def chart(curves: Sequence[Curve]) -> dict[str, Any]:
    """The picture that compares, in percent of its width and height: lines, marks with what they say, and ticks."""
    costs = [found for one in curves for of in (one.plain, one.cured) for _, found in one.costs(of)]
    # The end of an interval of few seeds may be far off, and would make the rest flat.
    ends = [min(max(end, _BARS[0]), _BARS[1]) for found in costs for end in found.interval or ()]
    every = [*(found.mean for found in costs), *(max(one.of_paper().values(), default=0) for one in curves), *ends]
    low, high = min(0.0, *every), 10 * math.ceil(max(10.0, *every) / 10)
    low = -5 * math.ceil(-low / 5)  # a bar that goes on beyond the picture ends there
    right = max(one.worst for one in curves)

    def place(rate: float, cost: float) -> dict[str, float]:
        return {"x": round(100 * rate / right, 2), "y": round(100 * (high - cost) / (high - low), 2)}

    lines, marks, bars, seen = [], [], [], Counter()
    for one in curves:
        name = one.family.name
        shape = ("circle", "square")[seen[name] % 2]
        seen[name] += 1
        for of, is_cured in ((one.plain, False), (one.cured, True)):
            points = [(0.0, 0.0), *((rate, found.mean) for rate, found in one.costs(of))]
            lines += [{"a": place(*a), "b": place(*b), "name": name, "is_cured": is_cured} for a, b in pairwise(points)]
            marks += [place(rate, cost) | {"name": name, "shape": shape, "is_cured": is_cured,
                                           "says": _says(one, rate, cost, of[rate], is_cured)}
                      for rate, cost in points[1:]]  # fmt: skip
            bars += [{"a": place(rate, max(low, found.interval[0])), "b": place(rate, min(high, found.interval[1])),
                      "name": name} for rate, found in one.costs(of) if found.interval]  # fmt: skip
        if of_paper := one.of_paper():
            rate, table = max(of_paper), one.setting.paper[0]
            says = f"{one.title}, {table} of the paper at e = {rate:.2g}: {percent(of_paper[rate])} worse"
            marks.append(place(rate, of_paper[rate]) | {"name": name, "shape": "paper", "is_cured": False, "says": says,
                                                       "beside": 5 + 6 * (seen[name] - 1)})  # fmt: skip
    step = 10 if high <= 80 else 20 * math.ceil(high / 100)
    ticks = [place(0, value) | {"text": f"{value} %"} for value in range(0, int(high) + 1, step)]
    rates = [place(0.1 * i, 0) | {"text": f"{0.1 * i:.1f}"} for i in range(math.floor(10 * right + 0.01) + 1)]
    return {"lines": lines, "marks": marks, "bars": bars, "ticks": ticks, "rates": rates, "zero": place(0, 0)["y"],
            "says": "; ".join(_short(one) for one in curves)}  # fmt: skip


def _says(curve: Curve, rate: float, cost: float, figures: Seeds, is_cured: bool) -> str:
    what = f" with {curve.family.cure}" if is_cured else ""
    beside = common(curve.clean, figures)[0]
    value, clean = (mean(one.value for one in of.values()) for of in (figures, beside))
    digits, unit = curve.family.digits, curve.family.unit
    return (f"{curve.title}{what}, e = {rate:.2g}: {percent(cost)} worse, {curve.family.label} {value:.{digits}f} "
            f"beside {clean:.{digits}f} {unit}; {_places(figures, beside)}")  # fmt: skip


def _short(curve: Curve) -> str:
    parts = [percent(costs[-1][1].mean) + says for says, of in (("", curve.plain), (" with the cure", curve.cured))
             if (costs := curve.costs(of))]  # fmt: skip
    return f"{curve.title} {', '.join(parts)}"


def _places(*of: Seeds) -> str:
    return ", ".join(one.place for figures in of for one in figures.values())


def families(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """A row for each line of the picture, at its largest error rate; each figure with its records."""
    rows, seen = [], Counter()
    for one in curves:
        sets = clean, _, plain, cured = one.at_worst
        gap_of, trained = _places(*one.gap), effort(one)
        seeds = seeds_told(len(of) for of in sets if of)
        n = sorted({figure.n for of in sets for figure in of.values()})
        rows.append({
            "title": one.title, "name": one.family.name, "shape": ("circle", "square")[seen[one.family.name] % 2],
            "metric": f"{one.family.label}, {one.family.unit}", "worst": f"{one.worst:.2g}",
            "figures": [{"told": told(one, of), "of": _places(of)} for of in sets],
            "costs": [{"told": percent(one.cost(of).mean) if of else "-", "of": _places(of, clean) if of else ""}
                      for of in (plain, cured)],
            "gap": {"told": told_gap(one), "of": gap_of}, "cure": one.family.cure, "study": one.study, "seeds": seeds,
            "differs": one.differs, "clean": f"{trained.clean:.2g}", "trained": trained.told,
            "n": " to ".join(f"{value:,}" for value in dict.fromkeys((n[0], n[-1]))),
        })  # fmt: skip
        seen[one.family.name] += 1
    return rows


def tiles(found: Sequence[Found]) -> dict[str, int]:
    """How many claims were asked, how many were decided, and how they came out."""
    total = sum((tally(one.outcome) for one in found), Counter())
    asked = sum(total[kind] for kind in KINDS)
    decided = {"decided": total["held"] + total["not held"], "computed": total["computed"]}
    return {"asked": asked, **decided, **{kind: total[kind] for kind in KINDS},
            "of one seed": total["one"], "of a part": total["part"], "by reading": total["reading"]}  # fmt: skip


def claims(found: Sequence[Found]) -> dict[str, list[dict[str, Any]]]:
    """Claims by what they came to."""
    by: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    on = measured_on([one.outcome for one in found])
    for one in found:
        for claim in claims_of(one, on):
            by[claim["kind"]].append(claim)
    return by


def claims_of(found: Found, on: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """The claims of a table, by `measured_on` with what they were measured on, here and `elsewhere`."""
    told = []
    for claim in claims_asked(found.table, found.outcome.scale):
        verdict = found.outcome.verdicts[claim.id]
        told.append({
            "id": claim.id, "table": found.table.id, "says": claim.says, "word": verdict.word,
            "kind": kind_of(verdict.word), "statistic": verdict.statistic, "in_print": claim.holds,
            "of": few(found.places, _NAMED), "chip": f"{claim.id.rpartition('.')[2]} {chip(verdict)}",
            "measured_on": "; ".join(on[claim.id]),
            "elsewhere": "; ".join(says for says in on[claim.id] if says not in found.outcome.stand_in),
        })  # fmt: skip
    return told


def tables(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Each table with its figures, what stands in for the paper's data, and its claims."""
    on = measured_on([one.outcome for one in found])
    return [
        {"id": one.table.id, "title": one.table.title, "key": one.table.key.replace("_", " "),
         "stand_in": [*one.outcome.stand_in], "missing": [*one.missing], "left_out": [*one.left_out],
         "claims": claims_of(one, on),
         "is_short": len(one.cells) <= _SHORT, "is_measured": any(cell.values for cell in one.cells),
         "cells": [{"cell": cell, "of": few(cell.places, _NAMED), "study": _study(cell.places)} for cell in one.cells]}
        for one in found if one.cells or one.outcome.verdicts or one.missing or one.left_out
    ]  # fmt: skip


def _study(places: Sequence[str]) -> str:
    """The folder that all places are in; empty if there are several, or none."""
    found = {place.rpartition("/")[0] for place in places}
    return found.pop() if len(found) == 1 else ""


def studies(stored: Stored) -> list[dict[str, Any]]:
    """Each folder of records: how many runs of what, how long they took, on what, with which versions."""
    by: dict[str, list[Mapping[str, Any]]] = {}
    names: dict[str, list[str]] = {}
    for place, one in stored.told:
        study, _, name = place.rpartition("/")
        by.setdefault(study, []).append(one)
        names.setdefault(study, []).append(name)
    found = []
    for name, runs in sorted(by.items()):
        seeds = {one["seed"] for one in runs}
        found.append({
            "name": name, "names": names[name], "runs": len(runs), "seeds": len(seeds),
            "recipe": _told({one["recipe"] for one in runs}),
            "data": _told({_source(one["data"]) for one in runs}), "model": _told({_model(one) for one in runs}),
            "seconds": in_words(sum(one["wall_seconds"] for one in runs)),
            "on": _told({_hardware(one["hardware"]) for one in runs}),
            "commands": [*dict.fromkeys(_command(one["command"]) for one in runs)],
            "versions": ", ".join(f"{lib} {_told({one['versions'][lib] for one in runs if lib in one['versions']})}"
                                  for lib in _LIBRARIES if any(lib in one["versions"] for one in runs)),
            "created": max(one["created"] for one in runs)[:10],
        })  # fmt: skip
    return found


def _told(values: Iterable[str]) -> str:
    return few(sorted(values))


def _source(data: Mapping[str, Any]) -> str:
    source = data.get("source", data.get("builder", "-"))
    return ", ".join(map(str, source)) if isinstance(source, list) else str(source)


def _model(record: Mapping[str, Any]) -> str:
    return str(record["model"].get("name", record["model"].get("head", record["task"])))


def _hardware(told: Mapping[str, Any]) -> str:
    return " ".join(told["gpus"]) if told.get("gpus") else f"{told.get('cores', '?')} cores"


def _command(command: str) -> str:
    """A command without the folder that it wrote to, so that runs of one study are told once."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    if "--output" in words[:-1]:
        at = words.index("--output")
        words = words[:at] + words[at + 2 :]
    return shlex.join(words)
