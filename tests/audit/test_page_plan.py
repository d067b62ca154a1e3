"""What the page of an audit shows of a plan."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hf_noise.audit.page_plan import planned

_SPEC = importlib.util.spec_from_file_location("pages", Path(__file__).with_name("pages.py"))
pages = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(pages)
page_of, words = pages.page_of, pages.words

OPTION = {"name": "drop", "value": 0.5, "low": 0.25, "high": 1.0, "how": "probes"}


@pytest.mark.parametrize(
    "plan",
    [[OPTION], {"options": [OPTION]}, SimpleNamespace(to_dict=lambda: {"options": [OPTION]}),
     SimpleNamespace(options=(SimpleNamespace(**OPTION),))],
)  # fmt: skip
def test_plans_of_any_form(plan):
    made = planned(plan)
    (one,) = made["options"]
    assert (one["name"], one["value"], one["ends"]) == ("drop", "0.5", "[0.25, 1]")
    assert one["bar"] == {"left": 0, "width": 100, "at": 33.33} and made["how"] == [{"of": "drop", "how": "probes"}]


def test_a_plan_of_accuracies_is_shown_in_percent(tmp_path):
    options = [
        {"name": "given", "does": "as they are", "accuracy": {"value": 0.9, "low": 0.85, "high": 0.95}, "how": "a"},
        {"name": "drop", "accuracy": {"value": 0.95, "low": 0.9, "high": 1.0}, "how": "a",
         "difference": {"value": 0.05, "low": -0.01, "high": 0.11}},
        {"name": "more", "accuracy": None, "value": np.nan, "how": "b"},
    ]  # fmt: skip
    made = planned({"options": options, "best": "drop"})
    assert [one["value"] for one in made["options"]] == ["90.0\xa0%", "95.0\xa0%", None]
    assert [one["bar"] and one["bar"]["left"] for one in made["options"]] == [0, 33.33, None]
    assert made["how"] == [{"of": "given, drop", "how": "a"}, {"of": "more", "how": "b"}]
    said = words(page_of(tmp_path, plan={"options": options, "best": "drop"}))
    assert "drop best 95.0 % [90.0, 100] +5.0 [-1.0, +11.0]" in said and "given as they are 90.0 % [85.0, 95.0]" in said
    assert "Train as the plan calls best: drop." in said and 'best = plan["drop"]' in said
    assert "Train through the noise" not in said
    for best, step in (
        ("given", "Train on the labels as they are."), ("mine", "Train as the plan calls best: mine. By hand."),
        ("corrected", "Train through the noise, which the plan calls best."), ("no option", "Train through the noise."),
    ):  # fmt: skip
        more = [*options, {"name": "corrected"}, {"name": "mine", "does": "by hand"}]
        said = words(page_of(tmp_path, plan={"options": more, "best": best}, rows=0))
        assert step in said and said.count("Train through the noise") == (best not in ("given", "mine")), best
        assert "best = plan[" not in said
    for nothing in (None, [], {"options": []}):
        assert "What each way should lead to" not in words(page_of(tmp_path, plan=nothing))
