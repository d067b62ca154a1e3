import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_noise.noise.schedule import FixedBudget, Plan, ScaleBatch, ScaleSteps, Schedule, Table6, Table7, plan_named

PAPER = {"steps": 600_000, "batch_size": 480}
NAMES = ["steps", "batch", "table6", "budget"]
ratios = st.floats(0, 50)
steps = st.integers(1, 10**7)
batches = st.integers(1, 10**5)


@pytest.mark.parametrize(
    ("r", "multiplier", "iterations"),
    [(0, 1, 600_000), (0.1, 1, 660_000), (0.3, 1, 780_000), (0.5, 2, 450_000), (1.0, 12, 100_000)],
)
def test_table_6_of_paper_a(r, multiplier, iterations):
    plan = Table6().plan(r, **PAPER)
    assert (plan.steps, plan.batch_size, plan.batch_multiplier) == (iterations, 480 * multiplier, multiplier)
    assert plan.tokens(1024) == iterations * multiplier * 491_520
    assert plan.exposure == pytest.approx(1, abs=1e-12)
    assert plan == dataclasses.replace(ScaleSteps(batch_multiplier=multiplier).plan(r, **PAPER), name="table6")


# Classes -> ratio -> (images per GPU, epochs) as printed; an epoch covers the data once, whatever the batch.
PRINTED = {
    10: {0: (128, 300), 0.1: (128, 330), 0.3: (128, 390), 0.5: (128, 450), 1.0: (256, 300)},
    100: {0: (128, 300), 0.1: (128, 330), 0.3: (256, 195), 0.5: (256, 225), 1.0: (512, 150)},
    1000: {0: (128, 300), 0.1: (128, 330), 0.3: (128, 390), 0.5: (128, 450), 1.0: (128, 600)},
}
TABLE_7 = [(classes, r, *entry) for classes, row in PRINTED.items() for r, entry in row.items()]


@pytest.mark.parametrize(("classes", "r", "batch", "epochs"), TABLE_7)
def test_table_7_of_paper_a_in_both_readings(classes, r, batch, epochs):
    images = 128_000
    base = {"steps": 300 * images // 128, "batch_size": 128}
    printed = Table7(classes=classes, reading="as_printed").plan(r, **base)
    assert (printed.batch_size, printed.sequences) == (batch, epochs * images)
    assert printed.exposure == pytest.approx(epochs / 300 / (1 + r))
    principle = Table7(classes=classes).plan(r, **base)
    assert principle.batch_size == batch and principle.exposure == pytest.approx(1, abs=1e-6)


def test_table_7_has_three_data_sets_and_two_readings():
    with pytest.raises(ValueError, match="10, 100 or 1000 classes, got 50"):
        Table7(classes=50)
    with pytest.raises(ValueError, match="'principle', 'as_printed', got 'literal'"):
        Table7(reading="literal")
    with pytest.raises(ValueError, match="table 7 has no ratio 0.2, only 0, 0.1, 0.3, 0.5, 1"):
        Table7().plan(0.2, steps=10, batch_size=8)
    assert plan_named("table7", classes=100, reading="as_printed") == Table7(classes=100, reading="as_printed")


def test_table_6_knows_a_ratio_with_a_rounding_error():
    assert Table6().plan(0.1 + 0.2, **PAPER).steps == 780_000
    e = 1 / 11
    assert Table6().plan(e / (1 - e), **PAPER).steps == 660_000


@pytest.mark.parametrize("r", [0.2, 0.05, 2, 0.1001])
def test_table_6_has_no_other_ratio(r):
    with pytest.raises(ValueError, match="has no ratio .*only 0, 0.1, 0.3, 0.5, 1; .*'steps', 'batch', 'budget'"):
        Table6().plan(r, **PAPER)


@settings(max_examples=200, deadline=None)
@given(ratios, steps, batches)
def test_clean_exposure_is_constant_up_to_rounding(r, base_steps, base_batch):
    base = {"steps": base_steps, "batch_size": base_batch}
    longer, larger = ScaleSteps().plan(r, **base), ScaleBatch().plan(r, **base)
    assert abs(longer.exposure - 1) <= 0.5 / ((1 + r) * base_steps) + 1e-9
    assert abs(larger.exposure - 1) <= 0.5 / ((1 + r) * base_batch) + 1e-9
    assert longer.batch_size == base_batch and larger.steps == base_steps


@settings(max_examples=200, deadline=None)
@given(ratios, st.integers(1, 16), steps, batches)
def test_batch_multiplier_times_steps_is_one_plus_r_times_base(r, multiplier, base_steps, base_batch):
    plan = ScaleSteps(batch_multiplier=multiplier).plan(r, steps=base_steps, batch_size=base_batch)
    assert plan.batch_size == multiplier * base_batch and plan.batch_multiplier == multiplier
    assert plan.steps >= 1
    wanted = (1 + r) * base_steps
    assert abs(plan.steps * multiplier - wanted) <= max(multiplier / 2, multiplier - wanted) + 1e-6


@settings(max_examples=100, deadline=None)
@given(ratios, steps, batches)
def test_fixed_budget_changes_nothing_but_the_exposure(r, base_steps, base_batch):
    plan = FixedBudget().plan(r, steps=base_steps, batch_size=base_batch)
    assert (plan.steps, plan.batch_size) == (base_steps, base_batch)
    assert plan.exposure == pytest.approx(1 - plan.error_rate)


@settings(max_examples=50, deadline=None)
@given(steps, batches)
def test_all_plans_agree_without_noise(base_steps, base_batch):
    plans = [plan_named(name).plan(0, steps=base_steps, batch_size=base_batch) for name in NAMES]
    assert [plan.name for plan in plans] == NAMES
    clean = Plan(
        name="", ratio=0.0, steps=base_steps, batch_size=base_batch, base_steps=base_steps, base_batch_size=base_batch
    )
    assert {dataclasses.replace(plan, name="") for plan in plans} == {clean}


def test_rounding_goes_to_the_nearest_and_shows_in_the_exposure():
    plan = ScaleBatch().plan(0.1, steps=100, batch_size=12)
    assert plan.batch_size == 13
    assert plan.exposure == pytest.approx(13 / 13.2)
    assert ScaleBatch().plan(0.3, steps=100, batch_size=1).batch_size == 1
    assert ScaleSteps().plan(0.25, steps=3, batch_size=8).steps == 4


def test_at_least_one_step():
    plan = ScaleSteps(batch_multiplier=12).plan(0, steps=1, batch_size=8)
    assert plan.steps == 1 and plan.exposure == 12


def test_counts():
    plan = ScaleSteps().plan(1.0, steps=10, batch_size=4)
    assert (plan.sequences, plan.tokens(16), plan.clean_tokens(16)) == (80, 1280, 640)
    assert FixedBudget().plan(0.5, steps=10, batch_size=3).clean_tokens(7) == 140


@pytest.mark.parametrize("name", NAMES)
def test_dictionary(name):
    plan = plan_named(name).plan(np.float64(0.5), steps=np.int64(10), batch_size=np.int32(4))
    entries = json.loads(json.dumps(plan.to_dict(block_size=8)))
    assert entries["plan"] == name and entries["base_steps"] == 10 and entries["base_batch_size"] == 4
    assert entries["sequences"] == entries["steps"] * entries["batch_size"]
    assert entries["tokens"] == 8 * entries["sequences"]
    assert entries["clean_tokens"] == round(entries["tokens"] * 2 / 3)
    assert "tokens" not in plan.to_dict()


def test_schedules_and_plans_are_frozen_values():
    assert ScaleSteps() == plan_named("steps") and hash(Table6()) == hash(Table6())
    assert ScaleSteps(batch_multiplier=2) != ScaleSteps()
    with pytest.raises(dataclasses.FrozenInstanceError):
        ScaleSteps().plan(0, steps=1, batch_size=1).steps = 2


def test_plan_named_passes_settings_on():
    assert plan_named("steps", batch_multiplier=12) == ScaleSteps(batch_multiplier=12)
    with pytest.raises(TypeError, match="batch_multiplier"):
        plan_named("budget", batch_multiplier=2)


def test_unknown_plan_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown compute plan 'fast'; choose from 'steps', .*'budget'"):
        plan_named("fast")


def test_a_further_schedule_needs_only_its_own_scaling():
    @dataclasses.dataclass(frozen=True)
    class Half(Schedule):
        name = "half"

        def _scaled(self, ratio, steps, batch_size):
            return steps / 2, batch_size

    assert Half().plan(0.5, steps=10, batch_size=2).steps == 5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("r", [-0.1, math.nan, math.inf])
def test_bad_ratio(name, r):
    with pytest.raises(ValueError, match="ratio must be finite and >= 0"):
        plan_named(name).plan(r, **PAPER)


@pytest.mark.parametrize("field", ["steps", "batch_size"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-5, ValueError), (1.5, TypeError), (True, TypeError)])
def test_bad_base(field, value, error):
    with pytest.raises(error, match=rf"{field} must be (>= 1|an integer), got"):
        ScaleSteps().plan(0.5, **{**PAPER, field: value})


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (0.5, TypeError)])
def test_bad_multiplier_and_block_size(value, error):
    with pytest.raises(error, match="batch_multiplier must be"):
        ScaleSteps(batch_multiplier=value)
    with pytest.raises(error, match="block_size must be"):
        ScaleSteps().plan(0.5, **PAPER).tokens(value)


PLAN = {"name": "steps", "ratio": 0.5, "steps": 15, "batch_size": 8, "base_steps": 10, "base_batch_size": 8}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": -1}, "ratio must be finite"), ({"ratio": 1e300}, "ratio 1e\\+300 is so large"),
        ({"ratio": "1"}, "ratio must be"),
        ({"steps": 0}, "steps must be >= 1"), ({"base_steps": 1.5}, "base_steps must be an integer"),
        ({"batch_size": True}, "batch_size must be an integer"),
        ({"base_batch_size": 2**60}, "base_batch_size must be <= 2"),
        ({"name": 3}, "name must be that of a schedule"),
    ],
)  # fmt: skip
def test_a_plan_holds_numbers(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Plan(**PLAN | change)


@pytest.mark.parametrize("name", ["steps", "batch"])
def test_a_run_too_long_to_count_is_refused(name):
    with pytest.raises(ValueError, match="ratio 1e\\+300 makes .* of steps=600000 and batch_size=480"):
        plan_named(name).plan(1e300, **PAPER)


def test_names_and_settings_of_other_types():
    for name in (None, ["steps"], 3):
        with pytest.raises(ValueError, match="unknown compute plan"):
            plan_named(name)
    with pytest.raises(TypeError, match="classes must be an integer, got"):
        Table7(classes=[10])
    with pytest.raises(ValueError, match="reading must be one of"):
        Table7(reading=["principle"])
