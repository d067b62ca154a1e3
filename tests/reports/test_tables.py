"""Markdown tables that also read well in a terminal."""

import pytest

from hf_noise.reports.tables import figure, markdown_table, percent


def test_columns_are_aligned():
    assert markdown_table(["run", "NLL"], [["a long name", "1.5"], ["b", "10.25"]]) == (
        "| run         |   NLL |\n"
        "| ----------- | ----: |\n"
        "| a long name |   1.5 |\n"
        "| b           | 10.25 |"
    )  # fmt: skip


def test_a_table_without_rows_and_with_narrow_columns():
    assert markdown_table(["a", "b"], []) == "| a  |  b |\n| -- | -: |"


def test_figures_have_fixed_digits_and_a_dash_for_none():
    assert figure(1.23456) == "1.235"
    assert figure(-0.5, 1) == "-0.5"
    assert figure(0.0) == "0.000"
    assert figure(None) == "-"


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="a row has 1 cells, the header 2"):
        markdown_table(["a", "b"], [["1"]])


def test_a_cell_cannot_break_the_table():
    table = markdown_table(["run", "value"], [["a | b", "1"], ["two\nlines", "2"]])
    assert table.splitlines()[2:] == ["| a \\| b    |     1 |", "| two lines |     2 |"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figure("1"), "value must be a real number or None, got '1'"), (lambda: figure(True), "value must be"),
        (lambda: figure(1j), "value must be"), (lambda: figure(10**400), "a float can hold"),
        (lambda: figure(1.0, 2**31), r"digits must be an integer in \[0, 17\]"), (lambda: figure(1.0, 1.5), "digits"),
        (lambda: percent(94.1), r"share must lie in \[0, 1\], got 94.1; it is no percentage"),
        (lambda: percent("0.5"), "share must be"), (lambda: markdown_table([], []), "one column at least"),
        (lambda: markdown_table(["a"], [[1]]), "a cell of header or rows must be a text, got 1"),
        (lambda: markdown_table("ab", []), "must be sequences of texts"),
        (lambda: markdown_table(["a"], None), "sequences"),
    ],
)  # fmt: skip
def test_what_is_no_figure_is_refused(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
    assert percent(0.5) == "50.0" and percent(None) == "-" and percent(float("nan")) == "nan"
