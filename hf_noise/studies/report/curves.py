"""The lines of the picture, from records: runs of one study and scale that differ in noise, cure and seed alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from hf_noise.reports.record import RunRecord
from hf_noise.studies.compute import has_more_compute
from hf_noise.studies.report.families import FAMILIES, Curve, Family, Figure, Seeds, Setting, common, is_equal_compute
from hf_noise.studies.report.stored import Stored
from hf_noise.studies.reproduce.alike import of_one_data
from hf_noise.studies.reproduce.cells import family as made_by
from hf_noise.studies.reproduce.naming import few

__all__ = ["curves", "curves_and_rest"]

#: Records of one study with their places.
Placed = Sequence[tuple[str, RunRecord]]
#: Figures by what a run is: its kind, plan of compute, error rate and exposure.
Slots = dict[tuple[str, str, float, float], dict[int, Figure]]

_AUDITED = re.compile(r"the audit of (\S+)")
_BUDGET = {"plan", "sequences", "exposure"}


def curves(stored: Stored, scale: str) -> list[Curve]:
    """The lines of the picture: of each family and setting the usual study, or else the one with most error rates.

    Each is of one set of data, as tables are: see `of_one_data`.

    Args:
        stored: records of a folder.
        scale: of the runs; those of others are left out.
    """
    return curves_and_rest(stored, scale)[0]


def curves_and_rest(stored: Stored, scale: str) -> tuple[list[Curve], list[str]]:
    """As `curves`, with sentences on what was left out as of other data, also where the rest makes no line."""
    found, rest = [], []
    for family in FAMILIES:
        studies = {study: [(place, one) for place, one in records if one.settings.get("scale") == scale]
                   for study, records in stored.of_task(family.task).items()}  # fmt: skip
        for setting in family.settings:
            every = [one for study, records in studies.items() for one in _of_study(family, setting, study, records)]
            if drawn := [curve for curve, _ in every if curve is not None]:
                found.append(max(drawn, key=lambda one: (one.study == family.usual, len(one.plain), len(one.clean))))
            rest += [told for curve, notes in every if curve is None or curve is found[-1] for told in notes]
    return found, rest


def _of_study(
    family: Family, setting: Setting, study: str, records: Placed
) -> Iterable[tuple[Curve | None, list[str]]]:
    """What a study's records say of a setting: a curve for all runs that were told the same, and what it leaves out."""
    groups: dict[str, list[tuple[str, RunRecord]]] = {}
    for place, record in sorted(records, key=lambda one: one[1].created):  # of two that are alike the newest counts
        if _kind(family, setting, record):
            groups.setdefault(_told(family, record), []).append((place, record))
    every = [json.loads(key) for key in groups]
    names = sorted({name for one in every for name in one if any(other.get(name) != one[name] for other in every)})
    title = ", ".join(filter(None, [family.name.capitalize(), setting.says, study]))
    for told, of in zip(every, groups.values()):
        differs = ", ".join(f"{name} {told[name]}" if name in told else f"no {name}" for name in names)
        alike, notes = of_one_data({0: [record for _, record in of]})
        kept = {id(record) for record in alike[0]}
        curve = _curve(family, setting, study, differs, [one for one in of if id(one[1]) in kept], records)
        ends = "." if curve is not None else "; the others make no line."
        told_of = [f"{title}: {note}{ends}" for note in notes]
        if curve is not None and (zeros := curve.zeros):
            curve, why = None, f"without noise came to 0, of which nothing is a percentage: {few(zeros)}"
            told_of.append(f"{title}: no line, since what was measured {why}.")
        yield curve, told_of


def _kind(family: Family, setting: Setting, record: RunRecord) -> str:
    """Whether a run is "clean", "plain" or "cured"; empty if it is none of the setting's."""
    rate = record.noise.get("error_rate")
    if rate is None or family.metric not in record.metrics or not {*record.budget} >= _BUDGET:
        return ""
    if rate == 0:
        return "clean" * _has(record, {**setting.of_clean, **family.plain})
    kinds = (("plain", family.plain), ("cured", family.cured))
    return next((kind for kind, of in kinds if _has(record, of)), "") if _has(record, setting.where) else ""


def _told(family: Family, record: RunRecord) -> str:
    """The settings that the results of a study depend on, but its plan of compute, as JSON; those not set are off."""
    known = [one.name for one in fields(made_by(family.study).study.settings) if one.metadata["in_result"]]
    told = {name: record.settings[name] for name in known if name != "plan" and record.settings.get(name)}
    return json.dumps(told, sort_keys=True)


def _curve(
    family: Family, setting: Setting, study: str, differs: str, runs: Placed, every: Placed
) -> Curve | None:
    """A curve of runs that were told the same.

    None without runs of the plain loss whose seeds have one without noise, and where two that differ in more than what
    is asked of them would stand at one place.
    """
    slots: Slots = {}
    names: dict[tuple[Any, ...], str] = {}
    for place, record in runs:
        budget, kind = record.budget, _kind(family, setting, record)
        rate, is_own = record.noise["error_rate"], kind != "clean" or not has_more_compute(record)
        slot = (kind, "" if kind == "clean" and is_own else budget["plan"], rate, 0.0 if is_own else budget["exposure"])
        if names.setdefault((*slot, record.seed), record.name) != record.name:
            return None
        slots.setdefault(slot, {})[record.seed] = _figure(family, place, record, every)
    clean = slots.get(("clean", "", 0, 0.0), {})
    found = {plan: _shared(slots, plan, clean) for plan in {plan for kind, plan, *_ in slots if kind == "plain"}}
    if not any(plain for plain, _ in found.values()):
        return None
    plan = max(sorted(found), key=lambda one: (len(found[one][0]), len(found[one][1])))
    plain, cured = found[plan]
    worst = plain[max(plain)]
    equal = [of for (kind, name, _, exposure), of in slots.items() if kind == "clean" and exposure and name == plan
             and is_equal_compute(of, worst)]
    return Curve(family, setting, study, differs, plan, clean, equal[0] if equal else {}, plain, cured)


def _shared(slots: Slots, plan: str, clean: Seeds) -> tuple[dict[float, Seeds], dict[float, Seeds]]:
    """Plain and cured runs of a plan by error rate: of seeds that have one without noise, and both where both were run.

    A cure that has no seed in common with the plain loss of its error rate is left out.
    """
    kinds: dict[str, dict[float, Seeds]] = {"plain": {}, "cured": {}}
    for (kind, name, rate, _), of in sorted(slots.items()):
        if kind in kinds and name == plan and (shared := common(of, clean)[0]):
            kinds[kind][rate] = shared
    plain, cured = kinds["plain"], kinds["cured"]
    for rate in {*plain} & {*cured}:
        both = common(plain[rate], cured[rate])
        if both[0]:
            plain[rate], cured[rate] = both
        else:
            del cured[rate]
    return plain, cured


def _figure(family: Family, place: str, record: RunRecord, every: Placed) -> Figure:
    told, budget = record.metrics[family.metric], record.budget
    ends = (family.times * told["low"], family.times * told["high"]) if "low" in told and "high" in told else None
    helper, helped = _helper(family, record, every)
    return Figure(family.times * told["value"], told["n"], place, ends, budget["sequences"], budget["exposure"],
                  helper, helped, record.wall_seconds, record.hardware)  # fmt: skip


def _helper(family: Family, record: RunRecord, every: Placed) -> tuple[str, float | None]:
    """What was trained for a run besides, and on how many rows, from its record and those of its study."""
    if audited := _AUDITED.search(record.loss.get("rows", "")):
        rows = [one.budget["sequences"] for _, one in every if one.name == audited[1] and "sequences" in one.budget
                and _told(family, one) == _told(family, record)]  # fmt: skip
        return "the run that was audited", rows[-1] if rows else None
    images = record.budget.get("classifier_images")
    if images is not None or record.loss.get("classifier"):  # of one that was given, and of old, there is no count
        return "its classifier", images
    return "", None


def _has(record: RunRecord, where: Mapping[str, Any]) -> bool:
    for place, wanted in where.items():
        part, key = place.split(".")
        if getattr(record, part).get(key) != wanted:
            return False
    return True
