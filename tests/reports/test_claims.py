"""Each kind of test on numbers made by hand: seeds that agree or not, one alone, none, and rows that are missing."""

import numpy as np
import pytest
from scipy.stats import binom

from hf_noise.reports.claims import KINDS, judge, others_of, with_others
from hf_noise.reports.paper import Claim, paper_table, paper_table_ids, published
from hf_noise.reports.verdicts import FALSE_ALARM, joined, lies_in, spread

SEEDS = (0, 1, 2)


def claim(kind, *columns, **told):
    test = {"kind": kind, "columns": list(columns), **told}
    return Claim("A.x.c1", "it is so", holds=True, replica=True, again=(test,))


def rows(**columns):
    """Columns of one value for each row r = 0, 1, 2, ..., or of a list of them, one for each seed."""
    count = len(next(iter(columns.values())))
    every = [{name: dict(enumerate(value if isinstance(value := values[row], list) else [value]))
              for name, values in columns.items() if values[row] is not None} for row in range(count)]  # fmt: skip
    return dict(enumerate(every))


def word(kind, *columns, of, **told):
    return judge(claim(kind, *columns, **told), of).word


@pytest.mark.parametrize(("kind", "told", "holds", "fails"), [
    ("monotone_up", {}, {"x": [1, 2, 3]}, {"x": [1, 2, 2]}),
    ("monotone_down", {}, {"x": [3, 2, 1]}, {"x": [3, 3, 1]}),
    ("relative_rise", {"from": 0, "to": 2, "low": 49, "high": 51}, {"x": [2, 9, 3]}, {"x": [2, 9, 3.1]}),
    ("relative_drop", {"from": 0, "to": 1, "low": 25}, {"x": [4, 3, 0]}, {"x": [4, 3.1, 0]}),
    ("range", {"low": 0, "high": 1}, {"x": [0, 1, 0.5]}, {"x": [0, 1.1, 0.5]}),
    ("range", {"low": 0, "at": [0]}, {"x": [1, -1]}, {"x": [-1, 1]}),
    ("flat", {"high": 10}, {"x": [10, 10.5, 9.5]}, {"x": [10, 10.6, 9.5]}),
    ("within", {"high": 10}, {"x": [10, 9.1, 10.9]}, {"x": [10, 9.1, 11.1]}),
    ("within", {"high": 10}, {"x": [10, 9.1, 10.9]}, {"x": [10, 8.9, 10.9]}),
    ("greater", {"a": 1, "b": 0}, {"x": [1, 2]}, {"x": [1, 1]}),
    ("less", {"a": 1, "b": 0}, {"x": [2, 1]}, {"x": [1, 2]}),
    ("difference", {"a": 0, "b": 1, "low": 0, "high": 3}, {"x": [5, 3]}, {"x": [5, 1]}),
    ("ratio_range", {"a": 1, "b": 0, "low": 1, "high": 1.0105}, {"x": [2.89, 2.92]}, {"x": [2.89, 2.93]}),
    ("above", {}, {"x": [2, 2], "y": [1, 1]}, {"x": [2, 1], "y": [1, 1]}),
    ("above", {"at": [0]}, {"x": [2, 1], "y": [1, 1]}, {"x": [1, 2], "y": [1, 1]}),
    ("rises_less", {}, {"x": [10, 11], "y": [1, 1.2]}, {"x": [10, 12], "y": [1, 1.2]}),
    ("rises_less", {"from": 1, "at": [2]}, {"x": [1, 10, 11], "y": [9, 1, 1.2]}, {"x": [20, 10, 12], "y": [1, 1, 1.2]}),
    ("weighted_sum", {"weights": [0.5, -0.5], "low": -1, "high": 1}, {"x": [3, 4], "y": [4, 3]}, {"x": [3], "y": [6]}),
    ("linear", {"low": 0.99}, {"x": [1, 3.1, 5, 7]}, {"x": [1, 2, 4, 8]}),
    ("falls_more", {"a": 0, "b": 1, "low": 3}, {"x": [10, 6], "y": [100, 90]}, {"x": [10, 8], "y": [100, 90]}),
])  # fmt: skip
def test_kinds(kind, told, holds, fails):
    names = ["x", "y"] if "y" in holds else ["x"]
    assert word(kind, *names, of=rows(**holds), **told) == "held (one seed)"
    assert word(kind, *names, of=rows(**fails), **told) == "not held (one seed)"


def test_gain_is_the_mean_over_pairs_and_columns():
    of = {"a": {"x": {0: 50.0}, "y": {0: 60.0}}, "a+lgm": {"x": {0: 51.0}, "y": {0: 59.5}}, "b": {"x": {0: 1.0}}}
    found = judge(claim("gain", "x", "y"), of)
    assert (found.word, found.statistic) == ("held (one seed)", "x, y, mean gain of 2 cells: 0.2500")
    assert word("gain", "x", "y", of=of, low=0.3) == "not held (one seed)"


def test_every_kind_is_tried_here():
    assert set(KINDS) == {*(of[0] for mark in test_kinds.pytestmark for of in mark.args[1]), "gain"}


def test_seeds_that_agree_decide_and_those_that_do_not_leave_it_open():
    assert word("greater", "x", of=rows(x=[[1, 2, 3], [2, 3.1, 4]]), a=1, b=0) == "held"
    assert word("greater", "x", of=rows(x=[[1, 2, 3], [2, 1.5, 4]]), a=1, b=0) == "open"
    assert word("less", "x", of=rows(x=[[1, 2, 3], [2, 3.1, 4]]), a=1, b=0) == "not held"
    assert word("greater", "x", of=rows(x=[[1, 2], [2, 3.1]]), a=1, b=0) == "open", "of two seeds nothing is known"


def test_seeds_are_paired():
    """Seeds lie 100 apart and the difference is always near 1: unpaired it would be lost."""
    apart = rows(x=[[0, 100, 200], [1, 101.1, 200.9]])
    assert word("greater", "x", of=apart, a=1, b=0) == "held"
    lacking = {0: {"x": {0: 1.0, 1: 9.0}}, 1: {"x": {0: 2.0, 2: 0.0}}}
    assert word("greater", "x", of=lacking, a=1, b=0) == "held (one seed)", "the one seed that both rows have"


def test_what_was_not_measured_says_so():
    for of in ({}, rows(x=[1, None]), {0: {"x": {0: 1.0}}, 1: {"x": {1: 2.0}}}):
        found = judge(claim("greater", "x", a=1, b=0), of)
        assert (found.word, found.statistic, found.held) == ("not measured", "no figures", None)
    assert word("monotone_up", "x", of=rows(x=[1, None, None])) == "not measured"
    assert word("gain", "x", of=rows(x=[1, 2])) == "not measured"


def test_a_column_that_nothing_measures_is_left_out_and_the_statistic_names_the_others():
    found = judge(claim("monotone_up", "x", "y"), rows(x=[1, 2], y=[None, None]))
    assert (found.word, found.statistic) == ("held (one seed, a part of the table)", "x: 1.000; without y")
    both = judge(claim("monotone_up", "x", "y"), rows(x=[1, 2], y=[2, 1]))
    assert (both.word, both.statistic) == ("not held (one seed)", "x: 1.000; y: -1.000")


def test_a_claim_without_tests_is_not_judged():
    found = judge(Claim("A.x.c1", "it is so", holds=True, replica=True), rows(x=[1]))
    assert (found.word, found.statistic, found.by_reading) == ("not measured (by reading)", "by reading", True)
    assert not judge(claim("flat", "x", high=1), {}).by_reading


def test_printed_figures_have_tests_of_their_own():
    told = Claim("A.x.c1", "it is so", holds=True, replica=False, printed=claim("less", "x", a=1, b=0).again,
                 again=claim("greater", "x", a=1, b=0).again)  # fmt: skip
    assert judge(told, rows(x=[2, 1]), is_printed=True).held is True and judge(told, rows(x=[2, 1])).held is False


def test_columns_of_other_tables():
    asked = claim("falls_more", "x", "A.table2:y", a=0, b=1, low=3)
    assert others_of(asked) == {"A.table2"} and others_of(claim("flat", "x", high=1)) == set()
    joined = with_others(asked, rows(x=[10, 6]), {"A.table2": rows(y=[100, 90, 80])}.__getitem__)
    assert judge(asked, joined).word == "held (one seed)" and joined[2] == {"A.table2:y": {0: 80}}
    assert judge(asked, rows(x=[10, 6])).word == "not measured"


@pytest.mark.parametrize(("kind", "told"), [
    ("monotone_up", {}), ("monotone_down", {}), ("flat", {"high": 90}), ("within", {"high": 90}), ("rises_less", {}),
])  # fmt: skip
def test_nothing_is_said_without_the_first_row_of_the_table(kind, told):
    of, columns = {1: {"x": {0: 2.0}, "y": {0: 2.0}}, 2: {"x": {0: 3.0}, "y": {0: 4.0}}}, ["x", "y"][: 1 + (not told)]
    assert judge(claim(kind, *columns, **told), of, keys=[0, 1, 2]).word == "not measured"
    base = {0: {"x": {0: 2.5}, "y": {0: 3.0}}}
    assert judge(claim(kind, *columns, **told), base | of, keys=[0, 1, 2]).seeds == 1


@pytest.mark.parametrize(("kind", "columns", "told", "lacks"), [
    ("flat", ["x"], {"high": 99}, ("1",)), ("within", ["x"], {"high": 99}, ("1",)),
    ("flat", ["x", "y"], {"high": 99}, ("1", "y")), ("range", ["x"], {"low": 0, "at": [0, 1]}, ("1",)),
    ("range", ["x"], {"low": 0, "at": [0, 2]}, ()), ("greater", ["x"], {"a": 2, "b": 0}, ()),
    ("above", ["x", "z"], {}, ("1",)), ("rises_less", ["z", "x"], {"at": [1, 2]}, ("1",)),
])  # fmt: skip
def test_a_verdict_tells_which_rows_and_columns_it_is_not_of(kind, columns, told, lacks):
    of = {0: {"x": {0: 2.0}, "z": {0: 1.0}}, 2: {"x": {0: 3.0}, "z": {0: 1.1}}}
    found = judge(claim(kind, *columns, **told), of, keys=[0, 1, 2])
    assert found.lacks == lacks and found.held is True
    assert found.word == ("held (one seed, a part of the table)" if lacks else "held (one seed)")
    assert found.statistic.endswith(f"; without {', '.join(lacks)}") is bool(lacks)


@pytest.mark.parametrize(("kind", "sign"), [("monotone_up", 1), ("monotone_down", -1)])
def test_a_claim_about_every_step_takes_more_than_one_of_several(kind, sign):
    """One step may refute it. Of a table of two rows it is every step; two steps of three are a part of them."""
    of = {0: {"x": {0: 2.0 * sign}, "y": {0: 1.0 * sign}}, 2: {"x": {0: 3.0 * sign}, "y": {0: 1.1 * sign}}}
    found = judge(claim(kind, "x"), of, keys=[0, 1, 2])
    assert (found.word, found.lacks) == ("open (one seed, a part of the table)", ("1",))
    assert found.statistic == f"x: {sign:.3f} (one step alone); without 1"
    assert judge(claim(kind, "x", "y"), of, keys=[0, 1, 2]).held is None, "one step of each of two columns"
    assert judge(claim(kind, "x"), of | {2: {"x": {0: 1.0 * sign}}}, keys=[0, 1, 2]).held is False
    assert judge(claim(kind, "x"), of, keys=[0, 2]).word == "held (one seed)"
    more = judge(claim(kind, "x"), of | {3: {"x": {0: 4.0 * sign}}}, keys=[0, 1, 2, 3])
    assert more.word == "held (one seed, a part of the table)"


#: Five differences with t = -3 and two-sided p = 0.04.
_LOW = [-3 + 5**0.5 * one for one in (-1.0, -1.0, 0.0, 1.0, 1.0)]


def test_of_several_comparisons_one_refutes_a_claim_at_a_level_that_is_theirs_together():
    """Of four 95 % intervals one leaves its range by chance in up to a fifth of all cases; held takes each of them."""
    tests = [{"kind": "greater", "columns": [name], "a": 1, "b": 0} for name in "wxyz"]
    at_0, up, far = [0.0] * 5, [9.0, 9.1, 9.2, 9.3, 9.4], [20 * one for one in _LOW]

    def found(*of, names="wxyz"):
        every = Claim("A.x.c1", "all rise", holds=True, replica=True, again=tuple(tests[: len(names)]))
        return judge(every, rows(**{name: [at_0, one] for name, one in zip(names, of)}))

    assert found(_LOW, names="w").word == "not held" and found(_LOW, names="w").p == pytest.approx(0.04, abs=1e-3)
    assert found(_LOW, up, up, up).word == "open" == found(_LOW, up, names="wx").word
    assert found(up, up, up, up).word == "held" and found(up, up, up, [0.1, 0.2, -0.1, 0.0, 0.1]).word == "open"
    assert found([one - 20 for one in up], up, up, up).word == "not held"
    assert found(up, up, up, at_0).word == "not held", "differences that are all 0 are none, by no chance"
    assert found(_LOW, far, up, up).held is None, "twenty times the difference and the spread is no clearer"


def test_of_one_seed_the_interval_over_test_rows_is_held_against_all_comparisons_too():
    of = rows(x=[0.0, -1.2], y=[0.0, 9.0])

    def found(half, *columns):
        told = {0: {"x": {0: 1e-9}, "y": {0: 1e-9}}, 1: {"x": {0: half}, "y": {0: half}}}
        return judge(claim("monotone_up", *columns), of, half_widths=told)

    assert found(1.1, "x").word == "not held (one seed)" == found(1.0, "x", "y").word
    both = found(1.1, "x", "y")
    assert (both.word, both.p) == ("open (one seed)", pytest.approx(2 * 0.0325, abs=1e-4))
    both = claim("monotone_up", "x", "y")
    assert judge(both, of).word == "not held (one seed)", "exact figures"
    assert judge(both, of, half_widths={0: {}}).word == "not held on these test rows (one seed)"


def test_how_often_a_claim_is_told_wrongly_does_not_grow_with_its_comparisons():
    """Of figures at the edge of their range, eight of five seeds each: both words are to be wrong in 2.5 % of all cases
    at most, where one of eight 95 % intervals ends before the edge in 18 %. A fair rate fails once in a million."""
    draws = np.random.default_rng(0).normal(size=(2000, 8, 5))
    most = binom.isf(1e-6, len(draws), FALSE_ALARM / 2)
    said = [[lies_in(spread(one), low=0) for one in draw] for draw in draws]
    assert sum(any(part.held is False for part in parts) for parts in said) > 2 * most, "each for itself"
    assert 10 < sum(joined(parts).held is False for parts in said) <= most
    said = [[lies_in(spread(one), low=0) for one in [draw[0], *(draw[1:] + 9)]] for draw in draws]
    assert 10 < sum(joined(parts).held is True for parts in said) <= most, "all but the first are far inside"


def test_of_several_tests_and_of_pairs_what_was_not_measured_is_told_too():
    of = {"a": {"x": {0: 1.0}}, "a+lgm": {"x": {0: 2.0}}, "b": {"x": {0: 1.0}}}
    gain = judge(claim("gain", "x"), of, keys=["c", "a", "a+lgm", "b", "b+lgm"])
    assert (gain.word, gain.lacks) == ("held (one seed, a part of the table)", ("b+lgm",)), "c has no row with LGM"
    each = [{"kind": "greater", "columns": ["x"], "a": f"{one}+lgm", "b": one} for one in "ab"]
    every = judge(Claim("A.x.c1", "each", holds=True, replica=True, again=tuple(each)), of)
    assert (every.held, every.lacks) == (True, ("b+lgm",))
    apart = {0: {"x": {0: 1.0}, "y": {0: 1.0}}, 1: {"x": {0: 2.0}, "y": {1: 2.0}}}
    assert judge(claim("greater", "x", "y", a=1, b=0), apart).lacks == ("y",), "its seeds have nothing in common"


def test_one_seed_within_the_error_of_the_test_rows_is_open():
    """98.0 and 98.28 % of 355 images are one image apart."""
    of, halves = rows(x=[98.0, 98.28]), rows(x=[1.5, 1.4])
    found = judge(claim("greater", "x", a=1, b=0), of, half_widths=halves)
    assert (found.word, found.statistic) == ("open (one seed)", "x, 1 less 0: 0.2800 ± 2.0518")  # sqrt(1.5² + 1.4²)
    assert judge(claim("greater", "x", a=1, b=0), of, half_widths=rows(x=[0.1, 0.2])).word == "held (one seed)"
    assert judge(claim("less", "x", a=1, b=0), of, half_widths=rows(x=[0.1, 0.2])).word == "not held (one seed)"
    unknown = judge(claim("greater", "x", a=1, b=0), of, half_widths={0: {"x": {0: 1.5}}})
    assert unknown.word == "held on these test rows (one seed)"
    three, wide = rows(x=[[1, 2, 3], [2, 3.1, 4]]), rows(x=[[9, 9, 9], [9, 9, 9]])
    assert judge(claim("greater", "x", a=1, b=0), three, half_widths=wide).word == "held", "seeds have an interval"


def test_errors_go_through_a_statistic_to_first_order():
    of, halves = rows(x=[10, 11], y=[1, 1.2]), rows(x=[0.1, 0.2], y=[0.01, 0.02])
    said = judge(claim("ratio_range", "x", a=1, b=0, low=1), of, half_widths=halves).statistic
    assert float(said.rpartition("± ")[2]) == pytest.approx((0.02**2 + (0.1 * 11 / 100) ** 2) ** 0.5, rel=1e-2)
    said = judge(claim("rises_less", "x", "y"), of, half_widths=halves).statistic
    told = said.rpartition("± ")[2].removesuffix(" points")
    assert float(told) == pytest.approx((2**2 + 1.1**2 + 2**2 + 1.2**2) ** 0.5, rel=1e-2)


@pytest.mark.parametrize(("kind", "told"), [
    ("ratio_range", {"a": 1, "b": 0, "low": 1.2, "high": 3}), ("relative_rise", {"from": 0, "to": 1, "low": 20}),
    ("relative_drop", {"from": 0, "to": 1, "high": -20}), ("flat", {"high": 300}), ("within", {"high": 300}),
    ("rises_less", {}), ("falls_more", {"a": 0, "b": 1, "low": 3}),
])  # fmt: skip
def test_a_share_of_what_may_be_0_is_open_and_one_of_0_is_not_measured(kind, told):
    """The wider the error of a base, the less is known: it never decides a claim, and stops no report."""
    columns = ["x", "y"][: 1 + (kind in ("rises_less", "falls_more"))]
    of = {0: {"x": {0: 1.0}, "y": {0: 1.0}}, 1: {"x": {0: 2.0}, "y": {0: 4.0}}}
    of = {0: of[0], 1: {"x": {0: -2.0}, "y": {0: 0.9}}} if kind == "falls_more" else of
    assert word(kind, *columns, of=of, **told) == "held (one seed)"
    for half in (0.999, 1.0, 1.5, 3.0, 1e6):
        halves = {key: {column: {0: half if key == 0 else 1e-9} for column in "xy"} for key in of}
        found = judge(claim(kind, *columns, **told), of, half_widths=halves)
        assert found.word == "open (one seed)", half
        assert found.statistic.endswith(" (the base may be 0)") is (half >= 1) and "inf" not in found.statistic
    empty = judge(claim(kind, *columns, **told), of | {0: {"x": {0: 0.0}, "y": {0: 0.0}}})
    assert (empty.word, empty.statistic) == ("not measured", "no figures")
    three = {key: {name: {0: row[name][0], 1: row[name][0], 2: 0.0} for name in "xy"} for key, row in of.items()}
    assert word(kind, *columns, of=three, **told) == "not measured", "of one seed of three nothing can be said"


@pytest.mark.parametrize(("kind", "told", "statistic"), [
    ("range", {"at": [0, 2]}, "x at 0, 2: 1.000, 5.000"), ("range", {}, "x: 1.000, 2.000, 5.000"),
    ("relative_rise", {"from": 0, "to": 1}, "x, from 0 to 1: 100.0 %"),
    ("less", {"a": 0, "b": 2}, "x, 0 less 2: -4.000"), ("ratio_range", {"a": 2, "b": 0}, "x, 2 over 0: 5.000"),
    ("above", {"at": [1]}, "x less y at 1: -2.000"), ("flat", {"high": 1}, "x, largest less smallest: 400.0 %"),
    ("within", {"high": 1}, "x, from the first row: 100.0, 400.0 %"),
    ("rises_less", {"from": 1, "at": [2]}, "x less y, from 1 at 2: 100.0 points"),
    ("falls_more", {"a": 1, "b": 0, "low": 3}, "fall of x beyond 3 times that of y, from 1 to 0: -25.00 points"),
    ("weighted_sum", {"weights": [0.45, -0.55], "at": [2]}, "0.45 x and -0.55 y at 2: -1.050"),
])  # fmt: skip
def test_a_statistic_names_the_columns_and_the_rows_that_it_is_of(kind, told, statistic):
    """Several tests of a claim may look at the same column."""
    columns = ["x", "y"][: 1 + (kind in ("above", "rises_less", "falls_more", "weighted_sum"))]
    assert judge(claim(kind, *columns, **told), rows(x=[1, 2, 5], y=[3, 4, 6])).statistic == statistic


@pytest.mark.parametrize("table", paper_table_ids())
def test_no_two_statistics_of_a_claim_are_called_alike(table):
    published_rows = paper_table(table)
    for one in published(table).claims:
        joined = with_others(one, of_seed_0(published_rows), lambda name: of_seed_0(paper_table(name)))
        found = judge(one, joined, keys=published(table).keys, is_printed=True)
        named = [said.rpartition(":")[0] for said in found.statistic.partition("; without ")[0].split("; ")]
        assert len({*named}) == len(named), found.statistic


def of_seed_0(printed):
    return {key: {column: {0: value} for column, value in row.items()} for key, row in printed.items()}


def test_what_has_no_value_is_not_measured():
    assert word("linear", "x", of=rows(x=[0.1, 0.1, 0.1]), low=0.9) == "not measured"
    assert word("difference", "x", of=rows(x=[1e308, -1e308]), a=0, b=1, high=3) == "not measured"
    found = judge(claim("relative_rise", "x", "y", **{"from": 0, "to": 1}, low=1), rows(x=[0, 1], y=[1, 2]))
    assert (found.word, found.lacks) == ("held (one seed, a part of the table)", ("x",))


@pytest.mark.parametrize(("value", "told"), [
    (2.34567e-7, "2.35e-07"), (0.000234567, "0.000235"), (0.00234567, "0.00235"), (0.0, "0.00"), (-12.3456, "-12.35"),
    (1e300, "1.00e+300"),
])  # fmt: skip
def test_figures_are_told_to_the_digits_that_a_threshold_may_need(value, told):
    assert judge(claim("range", "x", low=-99), rows(x=[value])).statistic == f"x: {told}"


@pytest.mark.parametrize("kind", ["monotone_up", "flat", "within"])
def test_a_column_that_nothing_is_said_of_is_named(kind):
    """Without its first row a column is left out, whatever its other rows say."""
    found = judge(claim(kind, "x", "y", high=300), rows(x=[1, 2, 3], y=[None, 3, 2]))
    assert found.lacks == ("y",) and found.word == "held (one seed, a part of the table)"
