"""Each kind of test on numbers made by hand: one seed, several that agree, several that do not, and none."""

import pytest

from hf_noise.reports.claims import KINDS, judge, others_of, with_others
from hf_noise.reports.paper import Claim

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
    ("greater", {"a": 1, "b": 0}, {"x": [1, 2]}, {"x": [1, 1]}),
    ("less", {"a": 1, "b": 0}, {"x": [2, 1]}, {"x": [1, 2]}),
    ("difference", {"a": 0, "b": 1, "low": 0, "high": 3}, {"x": [5, 3]}, {"x": [5, 1]}),
    ("ratio_range", {"a": 1, "b": 0, "low": 1, "high": 1.0105}, {"x": [2.89, 2.92]}, {"x": [2.89, 2.93]}),
    ("above", {}, {"x": [2, 2], "y": [1, 1]}, {"x": [2, 1], "y": [1, 1]}),
    ("above", {"at": [0]}, {"x": [2, 1], "y": [1, 1]}, {"x": [1, 2], "y": [1, 1]}),
    ("rises_less", {}, {"x": [10, 11], "y": [1, 1.2]}, {"x": [10, 12], "y": [1, 1.2]}),
    ("falls_more", {"a": 0, "b": 1, "low": 3}, {"x": [10, 6], "y": [100, 90]}, {"x": [10, 8], "y": [100, 90]}),
])  # fmt: skip
def test_kinds(kind, told, holds, fails):
    names = ["x", "y"] if "y" in holds else ["x"]
    assert word(kind, *names, of=rows(**holds), **told) == "held (one seed)"
    assert word(kind, *names, of=rows(**fails), **told) == "not held (one seed)"


def test_gain_is_the_mean_over_pairs_and_columns():
    of = {"a": {"x": {0: 50.0}, "y": {0: 60.0}}, "a+lgm": {"x": {0: 51.0}, "y": {0: 59.5}}, "b": {"x": {0: 1.0}}}
    found = judge(claim("gain", "x", "y"), of)
    assert (found.word, found.statistic) == ("held (one seed)", "mean gain of 2 cells: 0.2500")
    assert word("gain", "x", "y", of=of, low=0.3) == "not held (one seed)"


def test_every_kind_is_tried_here():
    assert set(KINDS) == {*(mark.args[1][i][0] for mark in test_kinds.pytestmark for i in range(15)), "gain"}


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
    assert (found.word, found.statistic) == ("held (one seed)", "x: 1.000")
    both = judge(claim("monotone_up", "x", "y"), rows(x=[1, 2], y=[2, 1]))
    assert (both.word, both.statistic) == ("not held (one seed)", "x: 1.000; y: -1.000")


def test_a_claim_without_tests_is_not_judged():
    found = judge(Claim("A.x.c1", "it is so", holds=True, replica=True), rows(x=[1]))
    assert (found.word, found.statistic) == ("not measured", "no program judges it")


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
